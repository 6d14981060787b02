"""Which tests cannot be explored, and how that is said."""

from __future__ import annotations

import inspect
import unittest
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["UNEXPLORED", "async_fixtures", "fail", "refuse", "why_not", "why_not_with"]

UNEXPLORED = pytest.StashKey[str]()
"""Why a test was not explored, for the end of the session."""


def why_not(item: pytest.Item) -> str:
    """Return why a test cannot be explored; empty if it can.

    Args:
        item: The test, not set up yet.
    """
    function = getattr(item, "function", None)
    if function is None or not isinstance(item, pytest.Function):
        return "only functions and methods that pytest itself calls can be explored"
    if hasattr(function, "hypothesis"):
        return (
            "a test with @given makes its own executions; draw plans in it, or explore "
            "a test of one example"
        )
    if item.cls is not None and issubclass(item.cls, unittest.TestCase):
        return "a method of a TestCase cannot be explored; write it as a function"
    return ""


def async_fixtures(item: Any) -> Iterator[str]:  # noqa: ANN401 - pytest.Function tells no types
    """Yield the async fixtures that a test's arguments are made of.

    Args:
        item: The test, not set up yet.
    """
    info = item._fixtureinfo
    waiting, seen = list(info.argnames), set()
    while waiting:
        name = waiting.pop()
        definitions = info.name2fixturedefs.get(name)
        if name in seen or not definitions:
            continue
        seen.add(name)
        made = definitions[-1]
        function = inspect.unwrap(made.func)
        kinds = inspect.iscoroutinefunction, inspect.isasyncgenfunction
        if any(is_kind(function) for is_kind in kinds):
            yield name
        waiting += made.argnames


def why_not_with(names: list[str]) -> str:
    """Return why a test that has async fixtures cannot be explored.

    Args:
        names: What these are called.
    """
    shown = ", ".join(names)
    return (
        f"the async fixture {shown} was made on the event loop of the ordinary run, "
        "and each execution has a loop of its own; have a fixture return a function "
        f"that makes it, and call that in the test: `async def make_{names[0]}(): ...`"
    )


def refuse(item: pytest.Item, why: str, *, is_marked: bool) -> None:
    """Fail a test that a marker has explored in vain; of any other, say it at the end.

    A test that nobody has asked to be explored is as green as it was.

    Args:
        item: The test.
        why: Why it cannot be explored.
        is_marked: Whether a marker asks for it.

    Raises:
        pytest.fail.Exception: A marker asked for it.
    """
    if is_marked:
        fail(item, why)
    item.stash[UNEXPLORED] = why


def fail(item: pytest.Item, why: str) -> NoReturn:
    """Fail a test that cannot be explored.

    Args:
        item: The test.
        why: Why.

    Raises:
        pytest.fail.Exception: Always.
    """
    text = f"{item.nodeid}: cannot be explored: {why}"
    raise pytest.fail.Exception(text, pytrace=False)
