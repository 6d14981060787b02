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
import os
import sys
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

from pytest_tta.clock import active
from pytest_tta.clock.clock import VirtualClock
from pytest_tta.clock.describe import task_line
from pytest_tta.loops import LoopSource
from pytest_tta.names import HTTP_LIBRARIES
from pytest_tta.trace.recorder import TraceRecorder
from pytest_tta.whereabouts import Whereabouts, telling
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
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from types import TracebackType
    from typing import Self

    from pytest_tta.doubles.llm import LLMDouble
    from pytest_tta.doubles.watch import DoublesWatch
    from pytest_tta.faults.injector import FaultInjector
    from pytest_tta.faults.plan import FaultPlan
    from pytest_tta.tape.tape import Tape
    from pytest_tta.trace.spans import Trace
    from pytest_tta.wire.transport import Router
    from pytest_tta.wire.wire import Wire
    from tta_primitives import WorkflowPrimitive
    from tta_primitives.door import Call

__all__ = ["Harness", "HarnessError"]

A = TypeVar("A")
B = TypeVar("B")

_current: ContextVar[Harness | None] = ContextVar("tta_harness", default=None)


class HarnessError(AssertionError):
    """What was scripted and what happened do not fit together."""


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
        self.clock = VirtualClock() if clock is None else clock
        self.problems: list[str] = []
        self._recorder = TraceRecorder()
        self._faults: FaultInjector | None = None
        self._llm: LLMDouble | None = None
        self._wire: Wire | None = None
        self._made_tape = tape if callable(tape) else None
        self._tape = None if callable(tape) else tape
        self._watch: DoublesWatch | None = None
        self._acting = _Acting(self)
        self._begin_acting: Callable[[], None] | None = None
        self._stack: ExitStack | None = None
        self._is_watching = False
        self._routers: list[Router] = []
        # What ends when watching does.
        self._scope = ExitStack()
        if faults is not None:
            self._faults = _injector(seed, faults)

    # Both are made, and imported, when a test first asks for them: most tests do not.

    @property
    def faults(self) -> FaultInjector:
        """Faults for the primitives of this test's workflows, by path."""
        if self._faults is None:
            self._faults = _injector(self.seed, None)
            self._faults.began = self._recorder.began
            self._faults.count(span.path for span in self.trace.spans)
            self._act()
        return self._faults

    @property
    def llm(self) -> LLMDouble:
        """A scripted double of a language model."""
        if self._llm is None:
            from pytest_tta.doubles.llm import LLMDouble

            self._llm = LLMDouble(seed=self.seed)
            self._act()
        return self._llm

    @property
    def wire(self) -> Wire:
        """Fake providers of language models under the vendors' real SDKs."""
        if self._wire is None:
            from pytest_tta.wire.wire import Wire

            self._wire = Wire(seed=self.seed)
            self._connect()
        return self._wire

    @property
    def tape(self) -> Tape:
        """What providers of language models answered, recorded.

        Raises:
            RuntimeError: There is no file for it.
        """
        if self._tape is None:
            if self._made_tape is None:
                msg = (
                    "a tape has a file, and this harness was given none: write for "
                    "instance Harness(tape=Tape('tapes/weather.yaml'))"
                )
                raise RuntimeError(msg)
            self._tape = self._made_tape()
            self._connect()
        return self._tape

    def keep(self) -> None:
        """Write what was recorded; for a test that has ended well.

        Raises:
            TapeError: A key would get into the file.
        """
        if self._tape is not None:
            self._tape.save()

    def _connect(self) -> None:
        """Let wire and tape answer instead of the network, until watching ends."""
        if not self._is_watching:
            return
        if self._wire is not None and self._recorder.began is not None:
            self._wire.start(self._recorder.began)
        for router in (self._wire, self._tape):
            if router is not None and router not in self._routers:
                from pytest_tta.wire.transport import answering

                self._routers.append(router)
                self._scope.enter_context(answering(router))

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
            if self._faults is not None:
                self._faults.began = self.clock.time
        token = _current.set(self)
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
            self._routers.clear()
            _current.reset(token)

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
        return self.clock.run(self._execute(workflow, input_data, context))

    async def _execute(
        self,
        workflow: WorkflowPrimitive[A, B] | Callable[[A], Awaitable[B]],
        input_data: A,
        context: WorkflowContext | None,
    ) -> B:
        before = asyncio.all_tasks()
        primitive = as_operand(workflow)
        # Cancelled means that the clock gave up on everybody: nobody was forgotten.
        try:
            context = context or WorkflowContext()
            output: B = await primitive.execute(input_data, context)
        except Exception:
            self.note_left_running(asyncio.all_tasks() - before)
            raise
        self.note_left_running(asyncio.all_tasks() - before)
        return output

    def note_left_running(self, tasks: set[asyncio.Task[Any]]) -> None:
        """Keep tasks that should have ended as problems, each with its line."""
        left = [task for task in tasks if not (task.done() or _is_farewell(task))]
        lines = sorted(map(task_line, left))
        self.problems += [
            f"left running: task {line}; await or cancel it" for line in lines
        ]

    def verify(self) -> list[str]:
        """Return what does not fit together, each with the line that scripted it."""
        unfinished = [
            f"{span.path} began and never ended"
            for span in self.trace.spans
            if span.status == "unfinished"
        ]
        found = list(self.problems)
        for double in (self._llm, self._wire, self._tape, self._watch):
            if double is not None:
                found += double.verify()
        if self._faults is not None:
            # To list them all takes longer than the rest of this.
            known = self._recorder.known_paths() if self._faults.is_waiting else ()
            found += self._faults.verify(known)
        return list(dict.fromkeys([*found, *unfinished]))

    def _remarks(self) -> list[str]:
        return [] if self._faults is None else self._faults.hanging

    def _hearing(self) -> Observer:
        observers: list[Observer] = [Whereabouts(), self._recorder]
        # Whoever has mocks has imported them.
        if "pytest_tta.doubles.mock" in sys.modules:
            from pytest_tta.doubles.watch import DoublesWatch

            self._watch = DoublesWatch()
            observers.append(self._watch)
        return _Hearing(self, observers)

    @contextmanager
    def _listening_here(self) -> Iterator[None]:
        with listening(observers=(self._hearing(),), interceptors=(self._acting,)):
            yield

    @contextmanager
    def _listening_everywhere(self) -> Iterator[None]:
        hearing = self._hearing()
        add_observer(hearing)
        self._begin_acting = self._act_everywhere
        if self._llm is not None or self._faults is not None:
            self._act_everywhere()
        try:
            yield
        finally:
            self._begin_acting = None
            remove_interceptor(self._acting)
            remove_observer(hearing)

    def _act_everywhere(self) -> None:
        # Once: it looks for the double and the faults each time that it acts.
        remove_interceptor(self._acting)
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


def _is_farewell(task: asyncio.Task[Any]) -> bool:
    """Tell whether a task closes what somebody has let go of, and nobody can await it.

    A loop begins one for each async generator that is garbage before its end, as the
    SDKs of OpenAI and Anthropic leave theirs; so do they for an HTTP client, at any
    time, in whichever loop is running then.
    """
    closing = task.get_coro()
    if type(closing).__name__ == "async_generator_athrow":
        return True
    code = getattr(closing, "cr_code", None)
    if code is None or code.co_qualname != "AsyncClient.aclose":
        return False
    package = os.path.basename(os.path.dirname(code.co_filename))  # noqa: PTH119, PTH120 - compared as text
    return package in HTTP_LIBRARIES


def _is_foreign(harness: Harness) -> bool:
    """Tell whether the current task belongs to another harness."""
    current = _current.get()
    return current is not None and current is not harness


class _Hearing(Observer):
    """Tells a harness's observers of calls, but of none inside another harness."""

    def __init__(self, harness: Harness, observers: list[Observer]) -> None:
        self._harness = harness
        self._observers = tuple(observers)

    def started(self, call: Call, /) -> None:
        if not _is_foreign(self._harness):
            for observer in self._observers:
                observer.started(call)

    def event(self, call: Call, name: str, detail: dict[str, Any], /) -> None:
        if not _is_foreign(self._harness):
            for observer in self._observers:
                observer.event(call, name, detail)

    def finished(self, call: Call, /) -> None:
        if not _is_foreign(self._harness):
            for observer in self._observers:
                observer.finished(call)


class _Acting(Interceptor):
    """Lets the double answer, and faults strike around it; not in another harness."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness

    def execute(self, call: Call, proceed: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401
        """Hand their own coroutine on: a traceback needs no frame of this."""
        return self._through(call, proceed, "execute")

    def stream(
        self, call: Call, proceed: Callable[[], AsyncIterator[Any]]
    ) -> AsyncIterator[Any]:
        stream: AsyncIterator[Any] = self._through(call, proceed, "stream")
        return stream

    def _through(self, call: Call, proceed: Callable[[], Any], how: str) -> Any:  # noqa: ANN401
        llm, faults = self._harness._llm, self._harness._faults
        is_idle = llm is None and faults is None
        if is_idle or _is_foreign(self._harness):
            return proceed()
        answer = proceed
        if llm is not None:
            answer = partial(getattr(llm, how), call, proceed)
        return answer() if faults is None else getattr(faults, how)(call, answer)
