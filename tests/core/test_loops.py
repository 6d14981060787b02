"""Which loop runs: remembered where to ask is dear, and never mistaken for another."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tta_primitives import WorkflowContext, loops


class Foreign(asyncio.AbstractEventLoop):
    """A loop of another make, which says nothing of its thread."""

    def time(self):
        return 7.0


@pytest.fixture
def foreign():
    """A loop of another make that runs in this thread."""
    loop = Foreign()
    asyncio._set_running_loop(loop)
    yield loop
    asyncio._set_running_loop(None)


def test_the_running_loop_is_asyncios() -> None:
    """In one loop after the other, and each time it is asked for."""

    async def found():
        loop = asyncio.get_running_loop()
        return [loops.running_loop() is loop for _ in range(2)]

    assert [asyncio.run(found()) for _ in range(2)] == [[True, True]] * 2


def test_the_time_is_that_of_the_running_loop() -> None:
    """Also when a loop before it had a clock of its own."""

    class Shifted(asyncio.SelectorEventLoop):
        def time(self):
            return super().time() + 1000

    async def differences():
        first = loops.now() - asyncio.get_running_loop().time()
        second = loops.moment() - asyncio.get_running_loop().time()
        return round(first), round(second)

    with asyncio.Runner(loop_factory=Shifted) as runner:
        assert runner.run(differences()) == (0, 0)
    assert asyncio.run(differences()) == (0, 0)


def test_a_loop_that_has_stopped_is_not_running() -> None:
    """It was the last one, and its thread is this one."""

    async def find():
        loops.running_loop()

    asyncio.run(find())
    with pytest.raises(RuntimeError, match="no running event loop"):
        loops.running_loop()
    with pytest.raises(RuntimeError, match="no running event loop"):
        loops.now()
    assert loops.moment() is None


def test_a_loop_of_another_thread_is_not_ours() -> None:
    """Two loops that run at the same time are each found in their own thread."""
    meet = threading.Barrier(2, timeout=10)
    right = []

    async def look():
        for _ in range(100):
            right.append(loops.running_loop() is asyncio.get_running_loop())
            await asyncio.sleep(0)
        meet.wait()

    threads = [threading.Thread(target=asyncio.run, args=[look()]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 200


async def test_beside_a_running_loop_another_thread_has_none() -> None:
    """The loop that was found last runs, but elsewhere."""
    loops.running_loop()

    def ask():
        context = WorkflowContext()
        with pytest.raises(RuntimeError, match="no running event loop"):
            loops.running_loop()
        return loops.moment(), context._started_at

    assert await asyncio.to_thread(ask) == (None, None)


def test_a_loop_of_another_make_is_asked_for_each_time(foreign) -> None:
    """It may not say which thread it runs in, so it is not remembered."""
    assert loops.running_loop() is foreign
    assert loops.now() == loops.moment() == 7.0
    assert WorkflowContext()._started_at == 7.0
    assert loops._last is not foreign
    asyncio._set_running_loop(None)
    assert loops.moment() is None
