"""Paths of positions: how one is named in a test, and which are near a wrong one."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["check_place", "hint", "matches", "nearest"]

_MOST_SHOWN = 3
_ALIKE = 0.6


def check_place(name: str, value: str) -> str:
    """Return a path, the end of one or a pattern, if it can name a position.

    Args:
        name: The parameter, for the message.
        value: Labels joined by slashes; `*` and `?` stand for any characters of a
            label, `**` for any number of labels, a slash at the beginning for the root.

    Raises:
        ValueError: It is empty, has an empty label, or names one execution.
    """
    if not all(value.removeprefix("/").split("/")):
        msg = f"{name}={value!r} must be labels joined by slashes, such as 'answer/llm'"
        raise ValueError(msg)
    if "@" in value:
        msg = f"{name}={value!r} names one execution; name the place, without '@'"
        raise ValueError(msg)
    return value


def matches(pattern: str, path: str) -> bool:
    """Tell whether a pattern names the position with this path, from its end."""
    return _compiled(pattern).fullmatch(path) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    labels = pattern.removeprefix("/").split("/")
    before = "" if pattern.startswith("/") else "(?:[^/]+/)*"
    inner = [
        "(?:[^/]+/)*" if label == "**" else f"{_translated(label)}/"
        for label in labels[:-1]
    ]
    last = "(?:[^/]+/)*[^/]+" if labels[-1] == "**" else _translated(labels[-1])
    return re.compile(before + "".join(inner) + last)


def _translated(label: str) -> str:
    return re.escape(label).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")


def nearest(wanted: str, known: Iterable[str]) -> list[str]:
    """Return the few known paths or names that look most like the wanted one."""
    scored = sorted((-_likeness(wanted, one), one) for one in set(known))
    return [one for score, one in scored if -score >= _ALIKE][:_MOST_SHOWN]


def _likeness(wanted: str, path: str) -> float:
    """Compare with the whole path, and with as much of its end as was given."""
    from difflib import SequenceMatcher  # Only where something has a wrong name.

    end = "/".join(path.split("/")[-len(wanted.strip("/").split("/")) :])
    return max(SequenceMatcher(None, wanted, text).ratio() for text in (path, end))


def hint(wanted: str, known: Iterable[str]) -> str:
    """Say what the wanted path or name could have been."""
    there = sorted(set(known))
    near = nearest(wanted, there)
    if near:
        return f"nearest: {', '.join(map(repr, near))}"
    if not there:
        return "no workflow has run"
    shown = ", ".join(map(repr, there[:_MOST_SHOWN]))
    more = len(there) - _MOST_SHOWN
    return f"there are {shown}" + (f" and {more} more" if more > 0 else "")
