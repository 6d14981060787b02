"""What the tests of rate limits share: a step that notes its starts, and a Redis."""

from __future__ import annotations

import asyncio
import functools
import inspect

import pytest
from fakeredis import FakeAsyncRedis

from pytest_tta.clock.clock import VirtualClock
from tests.recovery import circuit_tools
from tests.recovery.doubles import Rejected
from tta_primitives import WorkflowContext
from tta_primitives.recovery import RateLimitPrimitive

ALGORITHMS = ["token_bucket", "leaky_bucket", "sliding_window"]

every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


class Starts:
    """A step that notes when each of its inputs started."""

    __name__ = "llm"

    def __init__(self, *, fails=None):
        self.seen = []
        self.fails = fails or {}

    async def __call__(self, value):
        self.seen.append((value, round(asyncio.get_running_loop().time(), 4)))
        if value in self.fails:
            raise self.fails[value]
        return value

    @property
    def times(self):
        return [time for _, time in self.seen]

    @property
    def order(self):
        return [value for value, _ in self.seen]


def fails_late(starts, seconds=5):
    """Return a step whose input "bad" is answered after 0.5 s, by a 429."""

    async def llm(value):
        await starts(value)
        if value == "bad":
            await asyncio.sleep(0.5)
            raise Rejected(retry_after=seconds, status_code=429)
        return value

    return llm


def call(limit, value="x", **context):
    """Start a call in a task of its own."""
    return asyncio.create_task(limit.execute(value, WorkflowContext(**context)))


async def call_all(limit, values, **context):
    """Call with all values at once; return what each got, errors among it."""
    calls = [call(limit, value, **context) for value in values]
    return await asyncio.gather(*calls, return_exceptions=True)


async def in_turn(*calls):
    """Begin calls of (limit, value), each when the one before has its place."""
    tasks = []
    for limit, value in calls:
        tasks.append(call(limit, value))
        await circuit_tools.quiet()
    return tasks


def by_value(value, context):
    """Let a call cost what its input says."""
    return value


def tenant(value, context):
    """Give each tenant a limit of its own."""
    return context.session_id


def most_in(times, period):
    """Return the most starts of any period, wherever it begins."""
    return max(
        (sum(begin <= t < begin + period - 1e-4 for t in times) for begin in times),
        default=0,
    )


def earliest(algorithm, count, rate, period):
    """Return when so many calls that come at once may start, for a limit unused."""
    pace = period / rate
    reckon = {
        "token_bucket": lambda n: max(0, n + 1 - rate) * pace,
        "leaky_bucket": lambda n: n * pace,
        "sliding_window": lambda n: n // rate * period,
    }
    return [reckon[algorithm](n) for n in range(count)]


class Limits:
    """Makes limits such as processes have that share a Redis."""

    def limit(self, primitive, rate=10, client=None, **options):
        return RateLimitPrimitive(
            primitive,
            rate=rate,
            storage=client or self.client(),
            namespace=self.namespace,
            **{"period": self.period, **options},
        )

    async def keys(self):
        """Return the keys of this test, and for how many seconds they live."""
        client = self.client()
        found = await client.keys(f"tta:rate:{self.namespace}:*")
        return {key.decode(): await client.pttl(key) / 1000 for key in found}


class FakeWorld(Limits, circuit_tools.FakeWorld):
    """A Redis in this process, whose clock is the virtual one."""

    period = 1.0


class RealWorld(Limits, circuit_tools.RealWorld):
    """The Redis that runs beside the tests."""

    period = 0.2

    async def finish(self):
        client = self.client()
        for key in await self.keys():
            await client.delete(key)
        for one in self.clients:
            await one.aclose()


class Slow(FakeAsyncRedis):
    """A client that waits before or after each command, as it is told.

    Attributes:
        before: Seconds to wait before each command, in the order of the commands.
        after: Seconds to wait after each.
        answer: What scripts answer instead, if it is anything.
    """

    def __init__(self, **options):
        super().__init__(**options)
        self.before, self.after = [], []
        self.answer = None

    async def execute_command(self, *parts, **options):
        before = self.before.pop(0) if self.before else 0
        after = self.after.pop(0) if self.after else 0
        await asyncio.sleep(before)
        answer = await super().execute_command(*parts, **options)
        await asyncio.sleep(after)
        is_script = parts[0] in {"EVALSHA", "EVAL"}
        return self.answer if is_script and self.answer is not None else answer


def shared(test):
    """Run a test with a Redis in this process, and with a real one."""
    return pytest.mark.parametrize(
        "kind", [FakeWorld, RealWorld], ids=["fake", "real"]
    )(_in_world(test))


def faked(test):
    """Run a test with a Redis in this process, in virtual time."""
    return pytest.mark.parametrize("kind", [FakeWorld], ids=["fake"])(_in_world(test))


def _in_world(test):
    @functools.wraps(test)
    def run(kind, **fixtures):
        async def within():
            world = kind()
            try:
                await test(world, **fixtures)
            finally:
                await world.finish()

        if kind is FakeWorld:
            VirtualClock().run(within())
        else:
            asyncio.run(within())

    # Its fixtures are those of the test, and which world it gets.
    names = [name for name in inspect.signature(test).parameters if name != "world"]
    run.__signature__ = inspect.Signature(
        [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY) for n in ("kind", *names)]
    )
    return run
