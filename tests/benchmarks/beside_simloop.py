"""Race executions with simloop's, in an interpreter that has it.

simloop needs CPython 3.12, so that the benchmark starts this in another interpreter if
it runs in an older one itself.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import closing
from dataclasses import replace
from functools import partial
from time import process_time
from typing import TYPE_CHECKING

import simloop

from pytest_tta import VirtualClock
from pytest_tta.clock.simulation import SimulationLoop
from tests.benchmarks.exploring import explored, twice
from tests.benchmarks.measure import FULL, race
from tta_primitives import WorkflowContext

if TYPE_CHECKING:
    from tests.benchmarks.measure import Block

__all__ = ["main"]


def _on_simloop() -> Block:
    workflow = twice(partial(asyncio.sleep, 0))

    async def execute() -> None:
        await workflow.execute(1, WorkflowContext())

    def block(count: int) -> float:
        begin = process_time()
        report = simloop.explore(execute, seeds=range(count))
        if report is not None:
            raise RuntimeError(str(report))
        return process_time() - begin

    return block


def main(rounds: int, turn: float) -> None:
    """Race, and print what was found.

    Args:
        rounds: How often each has its turn.
        turn: Seconds that a turn should take.
    """
    pace = replace(FULL, rounds=rounds, turn=turn)
    with closing(SimulationLoop(VirtualClock())) as loop:
        times = race({"ours": explored(loop), "simloop": _on_simloop()}, pace)
    found = {name: 1 / times.seconds(name) for name in ("ours", "simloop")}
    print(json.dumps({**found, "ratio": 1 / times.ratio("ours", "simloop")}))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
