"""Real work beside virtual time: it costs none, and time does not run past it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import aiosqlite
import anyio
import anyio.to_thread
import httpx
import pytest
import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from pytest_tta.clock import ClockHeld, VirtualClock


def _real_now() -> float:
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def _work(seconds: float) -> str:
    """Wait for the system for so much real time, as for an answer of a socket."""
    select.select([], [], [], seconds)
    return "worked"


def _compute(seconds: float) -> str:
    """Be busy for so much real time."""
    end = _real_now() + seconds
    while _real_now() < end:
        sum(range(1000))
    return "computed"


_SERVER = """
import socket, sys, time
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
while True:
    connection, _ = server.accept()
    asked = connection.recv(4096)
    time.sleep({delay})
    connection.sendall({answer!r})
    connection.close()
"""


@contextmanager
def _external_server(delay: float, answer: bytes):
    """Run a server in another process, which the clock knows nothing of."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER.format(delay=delay, answer=answer)],
        stdout=subprocess.PIPE,
    )
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_h05_a_pool_job_costs_no_virtual_time() -> None:
    """A job of 0.2 real seconds ends in time under a virtual limit of 30 s."""

    async def body(clock: VirtualClock) -> tuple[str, float]:
        async with asyncio.timeout(30):
            result = await asyncio.to_thread(_work, 0.2)
        return result, clock.elapsed

    clock = VirtualClock()
    assert clock.run(body(clock)) == ("worked", 0.0)


def test_h05_a_ticker_does_not_race_ahead_of_a_job() -> None:
    """A ticker beside a job keeps real pace at most while the job runs."""
    ticks: list[float] = []

    async def ticker(clock: VirtualClock) -> None:
        while True:
            await asyncio.sleep(0.05)
            ticks.append(clock.elapsed)

    async def body(clock: VirtualClock) -> float:
        task = asyncio.create_task(ticker(clock))
        async with asyncio.timeout(30):
            await asyncio.to_thread(_work, 0.2)
        task.cancel()
        return clock.elapsed

    clock = VirtualClock()
    assert clock.run(body(clock)) <= 0.5
    assert len(ticks) <= 10


def test_h05_jobs_queued_behind_sleepers_wait_for_time() -> None:
    """A job behind one that sleeps in virtual time does not hold the clock."""
    order: list[str] = []

    def job(name: str) -> None:
        time.sleep(10)
        order.append(name)

    async def body() -> None:
        loop = asyncio.get_running_loop()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            await asyncio.gather(
                *(loop.run_in_executor(pool, job, name) for name in ("a", "b"))
            )

    clock = VirtualClock()
    clock.run(body())
    assert order == ["a", "b"]
    assert clock.elapsed == 20.0
    assert [(r.kind, r.delay, r.at) for r in clock.sleeps] == [
        ("thread", 10, 0.0),
        ("thread", 10, 10.0),
    ]


def test_h05_a_process_pool_job_holds_the_clock() -> None:
    """A job in another process is waited for in real time."""
    import multiprocessing

    async def body(clock: VirtualClock) -> tuple[int, float]:
        loop = asyncio.get_running_loop()
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            async with asyncio.timeout(30):
                result = await loop.run_in_executor(pool, len, "four")
        return result, clock.elapsed

    clock = VirtualClock()
    assert clock.run(body(clock)) == (4, 0.0)


def test_h06_client_and_server_in_one_loop() -> None:
    """Five seconds of thought behind a loopback connection are exactly five."""

    async def serve(reader, writer) -> None:
        await reader.readline()
        await asyncio.sleep(5)
        writer.write(b"answer\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def body(clock: VirtualClock) -> tuple[bytes, float]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"question\n")
            answer = await asyncio.wait_for(reader.readline(), 30)
            writer.close()
            await writer.wait_closed()
        return answer, clock.elapsed

    clock = VirtualClock()
    before = _real_now()
    assert clock.run(body(clock)) == (b"answer\n", 5.0)
    assert clock.notes == []
    assert _real_now() - before < 2


@pytest.mark.parametrize("instant", [True, False])
def test_h06_bare_sockets_in_one_loop(instant: bool) -> None:
    """sock_* calls with both ends in the loop keep virtual time, wherever we run."""

    async def serve(listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        connection, _ = await loop.sock_accept(listener)
        asked = await loop.sock_recv(connection, 100)
        await asyncio.sleep(5)
        await loop.sock_sendall(connection, asked.upper())
        connection.close()

    async def body(clock: VirtualClock) -> tuple[bytes, float]:
        loop = asyncio.get_running_loop()
        loop.outside.loopback_is_instant = instant
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        server = asyncio.create_task(serve(listener))
        client = socket.socket()
        client.setblocking(False)
        await loop.sock_connect(client, listener.getsockname())
        await loop.sock_sendall(client, b"question")
        answer = await asyncio.wait_for(loop.sock_recv(client, 100), 30)
        await server
        client.close()
        listener.close()
        return answer, clock.elapsed

    clock = VirtualClock(hold_cap=1)
    assert clock.run(body(clock)) == (b"QUESTION", 5.0)


def test_h06_a_socket_pair_in_one_loop() -> None:
    """Two nameless ends are known to belong to each other."""

    async def body(clock: VirtualClock) -> tuple[bytes, float]:
        left, right = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=left)
        other_reader, other_writer = await asyncio.open_connection(sock=right)
        writer.write(b"question\n")
        await other_reader.readline()
        await asyncio.sleep(5)
        other_writer.write(b"answer\n")
        answer = await asyncio.wait_for(reader.readline(), 30)
        for each in (writer, other_writer):
            each.close()
            await each.wait_closed()
        return answer, clock.elapsed

    clock = VirtualClock(hold_cap=1)
    assert clock.run(body(clock)) == (b"answer\n", 5.0)
    assert clock.notes == []


_CLIENT = """
import socket, sys, time
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
connection.sendall(b"question\\n")
connection.recv(100)
time.sleep(10)
"""


def test_a_client_outside_owes_nothing_to_an_answer() -> None:
    """A server that has answered does not wait for what its client says next."""

    async def body(clock: VirtualClock) -> None:
        asked, done = asyncio.Event(), asyncio.Event()

        async def serve(reader, writer) -> None:
            await reader.readline()
            asked.set()
            writer.write(b"answer\n")
            await asyncio.sleep(30)
            writer.close()
            done.set()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = subprocess.Popen([sys.executable, "-c", _CLIENT, str(port)])
        try:
            with clock.real():
                await asked.wait()
            await done.wait()
        finally:
            client.kill()
            client.wait()
            server.close()

    clock = VirtualClock(hold_cap=0.1)
    clock.run(body(clock))
    assert clock.sleeps.delays == [30]
    assert 30 <= clock.elapsed < 40


def test_h07_an_external_server_over_streams() -> None:
    """An answer after 0.2 real seconds comes in time and costs no virtual time."""

    async def body(clock: VirtualClock, port: int) -> tuple[bytes, float]:
        async with asyncio.timeout(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"question\n")
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
        return answer, clock.elapsed

    clock = VirtualClock()
    with _external_server(0.2, b"answer") as port:
        assert clock.run(body(clock, port)) == (b"answer", 0.0)


def test_h07_an_external_server_over_httpx() -> None:
    """The same through httpx, with httpx's own timeouts."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"

    async def body(clock: VirtualClock, port: int) -> tuple[str, float]:
        async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
            response = await client.get(f"http://127.0.0.1:{port}/")
        return response.text, clock.elapsed

    clock = VirtualClock()
    with _external_server(0.2, answer) as port:
        assert clock.run(body(clock, port)) == ("ok", 0.0)


def test_h07_a_server_slower_than_its_timeout_times_out() -> None:
    """A real call that is too slow for its limit meets the limit, in real time."""

    async def body(clock: VirtualClock, port: int) -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"question\n")
        with pytest.raises(TimeoutError, match=r"^$"):
            await asyncio.wait_for(reader.read(), 0.05)
        writer.close()
        return clock.elapsed

    clock = VirtualClock()
    with _external_server(10, b"late") as port:
        assert clock.run(body(clock, port)) == 0.05


def test_h07_a_server_that_never_answers_holds_the_clock_only_so_long() -> None:
    """After hold_cap the silent peer is named."""

    async def body(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"question\n")
        try:
            await reader.read()
        finally:
            writer.close()

    clock = VirtualClock(hold_cap=0.1)
    with (
        _external_server(10, b"late") as port,
        pytest.raises(ClockHeld, match=r"an answer on file \d+ \(peer \('127.0.0.1', "),
    ):
        clock.run(body(port))


@pytest.mark.parametrize(
    ("io", "noted"), [("hold", True), ("grace", True), ("jump", False)]
)
def test_quiet_connections_outside_get_a_grace(io: str, noted: bool) -> None:
    """An idle connection costs a moment of real time before time moves, and a note."""

    async def body(port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(30)
        writer.close()

    clock = VirtualClock(io=io)
    with _external_server(10, b"") as port:
        clock.run(body(port))
    assert clock.elapsed == 30.0
    assert any("open connections to the outside" in note for note in clock.notes) is (
        noted
    )


def test_tls_in_one_loop(tls_contexts) -> None:
    """A TLS connection within the loop keeps virtual time, too."""
    server_side, client_side = tls_contexts

    async def serve(reader, writer) -> None:
        await reader.readline()
        await asyncio.sleep(5)
        writer.write(b"answer\n")
        writer.close()

    async def body(clock: VirtualClock) -> tuple[bytes, float]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_side)
        port = server.sockets[0].getsockname()[1]
        async with server:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=client_side
            )
            writer.write(b"question\n")
            answer = await asyncio.wait_for(reader.readline(), 30)
            writer.close()
            with suppress(ssl.SSLError):
                await writer.wait_closed()
        return answer, clock.elapsed

    clock = VirtualClock()
    assert clock.run(body(clock)) == (b"answer\n", 5.0)


@pytest.fixture
def tls_contexts():
    """Two contexts that can talk without any certificate."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    for context in (server, client):
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("aNULL:@SECLEVEL=0")
    return server, client


def test_datagrams_in_one_loop() -> None:
    """Datagrams between two endpoints of the loop arrive without any time."""

    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport) -> None:
            self.transport = transport

        def datagram_received(self, data, address) -> None:
            self.transport.sendto(data.upper(), address)

    class Client(asyncio.DatagramProtocol):
        def __init__(self) -> None:
            self.answer = asyncio.get_running_loop().create_future()

        def datagram_received(self, data, address) -> None:
            self.answer.set_result(data)

    async def body(clock: VirtualClock) -> tuple[bytes, float]:
        loop = asyncio.get_running_loop()
        server, _ = await loop.create_datagram_endpoint(
            Echo, local_addr=("127.0.0.1", 0)
        )
        client, protocol = await loop.create_datagram_endpoint(
            Client, remote_addr=server.get_extra_info("sockname")
        )
        client.sendto(b"ping")
        answer = await asyncio.wait_for(protocol.answer, 30)
        client.close()
        server.close()
        return answer, clock.elapsed

    clock = VirtualClock()
    assert clock.run(body(clock)) == (b"PING", 0.0)


def test_h08_call_soon_threadsafe_from_a_plain_thread() -> None:
    """A thread at work is waited for; its callback comes before any timeout."""

    async def body(clock: VirtualClock) -> tuple[str, float]:
        loop = asyncio.get_running_loop()
        answer = loop.create_future()

        def work() -> None:
            loop.call_soon_threadsafe(answer.set_result, _compute(0.1))

        thread = threading.Thread(target=work)
        thread.start()
        async with asyncio.timeout(30):
            result = await answer
        thread.join()
        return result, clock.elapsed

    clock = VirtualClock()
    assert clock.run(body(clock)) == ("computed", 0.0)


def test_h08_run_coroutine_threadsafe_from_a_plain_thread() -> None:
    """A thread that waits for a coroutine lets time move for it."""

    async def nap() -> str:
        await asyncio.sleep(10)
        return "rested"

    async def body(clock: VirtualClock) -> tuple[str, float]:
        loop = asyncio.get_running_loop()

        def work() -> str:
            return asyncio.run_coroutine_threadsafe(nap(), loop).result()

        async with asyncio.timeout(30):
            result = await asyncio.to_thread(work)
        return result, clock.elapsed

    clock = VirtualClock()
    before = _real_now()
    assert clock.run(body(clock)) == ("rested", 10.0)
    assert _real_now() - before < 2


@pytest.mark.skipif(sys.platform == "win32", reason="needs the loop's child watcher")
def test_h12_a_subprocess_costs_no_virtual_time() -> None:
    """A process of 0.3 s ends in time under a virtual limit."""

    async def body(clock: VirtualClock) -> tuple[bytes, int | None, float]:
        async with asyncio.timeout(30):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                "import time; time.sleep(0.2); print('done')",
                stdout=asyncio.subprocess.PIPE,
            )
            output, _ = await process.communicate()
        return output.strip(), process.returncode, clock.elapsed

    clock = VirtualClock()
    assert clock.run(body(clock)) == (b"done", 0, 0.0)
    assert clock.notes == []


def test_h13_anyio_sleeps_scopes_and_threads() -> None:
    """What anyio waits for lives in the same time."""

    async def body(clock: VirtualClock) -> list[object]:
        await anyio.sleep(3)
        with anyio.move_on_after(2) as scope:
            await anyio.sleep(10)
        with anyio.fail_after(30):
            worked = await anyio.to_thread.run_sync(_work, 0.05)
        return [scope.cancelled_caught, worked, clock.elapsed]

    clock = VirtualClock()
    assert clock.run(body(clock)) == [True, "worked", 5.0]


def test_h15_a_redis_client_against_a_silent_server() -> None:
    """Socket timeouts and retries of a client take exactly their virtual time."""
    asked: list[float] = []

    async def body(clock: VirtualClock) -> float:
        async def serve(reader, writer) -> None:
            asked.append(clock.elapsed)
            await reader.read()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = redis.asyncio.Redis(
            host="127.0.0.1",
            port=port,
            socket_timeout=3,
            socket_connect_timeout=3,
            retry=Retry(ConstantBackoff(2), 2),
            retry_on_error=[redis.exceptions.TimeoutError],
        )
        async with server:
            with pytest.raises(redis.exceptions.TimeoutError, match="Timeout"):
                await client.get("key")
            await client.aclose()
        return clock.elapsed

    clock = VirtualClock()
    total = clock.run(body(clock))
    assert total == int(total) > 0
    assert [record.delay for record in clock.sleeps.by(kind="sleep")].count(2) >= 2
    assert asked[0] == 0.0


def test_h22_aiosqlite() -> None:
    """A database in a thread of its own answers before any virtual timeout."""

    async def body(clock: VirtualClock) -> tuple[int, float]:
        async with asyncio.timeout(30), aiosqlite.connect(":memory:") as database:
            cursor = await database.execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
                "WHERE i < 200000) SELECT count(*) FROM n"
            )
            row = await cursor.fetchone()
            await cursor.close()
        return row[0], clock.elapsed

    clock = VirtualClock()
    assert clock.run(body(clock)) == (200_000, 0.0)


@pytest.mark.skipif(sys.platform == "win32", reason="no signal handlers in the loop")
def test_signals_arrive_while_time_jumps() -> None:
    """A handler that the loop keeps for a signal runs though time never rests."""
    import os
    import signal

    got: list[float] = []

    async def body(clock: VirtualClock) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, lambda: got.append(clock.elapsed))
        loop.call_later(2, os.kill, os.getpid(), signal.SIGUSR1)
        for _ in range(5):
            await asyncio.sleep(1)
        loop.remove_signal_handler(signal.SIGUSR1)

    clock = VirtualClock()
    clock.run(body(clock))
    assert got == [2.0]
