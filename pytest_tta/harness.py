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
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_tta.clock import active
from pytest_tta.clock.clock import VirtualClock
from pytest_tta.clock.describe import task_line
from pytest_tta.doubles.llm import LLMDouble
from pytest_tta.doubles.unexpected import UnexpectedCall
from pytest_tta.doubles.watch import DoublesWatch
from pytest_tta.faults.injector import FaultInjector
from pytest_tta.faults.plan import FaultPlan
from pytest_tta.loops import LoopSource
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

    from pytest_tta.trace.spans import Trace
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

    Raises:
        TypeError: An argument is of the wrong kind.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        faults: FaultPlan | None = None,
        clock: VirtualClock | None = None,
    ) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int):
            msg = f"seed={seed!r} must be a whole number"
            raise TypeError(msg)
        if faults is not None and not isinstance(faults, FaultPlan):
            msg = f"faults={faults!r} must be a FaultPlan"
            raise TypeError(msg)
        if clock is not None and not isinstance(clock, VirtualClock):
            msg = (
                f"clock={clock!r} must be a VirtualClock, for instance "
                "VirtualClock(start='2031-01-01')"
            )
            raise TypeError(msg)
        self.seed = seed
        self.clock = VirtualClock() if clock is None else clock
        self.faults = FaultInjector(seed=seed, plan=faults)
        self.llm = LLMDouble(seed=seed)
        self.problems: list[str] = []
        self._recorder = TraceRecorder()
        self._watch = DoublesWatch()
        self._stack: ExitStack | None = None

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
        if (error is None and problems) or isinstance(error, UnexpectedCall):
            raise HarnessError("\n".join(problems) or str(error)) from None

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
            self._recorder.began = self.faults.began = self.clock.time
        token = _current.set(self)
        observers = (Whereabouts(), self._recorder, self._watch)
        interceptors = (self.llm, self.faults)
        listen = _listening_everywhere if whole_process else listening
        try:
            with (
                chance.seeded(self.seed),
                telling(lambda: self.faults.hanging),
                listen(
                    observers=tuple(_HearsOwn(each, self) for each in observers),
                    interceptors=tuple(_ActsOnOwn(each, self) for each in interceptors),
                ),
            ):
                yield
        finally:
            _current.reset(token)

    def run(
        self,
        workflow: WorkflowPrimitive[A, B] | Callable[[A], Awaitable[B]],
        input_data: A,
        context: WorkflowContext | None = None,
    ) -> B:
        """Execute a workflow in a fresh event loop in virtual time.

        Args:
            workflow: A primitive, or a function that could be one.
            input_data: Its input.
            context: The context of the run; a new one unless given.

        Returns:
            Its output.

        Raises:
            RuntimeError: An event loop is running already; await `workflow.execute`
                there instead.
        """
        __tracebackhide__ = True
        if asyncio.events._get_running_loop() is not None:
            msg = (
                "tta.run(...) starts an event loop of its own, and one is running: in "
                "an async test write `await workflow.execute(input, WorkflowContext())`"
            )
            raise RuntimeError(msg)
        output: B = self.clock.run(self._execute(workflow, input_data, context))
        return output

    async def _execute(
        self, workflow: Any, input_data: Any, context: WorkflowContext | None
    ) -> Any:
        before = asyncio.all_tasks()
        primitive = as_operand(workflow)
        # Cancelled means that the clock gave up on everybody: nobody was forgotten.
        try:
            output = await primitive.execute(input_data, context or WorkflowContext())
        except Exception:
            self.note_left_running(asyncio.all_tasks() - before)
            raise
        self.note_left_running(asyncio.all_tasks() - before)
        return output

    def note_left_running(self, tasks: set[asyncio.Task[Any]]) -> None:
        """Keep tasks that should have ended as problems, each with its line."""
        lines = sorted(task_line(task) for task in tasks if not task.done())
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
        # To list them all takes longer than the rest of this.
        known = self._recorder.known_paths() if self.faults.is_waiting else ()
        found = [
            *self.problems,
            *self.llm.verify(),
            *self._watch.verify(),
            *self.faults.verify(known),
            *unfinished,
        ]
        return list(dict.fromkeys(found))


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


@contextmanager
def _listening_everywhere(
    *, observers: tuple[Observer, ...], interceptors: tuple[Interceptor, ...]
) -> Iterator[None]:
    # Together: each change of the process-wide listeners gathers all hooks anew.
    add_observer(*observers)
    add_interceptor(*interceptors)
    try:
        yield
    finally:
        remove_interceptor(*interceptors)
        remove_observer(*observers)


def _is_foreign(harness: Harness) -> bool:
    """Tell whether the current task belongs to another harness."""
    current = _current.get()
    return current is not None and current is not harness


class _HearsOwn(Observer):
    """Passes on calls, but none of those inside another harness."""

    def __init__(self, observer: Observer, harness: Harness) -> None:
        self._observer = observer
        self._harness = harness

    def started(self, call: Call, /) -> None:
        if not _is_foreign(self._harness):
            self._observer.started(call)

    def event(self, call: Call, name: str, detail: dict[str, Any], /) -> None:
        if not _is_foreign(self._harness):
            self._observer.event(call, name, detail)

    def finished(self, call: Call, /) -> None:
        if not _is_foreign(self._harness):
            self._observer.finished(call)


class _ActsOnOwn(Interceptor):
    """Acts around calls, but not around those inside another harness."""

    def __init__(self, interceptor: Interceptor, harness: Harness) -> None:
        self._interceptor = interceptor
        self._harness = harness

    def execute(self, call: Call, proceed: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401
        """Hand the interceptor's own coroutine on: a traceback needs no frame of it."""
        if _is_foreign(self._harness):
            return proceed()
        return self._interceptor.execute(call, proceed)

    def stream(
        self, call: Call, proceed: Callable[[], AsyncIterator[Any]]
    ) -> AsyncIterator[Any]:
        if _is_foreign(self._harness):
            return proceed()
        return self._interceptor.stream(call, proceed)
