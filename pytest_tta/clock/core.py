"""What every loop of ours has in common: exact timers, numbered tasks, a log."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import sys
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_tta.clock import describe
from pytest_tta.clock.places import user_spot
from pytest_tta.clock.tasks import Numbering, all_tasks, birth, task_of
from pytest_tta.clock.timeline import NEVER, SECOND, to_ns
from pytest_tta.clock.timers import Timer, kind_of

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Coroutine
    from contextvars import Context

    from pytest_tta.clock.clock import VirtualClock
    from pytest_tta.clock.timeline import Timeline

__all__ = ["LoopCore"]

_T = TypeVar("_T")
_Handle = asyncio.Handle


class LoopCore(asyncio.BaseEventLoop):
    """Be the half of an asyncio loop that knows of time and of tasks.

    How a loop waits, and when time moves, is what its subclasses add.
    """

    # Parts of asyncio's loop that the stubs do not show.
    _closed: bool
    _debug: bool
    _ready: deque[asyncio.Handle]
    _scheduled: list[Timer]
    _task_factory: Callable[..., Any] | None
    _thread_id: int | None
    _timer_cancelled_count: int

    winding_up: bool = False
    """Whether only the end of the run is waited for, which nobody wants to read of."""

    def __init__(self, *args: Any) -> None:  # noqa: ANN401 - what asyncio's loop takes
        """Begin with no timeline: time is real."""
        self._timeline: Timeline | None = None
        self._numbering = Numbering()
        self._ages = count(-NEVER)
        super().__init__(*args)

    @property
    def clock(self) -> VirtualClock | None:
        """The clock in whose time it lives."""
        raise NotImplementedError

    @property
    def thread_ident(self) -> int | None:
        """Ident of the thread in which the loop runs, None while it does not."""
        return self._thread_id

    @property
    def timers(self) -> list[Timer]:
        """The heap of timers, the next one first."""
        return self._scheduled

    # --- what is ready --------------------------------------------------------

    def call_soon(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,  # noqa: ANN401 - the signature of asyncio
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Call `callback` in the next round; each step of a task is asked for here."""
        if self._debug or self._closed:
            return super().call_soon(callback, *args, context=context)
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    # --- timers --------------------------------------------------------------

    def call_later(  # type: ignore[override]
        self,
        delay: float | None,
        callback: Callable[..., object],
        *args: Any,  # noqa: ANN401 - the signature of asyncio
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call `callback` in `delay` seconds."""
        if delay is None:
            msg = "delay must not be None"
            raise TypeError(msg)
        timeline = self._timeline
        if timeline is None:
            return self._set_real(self.time() + delay, callback, args, context)
        ns = timeline.now_ns + to_ns(delay)
        return self._set(timeline, ns, delay, callback, args, context)

    def call_at(  # type: ignore[override]
        self,
        when: float | None,
        callback: Callable[..., object],
        *args: Any,  # noqa: ANN401
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call `callback` at `when`, in the loop's time."""
        if when is None:
            msg = "when cannot be None"
            raise TypeError(msg)
        timeline = self._timeline
        if timeline is None:
            return self._set_real(when, callback, args, context)
        ns = to_ns(when)
        delay = (ns - timeline.now_ns) / SECOND if ns < NEVER else when
        return self._set(timeline, ns, delay, callback, args, context)

    def _set(  # noqa: PLR0917 - the order of call_later, after what it has worked out
        self,
        timeline: Timeline,
        ns: int,
        delay: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
    ) -> Timer:
        """Log a wait that begins now, and set its timer."""
        if self.winding_up:
            return self._push(ns, timeline.number(), callback, args, context)
        frame = sys._getframe(2)
        task = task_of(self)
        kind = kind_of(callback, frame)
        age = timeline.record(
            delay,
            kind,
            None if task is None else task.get_name(),
            user_spot(frame),
            describe.path_of_current(),
        )
        timer = self._push(ns, age, callback, args, context)
        timer.kind = kind
        timer.chain = birth(task)
        return timer

    def _set_real(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
    ) -> Timer:
        return self._push(to_ns(when), next(self._ages), callback, args, context)

    def _push(
        self,
        ns: int,
        age: int,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
    ) -> Timer:
        self._check_closed()  # type: ignore[attr-defined]
        if self._debug:
            self._check_thread()  # type: ignore[attr-defined]
            self._check_callback(callback, "call_at")  # type: ignore[attr-defined]
        timer = Timer(ns, age, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True
        return timer

    def _timer_handle_cancelled(self, handle: Timer) -> None:
        if handle._scheduled:
            self._timer_cancelled_count += 1
            if self._timeline is not None:
                self._timeline.withdraw(handle.seq)

    # --- tasks ---------------------------------------------------------------

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, _T],
        *,
        name: str | None = None,
        context: Context | None = None,
        **options: Any,  # noqa: ANN401 - newer interpreters have more
    ) -> asyncio.Task[_T]:
        """Make a task whose place in a set is that of its making."""
        if self._task_factory is not None:
            if name is not None:
                options["name"] = name
            return super().create_task(coro, context=context, **options)
        self._check_closed()  # type: ignore[attr-defined]
        if context is None:
            context = contextvars.copy_context()
        return self._numbering.make(self, coro, name, context, options)

    def living_tasks(self) -> list[asyncio.Task[Any]]:
        """List the tasks that are not done, in the order of their making."""
        return sorted(all_tasks(self), key=birth)
