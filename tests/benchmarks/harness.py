"""What virtual time costs: jumps, clocks, walls, examples of properties."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from time import process_time
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_tta import FaultPlan, Harness, VirtualClock
from pytest_tta.properties import attempts_bounded, fault_plans
from tests.benchmarks.children import answers, middle
from tests.benchmarks.measure import FULL, calling, race
from tests.benchmarks.runtime import bare
from tests.benchmarks.table import Figures, Rows, measured
from tta_primitives import WorkflowContext, chance
from tta_primitives.recovery import RetryPrimitive

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.measure import Block, Pace

__all__ = ["DAY", "ROWS", "a_day_of_backoff"]

ROWS = Rows("Harness, in one process")

DAY = 24 * 3600.0
_MICRO = 1e6
_EXAMPLES = 100
_FEW = 3


# --- jumps -------------------------------------------------------------------


async def _sleeps(sleep: Callable[[float], Any], count: int) -> None:
    for _ in range(count):
        await sleep(0.1)


def _our_jumps(count: int) -> float:
    begin = process_time()
    VirtualClock(max_jumps=None).run(_sleeps(asyncio.sleep, count))
    return process_time() - begin


def _trio_jumps() -> Block:
    import trio
    import trio.testing

    def block(count: int) -> float:
        clock = trio.testing.MockClock(autojump_threshold=0)
        begin = process_time()
        trio.run(_sleeps, trio.sleep, count, clock=clock)
        return process_time() - begin

    return block


def _looptime_jumps() -> Block:
    import looptime

    def block(count: int) -> float:
        begin = process_time()
        with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
            runner.run(_sleeps(asyncio.sleep, count))
        return process_time() - begin

    return block


def _others(makers: dict[str, Callable[[], Block]]) -> dict[str, Block | None]:
    found: dict[str, Block | None] = {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except ImportError:
            found[name] = None
    return found


def _jumps(over: str, make: Callable[[], Block], pace: Pace) -> Figures:
    # Long turns: making the loop must not count.
    patient = replace(pace, turn=5 * pace.turn)
    times = race({"ours": _our_jumps, over: make()}, patient)
    ours, theirs = (1 / times.seconds(name) for name in ("ours", over))
    note = f"ours {ours:,.0f}/s, {over} {theirs:,.0f}/s"
    return Figures(1 / times.ratio("ours", over), note=note)


@ROWS.row("jumps-trio", "virtual jumps, logged", "x trio autojump", 2, is_floor=True)
def jumps_trio(pace: Pace) -> Figures:
    """Race sleeps of a tenth of a second with trio's own clock."""
    return _jumps("trio", _trio_jumps, pace)


@ROWS.row("jumps-looptime", "virtual jumps, logged", "x looptime", 10, is_floor=True)
def jumps_looptime(pace: Pace) -> Figures:
    """Race sleeps of a tenth of a second with looptime."""
    return _jumps("looptime", _looptime_jumps, pace)


def a_day_of_backoff(seed: int) -> list[float]:
    """Return the delays of a day of retries of a step that is down.

    The policy is the default one, but for the number of retries.
    """

    async def down(_value: object) -> None:
        msg = "down"
        raise ConnectionError(msg)

    retry = RetryPrimitive(down, max_retries=None, max_elapsed=DAY)

    async def run() -> None:
        with suppress(ConnectionError):
            await retry.execute(1, WorkflowContext())

    clock = VirtualClock(max_jumps=None)
    with chance.seeded(seed):
        clock.run(run())
    return [row[2] for row in clock.timeline.rows]


@ROWS.row("backoff-day", "24 h of backoff at the default policy", "x bare jumps", 3)
def backoff_day(pace: Pace) -> Figures:
    """Race a day of retries with as many sleeps that nobody decided on."""
    retries = len(a_day_of_backoff(7))

    def day(count: int) -> float:
        begin = process_time()
        for _ in range(count):
            a_day_of_backoff(7)
        return process_time() - begin

    def jumps(count: int) -> float:
        return sum(_our_jumps(retries) for _ in range(count))

    times = race({"day": day, "jumps": jumps}, pace)
    milliseconds = times.seconds("day") * 1e3
    note = f"{retries} retries in {milliseconds:.0f} ms"
    return Figures(times.ratio("day", "jumps"), note=note)


# --- clocks ------------------------------------------------------------------


def _plain_runner(count: int) -> float:
    begin = process_time()
    for _ in range(count):
        with asyncio.Runner() as runner:
            runner.run(asyncio.sleep(0))
    return process_time() - begin


def _clocked(count: int) -> float:
    begin = process_time()
    for _ in range(count):
        VirtualClock().run(asyncio.sleep(1))
    return process_time() - begin


def _with_looptime() -> Block:
    import looptime

    def block(count: int) -> float:
        begin = process_time()
        for _ in range(count):
            with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
                runner.run(asyncio.sleep(1))
        return process_time() - begin

    return block


def _with_trio() -> Block:
    import trio
    import trio.testing

    def block(count: int) -> float:
        begin = process_time()
        for _ in range(count):
            trio.run(trio.sleep, 1, clock=trio.testing.MockClock(autojump_threshold=0))
        return process_time() - begin

    return block


def _with_time_machine() -> Block:
    import time_machine

    def block(count: int) -> float:
        begin = process_time()
        for _ in range(count):
            with time_machine.travel(0, tick=False):
                pass
        return process_time() - begin

    return block


def _with_freezegun() -> Block:
    import freezegun

    def block(count: int) -> float:
        begin = process_time()
        for _ in range(count):
            with freezegun.freeze_time("2000-01-01"):
                pass
        return process_time() - begin

    return block


# 40 us beyond a Runner that took 84 us where the target was set.
@ROWS.row("clock", "clock and loop of a test", "x plain Runner", 1.48)
def clock_over_runner(pace: Pace) -> Figures:
    """Race a clock's own run of one sleep with a runner's of none."""
    others = _others({"trio": _with_trio, "looptime": _with_looptime})
    there = {name: block for name, block in others.items() if block is not None}
    times = race({"runner": _plain_runner, "ours": _clocked, **there}, pace)
    theirs = {
        name: times.ratio(name, "runner") if name in times else None for name in others
    }
    runner, extra = times.seconds("runner"), times.extra("ours", "runner")
    note = f"Runner {runner * _MICRO:.0f} us, ours {extra * _MICRO:.0f} us more"
    return Figures(times.ratio("ours", "runner"), theirs, note)


def _entering(*, wall: bool) -> Block:
    def block(count: int) -> float:
        clocks = [VirtualClock(wall=wall) for _ in range(count)]
        begin = process_time()
        for clock in clocks:
            with clock:
                pass
        return process_time() - begin

    return block


@ROWS.row("wall", "wall clock per test", "us", 20)
def wall_per_test(pace: Pace) -> Figures:
    """Race clocks that show the wall with clocks that do not."""
    others = _others({"time-machine": _with_time_machine, "freezegun": _with_freezegun})
    there = {name: block for name, block in others.items() if block is not None}
    ours = {"with": _entering(wall=True), "without": _entering(wall=False)}
    times = race({**ours, **there}, pace)
    theirs = {
        name: times.seconds(name) * _MICRO if name in times else None for name in others
    }
    note = f"enter and exit in all {times.seconds('with') * _MICRO:.1f} us"
    return Figures(times.extra("with", "without") * _MICRO, theirs, note)


# --- properties --------------------------------------------------------------

_profile = settings(
    max_examples=_EXAMPLES, database=None, deadline=None, derandomize=True
)
_guarded = RetryPrimitive(bare, max_retries=3).named("llm")


@_profile
@given(st.integers())
def _floor(_number: int) -> None:
    pass


@_profile
@given(fault_plans(paths=["llm", "llm/bare"]))
def _examples(plan: FaultPlan) -> None:
    with Harness(faults=plan) as tta:
        with suppress(Exception):  # That is what the faults are for.
            tta.run(_guarded, 1)
        attempts_bounded(tta.trace, _guarded)


_IN_A_SESSION = """
import json
from tests.benchmarks.harness import property_times
from tests.benchmarks.measure import {pace}
print(json.dumps(property_times({pace})))
"""


def property_times(pace: Pace) -> dict[str, float]:
    """Race examples that run a workflow with examples that do nothing.

    Returns:
        The ratio, and microseconds for an example of each.
    """
    blocks = {"floor": calling(_floor), "ours": calling(_examples)}
    times = race(blocks, pace)
    each = {name: times.seconds(name) / _EXAMPLES * _MICRO for name in blocks}
    return {"ratio": times.ratio("ours", "floor"), **each}


@ROWS.row("properties", "property examples with a retry and a fault plan", "x floor", 3)
def properties(pace: Pace) -> Figures:
    """Race them where properties are tested: in a process that runs tests alone.

    What the rows before this one have left, such as tasks, has a price of its own.
    """
    code = _IN_A_SESSION.format(pace="FULL" if pace == FULL else "QUICK")
    few = replace(pace, processes=min(pace.processes, _FEW))
    found = answers({"race": code}, few)["race"]
    floor, ours, ratio = (
        measured(middle(found, name), f"{name} of a property")
        for name in ("floor", "ours", "ratio")
    )
    note = f"floor {floor:.0f} us, ours {ours:.0f} us an example"
    return Figures(ratio, note=note)
