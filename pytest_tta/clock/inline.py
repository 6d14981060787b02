"""Call what should run in a thread in the loop's own, one after the other."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pytest_tta.clock.tasks import NumberedTask, birth

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_tta.clock.simulation import SimulationLoop

__all__ = ["begin", "label_of", "take_in_anyio"]

_T = TypeVar("_T")

# Where the first helper task stands in a set: behind all that the loop has numbered.
_KEY = (1 << 60) - 1

_taken_in: set[str] = set()


class _End(NamedTuple):
    """How a call ended, and at which nanosecond of its own time."""

    result: Any
    error: BaseException | None
    due: int


def begin(
    loop: SimulationLoop, func: Callable[..., _T], args: tuple[Any, ...]
) -> asyncio.Future[_T]:
    """Call `func(*args)` when its operation is chosen.

    Returns:
        What will hold its result.
    """
    # A task, since a site is entered and left; but none that the test has made.
    chain = birth(asyncio.current_task(loop))
    label = label_of(func, args)
    work = _work(loop, label, func, args)
    context = contextvars.copy_context()
    key = _KEY - len(loop.helpers)
    task = NumberedTask(work, chain, key, context, loop=loop, name=label)
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.helpers.append(task)
    return task


async def _work(
    loop: SimulationLoop, label: str, func: Callable[..., Any], args: tuple[Any, ...]
) -> Any:  # noqa: ANN401 - whatever the function returns
    if loop.site is None:
        await loop.answer(label)
        return await _answer(loop, func, args)
    async with loop.site(label):
        return await _answer(loop, func, args)


async def _answer(
    loop: SimulationLoop, func: Callable[..., Any], args: tuple[Any, ...]
) -> Any:  # noqa: ANN401 - whatever the function returns
    result, error, due = _call(loop, func, args)
    await loop.until(due)
    if error is not None:
        raise error
    return result


def _call(
    loop: SimulationLoop, func: Callable[..., Any], args: tuple[Any, ...]
) -> _End:
    """Call as a thread does: with a context of its own, and no running loop."""
    timeline, before = loop.clock.timeline, loop.clock.timeline.now_ns
    task = asyncio.current_task(loop)
    asyncio.tasks._leave_task(loop, task)  # type: ignore[arg-type]
    asyncio._set_running_loop(None)
    loop.is_aside = True
    try:
        result = contextvars.Context().run(func, *args)
        return _End(result, None, timeline.now_ns)
    except Exception as error:  # noqa: BLE001 - handed on at its own time
        return _End(None, error, timeline.now_ns)
    finally:
        loop.is_aside = False
        asyncio._set_running_loop(loop)
        asyncio.tasks._enter_task(loop, task)  # type: ignore[arg-type]
        timeline.show(before)


def label_of(func: Callable[..., object], args: tuple[Any, ...] = ()) -> str:
    """Name the site of a call in a thread by its function.

    `asyncio.to_thread` wraps it, to hand on the context.
    """
    if isinstance(func, partial):
        return label_of(func.func, (*func.args, *args))
    if isinstance(getattr(func, "__self__", None), contextvars.Context) and args:
        return label_of(args[0], args[1:])
    name = getattr(func, "__qualname__", None) or type(func).__qualname__
    return f"thread:{name}"


def take_in_anyio() -> None:
    """Let `anyio.to_thread` ask a simulated loop, once anyio is there.

    anyio starts threads of its own, by a way that asks no loop.
    """
    if _taken_in or "anyio" not in sys.modules:
        return
    from anyio._backends import _asyncio as anyio_on_asyncio

    _taken_in.add(anyio_on_asyncio.__name__)
    backend: Any = anyio_on_asyncio.AsyncIOBackend
    in_thread = backend.run_sync_in_worker_thread.__func__

    async def run_sync_in_worker_thread(
        cls: Any,  # noqa: ANN401 - anyio's class
        func: Callable[..., Any],
        args: tuple[Any, ...],
        abandon_on_cancel: bool = False,  # noqa: FBT001, FBT002 - as anyio calls it
        limiter: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Ask the loop, if that is a simulated one."""
        loop = asyncio.get_running_loop()
        if not hasattr(loop, "is_aside"):
            return await in_thread(cls, func, args, abandon_on_cancel, limiter)
        await cls.checkpoint()
        async with limiter or cls.current_default_thread_limiter():
            with anyio_on_asyncio.CancelScope(shield=not abandon_on_cancel):
                call = partial(contextvars.copy_context().run, func, *args)
                return await loop.run_in_executor(None, call)

    backend.run_sync_in_worker_thread = classmethod(run_sync_in_worker_thread)
