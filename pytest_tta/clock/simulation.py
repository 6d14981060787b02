"""Give a test a loop in which somebody chooses what of the outside comes next.

asyncio's own queue of what is ready stays as it is: first in, first out. Only when
nothing is ready any more does the loop ask which event of the outside comes next: which
operation answers, or which timer fires. Each answer is something that a stock loop
does as well, if only the latencies are right.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import weakref
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_tta.clock import describe, inline
from pytest_tta.clock.choices import Choice, Unit, first_come
from pytest_tta.clock.core import LoopCore
from pytest_tta.clock.errors import (
    ClockDeadlock,
    ClockError,
    ClockHeld,
    ClockPaused,
    ClockRunaway,
    ClockSpin,
)
from pytest_tta.clock.events import Event, Operation, chain_of, step_of, unit_of
from pytest_tta.clock.fences import SimulationFence, fenced, refuse
from pytest_tta.clock.tasks import birth, keep_order, task_of
from pytest_tta.clock.timeline import NEVER, SECOND
from pytest_tta.clock.timers import Timer, drop_cancelled, next_timers, take

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        Awaitable,
        Callable,
        Coroutine,
        Generator,
        Iterator,
        Sequence,
    )
    from contextvars import Context
    from types import TracebackType
    from typing import Literal, Protocol

    from pytest_tta.clock.choices import Chooser
    from pytest_tta.clock.clock import ClockMark, VirtualClock
    from pytest_tta.clock.timeline import Timeline

    class Entered(Protocol):
        """What stands around an effect; its methods need not be coroutines' own."""

        def __aenter__(self) -> Awaitable[None]: ...

        def __aexit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
            /,
        ) -> Awaitable[None]: ...


__all__ = ["AT_ONCE", "SimulationFence", "SimulationLoop"]

_T = TypeVar("_T")


class _Rounds:
    """Be awaited for some rounds of the loop, as `asyncio.sleep(0)` is for one."""

    __slots__ = ("_yields",)

    def __init__(self, count: int) -> None:
        self._yields = (None,) * count

    def __await__(self) -> Generator[None, None, None]:
        return iter(self._yields)  # type: ignore[return-value]


AT_ONCE = _Rounds(0)
"""What an answer is that comes before anything else can."""

_NEXT_ROUND = _Rounds(1)

MAX_STEPS = 100_000
"""Rounds of the loop at one instant, while a timer waits, that count as spinning."""

BUSY_ROUNDS = 100
"""Rounds without a moment of rest after which an operation answers all the same."""

_ALONE = 10
_MANY_CANCELLED = 1000

_CLEANING_ROUNDS = 3
_CLEANING_STEPS = 10_000

_RUN_THREADSAFE = asyncio.run_coroutine_threadsafe.__code__
_Future = asyncio.Future
# As a named tuple does, in one call less: they are made by the million.
_new = tuple.__new__
_set_running_loop = asyncio._set_running_loop
_get_ident = threading.get_ident


class _Generators:
    """Be the loop's set of asynchronous generators, in the order of their start."""

    __slots__ = ("known",)

    def __init__(self) -> None:
        self.known: dict[weakref.ref[AsyncGenerator[Any, Any]], None] = {}

    def add(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Add one that has started."""
        self.known[weakref.ref(generator, self._drop)] = None

    def discard(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Leave out one that is being finalized."""
        self.known.pop(weakref.ref(generator), None)

    def _drop(self, dead: weakref.ref[AsyncGenerator[Any, Any]]) -> None:
        self.known.pop(dead, None)

    def clear(self) -> None:
        """Leave out all."""
        self.known.clear()

    def __len__(self) -> int:
        return len(self.known)

    def __iter__(self) -> Iterator[AsyncGenerator[Any, Any]]:
        found = [reference() for reference in self.known]
        return (each for each in found if each is not None)


@fenced
class SimulationLoop(LoopCore):
    """Be a loop without files, whose outside somebody plays.

    Args:
        clock: Whose time it moves.
        mark: The moment of the clock at which each execution begins; when the clock
            was made unless given.

    Attributes:
        mark: As given.
        choices: What was chosen in this execution, if that is recorded.
        rests: How many moments of rest there were before this one.
        on_rest: Called at each moment of rest, before anything is chosen. If it makes
            something ready, such as a cancelled task, nothing is chosen then.
        tasks: All tasks of this execution in the order of their making.
        early_used: How many limits ran out while an operation was still under way.
        slow_limits: How many limits ran out after an operation had taken time.
        steps: How many rounds the loop has taken.
        site: Makes what `op` enters; None for an operation and nothing else.
        unhandled: What asyncio would have logged, such as an error in a callback.
        max_steps: Rounds at one instant, while a timer waits, after which callbacks
            count as spinning; ten times as many without a timer. As many answers of the
            outside at one instant count as polling without a pause.
        max_jumps: Moves of time after which the run counts as endless.
        is_aside: Whether a function runs that believes to be in a thread.
        helpers: The loop's own tasks, which wait for such functions.
    """

    _stopping: bool
    _asyncgens_shutdown_called: bool
    _timeline: Timeline

    def __init__(self, clock: VirtualClock, *, mark: ClockMark | None = None) -> None:
        super().__init__()
        self.set_debug(False)
        inline.take_in_anyio()
        keep_order()
        self._generators = self._asyncgens = _Generators()
        self._clock = clock
        self._timeline = clock.timeline  # pyright: ignore[reportIncompatibleVariableOverride]
        self.mark = mark
        self.site: Callable[[str], Entered] | None = None
        self.on_rest: Callable[[SimulationLoop], None] | None = None
        self.max_steps: int = MAX_STEPS
        self.max_jumps: int = clock.max_jumps
        self.tasks: list[asyncio.Task[Any]] = []
        self._owner = _get_ident()
        self.is_aside = False
        self._reset()

    def _reset(self) -> None:
        self.choices: list[Choice] = []
        self.unhandled: list[dict[str, Any]] = []
        self.rests: int = 0
        self.early_used: int = 0
        self.slow_limits: int = 0
        self.steps: int = 0
        self._has_waited = False
        self._rounds, self._patience, self._answers = 0, BUSY_ROUNDS, 0
        self._last = -1
        self._operations: list[Operation] = []
        self._counts: dict[str, int] = {}
        self._choose: Chooser = first_come
        self._mode: Literal["op", "burst", "harsh"] = "op"
        self._early_left = 0
        self._records = True
        self._suspends = False
        self.helpers: list[asyncio.Task[Any]] = []

    # --- one execution after the other ---------------------------------------

    def begin(
        self,
        choose: Chooser = first_come,
        *,
        mode: Literal["op", "burst", "harsh"] = "op",
        early: int = 0,
        record: bool = True,
        suspends: bool = False,
    ) -> None:
        """Begin an execution: time, tasks and choices are as if nothing had been.

        Args:
            choose: Asked whenever two events or more may come next.
            mode: What may come when: "op", one event whenever nothing is ready;
                "burst", also between two rounds of the loop; "harsh", any callback in
                any order, which asyncio never does.
            early: How many limits may run out while an operation is under way.
            record: Whether to keep the choices.
            suspends: Whether each answer is waited for, even if nothing else could come
                before it: for who acts in moments of rest, and looks at tasks there.

        Raises:
            ValueError: There is no such mode.
        """
        if mode not in {"op", "burst", "harsh"}:
            msg = f"mode={mode!r} must be 'op', 'burst' or 'harsh'"
            raise ValueError(msg)
        self.clean_up()
        inline.take_in_anyio()
        for task in self.tasks:
            _forget(task)
        self.tasks.clear()
        self._clock.rewind(self.mark)
        self._numbering.begin()
        self._reset()
        self._choose = choose
        self._mode = mode
        self._early_left = early
        self._records = record
        self._suspends = suspends
        self._owner = _get_ident()

    def run(self, coro: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine to its end; what it has left running stays as it is.

        Raises:
            ClockError: Time cannot go on; see the subclasses.
            SimulationFence: Something real was wanted.
        """
        self._check_closed()  # type: ignore[attr-defined]
        self._check_running()  # type: ignore[attr-defined]
        self._numbering.rename()
        main = self.create_task(coro)
        # Whoever calls hears of its failure by this call.
        main._log_destroy_pending = False  # type: ignore[attr-defined]
        main.add_done_callback(self._stop_at_end)
        try:
            self._run(main)
            return main.result()
        finally:
            # What it raises leads to this frame: the two would be cyclic garbage.
            del main

    def _run(self, main: asyncio.Future[Any]) -> None:
        hooks = sys.get_asyncgen_hooks()
        self._thread_id = _get_ident()
        sys.set_asyncgen_hooks(
            firstiter=self._asyncgen_firstiter_hook,  # type: ignore[attr-defined]
            finalizer=self._asyncgen_finalizer_hook,  # type: ignore[attr-defined]
        )
        _set_running_loop(self)
        self._clock.simulate(self)
        try:
            while not self._stopping:
                self._run_once()
        except BaseException:
            if main.done() and not main.cancelled():
                main.exception()  # Seen: it is what is being raised.
            raise
        finally:
            # From 3.12 on, the traceback of what runs in here leads to this frame.
            del main
            self._stopping = False
            self._thread_id = None
            self._clock.simulate(None)
            _set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)

    def _stop_at_end(self, main: asyncio.Future[Any]) -> None:  # noqa: ARG002
        self._stopping = True

    def clean_up(self) -> None:
        """Cancel what is left running, let it clean up, and close its generators.

        What does not end by that is closed by force. Nothing of it is recorded.
        """
        for task in self.tasks:
            if not task.done():
                self._wind_up()
                break
        else:
            if self._generators.known or self.helpers:
                self._wind_up()
        self._ready.clear()
        self._scheduled.clear()
        self._operations.clear()
        self._timer_cancelled_count = 0

    def _wind_up(self) -> None:
        kept = self._choose, self._mode, self._records, self.on_rest, self.max_steps
        self._choose, self._mode, self._records = first_come, "op", False
        self.on_rest, self.max_steps, self.winding_up = None, _CLEANING_STEPS, True
        try:
            self._cancel_left()
            if self._generators.known:
                self._end(self.shutdown_asyncgens())
                self._asyncgens_shutdown_called = False
        finally:
            self._choose, self._mode, self._records, self.on_rest, self.max_steps = kept
            self.winding_up: bool = False

    def _cancel_left(self) -> None:
        for _ in range(_CLEANING_ROUNDS):
            left = [t for t in (*self.tasks, *self.helpers) if not t.done()]
            if not left:
                return
            for task in left:
                task.cancel()
            self._end(_all_done(left))
        for task in (*self.tasks, *self.helpers):
            if not task.done():
                _forget(task)

    def _end(self, coro: Coroutine[Any, Any, None]) -> None:
        """Run something of the loop's own, as far as it goes."""
        self._rounds = 0
        main = asyncio.Task(coro, loop=self)
        main._log_destroy_pending = False  # type: ignore[attr-defined]
        main.add_done_callback(self._stop_at_end)
        with suppress(ClockError, SimulationFence):
            self._run(main)
        main.remove_done_callback(self._stop_at_end)
        if not main.done():
            main.cancel()
            _forget(main)

    def close(self) -> None:
        """End what is left, and close the loop."""
        if not self._closed and not self.is_running():
            self.clean_up()
        super().close()

    def run_forever(self) -> None:
        """Run until it is stopped, as asyncio's runners have it."""
        self._clock.simulate(self)
        try:
            super().run_forever()
        finally:
            self._clock.simulate(None)

    # --- what asyncio asks for -----------------------------------------------

    @property
    def clock(self) -> VirtualClock:
        """The clock in whose time it lives."""
        return self._clock

    def time(self) -> float:
        """Return the loop's time in seconds."""
        return self._timeline.now

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, _T],
        *,
        name: str | None = None,
        context: Context | None = None,
        **options: Any,  # noqa: ANN401 - newer interpreters have more
    ) -> asyncio.Task[_T]:
        """Make a task, and keep it for whoever looks at the execution."""
        task: asyncio.Task[_T]
        if self._task_factory is None:
            context = copy_context() if context is None else context
            task = self._numbering.make(self, coro, name, context, options)
        else:
            task = super().create_task(coro, name=name, context=context, **options)
        self.tasks.append(task)
        return task

    def call_soon_threadsafe(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,  # noqa: ANN401 - the signature of asyncio
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Call soon, from the thread of the loop.

        Raises:
            SimulationFence: It is another thread.
        """
        if _get_ident() != self._owner:
            refuse(f"{threading.current_thread()!r} calls into the loop")
        if self.is_aside and sys._getframe(1).f_code is _RUN_THREADSAFE:
            refuse("a function that should run in a thread waits for the loop")
        return self.call_soon(callback, *args, context=context)

    def wake(self) -> None:
        """Look around: there is nothing that the loop could sleep in.

        Raises:
            SimulationFence: Another thread asks.
        """
        if _get_ident() != self._owner:
            refuse(f"{threading.current_thread()!r} sleeps")

    def living_tasks(self) -> list[asyncio.Task[Any]]:
        """List the tasks that are not done, in the order of their making."""
        return [task for task in self.tasks if not task.done()]

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what asyncio would log."""
        self.unhandled.append(context)

    # --- the outside ---------------------------------------------------------

    def operation(self, label: str) -> asyncio.Future[None]:
        """Begin something outside; its future is done when it is chosen.

        Args:
            label: Its site.
        """
        number = self._counts[label] = self._counts.get(label, 0) + 1
        chain = birth(task_of(self))
        unit = _new(Unit, ("op", chain, label, number, self._timeline.number()))
        future: asyncio.Future[None] = _Future(loop=self)
        self._operations.append((unit, future))
        return future

    def answer(self, label: str, *, may_pass: bool = False) -> Awaitable[None]:
        """Begin something outside that is awaited at once, and done when it is chosen.

        If nothing else could be chosen, there is no choice to wait for: then the task
        goes on in the next round, as after `asyncio.sleep(0)`, or even before.

        Args:
            label: Its site.
            may_pass: Whether the task may go on without a suspension then.
        """
        task = task_of(self)
        if self._ready or task is None or not self._is_alone(task):
            return self.operation(label)
        self._counts[label] = self._counts.get(label, 0) + 1
        self._last = birth(task)
        return AT_ONCE if may_pass else _NEXT_ROUND

    def _is_alone(self, task: asyncio.Task[Any]) -> bool:
        """Take the moment of rest in advance in which only a task's answer can come.

        False if something else could come, or if somebody acts in that moment.
        """
        self._forget_operations()
        if (
            self._operations
            or self._suspends
            or self._mode != "op"
            or self._early_left
            or self._clock.has_wishes
            or self._answers >= self.max_steps
            or task._must_cancel  # type: ignore[attr-defined]
        ):
            return False
        for timer in next_timers(self._scheduled):
            if timer.kind != "timeout":
                return False
        self.steps += 1
        self._rounds += 1
        self._answers += 1
        self._patience = self._rounds + BUSY_ROUNDS
        if self.on_rest is not None:
            self.on_rest(self)
        self.rests += 1
        return not (self._ready or task._must_cancel)  # type: ignore[attr-defined]

    @property
    def pending(self) -> list[Unit]:
        """The operations that have not been chosen or given up, the oldest first."""
        return [unit for unit, future in self._operations if not future.done()]

    def run_in_executor(  # type: ignore[override]
        self,
        executor: Any,  # noqa: ANN401, ARG002 - whichever it is, nothing else runs
        func: Callable[..., _T],
        *args: Any,  # noqa: ANN401 - the function's own
    ) -> asyncio.Future[_T]:
        """Call `func(*args)` here, as an operation of the outside.

        What it sleeps passes for it alone: the answer comes that much later.
        """
        self._check_closed()  # type: ignore[attr-defined]
        return inline.begin(self, func, args)

    async def until(self, ns: int) -> None:
        """Wait for an instant of the timeline; for one that has come, not at all."""
        if ns <= self._timeline.now_ns:
            return
        waiter: asyncio.Future[None] = self.create_future()
        number = self._timeline.number()
        timer = self._push(ns, number, _end_wait, (waiter,), None)
        timer.chain = birth(task_of(self))
        await waiter

    # --- the order of events -------------------------------------------------

    def _run_once(self) -> None:
        """Run one round of what is ready, else let something of the outside come."""
        self.steps += 1
        self._rounds += 1
        if self._rounds > self._patience:
            self._look_around()
        ready = self._ready
        if not ready:
            self._rest()
            return
        if self._mode != "op" and self._interpose():
            return
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()
        # There was one. It knows the task whose error may lead to this frame.
        del handle  # pyright: ignore[reportPossiblyUnboundVariable]

    def _look_around(self) -> None:
        """Let operations answer while something is always ready; notice a spin."""
        limit = self.max_steps if self._scheduled else self.max_steps * _ALONE
        if self._rounds > limit:
            raise self._spin(describe.spin_text(limit, self._timeline))
        self._patience = self._rounds + BUSY_ROUNDS
        self._forget_operations()
        if self._operations and self._ready:
            self._let_come(self._operations)

    def _spin(self, text: str) -> ClockError:
        """Make the error of a run that goes on without any time; clean-up may run."""
        self._rounds = self._answers = 0
        return self._error(ClockSpin, text)

    def _rest(self) -> None:
        """Ask who comes next, now that nothing is ready."""
        self._patience = self._rounds + BUSY_ROUNDS
        if self.on_rest is not None:
            self.on_rest(self)
        self.rests += 1
        if self._ready:
            return
        self._forget_operations()
        if self._timer_cancelled_count > _MANY_CANCELLED:
            drop_cancelled(self._scheduled)
            self._timer_cancelled_count = 0
        if self._clock.has_wishes and self._serve():
            return
        coming = self._coming()
        if not coming:
            raise self._error(ClockDeadlock, describe.deadlock_text(self._timeline))
        self._let_come(coming)

    def _let_come(self, coming: Sequence[Event]) -> None:
        self._happen(coming, self._chosen(coming) if len(coming) > 1 else 0)

    def _coming(self) -> Sequence[Event]:
        """List what may come next: operations, then timers, then limits."""
        operations = self._operations
        timers = next_timers(self._scheduled)
        if self._clock.has_wishes and timers and timers[0].ns > self._limit():
            timers = []
        if not operations or not timers:
            return operations or timers
        plain = [timer for timer in timers if timer.kind != "timeout"]
        if self._early_left:
            plain += [timer for timer in timers if timer.kind == "timeout"]
        return [*operations, *plain]

    def _chosen(
        self, coming: Sequence[Event], steps: Sequence[asyncio.Handle] = ()
    ) -> int:
        """Ask, and keep what was answered."""
        if coming is self._operations:
            units = tuple([unit for unit, _ in self._operations])
        else:
            rows = self._timeline.rows
            units = tuple([unit_of(event, rows) for event in coming])
        if steps:
            units = (*map(step_of, steps, range(-len(steps), 0)), *units)
        taken = self._choose(units)
        if not 0 <= taken < len(units):
            msg = f"{self._choose!r} chose {taken!r}, of {len(units)} units"
            raise IndexError(msg)
        if self._records:
            event = coming[taken - len(steps)] if taken >= len(steps) else None
            at = came = self._timeline.elapsed_ns
            if isinstance(event, Timer):
                came = max(at, event.ns - self._timeline.start_ns)
            made = units, taken, self._last, at / SECOND, came / SECOND
            self.choices.append(_new(Choice, made))
        return taken

    def _happen(self, coming: Sequence[Event], taken: int) -> None:
        """Let an event of the outside come; the operations among them stand first."""
        event = coming[taken]
        if isinstance(event, tuple):
            self._answers += 1
            if self._answers > self.max_steps:
                raise self._spin(describe.poll_text(self.max_steps, self._timeline))
            self._last = event[0].chain
            event[1].set_result(None)
            del self._operations[taken]
            return
        self._last = event.chain
        if event.kind == "timeout":
            if self._operations:
                self.early_used += 1
                self._early_left -= 1
            self.slow_limits += self._has_waited
        elif self._operations and event.ns > self._timeline.now_ns:
            self._has_waited = True
        take(self._scheduled, event)
        self._jump(event.ns)
        self._ready.append(event)

    def _jump(self, ns: int) -> None:
        timeline = self._timeline
        if timeline.jumps >= self.max_jumps:
            text = describe.runaway_text(self.max_jumps, timeline)
            raise self._error(ClockRunaway, text)
        if ns > timeline.now_ns:
            self._rounds, self._patience, self._answers = 0, BUSY_ROUNDS, 0
        timeline.jump(ns)

    def _interpose(self) -> bool:
        """Let something else come before the next round, if it is chosen.

        In a burst that is what could come at this instant; in harsh mode also any
        callback out of its turn.
        """
        self._forget_operations()
        is_burst = self._mode == "burst"
        steps = [handle for handle in self._ready if not handle._cancelled]
        del steps[1 if is_burst else len(steps) :]
        now = self._timeline.now_ns
        events = [e for e in self._coming() if isinstance(e, tuple) or e.ns <= now]
        if not steps or len(steps) + len(events) == 1:
            return False
        taken = self._chosen(events, steps)
        if taken >= len(steps):
            self._happen(events, taken - len(steps))
            return True
        if is_burst:
            return False
        self._step(steps[taken])
        return True

    def _step(self, handle: asyncio.Handle) -> None:
        """Run one callback, wherever it stands in the queue."""
        self._ready.remove(handle)
        self._last = chain_of(handle)
        handle._run()

    def _forget_operations(self) -> None:
        """Leave out what nobody waits for any more."""
        for _, future in self._operations:
            if future.done():
                self._operations = [o for o in self._operations if not o[1].done()]
                return

    # --- time that is moved by hand ------------------------------------------

    def _serve(self) -> bool:
        """Do what somebody wants of time; False if events may come as usual."""
        clock = self._clock
        if self._operations:
            return False
        if clock.end_settling():
            return True
        timers = next_timers(self._scheduled)
        target = clock.advance_target()
        if target is not None and (not timers or timers[0].ns > target):
            self._jump(target)
            clock.end_advance()
            return True
        holder = clock.held()
        if holder is not None:
            text = f"{holder} keeps time from moving, and nothing else is left to do"
            raise self._error(ClockHeld, text)
        if timers and timers[0].ns > self._limit():
            text = describe.paused_text(timers[0].ns, self._timeline)
            raise self._error(ClockPaused, text)
        return False

    def _limit(self) -> int:
        """Give the instant beyond which nobody wants time to move by itself."""
        clock = self._clock
        target = clock.advance_target()
        if clock.held() is not None:
            return self._timeline.now_ns
        if target is not None:
            return target
        is_free = clock.autojump or self.winding_up
        return NEVER if is_free else self._timeline.now_ns

    def _error(self, kind: type[ClockError], text: str) -> ClockError:
        """Make an error that says who waits where."""
        tasks = self.living_tasks()
        return kind(text + describe.state(tasks, self._scheduled, self._timeline))


def _end_wait(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def _all_done(tasks: list[asyncio.Task[Any]]) -> None:
    await asyncio.wait(tasks)


def _forget(task: asyncio.Task[Any]) -> None:
    """Let a task go without a word from asyncio."""
    if task.done():
        if not task.cancelled():
            task.exception()
        return
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    for _ in range(_CLEANING_ROUNDS):
        with suppress(BaseException):
            # A coroutine that waits again is asked again.
            task.get_coro().close()
            break
    # Done, for whoever asks asyncio which tasks there are.
    asyncio.Future.cancel(task)
