"""How each library retries, as its own documentation says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.comparison.cases import OURS, LacksError, Library
from tests.comparison.steps import Boom, outcome_of
from tta_primitives import WorkflowContext, step
from tta_primitives.recovery import RetryBudget, RetryPrimitive, attempts_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.comparison.cases import Function

__all__ = ["LIBRARIES", "Retry"]


class Retry(Library):
    """What a retry may be asked for; each method returns the guarded function."""

    @classmethod
    def retry(cls, function: Function, *, pause: float = 0.0) -> Function:
        """Retry a Boom up to three times, with the same pause before each."""
        raise LacksError

    @classmethod
    def doubling(cls, function: Function, *, first: float) -> Function:
        """Retry three times; each pause is twice as long as the one before."""
        raise LacksError

    @classmethod
    def but(cls, function: Function, kept: type[Exception]) -> Function:
        """Retry everything but one type of error."""
        raise LacksError

    @classmethod
    def following(cls, function: Function) -> Function:
        """Retry three times, after the pause that the error asks for."""
        raise LacksError

    @classmethod
    def within(cls, function: Function, limit: float, pause: float) -> Function:
        """Retry for so many seconds in all."""
        raise LacksError

    @classmethod
    def within_following(cls, function: Function, limit: float) -> Function:
        """Retry for so many seconds, after the pauses that the errors ask for."""
        raise LacksError

    @classmethod
    def limited(cls, function: Function, limit: float) -> Function:
        """Retry three times; each attempt may take so many seconds."""
        raise LacksError

    @classmethod
    def told(cls, function: Function, hook: Callable[..., object]) -> Function:
        """Retry three times, and tell a hook of each retry."""
        raise LacksError

    @classmethod
    def listed(cls, function: Function, pauses: list[float]) -> Function:
        """Retry four times with pauses from a series that ends before."""
        raise LacksError

    @classmethod
    def budgeted(cls, functions: list[Function]) -> list[Function]:
        """Retry all within one budget of three retries."""
        raise LacksError

    @classmethod
    def stream(cls, function: Callable[..., Any]) -> Callable[..., Any]:
        """Retry a function that is an async generator."""
        raise LacksError

    @classmethod
    def counted(cls, function: Function) -> Callable[[], Awaitable[int]]:
        """Retry three times; return how many attempts are reported afterwards."""
        raise LacksError

    @classmethod
    def shared(cls) -> Callable[[Function], Awaitable[None]]:
        """Return what runs a block by a policy object that all tasks use."""
        raise LacksError


class Ours(Retry):
    """RetryPrimitive."""

    name = OURS

    @classmethod
    def _made(cls, function: Any, **options: Any) -> Function:
        options = {"initial_delay": 0, "jitter": "none", **options}
        made = RetryPrimitive(function, **options)
        return lambda value=None: made.execute(value, WorkflowContext())

    @classmethod
    def retry(cls, function, *, pause=0.0):
        return cls._made(function, initial_delay=pause, backoff_strategy="constant")

    @classmethod
    def doubling(cls, function, *, first):
        return cls._made(function, initial_delay=first)

    @classmethod
    def but(cls, function, kept):
        return cls._made(function, retry_on=lambda error: not isinstance(error, kept))

    @classmethod
    def following(cls, function):
        return cls._made(function)

    @classmethod
    def within(cls, function, limit, pause):
        return cls._made(
            function,
            initial_delay=pause,
            backoff_strategy="constant",
            max_elapsed=limit,
        )

    @classmethod
    def within_following(cls, function, limit):
        return cls._made(function, max_elapsed=limit)

    @classmethod
    def limited(cls, function, limit):
        return cls._made(function, attempt_timeout=limit)

    @classmethod
    def told(cls, function, hook):
        from tta_primitives.door import Observer, listening

        class Hook(Observer):
            def event(self, call, name, detail):
                hook()

        made = cls._made(function)

        async def call(value=None):
            with listening(observers=(Hook(),)):
                return await made(value)

        return call

    @classmethod
    def listed(cls, function, pauses):
        return cls._made(function, backoff_strategy=pauses, max_retries=4)

    @classmethod
    def budgeted(cls, functions):
        budget = RetryBudget(min_retries=3, ratio=0.001)
        return [cls._made(function, budget=budget) for function in functions]

    @classmethod
    def stream(cls, function):
        made = RetryPrimitive(step(function), initial_delay=0, max_retries=2)
        return lambda value=None: made.stream(value, WorkflowContext())

    @classmethod
    def counted(cls, function):
        made = cls._made(function)

        async def call():
            outcome = await outcome_of(made())
            return len(attempts_of(outcome)) if outcome is not None else 1

        return call


class Tenacity(Retry):
    """`@retry`."""

    name = distribution = "tenacity"

    @classmethod
    def _made(cls, function: Any, **options: Any) -> Function:
        import tenacity as t

        usual = {
            "stop": t.stop_after_attempt(4),
            "wait": t.wait_none(),
            "retry": t.retry_if_exception_type(Boom),
            "reraise": True,
        }
        return t.retry(**{**usual, **options})(function)

    @classmethod
    def retry(cls, function, *, pause=0.0):
        from tenacity import wait_fixed

        return cls._made(function, wait=wait_fixed(pause))

    @classmethod
    def doubling(cls, function, *, first):
        from tenacity import wait_exponential

        return cls._made(function, wait=wait_exponential(multiplier=first))

    @classmethod
    def but(cls, function, kept):
        from tenacity import retry_if_not_exception_type

        return cls._made(function, retry=retry_if_not_exception_type(kept))

    @classmethod
    def following(cls, function):
        return cls._made(function, wait=cls._asked)

    @staticmethod
    def _asked(state: Any) -> float:
        return state.outcome.exception().retry_after

    @classmethod
    def within(cls, function, limit, pause):
        from tenacity import stop_before_delay, wait_fixed

        return cls._made(
            function, stop=stop_before_delay(limit), wait=wait_fixed(pause)
        )

    @classmethod
    def within_following(cls, function, limit):
        from tenacity import stop_before_delay

        return cls._made(function, stop=stop_before_delay(limit), wait=cls._asked)

    @classmethod
    def told(cls, function, hook):
        return cls._made(function, before_sleep=hook)

    @classmethod
    def listed(cls, function, pauses):
        from tenacity import stop_after_attempt, wait_chain, wait_fixed

        wait = wait_chain(*map(wait_fixed, pauses))
        return cls._made(function, wait=wait, stop=stop_after_attempt(5))

    @classmethod
    def stream(cls, function):
        return cls._made(function)

    @classmethod
    def counted(cls, function):
        made = cls._made(function)

        async def call():
            await outcome_of(made())
            return made.statistics["attempt_number"]

        return call

    @classmethod
    def shared(cls):
        from tenacity import AsyncRetrying, stop_after_attempt, wait_fixed

        policy = AsyncRetrying(stop=stop_after_attempt(4), wait=wait_fixed(0.01))

        async def run(body):
            async for attempt in policy:
                with attempt:
                    await body()

        return run


class Stamina(Retry):
    """`@stamina.retry`."""

    name = distribution = "stamina"

    @classmethod
    def _made(cls, function: Any, **options: Any) -> Function:
        import stamina

        usual = {"on": Boom, "attempts": 4, "timeout": None}
        none = {"wait_initial": 0, "wait_max": 0, "wait_jitter": 0}
        return stamina.retry(**{**usual, **none, **options})(function)

    @classmethod
    def retry(cls, function, *, pause=0.0):
        return cls._made(function, wait_initial=pause, wait_max=pause)

    @classmethod
    def doubling(cls, function, *, first):
        return cls._made(function, wait_initial=first, wait_max=60)

    @classmethod
    def but(cls, function, kept):
        return cls._made(function, on=lambda error: not isinstance(error, kept))

    @classmethod
    def following(cls, function):
        return cls._made(function, on=lambda error: error.retry_after)

    @classmethod
    def within(cls, function, limit, pause):
        return cls._made(
            function, timeout=limit, attempts=None, wait_initial=pause, wait_max=pause
        )

    @classmethod
    def within_following(cls, function, limit):
        return cls._made(
            function, timeout=limit, attempts=None, on=lambda error: error.retry_after
        )

    @classmethod
    def told(cls, function, hook):
        from stamina.instrumentation import set_on_retry_hooks

        made = cls._made(function)

        async def call(value=None):
            set_on_retry_hooks([hook])
            try:
                return await made(value)
            finally:
                set_on_retry_hooks(None)

        return call

    @classmethod
    def stream(cls, function):
        return cls._made(function)


class Backoff(Retry):
    """`@backoff.on_exception`."""

    name = distribution = "backoff"

    @classmethod
    def _made(cls, function: Any, wait: Any = None, **options: Any) -> Function:
        import backoff

        usual: dict[str, Any] = {"max_tries": 4, "jitter": None, "logger": None}
        if wait is None:
            wait = backoff.constant
            usual["interval"] = 0
        on = options.pop("on", Boom)
        return backoff.on_exception(wait, on, **{**usual, **options})(function)

    @classmethod
    def retry(cls, function, *, pause=0.0):
        return cls._made(function, interval=pause)

    @classmethod
    def doubling(cls, function, *, first):
        import backoff

        return cls._made(function, backoff.expo, factor=first)

    @classmethod
    def but(cls, function, kept):
        return cls._made(
            function, on=Exception, giveup=lambda error: isinstance(error, kept)
        )

    @classmethod
    def following(cls, function):
        import backoff

        return cls._made(
            function, backoff.runtime, value=lambda error: error.retry_after
        )

    @classmethod
    def within(cls, function, limit, pause):
        return cls._made(function, max_tries=None, max_time=limit, interval=pause)

    @classmethod
    def within_following(cls, function, limit):
        import backoff

        return cls._made(
            function,
            backoff.runtime,
            max_tries=None,
            max_time=limit,
            value=lambda error: error.retry_after,
        )

    @classmethod
    def told(cls, function, hook):
        return cls._made(function, on_backoff=hook)

    @classmethod
    def listed(cls, function, pauses):
        return cls._made(function, interval=pauses, max_tries=5)

    @classmethod
    def stream(cls, function):
        return cls._made(function)


class Hyx(Retry):
    """`hyx.retry`."""

    name = distribution = "hyx"

    @classmethod
    def _made(cls, function: Any, **options: Any) -> Function:
        from hyx.retry import retry

        return retry(**{"on": Boom, "attempts": 4, "backoff": 0, **options})(function)

    @classmethod
    def retry(cls, function, *, pause=0.0):
        return cls._made(function, backoff=pause)

    @classmethod
    def doubling(cls, function, *, first):
        from hyx.retry.backoffs import expo

        return cls._made(function, backoff=expo(min_delay_secs=first))

    @classmethod
    def listed(cls, function, pauses):
        return cls._made(function, backoff=iter(pauses), attempts=5)


class Redress(Retry):
    """`AsyncRetryPolicy`."""

    name = distribution = "redress"

    @classmethod
    def _made(cls, function: Any, pause: float = 0.0, **options: Any) -> Function:
        from redress import AsyncRetryPolicy

        hook = options.pop("before_sleep", None)
        usual = {
            "classifier": cls._class_of,
            "strategy": lambda context: pause,
            "max_attempts": 4,
        }
        policy = AsyncRetryPolicy(**{**usual, **options})
        return lambda value=None: policy.call(
            lambda: function(value), before_sleep=hook
        )

    @staticmethod
    def _class_of(error: BaseException) -> Any:
        from redress import ErrorClass

        is_boom = isinstance(error, Boom)
        return ErrorClass.TRANSIENT if is_boom else ErrorClass.PERMANENT

    @staticmethod
    def _hint_of(error: BaseException) -> Any:
        from redress import Classification, ErrorClass

        return Classification(
            ErrorClass.RATE_LIMIT, retry_after_s=getattr(error, "retry_after", None)
        )

    @classmethod
    def retry(cls, function, *, pause=0.0):
        return cls._made(function, pause)

    @classmethod
    def doubling(cls, function, *, first):
        return cls._made(
            function, strategy=lambda context: first * 2 ** (context.attempt - 1)
        )

    @classmethod
    def but(cls, function, kept):
        from redress import ErrorClass

        def class_of(error):
            is_kept = isinstance(error, kept)
            return ErrorClass.PERMANENT if is_kept else ErrorClass.TRANSIENT

        return cls._made(function, classifier=class_of)

    @classmethod
    def _following(cls) -> dict[str, Any]:
        from redress import retry_after_or

        strategy = retry_after_or(lambda context: 0.0, jitter_s=0)
        return {"classifier": cls._hint_of, "strategy": strategy}

    @classmethod
    def following(cls, function):
        return cls._made(function, **cls._following())

    @classmethod
    def within(cls, function, limit, pause):
        return cls._made(function, pause, deadline_s=limit, max_attempts=100)

    @classmethod
    def within_following(cls, function, limit):
        return cls._made(
            function, deadline_s=limit, max_attempts=100, **cls._following()
        )

    @classmethod
    def limited(cls, function, limit):
        from redress import ErrorClass

        return cls._made(
            function,
            attempt_timeout_s=limit,
            classifier=lambda error: ErrorClass.TRANSIENT,
        )

    @classmethod
    def told(cls, function, hook):
        return cls._made(function, before_sleep=hook)

    @classmethod
    def counted(cls, function):
        from redress import AsyncRetryPolicy

        policy = AsyncRetryPolicy(
            classifier=cls._class_of, strategy=lambda context: 0.0, max_attempts=4
        )

        async def call():
            return (await policy.execute(function)).attempts

        return call

    @classmethod
    def budgeted(cls, functions):
        from redress import Budget

        budget = Budget(max_retries=3, window_s=10)
        return [cls._made(function, budget=budget) for function in functions]


class Backon(Retry):
    """`@backon.on_exception`."""

    name = distribution = "backon"

    @classmethod
    def _made(cls, function: Any, wait: Any = None, **options: Any) -> Any:
        import backon

        usual: dict[str, Any] = {"max_tries": 4, "jitter": None, "logger": None}
        if wait is None:
            wait = backon.constant
            usual["interval"] = 0
        on = options.pop("on", Boom)
        return backon.on_exception(wait, on, **{**usual, **options})(function)

    @classmethod
    def retry(cls, function, *, pause=0.0):
        return cls._made(function, interval=pause)

    @classmethod
    def doubling(cls, function, *, first):
        import backon

        return cls._made(function, backon.expo, factor=first)

    @classmethod
    def but(cls, function, kept):
        return cls._made(
            function, on=Exception, giveup=lambda error: isinstance(error, kept)
        )

    @classmethod
    def following(cls, function):
        import backon

        return cls._made(
            function, backon.runtime, value=lambda error: error.retry_after
        )

    @classmethod
    def within(cls, function, limit, pause):
        return cls._made(function, max_tries=None, max_time=limit, interval=pause)

    @classmethod
    def within_following(cls, function, limit):
        import backon

        return cls._made(
            function,
            backon.runtime,
            max_tries=None,
            max_time=limit,
            value=lambda error: error.retry_after,
        )

    @classmethod
    def limited(cls, function, limit):
        return cls._made(function, on=Exception, attempt_timeout=limit)

    @classmethod
    def told(cls, function, hook):
        return cls._made(function, on_backoff=hook)

    @classmethod
    def listed(cls, function, pauses):
        return cls._made(function, interval=pauses, max_tries=5)

    @classmethod
    def stream(cls, function):
        return cls._made(function)


class Langchain(Retry):
    """`Runnable.with_retry`."""

    name = "langchain"
    distribution = "langchain-core"

    @classmethod
    def _made(cls, runnable: Any, **options: Any) -> Any:
        usual = {"wait_exponential_jitter": False, "stop_after_attempt": 4}
        on = {"retry_if_exception_type": (Boom,)}
        return runnable.with_retry(**{**usual, **on, **options})

    @classmethod
    def _runnable(cls, function: Any) -> Any:
        from langchain_core.runnables import RunnableLambda

        # It takes a plain function for the synchronous side besides.
        return RunnableLambda(lambda value: value, afunc=function)

    @classmethod
    def retry(cls, function, *, pause=0.0):
        options: dict[str, Any] = {}
        if pause:
            params = {"initial": pause, "max": pause, "jitter": 0}
            options = {
                "wait_exponential_jitter": True,
                "exponential_jitter_params": params,
            }
        made = cls._made(cls._runnable(function), **options)
        return lambda value=None: made.ainvoke(value)

    @classmethod
    def doubling(cls, function, *, first):
        params = {"initial": first, "max": 60, "jitter": 0}
        made = cls._made(
            cls._runnable(function),
            wait_exponential_jitter=True,
            exponential_jitter_params=params,
        )
        return lambda value=None: made.ainvoke(value)

    @classmethod
    def stream(cls, function):
        from langchain_core.runnables import RunnableGenerator

        async def transformed(inputs):
            async for value in inputs:
                async for chunk in function(value):
                    yield chunk

        return cls._made(RunnableGenerator(transformed)).astream


LIBRARIES = (Ours, Tenacity, Stamina, Backoff, Hyx, Redress, Backon, Langchain)
