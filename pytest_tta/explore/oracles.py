"""What is wrong whatever a test asserts: permits kept, errors nobody saw, old state."""

from __future__ import annotations

import asyncio
import sys
import weakref
from typing import TYPE_CHECKING, Any

from pytest_tta.clock.describe import task_line
from pytest_tta.clock.places import place, user_spot
from pytest_tta.explore.outcome import Verdict
from tta_primitives.performance import CachePrimitive, MemoryStorage
from tta_primitives.recovery import (
    BulkheadPrimitive,
    CircuitBreakerPrimitive,
    HedgePrimitive,
    Quantile,
    RateLimitPrimitive,
    RetryPrimitive,
)
from tta_primitives.recovery.circuit_state import HalfOpen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import ExitStack

    from pytest_tta.clock.places import Spot
    from tta_primitives.door import Call

__all__ = ["KeptState", "Permits", "left_running", "unhandled"]


def left_running(tasks: Iterable[asyncio.Task[Any]]) -> Verdict:
    """Say which tasks should have ended.

    Args:
        tasks: They, at least one.
    """
    left = list(tasks)
    lines = [f"task {task_line(task)}" for task in left]
    where = lines[0].partition(" at ")[2].partition(" in ")[0]
    what = "await or cancel it"
    if any(map(_is_gathered, left)):
        what = (
            "asyncio.gather() lets the others run on when one of them fails: an "
            "asyncio.TaskGroup cancels and awaits them"
        )
    return Verdict("left running", f"{'; '.join(lines)}; {what}", where)


def _is_gathered(task: asyncio.Task[Any]) -> bool:
    """Tell whether a task is one of those that `asyncio.gather` waits for."""
    waiting = getattr(task, "_callbacks", None) or ()
    names = (getattr(one, "__qualname__", "") for one, _ in waiting)
    return any(name.startswith("gather.") for name in names)


def unhandled(
    tasks: Iterable[asyncio.Task[Any]], contexts: Iterable[dict[str, Any]]
) -> Verdict | None:
    """Find an error that nobody has seen: of a task that has ended, or of a callback.

    Args:
        tasks: All of an execution.
        contexts: What asyncio would have logged.
    """
    for task in tasks:
        if task.done() and not task.cancelled() and task._log_traceback:
            error = task.exception()
            text = (
                f"task {task.get_name()!r} ended with {error!r}, and nobody looked at "
                "it; await the task, or run it in a TaskGroup"
            )
            return Verdict("unhandled error", text, "", error)
    for context in contexts:
        if "handle" in context:
            error = context.get("exception")
            text = f"a callback raised {error!r}: {context['message']}"
            return Verdict("unhandled error", text, "", error)
    return None


class Permits:
    """Finds what is still held when nobody runs any more: locks, semaphores, slots.

    asyncio's locks and semaphores say nothing of who made them, so they are noticed
    where they are made and acquired, while a test is explored. One that was there
    before an execution is given back its state after it.
    """

    def __init__(self) -> None:
        self._made: dict[int, tuple[Any, int]] = {}
        self._used: dict[int, tuple[Any, int, bool, Spot | None]] = {}

    def enter(self, stack: ExitStack) -> None:
        """Watch until a stack is closed."""
        stack.callback(_put_back, asyncio.Lock, acquire=asyncio.Lock.acquire)
        stack.callback(
            _put_back,
            asyncio.Semaphore,
            acquire=asyncio.Semaphore.acquire,
            __init__=asyncio.Semaphore.__init__,
        )
        _replace_lock(self)
        _replace_semaphore(self)

    def begin(self) -> None:
        """Begin an execution: what was there before is free again."""
        for permit, initial, is_older, _ in self._used.values():
            if is_older:
                _free(permit, initial)
        self._used.clear()
        self._made.clear()

    def made(self, permit: Any, value: int) -> None:  # noqa: ANN401 - a semaphore
        """Note that a semaphore is made."""
        self._made[id(permit)] = permit, value

    def acquired(self, permit: Any) -> None:  # noqa: ANN401 - a lock or a semaphore
        """Note that somebody acquires a permit."""
        known = self._used.get(id(permit))
        spot = user_spot(sys._getframe(2))
        if known is not None:
            self._used[id(permit)] = *known[:3], spot
            return
        made = self._made.get(id(permit))
        initial = _initial(permit) if made is None else made[1]
        is_older = made is None
        if is_older:
            # It may have been used in the everyday loop.
            permit._loop = None
        self._used[id(permit)] = permit, initial, is_older, spot

    def held(self) -> Verdict | None:
        """Find a permit that nobody returned."""
        for permit in self.kept():
            kind, at = type(permit).__name__, place(self._used[id(permit)][3])
            text = (
                f"asyncio.{kind} acquired at {at} was never released; use `async "
                "with`, or release it in a finally block"
            )
            return Verdict("permit not returned", text, at.partition(" in ")[0])
        return None

    def kept(self) -> Iterator[Any]:
        """Yield the permits that are held."""
        for permit, initial, _, _ in self._used.values():
            if _is_held(permit, initial):
                yield permit


def _is_on_a_worker() -> bool:
    """Tell whether something is done here for a remote step, as often as it is sent."""
    engine = sys.modules.get("tta_primitives.distributed.engine")
    return engine is not None and engine.sending.get() is not None


def _initial(permit: Any) -> int:  # noqa: ANN401 - a lock or a semaphore
    value: int = getattr(permit, "_bound_value", getattr(permit, "_value", 0))
    return value


def _is_held(permit: Any, initial: int) -> bool:  # noqa: ANN401 - as above
    if isinstance(permit, asyncio.Lock):
        return permit.locked()
    # One that began with nothing is a signal, and no permit.
    return bool(permit._value < initial)


def _free(permit: Any, initial: int) -> None:  # noqa: ANN401 - as above
    permit._waiters = permit._loop = None
    if isinstance(permit, asyncio.Lock):
        permit._locked = False  # type: ignore[attr-defined]
    else:
        permit._value = initial


def _put_back(owner: type, **functions: Any) -> None:  # noqa: ANN401 - any function
    for name, function in functions.items():
        setattr(owner, name, function)


def _replace_lock(permits: Permits) -> None:
    acquire = asyncio.Lock.acquire

    def acquire_lock(self: asyncio.Lock) -> Any:  # noqa: ANN401 - a coroutine
        permits.acquired(self)
        return acquire(self)

    asyncio.Lock.acquire = acquire_lock  # type: ignore[method-assign]


def _replace_semaphore(permits: Permits) -> None:
    acquire, make = asyncio.Semaphore.acquire, asyncio.Semaphore.__init__

    def acquire_semaphore(self: asyncio.Semaphore) -> Any:  # noqa: ANN401 - a coroutine
        permits.acquired(self)
        return acquire(self)

    def make_semaphore(self: asyncio.Semaphore, value: int = 1) -> None:
        make(self, value)
        permits.made(self, value)

    asyncio.Semaphore.acquire = acquire_semaphore  # type: ignore[method-assign]
    asyncio.Semaphore.__init__ = make_semaphore  # type: ignore[method-assign]


# --- primitives that keep state --------------------------------------------------


def _cache(primitive: Any) -> Any:  # noqa: ANN401 - a cache, and what it keeps
    storage = primitive._policy.storage
    if storage is None:
        return primitive
    return storage if isinstance(storage, MemoryStorage) else None


def _hedge(primitive: Any) -> Any:  # noqa: ANN401 - as above
    return primitive if isinstance(primitive.delay, Quantile) else None


def _retry(primitive: Any) -> Any:  # noqa: ANN401 - as above
    return primitive.budget


def _itself(primitive: Any) -> Any:  # noqa: ANN401 - as above
    return primitive


_STATE: dict[type, Callable[[Any], Any]] = {
    BulkheadPrimitive: _itself,
    CachePrimitive: _cache,
    CircuitBreakerPrimitive: _itself,
    HedgePrimitive: _hedge,
    RateLimitPrimitive: _itself,
    RetryPrimitive: _retry,
}


class KeptState:
    """Notices primitives that keep state from one execution to the next."""

    def __init__(self) -> None:
        self._before: dict[int, Callable[[], Any]] = {}
        self._now: dict[int, tuple[Any, Any, Call]] = {}
        self.roots: list[Any] = []
        self.kept: Call | None = None

    def begin(self) -> None:
        """Begin an execution."""
        for thing, _, _ in self._now.values():
            self._before[id(thing)] = _reference(thing)
        self._now.clear()
        self.roots = []
        self.kept = None

    def note(self, call: Call) -> None:
        """Note the call of a primitive that may keep state."""
        primitive = call.primitive
        if call.parent is None and not _is_on_a_worker():
            self.roots.append(primitive)
        state_of = _STATE.get(type(primitive))
        if state_of is None:
            return
        thing = state_of(primitive)
        if thing is None or id(thing) in self._now:
            return
        before = self._before.get(id(thing))
        if before is not None and before() is thing:
            self.kept = self.kept or call
        self._now[id(thing)] = thing, primitive, call

    def held(self, loop: asyncio.AbstractEventLoop) -> Verdict | None:
        """Find a slot, or a probe, that nobody returned."""
        for _, primitive, call in self._now.values():
            what = "; ".join(_held_in(primitive, loop))
            if what:
                text = f"{call.path}: {what} when nobody ran any more"
                return Verdict("permit not returned", text)
        return None

    def complaint(self, test: str) -> str | None:
        """Say what keeps state, None if nothing does.

        Args:
            test: The test's name.
        """
        if self.kept is None:
            return None
        call, name = self.kept, test or "the test"
        return (
            f"{call.path} ({call.primitive!r}) keeps what it knows from one execution "
            f"of {name} to the next, so that executions would not be alike. Build the "
            "workflow in the test's body, with a function that returns a new one:\n"
            "    def make_workflow():\n"
            f"        return ...  # with the {type(call.primitive).__name__} in it\n"
            f"    def {test.rpartition('::')[2].partition('[')[0] or 'test'}(tta):\n"
            "        tta.run(make_workflow(), ...)"
        )


def _reference(thing: Any) -> Callable[[], Any]:  # noqa: ANN401 - what keeps state
    try:
        return weakref.ref(thing)
    except TypeError:
        return lambda: thing


def _held_in(primitive: Any, loop: asyncio.AbstractEventLoop) -> Iterator[str]:  # noqa: ANN401 - any primitive
    if isinstance(primitive, BulkheadPrimitive):
        slots = primitive._by_loop._by_loop.get(loop)
        if slots is not None and slots.active:
            yield f"{slots.active} of {slots.limit} slots were still taken"
    elif isinstance(primitive, CircuitBreakerPrimitive):
        episode = primitive._circuit.episode
        if isinstance(episode, HalfOpen) and episode.probes:
            yield "a probe of the half-open circuit was still counted as under way"
    elif isinstance(primitive, RateLimitPrimitive) and primitive._by_loop.waiting():
        yield f"{primitive._by_loop.waiting()} calls were still in the queue"
