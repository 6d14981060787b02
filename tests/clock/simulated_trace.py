"""Print a digest of what happens in many schedules; the same on every interpreter."""

from __future__ import annotations

import asyncio
import hashlib
import random
import sys

from pytest_tta import op
from pytest_tta.clock import VirtualClock
from pytest_tta.clock.simulation import SimulationLoop
from tests.garbage import only_new_garbage


async def busy(log: list[object]) -> None:
    """Use what keeps tasks in sets: groups, waits, limits and cancellations."""
    loop = asyncio.get_running_loop()

    async def call(label: str, delay: float) -> str:
        """Call twice, with a pause."""
        try:
            await op(label)
            await asyncio.sleep(delay)
            async with op(f"{label}.effect"):
                log.append((label, loop.time()))
        except asyncio.CancelledError:
            log.append((label, "cancelled", loop.time()))
            raise
        return label

    async def fail() -> None:
        """Take a whole group along."""
        await op("fail")
        msg = "planned"
        raise ValueError(msg)

    tasks = [asyncio.create_task(call(f"w{n}", n % 3)) for n in range(12)]
    done, pending = await asyncio.wait(tasks, timeout=1.5)
    log.extend(task.get_name() for task in done)
    for task in pending:
        task.cancel()
    try:
        async with asyncio.timeout(2), asyncio.TaskGroup() as group:
            for number in range(9):
                group.create_task(call(f"g{number}", number % 4))
            if loop.time() > 1:
                group.create_task(fail())
    except* (ValueError, TimeoutError) as errors:
        log.append([type(error).__name__ for error in errors.exceptions])
    calls = [call(f"c{number}", number) for number in range(4)]
    log.extend([await each for each in asyncio.as_completed(calls)])
    log.append(await asyncio.to_thread(str.upper, "thread"))


def digest(executions: int = 60) -> str:
    """Execute under seeded schedules of every mode, and write down everything.

    Garbage of earlier tests is collected before: the client of an SDK makes a task when
    it is, in whichever loop runs.
    """
    with only_new_garbage():
        return hashlib.sha256(repr(_seen(executions)).encode()).hexdigest()


def _seen(executions: int) -> list[object]:
    loop = SimulationLoop(VirtualClock())
    seen: list[object] = []
    for seed in range(executions):
        chance = random.Random(seed)
        loop.begin(
            lambda units, chance=chance: int(chance.random() * len(units)),
            mode=("op", "burst", "harsh")[seed % 3],
            early=seed % 2,
        )
        log: list[object] = []
        loop.run(busy(log))
        seen.append((log, loop.choices, loop.rests, loop.early_used))
    loop.close()
    return seen


if __name__ == "__main__":
    sys.stdout.write(digest())
