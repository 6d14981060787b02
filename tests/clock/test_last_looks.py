"""The end of a loop: asyncio's runner lets it run twice more, mostly for nothing."""

from __future__ import annotations

import asyncio
import gc
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tta import Harness
from pytest_tta.clock import VirtualClock
from pytest_tta.clock.loop import VirtualLoop
from tests.garbage import only_new_garbage
from tta_primitives import step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

Told = list[str]


async def soon(told: Told) -> None:
    """Leave a callback that is added by the last round of the main task's run."""
    loop = asyncio.get_running_loop()
    loop.call_soon(loop.call_soon, told.append, "soon")


async def due(told: Told) -> None:
    """Leave a timer for the present instant."""
    loop = asyncio.get_running_loop()
    loop.call_soon(loop.call_later, 0, told.append, "due")


async def held(told: Told, wait: Awaitable[object]) -> None:
    """Say what becomes of it."""
    try:
        await wait
    finally:
        told.append("cancelled")


async def task(told: Told) -> object:
    """Leave a task that waits for time."""
    left = asyncio.create_task(held(told, asyncio.sleep(3600)))
    await asyncio.sleep(0)
    return left


async def future(told: Told) -> object:
    """Leave a task for which the loop has nothing to do."""
    left = asyncio.create_task(held(told, asyncio.get_running_loop().create_future()))
    await asyncio.sleep(0)
    return left


async def direct(told: Told) -> object:
    """Leave a task that no loop was asked to make."""
    loop = asyncio.get_running_loop()
    left = asyncio.Task(held(told, loop.create_future()), loop=loop)
    await asyncio.sleep(0)
    return left


async def generator(told: Told) -> AsyncIterator[int]:
    """Leave a generator that nobody has read to its end."""

    async def numbers() -> AsyncIterator[int]:
        """Say when it is closed."""
        try:
            yield 1
        finally:
            told.append("generator")

    left = numbers()
    await anext(left)
    return left


async def executor(told: Told) -> None:
    """Leave the loop's own executor, which has run something."""

    class Executor(ThreadPoolExecutor):
        """Say when its end has been waited for, or not."""

        def shutdown(self, wait: bool = True, **options: bool) -> None:
            if wait:
                gate.set()
            super().shutdown(wait, **options)
            told.append(f"wait={wait}")

    gate = threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(Executor(1))
    loop.run_in_executor(None, gate.wait)


async def reader(told: Told) -> object:
    """Leave a socket that has something to read."""
    ours, theirs = socket.socketpair()
    theirs.send(b"x")

    def read() -> None:
        """Read it, and watch no more."""
        told.append("read")
        loop.remove_reader(ours)

    loop = asyncio.get_running_loop()
    loop.call_soon(loop.add_reader, ours, read)
    return (ours, theirs)


def told_by(run: Callable[..., None], leave: Callable[[Told], Any]) -> Told:
    """Return what happens after a main task that leaves something."""
    told: Told = []
    kept: list[Any] = []

    async def main() -> None:
        """Leave it, and keep it alive until the end."""
        kept.append(await leave(told))
        told.append("main")

    run(main())
    for left in kept[0] if leave is reader else ():
        left.close()
    return told


@pytest.mark.parametrize(
    "leave", [soon, due, task, future, direct, generator, executor, reader]
)
def test_what_is_left_ends_as_under_asyncio(leave) -> None:
    """Whatever two more rounds of asyncio's loop would do is done here too."""
    theirs = told_by(asyncio.run, leave)
    assert len(theirs) > 1
    assert told_by(VirtualClock().run, leave) == theirs


def test_a_loop_with_nothing_left_does_not_run_again(monkeypatch) -> None:
    """One run for the main task, none for two looks at nothing."""
    runs: list[str] = []
    whole = VirtualLoop.run_forever

    def counted(loop: VirtualLoop) -> None:
        """Count it, and run."""
        runs.append("run")
        whole(loop)

    monkeypatch.setattr(VirtualLoop, "run_forever", counted)
    assert VirtualClock().run(asyncio.sleep(1, "slept")) == "slept"
    assert runs == ["run"]


COUNTED = """
import asyncio
from pytest_tta import Harness

def counted(loop=None):
    walks.append(loop)
    return walk(loop)

walks, walk = [], asyncio.tasks.all_tasks
asyncio.all_tasks = asyncio.tasks.all_tasks = counted

async def double(number):
    await asyncio.sleep(1)
    return number * 2

with Harness() as tta:
    assert tta.run(double, 21) == 42
print(len(walks))
"""


@pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="asyncio keeps its tasks in lists from 3.14 on"
)
def test_the_set_of_all_tasks_is_not_walked_for_one() -> None:
    """It keeps the size that it once had: 0.2 ms after twenty thousand tasks.

    In a process of its own, where no other test has left a task.
    """
    done = subprocess.run(
        [sys.executable, "-c", COUNTED], check=True, capture_output=True, text=True
    )
    assert done.stdout == "0\n"


def test_a_loop_is_shut_down_all_the_same() -> None:
    """It refuses what comes after its end, as asyncio's does."""
    loop = VirtualClock().new_loop()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    with pytest.raises(RuntimeError, match="shutdown"):
        loop.run_in_executor(None, int)
    loop.close()


def test_a_closed_loop_is_no_cyclic_garbage() -> None:
    """A test has one, an example of a property has one: nobody collects after each."""
    with only_new_garbage():
        VirtualClock().run(asyncio.sleep(1))
        assert gc.collect() == 0


def test_a_run_that_fails_is_no_cyclic_garbage() -> None:
    """What it raises leads to the frames that it has left, and none leads to it."""

    async def fail() -> None:
        """Fail after a while."""
        await asyncio.sleep(1)
        msg = "no"
        raise ValueError(msg)

    def body() -> None:
        with Harness() as tta, suppress(ValueError):
            tta.run(step(fail_with), 1)

    async def fail_with(_: int) -> None:
        """Fail as a step."""
        await fail()

    with only_new_garbage():
        with suppress(ValueError):
            VirtualClock().run(fail())
        assert gc.collect() == 0
        body()
        assert gc.collect() == 0


def test_a_coroutine_of_the_same_name_is_run() -> None:
    """Only asyncio's own looks are known not to wait."""

    async def shutdown_asyncgens() -> str:
        """Wait, unlike the other one."""
        await asyncio.sleep(1)
        return "waited"

    loop = VirtualClock().new_loop()
    assert loop.run_until_complete(shutdown_asyncgens()) == "waited"
    loop.close()
