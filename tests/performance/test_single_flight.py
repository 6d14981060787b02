"""One load for all who ask at the same time, whoever leaves and however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading

import pytest

from tests.garbage import only_new_garbage
from tests.performance.tools import Loads, SlowStorage, hearing, now, virtual
from tta_primitives import WorkflowContext
from tta_primitives.performance import CachePrimitive


def ctx(deadline: float | None = None) -> WorkflowContext:
    return WorkflowContext(deadline=deadline)


def ask(cache, key="k", deadline=None) -> asyncio.Task:
    """Start a caller in a task of its own."""
    return asyncio.create_task(cache.execute(key, ctx(deadline)))


async def ends(tasks) -> list:
    """Wait for tasks; give results, or the types of what they raised."""
    got = await asyncio.gather(*tasks, return_exceptions=True)
    return [type(one) if isinstance(one, BaseException) else one for one in got]


def others() -> int:
    """Count the tasks beside the current one."""
    return len(asyncio.all_tasks()) - 1


@virtual
async def test_case_59_a_load_survives_the_caller_that_began_it() -> None:
    """Of five who miss at once the first is cancelled: 1 load, 4 values."""
    loads = Loads(seconds=1)
    cache = CachePrimitive(loads.load, ttl=10)
    callers = [ask(cache) for _ in range(5)]
    await asyncio.sleep(0.5)
    callers[0].cancel()
    assert await ends(callers) == [asyncio.CancelledError, 1, 1, 1, 1]
    assert (loads.count, loads.cancelled, now()) == (1, 0, 1.0)
    assert (cache.stats.loads, cache.stats.coalesced) == (1, 4)


@virtual
async def test_case_60_a_load_that_nobody_waits_for_is_cancelled() -> None:
    """The last caller sees it end before he ends himself."""
    loads = Loads(seconds=1)
    cache = CachePrimitive(loads.load, ttl=10)
    callers = [ask(cache) for _ in range(3)]
    await asyncio.sleep(0.5)
    for caller in callers:
        caller.cancel()
    assert await ends(callers) == [asyncio.CancelledError] * 3
    assert (loads.count, loads.cancelled, others()) == (1, 1, 0)


@virtual
async def test_case_60_the_last_caller_waits_for_the_cleanup_of_the_load() -> None:
    """As if he had awaited it himself; a second cancellation reaches it, too."""
    log = []

    async def load(_):
        try:
            await asyncio.sleep(9)
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(5)
            log.append(("cleaned", now()))

    caller = ask(CachePrimitive(load, ttl=10))
    await asyncio.sleep(1)
    caller.cancel()
    await asyncio.sleep(1)
    caller.cancel()
    assert await ends([caller]) == [asyncio.CancelledError]
    assert (log, now(), others()) == ([("cleaned", 2.0)], 2.0, 0)


@virtual
async def test_case_60_nobody_joins_a_load_that_is_being_cancelled() -> None:
    """Who comes while it cleans up begins a load of his own, and that one is kept."""
    values = iter("ab")

    async def load(_):
        value = next(values)
        try:
            await asyncio.sleep(2)
        except asyncio.CancelledError:
            await asyncio.sleep(10)  # It ends well, but too late to count.
        return value

    cache = CachePrimitive(load, ttl=60)
    first = ask(cache)
    await asyncio.sleep(1)
    first.cancel()
    await asyncio.sleep(1)
    second = ask(cache)
    assert await ends([first, second]) == [asyncio.CancelledError, "b"]
    assert await cache.execute("k", ctx()) == "b"


@virtual
async def test_case_66_a_value_invalidated_while_it_loads_is_not_kept() -> None:
    """Who waits gets it; who comes after the invalidation gets a newer one."""
    loads = Loads("old", "new", seconds=2)
    cache = CachePrimitive(loads.load, ttl=60)
    early = [ask(cache), ask(cache)]
    await asyncio.sleep(1)
    await cache.invalidate("k")
    late = ask(cache)
    assert await ends([*early, late]) == ["old", "old", "new"]
    assert (await cache.execute("k", ctx()), loads.count) == ("new", 2)


@pytest.mark.parametrize("how", ["clear", "tag", "tag function"])
@virtual
async def test_case_66_clearing_and_tags_reach_loads_as_well(how) -> None:
    """Until a load has ended nobody knows its tags: it may have this one."""
    tags = (lambda data, value: [value]) if how == "tag function" else ["old"]
    cache = CachePrimitive(Loads("old", "new", seconds=2).load, ttl=60, tags=tags)
    caller = ask(cache)
    await asyncio.sleep(1)
    await (cache.clear() if how == "clear" else cache.invalidate_tags("old"))
    assert [await caller, await cache.execute("k", ctx())] == ["old", "new"]


@virtual
async def test_a_tag_that_no_entry_can_have_leaves_loads_alone() -> None:
    """With fixed tags it is known beforehand."""
    cache = CachePrimitive(Loads(seconds=2).load, ttl=60, tags=["users"])
    caller = ask(cache)
    await asyncio.sleep(1)
    await cache.invalidate_tags("orders")
    assert [await caller, await cache.execute("k", ctx())] == [1, 1]


@virtual
async def test_case_66_invalidating_one_key_leaves_other_loads_alone() -> None:
    """Only the load of that key is void."""
    cache = CachePrimitive(Loads(seconds=2).load, ttl=60)
    callers = [ask(cache, "a"), ask(cache, "b")]
    await asyncio.sleep(1)
    await cache.invalidate("a")
    assert await ends(callers) == [1, 2]
    assert [await cache.execute(key, ctx()) for key in "ab"] == [3, 2]


@virtual
async def test_case_66_a_failure_of_an_invalidated_load_is_not_remembered() -> None:
    """It belongs to what was invalidated; the next call loads."""
    cache = CachePrimitive(
        Loads(ValueError("no"), 2, seconds=2).load,
        ttl=60,
        negative_ttl=60,
        negative_on=ValueError,
    )
    caller = ask(cache)
    await asyncio.sleep(1)
    await cache.invalidate("k")
    assert [*await ends([caller]), await cache.execute("k", ctx())] == [ValueError, 2]


@virtual
async def test_case_66_without_single_flight_a_load_is_void_as_well() -> None:
    """Every load of the key, however many there are."""
    cache = CachePrimitive(Loads(seconds=2).load, ttl=60, single_flight=False)
    callers = [ask(cache), ask(cache)]
    await asyncio.sleep(1)
    await cache.invalidate("k")
    assert await ends(callers) == [1, 2]
    assert cache.stats.size == 0


@virtual
async def test_case_66_a_value_invalidated_while_it_is_written_does_not_stay() -> None:
    """A storage elsewhere takes time; the invalidation in between wins."""
    storage = SlowStorage(seconds=1)
    cache = CachePrimitive(Loads().load, ttl=60, storage=storage, namespace="n")
    caller = ask(cache)
    await asyncio.sleep(1.5)
    storage.seconds = 0.1  # The deletion overtakes the writing.
    await cache.invalidate("k")
    assert (now(), await caller, now(), storage.records) == (1.6, 1, 2.1, {})


@pytest.mark.parametrize("ending", [ValueError("no"), asyncio.CancelledError()])
@virtual
async def test_case_75_a_load_that_does_not_succeed_leaves_nothing(ending) -> None:
    """No entry, no lock, no task: the next call loads at once."""
    loads = Loads(ending, 2, seconds=1)
    cache = CachePrimitive(loads.load, ttl=10)
    assert await ends([ask(cache), ask(cache)]) == [type(ending)] * 2
    assert (cache.stats.size, len(cache._flights), others()) == (0, 0, 0)
    assert await cache.execute("k", ctx()) == 2


@virtual
async def test_a_failure_is_shared_by_those_who_waited_for_it() -> None:
    """One load of a failing upstream for fifty callers, and the original error."""
    error = ValueError("no")
    loads = Loads(error, seconds=1)
    cache = CachePrimitive(loads.load, ttl=10)
    callers = [ask(cache) for _ in range(50)]
    got = await asyncio.gather(*callers, return_exceptions=True)
    assert ([one is error for one in got], loads.count) == ([True] * 50, 1)


@virtual
async def test_a_shared_error_does_not_gather_tracebacks() -> None:
    """However many callers raise it, each finds the load and himself in it, once."""
    cache = CachePrimitive(Loads(ValueError("no"), seconds=1).load, ttl=10)
    depths = []

    async def call():
        with pytest.raises(ValueError, match="no") as caught:
            await cache.execute("k", ctx())
        depths.append([entry.name for entry in caught.traceback])

    await asyncio.gather(*(call() for _ in range(5)))
    expected = ["call", "execute", "_look_up", "_miss", "_load", "load"]
    assert depths == [expected] * 5


@pytest.mark.parametrize("negative_ttl", [0, 5])
@pytest.mark.parametrize("single_flight", [True, False])
@virtual
async def test_a_failed_load_leaves_no_cyclic_garbage(
    single_flight, negative_ttl
) -> None:
    """Errors hold frames; no frame of ours holds the error."""

    async def load(_):
        raise ValueError("no")  # A new one: an error kept elsewhere is no garbage.

    cache = CachePrimitive(
        load,
        ttl=10,
        single_flight=single_flight,
        negative_ttl=negative_ttl,
        negative_on=ValueError if negative_ttl else (),
    )

    async def fail(key):
        try:
            await cache.execute(key, ctx())
        except ValueError:
            return
        raise AssertionError

    async def fail_often():
        for number in range(50):
            await fail(str(number))
            await asyncio.gather(fail("k"), fail("k"))
        await cache.clear()

    await fail_often()
    with only_new_garbage():
        await fail_often()
        assert gc.collect() == 0


@virtual
async def test_a_cancelled_load_leaves_no_unseen_exception() -> None:
    """Nobody is told of an error that nobody waits for any more."""
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _, info: told.append(info))

    async def load(_):
        try:
            await asyncio.sleep(9)
        finally:
            raise ValueError("while cleaning up")

    callers = [ask(CachePrimitive(load, ttl=10))]
    await asyncio.sleep(1)
    callers[0].cancel()
    assert await ends(callers) == [asyncio.CancelledError]
    gc.collect()
    assert told == []


@virtual
async def test_without_single_flight_every_caller_loads_in_his_own_task() -> None:
    """Cancelling one is nothing to the others."""
    loads = Loads(seconds=1)
    cache = CachePrimitive(loads.load, ttl=10, single_flight=False)
    callers = [ask(cache) for _ in range(3)]
    await asyncio.sleep(0.5)
    assert others() == 3
    callers[0].cancel()
    assert await ends(callers) == [asyncio.CancelledError, 2, 3]
    assert loads.cancelled == 1


@virtual
async def test_nobody_joins_a_load_that_has_just_ended() -> None:
    """Not even in the turn of the loop in which it ended."""
    gates = [asyncio.get_running_loop().create_future() for _ in range(2)]
    waiting = iter(gates)

    async def load(_):
        return await next(waiting)

    cache = CachePrimitive(load, ttl=0)
    early = ask(cache)
    await asyncio.sleep(1)
    gates[0].set_result("first")
    late = ask(cache)
    await asyncio.sleep(1)
    gates[1].set_result("second")
    assert await ends([early, late]) == ["first", "second"]


@virtual
async def test_a_void_load_that_ends_late_does_not_disturb_others() -> None:
    """Its key and its place have long been taken over; sharing goes on."""
    gates = {name: asyncio.get_running_loop().create_future() for name in "ab"}
    loads = Loads(seconds=9)

    async def load(key):
        return await (gates.pop(key) if key in gates else loads.load(key))

    gate = gates["a"]
    cache = CachePrimitive(load, ttl=10)
    callers = [ask(cache, "a")]
    await asyncio.sleep(1)
    await cache.invalidate("a")
    callers.append(ask(cache, "a"))
    await asyncio.sleep(1)
    callers[1].cancel()
    await asyncio.sleep(1)
    callers.append(ask(cache, "c"))
    gate.set_result("old")
    await asyncio.sleep(1)
    callers.append(ask(cache, "c"))
    assert await ends(callers) == ["old", asyncio.CancelledError, 2, 2]
    assert loads.inputs == ["a", "c"]


@virtual
async def test_different_keys_load_at_the_same_time() -> None:
    """Flights are per key."""
    loads = Loads(seconds=1)
    cache = CachePrimitive(loads.load, ttl=10)
    assert await ends([ask(cache, key) for key in "abc"]) == [1, 2, 3]
    assert now() == 1.0


def patient(loads, seconds):
    """Return a step that fails at once where a retry after `seconds` has no time."""

    async def load(data, context):
        loads.append(context.deadline)
        if context.deadline is not None and now() + seconds >= context.deadline:
            raise ValueError("no time for another attempt")
        await asyncio.sleep(seconds)
        return len(loads)

    return load


@virtual
async def test_a_load_runs_under_the_deadline_of_the_call_that_began_it() -> None:
    """A retry inside it gives up in time."""
    deadlines = []
    cache = CachePrimitive(patient(deadlines, 5), ttl=10)
    assert await ends([ask(cache, deadline=1), ask(cache, deadline=1)]) == [
        ValueError,
        ValueError,
    ]
    assert deadlines == [1]


@pytest.mark.parametrize(("short", "later"), [(1, 30), (0.1, 0.9), (1, None)])
@virtual
async def test_a_caller_with_much_more_time_is_not_bound_by_a_short_deadline(
    short, later
) -> None:
    """He loads again under his own, once for all such callers."""
    deadlines = []
    cache = CachePrimitive(patient(deadlines, 5 * short), ttl=10)
    callers = [ask(cache, deadline=d) for d in (short, later, later, short)]
    assert await ends(callers) == [ValueError, 2, 2, ValueError]
    assert deadlines == [short, later]


@virtual
async def test_callers_with_about_as_much_time_share_a_failure() -> None:
    """Fifty who arrive one after the other do not load one after the other."""
    loads = Loads(ValueError("no"), seconds=1)

    async def load(data, context):
        return await loads.load(data)

    cache = CachePrimitive(load, ttl=10)
    callers = [ask(cache, deadline=30 + number / 1000) for number in range(50)]
    assert await ends(callers) == [ValueError] * 50
    assert loads.count == 1


@virtual
async def test_where_nothing_reads_the_deadline_a_failure_is_always_shared() -> None:
    """A plain function cannot have given up because of it."""
    loads = Loads(ValueError("no"), seconds=1)
    cache = CachePrimitive(loads.load, ttl=10)
    callers = [ask(cache, deadline=d) for d in (1.5, 1000, None)]
    assert await ends(callers) == [ValueError] * 3
    assert loads.count == 1


@virtual
async def test_a_timeout_around_a_caller_ends_only_that_caller() -> None:
    """The load goes on for the others."""
    loads = Loads(seconds=2)
    cache = CachePrimitive(loads.load, ttl=10)
    impatient = asyncio.create_task(asyncio.wait_for(cache.execute("k", ctx()), 1))
    assert await ends([impatient, ask(cache)]) == [TimeoutError, 1]
    assert (loads.count, now()) == (1, 2.0)


@virtual
async def test_a_load_shares_the_state_of_the_run_that_began_it() -> None:
    """It sees the context: correlation id, state, tags."""
    seen = []

    async def load(data, context):
        seen.append((context.correlation_id, context.path))
        context.state["loaded"] = data
        return data

    context = WorkflowContext(correlation_id="c-1")
    await CachePrimitive(load, ttl=10).execute("k", context)
    assert (seen, context.state) == ([("c-1", "cache/load")], {"loaded": "k"})


@virtual
async def test_observers_see_the_load_below_the_call_that_began_it() -> None:
    """A task of its own, but the same place in the trace."""
    parents = []

    async def load(data, context):
        parents.append(context._position.parent_call.path)
        return data

    with hearing():
        await CachePrimitive(load, ttl=10).execute("k", ctx())
    assert parents == ["cache"]


def test_a_cache_outlives_its_loops() -> None:
    """One loop after the other in one process: entries stay, on the common clock."""
    loads = Loads()
    cache = CachePrimitive(loads.load, ttl=3600)
    got = [asyncio.run(cache.execute("k", ctx())) for _ in range(3)]
    assert (got, loads.count) == ([1, 1, 1], 1)


def test_a_load_of_a_loop_that_died_holds_nobody() -> None:
    """The next loop does not wait for a task that will never run again."""
    cache = CachePrimitive(Loads(seconds=3600).load, ttl=10)
    dead = asyncio.new_event_loop()
    task = dead.create_task(cache.execute("k", ctx()))
    dead.run_until_complete(asyncio.sleep(0))
    dead.run_until_complete(asyncio.sleep(0))
    assert len(cache._flights) == 1
    dead.close()

    async def begin_another():
        caller = ask(cache)
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)

    asyncio.run(begin_another())
    assert len(cache._flights) == 0
    # Told to nobody: the test left these tasks pending on purpose.
    dead.set_exception_handler(lambda *_: None)
    del task
    gc.collect()


def test_two_threads_with_loops_of_their_own_may_share_a_cache() -> None:
    """Each loads for itself at worst; nobody waits for the other's loop."""
    barrier = threading.Barrier(2)
    results = []

    async def load(data):
        await asyncio.to_thread(barrier.wait, 5)
        return data

    cache = CachePrimitive(load, ttl=3600)
    threads = [
        threading.Thread(
            target=lambda: results.append(asyncio.run(cache.execute("k", ctx())))
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert (results, cache.stats.loads, cache.stats.size) == (["k", "k"], 2, 1)
    assert asyncio.run(cache.execute("k", ctx())) == "k"


class Loop(asyncio.SelectorEventLoop):
    """A loop whose clock shows what it is told."""

    shown = 0.0

    def time(self) -> float:
        return self.shown


def run_at(shown: float, coroutine):
    """Run a coroutine on a new loop whose clock stands still."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.get_loop().shown = shown
        return runner.run(coroutine)


@pytest.mark.parametrize("value", ["text", ["list"]])
def test_an_entry_never_becomes_younger_on_another_loop(value) -> None:
    """A clock that begins again goes on from where the one before it stood."""
    loads = Loads(value)
    cache = CachePrimitive(loads.load, ttl=10)

    async def ask_and_wait(seconds):
        await cache.execute("k", ctx())
        asyncio.get_running_loop().shown += seconds
        await cache.execute("k", ctx())
        return loads.count

    assert run_at(500, ask_and_wait(4)) == 1
    assert run_at(0, ask_and_wait(5.999)) == 1
    assert run_at(0, ask_and_wait(0.001)) == 2


def test_an_entry_ages_by_what_another_loop_is_ahead() -> None:
    """Time may have passed unseen, so the later clock is believed."""
    loads = Loads()
    cache = CachePrimitive(loads.load, ttl=10)
    got = [run_at(at, cache.execute("k", ctx())) for at in (100, 109, 110)]
    assert got == [1, 1, 2]


@pytest.mark.skipif(
    not hasattr(asyncio, "eager_task_factory"), reason="eager tasks came with 3.12"
)
@virtual
async def test_eager_tasks_change_nothing() -> None:
    """A load that ends before its task is even known is still one load per call."""
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    cache = CachePrimitive(Loads().load, ttl=0)
    assert [await cache.execute("k", ctx()) for _ in range(3)] == [1, 2, 3]
    slow = CachePrimitive(Loads(seconds=1).load, ttl=10)
    assert await ends([ask(slow) for _ in range(3)]) == [1, 1, 1]
