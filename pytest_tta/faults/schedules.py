"""When a fault acts: schedules that count attempts, look at the time, or draw lots."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from tta_primitives.arguments import check_count, seconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from tta_primitives.door import Call

__all__ = [
    "Attempt",
    "Schedule",
    "always",
    "at_time",
    "chance",
    "every",
    "first",
    "nth",
    "when",
]

Predicate: TypeAlias = "Callable[[Call], bool]"
_TWO_TO_64 = float(1 << 64)


@dataclass(slots=True)
class Attempt:
    """One call that reached a site, as schedules see it.

    Attributes:
        call: The call itself.
        path: The site.
        number: Which call at this site it is, from 1.
        at: When, in seconds since the injector began.
        seed: What lots are drawn from.
    """

    call: Call
    path: str
    number: int
    at: float
    seed: int | str
    _lots: str = field(default="", init=False)
    _draws: int = field(default=0, init=False)

    def for_fault(self, name: str) -> Attempt:
        """Begin the lots of one kind of fault, which are nothing to those of others."""
        self._lots = name
        self._draws = 0
        return self

    def draw(self) -> float:
        """Return the next number in [0, 1) for this seed, path, call and fault."""
        self._draws += 1
        text = f"{self.seed}\n{self.path}\n{self.number}\n{self._lots}\n{self._draws}"
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / _TWO_TO_64


class Schedule:
    """Says which calls at a site a fault strikes; combine with `&`, `|` and `~`."""

    __slots__ = ()

    def strikes(self, attempt: Attempt) -> bool:
        """Tell whether the fault strikes this call."""
        raise NotImplementedError

    def __and__(self, other: Schedule) -> Schedule:
        return Both(self, other) if isinstance(other, Schedule) else NotImplemented

    def __or__(self, other: Schedule) -> Schedule:
        return Either(self, other) if isinstance(other, Schedule) else NotImplemented

    def __invert__(self) -> Schedule:
        return Not(self)


@dataclass(frozen=True, slots=True, repr=False)
class Always(Schedule):
    """Every call."""

    def strikes(self, attempt: Attempt) -> bool:  # noqa: ARG002 - whichever it is
        """Tell that it does."""
        return True

    def __repr__(self) -> str:
        return "always()"


@dataclass(frozen=True, slots=True, repr=False)
class First(Schedule):
    """The first calls at a site."""

    n: int

    def strikes(self, attempt: Attempt) -> bool:
        """Tell whether the call is among the first n."""
        return attempt.number <= self.n

    def __repr__(self) -> str:
        return f"first({self.n})"


@dataclass(frozen=True, slots=True, repr=False)
class Nth(Schedule):
    """One call at a site."""

    n: int

    def strikes(self, attempt: Attempt) -> bool:
        """Tell whether the call is the n-th."""
        return attempt.number == self.n

    def __repr__(self) -> str:
        return f"nth({self.n})"


@dataclass(frozen=True, slots=True, repr=False)
class Every(Schedule):
    """Calls at a site at regular distances."""

    n: int

    def strikes(self, attempt: Attempt) -> bool:
        """Tell whether the call's number is a multiple of n."""
        return attempt.number % self.n == 0

    def __repr__(self) -> str:
        return f"every({self.n})"


@dataclass(frozen=True, slots=True, repr=False)
class Chance(Schedule):
    """Calls on which the lot falls."""

    p: float

    def strikes(self, attempt: Attempt) -> bool:
        """Tell whether the lot falls on the call."""
        return attempt.draw() < self.p

    def __repr__(self) -> str:
        return f"chance({self.p!r})"


@dataclass(frozen=True, slots=True, repr=False)
class AtTime(Schedule):
    """Calls in a window of time."""

    begin: float
    until: float | None

    def strikes(self, attempt: Attempt) -> bool:
        """Tell whether the call comes inside the window."""
        return self.begin <= attempt.at and (
            self.until is None or attempt.at < self.until
        )

    def __repr__(self) -> str:
        end = "" if self.until is None else f", {self.until:g}"
        return f"at_time({self.begin:g}{end})"


@dataclass(frozen=True, slots=True, repr=False)
class When(Schedule):
    """Calls that a function picks."""

    predicate: Predicate

    def strikes(self, attempt: Attempt) -> bool:
        """Ask the function."""
        return bool(self.predicate(attempt.call))

    def __repr__(self) -> str:
        return f"when({getattr(self.predicate, '__qualname__', self.predicate)})"


# Both sides are always asked: otherwise the lots that one side draws would depend on
# the other.


@dataclass(frozen=True, slots=True, repr=False)
class Both(Schedule):
    """Calls that two schedules agree on."""

    left: Schedule
    right: Schedule

    def strikes(self, attempt: Attempt) -> bool:
        """Ask both."""
        left, right = self.left.strikes(attempt), self.right.strikes(attempt)
        return left and right

    def __repr__(self) -> str:
        return f"{_enclosed(self.left, Either)} & {_enclosed(self.right, Either, Both)}"


@dataclass(frozen=True, slots=True, repr=False)
class Either(Schedule):
    """Calls that one of two schedules picks."""

    left: Schedule
    right: Schedule

    def strikes(self, attempt: Attempt) -> bool:
        """Ask both."""
        left, right = self.left.strikes(attempt), self.right.strikes(attempt)
        return left or right

    def __repr__(self) -> str:
        return f"{self.left!r} | {_enclosed(self.right, Either)}"


@dataclass(frozen=True, slots=True, repr=False)
class Not(Schedule):
    """Calls that a schedule leaves alone."""

    inner: Schedule

    def strikes(self, attempt: Attempt) -> bool:
        """Ask, and say the opposite."""
        return not self.inner.strikes(attempt)

    def __repr__(self) -> str:
        return f"~{_enclosed(self.inner, Both, Either)}"


def _enclosed(schedule: Schedule, *looser: type[Schedule]) -> str:
    """Write a schedule, in parentheses where it would be read otherwise."""
    return f"({schedule!r})" if isinstance(schedule, looser) else repr(schedule)


def always() -> Schedule:
    """Strike every call."""
    return Always()


def first(n: int) -> Schedule:
    """Strike the first n calls at each site.

    Raises:
        ValueError: `n` is not a whole number of at least 1.
    """
    return First(check_count("n", n, minimum=1))


def nth(n: int) -> Schedule:
    """Strike the n-th call at each site, counted from 1.

    Raises:
        ValueError: `n` is not a whole number of at least 1.
    """
    return Nth(check_count("n", n, minimum=1))


def every(n: int) -> Schedule:
    """Strike each n-th call at each site: the n-th, the 2n-th and so on.

    Raises:
        ValueError: `n` is not a whole number of at least 1.
    """
    return Every(check_count("n", n, minimum=1))


def chance(p: float) -> Schedule:
    """Strike each call with a probability.

    The lot depends on the seed, the path, the call's number there and the kind of the
    fault, and on nothing else: the same calls are struck however tasks take turns.

    Args:
        p: From 0 to 1.

    Raises:
        TypeError: `p` is no number.
        ValueError: `p` is out of range.
    """
    if isinstance(p, bool) or not isinstance(p, (int, float)):
        msg = f"p={p!r} must be a number from 0 to 1, not {type(p).__name__}"
        raise TypeError(msg)
    if not 0 <= p <= 1:
        msg = f"p={p!r} must be a number from 0 to 1"
        raise ValueError(msg)
    return Chance(p)


def at_time(
    begin: float | timedelta, until: float | timedelta | None = None
) -> Schedule:
    """Strike calls that come at or after an instant, until another.

    Args:
        begin: Seconds since the injector began, or a timedelta.
        until: The end of the window, which does not belong to it; None for no end.

    Raises:
        TypeError: One of them is no duration.
        ValueError: One of them is negative, or the window is empty.
    """
    start = seconds("begin", begin, zero=True)
    end = None if until is None else seconds("until", until)
    if end is not None and end <= start:
        msg = f"until={until!r} must be later than begin={begin!r}"
        raise ValueError(msg)
    return AtTime(start, end)


def when(predicate: Predicate) -> Schedule:
    """Strike the calls for which a function returns True.

    Args:
        predicate: Gets the `Call`; its `input_data` is what the primitive was given.

    Raises:
        TypeError: It cannot be called.
    """
    if not callable(predicate):
        msg = f"predicate={predicate!r} must be a function of the call"
        raise TypeError(msg)
    return When(predicate)
