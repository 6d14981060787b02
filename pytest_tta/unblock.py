"""Free the loops that tests share from what a stuck test left waiting in them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pytest_tta.clock.errors import ClockError

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

__all__ = ["unblock"]

_Task = asyncio.Task[Any]

# What a test may do on its way out, each time that its error reaches it.
_ROUNDS = 10
# How often a test may catch its error and wait again.
_THROWS = 20


def unblock(
    loop: asyncio.AbstractEventLoop, before: AbstractSet[_Task], error: ClockError
) -> None:
    """End what a test left waiting, so that the next test in this loop can run.

    pytest-asyncio gives each test a task, and cancelling that is enough. anyio runs
    all tests and fixtures of a loop inside one long task, which would end with the
    test: there the error is raised at the line where the test waits.

    Args:
        loop: A loop that is not running.
        before: Its tasks before the test.
        error: Why the test is over.
    """
    with suppress(ClockError):
        loop.run_until_complete(_unblock(set(before), error))


async def _unblock(before: set[_Task], error: ClockError) -> None:
    new = asyncio.all_tasks() - before - {asyncio.current_task()}
    # Who waits for anyio's task shall not hear of the error: the report has it.
    await _cancel({task for task in new if _runs(task, "_call_in_runner_task")})
    for task in asyncio.all_tasks():
        if _runs(task, "_run_tests_and_fixtures"):
            await _raise_inside(task, error)
            new.discard(task)
    await _cancel(new)


async def _cancel(tasks: set[_Task]) -> None:
    waiting = {task for task in tasks if not task.done()}
    for task in waiting:
        task.cancel()
    if waiting:
        await asyncio.gather(*waiting, return_exceptions=True)


def _runs(task: _Task, function: str) -> bool:
    """Tell whether a task was made for this function of anyio's."""
    name = getattr(task.get_coro(), "__qualname__", "")
    return name == f"TestRunner.{function}"


async def _raise_inside(task: _Task, error: ClockError) -> None:
    for _ in range(_THROWS):
        if _is_at_rest(task):
            return
        waiter = _innermost(task)
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)
            waiter.exception()  # Seen: asyncio need not say that nobody asked.
        for _ in range(_ROUNDS):
            await asyncio.sleep(0)


def _is_at_rest(task: _Task) -> bool:
    """Tell whether anyio's task waits for the next test, and not inside one."""
    coro: Any = task.get_coro()
    frame = getattr(coro, "cr_frame", None)
    return frame is None or coro.cr_await is not frame.f_locals.get("coro")


def _innermost(task: _Task) -> asyncio.Future[Any] | None:
    """Return the future that a task waits for, through tasks that it waits for."""
    waiter = getattr(task, "_fut_waiter", None)
    while isinstance(waiter, asyncio.Task):
        waiter = getattr(waiter, "_fut_waiter", None)
    return waiter
