"""How long to wait before the next attempt: strategies and jitter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, cast

from tta_primitives.arguments import check_choice, check_number, seconds
from tta_primitives.chance import rng

__all__ = ["Backoff", "BackoffStrategy", "Jitter", "check_strategy"]

BackoffStrategy: TypeAlias = (
    Literal["constant", "linear", "exponential", "fibonacci", "decorrelated"]
    | Sequence[float]
    | Callable[[int], float]
)
Jitter: TypeAlias = Literal["full", "equal", "none"]

_NAMED = ("constant", "linear", "exponential", "fibonacci", "decorrelated")


class Backoff:
    """A pure function from the number of a retry to the seconds to wait before it.

    It has no state of its own, so that any number of calls can share it.

    Args:
        strategy: `"constant"`: always `initial`. `"linear"`: `initial * n`.
            `"exponential"`: `initial * factor ** (n - 1)`. `"fibonacci"`: `initial`
            times 1, 1, 2, 3, 5 ... `"decorrelated"`: at random between `initial` and
            three times the delay before. A sequence: its nth value, the last one
            repeated. A function: what it returns for n, which counts from 1.
        initial: Delay before the first retry, in seconds.
        factor: Growth of the exponential strategy, at least 1.
        maximum: No delay is longer, in seconds.
        jitter: `"full"`: at random between 0 and the delay. `"equal"`: between its half
            and the whole. `"none"`: exactly the delay. The decorrelated strategy is
            random by itself; there `"none"` takes the upper bound, and the others
            change nothing.

    The formulas of full, equal and decorrelated jitter are those of Marc Brooker,
    "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    __slots__ = (
        "_base",
        "_factor",
        "_initial",
        "_jitter",
        "_maximum",
        "_strategy",
        "is_zero",
    )

    def __init__(
        self,
        strategy: BackoffStrategy,
        initial: float,
        factor: float,
        maximum: float,
        jitter: Jitter,
    ) -> None:
        self._strategy = strategy
        self._initial = initial
        self._factor = factor
        self._maximum = maximum
        self._jitter = jitter
        self._base = self._base_of(strategy)
        # Whether no delay is ever longer than nothing, so that none need be worked out.
        self.is_zero: bool = isinstance(strategy, str) and not initial

    def _base_of(self, strategy: BackoffStrategy) -> Callable[[int], float]:
        if isinstance(strategy, str):
            named: dict[str, Callable[[int], float]] = {
                "constant": self._constant,
                "linear": self._linear,
                "exponential": self._exponential,
                "fibonacci": self._fibonacci,
                "decorrelated": self._constant,
            }
            return named[strategy]
        return self._asked if callable(strategy) else self._listed

    def delay(self, number: int, previous: float | None) -> float:
        """Return the seconds to wait before a retry.

        Args:
            number: Of the retry, counted from 1.
            previous: The delay before the retry before, None for the first.

        Raises:
            TypeError: The strategy is a function and returned no number.
            ValueError: It returned a negative number.
        """
        if self._strategy == "decorrelated":
            return self._decorrelated(previous)
        base = min(self._base(number), self._maximum)
        if self._jitter == "none" or base == 0:
            return base
        if self._jitter == "full":
            return rng().random() * base
        return (1 + rng().random()) * (base / 2)

    def _constant(self, _number: int) -> float:
        return self._initial

    def _linear(self, number: int) -> float:
        return self._initial * number

    def _exponential(self, number: int) -> float:
        try:
            return self._initial * self._factor ** (number - 1)
        except OverflowError:
            return self._maximum if self._initial else 0.0

    def _fibonacci(self, number: int) -> float:
        if not self._initial:
            return 0.0
        last, this = 0.0, self._initial
        for _ in range(number - 1):
            if this >= self._maximum:
                break
            last, this = this, last + this
        return this

    def _listed(self, number: int) -> float:
        delays = cast("Sequence[float]", self._strategy)
        return delays[min(number, len(delays)) - 1]

    def _asked(self, number: int) -> float:
        ask = cast("Callable[[int], float]", self._strategy)
        return seconds(
            f"backoff_strategy({number})", ask(number), zero=True, infinite=True
        )

    def _decorrelated(self, previous: float | None) -> float:
        low = min(self._initial, self._maximum)
        high = min(self._maximum, 3 * (low if previous is None else previous))
        if self._jitter == "none":
            return max(low, high)
        return low + rng().random() * max(0.0, high - low)


def check_strategy(value: object, maximum: float) -> BackoffStrategy:
    """Return a strategy as `Backoff` takes it.

    Args:
        value: A name, a sequence of seconds, or a function.
        maximum: The longest delay that is allowed, in seconds.

    Raises:
        TypeError: It is none of these, or a delay is no number.
        ValueError: The name is unknown, the sequence is empty, or one of its delays is
            negative or longer than the maximum.
    """
    if isinstance(value, str):
        return cast("BackoffStrategy", check_choice("backoff_strategy", value, _NAMED))
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return _check_delays(value, maximum)
    if callable(value) and not isinstance(value, type):
        return cast("BackoffStrategy", value)
    msg = (
        f"backoff_strategy={value!r} must be one of {', '.join(map(repr, _NAMED))}, a "
        "list of seconds, or a function of the retry's number"
    )
    raise TypeError(msg)


def _check_delays(delays: Sequence[object], maximum: float) -> tuple[float, ...]:
    if not delays:
        msg = f"backoff_strategy={delays!r} must have at least one delay"
        raise ValueError(msg)
    checked = tuple(
        seconds(f"backoff_strategy[{index}]", delay, zero=True)
        for index, delay in enumerate(delays)
    )
    if max(checked) > maximum:
        msg = (
            f"backoff_strategy={delays!r} has a delay above max_delay={maximum:g}; "
            "raise max_delay"
        )
        raise ValueError(msg)
    return checked


def check_factor(value: object) -> float:
    """Return the growth of an exponential backoff.

    Raises:
        TypeError: It is no number.
        ValueError: It is less than 1, so that delays would shrink.
    """
    factor = check_number("backoff_factor", value)
    if factor < 1:
        msg = f"backoff_factor={value!r} must be at least 1"
        raise ValueError(msg)
    return factor
