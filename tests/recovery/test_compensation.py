"""Saga: what is undone, in which order, with what, and whose error comes out."""

from __future__ import annotations

import asyncio
import pickle
from contextlib import nullcontext
from dataclasses import FrozenInstanceError

import pytest

from tests.recovery.doubles import Boom, Events, Script, chunks_of, exactly, virtual
from tta_primitives import (
    MapPrimitive,
    ParallelPrimitive,
    SequentialPrimitive,
    WorkflowContext,
    WorkflowPrimitive,
    step,
)
from tta_primitives.door import listening
from tta_primitives.errors import (
    BulkheadFullError,
    OpenWrapperError,
    PrimitiveError,
    SagaCompensationError,
    TimeoutExceededError,
)
from tta_primitives.recovery import (
    CompensationPrimitive,
    CompensationStats,
    FallbackPrimitive,
    RetryPrimitive,
    SagaPrimitive,
    SagaRecord,
    SagaStats,
    TimeoutPrimitive,
)


class Shop:
    """Steps that are done and undone, and the book of it."""

    def __init__(self):
        self.book = []
        self.records = {}

    def do(self, name, *outcomes, takes=0):
        """Return a step that goes through outcomes, at last through its own name."""
        script = Script(*(outcomes or (f"{name} done",)), takes=takes)

        async def work(value):
            self.book.append(f"begin {name}")
            output = await script(value)
            self.book.append(f"do {name}")
            return output

        return step(work, name=name)

    def undo(self, name, *outcomes, takes=0):
        """Return the compensation of the step with this name."""
        script = Script(*(outcomes or (None,)), takes=takes)

        async def work(record):
            self.book.append(f"undo {name}")
            self.records.setdefault(name, []).append(record)
            await script(record)
            self.book.append(f"undone {name}")

        return step(work, name=f"undo_{name}")

    def pair(self, name, *outcomes, takes=0):
        return self.do(name, *outcomes, takes=takes), self.undo(name)

    def compensable(self, name, *outcomes, takes=0, **options):
        return CompensationPrimitive(
            *self.pair(name, *outcomes, takes=takes), **options
        )

    @property
    def undone(self):
        """The steps that were undone, in order."""
        return [line[7:] for line in self.book if line.startswith("undone ")]


@pytest.fixture
def shop():
    """Steps to do and to undo, and the book of it."""
    return Shop()


@pytest.fixture(params=[False, True], ids=["unheard", "heard"])
def heard(request):
    """Run the test once while nobody listens, and once while somebody does."""
    with listening(observers=(Events(),)) if request.param else nullcontext():
        yield


async def run(primitive, value="in", context=None):
    return await primitive.execute(value, context or WorkflowContext())


async def failing(primitive, error, value="in", context=None):
    """Run a primitive that raises this very error."""
    with pytest.raises(type(error), match=exactly(error)) as caught:
        await run(primitive, value, context)
    assert caught.value is error


@virtual
async def test_steps_run_one_after_the_other(clock, shop):
    """Each gets what the one before returned, and nothing is undone."""
    saga = SagaPrimitive(
        [
            (lambda order: [*order, "charged"], shop.undo("charge")),
            lambda order: [*order, "checked"],
            (lambda order: [*order, "shipped"], shop.undo("ship")),
        ]
    )
    assert await run(saga, []) == ["charged", "checked", "shipped"]
    assert shop.book == []
    assert saga.stats == SagaStats(
        calls=1,
        completed=1,
        compensated=0,
        compensations=0,
        failed_compensations=0,
    )


@virtual
async def test_case_88_completed_steps_are_undone_in_reverse(clock, shop, heard):
    """Each compensation has what its step got and made; the error is the step's."""
    error = Boom("third")
    saga = SagaPrimitive(
        [
            (shop.do("a", "A", takes=1), shop.undo("a", takes=2)),
            (shop.do("b", "B", takes=1), shop.undo("b", takes=2)),
            (shop.do("c", error, takes=1), shop.undo("c")),
        ]
    )
    await failing(saga, error, "in")
    assert shop.book[-4:] == ["undo b", "undone b", "undo a", "undone a"]
    assert shop.records == {
        "a": [SagaRecord("in", "A", error)],
        "b": [SagaRecord("A", "B", error)],
    }
    assert clock.elapsed == 3 + 4
    assert saga.stats == SagaStats(1, 0, 1, 2, 0)


@virtual
async def test_case_88_inputs_and_outputs_are_the_steps_own_objects(clock, shop):
    """A compensation may look up what it needs by identity; nothing is copied."""
    given, made = {"order": 1}, ["charge"]
    saga = SagaPrimitive([(shop.do("a", made), shop.undo("a")), shop.do("b", Boom())])
    with pytest.raises(Boom, match="boom"):
        await run(saga, given)
    (record,) = shop.records["a"]
    assert record.input is given
    assert record.output is made
    assert record.completed


@virtual
async def test_a_failing_first_step_leaves_nothing_to_undo(clock, shop, events):
    """Then no compensation runs, and nothing is told of one."""
    error = Boom()
    saga = SagaPrimitive([shop.pair("a", error), shop.pair("b")])
    await failing(saga, error)
    assert (shop.undone, events.seen) == ([], [])
    assert saga.stats == SagaStats(1, 0, 0, 0, 0)


@virtual
async def test_a_step_alone_has_nothing_to_undo(clock, shop):
    """It is passed over on the way back."""
    error = Boom()
    saga = SagaPrimitive(
        [shop.pair("a"), shop.do("check"), shop.pair("b"), shop.do("c", error)]
    )
    await failing(saga, error)
    assert shop.undone == ["b", "a"]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("sees_context", [False, True])
@virtual
async def test_compensations_may_be_functions_of_several_forms(
    clock, shop, is_async, sees_context
):
    """They take the record, and the context if they ask for it, sync or async."""
    seen = []

    def plain(record):
        seen.append((record.output, None))

    def with_context(record, context):
        seen.append((record.output, context.path))

    async def plain_async(record):
        plain(record)

    async def with_context_async(record, context):
        with_context(record, context)

    forms = {
        (False, False): plain,
        (False, True): with_context,
        (True, False): plain_async,
        (True, True): with_context_async,
    }
    chosen = forms[is_async, sees_context]
    error = Boom()
    await failing(
        SagaPrimitive([(shop.do("a", "A"), chosen), shop.do("b", error)]), error
    )
    assert seen == [("A", f"saga/{chosen.__name__}" if sees_context else None)]


@virtual
async def test_a_compensation_may_retry(clock, shop):
    """Its retries count as one compensation."""
    undo_a = RetryPrimitive(shop.undo("a", Boom(), Boom(), None), jitter="none")
    error = ValueError("b")
    saga = SagaPrimitive([(shop.do("a"), undo_a), shop.do("b", error)])
    await failing(saga, error)
    assert shop.undone == ["a"]
    assert clock.elapsed == 0.5 + 1
    assert saga.stats == SagaStats(1, 0, 1, 1, 0)


@virtual
async def test_a_failing_compensation_does_not_stop_the_others(clock, shop, events):
    """All run; the errors come out as a group, the failure that began it as cause."""
    error, wrong = Boom("ship"), OSError("refund")
    saga = SagaPrimitive(
        [
            (shop.do("a"), shop.undo("a", wrong)),
            shop.pair("b"),
            (shop.do("c"), shop.undo("c", KeyError("c"))),
            shop.do("d", error),
        ]
    ).named("order")
    with pytest.raises(
        SagaCompensationError,
        match="order could not undo order/c, order/a, and is neither done nor undone",
    ) as caught:
        await run(saga)
    assert [type(e) for e in caught.value.exceptions] == [KeyError, OSError]
    assert caught.value.exceptions[1] is wrong
    assert caught.value.__cause__ is error
    assert shop.undone == ["b"]
    assert saga.stats == SagaStats(1, 0, 0, 3, 2)
    assert events.names == [
        "saga.compensating",
        "saga.compensation_failed",
        "saga.compensating",
        "saga.compensated",
        "saga.compensating",
        "saga.compensation_failed",
    ]


@virtual
async def test_a_long_list_of_failures_is_cut_short(clock, shop):
    """The message names the first ones and counts the rest; the group has them all."""
    pairs = [(shop.do(f"s{n}"), shop.undo(f"s{n}", Boom())) for n in range(9)]
    with pytest.raises(
        SagaCompensationError,
        match=r"saga could not undo saga/s8, .*, saga/s4, 4 more, and is neither",
    ) as caught:
        await run(SagaPrimitive([*pairs, shop.do("last", Boom())]))
    assert len(caught.value.exceptions) == 9


@virtual
async def test_events_name_the_step_and_the_error(clock, shop, events):
    """Observers learn what is undone, why, and how that went."""
    error, wrong = Boom("c"), Boom("undo a")
    saga = SagaPrimitive(
        [
            (shop.do("a"), shop.undo("a", wrong)),
            shop.pair("b"),
            shop.do("c", error),
        ]
    )
    with pytest.raises(SagaCompensationError, match="could not undo saga/a"):
        await run(saga)
    assert events.seen == [
        ("saga.compensating", {"step": "saga/b", "error": error}),
        ("saga.compensated", {"step": "saga/b"}),
        ("saga.compensating", {"step": "saga/a", "error": error}),
        ("saga.compensation_failed", {"step": "saga/a", "error": wrong}),
    ]


@virtual
async def test_each_compensation_is_limited(clock, shop):
    """One that hangs does not take the time of the others."""
    error = Boom()
    saga = SagaPrimitive(
        [
            (shop.do("a"), shop.undo("a", takes=9)),
            (shop.do("b"), shop.undo("b", takes=99)),
            shop.do("c", error),
        ],
        compensation_timeout=10,
    )
    with pytest.raises(SagaCompensationError, match="could not undo saga/b,") as caught:
        await run(saga)
    (late,) = caught.value.exceptions
    assert type(late) is TimeoutExceededError
    assert str(late) == "saga/undo_b took longer than 10 s"
    assert shop.undone == ["a"]
    assert clock.elapsed == 19


@virtual
async def test_all_compensations_together_may_be_limited(clock, shop):
    """What has no time left is not begun, and is told."""
    saga = SagaPrimitive(
        [
            *((shop.do(n), shop.undo(n, takes=4)) for n in "abcd"),
            shop.do("e", Boom()),
        ],
        compensation_timeout=10,
        total_compensation_timeout=10,
    )
    with pytest.raises(SagaCompensationError, match="saga/b, saga/a,") as caught:
        await run(saga)
    assert [str(e) for e in caught.value.exceptions] == [
        "saga/undo_b took longer than 2 s",
        "saga/undo_a had no time left to start",
    ]
    assert shop.undone == ["d", "c"]
    assert "undo a" not in shop.book
    assert clock.elapsed == 10


@virtual
async def test_compensations_do_not_see_the_deadline_of_the_run(clock, shop):
    """An outer limit that is over does not starve them: they have their own."""
    seen = []

    async def look(record, context):
        seen.append(context.remaining())
        await asyncio.sleep(7)

    saga = SagaPrimitive(
        [
            (shop.do("a"), RetryPrimitive(look)),
            shop.do("b", takes=60),
        ],
        compensation_timeout=20,
    )
    with pytest.raises(TimeoutExceededError, match="timeout/saga took longer than 5 s"):
        await run(TimeoutPrimitive(saga, timeout_seconds=5))
    assert seen == [20]
    assert clock.elapsed == 12
    assert asyncio.current_task().cancelling() == 0


@virtual
async def test_a_run_that_began_too_late_is_undone_all_the_same(clock, shop):
    """A deadline of the caller's that has passed is no limit to compensations."""
    error = Boom()
    saga = SagaPrimitive([(shop.do("a"), shop.undo("a", takes=3)), shop.do("b", error)])
    await failing(saga, error, context=WorkflowContext(deadline=-1))
    assert shop.undone == ["a"]


# What is not a list: compensable steps anywhere in a workflow.


@virtual
async def test_compensable_steps_of_a_chain_belong_to_the_saga(clock, shop):
    """They are undone as if they stood in its list."""
    error = Boom()
    chain = (
        shop.compensable("a", "A") >> shop.compensable("b", "B") >> shop.do("c", error)
    )
    await failing(SagaPrimitive(chain), error)
    assert shop.undone == ["b", "a"]
    assert shop.records["b"] == [SagaRecord("A", "B", error)]


@virtual
async def test_branches_are_undone_in_reverse_order_of_completion(clock, shop):
    """The branch that was done last is undone first."""
    error = Boom()
    branches = ParallelPrimitive(
        shop.compensable("slow", takes=3),
        shop.compensable("quick", takes=1),
        shop.compensable("middling", takes=2),
    )
    await failing(SagaPrimitive(branches >> shop.do("c", error)), error)
    assert shop.undone == ["slow", "middling", "quick"]


@virtual
async def test_a_branch_that_was_not_done_is_not_undone(clock, shop):
    """When one fails, the others are cancelled; what was done is undone."""
    error = Boom()
    branches = ParallelPrimitive(
        shop.compensable("done", takes=1),
        shop.compensable("cancelled", takes=9),
        shop.do("failing", error, takes=2),
    )
    await failing(SagaPrimitive(branches), error)
    assert shop.undone == ["done"]
    assert clock.elapsed == 2


@virtual
async def test_items_of_a_map_are_undone_each(clock, shop):
    """Every item that was done is undone with its own output."""
    error = Boom()

    async def book(item):
        await asyncio.sleep(item)
        return item * 10

    items = MapPrimitive(CompensationPrimitive(book, shop.undo("book")))
    await failing(SagaPrimitive(items >> shop.do("c", error)), error, [3, 1, 2])
    assert [r.output for r in shop.records["book"]] == [30, 20, 10]


@virtual
async def test_only_completed_attempts_are_undone(clock, shop):
    """Attempts that failed leave nothing to undo."""
    error = ValueError("b")
    retry = RetryPrimitive(shop.compensable("a", Boom(), Boom(), "A"), initial_delay=0)
    await failing(SagaPrimitive(retry >> shop.do("b", error)), error)
    assert shop.records["a"] == [SagaRecord("in", "A", error)]


@virtual
async def test_every_completed_execution_is_undone(clock, shop):
    """A retry around several steps repeats those that were done; each counts."""
    error = ValueError("c")
    part = RetryPrimitive(
        shop.compensable("a", "A1", "A2") >> shop.do("b", Boom(), "B"), initial_delay=0
    )
    await failing(SagaPrimitive(part >> shop.do("c", error)), error)
    assert [r.output for r in shop.records["a"]] == ["A2", "A1"]


@virtual
async def test_nothing_is_undone_twice(clock, shop):
    """A second execution of the same saga has a ledger of its own."""
    error = ValueError("b")
    saga = SagaPrimitive([shop.pair("a"), shop.do("b", error)])
    await failing(saga, error)
    await failing(saga, error)
    assert shop.undone == ["a", "a"]
    assert saga.stats == SagaStats(2, 0, 2, 2, 0)


@virtual
async def test_concurrent_executions_do_not_mix(clock, shop):
    """Of two at the same time, the one that fails undoes its own steps alone."""

    async def sometimes(value):
        await asyncio.sleep(1)
        if value == "bad":
            raise Boom
        return value

    saga = SagaPrimitive([(lambda value: value, shop.undo("a")), sometimes])
    results = await asyncio.gather(
        *(run(saga, value) for value in ("good", "bad", "fine")),
        return_exceptions=True,
    )
    assert [type(r) for r in results] == [str, Boom, str]
    assert [r.input for r in shop.records["a"]] == ["bad"]


@virtual
async def test_an_inner_saga_that_succeeded_is_undone_with_the_outer_one(clock, shop):
    """It stands in the outer ledger where it completed."""
    error = Boom()
    inner = SagaPrimitive([shop.pair("i1"), shop.pair("i2")])
    outer = SagaPrimitive(
        [shop.pair("o1"), inner, shop.pair("o2"), shop.do("x", error)]
    )
    await failing(outer, error)
    assert shop.undone == ["o2", "i2", "i1", "o1"]
    assert inner.stats == SagaStats(1, 1, 0, 2, 0)
    assert outer.stats == SagaStats(1, 0, 1, 4, 0)


@virtual
async def test_an_inner_saga_that_failed_is_undone_once(clock, shop):
    """It undoes its own steps; the outer one, if it fails as well, the rest."""
    error = Boom()
    inner = SagaPrimitive([shop.pair("i1"), shop.pair("i2", error)])
    await failing(SagaPrimitive([shop.pair("o1"), inner]), error)
    assert shop.undone == ["i1", "o1"]


@virtual
async def test_an_alternative_is_undone_before_another_is_tried(clock, shop):
    """With a saga of its own: without one it would stand when the fallback answers."""
    first = SagaPrimitive([shop.pair("a"), shop.do("b", Boom())])
    either = FallbackPrimitive(first, [shop.compensable("other")])
    assert await run(SagaPrimitive(either)) == "other done"
    assert shop.undone == ["a"]
    assert shop.book.index("undone a") < shop.book.index("begin other")
    error = ValueError()
    await failing(SagaPrimitive(either >> shop.do("c", error)), error)
    assert shop.undone == ["a", "a", "other"]


@virtual
async def test_the_compensation_of_a_whole_stands_for_those_of_its_parts(clock, shop):
    """Once the whole is done, undoing it is left to its own compensation."""
    error = Boom()
    trip = SagaPrimitive([shop.pair("flight"), shop.pair("hotel")])
    saga = SagaPrimitive([(trip, shop.undo("trip")), shop.do("pay", error)])
    await failing(saga, error)
    assert shop.undone == ["trip"]


@virtual
async def test_the_parts_are_undone_if_the_whole_was_not_done(clock, shop):
    """What completed inside a step that failed is undone with the saga."""
    error = Boom()
    trip = shop.compensable("flight") >> shop.do("hotel", error)
    saga = SagaPrimitive([shop.pair("first"), (trip, shop.undo("trip"))])
    await failing(saga, error)
    assert shop.undone == ["flight", "first"]


@virtual
async def test_compensations_that_are_sagas_are_no_part_of_the_saga(clock, shop):
    """What completes while something is undone is not undone in turn."""
    error = Boom()
    undoing = SequentialPrimitive(shop.compensable("give_back"), shop.do("tell"))
    saga = SagaPrimitive([(shop.do("a"), undoing), shop.do("b", error)])
    await failing(saga, error)
    await failing(SagaPrimitive([shop.pair("first"), saga]), error)
    assert shop.book.count("do give_back") == 2
    assert shop.undone == ["first"]


@virtual
async def test_a_function_may_execute_steps_itself(clock, shop):
    """What it awaits belongs to the saga that it runs in."""
    reserve = shop.compensable("reserve")
    error = Boom()

    async def order(value, context):
        await reserve.execute(value, context)
        raise error

    await failing(SagaPrimitive(order), error)
    assert shop.undone == ["reserve"]


@virtual
async def test_a_compensable_step_alone_is_a_saga_of_one_step(clock, shop):
    """There is nothing to undo before it, and nobody after it who could fail."""
    error = Boom()
    alone = shop.compensable("a", "A", error)
    assert await run(alone) == "A"
    await failing(alone, error)
    assert shop.undone == []
    assert alone.stats == CompensationStats(
        calls=2, completed=1, compensations=0, failed_compensations=0
    )


@virtual
async def test_steps_inside_a_compensable_step_alone_are_undone_if_it_fails(
    clock, shop
):
    """It is their saga."""
    error = Boom()
    alone = CompensationPrimitive(
        shop.compensable("a") >> shop.do("b", error), shop.undo("whole")
    )
    await failing(alone, error)
    assert shop.undone == ["a"]


@virtual
async def test_stats_of_a_compensable_step_count_its_own(clock, shop):
    """How often it was done, undone, and not undone although it should have been."""
    undo = shop.undo("a", None, Boom())
    part = CompensationPrimitive(shop.do("a"), undo)
    saga = SagaPrimitive(part >> shop.do("b", ValueError()))
    with pytest.raises(ValueError, match=r"^$"):
        await run(saga)
    with pytest.raises(SagaCompensationError, match=r"could not undo saga/.*/a"):
        await run(saga)
    assert part.stats == CompensationStats(2, 2, 2, 1)
    assert saga.stats == SagaStats(2, 0, 1, 2, 1)


# compensate_failed


@virtual
async def test_case_91_a_step_that_timed_out_is_undone_too(clock, shop):
    """Its outcome is unknown; its compensation gets its own error and no output."""
    timed = TimeoutPrimitive(shop.do("b", takes=60), timeout_seconds=5)
    saga = SagaPrimitive(
        [shop.pair("a"), (timed, shop.undo("b"))], compensate_failed=True
    )
    with pytest.raises(TimeoutExceededError, match="took longer than 5 s") as caught:
        await run(saga)
    assert shop.undone == ["b", "a"]
    assert shop.records["b"] == [
        SagaRecord("a done", None, caught.value, completed=False)
    ]
    assert shop.records["a"] == [SagaRecord("in", "a done", caught.value)]


@virtual
async def test_case_91_without_it_the_failed_step_is_not_undone(clock, shop):
    """By default a step that failed is taken for one that did nothing."""
    error = Boom()
    await failing(SagaPrimitive([shop.pair("a"), shop.pair("b", error)]), error)
    assert shop.undone == ["a"]


@virtual
async def test_a_step_that_failed_is_undone_with_its_own_error(clock, shop):
    """Not with what has ended the saga later, after another had answered."""
    first, last = Boom("first"), ValueError("last")
    either = FallbackPrimitive(shop.compensable("a", first), [shop.do("other")])
    saga = SagaPrimitive(either >> shop.do("b", last), compensate_failed=True)
    await failing(saga, last)
    assert shop.records["a"] == [SagaRecord("in", None, first, completed=False)]


@virtual
async def test_a_compensable_step_says_for_itself_whether_it_is_undone(clock, shop):
    """What it says counts more than what the saga says."""
    error = Boom()
    chain = shop.compensable("a") >> shop.compensable(
        "b", error, compensate_failed=True
    )
    await failing(SagaPrimitive(chain), error)
    assert shop.undone == ["b", "a"]
    shop.book.clear()
    chain = shop.compensable("a") >> shop.compensable(
        "b", error, compensate_failed=False
    )
    await failing(SagaPrimitive(chain, compensate_failed=True), error)
    assert shop.undone == ["a"]


@virtual
async def test_a_compensable_step_alone_may_be_undone_when_it_fails(clock, shop):
    """As a saga of one step it undoes itself."""
    error = Boom()
    await failing(shop.compensable("a", error, compensate_failed=True), error)
    assert shop.records["a"] == [SagaRecord("in", None, error, completed=False)]


@virtual
async def test_the_timeout_of_a_compensable_step_counts_more(clock, shop):
    """Its own limit, not that of the saga."""
    error = Boom()
    own = CompensationPrimitive(
        shop.do("a"), shop.undo("a", takes=9), compensation_timeout=10
    )
    await failing(
        SagaPrimitive(own >> shop.do("b", error), compensation_timeout=1), error
    )
    assert shop.undone == ["a"]


@virtual
async def test_rule_06_a_rejected_step_is_not_undone(clock, shop):
    """A rejection says that nothing was executed."""
    error = BulkheadFullError("full")
    saga = SagaPrimitive(
        [shop.pair("a"), shop.pair("b", error)], compensate_failed=True
    )
    await failing(saga, error)
    assert shop.undone == ["a"]


@virtual
async def test_rule_06_a_rejection_in_the_middle_of_a_step_counts_as_a_failure(
    clock, shop
):
    """A chain may have done something before it was rejected."""
    error = BulkheadFullError("full")
    part = shop.do("b1") >> shop.do("b2", error)
    saga = SagaPrimitive([(part, shop.undo("b"))], compensate_failed=True)
    await failing(saga, error)
    assert shop.undone == ["b"]


@virtual
async def test_rule_07_attempts_of_one_operation_are_undone_once(clock, shop):
    """They have the same idempotency key; if one was done, the others are that one."""
    error = ValueError("b")
    retried = RetryPrimitive(
        shop.compensable("a", Boom(), "A"), initial_delay=0, max_retries=2
    )
    saga = SagaPrimitive(retried >> shop.do("b", error), compensate_failed=True)
    await failing(saga, error)
    assert shop.records["a"] == [SagaRecord("in", "A", error)]


@virtual
async def test_rule_07_if_no_attempt_was_done_the_last_counts(clock, shop):
    """Three that may have worked are one operation, and are undone once."""
    errors = [Boom("1"), Boom("2"), Boom("3")]
    retried = RetryPrimitive(
        shop.compensable("a", *errors), initial_delay=0, max_retries=2
    )
    saga = SagaPrimitive(retried, compensate_failed=True)
    await failing(saga, errors[2])
    assert shop.records["a"] == [SagaRecord("in", None, errors[2], completed=False)]


@virtual
async def test_rule_07_nothing_is_undone_between_attempts(clock, shop):
    """The next attempt would find done what was just undone."""
    retried = RetryPrimitive(shop.compensable("a", Boom(), "A"), initial_delay=0)
    assert await run(SagaPrimitive(retried, compensate_failed=True)) == "A"
    assert shop.undone == []


@virtual
async def test_rule_07_items_of_a_map_are_no_attempts_of_each_other(clock, shop):
    """Each that may have worked is undone, inside a retry as well as outside."""
    for wrap in (lambda p: p, lambda p: RetryPrimitive(p, max_retries=0)):
        shop.records.clear()
        broken = MapPrimitive(
            shop.compensable("a", Boom()), return_exceptions=True, max_concurrency=1
        )
        error = ValueError("b")
        chain = wrap(broken >> shop.do("b", error))
        saga = SagaPrimitive(chain, compensate_failed=True)
        await failing(saga, error, [1, 2, 3])
        assert [r.input for r in shop.records["a"]] == [3, 2, 1]


class Bank:
    """A service that does what it has done before only once, told by the key."""

    def __init__(self):
        self.done = {}
        self.balance = 0

    async def charge(self, amount, context):
        key = context.idempotency_key
        if key not in self.done:
            self.done[key] = amount
            self.balance += amount
        return key

    async def refund(self, record, context):
        key = context.idempotency_key
        if key not in self.done:
            self.done[key] = -record.input
            self.balance -= record.input


@pytest.mark.parametrize("caller_key", [None, "order-17"])
@virtual
async def test_rule_07_a_step_that_was_undone_gets_another_key(
    clock, shop, caller_key, heard
):
    """The service knows the old one: it would not do again what was undone."""
    bank = Bank()
    order = SagaPrimitive([(bank.charge, bank.refund), shop.do("ship", Boom(), "sent")])
    context = WorkflowContext(idempotency_key=caller_key)
    retried = RetryPrimitive(order, initial_delay=0)
    assert await run(retried, 5, context) == "sent"
    assert bank.balance == 5
    assert list(bank.done.values()) == [5, -5, 5]


@virtual
async def test_rule_07_a_step_that_was_not_undone_keeps_its_key(clock, shop):
    """A retry around the saga repeats a step without compensation as the same one."""
    bank = Bank()
    order = SagaPrimitive(
        [bank.charge, shop.pair("pack"), shop.do("x", Boom(), "sent")]
    )
    assert await run(RetryPrimitive(order, initial_delay=0), 5) == "sent"
    assert bank.balance == 5


@virtual
async def test_rule_07_two_compensations_of_one_step_have_two_keys(clock, shop):
    """A step that was done twice is to be undone twice."""
    keys = []

    async def undo_a(record, context):
        keys.append(context.idempotency_key)

    part = RetryPrimitive(
        CompensationPrimitive(shop.do("a"), undo_a) >> shop.do("b", Boom(), "B"),
        initial_delay=0,
    )
    error = ValueError()
    await failing(SagaPrimitive(part >> shop.do("c", error)), error)
    assert len(set(keys)) == 2


# Streams


@virtual
async def test_a_saga_streams_its_last_step(clock, shop):
    """The chunks are those of the last step; before it all others have run."""

    async def tell(value):
        yield value
        await asyncio.sleep(1)
        yield "end"

    saga = SagaPrimitive([shop.pair("a", "A"), (tell, shop.undo("tell"))])
    assert await chunks_of(saga, "in", WorkflowContext()) == (["A", "end"], None)
    assert saga.stats == SagaStats(1, 1, 0, 0, 0)
    bare = SagaPrimitive([shop.pair("a", "A"), tell])
    assert await chunks_of(bare, "in", WorkflowContext()) == (["A", "end"], None)


@virtual
async def test_a_stream_that_breaks_is_undone(clock, shop):
    """Chunks that were passed on change nothing in that."""
    error = Boom()

    async def tell(value):
        yield 1
        raise error

    chain = shop.compensable("a") >> CompensationPrimitive(tell, shop.undo("tell"))
    saga = SagaPrimitive(chain, compensate_failed=True)
    assert await chunks_of(saga, "in", WorkflowContext()) == ([1], error)
    assert shop.undone == ["tell", "a"]


@virtual
async def test_a_streamed_step_is_undone_with_its_chunks(clock, shop):
    """They are what it has returned."""
    error = Boom()

    async def tell(value):
        yield 1
        yield 2

    class ThenFail(WorkflowPrimitive):
        async def stream(self, input_data, context):
            async for chunk in told.stream(input_data, context):
                yield chunk
            raise error

    told = CompensationPrimitive(tell, shop.undo("tell"))
    assert await chunks_of(SagaPrimitive(ThenFail()), "in", WorkflowContext()) == (
        [1, 2],
        error,
    )
    assert shop.records["tell"] == [SagaRecord("in", [1, 2], error)]
    assert told.stats == CompensationStats(1, 1, 1, 0)


@virtual
async def test_a_stream_that_is_left_is_undone_like_a_cancelled_call(clock, shop):
    """Whoever closes it waits until all is undone."""

    async def tell(value):
        yield 1
        yield 2

    undo_a = shop.undo("a", takes=3)
    saga = SagaPrimitive([(shop.do("a"), undo_a), tell])
    stream = saga.stream("in", WorkflowContext())
    assert await anext(stream) == 1
    await stream.aclose()
    assert shop.undone == ["a"]
    assert clock.elapsed == 3


@virtual
async def test_a_compensable_step_alone_streams(clock, shop):
    """Without a saga there is nobody to tell."""

    async def tell(value):
        yield 1
        yield 2

    alone = CompensationPrimitive(tell, shop.undo("tell"))
    assert await chunks_of(alone, "in", WorkflowContext()) == ([1, 2], None)
    assert alone.stats == CompensationStats(1, 1, 0, 0)


@virtual
async def test_a_saga_may_be_streamed_by_several_tasks(clock, shop):
    """Each chunk may be taken by another task: the saga is left between them."""

    async def tell(value, context):
        for number in range(3):
            yield await part.execute(number, context)

    part = shop.compensable("part")
    saga = SagaPrimitive(tell)
    stream = saga.stream("in", WorkflowContext())
    assert await anext(stream) == "part done"
    await run(shop.compensable("elsewhere"))
    assert await asyncio.create_task(anext(stream)) == "part done"
    await run(shop.compensable("elsewhere"))
    await asyncio.create_task(stream.aclose())
    assert shop.undone == ["part", "part"]


# What does not go on


@pytest.mark.parametrize("is_stream", [False, True])
@virtual
async def test_what_completes_after_its_saga_was_undone_is_undone_at_once(
    clock, shop, is_stream
):
    """A task that nobody awaited does not leave behind what nobody would undo."""
    part = shop.compensable("late", takes=5)
    tasks = []

    async def work(value, context):
        if is_stream:
            return [chunk async for chunk in part.stream(value, context)]
        return await part.execute(value, context)

    async def careless(value, context):
        tasks.append(asyncio.create_task(work(value, context)))
        await asyncio.sleep(1)
        raise Boom

    with pytest.raises(Boom, match="boom"):
        await run(SagaPrimitive(careless))
    assert shop.undone == []
    with pytest.raises(
        PrimitiveError,
        match=r"^saga/careless/compensation completed after its saga was undone, and",
    ):
        await tasks[0]
    assert shop.undone == ["late"]


@virtual
async def test_an_inner_saga_that_completes_too_late_is_undone_too(clock, shop):
    """It is the same with a whole saga."""
    inner = SagaPrimitive([shop.pair("i1", takes=2), shop.pair("i2", takes=2)])
    tasks = []

    async def careless(value, context):
        tasks.append(asyncio.create_task(inner.execute(value, context)))
        await asyncio.sleep(1)
        raise Boom

    with pytest.raises(Boom, match="boom"):
        await run(SagaPrimitive(careless))
    with pytest.raises(
        PrimitiveError, match="saga completed after its saga was undone"
    ):
        await tasks[0]
    assert shop.undone == ["i2", "i1"]


@virtual
async def test_what_begins_after_its_saga_was_undone_is_no_part_of_it(clock, shop):
    """It stands alone then."""
    part = shop.compensable("later")
    tasks = []

    async def later(value, context):
        await asyncio.sleep(9)
        return await part.execute(value, context)

    async def careless(value, context):
        tasks.append(asyncio.create_task(later(value, context)))
        raise Boom

    with pytest.raises(Boom, match="boom"):
        await run(SagaPrimitive(careless))
    assert await tasks[0] == "later done"
    assert shop.undone == []


@virtual
async def test_what_completes_after_its_saga_succeeded_stands(clock, shop):
    """Unless a saga further outside is under way, which then undoes it."""
    part = shop.compensable("late", takes=5)
    tasks = []

    async def careless(value, context):
        tasks.append(asyncio.create_task(part.execute(value, context)))
        await asyncio.sleep(1)

    assert await run(SagaPrimitive(careless)) is None
    assert await tasks[0] == "late done"
    assert shop.undone == []
    error = Boom()
    outer = SagaPrimitive([SagaPrimitive(careless), shop.do("b", error, takes=9)])
    await failing(outer, error)
    assert shop.undone == ["late"]


@virtual
async def test_case_02_the_saga_is_no_context_of_later_errors(clock, shop):
    """Nothing of a saga that was undone leaks into what comes after it."""
    with pytest.raises(Boom, match="boom"):
        await run(SagaPrimitive([shop.pair("a"), shop.do("b", Boom())]))
    with pytest.raises(ValueError, match="later") as caught:
        raise ValueError("later")
    assert caught.value.__context__ is None


@virtual
async def test_rule_11_a_saga_that_is_half_undone_is_not_repeated(clock, shop):
    """Whether to go on from there is for somebody to decide."""
    saga = SagaPrimitive(
        [(shop.do("a"), shop.undo("a", OSError())), shop.do("b", Boom())]
    )
    with pytest.raises(SagaCompensationError, match="could not undo retry/saga/a"):
        await run(RetryPrimitive(saga))
    assert saga.stats.calls == 1


# Shape


@virtual
async def test_paths_and_trees_show_steps_and_compensations(clock, shop):
    """What was given without a name is named for its step."""
    saga = SagaPrimitive(
        [
            (shop.do("charge"), shop.undo("charge")),
            (shop.do("ship"), lambda record: None),
            shop.do("note"),
        ]
    )
    assert saga.describe() == {
        "type": "SagaPrimitive",
        "name": "saga",
        "options": {
            "compensations": {"charge": "undo_charge", "ship": "compensate_ship"}
        },
        "children": [
            {"type": "StepPrimitive", "name": name, "options": {}, "children": []}
            for name in ("charge", "undo_charge", "ship", "compensate_ship", "note")
        ],
    }
    assert repr(saga) == (
        "<SagaPrimitive 'charge >> ship >> note' "
        "compensations={'charge': 'undo_charge', 'ship': 'compensate_ship'}>"
    )
    one = shop.compensable("a", compensation_timeout=5, compensate_failed=True)
    assert [child.name for child in one.children()] == ["a", "undo_a"]
    assert repr(one) == (
        "<CompensationPrimitive 'a' compensation_timeout=5.0 compensate_failed=True>"
    )
    assert repr(
        SagaPrimitive(
            one,
            compensation_timeout=1,
            compensate_failed=True,
            total_compensation_timeout=9,
        )
    ) == (
        "<SagaPrimitive 'compensation' compensation_timeout=1.0 compensate_failed=True "
        "total_compensation_timeout=9.0>"
    )


@virtual
async def test_each_step_sees_its_own_path(clock, heard):
    """Whether somebody listens or not; the second of a name is told apart."""
    seen = []

    async def act(value, context):
        seen.append(context.path)

    async def undo(record, context):
        seen.append(context.path)

    async def fail(value):
        raise Boom

    saga = SagaPrimitive([(act, undo), (act, undo), fail]).named("order")
    with pytest.raises(Boom, match="boom"):
        await run(saga)
    assert seen == ["order/act", "order/act#2", "order/undo#2", "order/undo"]
    seen.clear()
    chain = SequentialPrimitive(CompensationPrimitive(act, undo), fail)
    with pytest.raises(Boom, match="boom"):
        await run(SagaPrimitive(chain))
    assert seen == [
        "saga/sequential/compensation/act",
        "saga/sequential/compensation/undo",
    ]


@virtual
async def test_an_open_saga_wraps_the_next_operand(clock, shop):
    """It is read like a stacked decorator."""
    error = Boom()
    saga = SagaPrimitive(compensation_timeout=5) >> (
        shop.compensable("a") >> shop.do("b", error)
    )
    await failing(saga, error)
    assert shop.undone == ["a"]
    undoable = CompensationPrimitive(compensation=shop.undo("c")) >> shop.do("c")
    await failing(SagaPrimitive(undoable >> shop.do("d", error)), error)
    assert shop.undone == ["a", "c"]
    with pytest.raises(OpenWrapperError, match="wraps nothing yet"):
        await run(SagaPrimitive())
    with pytest.raises(OpenWrapperError, match="wraps nothing yet"):
        await run(CompensationPrimitive(compensation=shop.undo("c")))
    for open_one in (SagaPrimitive(), CompensationPrimitive(compensation=print)):
        with pytest.raises(OpenWrapperError, match="wraps nothing yet"):
            _ = open_one.stats


def test_rule_07_a_saga_is_idempotent_if_its_steps_are(shop):
    """Compensations do not count: they run only after a failure."""
    once = step(lambda value: value, name="once", idempotent=False)
    assert SagaPrimitive([shop.pair("a"), shop.do("b")]).idempotent
    assert not SagaPrimitive([shop.pair("a"), (once, shop.undo("b"))]).idempotent
    assert SagaPrimitive([(shop.do("a"), once)]).idempotent
    assert not CompensationPrimitive(once, shop.undo("b")).idempotent


def test_records_are_frozen_and_travel():
    """What a compensation is given can be kept, compared and pickled."""
    record = SagaRecord("in", "out", None)
    with pytest.raises(FrozenInstanceError, match="input"):
        record.input = "other"
    assert pickle.loads(pickle.dumps(record)) == record
    assert record.completed


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SagaPrimitive([]), ValueError, r"steps=\[\] must have at least one"),
        (
            lambda: SagaPrimitive((print, print)),
            TypeError,
            r"must be a list: SagaPrimitive\(\[\(step, compensation\)\]\)",
        ),
        (
            lambda: SagaPrimitive([(print, print, print)]),
            ValueError,
            r"steps\[0\]=.* must be \(step, compensation\), or a step",
        ),
        (
            lambda: SagaPrimitive([print, (print, None)]),
            TypeError,
            r"steps\[1\]: the compensation None must be a primitive or a function",
        ),
        (
            lambda: SagaPrimitive([RetryPrimitive()]),
            OpenWrapperError,
            "wraps nothing yet",
        ),
        (lambda: SagaPrimitive("x"), TypeError, "'x' cannot be a step"),
        (
            lambda: SagaPrimitive([print], compensation_timeout=0),
            ValueError,
            "compensation_timeout=0 must be a positive number of seconds",
        ),
        (
            lambda: SagaPrimitive([print], total_compensation_timeout=-1),
            ValueError,
            "total_compensation_timeout=-1 must be a positive number",
        ),
        (
            lambda: SagaPrimitive([print], compensate_failed=1),
            TypeError,
            "compensate_failed=1 must be True or False",
        ),
        (
            lambda: CompensationPrimitive(print),
            TypeError,
            "CompensationPrimitive: the compensation None must be",
        ),
        (
            lambda: CompensationPrimitive(print, print, compensation_timeout="1"),
            TypeError,
            "compensation_timeout='1' must be a positive number of seconds, not str",
        ),
        (
            lambda: CompensationPrimitive(print, print, compensate_failed="no"),
            TypeError,
            "compensate_failed='no' must be True or False",
        ),
    ],
    ids=[
        "empty",
        "tuple",
        "three",
        "none",
        "open",
        "text",
        "zero",
        "negative",
        "flag",
        "missing",
        "no number",
        "no flag",
    ],
)
def test_arguments_are_checked_when_it_is_made(make, error, message):
    """The error names the parameter, shows the value and says what is allowed."""
    with pytest.raises(error, match=message):
        make()


@virtual
async def test_a_named_saga_is_a_copy(clock, shop):
    """It stands at its own place, with the steps of the original."""
    error = Boom()
    saga = SagaPrimitive([shop.pair("a"), shop.do("b", error)])
    with pytest.raises(Boom, match="boom"):
        await run(saga.named("order"))
    assert shop.undone == ["a"]
