"""Call sites: where the outside is asked, an answer is a choice, and faults strike."""

# ruff: noqa: ANN401 - outputs of any primitive

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any, Final

from pytest_tta.clock.simulation import AT_ONCE
from pytest_tta.doubles.mock import MockPrimitive
from pytest_tta.explore.injected import error_at
from pytest_tta.explore.outcome import CallSeen
from pytest_tta.whereabouts import call_here
from tta_primitives.door import Call, Interceptor, closing
from tta_primitives.primitive import (
    ParallelPrimitive,
    SequentialPrimitive,
    StepPrimitive,
    Wrapper,
)
from tta_primitives.recovery import RetryPrimitive
from tta_primitives.recovery.alternatives import ValuePrimitive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from pytest_tta.clock.simulation import SimulationLoop
    from pytest_tta.explore.plan import Plan
    from tta_primitives.context import Position
    from tta_primitives.primitive import WorkflowPrimitive

__all__ = ["AROUND", "BEFORE", "FLEET", "Hurdle", "RetryStorm", "Seen", "Sites"]

AROUND: Final = ("error", "lost-ack", "hang", "late", "fatal", "outage")
"""The kinds of faults where the effect lies between the call and its answer."""

BEFORE: Final = ("error", "hang", "fatal", "outage")
"""Those where nothing is known of the effect: it comes after the answer."""

FLEET: Final = (
    *("error", "lost-ack", "fatal", "outage"),
    *("drop", "drop-answer", "duplicate", "reorder"),
    *("crash-before", "crash-after", "crash-unacknowledged"),
)
"""Those of a message of the simulated fleet, to the caller, to it and to its worker."""

_HARMLESS = frozenset({"thread:get_platform"})
"""What SDKs ask of the machine that they run on: nothing can go wrong with that."""

MANY_CALLS = 30
"""So many calls of one site in one run are no storm yet, unless a test says more."""

_ADVICE = (
    "bound the retries, let one of them decide, or use a budget; if so many are right, "
    "allow them: @pytest.mark.tta_sweep(max_calls=...)"
)
_CALM_SECONDS = 1.0
# Whoever leaves the outside so much time between any two calls is polling.
_CALM_TIMES = 10

_ASK_NOBODY = (Wrapper, SequentialPrimitive, ParallelPrimitive, ValuePrimitive)


class RetryStorm(BaseException):
    """Report that one site was called again and again in one run.

    It is no `Exception`: whoever retries must not retry this.
    """


class Seen:
    """One call at a site.

    Attributes:
        site: Its path or label.
        number: Which call there.
        kinds: The faults that make sense.
        kind: The fault that strikes it, None for none.
        call: The call of the primitive, None outside of any.
        has_inner: Whether there were sites inside this call.
    """

    __slots__ = ("call", "has_inner", "kind", "kinds", "number", "site")

    def __init__(
        self, site: str, number: int, kinds: tuple[str, ...], call: Call | None
    ) -> None:
        self.site: str = site
        self.number: int = number
        self.kinds: tuple[str, ...] = kinds
        self.call: Call | None = call
        self.kind: str | None = None
        self.has_inner: bool = False

    def error(self) -> BaseException:
        """Make the error of the fault that strikes it."""
        return error_at(self.kind or "error", self.site, self.number, self.call)

    def __str__(self) -> str:
        return f"call {self.number} of {self.site}"


class Sites(Interceptor):
    """Makes calls choice points, and lets a plan's faults strike them.

    As an interceptor it stands next to the steps themselves. Doubles that tests have
    written ask for `site`, and adapters do so for libraries.

    Args:
        loop: The loop of the executions.
        note: Told of each call of a primitive that is no site, for what keeps state.

    Attributes:
        calls: The calls of this execution, in the order in which they began.
        struck: How many of them a fault has struck.
        hanging: The calls that never answer, as long as somebody waits.
        told: Whether a fault has come as an answer, such as HTTP 400, and no error.
        mocks: The mocks that were called, by their ids.
        max_calls: So many more calls of one site in one run than usual are no storm.
    """

    def __init__(
        self, loop: SimulationLoop, note: Callable[[Call], None] | None = None
    ) -> None:
        self._loop = loop
        self._note = note
        self._usual: dict[str, int] = {}
        # Sites in which there are others: faults strike those.
        self._outer: set[str] = set()
        self.mocks: dict[int, MockPrimitive] = {}
        self.max_calls = MANY_CALLS
        self._moments: dict[str, list[float]] = {}
        self.calls: list[Seen] = []
        self._counts: dict[str, int] = {}
        self._before_run: dict[str, int] = {}
        self._by_call: dict[Call, Seen] = {}
        self._paths: dict[Position, str] = {}
        self._faults: dict[tuple[str, int], str] = {}
        self._outages: dict[str, int] = {}
        self.hanging: list[Seen] = []
        self.struck: int = 0
        self.told: bool = False

    def begin(self, plan: Plan) -> None:
        """Begin an execution: forget the calls, and take a plan's faults."""
        self.calls = []
        self.struck = 0
        self.told = False
        self.hanging.clear()
        self.mocks.clear()
        self._counts = {}
        self._before_run = {}
        self._by_call = {}
        self._paths = {}
        self._moments = {}
        self._faults = {(one.site, one.number): one.kind for one in plan.faults}
        self._outages = {
            one.site: one.number for one in plan.faults if one.kind == "outage"
        }

    def begin_run(self) -> None:
        """Begin a run: a storm is counted within one."""
        self._before_run = dict(self._counts)

    def end(self) -> tuple[CallSeen, ...]:
        """Return the calls, after the execution."""
        for seen in self.calls:
            if seen.has_inner:
                self._outer.add(seen.site)
        if not self._faults:
            for site, count in self._counts.items():
                self._usual[site] = max(count, self._usual.get(site, 0))
        outer = self._outer
        return tuple(
            CallSeen(
                seen.site,
                seen.number,
                () if seen.site in outer else seen.kinds,
                seen.kind is not None,
            )
            for seen in self.calls
        )

    # --- as an interceptor ---------------------------------------------------

    def execute(self, call: Call, proceed: Callable[[], Awaitable[Any]]) -> Any:
        """Make the call of a leaf a choice point."""
        primitive = call.primitive
        if call.parent is None or not is_leaf(primitive):
            if self._note is not None:
                self._note(call)
            return proceed()
        return self._at_leaf(call, proceed)

    def _at_leaf(self, call: Call, proceed: Callable[[], Awaitable[Any]]) -> Any:
        seen = self._seen_leaf(call)
        if seen.kind is not None:
            return self._struck(seen, proceed)
        answered = self._loop.answer(seen.site, may_pass=True)
        # As a rule there is nothing to wait for, and so no coroutine to make for it.
        return proceed() if answered is AT_ONCE else _once(answered, proceed)

    async def _struck(self, seen: Seen, proceed: Callable[[], Awaitable[Any]]) -> Any:
        await self.before(seen, may_pass=True)
        output = await proceed()
        await self.after(seen)
        return output

    async def stream(
        self, call: Call, proceed: Callable[[], AsyncIterator[Any]]
    ) -> AsyncIterator[Any]:
        """Make the first chunk of a leaf's stream a choice point."""
        seen = None
        if call.parent is not None and is_leaf(call.primitive):
            seen = self._seen_leaf(call)
            await self.before(seen)
        elif self._note is not None:
            self._note(call)
        async with closing(proceed()) as chunks:
            async for chunk in chunks:
                yield chunk
        if seen is not None:
            await self.after(seen)

    def _seen_leaf(self, call: Call) -> Seen:
        if isinstance(call.primitive, MockPrimitive):
            self.mocks[id(call.primitive)] = call.primitive
        seen = self.saw(self._path_of(call), AROUND, call)
        self._by_call[call] = seen
        above = call.parent_call
        if above is not None and above in self._by_call:
            self._by_call[above].has_inner = True
        return seen

    def _path_of(self, position: Position) -> str:
        """Return a path, of which the part above is known from siblings and attempts.

        To ask for a label is slow, and to ask for a path asks for all of them.
        """
        if type(position) is Call:
            # Most have no label of their own, and say so by an exception.
            label = getattr(position, "_label", None) or position.primitive.name
        else:
            label = position.label
        above = position.parent
        if above is None:
            return label
        path = self._paths.get(above)
        if path is None:
            path = self._paths[above] = self._path_of(above)
        return f"{path}/{label}"

    # --- for doubles and adapters --------------------------------------------

    def site(self, label: str, *, around: bool = True) -> Hurdle:
        """Return what is entered around the effect of a call.

        Args:
            label: The site.
            around: Whether the effect is in the block; otherwise it comes after it.
        """
        kinds = AROUND if around else BEFORE
        return Hurdle(self, self.saw_inside(label, () if label in _HARMLESS else kinds))

    async def delivered(self, path: str) -> Seen:
        """Note a message of a fleet, and wait until its delivery is chosen.

        Args:
            path: Of what a worker shall perform.
        """
        seen = self.saw(f"fleet:{path}", FLEET, call_here())
        await self.before(seen)
        return seen

    def saw_inside(self, label: str, kinds: tuple[str, ...]) -> Seen:
        """Note a call at a site that is no primitive's."""
        call = call_here()
        outer = None if call is None else self._by_call.get(call)
        if outer is not None:
            outer.has_inner = True
        return self.saw(label, kinds, call)

    def saw(self, site: str, kinds: tuple[str, ...], call: Call | None) -> Seen:
        """Note a call, and which fault strikes it.

        Raises:
            RetryStorm: It is one of too many.
        """
        number = self._counts[site] = self._counts.get(site, 0) + 1
        seen = Seen(site, number, kinds, call)
        self.calls.append(seen)
        if self._faults:
            kind = self._faults.get((site, number))
            if kind is None and number > self._outages.get(site, number):
                kind = "outage"
            if kind in kinds:
                seen.kind = kind
                self.struck += 1
            self._moments.setdefault(site, []).append(self._loop.time())
            if number > self.max_calls:
                self._check_storm(seen)
        return seen

    def _check_storm(self, seen: Seen) -> None:
        count = seen.number - self._before_run.get(seen.site, 0)
        allowed = self.max_calls + self._usual.get(seen.site, 0)
        moments = self._moments[seen.site][-count:]
        if count <= allowed or not self.struck:
            return
        if _is_calm(moments) and count <= _CALM_TIMES * allowed:
            return
        said = (
            f"{seen.site} was called {count} times in one run, because of "
            f"{self._why()}, within {moments[-1] - moments[0]:g} virtual s"
        )
        raise RetryStorm("\n".join([said, *_product(seen.call), _ADVICE]))

    def _why(self) -> str:
        """Say what has gone wrong; an outage is one thing, how often it ever struck."""
        what, number = "fault", len(self._faults)
        if len(self._outages) == number:
            what = "outage"
        return f"one {what}" if number == 1 else f"{number} {what}s"

    async def before(self, seen: Seen, *, may_pass: bool = False) -> None:
        """Wait until the call is chosen; fail or hang if the effect must not come."""
        kind = seen.kind
        if kind == "hang":
            await self.hang(seen)
        await self._loop.answer(seen.site, may_pass=may_pass)
        if kind in {"error", "fatal", "outage"}:
            raise seen.error()

    async def after(self, seen: Seen) -> None:
        """Lose the answer, if a fault says so: the effect is done."""
        if seen.kind == "lost-ack":
            raise seen.error()
        if seen.kind == "late":
            await self.hang(seen)

    def operation(self, seen: Seen) -> Awaitable[None]:
        """Return what is done when the call is chosen."""
        return self._loop.answer(seen.site)

    async def hang(self, seen: Seen) -> None:
        """Never answer."""
        self.hanging.append(seen)
        try:
            await self._loop.create_future()
        finally:
            self.hanging.remove(seen)


def _product(position: Position | None) -> Iterator[str]:
    """Say how many calls the retries around a call come to, if there are several."""
    tries: list[int | None] = []
    while position is not None:
        retry = position.primitive
        # Others do not try again what a retry inside of them has given up.
        if isinstance(retry, RetryPrimitive) and (retry.retry_nested or not tries):
            tries.append(retry.max_retries)
        position = position.parent
    bounded = [most + 1 for most in reversed(tries) if most is not None]
    if len(bounded) < 2 or len(bounded) < len(tries):  # noqa: PLR2004 - around each other
        return
    each = " and ".join(map(str, dict.fromkeys(bounded)))
    yield (
        f"{len(bounded)} retries around each other, up to {each} tries each: "
        f"{' x '.join(map(str, bounded))} = {prod(bounded)} calls"
    )


def _is_calm(moments: list[float]) -> bool:
    """Tell whether calls are as far from each other as those of somebody who polls."""
    gaps = (later - earlier for earlier, later in pairwise(moments))
    # The clock counts nanoseconds, and the sums of its seconds are not exact.
    return min(gaps, default=0.0) >= _CALM_SECONDS - 1e-6


async def _once(
    answered: Awaitable[None], proceed: Callable[[], Awaitable[Any]]
) -> Any:
    await answered
    return await proceed()


class Hurdle:
    """What is entered around the effect of a call, once.

    Args:
        sites: Which sites it is one of.
        seen: The call.
    """

    __slots__ = ("_seen", "_sites")

    def __init__(self, sites: Sites, seen: Seen) -> None:
        self._sites = sites
        self._seen = seen

    def __aenter__(self) -> Awaitable[None]:
        seen = self._seen
        if seen.kind is None:
            return self._sites._loop.answer(seen.site)
        return self._sites.before(seen)

    async def __aexit__(
        self, kind: object, error: BaseException | None, trace: object
    ) -> None:
        if error is None and self._seen.kind is not None:
            await self._sites.after(self._seen)


def is_leaf(primitive: WorkflowPrimitive[Any, Any]) -> bool:
    """Tell whether a primitive asks the outside itself.

    A step whose function is sync does not wait for anybody, and a constant cannot fail.
    Of one that a simulated fleet executes, the messages are sites, inside its limit.
    """
    if isinstance(primitive, StepPrimitive):
        signature = primitive._signature
        return signature.is_async or signature.is_stream
    if isinstance(primitive, _ASK_NOBODY):
        return False
    if isinstance(primitive, MockPrimitive):
        return True
    if getattr(getattr(primitive, "engine", None), "is_simulated", False):
        return False
    return not primitive.children()
