"""How each library breaks a circuit, as its own documentation says."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tests.comparison.cases import OURS, LacksError, Library
from tests.comparison.steps import Boom

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.comparison.cases import Function

__all__ = ["LIBRARIES", "RECOVERY", "Breaker"]

RECOVERY = 0.12
"""After so many seconds an open circuit tries again."""


class Breaker(Library):
    """What a circuit breaker may be asked for; it opens after so many failures."""

    @classmethod
    def breaker(cls, function: Function, *, failures: int = 3) -> Function:
        """Guard a function, with one probe at a time."""
        raise LacksError

    @classmethod
    def consecutive(cls, function: Function, *, failures: int) -> Function:
        """Count failures in a row only."""
        return cls.breaker(function, failures=failures)

    @classmethod
    def rate(cls, function: Function) -> Function:
        """Open when half of at least ten calls have failed."""
        raise LacksError

    @classmethod
    def slow(cls, function: Function, seconds: float) -> Function:
        """Open when half of at least ten calls took longer than that."""
        raise LacksError

    @classmethod
    def growing(cls, function: Function) -> Function:
        """Stay open twice as long each time."""
        raise LacksError

    @classmethod
    def ignoring(cls, function: Function, kept: type[Exception]) -> Function:
        """Take one type of error for no failure of the service."""
        raise LacksError

    @classmethod
    def told(cls, function: Function, hook: Callable[..., None]) -> Function:
        """Tell a hook when the circuit opens."""
        raise LacksError

    @classmethod
    def shared(cls, function: Function, url: str, name: str) -> Function:
        """Keep the state in Redis, for several processes."""
        raise LacksError

    @classmethod
    def is_rejection(cls, error: object) -> bool:
        """Tell whether nothing was executed."""
        raise LacksError

    @classmethod
    def retry_after(cls, error: Any) -> float:
        """Return the seconds after which a rejection says to come back."""
        raise LacksError


class Ours(Breaker):
    """CircuitBreakerPrimitive."""

    name = OURS

    @classmethod
    def _made(cls, function: Any, **options: Any) -> Function:
        from tta_primitives import WorkflowContext
        from tta_primitives.recovery import CircuitBreakerPrimitive

        made = CircuitBreakerPrimitive(
            function, **{"recovery_timeout": RECOVERY, **options}
        )
        return lambda value=None: made.execute(value, WorkflowContext())

    @classmethod
    def breaker(cls, function, *, failures=3):
        return cls._made(function, failure_threshold=failures)

    @classmethod
    def rate(cls, function):
        return cls._made(function, failure_rate=0.5, minimum_calls=10)

    @classmethod
    def slow(cls, function, seconds):
        return cls._made(
            function,
            failure_rate=0.5,
            minimum_calls=10,
            slow_call_duration=seconds,
            slow_call_rate=0.5,
        )

    @classmethod
    def growing(cls, function):
        return cls._made(
            function,
            failure_threshold=1,
            recovery_timeout=lambda count: RECOVERY * 2**count,
        )

    @classmethod
    def ignoring(cls, function, kept):
        return cls._made(function, failure_threshold=3, ignore=kept)

    @classmethod
    def told(cls, function, hook):
        return cls._made(function, failure_threshold=3, on_state_change=hook)

    @classmethod
    def shared(cls, function, url, name):
        from redis.asyncio import Redis

        storage = Redis.from_url(url)
        return cls._made(
            function,
            failure_threshold=3,
            storage=storage,
            namespace=name,
            recovery_timeout=30,
        )

    @classmethod
    def is_rejection(cls, error):
        from tta_primitives.errors import CircuitOpenError

        return isinstance(error, CircuitOpenError)

    @classmethod
    def retry_after(cls, error):
        return error.retry_after


class Hyx(Breaker):
    """`consecutive_breaker`."""

    name = distribution = "hyx"

    @classmethod
    def breaker(cls, function, *, failures=3):
        from hyx.circuitbreaker import consecutive_breaker

        return consecutive_breaker(
            failure_threshold=failures,
            recovery_time_secs=RECOVERY,
            recovery_threshold=1,
        )(function)

    @classmethod
    def ignoring(cls, function, kept):
        # What counts is named instead.
        from hyx.circuitbreaker import consecutive_breaker

        return consecutive_breaker(
            exceptions=Boom,
            failure_threshold=3,
            recovery_time_secs=RECOVERY,
            recovery_threshold=1,
        )(function)

    @classmethod
    def is_rejection(cls, error):
        from hyx.circuitbreaker.exceptions import BreakerFailing

        return isinstance(error, BreakerFailing)


class Aiobreaker(Breaker):
    """`CircuitBreaker` of aiobreaker."""

    name = distribution = "aiobreaker"

    @classmethod
    def _made(cls, function: Any, **options: Any) -> Function:
        from aiobreaker import CircuitBreaker

        usual = {"fail_max": 3, "timeout_duration": timedelta(seconds=RECOVERY)}
        return CircuitBreaker(**{**usual, **options})(function)

    @classmethod
    def breaker(cls, function, *, failures=3):
        return cls._made(function, fail_max=failures)

    @classmethod
    def ignoring(cls, function, kept):
        return cls._made(function, exclude=[kept])

    @classmethod
    def told(cls, function, hook):
        from aiobreaker import CircuitBreakerListener

        class Listener(CircuitBreakerListener):
            def state_change(self, breaker, old, new):
                hook()

        return cls._made(function, listeners=[Listener()])

    @classmethod
    def shared(cls, function, url, name):
        # Its storage asks for a client that blocks the event loop.
        raise LacksError

    @classmethod
    def is_rejection(cls, error):
        from aiobreaker import CircuitBreakerError

        # One that has a cause stands for the error of a call that was executed.
        return isinstance(error, CircuitBreakerError) and error.__cause__ is None

    @classmethod
    def retry_after(cls, error):
        return error.time_remaining.total_seconds()


class Purgatory(Breaker):
    """`AsyncCircuitBreakerFactory`."""

    name = distribution = "purgatory"

    @classmethod
    def _made(cls, function: Any, hook: Any = None, **options: Any) -> Function:
        from purgatory import AsyncCircuitBreakerFactory

        usual = {"default_threshold": 3, "default_ttl": RECOVERY}
        factory = AsyncCircuitBreakerFactory(**{**usual, **options})
        if hook is not None:
            factory.add_listener(hook)
        return factory("service")(function)

    @classmethod
    def breaker(cls, function, *, failures=3):
        return cls._made(function, default_threshold=failures)

    @classmethod
    def ignoring(cls, function, kept):
        return cls._made(function, exclude=[kept])

    @classmethod
    def told(cls, function, hook):
        def on_event(name, kind, event):
            if kind == "state_changed":
                hook()

        return cls._made(function, on_event)

    @classmethod
    def shared(cls, function, url, name):
        from purgatory import AsyncCircuitBreakerFactory, AsyncRedisUnitOfWork

        factory = AsyncCircuitBreakerFactory(
            default_threshold=3, default_ttl=30, uow=AsyncRedisUnitOfWork(url)
        )
        guarded = factory(name)(function)
        ready = []

        async def call(value=None):
            if not ready:
                await factory.initialize()
                ready.append(True)
            return await guarded(value)

        return call

    @classmethod
    def is_rejection(cls, error):
        from purgatory.domain.model import OpenedState

        return isinstance(error, OpenedState)


class Redress(Breaker):
    """`AsyncPolicy(circuit_breaker=...)`."""

    name = distribution = "redress"

    @classmethod
    def _made(cls, function: Any, failures: int = 3, **options: Any) -> Function:
        from redress import AsyncPolicy, AsyncRetry, CircuitBreaker, ErrorClass

        breaker = CircuitBreaker(
            failure_threshold=failures,
            recovery_timeout_s=RECOVERY,
            trip_on={ErrorClass.TRANSIENT},
        )
        # One attempt: errors are classified by the retry.
        once = AsyncRetry(
            classifier=lambda error: (
                ErrorClass.TRANSIENT
                if isinstance(error, Boom)
                else ErrorClass.PERMANENT
            ),
            strategy=lambda context: 0.0,
            max_attempts=1,
        )
        policy = AsyncPolicy(retry=once, circuit_breaker=breaker)
        return lambda value=None: policy.call(lambda: function(value), **options)

    @classmethod
    def breaker(cls, function, *, failures=3):
        return cls._made(function, failures)

    @classmethod
    def ignoring(cls, function, kept):
        return cls._made(function)

    @classmethod
    def told(cls, function, hook):
        def on_metric(event, attempt, seconds, tags):
            if event == "circuit_opened":
                hook()

        return cls._made(function, on_metric=on_metric)

    @classmethod
    def consecutive(cls, function, *, failures):
        # It counts failures in a window of time.
        raise LacksError

    @classmethod
    def is_rejection(cls, error):
        from redress import CircuitOpenError

        return isinstance(error, CircuitOpenError)


class Backon(Breaker):
    """`CircuitBreaker` of backon."""

    name = distribution = "backon"

    @classmethod
    def breaker(cls, function, *, failures=3):
        from backon import CircuitBreaker

        breaker = CircuitBreaker(failure_threshold=failures, recovery_timeout=RECOVERY)
        return lambda value=None: breaker.async_call(function, value)

    @classmethod
    def is_rejection(cls, error):
        from backon import CircuitOpenError

        return isinstance(error, CircuitOpenError)


class Cashews(Breaker):
    """`@cache.circuit_breaker`."""

    name = distribution = "cashews"

    @classmethod
    def _made(cls, function: Any, url: str = "mem://", **options: Any) -> Function:
        from cashews import Cache

        cache = Cache()
        cache.setup(url)
        usual = {
            "errors_rate": 50,
            "period": 30,
            "ttl": RECOVERY,
            "half_open_ttl": 30,
            "key": uuid4().hex,
        }
        return cache.circuit_breaker(**{**usual, **options})(function)

    @classmethod
    def breaker(cls, function, *, failures=3):
        return cls._made(function, min_calls=failures)

    @classmethod
    def consecutive(cls, function, *, failures):
        # It takes the rate of failures.
        raise LacksError

    @classmethod
    def rate(cls, function):
        return cls._made(function, min_calls=10)

    @classmethod
    def ignoring(cls, function, kept):
        # What counts is named instead.
        return cls._made(function, min_calls=3, exceptions=Boom)

    @classmethod
    def shared(cls, function, url, name):
        return cls._made(function, url, min_calls=3, ttl=30, key=name)

    @classmethod
    def is_rejection(cls, error):
        from cashews.exceptions import CircuitBreakerOpen

        return isinstance(error, CircuitBreakerOpen)


LIBRARIES = (Ours, Hyx, Aiobreaker, Purgatory, Redress, Backon, Cashews)
