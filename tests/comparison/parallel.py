"""Parallel branches: the libraries, the cases, and the probes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.comparison.cases import OURS, Area, LacksError, Library, verdict
from tests.comparison.steps import Boom, outcome_of, settle
from tta_primitives import ParallelPrimitive, WorkflowContext

if TYPE_CHECKING:
    from tests.comparison.cases import Finding, Function

__all__ = ["PARALLEL"]


class Parallel(Library):
    """What branches may be asked for."""

    @classmethod
    async def run(cls, *branches: Function) -> object:
        """Run all at once, and return their results in order."""
        raise LacksError

    @classmethod
    async def bounded(cls, limit: int, *branches: Function) -> object:
        """Run so many at once."""
        raise LacksError


class Ours(Parallel):
    """ParallelPrimitive, which is what `|` makes."""

    name = OURS

    @classmethod
    async def run(cls, *branches):
        made = ParallelPrimitive(*branches)
        return list(await made.execute(None, WorkflowContext()))

    @classmethod
    async def bounded(cls, limit, *branches):
        made = ParallelPrimitive(*branches, max_concurrency=limit)
        return list(await made.execute(None, WorkflowContext()))


class TaskGroup(Parallel):
    """`asyncio.TaskGroup`."""

    name = "asyncio.TaskGroup"

    @classmethod
    async def run(cls, *branches):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(branch(None)) for branch in branches]
        return [task.result() for task in tasks]


class Gather(Parallel):
    """`asyncio.gather`."""

    name = "asyncio.gather"

    @classmethod
    async def run(cls, *branches):
        return await asyncio.gather(*[branch(None) for branch in branches])


class Langchain(Parallel):
    """`RunnableParallel`."""

    name = "langchain"
    distribution = "langchain-core"

    @classmethod
    async def run(cls, *branches):
        from langchain_core.runnables import RunnableLambda, RunnableParallel

        made = RunnableParallel(
            {
                f"b{number}": RunnableLambda(lambda value: value, afunc=branch)
                for number, branch in enumerate(branches)
            }
        )
        return list((await made.ainvoke(None)).values())

    @classmethod
    async def bounded(cls, limit, *branches):
        from langchain_core.runnables import RunnableLambda, RunnableParallel

        made = RunnableParallel(
            {
                f"b{number}": RunnableLambda(lambda value: value, afunc=branch)
                for number, branch in enumerate(branches)
            }
        )
        found = await made.ainvoke(None, {"max_concurrency": limit})
        return list(found.values())


PARALLEL = Area("Parallel branches", Ours, TaskGroup, Gather, Langchain)


class Branches:
    """Branches that note who runs, and who has ended."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.ended: list[object] = []

    def branch(self, seconds: float, outcome: object) -> Function:
        """Return a branch that takes so long, and what comes of it."""

        async def branch(value: object = None) -> object:
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                await asyncio.sleep(seconds)
            finally:
                self.running -= 1
            self.ended.append(outcome)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        return branch


@PARALLEL.case("When one fails, the others are stopped before the error comes", 87)
async def others_are_stopped(library: type[Parallel]) -> Finding:
    """Count who runs when the error comes."""
    branches = Branches()
    slow, fails = branches.branch(0.1, "slow"), branches.branch(0.01, Boom())
    await outcome_of(library.run(slow, fails, slow))
    running = branches.running
    await asyncio.sleep(0.12)
    return verdict(running == 0, f"{running} of 2 others run on")


@PARALLEL.case("The error of the one that failed is raised as it is", 87)
async def sole_errors_are_raised(library: type[Parallel]) -> Finding:
    """Look at what comes out."""
    branches, error = Branches(), Boom()
    outcome = await outcome_of(
        library.run(branches.branch(0.05, "ok"), branches.branch(0.01, error))
    )
    return verdict(outcome is error, f"{type(outcome).__name__}")


@PARALLEL.case("When two fail together, both errors are told", 87)
async def all_errors_are_told(library: type[Parallel]) -> Finding:
    """Let two branches fail in one turn of the loop."""
    branches = Branches()
    errors = [Boom("first"), Boom("second")]
    outcome = await outcome_of(library.run(*[branches.branch(0, e) for e in errors]))
    told = getattr(outcome, "exceptions", (outcome,))
    known = sum(any(error is one for one in told) for error in errors)
    return verdict(known == 2, f"{known} of 2")


@PARALLEL.case("When the caller is cancelled, nothing is left running", 87)
async def nothing_is_left(library: type[Parallel]) -> Finding:
    """Cancel the caller, and count who runs afterwards."""
    branches = Branches()
    made = library.run(branches.branch(0.1, "a"), branches.branch(0.1, "b"))
    task = asyncio.ensure_future(made)
    await asyncio.sleep(0.02)
    task.cancel()
    await outcome_of(task)
    await settle()
    return verdict(branches.running == 0, f"{branches.running} of 2 run on")


@PARALLEL.case("The results are in the order of the branches", 87)
async def results_are_in_order(library: type[Parallel]) -> Finding:
    """Let the last branch end first."""
    branches = Branches()
    made = [branches.branch(0.03 - n / 100, n) for n in range(3)]
    outcome = await outcome_of(library.run(*made))
    return verdict(outcome == [0, 1, 2], f"{outcome}")


@PARALLEL.case("Of ten branches at most three run at once, if it is said", 87)
async def branches_are_bounded(library: type[Parallel]) -> Finding:
    """Count who runs at once."""
    branches = Branches()
    await library.bounded(3, *[branches.branch(0.01, n) for n in range(10)])
    return verdict(branches.most == 3, f"{branches.most} at once")
