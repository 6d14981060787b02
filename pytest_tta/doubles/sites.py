"""Where in a workflow a double answers: by path, by pattern, or by the primitive."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from tta_primitives.primitive import WorkflowPrimitive

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Place", "Site", "nearest"]

Place: TypeAlias = "str | WorkflowPrimitive[Any, Any] | Callable[..., Any]"

_EXACT, _SUFFIX, _GLOB = 3, 2, 1
_NOWHERE: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Site:
    """A place in a workflow, as a script names it.

    Attributes:
        place: A path, the end of a path, a pattern with `*` for one label and `**` for
            any number of them, a primitive, or the function of a step.
    """

    place: Place
    _pattern: re.Pattern[str] | None

    @classmethod
    def of(cls, place: Place) -> Site:
        """Read what was given as a place.

        Raises:
            TypeError: It is neither text, nor a primitive, nor a function.
            ValueError: The path is empty or has an empty label.
        """
        if isinstance(place, str):
            return cls(place, re.compile(_translated(place)))
        _check_place(place)
        return cls(place, None)

    def rank(
        self, path: str, primitive: WorkflowPrimitive[Any, Any] | None
    ) -> tuple[int, ...]:
        """Return how closely this names a position; `()` is falsy and means not at all.

        A whole path, a primitive and a function are closest, then the end of a path,
        then a pattern; among equals the one with more labels.
        """
        if not isinstance(self.place, str):
            is_it = primitive is not None and _is_same(self.place, primitive)
            return (_EXACT, 0) if is_it else _NOWHERE
        if self._pattern is None or not self._pattern.fullmatch(path):
            return _NOWHERE
        kind = _EXACT if self.place == path else _SUFFIX
        return (_GLOB if _is_glob(self.place) else kind, self.place.count("/"))

    def __repr__(self) -> str:
        if isinstance(self.place, (str, WorkflowPrimitive)):
            return repr(self.place)
        return getattr(self.place, "__name__", repr(self.place))


def _check_place(place: object) -> None:
    if not (isinstance(place, WorkflowPrimitive) or callable(place)):
        msg = (
            f"{place!r} is no place in a workflow; give a path such as 'retry/llm', a "
            "pattern such as '*/llm', a primitive, or the function of a step"
        )
        raise TypeError(msg)


def nearest(site: Site | None, paths: list[str], count: int = 3) -> str:
    """Return the paths that look most like a place, the likest first."""
    wanted = str(site.place) if site is not None else ""

    def likeness(path: str) -> float:
        # The end of a path is compared with the end that the script names.
        end = "/".join(path.split("/")[-(wanted.count("/") + 1) :])
        return difflib.SequenceMatcher(None, wanted, end).ratio()

    likest = sorted(dict.fromkeys(paths), key=likeness, reverse=True)
    return ", ".join(map(repr, likest[:count]))


def _is_same(place: object, primitive: WorkflowPrimitive[Any, Any]) -> bool:
    """Tell whether a primitive is the one named, or a bound copy of the same step."""
    function = getattr(primitive, "__wrapped__", None)
    if place is primitive or place is function:
        return True
    return function is not None and getattr(place, "__wrapped__", None) is function


def _is_glob(path: str) -> bool:
    return "*" in path or "?" in path


def _translated(path: str) -> str:
    labels = path.split("/")
    if not all(labels):
        msg = f"place={path!r} must be labels joined by slashes, such as 'retry/llm'"
        raise ValueError(msg)
    parts = [r"(?:[^/]+/)*" if one == "**" else f"{_label(one)}/" for one in labels]
    # A pattern names the end of a path, so anything may stand before it.
    return (
        r"(?:[^/]+/)*"
        + "".join(parts).removesuffix("/")
        + (r"[^/]+" if labels[-1] == "**" else "")
    )


def _label(label: str) -> str:
    escaped = re.escape(label)
    return escaped.replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
