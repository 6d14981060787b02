"""The pipe of a loop is opened when the loop waits for something real, not before."""

from __future__ import annotations

import asyncio
import signal
import threading

from pytest_tta import VirtualClock
from pytest_tta.clock.loop import VirtualLoop


def has_pipe(loop: VirtualLoop) -> bool:
    """Tell whether a loop has opened its pipe."""
    return loop._ssock is not None


def test_a_loop_that_waits_for_nothing_real_has_no_pipe() -> None:
    """A day of virtual time needs no socket."""
    found = []

    async def main() -> None:
        await asyncio.sleep(86_400)
        found.append(has_pipe(asyncio.get_running_loop()))

    VirtualClock().run(main())
    assert found == [False]


def test_a_thread_wakes_a_loop_that_waits_in_real_time() -> None:
    """A loop without a clock opens its pipe before it sleeps until somebody calls."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:

        async def main() -> bool:
            loop = asyncio.get_running_loop()
            woken = loop.create_future()
            wake = threading.Thread(
                target=loop.call_soon_threadsafe, args=(woken.set_result, None)
            )
            # Not before the loop waits: it is its selector that starts the thread.
            prepare = loop.asking.prepare

            def prepare_and_start() -> bool:
                done = prepare()
                wake.start()
                return done

            loop.asking.prepare = prepare_and_start
            await woken
            wake.join()
            return has_pipe(loop)

        assert runner.run(main())


def test_what_a_thread_wanted_before_there_was_a_pipe_is_not_missed() -> None:
    """The loop looks once more after it has opened the pipe."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:

        async def main() -> str:
            loop = asyncio.get_running_loop()
            woken = loop.create_future()
            prepare = loop.asking.prepare

            def call_and_prepare() -> bool:
                loop.call_soon_threadsafe(woken.set_result, "woken")
                return prepare()

            loop.asking.prepare = call_and_prepare
            return await woken

        assert runner.run(main()) == "woken"


def test_the_pipe_is_not_counted_as_something_outside() -> None:
    """A loop with a pipe and nothing else is alone, and moves time at once."""
    loop = VirtualLoop()
    try:
        assert loop.asking.outside == 0
        loop._open_pipe()
        assert loop.asking.outside == 0
        loop._open_pipe()
        assert len(loop.asking.get_map()) == 1
    finally:
        loop.close()


def test_a_loop_without_a_pipe_closes_twice() -> None:
    """Nothing is left to close, and closing again is no error."""
    loop = VirtualLoop()
    loop.close()
    loop.close()
    assert loop.is_closed()


def test_a_signal_needs_the_pipe() -> None:
    """The system writes to it when a signal comes."""
    loop = VirtualLoop()
    try:
        loop.add_signal_handler(signal.SIGUSR1, int)
        assert has_pipe(loop)
        loop.remove_signal_handler(signal.SIGUSR1)
    finally:
        loop.close()
