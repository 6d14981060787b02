"""What calls touch: two that touch nothing in common may come in either order.

Only somebody who knows the code can say it. Whatever is not declared counts as touching
one and the same thing, so that nothing is left out without a reason.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeAlias

from tta_primitives.primitive import (
    ParallelPrimitive,
    SequentialPrimitive,
    StepPrimitive,
    positions,
)
from tta_primitives.recovery.fallback import FallbackPrimitive
from tta_primitives.recovery.timeout import TimeoutPrimitive

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tta_primitives.primitive import WorkflowPrimitive

    AnyPrimitive: TypeAlias = WorkflowPrimitive[Any, Any]

__all__ = ["CHANCE", "UNKNOWN", "Footprints"]

CHANCE = "chance"
"""What every primitive may touch that keeps something, or that repeats."""

UNKNOWN = "?"
"""What everything touches of which nothing is declared."""

# They keep nothing from one call to the next, and their own code touches nothing.
_STATELESS = (
    StepPrimitive,
    SequentialPrimitive,
    ParallelPrimitive,
    FallbackPrimitive,
    TimeoutPrimitive,
)


class Footprints:
    """Tell what the call at a site touches, with all that follows until the next call.

    Args:
        touches: By a site, or a pattern with `*`: names of what is touched, such as
            {"bank/*": ["account"]}. Of several patterns the first counts.
        pure: Sites, or patterns, that touch nothing that another call could see.
        above: By a site: what else it touches, declared or not.
    """

    def __init__(
        self,
        touches: Mapping[str, Iterable[str]] | None = None,
        *,
        pure: Iterable[str] = (),
        above: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        self._declared = {
            site: frozenset(_names(site, names))
            for site, names in (touches or {}).items()
        }
        self._declared.update((site, frozenset[str]()) for site in pure)
        self._above = {site: frozenset(names) for site, names in (above or {}).items()}
        self._known: dict[str, frozenset[str]] = {}

    def __call__(self, site: str) -> frozenset[str]:
        """Return the names of what a call touches.

        Args:
            site: The path of the call, or the label of the operation.
        """
        found = self._known.get(site)
        if found is None:
            found = self._declaration(site) | self._above.get(site, frozenset())
            self._known[site] = found
        return found

    @classmethod
    def of(
        cls,
        *workflows: AnyPrimitive,
        touches: Mapping[str, Iterable[str]] | None = None,
        pure: Iterable[str] = (),
    ) -> Footprints:
        """Add what the trees tell: a primitive that keeps state is touched from below.

        A function that is not declared and does not wait, and thus is no site, may be
        called after any site of its tree, so that all of these touch what is unknown.

        Args:
            workflows: The trees that are executed.
            touches: By a site or a pattern: the names of what is touched.
            pure: Sites, or patterns, that touch nothing.
        """
        declared = cls(touches, pure=pure)
        above: dict[str, frozenset[str]] = {}
        for root in workflows:
            stateful: dict[str, set[str]] = {}
            everywhere: set[str] = set()
            for path, primitive in positions(root):
                if not isinstance(primitive, _STATELESS):
                    # One object in two places is one state. Jitter is of all.
                    state = f"{primitive.name} at {id(primitive):x}"
                    stateful[path] = {state, CHANCE}
                elif _is_silent(primitive):
                    everywhere |= declared(path)
            for path, _ in positions(root):
                own = [names for at, names in stateful.items() if _is_in(path, at)]
                above[path] = above.get(path, frozenset()).union(everywhere, *own)
        return cls(touches, pure=pure, above=above)

    def _declaration(self, site: str) -> frozenset[str]:
        if site in self._declared:
            return self._declared[site]
        for pattern, names in self._declared.items():
            if fnmatchcase(site, pattern):
                return names
        return frozenset((UNKNOWN,))


def _names(site: str, names: Iterable[str]) -> Iterator[str]:
    if isinstance(names, str):
        msg = (
            f"touches[{site!r}]={names!r} must be a list of names, such as [{names!r}]"
        )
        raise TypeError(msg)
    yield from names


def _is_in(path: str, at: str) -> bool:
    """Tell whether a position is another one, or below it."""
    return path == at or path.startswith(f"{at}/")


def _is_silent(primitive: AnyPrimitive) -> bool:
    """Tell whether a step calls a function that does not wait for anybody."""
    if not isinstance(primitive, StepPrimitive):
        return False
    signature = primitive._signature
    return not (signature.is_async or signature.is_stream)
