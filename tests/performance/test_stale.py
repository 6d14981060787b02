"""Values past their time: served while, or because no, fresh ones can be had."""

from __future__ import annotations

import asyncio
import gc

import pytest

from tests.performance.tools import Loads, hearing, now, virtual
from tta_primitives import WorkflowContext
from tta_primitives.performance import CachePrimitive


def ctx() -> WorkflowContext:
    return WorkflowContext()


@virtual
async def test_case_68_a_stale_value_is_returned_at_once_and_refreshed() -> None:
    """No caller waits; however many come, one load runs in the background."""
    loads = Loads(seconds=5)
    cache = CachePrimitive(loads.load, ttl=10, stale_ttl=60)
    await cache.execute("k", ctx())
    await asyncio.sleep(10)
    began = now()
    assert [await cache.execute("k", ctx()) for _ in range(3)] == [1, 1, 1]
    assert now() == began
    gc.collect()  # The refresh is not held by anybody outside.
    await asyncio.sleep(5.001)
    assert (await cache.execute("k", ctx()), loads.count) == (2, 2)
    assert (cache.stats.stale, cache.stats.refreshes, cache.stats.hits) == (3, 1, 1)


@virtual
async def test_case_68_the_run_is_told_that_its_value_was_stale() -> None:
    """By path, and by an event with the age; the refresh is told as well."""
    cache = CachePrimitive(Loads(seconds=1).load, ttl=10, stale_ttl=60)
    await cache.execute("k", ctx())
    await asyncio.sleep(12)
    context = ctx()
    with hearing() as ear:
        await cache.execute("k", context)
    assert context.outcomes == {"cache": "stale"}
    assert ear.heard == [
        ("cache.refresh", {}),
        ("cache.stale", {"age": 2.0, "error": None}),
    ]
    await asyncio.sleep(1)


@virtual
async def test_case_68_a_stale_value_has_an_end() -> None:
    """`stale_ttl` seconds after its expiry a caller waits for a fresh one."""
    cache = CachePrimitive(Loads(seconds=1).load, ttl=10, stale_ttl=0.3)
    await cache.execute("k", ctx())
    await asyncio.sleep(10.3)
    assert await cache.execute("k", ctx()) == 2
    assert now() == 12.3


@virtual
async def test_case_68_the_end_is_exact_to_the_nanosecond() -> None:
    """At 0.3 s a value that was fresh until 0.1 s has been stale for all of 0.2 s."""
    cache = CachePrimitive(
        Loads(seconds=0).load, ttl=0.1, stale_ttl=0.2, stale_if_error=5
    )
    await cache.execute("k", ctx())
    await asyncio.sleep(0.3)
    assert await cache.execute("k", ctx()) == 2


@virtual
async def test_case_68_a_failed_refresh_keeps_the_value_and_is_logged_once(
    caplog,
) -> None:
    """Every stale hit tries again; the log has one line until it works again."""
    no = ValueError("no")
    loads = Loads(1, no, no, 4, no)
    cache = CachePrimitive(loads.load, ttl=10, stale_ttl=60)
    got = []
    for seconds in (10, 1, 1, 10, 1, 1):
        got.append(await cache.execute("k", ctx()))
        await asyncio.sleep(seconds)
    assert (got, loads.count) == ([1, 1, 1, 1, 4, 4], 6)
    lines = [(r.getMessage(), r.exc_info[1]) for r in caplog.records]
    assert lines == [("cache keeps a value whose refresh failed", no)] * 2
    assert cache.stats.load_errors == 4


@virtual
async def test_case_68_a_failed_refresh_is_told() -> None:
    """Observers hear each, with its error."""
    error = ValueError("no")
    cache = CachePrimitive(Loads(1, error).load, ttl=10, stale_ttl=60)
    await cache.execute("k", ctx())
    await asyncio.sleep(10)
    with hearing() as ear:
        await cache.execute("k", ctx())
        await asyncio.sleep(1)
    assert ear.heard[-1] == ("cache.refresh_failed", {"error": error})


@virtual
async def test_case_68_logged_keys_are_bounded(caplog) -> None:
    """A million failing keys do not pile up: after `max_size` the list begins anew."""
    cache = CachePrimitive(Loads(1).load, ttl=10, stale_ttl=60, max_size=2)
    for number in range(5):
        await cache.execute(number, ctx())
        cache._failing.add(number)
        await asyncio.sleep(0)
    loads = Loads(1, ValueError("no"))
    cache = CachePrimitive(loads.load, ttl=0.5, stale_ttl=60, max_size=2)
    for number in range(5):
        loads.inputs.clear()
        await cache.execute(number, ctx())
        await asyncio.sleep(1)
        await cache.execute(number, ctx())
        await asyncio.sleep(1)
    assert (len(caplog.records), len(cache._failing)) == (5, 1)


@virtual
async def test_a_caller_may_wait_for_a_refresh_and_leave_it_running() -> None:
    """Once nothing stale may be served he joins; cancelled, he does not cancel it."""
    loads = Loads(seconds=5)
    cache = CachePrimitive(loads.load, ttl=10, stale_ttl=2)
    await cache.execute("k", ctx())
    await asyncio.sleep(11)
    await cache.execute("k", ctx())
    await asyncio.sleep(2)
    caller = asyncio.create_task(cache.execute("k", ctx()))
    await asyncio.sleep(1)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await asyncio.sleep(2)
    assert (await cache.execute("k", ctx()), loads.count) == (2, 2)
    assert loads.cancelled == 0


@virtual
async def test_a_refresh_has_no_deadline() -> None:
    """The call that asked for it is answered; its deadline is not the refresh's."""
    deadlines = []

    async def load(data, context):
        deadlines.append((context.deadline, context.correlation_id))
        return data

    cache = CachePrimitive(load, ttl=10, stale_ttl=60)
    for _ in range(2):
        context = WorkflowContext("c-1", deadline=now() + 5)
        await cache.execute("k", context)
        assert context.deadline is not None
        await asyncio.sleep(10)
    assert deadlines == [(5.0, "c-1"), (None, "c-1")]


@virtual
async def test_a_refresh_that_was_invalidated_is_not_kept() -> None:
    """Nor is the stale value served any more."""
    cache = CachePrimitive(Loads(seconds=5).load, ttl=10, stale_ttl=60)
    await cache.execute("k", ctx())
    await asyncio.sleep(10)
    await cache.execute("k", ctx())
    await cache.invalidate("k")
    assert [await cache.execute("k", ctx()) for _ in range(2)] == [3, 3]


@virtual
async def test_case_69_a_stale_value_stands_in_for_a_failed_load() -> None:
    """Within the window; the run is told by path, the event has the error."""
    error = ValueError("no")
    cache = CachePrimitive(Loads(1, error, seconds=1).load, ttl=10, stale_if_error=60)
    await cache.execute("k", ctx())
    await asyncio.sleep(10)
    context = ctx()
    with hearing() as ear:
        assert await cache.execute("k", context) == 1
    assert (context.outcomes, now()) == ({"cache": "stale"}, 12.0)
    assert ear.heard == [
        ("cache.miss", {}),
        ("cache.stale", {"age": 1.0, "error": error}),
    ]


@virtual
async def test_case_69_the_window_is_measured_when_the_load_has_failed() -> None:
    """A load that took until after the window raises its own error."""
    cache = CachePrimitive(
        Loads(1, ValueError("no"), seconds=2).load, ttl=10, stale_if_error=3
    )
    await cache.execute("k", ctx())
    await asyncio.sleep(10)
    assert await cache.execute("k", ctx()) == 1
    with pytest.raises(ValueError, match="no"):
        await cache.execute("k", ctx())


@virtual
async def test_case_69_at_the_end_of_the_window_the_failure_is_raised() -> None:
    """Exactly then, also where floats would say a little less."""
    cache = CachePrimitive(
        Loads(1, ValueError("no")).load, ttl=0.1, stale_ttl=0.1, stale_if_error=0.2
    )
    await cache.execute("k", ctx())
    memory = cache._memory
    memory.entries["k"].kept_until = 9.0
    await asyncio.sleep(0.2)
    assert await cache.execute("k", ctx()) == 1
    await asyncio.sleep(0.1)
    with pytest.raises(ValueError, match="no"):
        await cache.execute("k", ctx())


@virtual
async def test_case_69_all_who_shared_the_failure_get_the_stale_value() -> None:
    """Each of them, and each run is told."""
    cache = CachePrimitive(
        Loads(["v"], ValueError("no"), seconds=1).load, ttl=10, stale_if_error=60
    )
    await cache.execute("k", ctx())
    await asyncio.sleep(10)
    contexts = [ctx() for _ in range(3)]
    values = await asyncio.gather(*(cache.execute("k", c) for c in contexts))
    assert (values, len({id(v) for v in values})) == ([["v"]] * 3, 3)
    assert [c.outcomes for c in contexts] == [{"cache": "stale"}] * 3


@virtual
async def test_case_69_a_cancelled_load_is_no_failure() -> None:
    """Cancellation passes; nothing stale is served for it."""
    cache = CachePrimitive(
        Loads(1, asyncio.CancelledError()).load, ttl=10, stale_if_error=60
    )
    await cache.execute("k", ctx())
    await asyncio.sleep(10)
    with pytest.raises(asyncio.CancelledError):
        await cache.execute("k", ctx())


@virtual
async def test_case_69_an_invalidated_value_does_not_stand_in() -> None:
    """What was invalidated while the load failed is wrong, not just old."""
    cache = CachePrimitive(
        Loads(1, ValueError("no"), seconds=2).load, ttl=10, stale_if_error=60
    )
    await cache.execute("k", ctx())
    await asyncio.sleep(10)
    caller = asyncio.create_task(cache.execute("k", ctx()))
    await asyncio.sleep(1)
    await cache.invalidate("k")
    with pytest.raises(ValueError, match="no"):
        await caller


@virtual
async def test_case_69_a_fresh_value_that_came_meanwhile_is_not_called_stale() -> None:
    """An invalidated load fails after a newer one has succeeded."""
    loads = {1: Loads("old"), 2: Loads(ValueError("no"), seconds=5), 3: Loads("new")}
    numbers = iter(loads)

    async def load(key):
        return await loads[next(numbers)].load(key)

    cache = CachePrimitive(load, ttl=10, stale_if_error=60)
    await cache.execute("k", ctx())
    await asyncio.sleep(10)
    context = ctx()
    caller = asyncio.create_task(cache.execute("k", context))
    await asyncio.sleep(1)
    await cache.invalidate("k")
    assert [await cache.execute("k", ctx()), await caller] == ["new", "new"]
    assert (context.outcomes, cache.stats.stale) == ({}, 0)


@virtual
async def test_case_69_a_remembered_failure_is_one_as_well() -> None:
    """The stale value stands in for it, without a load."""
    loads = Loads(1, ValueError("no"))
    cache = CachePrimitive(
        loads.load, ttl=1, stale_if_error=60, negative_ttl=9, negative_on=ValueError
    )
    await cache.execute("k", ctx())
    await asyncio.sleep(1)
    assert [await cache.execute("k", ctx()) for _ in range(3)] == [1, 1, 1]
    assert (loads.count, cache.stats.stale) == (2, 3)


@virtual
async def test_a_refresh_that_succeeds_ends_a_remembered_failure() -> None:
    """Once the value is gone the next call loads, and does not find the old failure."""
    loads = Loads(1, ValueError("no"), 3)
    cache = CachePrimitive(
        loads.load, ttl=1, stale_ttl=1, negative_ttl=60, negative_on=ValueError
    )
    got = []
    for seconds in (1, 0.5, 3, 0):
        got.append(await cache.execute("k", ctx()))
        await asyncio.sleep(seconds)
    assert (got, loads.count) == ([1, 1, 1, 3], 4)


@virtual
async def test_both_windows_count_from_the_expiry() -> None:
    """First the value is refreshed behind it, then it stands in for failures."""
    no = ValueError("no")
    cache = CachePrimitive(
        Loads(1, no, seconds=1).load, ttl=10, stale_ttl=5, stale_if_error=20
    )
    await cache.execute("k", ctx())
    waited = []
    for seconds in (12, 10):
        await asyncio.sleep(seconds)
        began = now()
        assert await cache.execute("k", ctx()) == 1
        waited.append(now() - began)
    assert waited == [0.0, 1.0]
    await asyncio.sleep(10)
    with pytest.raises(ValueError, match="no"):
        await cache.execute("k", ctx())


@pytest.mark.parametrize("value", ["text", ["list"]])
@virtual
async def test_a_hit_shortly_before_expiry_refreshes_early(value) -> None:
    """Nobody ever waits for a key that is asked for all the time."""
    loads = Loads(value, seconds=1)
    cache = CachePrimitive(loads.load, ttl=10, early_refresh=3)
    await cache.execute("k", ctx())
    began = now()
    for _ in range(30):
        assert await cache.execute("k", ctx()) == value
        await asyncio.sleep(1)
    assert (now() - began, loads.count, cache.stats.misses) == (30.0, 4, 1)


@virtual
async def test_before_the_early_window_nothing_is_loaded() -> None:
    """A moment earlier a hit is a hit, at the window's edge it refreshes."""
    loads = Loads()
    cache = CachePrimitive(loads.load, ttl=10, early_refresh=3)
    await cache.execute("k", ctx())
    counts = []
    for seconds in (6.999, 0.001):
        await asyncio.sleep(seconds)
        await cache.execute("k", ctx())
        await asyncio.sleep(0)
        counts.append(loads.count)
    assert counts == [1, 2]
