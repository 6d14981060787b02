"""Random workflows under random faults and cancellations, beside a simple oracle."""

from __future__ import annotations

import asyncio
import gc
from contextlib import nullcontext, suppress
from functools import partial

import pytest

from pytest_tta.clock.clock import VirtualClock
from tests.core.soak import CLEANUP, HANG, INSTANT, Failed, Ledger, Maker, outcome_of
from tests.garbage import only_new_garbage
from tta_primitives import WorkflowContext
from tta_primitives.chance import seeded
from tta_primitives.door import listening

approx = partial(pytest.approx, abs=INSTANT)


def run(seed, *, is_exact, cancel_at=HANG, is_heard=True):
    """Run one random workflow; return how and when it ended, and what leaves saw."""
    maker = Maker(seed, is_exact=is_exact)
    workflow = maker.tree().build()
    ledger = Ledger()
    complaints = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, detail: complaints.append(detail))
        context = WorkflowContext(deadline=None)
        hearing = listening(observers=(ledger,)) if is_heard else nullcontext()
        with hearing, seeded(seed):
            ended = await outcome_of(workflow, "x", context, cancel_at)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert left == set(), "tasks were left running"
        assert (context.deadline, context.path) == (None, "")
        assert context.idempotency_key is None
        return ended

    ended = VirtualClock().run(main())
    gc.collect(0)  # An error that nobody saw, or a coroutine left, complains now.
    assert complaints == []
    assert ledger.faults == []
    assert ledger.open == {}
    return ended, maker.log


def expected(seed):
    """Return what the oracle says of the workflow of a seed."""
    maker = Maker(seed, is_exact=True)
    end, out, _ = maker.tree().read("x", 0.0, HANG, [])
    how = ("failed", out.shape()) if isinstance(out, Failed) else ("ok", repr(out))
    return how, end


def check_against_the_oracle(seed):
    """Ends as the oracle says, heard or not, and at once when it is cancelled."""
    how, end = expected(seed)
    heard, log = run(seed, is_exact=True)
    assert heard == (how, approx(end)), f"{seed=}"
    quiet, quiet_log = run(seed, is_exact=True, is_heard=False)
    assert quiet == heard, f"{seed=}"
    assert quiet_log == log, f"{seed=}"
    if end > 0.1:
        early, _ = run(seed, is_exact=True, cancel_at=end * 0.7)
        assert early == ("cancelled", approx(end * 0.7)), f"{seed=}"


def check_the_rough(seed):
    """Leaves clean up slowly or disguise cancellations; a caller leaves at any time."""
    (how, end), log = run(seed, is_exact=False)
    assert run(seed, is_exact=False) == ((how, end), log)
    assert run(seed, is_exact=False, is_heard=False) == ((how, end), log)
    for share in (0.2, 0.6):
        at = end * share
        (early, ended), _ = run(seed, is_exact=False, cancel_at=at)
        assert early[0] != "ok", f"{seed=} {share=}"
        assert ended <= at + CLEANUP + INSTANT, f"{seed=} {share=}"


def test_case_92_random_workflows_do_what_a_plain_reading_says() -> None:
    """Outputs, errors and times are the oracle's, heard or not, and time after time."""
    for seed in range(150):
        check_against_the_oracle(seed)


def test_random_workflows_end_soon_when_they_are_cancelled() -> None:
    """Nothing stays behind and limits hold, however badly steps take an end."""
    for seed in range(60):
        check_the_rough(seed)


def test_case_06_random_retries_and_limits_leave_no_cyclic_garbage() -> None:
    """However one task fails and is timed out, the collector finds nothing."""
    for seed in range(60):
        maker = Maker(seed, is_exact=True, is_alone=True)
        workflow = maker.tree().build()
        assert VirtualClock().run(garbage_of(workflow)) == 0, f"{seed=}"


async def garbage_of(workflow):
    """Return how many objects an execution left in cycles."""

    async def execute():
        with suppress(Exception):
            await workflow.execute("x", WorkflowContext())
        await asyncio.sleep(0)

    await execute()  # What is made once is made now.
    with only_new_garbage():
        await execute()
        return gc.collect()


@pytest.mark.long
@pytest.mark.parametrize("part", range(10))
def test_thousands_of_random_workflows(part) -> None:
    """What 200 seeds do not find, 20 000 may."""
    for seed in range(1000 + part * 1000, 2000 + part * 1000):
        check_against_the_oracle(seed)
        check_the_rough(seed)
