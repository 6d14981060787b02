"""Whatever Python, selector or loop there is: it works, or says so in a sentence."""

from __future__ import annotations

import asyncio
import selectors
import time

import pytest
import uvloop

from pytest_tta.clock import VirtualClock, VirtualLoop
from pytest_tta.clock import loop as loop_module

_SELECTORS = [
    kind
    for name in ("SelectSelector", "PollSelector", "EpollSelector", "KqueueSelector")
    if (kind := getattr(selectors, name, None)) is not None
]


def test_h27_a_uvloop_loop_is_refused_in_one_sentence() -> None:
    """A uvloop keeps its time in C; the clock says what to do instead."""
    loop = uvloop.new_event_loop()
    try:
        with (
            pytest.raises(
                TypeError,
                match=r"cannot take over uvloop\.Loop: it keeps its time to itself; "
                r"make the loop with loop_factory=clock\.new_loop",
            ),
            VirtualClock().on(loop),
        ):
            pass
    finally:
        loop.close()


def test_h27_a_plain_asyncio_loop_is_refused_too() -> None:
    """The loop of asyncio cannot change its time either."""
    loop = asyncio.SelectorEventLoop()
    try:
        with (
            pytest.raises(TypeError, match="cannot take over asyncio"),
            VirtualClock().on(loop),
        ):
            pass
    finally:
        loop.close()


def test_h27_advance_inside_another_loop_is_refused() -> None:
    """Whoever moves time inside a foreign loop is told which loop it is."""

    async def body(clock: VirtualClock) -> None:
        await clock.advance(1)

    with pytest.raises(RuntimeError, match=r"<uvloop\.Loop .* is not in the time of"):
        uvloop.run(body(VirtualClock()))


def test_an_unknown_interpreter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that lacks what the clock needs is named before anything runs."""
    monkeypatch.setattr(VirtualLoop, "_is_checked", False)
    monkeypatch.setitem(
        loop_module._INTERNALS, asyncio.SelectorEventLoop, ("_run_never",)
    )
    with pytest.raises(
        RuntimeError,
        match=r"does not fit this interpreter \(cpython 3\..*\): asyncio has no "
        r"_UnixSelectorEventLoop\._run_never; use CPython 3\.11 to 3\.14",
    ):
        VirtualLoop()


def test_this_interpreter_has_all_that_is_needed() -> None:
    """Nothing of asyncio's loop is missing here."""
    loop = VirtualLoop()
    assert loop_module.missing_internals(loop) == []
    loop.close()


@pytest.mark.parametrize("kind", _SELECTORS, ids=lambda kind: kind.__name__)
def test_every_selector_of_the_system_serves(kind) -> None:
    """Sleeps and loopback connections work on select, poll, epoll and kqueue."""

    async def serve(reader, writer) -> None:
        await reader.readline()
        await asyncio.sleep(5)
        writer.write(b"answer\n")
        writer.close()
        await writer.wait_closed()

    async def body(clock: VirtualClock) -> tuple[bytes, str, float]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"question\n")
            answer = await reader.readline()
            writer.close()
            await writer.wait_closed()
        upper = await asyncio.to_thread("thread".upper)
        return answer, upper, clock.elapsed

    clock = VirtualClock()
    with (
        clock,
        asyncio.Runner(loop_factory=lambda: clock.new_loop(kind())) as runner,
    ):
        assert runner.run(body(clock)) == (b"answer\n", "THREAD", 5.0)


def test_where_loopback_is_slow_bytes_in_flight_are_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without instant loopback a moment of real time is granted, never virtual."""
    monkeypatch.setattr("pytest_tta.clock.outside.Outside.loopback_is_instant", False)

    async def serve(reader, writer) -> None:
        while line := await reader.readline():
            await asyncio.sleep(1)
            writer.write(line)
        writer.close()
        await writer.wait_closed()

    async def body(clock: VirtualClock) -> float:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(10):
                writer.write(b"question\n")
                await asyncio.wait_for(reader.readline(), 1.5)
            writer.close()
            await writer.wait_closed()
            await clock.settle()
        return clock.elapsed

    clock = VirtualClock()
    began = time.clock_gettime(time.CLOCK_MONOTONIC)
    assert clock.run(body(clock)) == 10.0
    assert clock.notes == []
    # Ten questions were on their way when time moved, and each was given 2 ms.
    assert time.clock_gettime(time.CLOCK_MONOTONIC) - began >= 0.02


def test_closing_twice_and_leaking_nothing() -> None:
    """A loop closes like asyncio's own."""
    loop = VirtualLoop()
    loop.close()
    loop.close()
    assert loop.is_closed()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.call_later(1, print)
