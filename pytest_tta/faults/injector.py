"""The interceptor that makes calls go wrong, and what a test holds of it."""

# ruff: noqa: ANN401 - outputs of any primitive

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_tta.clock.places import caller_spot, place
from pytest_tta.faults import catalogue
from pytest_tta.faults.catalogue import Fault, Strike
from pytest_tta.faults.plan import FaultPlan, FaultRule
from pytest_tta.faults.schedules import Attempt, Schedule, always
from pytest_tta.paths import hint, matches
from tta_primitives.door import Interceptor, closing, tell
from tta_primitives.loops import now
from tta_primitives.primitive import positions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from datetime import timedelta

    from pytest_tta.faults.catalogue import ErrorSource
    from pytest_tta.faults.plan import Place
    from tta_primitives.door import Call
    from tta_primitives.primitive import WorkflowPrimitive

__all__ = ["FaultInjector", "FaultSite", "Injection"]


@dataclass(frozen=True, slots=True)
class Injection:
    """One fault that struck one call.

    Attributes:
        path: The site.
        number: Which call at this site it was, from 1.
        at: When, in seconds since the injector began.
        fault: What went wrong.
    """

    path: str
    number: int
    at: float
    fault: Fault


@dataclass(slots=True)
class _Scripted:
    """A rule with what has become of it."""

    rule: FaultRule
    where: str
    must_strike: bool
    reached: int = 0
    struck: int = 0
    paths: dict[str, None] = field(default_factory=dict)

    @property
    def is_owed(self) -> bool:
        """Whether it has to strike and has not."""
        return self.must_strike and not self.struck

    def __str__(self) -> str:
        what = f"{self.rule.fault!r} at {self.rule.place_text}"
        return f"{what}, scripted at {self.where},"


@dataclass(slots=True, eq=False)
class _Hanging:
    """A call that is kept waiting for ever."""

    path: str
    number: int
    fault: Fault
    where: str

    def __str__(self) -> str:
        return (
            f"{self.path} (call {self.number}) hangs, as {self.fault!r} scripted at "
            f"{self.where}; only a time limit around it ends that: use TimeoutPrimitive"
        )


class FaultInjector(Interceptor):
    """Makes calls go wrong as a test scripts it.

    Args:
        seed: What `chance` draws its lots from.
        plan: Rules that were generated or replayed: it is no problem if one of them
            never strikes.
        began: The loop time that counts as zero for `at_time`, in seconds; that of the
            first call unless given.
    """

    def __init__(
        self,
        *,
        seed: int | str = 0,
        plan: FaultPlan | None = None,
        began: float | None = None,
    ) -> None:
        self.seed = seed
        self.began = began
        self.injected: list[Injection] = []
        self._scripted: list[_Scripted] = []
        self._counts: Counter[str] = Counter()
        self._roots: dict[int, WorkflowPrimitive[Any, Any]] = {}
        self._hanging: list[_Hanging] = []
        if plan is not None:
            self.use(plan, must_strike=False)

    def at(self, place: Place) -> FaultSite:
        """Name where faults strike: `faults.at("retry/llm").hang(when=nth(2))`.

        Args:
            place: As for `FaultRule`.
        """
        return FaultSite(self, place)

    def add(self, place: Place, fault: Fault, schedule: Schedule | None = None) -> None:
        """Let a fault strike at a place.

        Args:
            place: As for `FaultRule`.
            fault: What goes wrong.
            schedule: Which calls at each site it strikes; all unless given.

        Raises:
            TypeError: One of them is of another kind.
            ValueError: The path is none.
        """
        rule = FaultRule(place, fault, always() if schedule is None else schedule)
        self._scripted.append(_Scripted(rule, _caller(), must_strike=True))

    def use(self, plan: FaultPlan, *, must_strike: bool = True) -> None:
        """Add the rules of a plan.

        Args:
            plan: The rules.
            must_strike: Whether a rule that never strikes is a problem at the end.
        """
        where = _caller()
        self._scripted += [_Scripted(rule, where, must_strike) for rule in plan]

    @property
    def plan(self) -> FaultPlan:
        """All rules, as one plan that can be pasted into a test."""
        return FaultPlan(*(one.rule for one in self._scripted))

    def count(self, paths: Iterable[str]) -> None:
        """Count calls that came before the injector was there, by their paths."""
        self._counts.update(paths)

    @property
    def hanging(self) -> list[str]:
        """The calls that are kept waiting at this moment, each in a sentence."""
        return [str(one) for one in self._hanging]

    async def execute(self, call: Call, proceed: Callable[[], Awaitable[Any]]) -> Any:
        """Execute a call, with what goes wrong around it."""
        attempt = self._attempt(call)
        for scripted in self._striking(attempt):
            proceed = partial(self._execute_with, scripted, attempt, proceed)
        return await proceed()

    async def stream(
        self, call: Call, proceed: Callable[[], AsyncIterator[Any]]
    ) -> AsyncIterator[Any]:
        """Stream a call, with what goes wrong around it."""
        attempt = self._attempt(call)
        for scripted in self._striking(attempt):
            proceed = partial(self._stream_with, scripted, attempt, proceed)
        async with closing(proceed()) as chunks:
            async for chunk in chunks:
                yield chunk

    @property
    def is_waiting(self) -> bool:
        """Whether something that was scripted has to happen still."""
        return any(scripted.is_owed for scripted in self._scripted)

    def verify(self, known_paths: Iterable[str] = ()) -> list[str]:
        """Return what was scripted and did not happen, each with the line that did it.

        Args:
            known_paths: Paths of positions, beside those of the workflows that ran.
        """
        owed = [scripted for scripted in self._scripted if scripted.is_owed]
        if not owed:
            return []
        known = {*known_paths, *self._counts}
        for root in self._roots.values():
            known.update(path for path, _ in positions(root))
        return [self._problem(scripted, known) for scripted in owed]

    def _problem(self, scripted: _Scripted, known: set[str]) -> str:
        rule = scripted.rule
        if scripted.reached:
            calls = "1 call" if scripted.reached == 1 else f"{scripted.reached} calls"
            places = ", ".join(map(repr, scripted.paths))
            reason = f"no {rule.schedule!r} among the {calls} at {places}"
            if rule.fault.after_chunks:
                reason += f", or none with more than {rule.fault.after_chunks} chunks"
            return f"{scripted} never struck: {reason}"
        if not isinstance(rule.place, str):
            paths = sorted(self._counts)
            there = f"calls came at {', '.join(map(repr, paths))}" if paths else ""
            return f"{scripted} was never reached: {there or 'no workflow has run'}"
        if any(matches(rule.place, path) for path in known):
            return f"{scripted} was never reached: nothing called that position"
        return (
            f"{scripted} was never reached: no such position; {hint(rule.place, known)}"
        )

    def _attempt(self, call: Call) -> Attempt:
        """Count a call at its site."""
        path = call.path
        self._counts[path] += 1
        if call.parent is None:
            self._roots[id(call.primitive)] = call.primitive
        moment = now()
        if self.began is None:
            self.began = moment
        return Attempt(
            call, path, self._counts[path], round(moment - self.began, 9), self.seed
        )

    def _striking(self, attempt: Attempt) -> list[_Scripted]:
        """Return the rules that strike this call, the one that acts last first."""
        striking = []
        for scripted in reversed(self._scripted):
            if scripted.rule.names(attempt.call, attempt.path):
                scripted.reached += 1
                scripted.paths[attempt.path] = None
                rule = scripted.rule
                if rule.schedule.strikes(attempt.for_fault(rule.fault.name)):
                    striking.append(scripted)
        return striking

    async def _execute_with(
        self, scripted: _Scripted, attempt: Attempt, proceed: Callable[[], Any]
    ) -> Any:
        hanging = self._hang_of(scripted, attempt)
        strike = self._strike(scripted, attempt, proceed, hanging)
        try:
            return await scripted.rule.fault.execute(strike)
        finally:
            self._release(hanging)

    async def _stream_with(
        self, scripted: _Scripted, attempt: Attempt, proceed: Callable[[], Any]
    ) -> AsyncIterator[Any]:
        hanging = self._hang_of(scripted, attempt)
        strike = self._strike(scripted, attempt, proceed, hanging)
        try:
            async with closing(scripted.rule.fault.stream(strike)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self._release(hanging)

    def _strike(
        self,
        scripted: _Scripted,
        attempt: Attempt,
        proceed: Callable[[], Any],
        hanging: _Hanging | None,
    ) -> Strike:
        def struck() -> None:
            self._note(scripted, attempt)
            if hanging is not None:
                self._hanging.append(hanging)

        return Strike(attempt.call, proceed, struck)

    def _note(self, scripted: _Scripted, attempt: Attempt) -> None:
        fault = scripted.rule.fault
        scripted.struck += 1
        self.injected.append(Injection(attempt.path, attempt.number, attempt.at, fault))
        tell(
            attempt.call,
            "fault.injected",
            fault=repr(fault),
            kind=fault.name,
            number=attempt.number,
            scripted_at=scripted.where,
        )

    def _hang_of(self, scripted: _Scripted, attempt: Attempt) -> _Hanging | None:
        fault = scripted.rule.fault
        if not fault.hangs:
            return None
        return _Hanging(attempt.path, attempt.number, fault, scripted.where)

    def _release(self, hanging: _Hanging | None) -> None:
        if hanging in self._hanging:
            self._hanging.remove(hanging)

    def __repr__(self) -> str:
        return f"<FaultInjector seed={self.seed!r} {self.plan!r}>"


class FaultSite:
    """A place in a workflow, to let faults strike there.

    Every method takes `when`, the schedule, and returns the site, so that several
    faults can be scripted in one statement.
    """

    __slots__ = ("_injector", "_place")

    def __init__(self, injector: FaultInjector, place: Place) -> None:
        self._injector = injector
        self._place = place

    def inject(self, fault: Fault, *, when: Schedule | None = None) -> FaultSite:
        """Let a fault strike here.

        Raises:
            TypeError: `fault` or `when` is of another kind.
        """
        self._injector.add(self._place, fault, when)
        return self

    def fail(
        self, error: ErrorSource, *, when: Schedule | None = None, after_chunks: int = 0
    ) -> FaultSite:
        """Raise an error instead of executing the call; see `fail`."""
        return self.inject(catalogue.fail(error, after_chunks=after_chunks), when=when)

    def lost_ack(
        self, error: ErrorSource, *, when: Schedule | None = None, after_chunks: int = 0
    ) -> FaultSite:
        """Execute the call, then raise an error; see `lost_ack`."""
        fault = catalogue.lost_ack(error, after_chunks=after_chunks)
        return self.inject(fault, when=when)

    def hang(self, *, when: Schedule | None = None, after_chunks: int = 0) -> FaultSite:
        """Never answer; see `hang`."""
        return self.inject(catalogue.hang(after_chunks=after_chunks), when=when)

    def slow(
        self,
        delay: float | timedelta,
        *,
        when: Schedule | None = None,
        after_chunks: int = 0,
    ) -> FaultSite:
        """Answer late; see `slow`."""
        return self.inject(catalogue.slow(delay, after_chunks=after_chunks), when=when)

    def cancel(
        self, *, when: Schedule | None = None, after_chunks: int = 0
    ) -> FaultSite:
        """Cancel the task that executes the call; see `cancel`."""
        return self.inject(catalogue.cancel(after_chunks=after_chunks), when=when)

    def returns(
        self, value: object, *, when: Schedule | None = None, after_chunks: int = 0
    ) -> FaultSite:
        """Return another output instead of executing the call; see `returns`."""
        return self.inject(
            catalogue.returns(value, after_chunks=after_chunks), when=when
        )

    def __repr__(self) -> str:
        return f"<FaultSite {self._place!r}>"


def _caller() -> str:
    """Return the user's line that is scripting a fault."""
    return place(caller_spot(__name__))
