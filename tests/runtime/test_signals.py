"""A signal is heard first by the lifecycle, and then by who would have heard it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from tta_primitives.runtime import Lifecycle

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals sent to oneself")


class Host:
    """The handlers of a server, as uvicorn sets them."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, float]] = []

    def handle(self, number, frame) -> None:
        self.heard.append((number, asyncio.get_running_loop().time()))


@pytest.fixture
def host():
    """Set the handlers of a host, and see afterwards that they are there again."""
    host = Host()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, host.handle) for number in numbers]
    yield host
    after = [
        signal.signal(number, was) for number, was in zip(numbers, before, strict=True)
    ]
    assert after == [host.handle] * 2


async def turns(count=3):
    """Let the loop hear what was sent."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_host_hears_of_it_after_readiness_was_taken_back(
    tta, host, number
) -> None:
    """503 at once; so many seconds later the server may close its socket."""
    async with Lifecycle() as lifecycle:
        assert lifecycle.install_signals(prestop=3)
        began = asyncio.get_running_loop().time()
        signal.raise_signal(number)
        await turns()
        assert (await lifecycle.ready())[0] == 503
        with lifecycle.track():  # It is still served.
            await asyncio.sleep(2.9)
        assert host.heard == []
        await asyncio.sleep(0.2)
        assert host.heard == [(number, pytest.approx(began + 3))]
        assert lifecycle.stopped_by == number


async def test_nobody_waits_where_nobody_asks_for_readiness(tta, host) -> None:
    """Ctrl+C at a terminal: the server stops at once."""
    async with Lifecycle() as lifecycle:
        lifecycle.install_signals()
        signal.raise_signal(signal.SIGINT)
        await turns()
        assert len(host.heard) == 1


async def test_load_balancer_that_asks_is_given_time_to_see_it(tta, host) -> None:
    """Five seconds unless told otherwise, once anybody has asked for readiness."""
    async with Lifecycle() as lifecycle:
        lifecycle.install_signals()
        await lifecycle.ready()
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(4.9)
        assert host.heard == []
        await asyncio.sleep(0.2)
        assert len(host.heard) == 1


async def test_signal_during_the_start_is_handed_on_at_once(tta, host) -> None:
    """Nobody is served yet, so that there is nothing to wait for."""
    lifecycle = Lifecycle()
    lifecycle.start()
    lifecycle.install_signals(prestop=5)
    signal.raise_signal(signal.SIGTERM)
    await turns()
    assert len(host.heard) == 1
    lifecycle.mark_ready()
    assert lifecycle.state == "draining"
    await lifecycle.drain()


async def test_second_signal_cuts_the_waiting_short(tta, host) -> None:
    """During the pause it is handed on at once; after it, what runs is cancelled."""
    async with Lifecycle() as lifecycle:
        lifecycle.install_signals(prestop=10)

        async def run():
            """Be a run of an hour."""
            with lifecycle.track():
                await asyncio.sleep(3600)

        running = asyncio.ensure_future(run())
        for seconds in (0, 2, 2):
            await asyncio.sleep(seconds)
            signal.raise_signal(signal.SIGTERM)
            await turns()
            assert running.cancelled() == (len(host.heard) == 2)
        assert len(host.heard) == 2
        report = await lifecycle.drain()
    assert (report.cancelled, report.seconds) == (1, pytest.approx(4))


async def test_one_request_to_end_may_come_twice(tta, host) -> None:
    """A supervisor tells the group, and the parent tells its children, at a time."""
    async with Lifecycle() as lifecycle:
        lifecycle.install_signals(prestop=10)
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0.2)
        assert host.heard == []


async def test_runs_that_are_left_are_cancelled_though_the_host_waits(
    tta, host
) -> None:
    """A server waits for ever for its requests; the budget counts all the same."""
    async with Lifecycle(drain_seconds=20) as lifecycle:
        lifecycle.install_signals(prestop=2)

        async def request():
            """Hang."""
            with lifecycle.track() as run:
                try:
                    await asyncio.sleep(3600)
                finally:
                    assert run.is_cut

        running = asyncio.ensure_future(request())
        await asyncio.sleep(0)
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(15.9)
        assert not running.done()
        await asyncio.sleep(0.2)
        assert running.cancelled()


async def test_handlers_come_back_also_if_it_is_never_told_to_end(tta, host) -> None:
    """The fixture looks: they are those of the host again."""
    async with Lifecycle() as lifecycle:
        assert lifecycle.install_signals()
        assert lifecycle.install_signals()  # Once is enough.


async def test_handler_that_was_set_meanwhile_is_left_alone(tta) -> None:
    """Whoever has replaced ours wants theirs."""

    def theirs(number, frame):
        """Do nothing."""

    before = signal.getsignal(signal.SIGTERM)
    try:
        async with Lifecycle() as lifecycle:
            lifecycle.install_signals()
            signal.signal(signal.SIGTERM, theirs)
        assert signal.getsignal(signal.SIGTERM) is theirs
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_what_is_ignored_stays_ignored(tta) -> None:
    """`nohup` and shells ignore SIGINT for what runs in their background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        async with Lifecycle() as lifecycle:
            lifecycle.install_signals()
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


async def test_handlers_of_the_loop_are_chained_as_well() -> None:
    """A host that uses `loop.add_signal_handler` would hear of it beside us."""
    loop = asyncio.get_running_loop()
    heard = []
    is_heard = asyncio.Event()

    def handle(word):
        """Note it, as hypercorn does."""
        heard.append(word)
        is_heard.set()

    loop.add_signal_handler(signal.SIGTERM, handle, "told")
    try:
        async with Lifecycle() as lifecycle:
            lifecycle.install_signals(prestop=0.05)
            signal.raise_signal(signal.SIGTERM)
            await asyncio.wait_for(lifecycle.until_draining(), 20)
            assert heard == []
            await asyncio.wait_for(is_heard.wait(), 20)
        assert heard == ["told"]
        is_heard.clear()
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(is_heard.wait(), 20)
        assert heard == ["told", "told"]
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


def test_thread_goes_without_signals() -> None:
    """A server in a thread of a test cannot hear them, and works nevertheless."""
    found = []

    async def serve():
        """Be such a server."""
        async with Lifecycle() as lifecycle:
            found.append(lifecycle.install_signals())

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    thread.join()
    assert found == [False]


async def test_signals_outside_of_the_block_are_a_clear_error() -> None:
    """Without a loop nobody could hear them."""
    with pytest.raises(RuntimeError, match="belongs inside `async with lifecycle:`"):
        Lifecycle().install_signals()
