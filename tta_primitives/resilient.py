"""The usual stack of wrappers around a call, in the order that is right for most."""

from __future__ import annotations

from functools import reduce
from operator import rshift
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypedDict, overload

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
    from collections.abc import Sequence
    from datetime import timedelta
    from typing import Unpack

    from tta_primitives.operands import AsyncOperand, SyncOperand
    from tta_primitives.primitive import WorkflowPrimitive
    from tta_primitives.recovery.timeout import Limit

__all__ = ["ResilientOptions", "resilient"]

# Wrappers that need no option, so that True is enough to ask for one.
_COMPLETE: Final = (RetryPrimitive, CircuitBreakerPrimitive)


class _Place(NamedTuple):
    """A place in the stack.

    Attributes:
        name: What the layer is called.
        kind: The wrapper that stands there.
        main: The option that a value which is no dict stands for.
        usual: Options that are usual here and not in the wrapper itself.
    """

    name: str
    kind: type[Wrapper[Any, Any]]
    main: str
    usual: dict[str, Any] = {}  # noqa: RUF012 - nobody changes it

    def layer(self, value: Any) -> list[Wrapper[Any, Any]]:  # noqa: ANN401 - as given
        """Return the layer as an open wrapper, or nothing if it is left out."""
        if value is None or value is False:
            return []
        if isinstance(value, Wrapper):
            return [_named(_checked_open(self.name, value, self.kind), self.name)]
        options = value if isinstance(value, dict) else {self.main: value}
        if value is True and self.kind in _COMPLETE:
            options = {}
        make: Any = self.kind
        try:
            return [_named(make(**{**self.usual, **options}), self.name)]
        except (TypeError, ValueError) as error:
            raised = TypeError if isinstance(error, TypeError) else ValueError
            msg = f"{self.name}: {error}"
            raise raised(msg) from None


_PLACES: Final = (
    _Place("total_timeout", TimeoutPrimitive, "timeout_seconds"),
    _Place("cache", CachePrimitive, "ttl"),
    _Place("retry", RetryPrimitive, "max_retries"),
    _Place(
        "circuit_breaker",
        CircuitBreakerPrimitive,
        "failure_threshold",
        {"record_on": is_retryable},
    ),
    _Place("rate_limit", RateLimitPrimitive, "rate"),
    _Place("bulkhead", BulkheadPrimitive, "max_concurrency"),
    _Place("attempt_timeout", TimeoutPrimitive, "timeout_seconds"),
)


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
    primitive: AsyncOperand[In, Out], **layers: Unpack[ResilientOptions]
) -> WorkflowPrimitive[In, Out]: ...
@overload
def resilient(
    primitive: SyncOperand[In, Out], **layers: Unpack[ResilientOptions]
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

    These are the names in paths. Each is given by its most important value, by a dict
    of its options, or as an open wrapper; None or False leaves it out.

    The breaker counts only errors that a retry would repeat: a bad request or a
    programming error tells nothing of the service. Its `record_on` says otherwise.

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
    around = [total_timeout, cache, retry, circuit_breaker]
    inside = [rate_limit, bulkhead, attempt_timeout]
    layers = _fallback(fallbacks)
    for place, value in zip(_PLACES, around + inside, strict=True):
        layers += place.layer(value)
    return _around(layers, primitive)


def _around(layers: list[Wrapper[Any, Any]], primitive: Any) -> Any:  # noqa: ANN401 - as given
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
