"""What the tests of circuit breakers share: a service that obeys, and a Redis."""

from __future__ import annotations

import asyncio
import functools
import inspect
import secrets

import pytest
from fakeredis import FakeAsyncRedis, FakeServer

from pytest_tta.clock.clock import VirtualClock
from tests.recovery.doubles import Boom
from tests.services import require_service
from tta_primitives import WorkflowContext
from tta_primitives.recovery import CircuitBreakerPrimitive

OPEN = "the circuit is open for another"
PROBED = "the circuit is half-open, being probed"


class Service:
    """A step that does what it is told: return it, raise it, or take seconds first."""

    __name__ = "service"

    def __init__(self):
        self.calls = 0

    async def __call__(self, told):
        self.calls += 1
        if isinstance(told, tuple):
            takes, told = told
            await asyncio.sleep(takes)
        if isinstance(told, BaseException) or told is Boom:
            raise told
        return told


def breaker(primitive=None, **options):
    """Return a breaker around a service that does what it is told."""
    return CircuitBreakerPrimitive(primitive or Service(), **options)


async def tell(guarded, *told):
    """Execute once for each; return the outputs, and the types of errors."""
    seen = []
    for one in told:
        try:
            seen.append(await guarded.execute(one, WorkflowContext()))
        except Exception as error:
            seen.append(type(error))
    return seen


def begin(guarded, told):
    """Begin a call in a task of its own, and let it run to its first wait."""
    return asyncio.create_task(guarded.execute(told, WorkflowContext()))


async def tripped(**options):
    """Return a breaker that one failure has just opened."""
    guarded = breaker(failure_threshold=1, **options)
    await tell(guarded, Boom())
    assert guarded.state == "open"
    return guarded


async def half_opened(**options):
    """Return a breaker that is half-open, without a probe under way."""
    guarded = await tripped(ignore=KeyError, **options)
    await asyncio.sleep(guarded.stats.retry_after)
    await tell(guarded, KeyError())
    assert guarded.state == "half_open"
    return guarded


class World:
    """Some processes and what they share, in virtual time or in real.

    Attributes:
        namespace: What this test's keys end with.
        pause: How long a break is, in seconds.
    """

    namespace: str
    pause: float

    def client(self):
        """Return a client such as one process has."""
        raise NotImplementedError

    def breaker(self, primitive=None, client=None, **options):
        """Return a breaker such as one process has."""
        return CircuitBreakerPrimitive(
            primitive or Service(),
            storage=client or self.client(),
            namespace=self.namespace,
            **{"recovery_timeout": self.pause, "failure_threshold": 1, **options},
        )

    @property
    def key(self):
        return f"tta:breaker:{self.namespace}"


class FakeWorld(World):
    """A Redis in this process, whose clock is the virtual one."""

    pause = 30

    def __init__(self):
        self.namespace = "test"
        self.server = FakeServer()
        self.clients = []

    def client(self, kind=FakeAsyncRedis):
        self.clients.append(kind(server=self.server))
        return self.clients[-1]

    async def finish(self):
        self.server.connected = True
        for client in self.clients:
            await client.aclose()


class RealWorld(World):
    """The Redis that runs beside the tests."""

    pause = 0.4

    def __init__(self, address=None):
        from redis.asyncio import Redis

        self.kind = Redis
        self.address = address or require_service("redis")
        self.namespace = f"test-{secrets.token_hex(8)}"
        self.clients = []

    def client(self):
        host, port = self.address
        self.clients.append(self.kind(host=host, port=port))
        return self.clients[-1]

    async def finish(self):
        await self.client().delete(self.key)
        for client in self.clients:
            await client.aclose()


async def quiet():
    """Let errands end that take no time."""
    for _ in range(100):
        await asyncio.sleep(0)


def shared(test):
    """Run a test with a Redis in this process, and with a real one."""
    return pytest.mark.parametrize(
        "kind", [FakeWorld, RealWorld], ids=["fake", "real"]
    )(_in_world(test))


def faked(test):
    """Run a test with a Redis in this process."""
    return pytest.mark.parametrize("kind", [FakeWorld], ids=["fake"])(_in_world(test))


def _in_world(test):
    @functools.wraps(test)
    def run(kind, **fixtures):
        async def within():
            world = kind()
            try:
                await test(world, **fixtures)
                await _ended()
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


async def _ended():
    """Wait until every task has ended that the test left behind."""
    for _ in range(100):
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if not others:
            return
        await asyncio.wait(others, timeout=0.01)
    pytest.fail(f"still running: {others}")
