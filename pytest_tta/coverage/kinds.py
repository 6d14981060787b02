"""What sort of primitive stands at a node, and the constants its outcomes follow from.

Classes are known by name, so that no primitive is imported which the tests do not use.
"""

# ruff: noqa: ANN401 - primitives of any class

from __future__ import annotations

import json
from functools import cache
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "ByKind",
    "compensations_of",
    "constants_of",
    "is_call",
    "kind_of",
    "type_of",
]

Function = TypeVar("Function", bound="Callable[..., object]")

_KINDS = {
    "SequentialPrimitive": "sequential",
    "ParallelPrimitive": "parallel",
    "ConditionalPrimitive": "conditional",
    "RouterPrimitive": "router",
    "MapPrimitive": "map",
    "RetryPrimitive": "retry",
    "FallbackPrimitive": "fallback",
    "TimeoutPrimitive": "timeout",
    "CircuitBreakerPrimitive": "breaker",
    "CachePrimitive": "cache",
    "SagaPrimitive": "saga",
    "CompensationPrimitive": "compensation",
    "BulkheadPrimitive": "bulkhead",
    "RateLimitPrimitive": "rate limit",
    "HedgePrimitive": "hedge",
    "ValuePrimitive": "value",
}


class ByKind(dict[str, Function]):
    """Functions that are each for one sort of primitive, or for a few."""

    def of(self, *kinds: str) -> Callable[[Function], Function]:
        """Return a decorator that files a function under its kinds.

        Args:
            kinds: As `kind_of` names them.
        """

        def filed(function: Function) -> Function:
            self.update(dict.fromkeys(kinds, function))
            return function

        return filed


@cache
def _known(cls: type) -> str | None:
    classes = cls.__mro__
    return next((_KINDS[c.__name__] for c in classes if c.__name__ in _KINDS), None)


@cache
def _type(cls: type) -> str:
    names = (one.__name__ for one in cls.__mro__)
    return next(name for name in names if not name.startswith("_"))


def kind_of(primitive: Any) -> str:
    """Return what sort of primitive it is: "retry"; "leaf" or "other" if unknown."""
    cls: Any = type(primitive)
    known = _known(cls)
    if known is not None:
        return known
    return "other" if primitive.children() else "leaf"


def type_of(primitive: Any) -> str:
    """Return the name of its class, as traces show it."""
    cls: Any = type(primitive)
    return _type(cls)


def is_call(primitive: Any) -> bool:
    """Tell whether a leaf may be a call to something outside, which can fail or hang.

    A sync function is not: it cannot be interrupted, and what it raises is a matter of
    ordinary tests.
    """
    signature = getattr(primitive, "_signature", None)
    if signature is None:
        return kind_of(primitive) == "leaf"
    return bool(signature.is_async or signature.is_stream or primitive._blocking)


def constants_of(primitive: Any, kind: str) -> dict[str, Any]:
    """Return what the outcomes of a primitive follow from, as plain data."""
    read = _CONSTANTS.get(kind)
    return {} if read is None else read(primitive)


def _plain(value: Any) -> Any:
    """Return a number, text or bool as it is, anything else by a name."""
    if value == inf:
        return "inf"
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return ", ".join(str(_plain(one)) for one in value)
    name = getattr(value, "__name__", None)
    return name if isinstance(name, str) else type(value).__name__


def _attributes(*names: str) -> Callable[[Any], dict[str, Any]]:
    def read(primitive: Any) -> dict[str, Any]:
        return {name: _plain(getattr(primitive, name)) for name in names}

    return read


def _policy(*names: str) -> Callable[[Any], dict[str, Any]]:
    def read(primitive: Any) -> dict[str, Any]:
        policy = primitive._policy
        return {name: _plain(getattr(policy, name)) for name in names}

    return read


def _private(*names: str) -> Callable[[Any], dict[str, Any]]:
    def read(primitive: Any) -> dict[str, Any]:
        return {name: _plain(getattr(primitive, f"_{name}")) for name in names}

    return read


def _timeout(primitive: Any) -> dict[str, Any]:
    asks = primitive._ask is not None
    return {
        "timeout_seconds": None if asks else primitive._limit,
        "fallback": primitive._fallback is not None,
    }


def _router(primitive: Any) -> dict[str, Any]:
    routes = list(primitive._routes)
    default = primitive._default
    return {
        "routes": "\n".join(map(str, routes)),
        "default": default is not None,
        "own_default": default is not None and default >= len(routes),
    }


def _hedge(primitive: Any) -> dict[str, Any]:
    return {
        "delay": _plain(primitive.delay),
        "max_hedges": primitive.max_hedges,
        "hedge_if": primitive.hedge_if is not None,
        "budget": primitive.budget is not None,
        "idempotent": primitive.idempotent,
    }


def _saga(primitive: Any) -> dict[str, Any]:
    listed = primitive._listed()
    pairs = {} if listed is None else listed.undone_by
    return {
        "listed": listed is not None,
        "compensations": json.dumps(dict(pairs)),
        "compensate_failed": primitive._terms.compensate_failed,
    }


def compensations_of(saga: Mapping[str, Any]) -> dict[str, str]:
    """Return the label of the compensation for each step of a saga that has one.

    Args:
        saga: Its constants, as `constants_of` returns them.
    """
    found: dict[str, str] = json.loads(saga["compensations"])
    return found


def _compensation(primitive: Any) -> dict[str, Any]:
    return {"compensate_failed": bool(primitive._own_terms.compensate_failed)}


_CONSTANTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "leaf": lambda primitive: {"call": is_call(primitive)},
    "retry": _attributes(
        "max_retries",
        "backoff_strategy",
        "initial_delay",
        "jitter",
        "max_elapsed",
        "attempt_timeout",
        "retry_on",
        "give_up_on",
        "respect_retry_after",
        "max_retry_after",
        "retry_if_result",
        "budget",
        "retry_nested",
        "on_exhausted",
    ),
    "fallback": _attributes("fallback_on", "fallback_if_result"),
    "timeout": _timeout,
    "breaker": _policy(
        "failure_threshold",
        "failure_rate",
        "minimum_calls",
        "recovery_timeout",
        "half_open_max_calls",
        "success_threshold",
        "record_on",
        "ignore",
    ),
    "cache": _policy(
        "ttl",
        "stale_ttl",
        "stale_if_error",
        "early_refresh",
        "negative_ttl",
        "single_flight",
        "storage",
    ),
    "parallel": _private("return_exceptions", "max_concurrency", "min_success"),
    "map": _private("return_exceptions", "max_concurrency"),
    "router": _router,
    "bulkhead": _attributes("max_concurrency", "max_queue", "max_wait"),
    "rate limit": _attributes(
        "rate", "period", "algorithm", "burst", "max_wait", "penalize_on"
    ),
    "hedge": _hedge,
    "saga": _saga,
    "compensation": _compensation,
}
