"""What caches, sagas, breakers and limits promise holds, and its breach is noticed."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from pytest_tta import Harness
from pytest_tta.properties import (
    at_most_once,
    compensated_in_reverse,
    nothing_left_running,
    permits_returned,
    probes_bounded,
    single_flight,
    ttl_kept,
)
from tests.properties.test_machines import (
    LeaksOnCancel,
    NoSingleFlight,
    StaleHit,
    TwoProbes,
)
from tta_primitives import step
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import (
    BulkheadPrimitive,
    CircuitBreakerPrimitive,
    CompensationPrimitive,
    RateLimitPrimitive,
    SagaPrimitive,
)


@step
async def slow(value):
    """Answer in a second."""
    await asyncio.sleep(1)
    return value


class Flaky:
    """Fails so many times, and then answers in a second."""

    def __init__(self, failures):
        self.failures = failures

    async def __call__(self, value):
        """Fail at once, or answer."""
        if self.failures:
            self.failures -= 1
            msg = "down"
            raise ConnectionError(msg)
        await asyncio.sleep(1)
        return value


def ran(*workflows, pause=0.0, together=1):
    """Run workflows one after the other and return what was recorded."""
    with Harness() as tta:

        async def once(workflow):
            """Call several times at once, then let time pass."""
            calls = [workflow.execute("in", _context()) for _ in range(together)]
            await asyncio.gather(*calls, return_exceptions=True)
            await asyncio.sleep(pause)

        async def main():
            """Run all of them in one loop."""
            for workflow in workflows:
                await once(workflow)

        tta.clock.run(main())
        return tta.trace


def _context():
    from tta_primitives import WorkflowContext

    return WorkflowContext()


def test_effects_of_different_keys_are_fine():
    """Nothing was done twice."""
    at_most_once(["a", "b"])
    at_most_once([("a", 1), ("b", 1)], key=lambda charge: charge[0])


def test_an_effect_that_came_twice_is_noticed():
    """With its key, and how often."""
    charges = [("a", 1), ("b", 1), ("a", 2)]
    with pytest.raises(AssertionError, match="done more than once: 'a' 2 times"):
        at_most_once(charges, key=lambda charge: charge[0])


def test_what_has_ended_is_not_left_running():
    """However it has ended."""
    nothing_left_running(ran(slow, step(Flaky(1))))


def test_what_is_left_running_is_noticed():
    """With where it began."""
    with Harness() as tta:

        async def main():
            """Leave a call alone."""
            task = asyncio.ensure_future(slow.execute("in", _context()))
            await asyncio.sleep(0.5)
            with pytest.raises(AssertionError, match=r"slow@1 began at 0 s and never"):
                nothing_left_running(tta.trace)
            await task

        tta.clock.run(main())


@pytest.mark.parametrize(
    "limit",
    [
        BulkheadPrimitive(slow, max_concurrency=1, max_queue=1),
        RateLimitPrimitive(slow, rate=1),
        CircuitBreakerPrimitive(slow),
    ],
    ids=lambda limit: limit.name,
)
def test_permits_of_ours_are_returned(limit):
    """Nobody holds anything when all have ended."""
    ran(limit, together=3)
    permits_returned(limit)


def test_a_slot_that_is_held_is_noticed():
    """Also one that is held for nobody."""
    bulkhead = LeaksOnCancel(slow, max_concurrency=2)
    with Harness() as tta:

        async def main():
            """Cancel a call."""
            task = asyncio.ensure_future(bulkhead.execute("in", _context()))
            await asyncio.sleep(0.5)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

        tta.clock.run(main())
    with pytest.raises(AssertionError, match=r"has not got back 1 slots, and nothing"):
        permits_returned(bulkhead)


def test_without_permits_nothing_can_be_decided():
    """What cannot be decided fails."""
    with pytest.raises(AssertionError, match="slow has no bulkhead, rate limit or"):
        permits_returned(slow)


@pytest.mark.parametrize("most", [1, 2])
def test_probes_of_ours_are_bounded(most):
    """So many at a time, one after the other if there is but one."""
    breaker = CircuitBreakerPrimitive(
        step(Flaky(1)),
        failure_threshold=1,
        half_open_max_calls=most,
        success_threshold=3,
    )
    trace = ran(*[breaker] * 4, together=3, pause=30)
    probes_bounded(trace)
    assert breaker.state == "closed"


def test_a_second_probe_is_noticed():
    """With the breaker that allows but one."""
    breaker = TwoProbes(step(Flaky(1)), failure_threshold=1, recovery_timeout=30)
    trace = ran(breaker, breaker, together=2, pause=30)
    with pytest.raises(
        AssertionError, match=r"is one of 2 probes at a time, and <TwoPr"
    ):
        probes_bounded(trace)


def test_without_a_probe_nothing_can_be_decided():
    """What cannot be decided fails."""
    with pytest.raises(AssertionError, match="no circuit breaker was half-open"):
        probes_bounded(ran(CircuitBreakerPrimitive(slow)))


async def undo(record):
    """Undo in half a second."""
    await asyncio.sleep(0.5)


def saga(kind=SagaPrimitive):
    """Return a saga whose third step fails."""
    first = CompensationPrimitive(slow.named("first"), compensation=undo)
    second = CompensationPrimitive(slow.named("second"), compensation=undo)
    return kind(first >> second >> step(Flaky(1)))


def test_sagas_of_ours_undo_in_reverse():
    """The last step that was completed first."""
    compensated_in_reverse(ran(saga()))


def test_what_is_undone_out_of_turn_is_noticed(monkeypatch):
    """With the two steps."""
    from tta_primitives.recovery import compensation_ledger

    due = compensation_ledger.Ledger.due
    monkeypatch.setattr(compensation_ledger.Ledger, "due", lambda one: due(one)[::-1])
    with pytest.raises(
        AssertionError,
        match=r"undid 'saga/.*/first' before 'saga/.*/second', which had ended later",
    ):
        compensated_in_reverse(ran(saga()))


def test_without_a_compensation_nothing_can_be_decided():
    """What cannot be decided fails."""
    with pytest.raises(AssertionError, match="nothing was undone"):
        compensated_in_reverse(ran(slow))


@pytest.mark.parametrize(
    "options", [{}, {"single_flight": False}, {"key_fn": str.upper}], ids=str
)
def test_caches_of_ours_keep_their_promises(options):
    """One load for all who ask at once, and none older than the ttl."""
    cache = CachePrimitive(slow, ttl=5, **options)
    trace = ran(*[cache] * 4, pause=3, together=2)
    single_flight(trace)
    ttl_kept(trace)


def test_a_second_load_is_noticed():
    """With both executions."""
    trace = ran(NoSingleFlight(slow, ttl=5), together=2)
    with pytest.raises(AssertionError, match=r"/slow@2 loaded what .*slow@1 was"):
        single_flight(trace)


def test_a_stale_hit_is_noticed():
    """With its age, and what is allowed."""
    cache = StaleHit(slow, ttl=5)
    trace = ran(cache, cache, pause=6)
    with pytest.raises(
        AssertionError,
        match=r"@2 returned what was 6 s old, and <StaleHit .* allows 5 s",
    ):
        ttl_kept(trace)


def test_stale_windows_count():
    """What may be stale for a while is older than the ttl."""
    cache = CachePrimitive(slow, ttl=5, stale_ttl=4)
    ttl_kept(ran(cache, cache, pause=8))


@pytest.mark.parametrize("check", [single_flight, ttl_kept])
def test_keys_that_need_the_context_cannot_be_decided(check):
    """What cannot be decided fails."""
    cache = CachePrimitive(slow, ttl=5, key_fn=lambda value, context: value)
    with pytest.raises(AssertionError, match="no cache ran whose keys are known"):
        check(ran(cache))
