"""A strategy for whole workflows: given steps, with primitives around them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from pytest_tta.properties.code import print_as_code
from pytest_tta.properties.needed import needed_hypothesis
from pytest_tta.properties.policies import policies
from tta_primitives.arguments import check_choice, check_count
from tta_primitives.performance.cache import CachePrimitive
from tta_primitives.primitive import (
    ParallelPrimitive,
    SequentialPrimitive,
    WorkflowPrimitive,
    as_operand,
)
from tta_primitives.recovery.bulkhead import BulkheadPrimitive
from tta_primitives.recovery.circuit_breaker import CircuitBreakerPrimitive
from tta_primitives.recovery.fallback import FallbackPrimitive
from tta_primitives.recovery.hedge import HedgePrimitive
from tta_primitives.recovery.rate_limit import RateLimitPrimitive
from tta_primitives.recovery.retry import RetryPrimitive
from tta_primitives.recovery.timeout import TimeoutPrimitive

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hypothesis.strategies import DrawFn, SearchStrategy

__all__ = ["Shape", "workflows"]

Workflow: TypeAlias = WorkflowPrimitive[Any, Any]
Shape: TypeAlias = Literal[
    "retry",
    "timeout",
    "fallback",
    "breaker",
    "bulkhead",
    "rate_limit",
    "hedge",
    "cache",
    "sequential",
    "parallel",
]

_WRAPPERS: dict[str, Callable[..., Workflow]] = {
    "retry": RetryPrimitive,
    "timeout": TimeoutPrimitive,
    "breaker": CircuitBreakerPrimitive,
    "bulkhead": BulkheadPrimitive,
    "rate_limit": RateLimitPrimitive,
    "hedge": HedgePrimitive,
    "cache": CachePrimitive,
    "fallback": FallbackPrimitive,
}
# What gives another type of output than the steps do is asked for by name.
_USUAL: tuple[Shape, ...] = tuple(
    one for one in get_args(Shape) if one not in {"sequential", "parallel"}
)


def workflows(
    steps: Sequence[Workflow | Callable[..., Any]],
    *,
    max_depth: int = 3,
    shapes: Sequence[Shape] = _USUAL,
    max_seconds: float = 60.0,
) -> SearchStrategy[Workflow]:
    """Generate workflows of given steps, with primitives of ours around them.

    The plainest workflow is the first step alone. Each is made anew, so that no
    breaker or cache remembers the example before. A failing example prints as code.

    Args:
        steps: Primitives or functions that take the same input, the plainest first.
        max_depth: So many primitives are at most around each step.
        shapes: Which primitives, the plainest first. `sequential` needs steps whose
            output another can take, and what a `parallel` gives is a list.
        max_seconds: No duration in their options is longer.

    Raises:
        TypeError: A step is neither a primitive nor a function.
        ValueError: There is no step or no shape, a shape is unknown, `max_depth` is no
            count, or `max_seconds` is less than a millisecond.
    """
    if not steps:
        msg = f"steps={steps!r} must have at least one step"
        raise ValueError(msg)
    check_count("max_depth", max_depth)
    known = get_args(Shape)
    if not shapes or isinstance(shapes, str):
        msg = f"shapes={shapes!r} must be a list of shapes, such as ['retry']"
        raise ValueError(msg)
    for shape in shapes:
        check_choice("shapes", shape, known)
    leaves = tuple(as_operand(one) for one in steps)
    print_as_code()
    return _Generator(leaves, tuple(shapes), max_seconds).below(max_depth)


class _Generator:
    """Makes the strategies of all depths, each once.

    Args:
        leaves: The steps.
        shapes: What may stand around them.
        max_seconds: The longest duration.
    """

    def __init__(
        self, leaves: tuple[Workflow, ...], shapes: tuple[Shape, ...], longest: float
    ) -> None:
        st = needed_hypothesis().strategies
        self._steps = st.sampled_from(leaves)
        self._shapes = shapes
        self._number = st.integers(0, len(shapes))
        self._others = st.integers(1, 2)
        self._policies = {
            shape: policies(kind, max_seconds=longest)  # type: ignore[arg-type]  # classes
            for shape, kind in _WRAPPERS.items()
            if shape in shapes
        }
        self._composite = st.composite(self._drawn)

    def below(self, depth: int) -> SearchStrategy[Workflow]:
        """Return the strategy for workflows of at most this depth."""
        found: SearchStrategy[Workflow] = self._steps
        for _ in range(depth):
            # All have one definition, so that Hypothesis can put what is below in the
            # place of what is around it.
            found = self._composite(found)
        return found

    def _drawn(self, draw: DrawFn, inner: SearchStrategy[Workflow]) -> Workflow:
        number = draw(self._number)
        if number == 0:
            return draw(inner)
        shape = self._shapes[number - 1]
        one = draw(inner)
        if shape in {"sequential", "parallel"}:
            others = [draw(inner) for _ in range(draw(self._others))]
            kind = SequentialPrimitive if shape == "sequential" else ParallelPrimitive
            return kind([one, *others])
        policy = draw(self._policies[shape])
        if shape == "fallback":
            policy = {"fallbacks": [draw(inner)], **policy}
        return _WRAPPERS[shape](one, **policy)
