"""Shared rate limits with a real Redis: other processes, restarts, hangs and kills."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import pytest

from tests.recovery.rate_tools import (
    RealWorld,
    Starts,
    call,
    call_all,
    earliest,
    every_algorithm,
)
from tests.redis_server import private_redis
from tests.repository.source import ROOT
from tta_primitives.errors import RateLimitExceededError

SCRIPT = """
import asyncio, json, sys, time
from redis.asyncio import Redis
from tta_primitives import WorkflowContext
from tta_primitives.recovery import RateLimitPrimitive

async def started(value):
    return time.time()

async def main(host, port, namespace, algorithm, rate, period, count):
    client = Redis(host=host, port=int(port))
    limit = RateLimitPrimitive(
        started, rate=float(rate), period=float(period), algorithm=algorithm,
        storage=client, namespace=namespace,
    )
    await client.ping()
    print("ready", flush=True)
    sys.stdin.readline()
    calls = (limit.execute("x", WorkflowContext()) for _ in range(int(count)))
    began = time.time()
    starts = await asyncio.gather(*calls)
    print(json.dumps({"began": began, "starts": starts}), flush=True)
    await client.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


class Process:
    """Another process with a limit of its own, that calls when it is told to."""

    def __init__(self, world, algorithm, rate, period, count):
        host, port = world.address
        figures = map(str, (port, world.namespace, algorithm, rate, period, count))
        self._process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, host, *figures],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def wait(self):
        assert self._process.stdout.readline() == "ready\n"

    def begin(self):
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def times(self):
        return json.loads(self._process.stdout.readline())

    def end(self):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(10)


@every_algorithm
def test_case_79_two_processes_stay_within_one_limit(algorithm):
    """10 in each half second, of both together."""

    async def run():
        world = RealWorld()
        processes = [Process(world, algorithm, 10, 0.5, 20) for _ in range(2)]
        try:
            for process in processes:
                await asyncio.to_thread(process.wait)
            for process in processes:
                process.begin()
            times = [await asyncio.to_thread(process.times) for process in processes]
        finally:
            for process in processes:
                process.end()
            await world.finish()
        assert [len(own["starts"]) for own in times] == [20, 20]
        began = min(own["began"] for own in times)
        together = sorted(start for own in times for start in own["starts"])
        # A start is never early; a busy machine may make one late.
        for start, after in zip(
            together, earliest(algorithm, 40, 10, 0.5), strict=True
        ):
            assert began + after - 1e-3 <= start <= began + after + 2

    asyncio.run(run())


@pytest.fixture
def hurt(tmp_path):
    """A Redis of the test's own, as a world that may be hurt."""
    with private_redis(tmp_path) as server:
        world = RealWorld((server.host, server.port))
        world.process = server
        yield world


@every_algorithm
def test_a_redis_that_is_restarted_hung_and_killed_loses_no_call(hurt, algorithm):
    """Under load, every call is executed, and later the limit is shared again."""
    server = hurt.process
    starts = Starts()

    async def load(limit, until):
        count = 0
        while not until.is_set():
            assert await call(limit) == "x"
            count += 1
        return count

    async def run():
        limits = [
            hurt.limit(starts, 200, algorithm=algorithm, period=1) for _ in range(2)
        ]
        until = asyncio.Event()
        tasks = [asyncio.create_task(load(one, until)) for one in limits * 4]
        for harm in (
            server.restart,
            server.hang,
            server.wake,
            server.kill,
            server.start,
        ):
            await asyncio.sleep(0.1)
            await asyncio.to_thread(harm)
        await asyncio.sleep(0.1)
        until.set()
        async with asyncio.timeout(10):
            counts = await asyncio.gather(*tasks)
        assert sum(counts) == len(starts.seen)
        assert min(counts) > 0
        for limit in limits:
            assert (limit.stats.rejected, limit.stats.waiting) == (0, 0)
        await shares_again(hurt, algorithm)
        await hurt.finish()

    asyncio.run(run())


async def shares_again(world, algorithm):
    """Wait until Redis decides again: what one takes the other does not get."""
    client = world.client()
    for attempt in range(300):
        one, other = (
            world.limit(
                Starts(),
                1,
                client,
                algorithm=algorithm,
                max_wait=0,
                period=60 + attempt,
            )
            for _ in range(2)
        )
        if await call_all(one, "x") == ["x"]:
            [result] = await call_all(other, "x")
            if isinstance(result, RateLimitExceededError):
                return
        await asyncio.sleep(0.01)
    pytest.fail("the limits are not shared again")


def test_a_wait_goes_on_while_redis_is_restarted(hurt):
    """Who has a start reserved starts then, although the server has forgotten it."""
    starts = Starts()

    async def run():
        limit = hurt.limit(starts, 1, period=0.5)
        calls = [call(limit, value) for value in range(3)]
        await asyncio.sleep(0.1)
        await asyncio.to_thread(hurt.process.restart)
        assert await asyncio.gather(*calls) == [0, 1, 2]
        first, *_, last = starts.times
        assert last - first >= 0.99
        await hurt.finish()

    asyncio.run(run())
