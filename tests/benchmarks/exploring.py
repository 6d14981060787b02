"""What exploration costs: a simulated loop, its executions, a sweep of faults."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from contextlib import closing, suppress
from functools import partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any

from pytest_tta import Harness, VirtualClock, op
from pytest_tta.clock.simulation import SimulationLoop
from pytest_tta.explore.execution import Subject
from pytest_tta.explore.injected import PermanentFailure
from pytest_tta.explore.sweep import sweep
from tests.benchmarks.children import ROOT
from tests.benchmarks.measure import awaiting, calling, race
from tests.benchmarks.runtime import bare
from tests.benchmarks.table import Figures, NoReferenceError, Rows
from tta_primitives import ParallelPrimitive, WorkflowContext, step
from tta_primitives.recovery import FallbackPrimitive, RetryPrimitive, TimeoutPrimitive

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_tta.clock.choices import Unit
    from tests.benchmarks.measure import Block, Pace
    from tta_primitives import WorkflowPrimitive

__all__ = ["ROWS", "explored", "six_sites", "swept", "twice"]

ROWS = Rows("Exploration, in one process")

_KINDS = ("error", "lost-ack", "hang", "fatal")
_MICRO = 1e6
_BARE_WHERE_SET = 0.07e-6  # Seconds.
_SIMLOOP = "TTA_SIMLOOP_PYTHON"


# --- a sweep of faults ----------------------------------------------------------------


def _site(name: str) -> WorkflowPrimitive[int, int]:
    async def call(value: int) -> int:
        async with op(name):
            return value

    return step(call, name=name)


def six_sites(
    site: Callable[[str], WorkflowPrimitive[int, int]] = _site,
) -> WorkflowPrimitive[int, int]:
    """Return a workflow with six calls, of which some are guarded."""
    branches = ParallelPrimitive(
        [FallbackPrimitive(site("quote-a"), [site("quote-b")]), site("stock")]
    )
    before = RetryPrimitive(site("load"), max_retries=2) >> branches >> step(sum)
    after = RetryPrimitive(site("charge"), max_retries=2) >> site("mail")
    return TimeoutPrimitive(before >> after, timeout_seconds=10)


def swept(depth: int) -> tuple[int, float]:
    """Sweep the workflow: how many executions it took, and processor seconds."""
    workflow = six_sites()
    with Harness() as tta:

        def body() -> None:
            tta.run(workflow, 1)

        with Subject(tta, body) as subject:
            begin = process_time()
            report = sweep(subject, depth=depth, kinds=_KINDS)
            seconds = process_time() - begin
    if report.failure is not None:
        msg = f"the sweep found {report.failure.verdict}"
        raise RuntimeError(msg)
    return report.executions, seconds


def _sweeps(count: int) -> float:
    return sum(swept(1)[1] for _ in range(count))


class _Struck:
    """Calls that fail by hand, as a sweep lets them: for a loop that knows no faults.

    Attributes:
        plan: The kinds of faults, by site and number.
        counts: How often each site was called in this run.
    """

    def __init__(self) -> None:
        self.plan: dict[tuple[str, int], str] = {}
        self.counts: dict[str, int] = {}

    def site(self, name: str) -> WorkflowPrimitive[int, int]:
        """Return a call of a site."""

        async def call(value: int) -> int:
            number = self.counts[name] = self.counts.get(name, 0) + 1
            kind = self.plan.get((name, number))
            if kind == "hang":
                await asyncio.Event().wait()
            await asyncio.sleep(0)
            if kind is not None:
                raise (
                    PermanentFailure(name) if kind == "fatal" else ConnectionError(name)
                )
            return value

        return step(call, name=name)


def struck_by_a_sweep() -> list[dict[tuple[str, int], str]]:
    """Return the faults of each execution of a sweep."""
    workflow = six_sites()
    plans = []
    with Harness() as tta, Subject(tta, lambda: tta.run(workflow, 1)) as subject:
        subject.on_execution = lambda outcome: plans.append(
            {
                (one.site.rpartition("/")[2], one.number): one.kind
                for one in outcome.plan.faults
            }
        )
        sweep(subject, depth=1, kinds=_KINDS)
    return plans


@ROWS.row(
    "sweep",
    "sweep executions (6 sites, 4 faults)",
    "per CPU second where bare takes 0.07 us",
    4000,
    is_floor=True,
    because=(
        "3,570 bare calls are there for an execution, and a plain one came to 3,660: "
        "650 for the workflow itself, 580 for the operations in its steps, 1,050 for "
        "its twelve spans, watched and recorded, 980 for its five calls, each noted, "
        "chosen and open to faults, 400 to begin and to judge. One with a fault has "
        "an error to carry, copy and judge besides."
    ),
)
def sweep_executions(pace: Pace) -> Figures:
    """Race a sweep of single faults, with all that is judged, with bare calls.

    The target is a number of executions in a second; so it is asked for as what they
    come to on the machine where it was set, whose bare calls took 0.07 us.
    """
    executions, _ = swept(1)

    times = race({"bare": awaiting(bare, 1), "sweep": _sweeps}, pace)
    calls = times.ratio("sweep", "bare") / executions
    here = executions / times.seconds("sweep")
    note = (
        f"{executions} executions for single faults; here {here:,.0f}/s, "
        f"bare {times.seconds('bare') * _MICRO:.3f} us"
    )
    return Figures(1 / (calls * _BARE_WHERE_SET), note=note)


@ROWS.row(
    "sweep-looptime",
    "sweep executions (6 sites, 4 faults)",
    "x looptime runs",
    1.2,
    is_floor=True,
    because=(
        "A run of looptime makes a loop and runs the workflow; nothing is noted, "
        "chosen, recorded or judged. Of ours that is two thirds, as the row of sweeps "
        "says."
    ),
)
def sweep_over_looptime(pace: Pace) -> Figures:
    """Race the executions of a sweep with runs under looptime, with the same faults.

    Those are written into the calls by hand; nobody judges what comes of them.
    """
    import looptime

    world = _Struck()
    workflow = six_sites(world.site)
    plans = struck_by_a_sweep()

    def runs() -> None:
        for world.plan in plans:
            world.counts.clear()
            with (
                suppress(ConnectionError, PermanentFailure, TimeoutError),
                asyncio.Runner(loop_factory=looptime.new_event_loop) as runner,
            ):
                runner.run(workflow.execute(1, WorkflowContext()))

    times = race({"ours": _sweeps, "looptime": calling(runs)}, pace)
    ours, theirs = (len(plans) / times.seconds(name) for name in ("ours", "looptime"))
    note = f"ours {ours:,.0f}/s, looptime {theirs:,.0f}/s"
    return Figures(1 / times.ratio("ours", "looptime"), note=note)


# --- schedules ------------------------------------------------------------------------


def _failing_once(name: str, call: Callable[[], Any]) -> WorkflowPrimitive[int, int]:
    calls = count()

    async def work(value: int) -> int:
        await call()
        if next(calls) % 2 == 0:
            raise ConnectionError
        return value

    return RetryPrimitive(TimeoutPrimitive(step(work, name=name), timeout_seconds=5))


def twice(call: Callable[[], Any]) -> WorkflowPrimitive[int, Any]:
    """Return two retries with a limit each, whose first attempts fail."""
    return ParallelPrimitive([_failing_once("a", call), _failing_once("b", call)])


def explored(loop: SimulationLoop) -> Block:
    """Return the block of executions under a random schedule."""
    workflow = twice(op)
    chance = random.Random(7).random

    def choose(units: Sequence[Unit]) -> int:
        return int(chance() * len(units))

    def execute() -> None:
        loop.begin(choose)
        loop.run(workflow.execute(1, WorkflowContext()))

    return calling(execute)


def _on_looptime() -> Block:
    import looptime

    workflow = twice(partial(asyncio.sleep, 0))

    def execute() -> None:
        with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
            runner.run(workflow.execute(1, WorkflowContext()))

    return calling(execute)


@ROWS.row(
    "exploration",
    "exploration executions (2 x retry + timeout)",
    "x looptime",
    4,
    is_floor=True,
)
def exploration_over_looptime(pace: Pace) -> Figures:
    """Race executions under a random schedule with looptime's only one."""
    with closing(SimulationLoop(VirtualClock())) as loop:
        times = race({"ours": explored(loop), "looptime": _on_looptime()}, pace)
    ours, theirs = (1 / times.seconds(name) for name in ("ours", "looptime"))
    note = f"ours {ours:,.0f}/s, looptime {theirs:,.0f}/s"
    return Figures(1 / times.ratio("ours", "looptime"), note=note)


@ROWS.row(
    "exploration-simloop",
    "exploration executions (2 x retry + timeout)",
    "x simloop",
    1.5,
    is_floor=True,
    because=(
        "Of 842,000 instructions of an execution (cachegrind) 404,000 are the "
        "workflow on asyncio's own loop, which simloop runs as well; at 1.5 times its "
        "speed 310,000 were left for all else. 85,000 begin and end it, 78,000 log "
        "its six timers for clock.sleeps and for errors that say who waits, 46,000 "
        "keep its choices for replay and shrinking, and the rest is the loop."
    ),
)
def exploration_over_simloop(pace: Pace) -> Figures:
    """Race executions under a random schedule with simloop's, where there is one."""
    python = _python_with_simloop()
    if python is None:
        msg = (
            "simloop not installed; it needs CPython 3.12 or newer: write in "
            f"{_SIMLOOP} which interpreter has it, beside pytest"
        )
        raise NoReferenceError(msg)
    found = _answered_by(python, "tests.benchmarks.beside_simloop", pace)
    ours, theirs = found["ours"], found["simloop"]
    note = f"ours {ours:,.0f}/s, simloop {theirs:,.0f}/s, in {python.name}"
    return Figures(found["ratio"], note=note)


def _python_with_simloop() -> Path | None:
    """Find an interpreter that has simloop: this one, or one that is named."""
    if find_spec("simloop") is not None:
        return Path(sys.executable)
    named = os.environ.get(_SIMLOOP)
    return Path(named) if named else None


def _answered_by(python: Path, module: str, pace: Pace) -> dict[str, float]:
    done = subprocess.run(
        [python, "-m", module, str(pace.rounds), str(pace.turn)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        msg = f"{python} failed: {said[-1] if said else done.returncode}"
        raise RuntimeError(msg)
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


# --- the loop itself ------------------------------------------------------------------


async def _nothing() -> None:
    pass


def _empty_runs(loop: SimulationLoop) -> Block:
    def execute() -> None:
        loop.begin()
        loop.run(_nothing())

    return calling(execute)


@ROWS.row(
    "simulation", "reset and empty run of the simulation loop", "x asyncio.run", 0.1
)
def empty_run(pace: Pace) -> Figures:
    """Race an execution of nothing with a run of nothing."""
    by_asyncio = calling(lambda: asyncio.run(_nothing()))
    with closing(SimulationLoop(VirtualClock())) as loop:
        times = race({"ours": _empty_runs(loop), "run": by_asyncio}, pace)
    ours, theirs = (times.seconds(name) * _MICRO for name in ("ours", "run"))
    note = f"ours {ours:.1f} us, asyncio.run {theirs:.0f} us"
    return Figures(times.ratio("ours", "run"), note=note)
