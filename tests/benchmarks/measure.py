"""Race several ways of doing the same thing: interleaved rounds, medians, ratios.

All that is raced is computing, so what counts is the time of the processor: what the
neighbours on a shared machine take away is not ours.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import iscoroutine
from itertools import repeat
from statistics import median
from time import process_time
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "FULL",
    "QUICK",
    "Block",
    "Pace",
    "Times",
    "awaiting",
    "calling",
    "quiet",
    "race",
]

Block: TypeAlias = Callable[[int], "float | Coroutine[Any, Any, float]"]
"""Does its thing so many times: processor seconds, or a coroutine of them."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How patiently to measure.

    Attributes:
        rounds: How often each contestant has its turn.
        turn: Seconds that a turn should take.
        processes: How often each child process is started.
        count: How many calls or entries are weighed.
    """

    rounds: int
    turn: float
    processes: int
    count: int


FULL = Pace(rounds=25, turn=0.01, processes=7, count=2000)
QUICK = Pace(rounds=3, turn=0.003, processes=1, count=100)


class Times:
    """Seconds for one call of each contestant, round by round.

    Ratios are taken within a round, so that a busy neighbour disturbs both sides.
    """

    def __init__(self, rounds: list[dict[str, float]]) -> None:
        self._rounds = rounds

    def __contains__(self, name: str) -> bool:
        return name in self._rounds[0]

    def seconds(self, name: str) -> float:
        """Return the median for one contestant."""
        return median(times[name] for times in self._rounds)

    def ratio(self, name: str, over: str) -> float:
        """Return how many times as long as another one of them takes."""
        return median(times[name] / times[over] for times in self._rounds)

    def extra(self, name: str, base: str) -> float:
        """Return the seconds that one takes beyond another."""
        return median(times[name] - times[base] for times in self._rounds)

    def extra_ratio(self, name: str, base: str, over: str) -> float:
        """Return what one takes beyond `base`, as a multiple of `over`."""
        return median(
            (times[name] - times[base]) / times[over] for times in self._rounds
        )


def calling(function: Callable[..., object], *arguments: object) -> Block:
    """Return the block of a plain call."""

    def block(count: int) -> float:
        begin = process_time()
        for _ in repeat(None, count):
            function(*arguments)
        return process_time() - begin

    return block


def awaiting(function: Callable[..., Any], *arguments: object) -> Block:
    """Return the block of `await function(*arguments)`."""
    if len(arguments) == 1:
        return lambda count: _awaiting_one(function, arguments[0], count)
    first, second = arguments
    return lambda count: _awaiting_two(function, first, second, count)


# Written out twice: unpacking arguments would be a good part of what is measured.
async def _awaiting_one(
    function: Callable[[object], Any], first: object, count: int
) -> float:
    begin = process_time()
    for _ in repeat(None, count):
        await function(first)
    return process_time() - begin


async def _awaiting_two(
    function: Callable[[object, object], Any], first: object, second: object, count: int
) -> float:
    begin = process_time()
    for _ in repeat(None, count):
        await function(first, second)
    return process_time() - begin


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the collector away from what was there before, and logs off."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        logging.disable(disabled)


def race(
    blocks: Mapping[str, Block],
    pace: Pace,
    *,
    afterwards: Callable[[], Coroutine[Any, Any, object]] | None = None,
) -> Times:
    """Let each contestant have its turn in each round, all in one event loop.

    Args:
        blocks: The contestants.
        pace: How patiently.
        afterwards: What remains to be done in that loop.
    """
    with asyncio.Runner() as runner:

        def turn(block: Block, count: int) -> float:
            taken = block(count)
            return runner.run(taken) if iscoroutine(taken) else taken

        with quiet():
            counts = {name: _count(block, turn, pace) for name, block in blocks.items()}
            rounds = [
                {
                    name: turn(block, counts[name]) / counts[name]
                    for name, block in blocks.items()
                }
                for _ in range(pace.rounds)
            ]
        if afterwards is not None:
            runner.run(afterwards())
    return Times(rounds)


def _count(block: Block, turn: Callable[[Block, int], float], pace: Pace) -> int:
    """Find out how many calls fill a turn, after a first that warms caches up."""
    turn(block, 1)
    count = 1
    while True:
        taken = turn(block, count)
        if taken >= pace.turn / 4:
            return max(1, round(count * pace.turn / taken))
        count *= 4
