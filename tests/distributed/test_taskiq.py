"""The engine on taskiq, on its broker in memory: conformance, and its edges."""

from __future__ import annotations

import asyncio

import pytest

from tta_primitives import MapPrimitive, WorkflowContext
from tta_primitives.distributed import EngineClosedError, remote
from tta_primitives.distributed.conformance import (
    ENGINE_CHECKS,
    check_echo,
    check_registry,
)
from tta_primitives.errors import TimeoutExceededError

pytest.importorskip("taskiq")
from taskiq import AsyncBroker, InMemoryBroker

from tta_primitives.integrations.taskiq import LocalMailbox, TaskiqEngine


@pytest.mark.parametrize("check", ENGINE_CHECKS, ids=lambda check: check.__name__)
async def test_taskiq_in_memory_conforms(tta, tmp_path, check) -> None:
    """The embedded default does what a fleet does."""
    async with TaskiqEngine(check_registry()) as engine:
        await check(engine, tmp_path)


async def test_a_broker_of_other_processes_needs_a_mailbox() -> None:
    """Replies would never come back: that shows at once."""

    class Elsewhere(AsyncBroker):
        async def kick(self, message): ...

        def listen(self): ...

    with pytest.raises(ValueError, match="Elsewhere leaves this process: give mailbox"):
        TaskiqEngine(check_registry(), broker=Elsewhere())


async def test_a_broker_has_one_engine(tta) -> None:
    """The second would take the first one's tasks."""
    broker = InMemoryBroker()
    async with TaskiqEngine(check_registry(), broker=broker):
        with pytest.raises(ValueError, match="this InMemoryBroker has an engine"):
            TaskiqEngine(check_registry(), broker=broker)


async def test_it_opens_itself_and_leaves_nothing(tta, tmp_path) -> None:
    """The first call opens it; when it is closed, no task is left."""
    before = asyncio.all_tasks()
    engine = TaskiqEngine(check_registry())
    echo = remote(check_echo, engine=engine)
    work = MapPrimitive(echo, max_concurrency=20)
    assert await work.execute(list(range(50)), WorkflowContext()) == list(range(50))
    hang = remote("check_hang", engine=engine, timeout_seconds=1)
    asked = {"name": "x", "folder": str(tmp_path), "seconds": 100}
    with pytest.raises(TimeoutExceededError, match="check_hang took longer"):
        await hang.execute(asked, WorkflowContext())
    await engine.close()
    assert asyncio.all_tasks() == before


async def test_a_strange_message_is_dropped(tta, caplog) -> None:
    """Whoever else writes to the queue, workers and callers go on."""
    async with TaskiqEngine(check_registry()) as engine:
        await engine._task.kicker().kiq('{"tta": "other"}', "here", 0.0)
        await engine.broker.wait_all()
        engine._deliver("no reply")
        echo = remote(check_echo, engine=engine)
        assert await echo.execute(1, WorkflowContext()) == 1
    assert "what came instead of a task is dropped" in caplog.text
    assert "what came instead of a reply is dropped" in caplog.text


class Slow(InMemoryBroker):
    """A broker that connects when it is told that its server has answered."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = asyncio.Event()
        self.is_up = False

    async def startup(self):
        """Wait for the server."""
        self.is_up = True
        await self.answer.wait()
        await super().startup()

    async def shutdown(self):
        """Note that it is down."""
        self.is_up = False
        await super().shutdown()


async def test_an_opening_that_is_cancelled_leaves_nothing(tta) -> None:
    """A call whose time is up while the broker hangs may be the one that opens it."""

    class Box(LocalMailbox):
        is_receiving = False

        async def receive(self, deliver):
            """Begin."""
            self.is_receiving = True
            await super().receive(deliver)

        async def close(self):
            """End."""
            self.is_receiving = False
            await super().close()

    broker, box = Slow(), Box()
    engine = TaskiqEngine(check_registry(), broker=broker, mailbox=box)
    echo = remote(check_echo, engine=engine, timeout_seconds=1)
    with pytest.raises(TimeoutExceededError, match="check_echo took longer"):
        await echo.execute(1, WorkflowContext())
    assert not box.is_receiving
    assert not broker.is_up


async def test_an_engine_that_is_closed_while_it_opens_is_closed(tta) -> None:
    """Nobody would close it a second time."""
    broker = Slow()
    engine = TaskiqEngine(check_registry(), broker=broker)
    opening = asyncio.create_task(engine.open())
    await asyncio.sleep(1)
    await engine.close()
    broker.answer.set()
    with pytest.raises(EngineClosedError, match="was closed"):
        await opening
    assert not broker.is_up
