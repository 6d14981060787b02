"""What a test expects of a trace: `S("answer", S("llm"), no("fallback"))`."""

from __future__ import annotations

from types import EllipsisType
from typing import TYPE_CHECKING, TypeAlias

from pytest_tta.paths import check_place, matches
from pytest_tta.trace.snapshot import RecordedError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AnyOrder", "No", "S", "any_order", "no"]

ATTRIBUTES = (
    "attempts",
    "duration",
    "ended_at",
    "error",
    "event_names",
    "events",
    "execution",
    "input",
    "is_stream",
    "kind",
    "label",
    "output",
    "path",
    "started_at",
    "status",
    "task",
)


class S:
    """The pattern of a span: its name, its children in order, its attributes.

    Args:
        name: The name of the primitive, the end of its path (`retry/llm`), or either
            with `*` for any characters and `**` for any labels. A name without `#` is
            also that of the second sibling, `llm#2`.
        children: Patterns of *all* children in the order in which they began; `...`
            stands for any run of children. Without any, nothing is said about children.
        attributes: What attributes of the span must equal. An error is given as a
            class, or as an instance of which class and arguments must be equal;
            durations are virtual seconds, and exact.

    Raises:
        TypeError: A child is no pattern, or a span has no such attribute.
        ValueError: The name is not one.
    """

    __slots__ = ("attributes", "children", "name")

    def __init__(
        self,
        name: str,
        *children: S | AnyOrder | No | EllipsisType,
        **attributes: object,
    ) -> None:
        self.name: str = _checked_name(name)
        self.children: tuple[Child, ...] = tuple(
            _checked_child(name, child) for child in children
        )
        self.attributes: dict[str, object] = _checked_attributes(name, attributes)

    @property
    def rows(self) -> tuple[S | AnyOrder | EllipsisType, ...]:
        """The patterns that take up children, in order."""
        return tuple(child for child in self.children if not isinstance(child, No))

    @property
    def absent(self) -> tuple[No, ...]:
        """What must not stand anywhere below."""
        return tuple(child for child in self.children if isinstance(child, No))

    def fits(self, path: str) -> bool:
        """Tell whether the position with this path has the pattern's name."""
        return matches(self.name, path) or (
            "#" not in self.name and matches(self.name, _without_number(path))
        )

    def __eq__(self, other: object) -> bool:
        # A span or a trace compares itself with a pattern, whichever side it is on.
        if not isinstance(other, S):
            return NotImplemented
        mine = (self.name, self.children, self.attributes)
        return mine == (other.name, other.children, other.attributes)

    def __hash__(self) -> int:
        return hash((self.name, self.children, tuple(self.attributes)))

    def __repr__(self) -> str:
        parts = [repr(self.name)]
        parts += ["..." if child is ... else repr(child) for child in self.children]
        parts += [f"{key}={_shown(value)}" for key, value in self.attributes.items()]
        return f"S({', '.join(parts)})"


class AnyOrder:
    """Patterns of neighbouring children that may have begun in any order."""

    __slots__ = ("patterns",)

    def __init__(self, patterns: tuple[S, ...]) -> None:
        self.patterns: tuple[S, ...] = patterns

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AnyOrder):
            return NotImplemented
        return self.patterns == other.patterns

    def __hash__(self) -> int:
        return hash(self.patterns)

    def __repr__(self) -> str:
        return f"any_order({', '.join(map(repr, self.patterns))})"


class No:
    """What must not have run anywhere below the span in whose pattern it stands."""

    __slots__ = ("pattern",)

    def __init__(self, pattern: S) -> None:
        self.pattern: S = pattern

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, No):
            return NotImplemented
        return self.pattern == other.pattern

    def __hash__(self) -> int:
        return hash(self.pattern)

    def __repr__(self) -> str:
        return f"no{repr(self.pattern)[1:]}"


Child: TypeAlias = "S | AnyOrder | No | EllipsisType"


def any_order(*patterns: S) -> AnyOrder:
    """Expect these children next to each other, begun in any order.

    Args:
        patterns: Each takes up a different child.

    Raises:
        TypeError: There are none, or one is not an `S(...)`.
    """
    if not patterns or not all(isinstance(one, S) for one in patterns):
        msg = f"any_order(...) takes one or more S(...), not {patterns!r}"
        raise TypeError(msg)
    return AnyOrder(patterns)


def no(name: str, **attributes: object) -> No:
    """Expect that nothing of this name, with these attributes, ran below.

    A name that the workflow does not have at all fails, for it would hold whatever
    happens.

    Args:
        name: As for `S`.
        attributes: As for `S`.

    Raises:
        TypeError: A span has no such attribute.
        ValueError: The name is not one.
    """
    return No(S(name, **attributes))


def attribute_holds(expected: object, actual: object) -> bool:
    """Tell whether an attribute is what a pattern expects of it."""
    if isinstance(expected, type) and issubclass(expected, BaseException):
        kind = actual.type if isinstance(actual, RecordedError) else type(actual)
        return issubclass(kind, expected)
    if isinstance(expected, BaseException) and isinstance(actual, BaseException):
        return type(expected) is type(actual) and expected.args == actual.args
    return bool(expected == actual)


def _without_number(path: str) -> str:
    return path.rpartition("#")[0] if "#" in path.rpartition("/")[2] else path


def _checked_name(name: str) -> str:
    if not isinstance(name, str):
        msg = f"name={name!r} must be text, not {type(name).__name__}"
        raise TypeError(msg)
    return check_place("name", name)


def _checked_child(name: str, child: object) -> Child:
    if isinstance(child, (S, AnyOrder, No, EllipsisType)):
        return child
    msg = (
        f"{child!r} cannot stand among the children of S({name!r}); use S(...), "
        "any_order(...), no(...) or ..."
    )
    raise TypeError(msg)


def _checked_attributes(
    name: str, attributes: Mapping[str, object]
) -> dict[str, object]:
    for key in attributes:
        if key not in ATTRIBUTES:
            from difflib import get_close_matches  # Only for this one message.

            near = get_close_matches(key, ATTRIBUTES, 1, 0) or ATTRIBUTES
            msg = (
                f"S({name!r}, {key}=...): a span has no attribute {key!r}; nearest: "
                f"{near[0]!r}, all: {', '.join(ATTRIBUTES)}"
            )
            raise TypeError(msg)
    return dict(attributes)


def _shown(value: object) -> str:
    return value.__name__ if isinstance(value, type) else repr(value)
