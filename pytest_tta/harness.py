"""What a test holds: a clock, an LLM double, faults and the trace, in one object.

The fixture `tta` is a `Harness` that pytest enters and leaves. In a Hypothesis body, a
script or a REPL it is a context manager:

    with Harness(seed=7) as tta:
        tta.faults.at("llm").fail(TimeoutError(), when=first(2))
        assert tta.run(workflow, "question") == "answer"
        assert tta.clock.elapsed == 1.5
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

from pytest_tta.clock import active
from pytest_tta.clock.clock import VirtualClock
from pytest_tta.clock.describe import task_line
from pytest_tta.clock.places import is_library
from pytest_tta.clock.tasks import all_tasks
from pytest_tta.forgotten import is_forgotten
from pytest_tta.listening import Acting, Hearing, current
from pytest_tta.loops import LoopSource
from pytest_tta.parts import Parts
from pytest_tta.promises import Promises
from pytest_tta.rewinding import Mark
from pytest_tta.trace.recorder import TraceRecorder
from pytest_tta.whereabouts import telling
from tta_primitives import WorkflowContext, chance
from tta_primitives.door import (
    Interceptor,
    Observer,
    add_interceptor,
    add_observer,
    listening,
    remove_interceptor,
    remove_observer,
)
from tta_primitives.primitive import as_operand

if TYPE_CHECKING:
    from collections.abc import (
        Awaitable,
        Callable,
        Iterable,
        Iterator,
    )
    from types import TracebackType
    from typing import Self

    from pytest_tta.clock.clock import ClockMark
    from pytest_tta.doubles.llm import LLMDouble
    from pytest_tta.faults.injector import FaultInjector
    from pytest_tta.faults.plan import FaultPlan
    from pytest_tta.fleet.fleet import SimulatedFleet
    from pytest_tta.parts import Made
    from pytest_tta.promises import Broken
    from pytest_tta.tape.tape import Tape
    from pytest_tta.trace.otel import SpanIntake
    from pytest_tta.trace.recorder import RecorderMark
    from pytest_tta.trace.spans import Trace
    from pytest_tta.wire.transport import Router
    from pytest_tta.wire.wire import Wire
    from tta_primitives import WorkflowPrimitive

__all__ = ["Harness", "HarnessError", "HarnessMark"]

# They hold all else, or what `rewind` leaves to others.
_STATELESS = (
    *("pytest_tta.harness", "pytest_tta.listening", "pytest_tta.parts"),
    "pytest_tta.clock.",
)

A = TypeVar("A")
B = TypeVar("B")


class HarnessError(AssertionError):
    """What was scripted and what happened do not fit together."""


class HarnessMark(NamedTuple):
    """What a harness was at one moment, to return to.

    Attributes:
        clock: The moment of its clock.
        made: Faults, fleet, LLM double, wire, tape and watch, as far as they were made.
        state: What these knew, and what else was asked for.
        trace: What was recorded.
        routers: What answered instead of the network.
        runs: How often `run` had been called.
    """

    clock: ClockMark
    made: Made
    state: Mark
    trace: RecorderMark
    routers: tuple[Router, ...]
    runs: int


class Harness:
    """A clock, an LLM double, faults and a trace for one test.

    Args:
        seed: Seeds jitter, sampled faults, generated replies and ids.
        faults: Faults to begin with, as `fault_plans()` generates them.
        clock: The clock to use, for instance one with another start; a new one unless
            given.
        tape: What providers answer, recorded; or a function that makes it when the test
            first asks for it.

    Attributes:
        seed: As given.
        clock: The clock of the test.
        problems: What went wrong beside the test's own body, each in a sentence.
        runs: How often `run` was called.
        simulated: Executes what `run` is given, while the test is explored.

    Raises:
        TypeError: An argument is of the wrong kind.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        faults: FaultPlan | None = None,
        clock: VirtualClock | None = None,
        tape: Tape | Callable[[], Tape] | None = None,
    ) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int):
            msg = f"seed={seed!r} must be a whole number"
            raise TypeError(msg)
        if clock is not None and not isinstance(clock, VirtualClock):
            msg = (
                f"clock={clock!r} must be a VirtualClock, for instance "
                "VirtualClock(start='2031-01-01')"
            )
            raise TypeError(msg)
        self.seed = seed
        self.clock: VirtualClock = VirtualClock() if clock is None else clock
        self.problems: list[str] = []
        self.runs: int = 0
        self.simulated: Callable[..., Any] | None = None
        # Acts inside of everything else: next to the step itself.
        self.site: Interceptor | None = None
        self._promises = Promises()
        self._recorder = TraceRecorder()
        self._parts = Parts()
        self._made_tape = tape if callable(tape) else None
        self._parts.tape = None if callable(tape) else tape
        # While it acts everywhere: the two hold each other.
        self._acting: Acting | None = None
        self._begin_acting: Callable[[], None] | None = None
        self._stack: ExitStack | None = None
        self._is_watching = False
        self._routers: list[Router] = []
        # What ends when watching does; and of that, what ends when the body does.
        self._scope = ExitStack()
        self._body_scope: ExitStack | None = None
        if faults is not None:
            self._parts.faults = _injector(seed, faults)

    # Both are made, and imported, when a test first asks for them: most tests do not.

    @property
    def faults(self) -> FaultInjector:
        """Faults for the primitives of this test's workflows, by path."""
        if self._parts.faults is None:
            self._parts.faults = _injector(self.seed, None)
            self._parts.faults.began = self._recorder.began
            self._parts.faults.count(span.path for span in self.trace.spans)
            self._act()
        return self._parts.faults

    @property
    def fleet(self) -> SimulatedFleet:
        """Workers on a bad network, in virtual time, for any step of this test."""
        if self._parts.fleet is None:
            from pytest_tta.fleet.fleet import SimulatedFleet

            self._parts.fleet = SimulatedFleet(seed=self.seed)
            self._act()
        return self._parts.fleet

    @property
    def llm(self) -> LLMDouble:
        """A scripted double of a language model."""
        if self._parts.llm is None:
            from pytest_tta.doubles.llm import LLMDouble

            self._parts.llm = LLMDouble(seed=self.seed)
            self._act()
        return self._parts.llm

    @property
    def wire(self) -> Wire:
        """Fake providers of language models under the vendors' real SDKs."""
        if self._parts.wire is None:
            from pytest_tta.wire.wire import Wire

            self._parts.wire = Wire(seed=self.seed)
            self._connect()
        return self._parts.wire

    @property
    def tape(self) -> Tape:
        """What providers of language models answered, recorded.

        Raises:
            RuntimeError: There is no file for it.
        """
        if self._parts.tape is None:
            if self._made_tape is None:
                msg = (
                    "a tape has a file, and this harness was given none: write for "
                    "instance Harness(tape=Tape('tapes/weather.yaml'))"
                )
                raise RuntimeError(msg)
            self._parts.tape = self._made_tape()
            self._connect()
        return self._parts.tape

    def always(self, check: Callable[[], object], sentence: str) -> None:
        """State what holds at the end, whatever goes wrong on the way.

        It is checked when the test's body has ended. While a test is explored, it is
        checked at the end of every execution, also of one in which a fault reached the
        caller and the assertions of the body had no say:

            tta.always(lambda: bank.charges.count(order) <= 1, "an order is paid once")

        Args:
            check: Returns whether it holds, or raises an AssertionError; without
                arguments, and no coroutine function.
            sentence: What holds, for the report.

        Raises:
            TypeError: One of them is of another kind.
        """
        self._promises.always(check, sentence)

    def sometimes(self, name: str, condition: object = True) -> None:  # noqa: FBT002 - read as a sentence: sometimes(x, y > 1)
        """Mark something that at least one execution of an explored test reaches.

        The report of an exploration lists what was marked and never reached:

            tta.sometimes("stale served", answer == "old")

        Args:
            name: What is reached, for the report.
            condition: Whether it is reached here.

        Raises:
            TypeError: The name is none.
        """
        self._promises.sometimes(name, condition)

    def keep(self) -> None:
        """Write what was recorded; for a test that has ended well.

        Raises:
            TapeError: A key would get into the file.
        """
        if self._parts.tape is not None:
            self._parts.tape.save()

    def _connect(self) -> None:
        """Let wire and tape answer instead of the network, until watching ends."""
        if not self._is_watching:
            return
        if self._parts.wire is not None and self._recorder.began is not None:
            self._parts.wire.start(self._recorder.began)
        for router in (self._parts.wire, self._parts.tape):
            if router is not None and router not in self._routers:
                from pytest_tta.wire.transport import answering

                self._routers.append(router)
                scope = self._body_scope or self._scope
                scope.enter_context(answering(router))

    def _act(self) -> None:
        if self._begin_acting is not None:
            self._begin_acting()

    @property
    def trace(self) -> Trace:
        """What the workflows have done so far."""
        return self._recorder.trace

    @property
    def elapsed(self) -> float:
        """Virtual seconds since the clock started."""
        return self.clock.elapsed

    def __enter__(self) -> Self:
        """Take over time, chance and the door for the current scope.

        Raises:
            RuntimeError: It was entered already, or an event loop is running whose time
                is not that of the harness's clock.
        """
        if self._stack is not None:
            msg = f"{self!r} was entered already; leave it first, or make another one"
            raise RuntimeError(msg)
        _refuse_running_loop(self.clock)
        with ExitStack() as stack:
            stack.enter_context(_alone(self.clock))
            stack.enter_context(LoopSource().in_virtual_time(self.clock))
            stack.enter_context(self.watching())
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give everything back; then fail for what was scripted and not used.

        Raises:
            HarnessError: The block raised nothing, but a reply or a fault was not used,
                a call came that nobody expected, or something was left running.
        """
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.close()
        problems = self.verify()
        # Hypothesis shrinks an AssertionError, and lets other BaseExceptions through.
        if (error is None and problems) or _is_unexpected(error):
            raise HarnessError("\n".join(problems) or str(error)) from None
        if error is None:
            self.keep()

    def __repr__(self) -> str:
        return f"<Harness seed={self.seed} elapsed={self.elapsed:g}>"

    @contextmanager
    def watching(self, *, whole_process: bool = False) -> Iterator[None]:
        """Seed chance, and listen at the door.

        Args:
            whole_process: Also for tasks and threads that do not descend from here;
                calls inside another harness are left to that one.
        """
        if active.clock is self.clock:
            # Zero is where the clock starts, not where the first call does.
            self._recorder.began = self.clock.time
            if self._parts.faults is not None:
                self._parts.faults.began = self.clock.time
        token = current.set(self)
        self._is_watching = True
        listen = self._listening_everywhere if whole_process else self._listening_here
        try:
            with (
                chance.seeded(self.seed),
                telling(self._remarks),
                listen(),
                self._scope,
            ):
                self._connect()
                yield
        finally:
            self._is_watching = False
            self._body_scope = None
            self._routers.clear()
            current.reset(token)

    @overload
    def run(
        self,
        workflow: WorkflowPrimitive[A, B] | Callable[[A], Awaitable[B]],
        input_data: A,
        context: WorkflowContext | None = None,
    ) -> B: ...
    @overload
    def run(
        self,
        workflow: Callable[[A], B],
        input_data: A,
        context: WorkflowContext | None = None,
    ) -> B: ...
    def run(
        self,
        workflow: WorkflowPrimitive[A, Any] | Callable[[A], Any],
        input_data: A,
        context: WorkflowContext | None = None,
    ) -> Any:
        """Execute a workflow in a fresh event loop in virtual time.

        Args:
            workflow: A primitive, or a function that could be one.
            input_data: Its input.
            context: The context of the run; a new one unless given.

        Returns:
            Its output.

        Raises:
            RuntimeError: The harness was not entered, or an event loop is running
                already; await `workflow.execute` there instead.
        """
        __tracebackhide__ = True
        if not self._is_watching:
            msg = (
                f"{self!r} is not entered, so that nothing would be recorded or "
                "injected; write `with Harness() as tta:` around tta.run(...)"
            )
            raise RuntimeError(msg)
        if asyncio.events._get_running_loop() is not None:
            msg = (
                "tta.run(...) starts an event loop of its own, and one is running: in "
                "an async test write `await workflow.execute(input, WorkflowContext())`"
            )
            raise RuntimeError(msg)
        self.runs += 1
        if self.simulated is not None:
            return self.simulated(workflow, input_data, context)
        return self.clock.run(self._execute(workflow, input_data, context))

    async def _execute(
        self,
        workflow: WorkflowPrimitive[A, B] | Callable[[A], Awaitable[B]],
        input_data: A,
        context: WorkflowContext | None,
    ) -> B:
        before = all_tasks(asyncio.get_running_loop())
        primitive = as_operand(workflow)
        # Cancelled means that the clock gave up on everybody: nobody was forgotten.
        try:
            context = context or WorkflowContext()
            output: B = await primitive.execute(input_data, context)
        except Exception:
            await self._note_new_tasks(before)
            raise
        else:
            await self._note_new_tasks(before)
        finally:
            # What it raises leads to this frame, and from there to the task.
            before.clear()
        return output

    async def _note_new_tasks(self, before: set[asyncio.Task[Any]]) -> None:
        left = all_tasks(asyncio.get_running_loop()) - before
        if any(task.cancelling() for task in left):
            # Who was cancelled at the very end has not heard of it yet.
            await asyncio.sleep(0)
        self.note_left_running(left)

    def note_left_running(self, tasks: set[asyncio.Task[Any]]) -> None:
        """Keep tasks that should have ended as problems, each with its line."""
        lines = sorted(map(task_line, filter(is_forgotten, tasks)))
        self.problems += [
            f"left running: task {line}; await or cancel it" for line in lines
        ]

    def verify(self) -> list[str]:
        """Return what does not fit together, each with the line that scripted it."""
        unfinished = [
            f"{span.path} began and never ended" for span in self._recorder.unfinished()
        ]
        found = list(self.problems)
        found += [broken.text for broken in self.broken_promises()]
        found += self.verify_script()
        return list(dict.fromkeys([*found, *unfinished]))

    def broken_promises(self) -> list[Broken]:
        """Return the invariants that do not hold."""
        return self._promises.broken()

    def reached(self) -> dict[str, bool]:
        """Return what is sometimes reached, by name, and whether it was."""
        return dict(self._promises.reached)

    def verify_script(self) -> list[str]:
        """Return what doubles, wire, tape, faults and fleet expected otherwise."""
        return self._parts.verify(self._recorder.known_paths)

    def audit(self) -> list[str]:
        """Return what clients did wrong with what they were answered on the wire."""
        wire = self._parts.wire
        return [] if wire is None else [str(one) for one in wire.findings()]

    def mark(self, keep: Iterable[object] = ()) -> HarnessMark:
        """Remember what the harness is now, so that `rewind` can return to it.

        Args:
            keep: Objects of the test, such as what fixtures have made, whose state is
                remembered as well, if their classes are the test's own.
        """
        if self._body_scope is None and self._is_watching:
            self._body_scope = self._scope.enter_context(ExitStack())
        made = self._parts.made
        roots = (*made, self._promises, self.problems, *keep)
        return HarnessMark(
            self.clock.mark(),
            made,
            Mark(roots, _has_state),
            self._recorder.mark(),
            tuple(self._routers),
            self.runs,
        )

    def rewind(self, mark: HarnessMark) -> None:
        """Return to a mark: what was made since then is dropped, all else as it was.

        It takes a few microseconds. The clock is left to whoever runs the loop.

        Args:
            mark: What `mark` gave.
        """
        if self._body_scope is not None:
            self._body_scope.close()
        self._parts.made = mark.made
        mark.state.restore()
        self._recorder.rewind(mark.trace)
        self._routers[:] = mark.routers
        self.runs = mark.runs

    @property
    def recorder(self) -> TraceRecorder:
        """What writes down the calls of this test."""
        return self._recorder

    def begin_acting(self) -> None:
        """Let `site` act from now on, as doubles and faults do once they are there."""
        self._act()

    def _remarks(self) -> list[str]:
        return [] if self._parts.faults is None else self._parts.faults.hanging

    def _hearing(self) -> Observer:
        # Whoever has mocks has imported them.
        if "pytest_tta.doubles.mock" in sys.modules:
            from pytest_tta.doubles.watch import DoublesWatch

            self._parts.watch = DoublesWatch()
        return Hearing(self, self._recorder, self._parts.watch, self._take_spans_in)

    def _take_spans_in(self) -> SpanIntake:
        """Hear of the spans that code makes with OpenTelemetry, until watching ends."""
        from pytest_tta.trace.otel import SpanIntake, hearing_spans

        self._scope.enter_context(hearing_spans())
        return SpanIntake(self._recorder)

    @contextmanager
    def _listening_here(self) -> Iterator[None]:
        acting = Acting(self, self._parts)
        with listening(observers=(self._hearing(),), interceptors=(acting,)):
            yield

    @contextmanager
    def _listening_everywhere(self) -> Iterator[None]:
        hearing = self._hearing()
        add_observer(hearing)
        self._begin_acting = self._act_everywhere
        if any((self._parts.llm, self._parts.faults, self._parts.fleet)):
            self._act_everywhere()
        try:
            yield
        finally:
            self._begin_acting = None
            acting, self._acting = self._acting, None
            if acting is not None:
                remove_interceptor(acting)
            remove_observer(hearing)

    def _act_everywhere(self) -> None:
        # Once: it looks for the double and the faults each time that it acts.
        if self._acting is None:
            self._acting = Acting(self, self._parts)
            add_interceptor(self._acting)


def _refuse_running_loop(clock: VirtualClock) -> None:
    loop = asyncio.events._get_running_loop()
    if loop is not None and getattr(loop, "clock", None) is not clock:
        msg = (
            f"an event loop is running, and it is not in the time of {clock!r}: enter "
            "the harness outside of the loop and call tta.run(workflow, input), or use "
            "the fixture `tta`; inside its tests Harness(clock=tta.clock) works as well"
        )
        raise RuntimeError(msg)


@contextmanager
def _alone(clock: VirtualClock) -> Iterator[None]:
    """Set the clock that is active aside: a harness inside another has its own time."""
    outer = active.clock
    if outer is None or outer is clock:
        yield
        return
    active.deactivate(outer)
    try:
        yield
    finally:
        active.activate(outer)


def _injector(seed: int, plan: FaultPlan | None) -> FaultInjector:
    from pytest_tta.faults.injector import FaultInjector
    from pytest_tta.faults.plan import FaultPlan

    if plan is not None and not isinstance(plan, FaultPlan):
        msg = f"faults={plan!r} must be a FaultPlan"
        raise TypeError(msg)
    return FaultInjector(seed=seed, plan=plan)


def _is_unexpected(error: BaseException | None) -> bool:
    module = sys.modules.get("pytest_tta.doubles.unexpected")
    return module is not None and isinstance(error, module.UnexpectedCall)


@lru_cache(maxsize=1024)
def _has_state(kind: type) -> bool:
    """Tell whether a class is of a double of ours, or of the test's own code."""
    module = kind.__module__
    if module.startswith("pytest_tta."):
        return not module.startswith(_STATELESS)
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and not is_library(file)
