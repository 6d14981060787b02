"""Systems of small tasks, and what executes them: a loop of a few lines for the search.

A task is a generator. It yields the name of an operation and goes on when that has been
chosen, `("sleep", seconds)` for a timer, `("limit", seconds)` for an operation that a
limit may end (then it gets "late"), or a predicate that it waits for. What
`yield` raises is a fault. A system is what makes the tasks of an execution, and its
check.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_tta.clock.choices import Chooser, Unit
from pytest_tta.explore.choosers import replaying
from pytest_tta.explore.outcome import CallSeen, Choice, Outcome, Verdict
from pytest_tta.explore.plan import FaultAt, Plan

Task = Generator[Any, Any, None]
KINDS = ("error", "lost-ack", "hang", "fatal")


class Fault(Exception):
    """What a fault raises."""


class Cancelled(Exception):
    """What a cancellation raises."""


class Hung(Exception):
    """Something waits for ever."""


@dataclass
class Waiting:
    """A task and what it waits for."""

    task: int
    unit: Unit | None
    due: float = 0.0
    ready: Callable[[], bool] | None = None


@dataclass
class World:
    """What one execution of a system holds."""

    make: Callable[[], tuple[Sequence[Task], Callable[[], None]]]
    plan: Plan
    choose: Chooser
    kinds: Sequence[str] = KINDS
    now: float = 0.0
    age: int = 0
    last: int = -1
    early: int = 0
    numbers: dict[str, int] = field(default_factory=dict)
    calls: list[CallSeen] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    rests: list[tuple[str, ...]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)

    def execute(self) -> Outcome:
        """Run all tasks to their end and check."""
        verdict = None
        self.tasks, check = self.make()
        try:
            for number in range(len(self.tasks)):
                self.go_on(number)
            while self.waiting:
                self.rest()
            check()
        except AssertionError as error:
            verdict = Verdict("assertion", str(error), error=error)
        except Hung as error:
            verdict = Verdict("unbounded wait", str(error))
        text = "|".join(self.events)
        return Outcome(
            self.plan,
            verdict,
            tuple(self.calls),
            tuple(self.choices),
            tuple(self.rests),
            "returned" if verdict is None else "broken",
            trail=hashlib.sha256(text.encode()).hexdigest,
            early=self.early,
        )

    def go_on(self, number: int, *, value: Any = None, error: Any = None) -> None:
        """Let a task go on until it waits."""
        task = self.tasks[number]
        while True:
            try:
                wanted = task.throw(error) if error is not None else task.send(value)
            except (StopIteration, Fault, Cancelled):
                break
            value = error = None
            if isinstance(wanted, str):
                fault, error = self.call(wanted)
                if error is not None:
                    continue
                if fault == "hang":
                    self.wait(number, None)
                    return
                self.wait(number, self.unit("op", number, wanted))
                return
            if callable(wanted):
                if wanted():
                    continue
                self.waiting.append(Waiting(number, None, ready=wanted))
                return
            what, seconds = wanted
            if what == "limit":
                self.wait(number, self.unit("op", number, "limited"))
                kind = "deadline"
            else:
                kind = "timer"
            self.wait(number, self.unit(kind, number, what), self.now + seconds)
            return

    def wait(self, number: int, unit: Unit | None, due: float = 0.0) -> None:
        """Note what a task waits for."""
        self.waiting.append(Waiting(number, unit, due))

    def unit(self, kind: Any, number: int, label: str) -> Unit:
        """Make a unit, younger than all others."""
        self.age += 1
        return Unit(kind, number, label, self.numbers.get(label, 0), self.age)

    def call(self, site: str) -> tuple[str, BaseException | None]:
        """Count a call, and tell what goes wrong at it."""
        number = self.numbers[site] = self.numbers.get(site, 0) + 1
        kind = self.struck(site, number)
        self.calls.append(CallSeen(site, number, tuple(self.kinds), bool(kind)))
        if kind in {"error", "fatal", "outage"}:
            return kind, Fault(kind)
        return kind, None

    def struck(self, site: str, number: int) -> str:
        """Return the kind of the plan's fault that strikes a call."""
        for fault in self.plan.faults:
            if fault.site == site and (
                fault.number == number
                or (fault.kind == "outage" and fault.number < number)
            ):
                return fault.kind
        return ""

    def rest(self) -> None:
        """Let one of those who wait go on."""
        names = [f"task-{w.task}" if w.task else "main" for w in self.waiting]
        self.rests.append(tuple(dict.fromkeys(sorted(names))))
        cancelled = self.plan.cancellation
        if cancelled and cancelled.point == len(self.rests) - 1:
            number = (
                0 if cancelled.task == "main" else int(cancelled.task.split("-")[1])
            )
            self.events.append(f"cancel {number}")
            self.end(number)
            self.go_on(number, error=Cancelled())
            return
        for other in self.waiting:
            if other.ready is not None and other.ready():
                self.waiting.remove(other)
                self.go_on(other.task)
                return
        units = self.units()
        if not units:
            msg = f"{', '.join(sorted(set(names)))} wait for ever"
            raise Hung(msg)
        taken = 0
        if len(units) > 1:
            taken = self.choose([w.unit for w in units])
            kinds = tuple(w.unit for w in units)
            self.choices.append(Choice(kinds, taken, self.last))
        self.take(units[taken], [w for w in units if w.unit.kind == "op"])

    def units(self) -> list[Waiting]:
        """Return what may come next, in the order of the loop."""
        found = [w for w in self.waiting if w.unit is not None]
        ops = [w for w in found if w.unit.kind == "op"]
        budget = self.plan.schedule.early - self.early
        timers = [
            w
            for w in found
            if w.unit.kind == "timer"
            or (w.unit.kind == "deadline" and (not ops or budget > 0))
        ]
        due = min((w.due for w in timers), default=0.0)
        timers = [w for w in timers if w.due <= due]
        return ops + sorted(timers, key=lambda w: (w.unit.kind != "timer", w.unit.age))

    def take(self, what: Waiting, ops: Sequence[Waiting]) -> None:
        """Let the task go on that has waited for this."""
        self.last = what.task
        self.events.append(f"{what.unit.label} {what.task}")
        self.now = max(self.now, what.due)
        is_late = what.unit.kind == "deadline"
        self.early += is_late and bool(ops)
        self.end(what.task)
        kind = ""
        if what.unit.kind == "op":
            kind = self.struck(what.unit.label, what.unit.number)
        if kind == "lost-ack":
            # The task itself does its effect, told that the answer will be lost.
            self.go_on(what.task, value="lost-ack")
        else:
            self.go_on(what.task, value="late" if is_late else None)

    def end(self, number: int) -> None:
        """Forget what a task waits for."""
        self.waiting = [w for w in self.waiting if w.task != number]


@dataclass
class Toy:
    """A system that can be executed, and counts how often it was."""

    make: Callable[[], tuple[Sequence[Task], Callable[[], None]]]
    kinds: Sequence[str] = KINDS
    executions: int = 0

    def __call__(self, plan: Plan, choose: Chooser | None = None) -> Outcome:
        """Execute a plan."""
        self.executions += 1
        chooser = choose if choose is not None else replaying(plan.schedule)
        return World(self.make, plan, chooser, self.kinds).execute()


__all__ = ["Cancelled", "Fault", "FaultAt", "Toy"]
