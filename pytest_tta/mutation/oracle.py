"""Whether a mutant does anything else than its original, whatever a test asserts.

Both are executed with the same faults, and what can be seen from outside is compared:
which steps were called when, and how the workflow ended. If that is not enough, each
is called again, as often as a breaker counts and after the times that it has options
for: what a cache keeps is seen by the second call, and for how long by a later one.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from pytest_tta.explore.injected import PermanentFailure
from pytest_tta.explore.outcome import CallSeen, Outcome, Verdict
from pytest_tta.explore.plan import FaultAt
from pytest_tta.explore.sweep import sweep
from tta_primitives.door import Interceptor
from tta_primitives.performance import CachePrimitive
from tta_primitives.primitive import positions
from tta_primitives.recovery.circuit_breaker import CircuitBreakerPrimitive
from tta_primitives.recovery.rate_limit import RateLimitPrimitive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

    from pytest_tta.clock.choices import Chooser
    from pytest_tta.explore.plan import Plan
    from pytest_tta.mutation.rebuilding import Primitive
    from tta_primitives.door import Call

__all__ = [
    "KINDS",
    "Faults",
    "InjectedError",
    "Seen",
    "Watch",
    "is_told_apart",
    "later_calls",
]

KINDS = ("error", "lost-ack", "hang", "fatal", "outage")
_A_LITTLE = 0.001  # Longer than a time that an option says: it is over then.
_MOST_AT_ONCE = 20
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class InjectedError(ConnectionError):
    """What a step raises because the sweep wants it to."""


Faults: TypeAlias = tuple[FaultAt, ...]


class Seen(NamedTuple):
    """What can be seen of an execution from outside.

    Attributes:
        calls: The calls of steps, in the order in which they began.
        events: Who was called and how that ended, each with the virtual time.
    """

    calls: tuple[tuple[str, int], ...]
    events: tuple[object, ...]


class Watch(Interceptor):
    """Lets faults strike at steps, and writes down what can be seen.

    Args:
        faults: What goes wrong.
    """

    def __init__(self, faults: Faults) -> None:
        self._faults = {(one.site, one.number): one.kind for one in faults}
        self._outages = {one.site: one.number for one in faults if one.kind == "outage"}
        self._numbers: Counter[str] = Counter()
        self._calls: list[tuple[str, int]] = []
        self._events: list[object] = []
        self._began: float | None = None

    @property
    def seen(self) -> Seen:
        """What was seen so far."""
        return Seen(tuple(self._calls), tuple(self._events))

    async def execute(self, call: Call, proceed: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 - any primitive's output
        """Execute it, unless a fault strikes."""
        is_step = not call.primitive.children()
        if not is_step and call.parent is not None:
            return await proceed()
        kind = self._begin(call) if is_step else None
        try:
            output = await _struck(kind, proceed)
        except BaseException as error:
            self._end(call, f"raised {type(error).__name__}: {error}")
            raise
        self._end(call, f"returned {output!r}")
        return output

    def stream(
        self, call: Call, proceed: Callable[[], AsyncIterator[Any]]
    ) -> AsyncIterator[Any]:
        """Write down that it began; the faults of streams are others."""
        if not call.primitive.children():
            self._begin(call)
        return proceed()

    def _begin(self, call: Call) -> str | None:
        path = call.path
        self._numbers[path] += 1
        here = (path, self._numbers[path])
        self._calls.append(here)
        self._note(path, f"called with {call.input_data!r}")
        if self._numbers[path] > self._outages.get(path, self._numbers[path]):
            return "outage"
        return self._faults.get(here)

    def _end(self, call: Call, how: str) -> None:
        self._note(call.path, how)

    def _note(self, path: str, what: str) -> None:
        now = asyncio.get_running_loop().time()
        if self._began is None:
            self._began = now
        since = round(now - self._began, 6)
        self._events.append((since, path, _ADDRESS.sub("", what)))


def later_calls(trees: Iterable[Primitive]) -> list[float]:
    """Return after how many seconds workflows are called again, one after the other.

    Args:
        trees: Their roots.
    """
    nodes = [node for tree in trees for _, node in positions(tree._as_operand())]
    times = sorted({time for node in nodes for time in _times_of(node)})
    limits = [_policy(node).threshold for node in nodes if _is_breaker(node)]
    most = min(max([limit or 0 for limit in limits], default=0), _MOST_AT_ONCE)
    return [*[0.0] * (most + 1), *(time + _A_LITTLE for time in times)]


def _times_of(node: Primitive) -> Iterator[float]:
    """Yield the times after which a primitive does something else, in seconds."""
    if isinstance(node, CachePrimitive):
        policy = _policy(node)
        ttl = 0.0 if callable(policy.ttl) else policy.ttl
        found = [ttl, ttl + policy.stale_window, policy.negative_ttl]
    elif _is_breaker(node):
        found = [_policy(node).first_break]
    elif isinstance(node, RateLimitPrimitive):
        found = [node.period]
    else:
        found = []
    yield from (time for time in found if time)


def _is_breaker(node: Primitive) -> bool:
    return isinstance(node, CircuitBreakerPrimitive)


def _policy(node: Any) -> Any:  # noqa: ANN401 - of a cache or a breaker
    return node._policy


async def _struck(kind: str | None, proceed: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 - any primitive's output
    text = "injected"
    if kind in {"error", "outage"}:
        raise InjectedError(text)
    if kind == "fatal":
        raise PermanentFailure(text)
    if kind == "hang":
        await asyncio.get_running_loop().create_future()
    output = await proceed()
    if kind == "lost-ack":
        raise InjectedError(text)
    return output


Look: TypeAlias = "Callable[[Faults], Seen]"

_APART = Verdict("invariant", "the mutant does something else")


def is_told_apart(original: Look, mutant: Look, *, depth: int, limit: int) -> bool:
    """Tell whether an execution with the same faults looks different.

    Args:
        original: Executes the original with faults, and returns what was seen.
        mutant: The same for the mutant.
        depth: How many faults at most.
        limit: How many sets of faults at most.
    """

    def execute(plan: Plan, choose: Chooser | None = None) -> Outcome:  # noqa: ARG001 - the type of what a sweep executes
        seen = original(plan.faults)
        is_apart = seen.events != mutant(plan.faults).events
        struck = {(one.site, one.number) for one in plan.faults}
        calls = [CallSeen(*call, KINDS, call in struck) for call in seen.calls]
        return Outcome(plan, _APART if is_apart else None, tuple(calls))

    return sweep(execute, depth=depth, budget=limit).failure is not None
