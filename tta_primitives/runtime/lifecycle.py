"""A process from its start to its end: what runs in it, and how it stops.

    starting -> ready -> draining -> stopped

At the end readiness is taken back first, then what runs is waited for, then cancelled,
and only then is closed what it needed; all of it within one budget of seconds.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, TypeVar

from tta_primitives.arguments import check_flag, seconds
from tta_primitives.door import Observer, add_observer, remove_observer
from tta_primitives.errors import ExecutionRejectedError
from tta_primitives.loops import now, running_loop
from tta_primitives.runtime.closing import Closer, close_all, flush_last
from tta_primitives.runtime.ending import Budget, Watchdog
from tta_primitives.runtime.health import HealthCheck, HealthChecks
from tta_primitives.runtime.signals import Signals, is_main_thread, pass_on
from tta_primitives.stats import stats_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from tta_primitives.door import Call
    from tta_primitives.primitive import WorkflowPrimitive

__all__ = ["DrainReport", "Lifecycle", "LifecycleStoppedError", "State", "TrackedRun"]

T = TypeVar("T")

State: TypeAlias = Literal["starting", "ready", "draining", "stopped"]
"""Where a lifecycle is; it may be started again once it is stopped."""

Answer: TypeAlias = "tuple[int, dict[str, Any]]"

logger: logging.Logger = logging.getLogger("tta_primitives")

_OK, _UNAVAILABLE = 200, 503
# How long load balancers usually take to see that a process is not ready.
_PRESTOP_SECONDS = 5.0
# Beyond the budget: a process that is still there then is ended by force.
_FORCE_SECONDS = 2.0


class LifecycleStoppedError(ExecutionRejectedError):
    """The process has drained: what a run would need is closed."""


@dataclass(frozen=True, slots=True)
class DrainReport:
    """How a lifecycle came to its end.

    Attributes:
        completed: Runs and background tasks that ended by themselves meanwhile.
        cancelled: Those for which the time was up.
        abandoned: Those that went on although they were cancelled.
        not_closed: Names of what could not be closed, or not in time.
        seconds: How long it took.
    """

    completed: int
    cancelled: int
    abandoned: int
    not_closed: tuple[str, ...]
    seconds: float


class TrackedRun:
    """A block of code that is a run: `with lifecycle.track():`.

    Attributes:
        task: Who executes it.
        is_cut: Whether it was cancelled because the time to drain was up.
    """

    __slots__ = ("_lifecycle", "is_cut", "task")

    task: asyncio.Task[Any]

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self.is_cut: bool = False

    def __enter__(self) -> Self:
        """Begin the run."""
        self._lifecycle._enter(self)
        return self

    def __exit__(self, *raised: object) -> None:
        """End the run."""
        self._lifecycle._leave(self)


class _RootRuns(Observer):
    """Tracks every root run on the loop of a lifecycle, without the user's help."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle

    def started(self, call: Call, /) -> None:
        """Track a call that has none above it."""
        if call.parent is None and self._lifecycle._is_at_home():
            run = TrackedRun(self._lifecycle)
            self._lifecycle._note(run)
            call.store[self] = run

    def finished(self, call: Call, /) -> None:
        """End what was begun."""
        if call.parent is None:
            run = call.store.pop(self, None)
            if run is not None:
                self._lifecycle._leave(run)


class Lifecycle:
    """What runs in a process, whether it is ready, and how it comes to its end.

    It belongs to one event loop, that of the `async with`. Nothing happens at
    construction, so that it may be made at import, also in a process that forks.

    Args:
        drain_seconds: The budget from the signal, or from the call of `drain`, until
            everything is closed. Keep it below the time after which the supervisor
            kills: 30 seconds for gunicorn and Kubernetes unless they are told
            otherwise.
        prestop_seconds: How long to go on serving after a signal, so that load
            balancers see that the process is not ready; part of the budget. None means
            5 seconds if anybody has ever asked for readiness, and none otherwise: at a
            terminal, Ctrl+C has no reason to wait.
        checks: By name an async function without parameters, or a `HealthCheck`. While
            one of them fails, the process is not ready.
        check_timeout: Seconds that each check may take.
        check_keep_seconds: How long findings are kept, however often probes come.
        workflows: Whose `stats_of` are part of `health()`, by name.
        track_runs: Whether every root run on this loop is tracked by itself. It makes
            each step a little slower, as any observer does; where requests or jobs are
            tracked as a whole it is not needed.
    """

    def __init__(
        self,
        *,
        drain_seconds: float = 25.0,
        prestop_seconds: float | None = None,
        checks: Mapping[str, Callable[[], object] | HealthCheck] | None = None,
        check_timeout: float = 0.5,
        check_keep_seconds: float = 1.0,
        workflows: Mapping[str, WorkflowPrimitive[Any, Any]] | None = None,
        track_runs: bool = False,
    ) -> None:
        self._seconds = seconds("drain_seconds", drain_seconds)
        self._prestop = _prestop("prestop_seconds", prestop_seconds)
        self._checks = HealthChecks(
            checks or {}, timeout=check_timeout, keep_seconds=check_keep_seconds
        )
        self._workflows = dict(workflows or {})
        self._observer = (
            _RootRuns(self) if check_flag("track_runs", track_runs) else None
        )
        self._closers: list[Closer] = []
        self._runs: dict[TrackedRun, None] = {}
        # Of each background task: whether the drain waits for it.
        self._tasks: dict[asyncio.Task[Any], bool] = {}
        self._state: State = "starting"
        self._reset()

        if self._prestop is not None and self._prestop >= self._seconds:
            msg = (
                f"prestop_seconds={prestop_seconds!r} must be less than "
                f"drain_seconds={drain_seconds!r}, of which it is a part"
            )
            raise ValueError(msg)

    def _reset(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._budget: Budget | None = None
        self._drained: asyncio.Task[DrainReport] | None = None
        self._settled: asyncio.Task[None] | None = None
        self._late: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._signals: Signals | None = None
        self._ending: asyncio.Task[None] | None = None
        self._watchdog: Watchdog | None = None
        self._main: asyncio.Task[Any] | None = None
        self._is_draining: asyncio.Event | None = None
        self._cancelled: set[asyncio.Task[Any]] = set()
        self._is_asked = self._is_shut = self._delivered = False
        self._completed = self._cut = 0
        self._stopped_by: int | None = None

    @property
    def state(self) -> State:
        """Where it is: `starting`, `ready`, `draining` or `stopped`."""
        return self._state

    @property
    def running(self) -> int:
        """How many runs there are now."""
        return len(self._runs)

    @property
    def background(self) -> int:
        """How many background tasks there are now."""
        return len(self._tasks)

    @property
    def stopped_by(self) -> int | None:
        """The signal that ended it, None if none did."""
        return self._stopped_by

    def __repr__(self) -> str:
        counts = f"running={self.running} background={self.background}"
        return f"<{type(self).__name__} {self._state} {counts}>"

    # From start to end

    async def __aenter__(self) -> Self:
        """Start, and be ready."""
        self.start()
        self.mark_ready()
        return self

    async def __aexit__(self, *raised: object) -> None:
        """Drain."""
        await self.drain()

    def start(self) -> None:
        """Belong to the running loop, without being ready: `mark_ready` makes it so.

        For hosts that open what they need in between; `async with` does both at once.

        Raises:
            RuntimeError: It is started already.
        """
        if self._loop is not None and self._state != "stopped":
            msg = f"{self!r} is started already: one lifecycle is one process's"
            raise RuntimeError(msg)
        self._reset()
        self._loop = running_loop()
        self._is_draining = asyncio.Event()
        self._state = "starting"
        if self._observer is not None:
            add_observer(self._observer)

    def mark_ready(self) -> None:
        """Be ready, unless it is draining already."""
        if self._state == "starting":
            self._state = "ready"

    def begin_drain(self) -> None:
        """Stop being ready, and go on working: for hosts that are told so beforehand.

        It takes no time; `drain` does the rest.
        """
        if self._state in {"starting", "ready"}:
            self._state = "draining"
            if self._is_draining is not None:
                self._is_draining.set()
            logger.info("draining: %d running, %d in background", *self._counts())

    async def until_draining(self) -> None:
        """Wait until it begins to drain: for loops that take up work by themselves.

        Raises:
            RuntimeError: It is not started.
        """
        if self._is_draining is None:
            msg = "until_draining() belongs inside `async with lifecycle:`"
            raise RuntimeError(msg)
        await self._is_draining.wait()

    async def drain(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - a budget for several steps
    ) -> DrainReport:
        """Wait for what runs, cancel what is left, and close what is to be closed.

        Runs that begin meanwhile are waited for as well: requests that were accepted
        are answered. From the moment that closing begins they are refused. Called
        twice, the second call waits for the first.

        Args:
            timeout: Seconds for all of it, if less than the lifecycle's own budget.
                Four fifths are for waiting, one tenth for what is cancelled, the rest
                for closing.

        Raises:
            RuntimeError: It was called by what it would have to wait for.
        """
        caller = asyncio.current_task()
        if caller in self._tasks or any(run.task is caller for run in self._runs):
            msg = (
                "drain() waits for what runs, and was called inside of it; "
                "call it from outside, or begin_drain() from here"
            )
            raise RuntimeError(msg)
        self.begin_drain()
        budget = self._opened()
        if timeout is not None:
            budget.shorten(seconds("timeout", timeout, zero=True))
            self._wake()
        if self._drained is None:
            name = "draining a lifecycle"
            self._drained = running_loop().create_task(self._drain(budget), name=name)
        # It goes on, and in its time, also if whoever waits for it is cancelled.
        await asyncio.wait({self._drained})
        return self._drained.result()

    async def settle(self) -> None:
        """Do the first half of `drain`: wait for what runs, and cancel what is left.

        For hosts that close things of their own before `drain` closes the rest. From
        its end on nothing more is admitted.
        """
        self.begin_drain()
        if self._settled is None:
            task = self._settle(self._opened())
            self._settled = running_loop().create_task(task, name="draining runs")
        await asyncio.wait({self._settled})

    async def _settle(self, budget: Budget) -> None:
        self._cancel({task for task, is_waited in self._tasks.items() if not is_waited})
        await self._wait(lambda: budget.patience)
        self._cut_rest()
        await self._wait(lambda: budget.cancellation)

    def remaining(self) -> float | None:
        """Return the seconds left of the budget of a drain, None before it begins."""
        return None if self._budget is None else max(0.0, self._budget.end - now())

    async def _drain(self, budget: Budget) -> DrainReport:
        await self.settle()
        abandoned = self._abandon()
        not_closed = await close_all(self._closers, budget.end)
        await self._checks.aclose()
        self._stop()
        report = DrainReport(
            completed=self._completed,
            cancelled=self._cut,
            abandoned=abandoned,
            not_closed=tuple(not_closed),
            seconds=now() - budget.began_at,
        )
        logger.info("drained: %s", report)
        await flush_last(budget.end)
        return report

    def _stop(self) -> None:
        self._state = "stopped"
        if self._late is not None:
            self._late.cancel()
        if self._signals is not None:
            self._signals.restore()
        if self._observer is not None:
            remove_observer(self._observer)

    def _opened(self) -> Budget:
        if self._budget is None:
            self._budget = Budget(self._seconds)
        return self._budget

    async def _wait(self, until: Callable[[], float]) -> None:
        """Wait until nothing runs, or until a moment, which may be moved meanwhile."""
        while self._runs or self._tasks:
            left = until() - now()
            if left <= 0:
                return
            self._waiter = running_loop().create_future()
            await asyncio.wait({self._waiter}, timeout=left)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _cut_rest(self) -> None:
        """Admit nothing more, and cancel what still runs."""
        self._is_shut = True
        for run in self._runs:
            run.is_cut = True
        tasks = {run.task for run in self._runs} | set(self._tasks)
        if tasks - self._cancelled:
            logger.warning("cancelled: %d running, %d in background", *self._counts())
        if self._main is not None:
            tasks.add(self._main)
        self._cancel(tasks)

    def _cancel(self, tasks: set[asyncio.Task[Any]]) -> None:
        """Cancel tasks once: what cleans up must not be interrupted again."""
        for task in tasks - self._cancelled:
            self._cancelled.add(task)
            task.cancel("the time to drain is up")

    def _abandon(self) -> int:
        left = [run.task for run in self._runs] + list(self._tasks)
        for task in left:
            logger.error("%s goes on although it was cancelled", task.get_name())
        self._runs.clear()
        self._tasks.clear()
        return len(left)

    def _counts(self) -> tuple[int, int]:
        return len(self._runs), len(self._tasks)

    # What runs

    def track(self) -> TrackedRun:
        """Return a block that is one run: `with lifecycle.track():`.

        A drain waits for it, and cancels its task when the time is up.

        Raises:
            LifecycleStoppedError: On entering: it has drained.
            RuntimeError: On entering: it is entered outside of a task.
        """
        return TrackedRun(self)

    def spawn(
        self,
        coroutine: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        wait: bool = True,
    ) -> asyncio.Task[T]:
        """Start a background task that is neither lost nor left over.

        The task is kept until it ends. What it raises is logged, once.

        Args:
            coroutine: What to execute.
            name: Of the task, for the log.
            wait: Whether a drain waits for it. One that goes on for ever, such as a
                refresh every minute, is cancelled at once instead.

        Raises:
            LifecycleStoppedError: It has drained.
        """
        try:
            self._admit()
        except LifecycleStoppedError:
            coroutine.close()
            raise
        task = running_loop().create_task(coroutine, name=name)
        self._tasks[task] = check_flag("wait", wait)
        task.add_done_callback(self._ended)
        return task

    def on_shutdown(
        self,
        close: Callable[[], object],
        *,
        name: str | None = None,
        timeout: float = 5.0,
        blocking: bool = False,
    ) -> None:
        """Close something at the end, the last first, when nothing runs any more.

        An error is logged and does not keep the others from being closed.

        Args:
            close: An async or sync function without parameters, such as
                `client.aclose`.
            name: What the log calls it; the function's name unless given.
            timeout: Seconds that it may take, within the budget of the drain.
            blocking: Whether it is a sync function that may block: it gets a thread.
        """
        if not callable(close):
            msg = (
                f"close={close!r} must be a function without parameters, "
                "such as client.aclose"
            )
            raise TypeError(msg)
        found = name or getattr(close, "__qualname__", None) or repr(close)
        limit = seconds("timeout", timeout)
        self._closers.append(
            Closer(close, found, limit, check_flag("blocking", blocking))
        )

    def _admit(self) -> None:
        if self._is_shut or self._state == "stopped":
            msg = (
                "the lifecycle has drained and admits no new run; "
                "what it would need is closed"
            )
            raise LifecycleStoppedError(msg)

    def _enter(self, run: TrackedRun) -> None:
        self._admit()
        self._note(run)

    def _note(self, run: TrackedRun) -> None:
        try:
            task = asyncio.current_task()
        except RuntimeError:
            task = None
        if task is None:
            msg = "lifecycle.track() must be entered in a task of the event loop"
            raise RuntimeError(msg)
        run.task = task
        self._runs[run] = None

    def _leave(self, run: TrackedRun) -> None:
        if self._runs.pop(run, run) is run:
            return  # It was abandoned.
        if self._state == "draining":
            self._count(is_cut=run.is_cut)
            if self._main is not None:
                # Not now: it would reach who leaves this run inside of its next one.
                running_loop().call_soon(self._interrupt)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        is_known = self._tasks.pop(task, None) is not None
        if self._state == "draining" and is_known:
            self._count(is_cut=task in self._cancelled)
        if not task.cancelled():
            error = task.exception()
            if error is not None:
                logger.error(
                    "background task %s failed", task.get_name(), exc_info=error
                )

    def _count(self, *, is_cut: bool) -> None:
        """Count what has ended while it drains."""
        self._cut += is_cut
        self._completed += not is_cut
        if not (self._runs or self._tasks):
            self._wake()

    def _is_at_home(self) -> bool:
        return asyncio._get_running_loop() is self._loop and not self._is_shut

    # What others are told

    def live(self) -> Answer:
        """Answer whether the process works at all, whatever it depends on.

        Returns:
            200 and a body, as who can answer is alive. An orchestrator restarts what is
            not, and no restart brings a dependency back.
        """
        return _OK, {"status": "alive", "state": self._state}

    async def ready(self) -> Answer:
        """Answer whether requests should be sent here.

        Returns:
            200, or 503 while it starts or drains or while a required check fails; and
            a body with the state and with what each check found. It has the types of
            errors and never their texts, which go to the log.
        """
        self._is_asked = True
        if self._state != "ready":
            return _UNAVAILABLE, {"status": self._state}
        findings = await self._checks.findings()
        # It may have begun to drain meanwhile.
        is_ready = self._state == "ready" and self._checks.is_ready(findings)
        status = self._state if is_ready or self._state != "ready" else "failing"
        body: dict[str, Any] = {"status": status}
        if findings:
            body["checks"] = findings
        return _OK if is_ready else _UNAVAILABLE, body

    async def health(self) -> Answer:
        """Answer as `ready` does, with what runs and what the workflows have counted.

        For people and dashboards: it says more than strangers should know.
        """
        code, body = await self.ready()
        body["running"], body["background"] = self._counts()
        if self._workflows:
            body["workflows"] = {
                name: stats_of(workflow) for name, workflow in self._workflows.items()
            }
        return code, body

    # Signals

    def install_signals(self, *, prestop: float | None = None) -> bool:
        """Hear SIGTERM and SIGINT before the host does, until the drain is over.

        At the first signal readiness becomes 503 while requests are still served; after
        `prestop` seconds the handler that was there gets the signal, for instance that
        of uvicorn, which then closes its socket. Where none was there, the lifecycle
        drains, and then the signal does what it does by default.
        Another signal, a second or more later, cuts the waiting short.

        Args:
            prestop: Seconds, instead of `prestop_seconds`.

        Returns:
            Whether it hears them. Only the main thread may, so that a server in a
            thread of a test goes without.
        """
        if prestop is not None:
            self._prestop = _prestop("prestop", prestop)
        if self._loop is None:
            msg = "install_signals() belongs inside `async with lifecycle:`"
            raise RuntimeError(msg)
        if not is_main_thread() or self._signals is not None:
            return self._signals is not None
        self._signals = Signals(self._begin, self._hurry, self._deliver)
        self._signals.install()
        return True

    def _begin(self, number: int) -> float:
        """Begin to drain at a signal; return for how long to go on serving."""
        self._stopped_by = number
        was_ready = self._state == "ready"
        self.begin_drain()
        budget = self._opened()
        self._late = running_loop().call_at(budget.patience, self._cut_rest)
        if self._watchdog is not None:
            self._watchdog.start(self._seconds + _FORCE_SECONDS, number)
        if not was_ready:
            return 0.0
        if self._prestop is not None:
            return self._prestop
        return min(_PRESTOP_SECONDS, self._seconds / 5) if self._is_asked else 0.0

    def _hurry(self) -> None:
        """Let nobody wait any longer."""
        logger.warning("told to end once more: what runs is cancelled")
        self._opened().cut()
        self._wake()
        self._cut_rest()

    def _deliver(self, number: int, handler: Any) -> None:  # noqa: ANN401 - as `signal` has it
        self._delivered = True
        if self._main is not None:
            self._interrupt()
        elif handler is signal.SIG_DFL:
            if self._ending is None:
                self._ending = running_loop().create_task(self._end_by(number))
        else:
            pass_on(number, handler)

    async def _end_by(self, number: int) -> None:
        """Drain, and end as a process does that nobody has taught otherwise."""
        await self.drain()
        signal.raise_signal(number)

    def _interrupt(self) -> None:
        """End the main program at a signal, in a moment in which nothing runs."""
        if self._main is not None and self._delivered and not self._runs:
            self._main.cancel()

    # A program of its own

    def run(self, main: Coroutine[Any, Any, T]) -> T | None:
        """Run a program in this lifecycle, like `asyncio.run`, and end within budget.

        At SIGTERM or SIGINT the main coroutine is cancelled in the first moment in
        which it waits and no run is tracked; then the lifecycle drains. A loop that
        always has runs under way should end when `state` is no longer `ready`, or it
        is cut short when four fifths of the budget are over. A process that is
        still there two seconds after the budget, because of a thread or a task that
        does not end, is ended by force.

        Args:
            main: The program.

        Returns:
            What the program returned; None if a signal ended it, which is then
            `stopped_by`.
        """
        self._watchdog = None
        watchdog = Watchdog()
        try:
            with asyncio.Runner() as runner:
                return runner.run(self._program(main, watchdog))
        finally:
            watchdog.stop()

    async def _program(
        self, main: Coroutine[Any, Any, T], watchdog: Watchdog
    ) -> T | None:
        self.start()
        self._watchdog = watchdog
        self._main = task = running_loop().create_task(main, name="main")
        self.install_signals()
        self.mark_ready()
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
            await self.drain()
        if task.cancelled() and self.stopped_by is not None:
            return None
        return task.result()


def _prestop(name: str, value: float | None) -> float | None:
    return None if value is None else seconds(name, value, zero=True)
