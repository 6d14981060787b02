"""Random workflows with random faults, and what a plain reading says of each.

A leaf is a pure function of its input and of the time at which it starts, so that the
oracle needs no tasks and no loop: it computes when each node ends and how.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from functools import reduce
from random import Random
from typing import Any

from tta_primitives import (
    ConditionalPrimitive,
    MapPrimitive,
    ParallelPrimitive,
    step,
)
from tta_primitives.door import Observer
from tta_primitives.errors import FallbackExhaustedError
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import FallbackPrimitive, RetryPrimitive, TimeoutPrimitive

CLEANUP = 0.25
# The clock counts in nanoseconds; the oracle adds up seconds.
INSTANT = 1e-6
HANG = math.inf


class Outage(Exception):
    """A failure that may pass."""


class Bug(TypeError):
    """A failure that will not."""


def now():
    return asyncio.get_running_loop().time()


def text(value) -> str:
    """Return what a step makes of its input, collected exceptions among it."""
    return str(plain(value))


def turn(value) -> bool:
    """Return what a condition answers: any value has an answer of its own."""
    return zlib.crc32(text(value).encode()) % 2 == 0


@dataclass
class Failed:
    """How the oracle sees an error: kind, leaves, and whether a retry gave it up."""

    kind: str
    leaves: list[Failed] = field(default_factory=list)
    is_exhausted: bool = False

    def any_exhausted(self) -> bool:
        return self.is_exhausted or any(one.any_exhausted() for one in self.leaves)

    def kinds(self) -> list[str]:
        if not self.leaves:
            return [self.kind]
        return sorted(kind for one in self.leaves for kind in one.kinds())

    def is_bug(self) -> bool:
        """Tell whether it, or a leaf of it, is a programming error."""
        return "Bug" in self.kinds()

    def shape(self):
        if not self.leaves:
            return self.kind
        return self.kind, sorted(map(repr, (one.shape() for one in self.leaves)))


def shape_of(error: BaseException):
    """Return an error in the oracle's words."""
    if isinstance(error, BaseExceptionGroup):
        return type(error).__name__, sorted(
            map(repr, (shape_of(leaf) for leaf in error.exceptions))
        )
    return type(error).__name__


def plain(output):
    """Return an output with collected exceptions in the oracle's words.

    Their texts differ: paths are complete only while somebody listens.
    """
    if isinstance(output, (list, tuple)):
        return type(output)(map(plain, output))
    return shape_of(output) if isinstance(output, BaseException) else output


# What a node makes of an input: when it ends, what comes out, and what caches have
# kept since, each as (time, cache, input, output).
Reading = tuple[float, Any, list[tuple[float, int, str, Any]]]


def until(end: float, kept: list) -> list:
    """Return what was kept before a node was cancelled."""
    return [one for one in kept if one[0] <= end]


@dataclass
class Leaf:
    """A step: takes its time, and fails if it starts during an outage."""

    number: int
    takes: float
    outage: tuple[float, float]
    error: type[Exception]
    manner: str
    sees_context: bool
    log: list

    def build(self):
        async def work(value):
            self.log.append((self.number, now(), None, None))
            return await self.run(value)

        async def work_with_context(value, context):
            key = context.idempotency_key
            self.log.append((self.number, now(), context.path, key))
            return await self.run(value)

        chosen = work_with_context if self.sees_context else work
        return step(chosen, name=f"leaf{self.number}")

    async def run(self, value):
        begun = now()
        try:
            if self.takes:
                await asyncio.sleep(self.takes)
        except asyncio.CancelledError:
            await self.leave()
            raise
        if self.fails_at(begun):
            raise self.error(self.number)
        return self.output(value)

    async def leave(self):
        """Clean up as this leaf does."""
        if self.manner == "slow":
            await asyncio.sleep(CLEANUP)
        elif self.manner == "disguised":
            raise OSError("connection lost")

    def fails_at(self, time) -> bool:
        return self.outage[0] <= time < self.outage[1]

    def output(self, value) -> str:
        return f"{text(value)}.{self.number}"

    def read(self, value, time, deadline, kept) -> Reading:
        end = time + self.takes
        if self.fails_at(time):
            return end, Failed(self.error.__name__), []
        return end, self.output(value), []


@dataclass
class Chain:
    """`a >> b`."""

    nodes: list

    def build(self):
        return reduce(lambda a, b: a >> b, [node.build() for node in self.nodes])

    def read(self, value, time, deadline, kept) -> Reading:
        new: list = []
        for node in self.nodes:
            time, value, more = node.read(value, time, deadline, kept + new)
            new += more
            if time == HANG or isinstance(value, Failed):
                break
        return time, value, new


def joined(readings: list[Reading]) -> Reading:
    """Return what a group of tasks makes of its members' readings."""
    ends = [end for end, out, _ in readings if isinstance(out, Failed) or end == HANG]
    end = min(ends, default=max((end for end, _, _ in readings), default=0))
    new = [one for _, _, kept in readings for one in until(end, kept)]
    failed = [
        out
        for at, out, _ in readings
        if isinstance(out, Failed) and abs(at - end) < INSTANT
    ]
    if not failed:
        return end, [out for _, out, _ in readings], new
    if len(failed) == 1:
        return end, failed[0], new
    return end, Failed("ExceptionGroup", failed), new


@dataclass
class Branches:
    """`a | b`."""

    nodes: list
    options: dict

    def build(self):
        return ParallelPrimitive(*[node.build() for node in self.nodes], **self.options)

    def read(self, value, time, deadline, kept) -> Reading:
        end, out, new = joined(
            [node.read(value, time, deadline, kept) for node in self.nodes]
        )
        return end, tuple(out) if isinstance(out, list) else out, new


@dataclass
class Items:
    """A map over items that are made of the input."""

    node: Any
    count: int
    at_a_time: int
    options: dict

    def items(self, value):
        return [f"{text(value)}/{index}" for index in range(self.count)]

    def build(self):
        every = MapPrimitive(
            self.node.build(), max_concurrency=self.at_a_time, **self.options
        )
        return step(self.items, name="split") >> every

    def read(self, value, time, deadline, kept) -> Reading:
        free = [time] * min(self.at_a_time, self.count)
        readings: list[Reading] = []
        over = HANG
        for item in self.items(value):
            start = heapq.heappop(free)
            if start >= over:
                break
            reading = self.node.read(item, start, deadline, kept)
            readings.append(reading)
            heapq.heappush(free, reading[0])
            if isinstance(reading[1], Failed):
                over = min(over, reading[0])
        return joined(readings)


@dataclass
class Limit:
    """A timeout."""

    node: Any
    seconds: float

    def build(self):
        return TimeoutPrimitive(self.node.build(), timeout_seconds=self.seconds)

    def read(self, value, time, deadline, kept) -> Reading:
        return limited(self.node, value, time, (deadline, time + self.seconds), kept)


def limited(node, value, time, limits, kept) -> Reading:
    """Return what a limit makes of a node: at one instant an outer one wins."""
    deadline, own = limits
    mine = min(own, deadline)
    end, out, new = node.read(value, time, mine, kept)
    if end < mine:
        return end, out, new
    if mine == deadline:
        return HANG, None, until(mine, new)
    return mine, Failed("TimeoutExceededError"), until(mine, new)


@dataclass
class Again:
    """A retry without jitter."""

    node: Any
    max_retries: int
    delay: float
    attempt_timeout: float | None
    max_elapsed: float | None

    def build(self):
        return RetryPrimitive(
            self.node.build(),
            max_retries=self.max_retries,
            initial_delay=self.delay,
            jitter="none",
            attempt_timeout=self.attempt_timeout,
            max_elapsed=self.max_elapsed,
        )

    def read(self, value, time, deadline, kept) -> Reading:
        new: list = []
        last = HANG if self.max_elapsed is None else time + self.max_elapsed
        for number in range(1, self.max_retries + 2):
            own = HANG if self.attempt_timeout is None else time + self.attempt_timeout
            time, out, more = limited(
                self.node, value, time, (deadline, min(own, last)), kept + new
            )
            new += more
            if time == HANG or not isinstance(out, Failed):
                return time, out, new
            if out.any_exhausted() or out.is_bug():
                break
            delay = min(30.0, self.delay * 2 ** (number - 1))
            if number > self.max_retries or time + delay >= min(deadline, last):
                out.is_exhausted = self.max_retries > 0
                break
            time += delay
        return time, out, new


@dataclass
class Instead:
    """A fallback."""

    nodes: list

    def build(self):
        primary, *others = [node.build() for node in self.nodes]
        return FallbackPrimitive(primary, others)

    def read(self, value, time, deadline, kept) -> Reading:
        new: list = []
        failed = []
        for node in self.nodes:
            time, out, more = node.read(value, time, deadline, kept + new)
            new += more
            if time == HANG or not isinstance(out, Failed) or out.is_bug():
                return time, out, new
            failed.append(out)
        return time, Failed(FallbackExhaustedError.__name__, failed), new


@dataclass
class Kept:
    """A cache."""

    node: Any
    number: int
    ttl: float

    def build(self):
        return CachePrimitive(self.node.build(), ttl=self.ttl)

    def read(self, value, time, deadline, kept) -> Reading:
        for at, number, text, out in kept:
            mine = (number, text) == (self.number, repr(value))
            if mine and at <= time < at + self.ttl:
                return time, out, []
        end, out, new = self.node.read(value, time, deadline, kept)
        if end != HANG and not isinstance(out, Failed):
            new = [*new, (end, self.number, repr(value), out)]
        return end, out, new


@dataclass
class Either:
    """A condition."""

    yes: Any
    no: Any

    def build(self):
        return ConditionalPrimitive(turn, self.yes.build(), self.no.build())

    def read(self, value, time, deadline, kept) -> Reading:
        node = self.yes if turn(value) else self.no
        return node.read(value, time, deadline, kept)


class Maker:
    """Makes random trees; equal seeds make equal trees.

    Args:
        seed: Of all choices.
        is_exact: Whether leaves end at once when they are cancelled, and no option is
            used that the oracle does not know.
        is_alone: Whether all happens in one task, and no errors are kept as outcomes.
    """

    def __init__(self, seed: int, *, is_exact: bool, is_alone: bool = False) -> None:
        self.is_alone = is_alone
        self.rng = Random(seed)
        self.is_exact = is_exact
        self.log: list[tuple] = []
        self.count = 0

    def seconds(self, most: float) -> float:
        # Odd microseconds, so that hardly two things happen at one instant.
        return self.rng.randrange(1, round(most * 1e6)) / 1e6

    def tree(self, depth: int = 4):
        if depth == 0 or self.rng.random() < 0.1:
            return self.leaf()
        makers = [self.chain, self.limit, self.again, self.again, self.either]
        if not self.is_alone:
            makers += [self.branches, self.items, self.instead, self.kept]
        return self.rng.choice(makers)(depth - 1)

    def number(self) -> int:
        self.count += 1
        return self.count

    def leaf(self) -> Leaf:
        begin = self.rng.choice([0, self.seconds(10)])
        manners = ["plain"] if self.is_exact else ["plain", "slow", "disguised"]
        return Leaf(
            self.number(),
            takes=self.seconds(self.rng.choice([1, 10])),
            outage=(begin, begin + self.seconds(20) * self.rng.choice([0, 1, 1, 9])),
            error=self.rng.choice([Outage, Outage, Outage, Bug]),
            manner=self.rng.choice(manners),
            sees_context=self.rng.random() < 0.5,
            log=self.log,
        )

    def trees(self, depth: int, most: int) -> list:
        return [self.tree(depth) for _ in range(self.rng.randint(2, most))]

    def chain(self, depth):
        return Chain(self.trees(depth, 3))

    def branches(self, depth):
        nodes = self.trees(depth, 3)
        options: list[dict] = [{}]
        if not self.is_exact:
            options += [{"return_exceptions": True}, {"min_success": 1}]
            options += [{"max_concurrency": 1}]
        return Branches(nodes, self.rng.choice(options))

    def items(self, depth):
        options: list[dict] = [{}]
        if not self.is_exact:
            options += [{"return_exceptions": True}, {"ordered": False}]
        return Items(
            self.tree(depth),
            self.rng.randint(1, 4),
            self.rng.randint(1, 3),
            self.rng.choice(options),
        )

    def limit(self, depth):
        return Limit(self.tree(depth), self.seconds(30))

    def again(self, depth):
        return Again(
            self.tree(depth),
            max_retries=self.rng.randint(0, 3),
            delay=self.seconds(3),
            attempt_timeout=self.rng.choice([None, None, self.seconds(10)]),
            max_elapsed=self.rng.choice([None, None, self.seconds(40)]),
        )

    def instead(self, depth):
        return Instead(self.trees(depth, 3))

    def kept(self, depth):
        return Kept(self.tree(depth), self.number(), self.seconds(60))

    def either(self, depth):
        return Either(self.tree(depth), self.tree(depth))


class Ledger(Observer):
    """Checks that calls open and close in order, and how long limits took."""

    def __init__(self) -> None:
        self.open: dict[int, Any] = {}
        self.begun: dict[int, float] = {}
        self.attempts: dict[int, int] = {}
        self.faults: list[str] = []

    def started(self, call) -> None:
        self.open[id(call)] = call
        self.begun[id(call)] = now()
        parent = call.parent_call
        if parent is not None and id(parent) not in self.open:
            self.faults.append(f"{call.path} began after its parent had ended")

    def event(self, call, name, detail) -> None:
        if id(call) not in self.open:
            self.faults.append(f"{name} was told of {call.path}, which had ended")
        if name == "retry.attempt":
            self.attempts[id(call)] = self.attempts.get(id(call), 0) + 1
            if self.attempts[id(call)] > call.primitive.max_retries + 1:
                self.faults.append(f"{call.path} made too many attempts")

    def finished(self, call) -> None:
        if self.open.pop(id(call), None) is None:
            self.faults.append(f"{call.path} ended twice")
        if call.status == "running":
            self.faults.append(f"{call.path} ended as running")
        if any(call is other.parent_call for other in self.open.values()):
            self.faults.append(f"{call.path} ended before a child of it")
        took = now() - self.begun.pop(id(call))
        self.attempts.pop(id(call), None)
        limit = call.primitive.options().get("timeout_seconds")
        if limit is not None and took > limit + CLEANUP + 1e-6:
            self.faults.append(f"{call.path} took {took} s of {limit}")


async def outcome_of(workflow, value, context, cancel_at: float = HANG):
    """Return how an execution in a task of its own ends, and when."""
    task = asyncio.create_task(workflow.execute(value, context))
    if cancel_at != HANG:
        asyncio.get_running_loop().call_at(cancel_at, task.cancel)
    with suppress(BaseException):
        await asyncio.wait([task])
    if task.cancelled():
        return "cancelled", now()
    error = task.exception()
    if error is None:
        return ("ok", repr(plain(task.result()))), now()
    return ("failed", shape_of(error)), now()
