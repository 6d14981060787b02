"""The usual stack of wrappers around a call, in the order that is right for most."""

from __future__ import annotations

from functools import reduce
from operator import rshift
from typing import TYPE_CHECKING, Any, Final, TypedDict, overload

from tta_primitives.performance.cache import CacheOptions, CachePrimitive
from tta_primitives.primitive import In, Open, Out, Wrapper, as_operand
from tta_primitives.recovery.bulkhead import BulkheadOptions, BulkheadPrimitive
from tta_primitives.recovery.circuit_breaker import (
    CircuitBreakerOptions,
    CircuitBreakerPrimitive,
)
from tta_primitives.recovery.classify import is_retryable
from tta_primitives.recovery.fallback import FallbackPrimitive
from tta_primitives.recovery.rate_limit import RateLimitOptions, RateLimitPrimitive
from tta_primitives.recovery.retry import RetryOptions, RetryPrimitive
from tta_primitives.recovery.timeout import TimeoutPrimitive

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import timedelta
    from typing import Unpack

    from tta_primitives.context import WorkflowContext
    from tta_primitives.primitive import WorkflowPrimitive
    from tta_primitives.recovery.timeout import Limit

__all__ = ["ResilientOptions", "resilient"]

# Wrappers that need no option, so that True is enough to ask for one.
_COMPLETE: Final = (RetryPrimitive, CircuitBreakerPrimitive)


class ResilientOptions(TypedDict, total=False):
    """The layers of `resilient`, which documents them, from the outside inwards."""

    fallbacks: Sequence[object] | FallbackPrimitive[Open, Open]
    total_timeout: Limit | TimeoutPrimitive[Open, Open] | None
    cache: float | timedelta | CacheOptions | CachePrimitive[Open, Open] | None
    retry: bool | int | RetryOptions | RetryPrimitive[Open, Open] | None
    circuit_breaker: (
        bool | int | CircuitBreakerOptions | CircuitBreakerPrimitive[Open, Open] | None
    )
    rate_limit: float | RateLimitOptions | RateLimitPrimitive[Open, Open] | None
    bulkhead: int | BulkheadOptions | BulkheadPrimitive[Open, Open] | None
    attempt_timeout: Limit | TimeoutPrimitive[Open, Open] | None


@overload
def resilient(
    primitive: None = None, **layers: Unpack[ResilientOptions]
) -> Wrapper[Open, Open]: ...
@overload
def resilient(
    primitive: WorkflowPrimitive[In, Out], **layers: Unpack[ResilientOptions]
) -> WorkflowPrimitive[In, Out]: ...
@overload
def resilient(
    primitive: Callable[[In], Awaitable[Out]], **layers: Unpack[ResilientOptions]
) -> WorkflowPrimitive[In, Out]: ...
@overload
def resilient(
    primitive: Callable[[In, WorkflowContext], Awaitable[Out]],
    **layers: Unpack[ResilientOptions],
) -> WorkflowPrimitive[In, Out]: ...
@overload
def resilient(
    primitive: Callable[[In], Out], **layers: Unpack[ResilientOptions]
) -> WorkflowPrimitive[In, Out]: ...
@overload
def resilient(
    primitive: Callable[[In, WorkflowContext], Out],
    **layers: Unpack[ResilientOptions],
) -> WorkflowPrimitive[In, Out]: ...
def resilient(
    primitive: Any = None,
    *,
    fallbacks: Any = (),
    total_timeout: Any = 60.0,
    cache: Any = None,
    retry: Any = 3,
    circuit_breaker: Any = True,
    rate_limit: Any = None,
    bulkhead: Any = None,
    attempt_timeout: Any = 20.0,
) -> Any:
    """Put the usual stack around a primitive.

    From the outside to the inside:

    1. `fallback`: answers whatever goes wrong below, also when the time is up;
    2. `total_timeout`: bounds all attempts and the pauses between them;
    3. `cache`: a hit costs nothing of what is below;
    4. `retry`;
    5. `circuit_breaker`: counts every attempt, and no rejection from below;
    6. `rate_limit`: every attempt takes its turn;
    7. `bulkhead`: waiting for a turn holds no slot;
    8. `attempt_timeout`: bounds the call itself, not the wait for a slot.

    These are the names in paths, `fallback/total_timeout/.../llm`. What is returned is
    an ordinary primitive: `.named("answer")` names the outermost layer. Each layer is
    given by its most important value, by a dict of its options, or as an open wrapper,
    which is bound as it is. None or False leaves it out.

    The breaker counts only what may pass by itself: errors that a retry would not
    repeat, such as a bad request or a programming error, tell nothing of the service.
    Its option `record_on` says otherwise.

    Args:
        primitive: A primitive or a function. Without it the stack is open, and wraps
            the next operand: `resilient() >> llm`.
        fallbacks: Alternatives in order, the last of which may be a plain value; or an
            open `FallbackPrimitive`.
        total_timeout: In seconds, or a function of input and context.
        cache: How long answers are kept, in seconds.
        retry: How many attempts may follow the first.
        circuit_breaker: So many failures in a row open it; True for 5.
        rate_limit: So many calls in each second.
        bulkhead: So many calls at a time.
        attempt_timeout: In seconds, or a function of input and context.

    Raises:
        TypeError: An argument is of the wrong kind, or all layers were left out and
            there is no primitive.
        ValueError: An argument is out of range.
    """
    layers = [
        *_fallback(fallbacks),
        *_layer("total_timeout", total_timeout, TimeoutPrimitive, "timeout_seconds"),
        *_layer("cache", cache, CachePrimitive, "ttl"),
        *_layer("retry", retry, RetryPrimitive, "max_retries"),
        *_layer(
            "circuit_breaker",
            circuit_breaker,
            CircuitBreakerPrimitive,
            "failure_threshold",
            record_on=is_retryable,
        ),
        *_layer("rate_limit", rate_limit, RateLimitPrimitive, "rate"),
        *_layer("bulkhead", bulkhead, BulkheadPrimitive, "max_concurrency"),
        *_layer(
            "attempt_timeout", attempt_timeout, TimeoutPrimitive, "timeout_seconds"
        ),
    ]
    if not layers and primitive is None:
        msg = "resilient() has nothing to wrap and no layer to wrap it with"
        raise TypeError(msg)
    if not layers:
        return as_operand(primitive)
    stack = reduce(rshift, layers)
    return stack if primitive is None else stack.bind(primitive)


def _fallback(value: Any) -> list[Wrapper[Any, Any]]:  # noqa: ANN401 - as given
    if value is None or value is False or value in ((), []):
        return []
    if isinstance(value, Wrapper):
        return [_checked_open("fallbacks", value, FallbackPrimitive)]
    return [FallbackPrimitive(fallbacks=value)]


def _layer(
    name: str,
    value: Any,  # noqa: ANN401 - as given
    kind: type[Wrapper[Any, Any]],
    main: str,
    **usual: object,
) -> list[Wrapper[Any, Any]]:
    """Return a layer as an open wrapper, or nothing if it is left out.

    Args:
        name: What it is called.
        value: How it was given.
        kind: The wrapper.
        main: The option that a value which is no dict stands for.
        usual: Options that are usual here and not in the wrapper itself.
    """
    if value is None or value is False:
        return []
    if isinstance(value, Wrapper):
        return [_named(_checked_open(name, value, kind), name)]
    options = value if isinstance(value, dict) else {main: value}
    if value is True and kind in _COMPLETE:
        options = {}
    try:
        made: Any = kind
        return [_named(made(**{**usual, **options}), name)]
    except (TypeError, ValueError) as error:
        raised = TypeError if isinstance(error, TypeError) else ValueError
        msg = f"{name}: {error}"
        raise raised(msg) from None


def _named(layer: Wrapper[Any, Any], name: str) -> Wrapper[Any, Any]:
    """Name a layer for its place, unless whoever made it has named it."""
    return layer if layer._name or layer.name == name else layer.named(name)


def _checked_open(
    name: str, value: Wrapper[Any, Any], kind: type[Wrapper[Any, Any]]
) -> Wrapper[Any, Any]:
    if not isinstance(value, kind) or not value.is_open:
        msg = (
            f"{name}={value!r} must be an open {kind.__name__}, one that wraps nothing "
            "yet"
        )
        raise TypeError(msg)
    return value
