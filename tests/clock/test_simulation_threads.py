"""What becomes of threads, sockets and hand-moved time in a simulated loop."""

from __future__ import annotations

import asyncio
import contextvars
import datetime as dt
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tta.clock import VirtualClock
from pytest_tta.clock.errors import ClockHeld, ClockPaused
from pytest_tta.clock.fences import SimulationFence
from pytest_tta.clock.inline import label_of
from pytest_tta.clock.simulation import SimulationLoop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@pytest.fixture
def loop(loop: SimulationLoop) -> SimulationLoop:
    """Begin an execution."""
    loop.begin()
    return loop


# --- threads --------------------------------------------------------------------------


def read() -> str:
    """Stand for something that blocks."""
    return "rows"


def test_a_call_in_a_thread_is_an_operation(loop: SimulationLoop) -> None:
    """It has the function's name, and comes when it is chosen."""
    log: list[str] = []

    async def call(label: str) -> None:
        await asyncio.to_thread(log.append, label)

    async def body() -> None:
        await asyncio.gather(call("a"), call("b"))

    loop.begin(lambda units: len(units) - 1)
    loop.run(body())
    assert log == ["b", "a"]
    labels = [unit.label for unit in loop.choices[0].units]
    assert labels == ["thread:list.append", "thread:list.append"]
    assert [unit.chain for unit in loop.choices[0].units] == [1, 2]


@pytest.mark.parametrize(
    ("call", "label"),
    [
        (read, "thread:read"),
        (partial(partial(read)), "thread:read"),
        (partial(contextvars.Context().run, partial(read)), "thread:read"),
        (SimulationLoop.close, "thread:SimulationLoop.close"),
        (threading.Lock(), "thread:lock"),
    ],
)
def test_a_call_is_named_by_its_function(call: Callable[..., Any], label: str) -> None:
    """Not by what hands on its arguments or its context."""
    assert label_of(call) == label


def test_a_call_returns_and_raises_what_the_function_does(loop: SimulationLoop) -> None:
    """With whatever executor it is asked for."""

    async def body() -> str:
        """Call a function that returns, and one that raises."""
        with pytest.raises(ZeroDivisionError, match="division"):
            await asyncio.to_thread(lambda: 1 / 0)
        with ThreadPoolExecutor() as pool:
            return await loop.run_in_executor(pool, read)

    assert loop.run(body()) == "rows"


def test_a_call_that_is_cancelled_in_time_does_not_happen(loop: SimulationLoop) -> None:
    """As long as its operation was not chosen."""
    log: list[str] = []

    async def body() -> None:
        task = asyncio.create_task(asyncio.to_thread(log.append, "called"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    loop.run(body())
    assert (log, loop.pending) == ([], [])


def test_a_function_in_a_thread_sees_no_loop(loop: SimulationLoop) -> None:
    """So it may run one of its own, and has the context that it was given."""
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="none")

    def work() -> tuple[str, str]:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return name.get(), asyncio.run(asyncio.sleep(0, "slept"))

    async def body() -> list[tuple[str, str]]:
        """Ask with and without a context."""
        name.set("body")
        with_context = await asyncio.to_thread(work)
        assert asyncio.get_running_loop() is loop
        assert asyncio.current_task() is loop.tasks[0]
        return [with_context, await loop.run_in_executor(None, work)]

    assert loop.run(body()) == [("body", "slept"), ("none", "slept")]


def test_a_function_in_a_thread_sleeps_for_itself(loop: SimulationLoop) -> None:
    """Others go on meanwhile, and a limit ends the wait for it."""
    log: list[tuple[str, float]] = []

    def work(seconds: float) -> float:
        time.sleep(seconds)
        return time.monotonic()

    async def other() -> None:
        await asyncio.sleep(2)
        log.append(("other", loop.time()))

    async def body() -> None:
        """Wait for a slow function, and for one that is too slow."""
        task = asyncio.create_task(other())
        log.append(("work", await asyncio.to_thread(work, 3)))
        with pytest.raises(TimeoutError, match=r"^$"):
            async with asyncio.timeout(1):
                await asyncio.to_thread(work, 60)
        log.append(("limit", loop.time()))
        await task

    with loop.clock:
        loop.begin()
        loop.run(body())
    assert log == [("other", 2.0), ("work", 3.0), ("limit", 4.0)]
    assert [(r.kind, r.woke_at) for r in loop.clock.sleeps] == [
        ("sleep", 2.0),
        ("thread", 3.0),
        ("timeout", 4.0),
        ("thread", None),
    ]


def test_an_error_after_a_sleep_in_a_thread_comes_late(loop: SimulationLoop) -> None:
    """At the instant at which the function had come to it."""

    def work() -> None:
        time.sleep(3)
        msg = "no rows"
        raise LookupError(msg)

    async def body() -> float:
        with pytest.raises(LookupError, match="no rows"):
            await asyncio.to_thread(work)
        return loop.time()

    with loop.clock:
        assert loop.run(body()) == 3.0


def test_a_site_is_entered_around_a_call_in_a_thread(loop: SimulationLoop) -> None:
    """So that whoever strikes sites can strike it, before and after its effect."""
    log: list[str] = []

    @asynccontextmanager
    async def site(label: str) -> AsyncIterator[None]:
        await loop.operation(label)
        log.append(f"begin {label}")
        yield
        log.append("end")

    loop.site = site
    loop.run(asyncio.to_thread(log.append, "effect"))
    assert log == ["begin thread:list.append", "effect", "end"]


def test_a_call_in_a_thread_is_no_task_of_the_test(loop: SimulationLoop) -> None:
    """Names and numbers of tasks are what they are in everyday life."""

    async def body() -> str:
        """Make a task after a call."""
        await asyncio.to_thread(read)
        return asyncio.create_task(asyncio.sleep(0)).get_name()

    assert loop.run(body()) == "Task-2"
    assert len(loop.tasks) == 2


def test_a_thread_that_waits_for_the_loop_is_refused(loop: SimulationLoop) -> None:
    """It would stand still for ever, since there is only one thread."""

    def work() -> None:
        coro = asyncio.sleep(1)
        try:
            asyncio.run_coroutine_threadsafe(coro, loop)
        finally:
            coro.close()

    with pytest.raises(SimulationFence, match="waits for the loop"):
        loop.run(asyncio.to_thread(work))


def test_a_thread_may_leave_something_for_the_loop(loop: SimulationLoop) -> None:
    """What calls soon from a function comes soon."""

    async def body() -> str:
        queue: asyncio.Queue[str] = asyncio.Queue()
        put = partial(loop.call_soon_threadsafe, queue.put_nowait, "left")
        await asyncio.to_thread(put)
        return await queue.get()

    assert loop.run(body()) == "left"


def test_a_real_thread_that_sleeps_is_refused(loop: SimulationLoop) -> None:
    """Nobody could say when it wakes."""
    raised: list[BaseException] = []

    def work() -> None:
        try:
            time.sleep(1)
        except SimulationFence as error:
            raised.append(error)

    async def body() -> None:
        thread = threading.Thread(target=work, name="sleeper")
        thread.start()
        thread.join()

    with loop.clock:
        loop.run(body())
    assert "sleeper" in str(raised[0])
    assert loop.clock.timeline.next_sleeper is None


# --- what is real ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda at: at.create_connection(int, "db", 5432), r"a connection \(db:5432\)"),
        (lambda at: at.create_unix_connection(int, "/run/db"), r"\(/run/db\)"),
        (lambda at: at.create_server(int, "localhost", 80), r"a server \(localhost:80"),
        (lambda at: at.create_datagram_endpoint(int), "a datagram socket"),
        (lambda at: at.getaddrinfo("example.org", 443), r"the address .*example\.org"),
        (lambda at: at.subprocess_exec(int, "ls", "-l"), r"a process \(ls:-l\)"),
        (lambda at: at.subprocess_shell(int, "ls"), r"a process \(ls\)"),
        (lambda at: at.sock_recv(None, 1), "a socket"),
        (lambda at: asyncio.open_connection("db", 5432), r"\(db:5432\)"),
    ],
)
def test_what_is_real_is_refused(
    loop: SimulationLoop, ask: Callable[[SimulationLoop], Any], words: str
) -> None:
    """The error says what was wanted, and what to do instead."""

    async def body() -> None:
        await ask(loop)

    with pytest.raises(SimulationFence, match=words) as raised:
        loop.run(body())
    assert "tta.wire" in str(raised.value)


def test_file_descriptors_and_signals_are_refused(loop: SimulationLoop) -> None:
    """A loop without files has nothing to watch."""
    for ask in (
        partial(loop.add_reader, 0, print),
        partial(loop.add_writer, 0, print),
        partial(loop.add_signal_handler, 2, print),
    ):
        with pytest.raises(SimulationFence, match=r"a file descriptor|a signal"):
            ask()


# --- time -----------------------------------------------------------------------------


def test_everybody_sees_the_time_of_the_simulation(loop: SimulationLoop) -> None:
    """`time.monotonic` and the wall as well."""

    async def body() -> tuple[float, float, str]:
        """Let time pass by a wait and by a block."""
        await asyncio.sleep(30)
        time.sleep(5)
        return loop.time(), time.monotonic(), dt.datetime.now(dt.UTC).isoformat()

    with loop.clock:
        for _ in range(2):
            loop.begin()
            assert loop.run(body()) == (35.0, 35.0, "2000-01-01T00:00:35+00:00")


def test_time_can_be_moved_by_hand(loop: SimulationLoop) -> None:
    """Operations come before the time that is asked for has passed."""
    log: list[tuple[str, float]] = []

    async def work() -> None:
        """Note three instants."""
        await loop.operation("call")
        log.append(("called", loop.time()))
        for _ in range(2):
            await asyncio.sleep(4)
            log.append(("slept", loop.time()))

    async def body() -> None:
        """Stop in the middle."""
        task = asyncio.create_task(work())
        with loop.clock.freeze():
            await loop.clock.settle()
            assert log == [("called", 0.0)]
            await loop.clock.advance(5)
            assert log[1:] == [("slept", 4.0)]
            assert loop.time() == 5.0
        await task

    loop.run(body())
    assert log == [("called", 0.0), ("slept", 4.0), ("slept", 8.0)]


def test_time_that_nobody_moves_is_an_error(loop: SimulationLoop) -> None:
    """As in everyday life, with the same words."""

    async def body(clock: VirtualClock) -> None:
        with clock.freeze():
            await asyncio.sleep(3)

    with pytest.raises(ClockPaused, match="next timer in 3 s") as simulated:
        loop.run(body(loop.clock))
    everyday = VirtualClock()
    with pytest.raises(ClockPaused, match="by hand") as paused:
        everyday.run(body(everyday))
    assert str(simulated.value) == str(paused.value)


def test_time_that_is_held_while_all_wait_is_an_error(loop: SimulationLoop) -> None:
    """Nobody outside could let it go."""

    async def body() -> None:
        with loop.clock.hold("a migration"):
            await asyncio.sleep(3)

    with pytest.raises(ClockHeld, match="a migration"):
        loop.run(body())
