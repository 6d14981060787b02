"""Where in a workflow a double answers: by path, by pattern, or by the primitive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_tta.paths import check_place, hint, matches
from tta_primitives.primitive import WorkflowPrimitive

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Place", "Site"]

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

    @classmethod
    def of(cls, place: Place) -> Site:
        """Read what was given as a place.

        Raises:
            TypeError: It is neither text, nor a primitive, nor a function.
            ValueError: The path is empty or has an empty label.
        """
        if isinstance(place, str):
            check_place("place", place)
        else:
            _check_kind(place)
        return cls(place)

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
        if not matches(self.place, path):
            return _NOWHERE
        labels = self.place.removeprefix("/")
        kind = _EXACT if labels == path else _SUFFIX
        return (_GLOB if _is_pattern(labels) else kind, labels.count("/"))

    def is_among(self, known: list[str]) -> bool:
        """Tell whether a path may be meant; primitives have none to compare."""
        is_path = isinstance(self.place, str)
        return not is_path or any(self.rank(path, None) for path in known)

    def hint(self, known: list[str]) -> str:
        """Say which of the known paths could have been meant."""
        return hint(str(self.place), known)

    def __repr__(self) -> str:
        if isinstance(self.place, (str, WorkflowPrimitive)):
            return repr(self.place)
        return getattr(self.place, "__name__", repr(self.place))


def _check_kind(place: object) -> None:
    if not (isinstance(place, WorkflowPrimitive) or callable(place)):
        msg = (
            f"{place!r} is no place in a workflow; give a path such as 'retry/llm', a "
            "pattern such as '*/llm', a primitive, or the function of a step"
        )
        raise TypeError(msg)


def _is_same(place: object, primitive: WorkflowPrimitive[Any, Any]) -> bool:
    """Tell whether a primitive is the one named, or a bound copy of the same step."""
    function = getattr(primitive, "__wrapped__", None)
    if place is primitive or place is function:
        return True
    return function is not None and getattr(place, "__wrapped__", None) is function


def _is_pattern(path: str) -> bool:
    return "*" in path or "?" in path
