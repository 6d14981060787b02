"""Hedge: the libraries, the cases, and the probes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tests.comparison.cases import OURS, Area, LacksError, Library, verdict
from tests.comparison.steps import Boom, outcome_of, settle, took

if TYPE_CHECKING:
    from tests.comparison.cases import Finding, Function

__all__ = ["HEDGE"]


class Hedge(Library):
    """What a hedge may be asked for: at most three copies of a call."""

    @classmethod
    def hedge(cls, function: Function, delay: float) -> Function:
        """Begin another copy each time that this long nothing has come."""
        raise LacksError

    @classmethod
    def gated(cls, function: Function, delay: float) -> Function:
        """Hedge only the calls whose value is true."""
        raise LacksError


class Ours(Hedge):
    """HedgePrimitive."""

    name = OURS

    @classmethod
    def _made(cls, function: Any, **options: Any) -> Function:
        from tta_primitives import WorkflowContext
        from tta_primitives.recovery import HedgePrimitive

        made = HedgePrimitive(function, max_hedges=2, **options)
        return lambda value=None: made.execute(value, WorkflowContext())

    @classmethod
    def hedge(cls, function, delay):
        return cls._made(function, delay=delay)

    @classmethod
    def gated(cls, function, delay):
        return cls._made(function, delay=delay, hedge_if=bool)


class Backon(Hedge):
    """`HedgingRetrying`."""

    name = distribution = "backon"

    @classmethod
    def hedge(cls, function, delay):
        import backon

        # It knows of no delay. Each copy is retried by itself; one call is enough.
        made = backon.HedgingRetrying(
            backon.constant, max_hedge=3, max_tries=1, exception=Boom, interval=0
        )
        return lambda value=None: made.async_call(function, value)


HEDGE = Area("Hedge", Ours, Backon)


class Copies:
    """What is hedged: it notes its copies, each of which does as it is told.

    Args:
        scripts: For each copy its seconds, and what it returns or raises then.
    """

    def __init__(self, *scripts: tuple[float, object]) -> None:
        self.scripts = scripts
        self.begun = 0
        self.running = 0

    def step(self) -> Function:
        """Return it as a plain async function."""

        async def copy(value: object = None) -> object:
            seconds, outcome = self.scripts[min(self.begun, len(self.scripts) - 1)]
            self.begun += 1
            self.running += 1
            try:
                await asyncio.sleep(seconds)
            finally:
                await asyncio.sleep(0)  # As cleanup does.
                self.running -= 1
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        return copy


@HEDGE.case("The next copy begins after the delay, not before", 83)
async def copies_begin_late(library: type[Hedge]) -> Finding:
    """Look at how many copies of a quick call there are."""
    copies = Copies((0.005, "ok"))
    await library.hedge(copies.step(), 0.1)()
    return verdict(copies.begun == 1, f"{copies.begun} copies at once")


@HEDGE.case("A slow first copy is beaten by the second", 83)
async def second_copies_win(library: type[Hedge]) -> Finding:
    """Measure until the answer of the second."""
    copies = Copies((1.0, "slow"), (0.01, "quick"))
    outcome, seconds = await took(library.hedge(copies.step(), 0.02)())
    is_kept = outcome == "quick" and seconds < 0.3
    return verdict(is_kept, f"{outcome!r} after {seconds:.1f} s")


@HEDGE.case("When the answer comes, the losers have ended", 83)
async def losers_are_awaited(library: type[Hedge]) -> Finding:
    """Count who runs when the answer comes."""
    copies = Copies((1.0, "slow"), (0.01, "quick"))
    await library.hedge(copies.step(), 0.02)()
    running = copies.running
    await asyncio.sleep(0.02)
    return verdict(running == 0, f"{running} still run")


@HEDGE.case("When the caller is cancelled, nothing is left running", 84)
async def nothing_is_left(library: type[Hedge]) -> Finding:
    """Cancel the caller, and count who runs afterwards."""
    copies = Copies((0.3, "slow"))
    task = asyncio.create_task(library.hedge(copies.step(), 0.01)())
    await asyncio.sleep(0.05)
    task.cancel()
    await outcome_of(task)
    await settle()
    running, begun = copies.running, copies.begun
    return verdict(running == 0, f"{running} of {begun} run on")


@HEDGE.case("The first success wins, not the first failure", 83)
async def successes_win(library: type[Hedge]) -> Finding:
    """Let the first copy fail while the second succeeds."""
    copies = Copies((0.02, Boom()), (0.06, "ok"), (0.06, "ok"))
    outcome = await outcome_of(library.hedge(copies.step(), 0.01)())
    return verdict(outcome == "ok", f"{outcome!r}")


@HEDGE.case("A call that must not run twice runs once", 86)
async def gates_are_kept(library: type[Hedge]) -> Finding:
    """Hedge a call that is slow, and that is not to be hedged."""
    copies = Copies((0.05, "ok"))
    await library.gated(copies.step(), 0.01)(False)
    return verdict(copies.begun == 1, f"{copies.begun} copies")
