"""What Ctrl-C does while a clock runs a coroutine, as `asyncio.Runner` has it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import weakref
from typing import TYPE_CHECKING

import pytest

from pytest_tta.clock import VirtualClock
from tests.garbage import only_new_garbage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no signals to send there")


@pytest.fixture(autouse=True)
def pythons_own() -> Iterator[None]:
    """Begin with the handler that Python starts with, and see that it comes back."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    after = signal.signal(signal.SIGINT, before)
    assert after is signal.default_int_handler


def press() -> None:
    """Press Ctrl-C."""
    signal.raise_signal(signal.SIGINT)


def test_the_first_cancels_the_coroutine_which_cleans_up() -> None:
    """Its clean-up may wait, and takes its virtual time; then it is an interrupt."""
    clock = VirtualClock()
    log: list[object] = []

    async def main() -> None:
        try:
            press()
            log.append("goes on to where it waits")
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(2)
            log.append(clock.elapsed)

    with pytest.raises(KeyboardInterrupt):
        clock.run(main())
    assert log == ["goes on to where it waits", 2.0]


def test_the_second_stops_at_once() -> None:
    """Clean-up that does not end does not hold anybody."""
    log: list[str] = []

    async def main() -> None:
        try:
            press()
            await asyncio.sleep(60)
        finally:
            press()
            log.append("not reached")

    with pytest.raises(KeyboardInterrupt):
        VirtualClock().run(main())
    assert log == []


def test_it_wakes_a_loop_that_waits_for_something_real() -> None:
    """It comes while the loop is blocked in its selector."""
    ended = threading.Event()

    def press_from_outside() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        # A signal that comes just before a thread blocks does not wake it; any other
        # does, and lets the first one's handler run.
        while not ended.wait(0.05):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        reached = loop.create_future()
        reader, writer = os.pipe()
        loop.add_reader(reader, reached.set_result, None)
        try:
            thread.start()
            await reached
        finally:
            loop.remove_reader(reader)
            os.close(reader)
            os.close(writer)

    thread = threading.Thread(target=press_from_outside)
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with pytest.raises(KeyboardInterrupt):
            VirtualClock().run(main())
    finally:
        ended.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)


def test_a_coroutine_that_holds_it_back_has_its_way() -> None:
    """Who catches the cancellation and returns has answered."""

    async def main() -> str:
        press()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "saved"
        return "slept"

    assert VirtualClock().run(main()) == "saved"


@pytest.mark.parametrize("presses", [0, 1])
def test_a_cancellation_of_other_origin_stays_one(presses: int) -> None:
    """Whether somebody has pressed Ctrl-C as well, or nobody has."""

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        for _ in range(presses):
            press()
        await asyncio.sleep(1)

    with pytest.raises(asyncio.CancelledError):
        VirtualClock().run(main())


def test_it_is_not_lost_where_nothing_can_be_cancelled_any_more() -> None:
    """The coroutine is done, and its loop has not stopped yet."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, press)
        await asyncio.sleep(0)

    with pytest.raises(KeyboardInterrupt):
        VirtualClock().run(main())


def test_what_an_interrupt_leaves_cleans_up() -> None:
    """One that comes in a callback stops the loop, and the coroutine still waits."""
    log: list[str] = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(interrupt)
        try:
            await loop.create_future()
        finally:
            log.append("cleaned up")

    with pytest.raises(KeyboardInterrupt):
        VirtualClock().run(main())
    assert log == ["cleaned up"]


def test_another_handler_is_left_alone() -> None:
    """Whoever has set one wants it called."""
    called: list[int] = []

    def handler(number: int, _frame: FrameType | None) -> None:
        called.append(number)

    async def main() -> str:
        assert signal.getsignal(signal.SIGINT) is handler
        press()
        return "done"

    signal.signal(signal.SIGINT, handler)
    try:
        assert VirtualClock().run(main()) == "done"
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert called == [signal.SIGINT]


def test_a_handler_that_is_set_meanwhile_stays() -> None:
    """It is not ours to take away."""

    def handler(_number: int, _frame: FrameType | None) -> None:
        """Do nothing."""

    async def main() -> None:
        signal.signal(signal.SIGINT, handler)

    try:
        VirtualClock().run(main())
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_no_handler_is_set_in_another_thread() -> None:
    """Only the main thread may."""
    seen: list[object] = []

    async def main() -> None:
        seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=lambda: VirtualClock().run(main()))
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


def test_nothing_is_kept_of_a_run() -> None:
    """Neither the loop nor the task is left for the collector."""
    kept: list[weakref.ref[object]] = []

    async def main() -> None:
        kept.append(weakref.ref(asyncio.get_running_loop()))
        task = asyncio.current_task()
        assert task is not None
        kept.append(weakref.ref(task))

    with only_new_garbage():
        VirtualClock().run(main())
        assert [reference() for reference in kept] == [None, None]


def test_inside_a_loop_it_is_refused_with_what_to_do() -> None:
    """The coroutine is closed, so that nothing warns of it."""
    clock = VirtualClock()

    async def inner() -> None:
        """Never run."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match="await it there"):
            clock.run(inner())

    asyncio.run(main())


def test_something_else_than_a_coroutine_is_refused() -> None:
    """With its value."""
    with pytest.raises(TypeError, match=r"clock\.run\(42\) needs a coroutine"):
        VirtualClock().run(42)  # type: ignore[arg-type]
