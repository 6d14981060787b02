"""Let anyio's runner task, in which all tests of a loop run, leave a stuck test."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_tta.clock.errors import ClockError

__all__ = ["is_call_in_runner", "leave_test", "runner_tasks"]

_Task = asyncio.Task[Any]

# What a test may do on its way out, each time that its error reaches it.
_ROUNDS = 10
# How often a test may catch its error and wait again.
_THROWS = 20


def is_call_in_runner(future: object) -> bool:
    """Tell whether this is the task that waits for anyio's to run something."""
    return _runs(future, "_call_in_runner_task")


def runner_tasks(tasks: Iterable[_Task]) -> list[_Task]:
    """Return those among the tasks that are anyio's."""
    return [task for task in tasks if _runs(task, "_run_tests_and_fixtures")]


def _runs(future: object, function: str) -> bool:
    coro = future.get_coro() if isinstance(future, asyncio.Task) else None
    return getattr(coro, "__qualname__", "") == f"TestRunner.{function}"


async def leave_test(task: _Task, error: ClockError) -> None:
    """Raise `error` at the line where the test inside anyio's task waits.

    A cancelled task would end, and take with it the fixtures that live in it.
    """
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
