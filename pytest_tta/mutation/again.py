"""Run a test of pytest once more, with fresh fixtures and without a report."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["again", "said", "together"]

_LONGEST = 100


def again(item: pytest.Item) -> BaseException | None:
    """Run a test; return what made it fail, None if nothing did.

    The fixtures of the test are made anew, those of its class and module are kept until
    the end of `together`. A test that skips itself has not failed.

    Args:
        item: The test, which has been run and is torn down.
    """
    any_item: Any = item
    if not getattr(item, "_request", True):
        any_item._initrequest()
    hook = item.ihook
    # What is torn down is what stands between the test and its module or class.
    stages: list[tuple[Any, Callable[[], Any]]] = [
        ("setup", lambda: hook.pytest_runtest_setup(item=item)),
        ("call", lambda: hook.pytest_runtest_call(item=item)),
        (
            "teardown",
            lambda: hook.pytest_runtest_teardown(item=item, nextitem=item.parent),
        ),
    ]
    failure: BaseException | None = None
    for when, stage in stages:
        if when == "call" and failure is not None:
            continue
        error = _run(stage, when)
        failure = failure or error
    if hasattr(item, "_request"):
        any_item._request, any_item.funcargs = False, None
    return None if isinstance(failure, pytest.skip.Exception) else failure


def _run(stage: Callable[[], Any], when: Any) -> BaseException | None:  # noqa: ANN401 - as pytest spells it
    done = pytest.CallInfo.from_call(
        stage, when=when, reraise=(pytest.exit.Exception, KeyboardInterrupt)
    )
    return None if done.excinfo is None else done.excinfo.value


@contextmanager
def together(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Let a test be run any number of times inside, without a warning of it.

    Args:
        item: The test.
        nextitem: What runs after it, whose fixtures are kept.
    """
    with warnings.catch_warnings(record=True):
        try:
            yield
        finally:
            state: Any = item.session._setupstate
            state.teardown_exact(nextitem)


def said(error: BaseException) -> str:
    """Return what an error says, on one short line."""
    text = str(error).strip().splitlines()
    first = text[0] if text else ""
    is_failure = isinstance(error, pytest.fail.Exception)
    line = first if is_failure else f"{type(error).__name__}: {first}".rstrip(": ")
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."
