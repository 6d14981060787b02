"""What a simulated fleet is like, and what becomes of each delivery: lots by seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, get_args

from tta_primitives.arguments import check_count, check_number, seconds

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = [
    "ConditionOptions",
    "Conditions",
    "CrashMoment",
    "Fate",
    "check_moment",
    "conditions",
]

CrashMoment: TypeAlias = Literal["before", "inside", "after", "unacknowledged"]
"""When a worker dies: before the step, where it first waits, between the step's effect
and the reply, or between the reply and its acknowledgement."""

MOMENTS: tuple[CrashMoment, ...] = get_args(CrashMoment)

_CHANCES = ("drop", "duplicate", "reorder", "crash")


class ConditionOptions(TypedDict, total=False):
    """What may be said of a fleet; `Conditions` tells what each means."""

    seed: int | str
    workers: int
    concurrency: int
    drop: float
    duplicate: float
    reorder: float
    delay: float | timedelta | tuple[float | timedelta, float | timedelta]
    crash: float
    visibility_timeout: float | timedelta
    restart_seconds: float | timedelta
    max_deliveries: int


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a simulated fleet is like; chances are of each delivery, durations seconds.

    Attributes:
        seed: What lots are drawn from.
        workers: How many there are.
        concurrency: How many tasks each performs at a time.
        drop: How likely a delivery is lost, or a reply.
        duplicate: How likely a delivery comes twice.
        reorder: How likely it comes before what waits for that worker already.
        delay: From how long to how long it is on its way, and the reply.
        crash: How likely the worker dies of it.
        visibility_timeout: After how long what was lost is delivered again.
        restart_seconds: How long a dead worker is away.
        max_deliveries: After how many a task fails.
    """

    seed: int | str = 0
    workers: int = 3
    concurrency: int = 10
    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay: tuple[float, float] = (0.0, 0.0)
    crash: float = 0.0
    visibility_timeout: float = 30.0
    restart_seconds: float = 1.0
    max_deliveries: int = 20

    def fate(self, task: int, delivery: int, copy: int) -> Fate:
        """Draw what becomes of a delivery.

        It depends on nothing else, so that one task's fate is not another's.

        Args:
            task: Which task of the fleet it is, from 1.
            delivery: Which delivery of the task, from 1.
            copy: 0, or 1 for the second of a delivery that comes twice.
        """
        lots = random.Random(f"{self.seed}/{task}/{delivery}/{copy}")  # noqa: S311 - repeatable on purpose
        return Fate(
            is_dropped=lots.random() < self.drop,
            is_doubled=lots.random() < self.duplicate and not copy,
            is_first=lots.random() < self.reorder,
            delay=lots.uniform(*self.delay),
            worker=lots.randrange(self.workers),
            crash=lots.choice(MOMENTS) if lots.random() < self.crash else None,
            turns=lots.randint(1, 3),
            loses_reply=lots.random() < self.drop,
            reply_delay=lots.uniform(*self.delay),
        )


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one delivery.

    Attributes:
        is_dropped: It is lost.
        is_doubled: It comes twice.
        is_first: It comes before what waits already.
        delay: How long it is on its way, in seconds.
        worker: Which worker it comes to.
        crash: When that one dies of it, None if it does not.
        turns: How often the event loop turns before a crash inside.
        loses_reply: The reply is lost.
        reply_delay: How long the reply is on its way, in seconds.
    """

    is_dropped: bool
    is_doubled: bool
    is_first: bool
    delay: float
    worker: int
    crash: CrashMoment | None
    turns: int
    loses_reply: bool
    reply_delay: float


def conditions(base: Conditions, given: ConditionOptions) -> Conditions:
    """Return conditions with some replaced, each checked.

    Raises:
        TypeError: One is unknown, or of another kind.
        ValueError: One is out of range.
    """
    known = {one.name for one in fields(Conditions)}
    unknown = sorted(given.keys() - known)
    if unknown:
        msg = f"{unknown[0]}= is no condition of a fleet; there are {sorted(known)}"
        raise TypeError(msg)
    merged: dict[str, Any] = {name: getattr(base, name) for name in known}
    merged |= given
    for name in _CHANCES:
        if check_number(name, merged[name], zero=True) > 1:
            msg = f"{name}={merged[name]!r} must be a chance between 0 and 1"
            raise ValueError(msg)
    for name in ("workers", "concurrency", "max_deliveries"):
        check_count(name, merged[name], minimum=1)
    for name in ("visibility_timeout", "restart_seconds"):
        merged[name] = seconds(name, merged[name], zero=name == "restart_seconds")
    merged["delay"] = _range(merged["delay"])
    return Conditions(**merged)


def _range(delay: float | timedelta | tuple[Any, Any]) -> tuple[float, float]:
    pair = delay if isinstance(delay, tuple) else (delay, delay)
    if len(pair) != 2:  # noqa: PLR2004 - from and to
        msg = f"delay={delay!r} must be seconds, or a pair (least, most)"
        raise ValueError(msg)
    least, most = (seconds("delay", one, zero=True) for one in pair)
    if least > most:
        msg = f"delay={delay!r} must have its smaller number first"
        raise ValueError(msg)
    return least, most


def check_moment(name: str, value: object) -> CrashMoment:
    """Return the moment of a crash.

    Raises:
        ValueError: It is none.
    """
    for moment in MOMENTS:
        if value == moment:
            return moment
    msg = f"{name}={value!r} must be one of {', '.join(map(repr, MOMENTS))}"
    raise ValueError(msg)
