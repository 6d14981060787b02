"""When a circuit breaker opens, and for how long: its options, checked."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast

from tta_primitives.arguments import check_count, check_number, seconds
from tta_primitives.door import log_once
from tta_primitives.errors import ExecutionRejectedError, TimeoutExceededError
from tta_primitives.recovery.classify import (
    ErrorFilter,
    _names_group,
    check_filter,
    check_predicate,
    matches,
)
from tta_primitives.redis_link import link_to

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from redis.asyncio import Redis

__all__ = [
    "CircuitState",
    "CircuitStateChange",
    "Policy",
    "RecoveryTimeout",
    "Vote",
    "checked",
]

CircuitState: TypeAlias = Literal["closed", "open", "half_open", "isolated"]
RecoveryTimeout: TypeAlias = "float | timedelta | Callable[[int], float | timedelta]"

USUAL_THRESHOLD = 5
USUAL_MINIMUM = 10
USUAL_WINDOW = 30.0


@dataclass(frozen=True, slots=True)
class CircuitStateChange:
    """One change of a circuit breaker's state, as `on_state_change` is told of it.

    Attributes:
        breaker: The name of the breaker.
        primitive: The name of what it wraps.
        before: The state that has ended.
        after: The state that has begun.
        reason: `"failures"` in a row, `"failure_rate"`, `"slow_call_rate"`,
            `"recovery_timeout"` (the break is over), `"probe_failed"`,
            `"probes_succeeded"`, `"by_hand"`, or `"shared"` (another process said so).
        retry_after: Seconds until the next probe, if the breaker has opened.
    """

    breaker: str
    primitive: str
    before: CircuitState
    after: CircuitState
    reason: str
    retry_after: float | None


class Vote(NamedTuple):
    """What one call says about the health of what it called.

    Attributes:
        failed: Whether it failed.
        slow: Whether it took too long, however it ended.
        counts: Whether it says anything: an error that is no failure does not.
    """

    failed: bool
    slow: bool
    counts: bool = True

    @property
    def is_bad(self) -> bool:
        """Whether the call speaks for opening."""
        return self.failed or self.slow


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The options of a breaker, which `CircuitBreakerPrimitive` documents, by name.

    Attributes:
        threshold: How many failures in a row open; None if rates alone do.
        first_break: How long the first break is, in seconds.
    """

    failure_threshold: int | None
    failure_rate: float | None
    minimum_calls: int
    window: float
    recovery_timeout: float | Callable[[int], float | timedelta]
    half_open_max_calls: int
    success_threshold: int
    half_open_timeout: float | None
    slow_call_duration: float | None
    slow_call_rate: float | None
    failure_if_result: Callable[[Any], Any] | None
    record_on: ErrorFilter
    ignore: ErrorFilter
    on_state_change: Callable[[CircuitStateChange], None] | None
    storage: Redis | None
    namespace: str | None
    threshold: int | None
    first_break: float

    @property
    def is_rolling(self) -> bool:
        """Whether the calls of a window of time are counted."""
        return self.failure_rate is not None or self.slow_call_rate is not None

    def is_failure(self, error: Exception) -> bool:
        """Tell whether an error says something against what was called.

        A rejection from further inside does not, because nothing was executed, nor does
        a limit that left no time to start. A group does if one of its leaves does.
        """
        if _nothing_ran(error) or (self.ignore and matches(self.ignore, error)):
            return False
        if isinstance(error, ExceptionGroup):
            has_failed = any(map(self.is_failure, error.exceptions))
            return has_failed or _names_group(self.record_on, error)
        return matches(self.record_on, error)

    def break_seconds(self, opening: int, last: float) -> float:
        """Return how long a break is.

        Args:
            opening: How often the breaker has opened before since it was last closed.
            last: The break to repeat if the user's function fails: to open must not.
        """
        ask = self.recovery_timeout
        if not callable(ask):
            return ask
        try:
            return seconds(f"recovery_timeout({opening})", ask(opening))
        except Exception as error:  # noqa: BLE001 - the error that opened it must come out
            log_once(ask, error)
            return last


def _nothing_ran(error: Exception) -> bool:
    if isinstance(error, ExceptionGroup):
        return all(map(_nothing_ran, error.exceptions))
    is_over = isinstance(error, TimeoutExceededError) and error.timeout_seconds <= 0
    return is_over or isinstance(error, ExecutionRejectedError)


def checked(**options: Any) -> Policy:  # noqa: ANN401 - what is checked here
    """Return the policy that these options make.

    Args:
        options: All parameters of `CircuitBreakerPrimitive`, by name.

    Raises:
        TypeError: One is of the wrong kind.
        ValueError: One is out of range, or has no meaning without another.
    """
    values = {name: check(name, options[name]) for name, check in _CHECKS.items()}
    policy = Policy(
        **values,
        threshold=_threshold(values["failure_threshold"], values["failure_rate"]),
        first_break=_first_break(values["recovery_timeout"]),
    )
    _check_together(policy)
    return policy


def _threshold(given: int | None, failure_rate: float | None) -> int | None:
    """Return how many failures in a row open; with a rate none, unless it was given."""
    if given is None and failure_rate is None:
        return USUAL_THRESHOLD
    return given


def _check_together(policy: Policy) -> None:
    """Refuse options that have a meaning only together with another."""
    if (policy.slow_call_duration is None) is not (policy.slow_call_rate is None):
        msg = (
            f"slow_call_duration={policy.slow_call_duration!r} and "
            f"slow_call_rate={policy.slow_call_rate!r} have a meaning only together"
        )
        raise ValueError(msg)
    for name, usual in (("minimum_calls", USUAL_MINIMUM), ("window", USUAL_WINDOW)):
        value = getattr(policy, name)
        if value != usual and not policy.is_rolling:
            msg = (
                f"{name}={value!r} has a meaning only with failure_rate= or "
                "slow_call_rate=; failures in a row are counted whenever they come"
            )
            raise ValueError(msg)
    if policy.namespace is not None and policy.storage is None:
        msg = f"namespace={policy.namespace!r} has a meaning only with storage="
        raise ValueError(msg)


def _first_break(recovery_timeout: Any) -> float:  # noqa: ANN401 - checked already
    if callable(recovery_timeout):
        return seconds("recovery_timeout(0)", recovery_timeout(0))
    return cast("float", recovery_timeout)


def _check_recovery(name: str, value: object) -> object:
    return value if callable(value) else seconds(name, value)


def _check_rate(name: str, value: object) -> float:
    rate = check_number(name, value)
    if rate > 1:
        msg = (
            f"{name}={value!r} must be above 0 and at most 1: half of the calls is 0.5"
        )
        raise ValueError(msg)
    return rate


def _check_positive(name: str, value: object) -> int:
    return check_count(name, value, minimum=1)


def _check_hook(name: str, value: object) -> object:
    if inspect.iscoroutinefunction(value):
        msg = f"{name}={value!r} must be a sync function: it is called, not awaited"
        raise TypeError(msg)
    return check_predicate(name, value)


def _check_namespace(name: str, value: object) -> object:
    if isinstance(value, str) and value:
        return value
    msg = f"{name}={value!r} must be a non-empty text, or None"
    raise TypeError(msg)


def _check_storage(name: str, value: object) -> object:
    link_to(name, value)
    return value


def _optional(check: _Check) -> _Check:
    return lambda name, value: None if value is None else check(name, value)


_Check: TypeAlias = "Callable[[str, Any], Any]"

_CHECKS: dict[str, _Check] = {
    "failure_threshold": _optional(_check_positive),
    "failure_rate": _optional(_check_rate),
    "minimum_calls": _check_positive,
    "window": seconds,
    "recovery_timeout": _check_recovery,
    "half_open_max_calls": _check_positive,
    "success_threshold": _check_positive,
    "half_open_timeout": _optional(seconds),
    "slow_call_duration": _optional(seconds),
    "slow_call_rate": _optional(_check_rate),
    "failure_if_result": check_predicate,
    "record_on": check_filter,
    "ignore": check_filter,
    "on_state_change": _check_hook,
    "storage": _optional(_check_storage),
    "namespace": _optional(_check_namespace),
}
