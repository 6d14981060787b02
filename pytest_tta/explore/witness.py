"""Watch one execution from near: who made each call, and in which order answers came.

A search executes a test thousands of times and keeps no more than it needs. What it has
found is executed once more, for the report, under the eyes of a `Witness`.
"""

from __future__ import annotations

import asyncio
import linecache
import sys
from asyncio.events import Handle
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_tta.clock.describe import task_line
from pytest_tta.clock.places import is_library, place
from pytest_tta.explore import injected
from pytest_tta.explore.holding import Holding
from pytest_tta.explore.swallowing import Thrown
from tta_primitives.door import tell
from tta_primitives.primitive import StepPrimitive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from pytest_tta.explore.execution import Subject
    from pytest_tta.explore.outcome import Outcome
    from pytest_tta.explore.plan import Plan
    from pytest_tta.explore.sites import Seen

__all__ = ["Happened", "Line", "Witness", "call_name", "witnessed"]

_TOP_OF_CALLBACK = Handle._run.__code__
_MOST_LINES = 4
_WIDEST = 100


class Line(NamedTuple):
    """A line of the user's own code.

    Attributes:
        place: Where it is, as `test_shop.py:12 in pay`.
        text: What stands there.
    """

    place: str
    text: str


class Happened(NamedTuple):
    """Something that happened at a site, or to a task.

    Attributes:
        at: The virtual time, in seconds.
        what: "call" for a call that begins, "answer", or "cancellation" of a task.
        name: The call, as `pay@2`; or the task.
        site: The site of the call; empty for a cancellation.
        number: Which call there.
        kind: The fault that strikes the call; empty if none does.
        task: Who makes it.
        lines: The user's lines that led to it, the innermost first.
    """

    at: float
    what: str
    name: str
    site: str = ""
    number: int = 0
    kind: str = ""
    task: str = ""
    lines: tuple[Line, ...] = ()


def call_name(site: str, number: int) -> str:
    """Return the name of a call, as outlines of traces have it: `pay`, then `pay@2`.

    Args:
        site: Its path or label.
        number: Which call there, from 1.
    """
    return site if number == 1 else f"{site}@{number}"


class Witness:
    """Sees an execution of a test.

    Attributes:
        log: What happened, in its order.
        holding: Who holds which permit, and who waits for which.
        held: The permits that were held when the execution ended, and who took them.
        needed: How many choices against the oldest event it takes, from the first; None
            if nobody has tried.
        numbers: Which call an operation of the loop belongs to: a call that never
            comes to its operation has a number all the same.
        raised: The names of the errors that were injected, by call.
        created: Where tasks were made, `test_shop.py:12 in pay`, by their names.
        thrown: The cancellation, and who has swallowed it; None if there was none.
    """

    def __init__(self) -> None:
        self.log: list[Happened] = []
        self.held: list[str] = []
        self.needed: int | None = None
        self.numbers: dict[tuple[str, int], int] = {}
        self.raised: dict[tuple[str, int], str] = {}
        self.created: dict[str, str] = {}
        self.thrown: Thrown | None = None
        self._thrown_into: asyncio.Task[Any] | None = None
        self._operations: Counter[str] = Counter()
        self.holding: Holding = Holding()
        self._begun: dict[object, Seen] = {}

    def calls(self) -> Iterator[Happened]:
        """Yield the calls, in the order in which they began."""
        return (one for one in self.log if one.what == "call")

    def find(self, site: str, number: int) -> Happened | None:
        """Return a call; None if it was not made.

        Args:
            site: Its site.
            number: Which call there.
        """
        found = (
            one for one in self.calls() if (one.site, one.number) == (site, number)
        )
        return next(found, None)

    @property
    def cancellation(self) -> Happened | None:
        """The cancellation; None if there was none."""
        found = (one for one in self.log if one.what == "cancellation")
        return next(found, None)

    def watch(self, subject: Subject, plan: Plan) -> Outcome:
        """Execute a plan and see what happens.

        Args:
            subject: The test, entered.
            plan: What goes wrong, and which events come first.
        """
        with ExitStack() as stack:
            self._look_at_calls(stack, subject)
            self._look_at_errors(stack, subject)
            self._look_at_tasks(stack, subject)
            self._look_at_answers(stack, subject)
            self._look_at_cancellations(stack, subject)
            self._look_at_permits(stack, subject)
            outcome = subject(plan)
        for task in subject.loop.tasks[subject._first :]:
            self.holding.names.setdefault(task.get_name(), _who(task))
        self.held = self.holding.kept(subject._permits.kept())
        return outcome

    def _look_at_calls(self, stack: ExitStack, subject: Subject) -> None:
        sites = subject.sites
        saw = sites.saw

        def seen(site: str, kinds: tuple[str, ...], call: Any) -> Seen:  # noqa: ANN401 - as there
            made = saw(site, kinds, call)
            task = _current(subject)
            self._begun[task] = made
            lines = (*_definition(made), *_lines(sys._getframe(1)))
            self._note(subject, made, "call", task, lines[:_MOST_LINES])
            if made.kind is not None and call is not None:
                kind, number = made.kind, made.number
                detail = {"fault": kind, "kind": kind, "number": number}
                if site != call.path:
                    # A call of the outside that is no call of a primitive itself.
                    detail["site"] = site
                tell(call, "fault.injected", **detail)
            return made

        _replace(stack, sites, "saw", seen)

    def _look_at_answers(self, stack: ExitStack, subject: Subject) -> None:
        loop = subject.loop
        answer = loop.answer

        async def answered(label: str, *, may_pass: bool = False) -> None:
            task = _current(subject)
            made = self._begun.get(task)
            self._operations[label] += 1
            if made is None or made.site != label:
                await answer(label, may_pass=may_pass)
                return
            self.numbers[label, self._operations[label]] = made.number
            await answer(label, may_pass=may_pass)
            self._note(subject, made, "answer", task)

        _replace(stack, loop, "answer", answered)

    def _look_at_errors(self, stack: ExitStack, subject: Subject) -> None:
        def noted(error: BaseException) -> None:
            made = self._begun.get(_current(subject))
            if made is not None and made.kind is not None:
                self.raised[made.site, made.number] = _name_of(type(error))

        stack.callback(setattr, injected, "noted", injected.noted)
        injected.noted = noted

    def _look_at_cancellations(self, stack: ExitStack, subject: Subject) -> None:
        cancel = subject._cancel

        def cancelled(name: str) -> None:
            tasks = subject.loop.tasks[subject._first :]
            if name == "main":
                tasks = tasks[:1]
            else:
                tasks = [task for task in tasks if task.get_name() == name]
            for task in tasks[:1]:
                told = task_line(task)
                at = told.partition(" at ")[2].partition(", waiting in ")[0]
                lines: tuple[Line, ...] = (Line(at, ""),) if at else ()
                waiting = self._waits_for(task.get_name(), at)
                if waiting is not None:
                    lines = waiting.lines
                self.thrown, self._thrown_into = Thrown(task), task
                self.log.append(
                    Happened(
                        _elapsed(subject),
                        "cancellation",
                        told,
                        "" if waiting is None else waiting.site,
                        0 if waiting is None else waiting.number,
                        task=_who(task),
                        lines=lines,
                    )
                )
            cancel(name)

        _replace(stack, subject, "_cancel", cancelled)

    def _waits_for(self, task: str, at: str) -> Happened | None:
        """Return the call that a task waits for at a place; None if it is none."""
        own = (one for one in reversed(self.log) if one.task.split(" ")[0] == task)
        last = next(own, None)
        is_there = last is not None and last.what == "call" and bool(last.lines)
        if last is None or not is_there or last.lines[0].place != at:
            return None
        return last

    def waits(self, task: str, at: str) -> str:
        """Say which call a task waits for at a place; empty if it is none.

        Args:
            task: The name of the task.
            at: The user's line, as `test_shop.py:12 in pay`.
        """
        last = self._waits_for(task, at)
        return "" if last is None else f"call {last.number} of {last.site}"

    def _look_at_tasks(self, stack: ExitStack, subject: Subject) -> None:
        create: Any = subject.loop.create_task
        made: list[tuple[Any, str]] = []

        def created(coro: Any, **options: Any) -> Any:  # noqa: ANN401 - as the loop
            task = create(coro, **options)
            line = next(_lines(sys._getframe(1)), None)
            if line is not None:
                made.append((task, line.place))
            return task

        def named() -> None:
            # A task gets the name that somebody asked for after it was made.
            self.created = {task.get_name(): place for task, place in made}

        stack.callback(named)
        _replace(stack, subject.loop, "create_task", created)

    def _look_at_permits(self, stack: ExitStack, subject: Subject) -> None:
        holding = self.holding
        for kind in (asyncio.Lock, asyncio.Semaphore):
            acquire: Any = kind.acquire
            release: Any = kind.release
            stack.callback(setattr, kind, "acquire", acquire)
            stack.callback(setattr, kind, "release", release)

            async def taken(permit: Any, acquire: Any = acquire) -> Any:  # noqa: ANN401 - of either kind
                line = next(_lines(sys._getframe(1)), None)
                who = self._task_name(subject)
                place = "" if line is None else line.place
                holding.asks(permit, who, place)
                got = await acquire(permit)
                holding.got(permit, who, place)
                return got

            def returned(permit: Any, release: Any = release) -> None:  # noqa: ANN401 - as above
                release(permit)
                holding.returned(permit, self._task_name(subject))

            setattr(kind, "acquire", taken)  # noqa: B010 - of two classes at once
            setattr(kind, "release", returned)  # noqa: B010 - as above

    def _task_name(self, subject: Subject) -> str:
        """Return the name of the task that runs, and note what it is called here."""
        task = _current(subject)
        if task is None:
            return ""
        name = task.get_name()
        self.holding.names.setdefault(name, _who(task))
        return name

    def _note(
        self,
        subject: Subject,
        made: Seen,
        what: str,
        task: asyncio.Task[Any] | None,
        lines: tuple[Line, ...] = (),
    ) -> None:
        who = "" if task is None else _who(task, _workflow(made))
        if self.thrown is not None and task is self._thrown_into:
            self.thrown.look()
        if task is not None:
            self.holding.names[task.get_name()] = who
        self.log.append(
            Happened(
                _elapsed(subject),
                what,
                call_name(made.site, made.number),
                made.site,
                made.number,
                made.kind or "",
                who,
                lines,
            )
        )


def witnessed(subject: Subject, plan: Plan) -> Witness:
    """Execute a plan once more and return what was seen.

    Args:
        subject: The test, entered.
        plan: What goes wrong, and which events come first.
    """
    witness = Witness()
    witness.watch(subject, plan)
    return witness


def _replace(stack: ExitStack, thing: Any, name: str, function: Any) -> None:  # noqa: ANN401 - any object
    """Stand before a method of one object until a stack is closed."""
    vars(thing)[name] = function
    stack.callback(vars(thing).pop, name)


def _name_of(kind: type) -> str:
    """Return the name of an error as somebody writes it who has imported its module."""
    name = kind.__qualname__
    return name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}"


def _elapsed(subject: Subject) -> float:
    return subject._harness.clock.elapsed


def _current(subject: Subject) -> asyncio.Task[Any] | None:
    return asyncio.current_task(subject.loop)


def _who(task: asyncio.Task[Any], workflow: str = "") -> str:
    """Name a task by what it runs: `Task-2 (pay)`.

    Args:
        task: The task.
        workflow: Whose call it makes, for a task that runs no function of the user's.
    """
    coro = task.get_coro()
    code = getattr(coro, "cr_code", None)
    name = getattr(coro, "__qualname__", "").rpartition("<locals>.")[2]
    if name == "_executed":
        name = "main"  # What executes the workflow that was given to `tta.run`.
    elif code is None or is_library(code.co_filename):
        name = workflow
    return f"{task.get_name()} ({name})" if name else task.get_name()


def _workflow(made: Seen) -> str:
    """Return the name of the workflow that makes a call."""
    return "" if made.call is None else made.call.path.partition("/")[0]


def _lines(frame: FrameType | None) -> Iterator[Line]:
    """Yield the user's lines that led here, the innermost first."""
    while frame is not None and frame.f_code is not _TOP_OF_CALLBACK:
        code = frame.f_code
        if not is_library(code.co_filename):
            text = linecache.getline(code.co_filename, frame.f_lineno)
            yield Line(place((code, frame.f_lasti)), _cut(text.strip()))
        frame = frame.f_back


def _definition(made: Seen) -> Iterator[Line]:
    """Yield where a step is written, which no frame tells: the door calls it."""
    call = made.call
    if call is None or call.parent is None or call.path != made.site:
        return
    primitive = call.primitive
    if isinstance(primitive, StepPrimitive):
        code = getattr(primitive._function, "__code__", None)
        if code is not None and not is_library(code.co_filename):
            text = f"async def {code.co_name}(...)"
            yield Line(place((code, 0)), text)


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 4]} ..."
