"""Runs on a journal: what is recorded, what is replayed, and what a crash costs."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from contextlib import suppress
from decimal import Decimal

import pytest

from tests.recovery.doubles import virtual
from tta_primitives import (
    ConditionalPrimitive,
    MapPrimitive,
    RouterPrimitive,
    WorkflowContext,
    WorkflowPrimitive,
    step,
)
from tta_primitives.chance import new_id, rng
from tta_primitives.distributed import InlineEngine, remote
from tta_primitives.durable import (
    Halted,
    JournalError,
    MemoryJournal,
    OneStep,
    Run,
    SimulatedCrash,
    StepFailedError,
    known_errors,
    resume_everywhere,
    run_durably,
)
from tta_primitives.errors import CircuitOpenError, TimeoutExceededError
from tta_primitives.recovery import (
    CircuitBreakerPrimitive,
    CompensationPrimitive,
    FallbackPrimitive,
    HedgePrimitive,
    RetryPrimitive,
    SagaPrimitive,
    TimeoutPrimitive,
)


class Effects:
    """A world outside of the process, in which each step leaves a trace."""

    def __init__(self):
        self.log = []

    def step(self, name, *, takes=0.0, does=None):
        """Return a step that notes its name, takes its time and then does something."""

        @step(name=name)
        async def body(value, context):
            self.log.append(name)
            await asyncio.sleep(takes)
            return value if does is None else does(value)

        return body

    def flaky(self, name, failures):
        """Return a step whose first executions fail."""

        def fail(value):
            if self.log.count(name) <= failures:
                raise ConnectionError(name)
            return value

        return self.step(name, does=fail)

    def failing(self, name, error):
        """Return a step that always fails."""

        def fail(_value):
            raise error

        return self.step(name, does=fail)


@pytest.fixture
def effects():
    """The world of one test."""
    return Effects()


def context():
    """Return a context with the same ids each time, as a resume has it."""
    made = WorkflowContext("correlation", idempotency_key="order-17")
    made.run_id = "run-17"
    return made


async def crashed(workflow, value, moment, journal=None):
    """Run a workflow until it crashes, and return its journal."""
    journal = journal or MemoryJournal()
    journal.crash_at = moment
    with pytest.raises(SimulatedCrash, match=f"moment {moment}"):
        await run_durably(workflow, value, context(), journal=journal)
    journal.crash_at = None
    return journal


@virtual
async def test_a_completed_step_is_not_executed_again(clock, effects):
    """A crash after the record of a step costs nothing, one before it that step."""
    workflow = effects.step("a") >> effects.step("b") >> effects.step("c")
    journal = await crashed(workflow, 1, 4)
    assert await run_durably(workflow, 1, context(), journal=journal) == 1
    assert effects.log == ["a", "b", "c"]
    effects.log.clear()
    journal = await crashed(workflow, 1, 3)
    await run_durably(workflow, 1, context(), journal=journal)
    assert effects.log == ["a", "b", "b", "c"]


@virtual
async def test_a_finished_run_is_only_read(clock, effects):
    """The same journal again gives the result, and executes nothing."""
    workflow = effects.step("a", does=lambda x: (x, b"\x00", Decimal("1.10")))
    journal = MemoryJournal()
    first = await run_durably(workflow, 1, journal=journal)
    assert first == (1, b"\x00", Decimal("1.10"))
    assert await run_durably(workflow, 1, journal=journal) == first
    assert effects.log == ["a"]


@virtual
async def test_parallel_steps_find_their_records_whatever_came_first(clock, effects):
    """Records are found by path: steps that ran in another order get their own."""
    slow, quick = effects.step("slow", takes=2), effects.step("quick", takes=1)
    workflow = (slow >> (lambda x: x + 1)) | (quick >> (lambda x: x + 2))
    for moment in range(1, 9):
        effects.log.clear()
        journal = await crashed(workflow, 0, moment)
        recorded = {key.rpartition("/")[2] for key in journal.records}
        effects.log.clear()
        assert await run_durably(workflow, 0, context(), journal=journal) == (1, 2)
        assert recorded.isdisjoint(effects.log)


@virtual
async def test_items_of_a_map_find_their_records(clock, effects):
    """Each item has a record of its own, also if later items were done first."""
    takes = {0: 3, 1: 1, 2: 2, 3: 0}

    @step
    async def fetch(item):
        effects.log.append(item)
        await asyncio.sleep(takes[item])
        return item * 10

    workflow = MapPrimitive(fetch >> (lambda x: x + 1), max_concurrency=3)
    for moment in range(1, 17):
        journal = await crashed(workflow, [0, 1, 2, 3], moment)
        done = sum(key.endswith("fetch") for key in journal.records)
        effects.log.clear()
        result = await run_durably(workflow, [0, 1, 2, 3], context(), journal=journal)
        assert result == [1, 11, 21, 31]
        assert len(effects.log) == 4 - done


@virtual
async def test_branches_are_taken_again_as_they_were(clock, effects):
    """What a condition or a router decides by comes out of the journal."""
    flips = iter([True, False, False, False])
    toss = effects.step("toss", does=lambda _: next(flips))
    workflow = toss >> ConditionalPrimitive(
        lambda heads: heads,
        RouterPrimitive({"x": effects.step("heads")}, router_fn=lambda _: "x"),
        effects.step("tails"),
    )
    journal = await crashed(workflow, None, 2)
    assert await run_durably(workflow, None, context(), journal=journal) is True
    assert effects.log == ["toss", "heads"]


@virtual
async def test_attempts_are_counted_across_a_crash(clock, effects):
    """A retry goes on with the attempt at which it was, with the same key."""
    keys = []

    @step
    async def pay(value, context):
        keys.append(context.idempotency_key)
        if len(keys) < 4:
            raise ConnectionError(len(keys))
        return value

    workflow = RetryPrimitive(pay, max_retries=3, initial_delay=10.0, jitter="none")
    for moment in range(1, 9):
        keys.clear()
        journal = await crashed(workflow, 7, moment)
        assert await run_durably(workflow, 7, context(), journal=journal) == 7
        assert len(set(keys)) == 1
        assert len(keys) == 4 + (moment == 7)


@virtual
async def test_a_settled_retry_is_not_waited_for_again(clock, effects):
    """Once a retry has succeeded, a resume takes its outcome without its pauses."""
    retry = RetryPrimitive(effects.flaky("pay", 2), initial_delay=60.0, jitter="none")
    workflow = retry >> effects.step("ship")
    journal = await crashed(workflow, 1, 8)
    began = asyncio.get_running_loop().time()
    assert await run_durably(workflow, 1, context(), journal=journal) == 1
    assert asyncio.get_running_loop().time() == began
    assert effects.log == ["pay", "pay", "pay", "ship"]


@virtual
async def test_a_fallback_stays_with_the_alternative_that_it_took(clock, effects):
    """A circuit that is closed after the crash does not bring the primary back."""
    primary = CircuitBreakerPrimitive(effects.step("primary"))
    fallback = FallbackPrimitive(primary, fallbacks=[effects.step("spare")])
    workflow = fallback >> effects.step("end")
    for moment in range(2, 9):
        effects.log.clear()
        await primary.isolate()
        journal = await crashed(workflow, 1, moment)
        await primary.close()
        assert await run_durably(workflow, 1, context(), journal=journal) == 1
        assert set(effects.log) == {"spare", "end"}


class Twice(WorkflowPrimitive):
    """Executes a primitive twice, one execution after the other."""

    def __init__(self, primitive):
        self.primitive = primitive

    async def execute(self, input_data, context):
        """Return what the second execution returned."""
        first = await self.primitive.execute(input_data, context)
        return await self.primitive.execute(first, context)


@virtual
async def test_a_retry_that_is_skipped_is_counted_all_the_same(clock):
    """The next execution of it has the key that it would have had without a crash."""
    keys = []

    @step
    async def pay(value, context):
        keys.append(context.idempotency_key)
        if keys.count(keys[-1]) == 1:
            raise ConnectionError
        return value

    workflow = Twice(RetryPrimitive(pay, max_retries=1))
    await run_durably(workflow, 1, context(), journal=MemoryJournal())
    first, second = keys[0], keys[-1]
    assert keys == [first, first, second, second]
    keys.clear()
    journal = await crashed(workflow, 1, 6)
    assert await run_durably(workflow, 1, context(), journal=journal) == 1
    assert keys == [first, first, second, second]


@virtual
async def test_a_time_limit_that_was_up_is_up_after_a_resume(clock, effects):
    """What was given up is not begun again, and costs no second wait."""
    slow = TimeoutPrimitive(effects.step("slow", takes=60), timeout_seconds=30)
    workflow = FallbackPrimitive(
        slow, fallbacks=[effects.step("spare")]
    ) >> effects.step("end")
    journal = await crashed(workflow, 1, 4)
    began = asyncio.get_running_loop().time()
    assert await run_durably(workflow, 1, context(), journal=journal) == 1
    assert asyncio.get_running_loop().time() == began
    assert effects.log == ["slow", "spare", "end"]


@virtual
async def test_the_loser_of_a_race_is_not_begun_again(clock, effects):
    """A hedge is recorded with the answer that has won."""
    hedge = HedgePrimitive(effects.step("ask", takes=5), delay=1.0)
    workflow = hedge >> effects.step("end")
    journal = await crashed(workflow, 1, 4)
    effects.log.clear()
    assert await run_durably(workflow, 1, context(), journal=journal) == 1
    assert effects.log == ["end"]


@virtual
async def test_state_that_steps_have_changed_is_there_after_a_resume(clock, effects):
    """What was set, changed inside and removed comes back; live objects do not."""

    @step
    async def note(value, context):
        context.state["seen"] = [value]
        context.state["user"]["n"] = 2
        del context.state["old"]
        return value

    @step
    async def read(value, context):
        return context.state

    first = context()
    first.state |= {"old": 1, "user": {"n": 1}}
    workflow = note >> read
    journal = MemoryJournal(crash_at=2)
    with pytest.raises(SimulatedCrash, match="moment 2"):
        await run_durably(workflow, 5, first, journal=journal)
    journal.crash_at = None
    again = context()
    again.state |= {"old": 1, "user": {"n": 1}}
    expected = {"seen": [5], "user": {"n": 2}}
    assert await run_durably(workflow, 5, again, journal=journal) == expected


@virtual
async def test_steps_draw_the_same_chance_and_ids_again(clock):
    """An interrupted step that is executed again makes the same id."""
    drawn = []

    @step
    async def make(value, context):
        drawn.append((new_id(), rng().random()))
        return value

    workflow = make.named("a") >> make.named("b")
    journal = await crashed(workflow, 1, 3)
    await run_durably(workflow, 1, context(), journal=journal)
    assert len(drawn) == 3
    assert drawn[1] == drawn[2] != drawn[0]


@virtual
async def test_each_step_has_an_idempotency_key_of_its_own(clock):
    """Two effects of one order never share a key; a resume keeps them."""
    keys = {}

    @step
    async def effect(value, context):
        keys.setdefault(context.path, []).append(context.idempotency_key)
        return value

    workflow = (
        effect.named("a")
        >> MapPrimitive(effect.named("b"))
        >> OneStep(effect.named("c") >> effect.named("d"))
    )
    for moment in (1, 3, 5, 7):
        journal = await crashed(workflow, [1, 2], moment)
        await run_durably(workflow, [1, 2], context(), journal=journal)
    found = [key for several in keys.values() for key in set(several)]
    assert len(found) == len(set(found)) == 5


class Broken(Exception):
    """An error of the user's, with an attribute."""

    def __init__(self, code, *, hint):
        super().__init__(f"broken {code}")
        self.hint = hint


@virtual
async def test_a_recorded_error_is_raised_as_what_it_was(clock, effects):
    """Its type, its arguments and its attributes come back; nothing is executed."""
    workflow = effects.failing("a", Broken(7, hint={"x": (1,)}))
    journal = MemoryJournal()
    for _ in range(2):
        with pytest.raises(Broken, match="broken 7") as caught:
            await run_durably(workflow, 1, journal=journal)
        assert caught.value.hint == {"x": (1,)}
    assert effects.log == ["a"]


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "no such file", "a.txt"),
        CircuitOpenError("open", retry_after=3.0),
        TimeoutExceededError("late", timeout_seconds=2.0),
        ExceptionGroup("two", [ValueError(1), KeyError("k")]),
    ],
    ids=lambda error: type(error).__name__,
)
@virtual
async def test_errors_of_many_kinds_survive(error, clock, effects):
    """Builtin ones, ours and groups come back equal in all that they show."""
    journal = MemoryJournal()
    workflow = effects.failing("a", error)
    for _ in range(2):
        with pytest.raises(type(error), match=r".") as caught:
            await run_durably(workflow, 1, journal=journal)
        assert (str(caught.value), vars(caught.value)) == (str(error), vars(error))


@virtual
async def test_an_error_of_an_unknown_type_says_what_it_was(clock):
    """Nothing is imported for a record: an unknown type becomes a StepFailedError."""
    record = {
        "error": {
            "$error": {
                "type": "gone.module:Lost",
                "message": "m",
                "args": ["m"],
                "attributes": {},
            }
        }
    }
    journal = MemoryJournal()
    journal.records["a"] = json.dumps(record)
    with pytest.raises(StepFailedError, match=r"gone\.module:Lost: m"):
        await run_durably(step(lambda x: x, name="a"), 1, journal=journal)


def test_only_exceptions_can_be_known_errors():
    """Whatever else is refused at once."""
    with pytest.raises(TypeError, match="takes exception classes, not <class 'int'>"):
        known_errors(int)


@pytest.mark.parametrize("planted", ["", "[]", "{}", "gASVKAAAAAAAAACM", '"x"'])
@virtual
async def test_what_is_no_record_is_refused(planted, clock):
    """A record that somebody else has written is an error, and never executed."""
    journal = MemoryJournal()
    journal.records["a"] = planted
    with pytest.raises(JournalError, match="the record of a is not what"):
        await run_durably(step(lambda x: x, name="a"), 1, journal=journal)


@virtual
async def test_an_output_that_no_journal_can_keep_is_an_error(clock, effects):
    """It names the step and the type, and is recorded: the step is not repeated."""
    workflow = effects.step("a", does=lambda _: {"x": [object()]})
    journal = MemoryJournal()
    for _ in range(2):
        with pytest.raises(TypeError, match="output of a holds a object"):
            await run_durably(workflow, 1, journal=journal)
    assert effects.log == ["a"]


@virtual
async def test_values_come_back_as_what_they_are(clock):
    """Also in the first execution, so that a resume sees nothing else."""
    values = [
        (1, [2.5, None, True]),
        {"$bytes": "no mark", "b": b"yes"},
        {"$tuple": [1]},
        dt.datetime(2026, 1, 2, 3, 4, 5, 6, dt.UTC),
        dt.date(2026, 1, 2),
        Decimal("0.10"),
    ]
    journal = MemoryJournal()
    workflow = step(lambda _: values, name="a")
    first = await run_durably(workflow, 1, journal=journal)
    assert first == values
    assert first is not values
    again = await run_durably(workflow, 1, journal=journal)
    assert [type(value) for value in again] == [type(value) for value in values]


def saga_of(effects, last):
    """Return an order: two steps that can be undone, and one that fails."""
    return SagaPrimitive(
        [
            (effects.step("reserve"), effects.step("release", does=lambda _: None)),
            (effects.step("charge"), effects.step("refund", does=lambda _: None)),
            last,
        ]
    )


@virtual
async def test_compensations_run_after_a_crash_and_only_once(clock, effects):
    """Wherever the process dies, the saga is undone, and nothing recorded is again."""
    workflow = saga_of(effects, effects.failing("ship", ValueError("no ship")))
    for moment in range(1, 11):
        effects.log.clear()
        journal = await crashed(workflow, 1, moment)
        with pytest.raises(ValueError, match="no ship"):
            await run_durably(workflow, 1, context(), journal=journal)
        done = ["reserve", "charge", "ship", "refund", "release"]
        if moment % 2:
            done.insert(moment // 2, done[moment // 2])
        assert effects.log == done


@virtual
async def test_a_crash_while_undoing_undoes_the_rest(clock, effects):
    """Also several crashes, one in each compensation."""
    workflow = saga_of(effects, effects.failing("ship", ValueError("no ship")))
    found = await resume_everywhere(
        lambda: lambda journal: run_durably(workflow, 1, context(), journal=journal),
        crashes=2,
    )
    assert [str(one.error) for one in found] == ["no ship"] * 10


@virtual
async def test_what_was_undoable_below_a_time_limit_is_undone_after_a_crash(
    clock, effects
):
    """A limit is not skipped as a whole: the saga learns what was done below it."""
    charge = CompensationPrimitive(
        effects.step("charge"), effects.step("refund", does=lambda _: None)
    )
    inner = TimeoutPrimitive(
        charge >> effects.step("slow", takes=60), timeout_seconds=30
    )
    workflow = SagaPrimitive(inner >> effects.step("end"))
    for moment in range(1, 7):
        effects.log.clear()
        journal = await crashed(workflow, 1, moment)
        recorded = {key.rpartition("/")[2] for key in journal.records}
        first, effects.log = effects.log, []
        with pytest.raises(TimeoutExceededError, match="30"):
            await run_durably(workflow, 1, context(), journal=journal)
        assert recorded.isdisjoint(effects.log)
        assert {*first, *effects.log} == {"charge", "slow", "refund"}


@virtual
async def test_what_was_undoable_in_a_retry_is_undone_after_a_crash(clock, effects):
    """A retry that has settled is not skipped where a saga may have to undo it."""
    charge = CompensationPrimitive(
        effects.flaky("charge", 1), effects.step("refund", does=lambda _: None)
    )
    workflow = SagaPrimitive(
        RetryPrimitive(charge, max_retries=2)
        >> effects.failing("ship", ValueError("no ship"))
    )
    journal = await crashed(workflow, 1, 6)
    with pytest.raises(ValueError, match="no ship"):
        await run_durably(workflow, 1, context(), journal=journal)
    assert effects.log == ["charge", "charge", "ship", "refund"]


@virtual
async def test_a_halted_run_undoes_nothing_and_goes_on_later(clock, effects):
    """To halt, or to cancel who executes it, is no failure of the workflow."""
    workflow = saga_of(effects, effects.step("ship", takes=60))
    journal = MemoryJournal()
    run = Run(workflow, 1, context(), journal)
    task = asyncio.create_task(run.execute())
    await asyncio.sleep(1)
    run.halt("for lunch")
    with pytest.raises(Halted, match="for lunch"):
        await task
    task = asyncio.create_task(run_durably(workflow, 1, context(), journal=journal))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError, match=r"^$"):
        await task
    assert await run_durably(workflow, 1, context(), journal=journal) == 1
    assert effects.log == ["reserve", "charge", "ship", "ship", "ship"]


@virtual
async def test_a_shutdown_that_cancels_all_tasks_undoes_nothing(clock, effects):
    """Whoever ends a program cancels every task: the run stands where it was."""
    last = TimeoutPrimitive(effects.step("ship", takes=60), timeout_seconds=90)
    workflow = saga_of(effects, last | effects.step("tell", takes=60))
    journal = MemoryJournal()
    running = asyncio.create_task(run_durably(workflow, 1, context(), journal=journal))
    await asyncio.sleep(1)
    for task in asyncio.all_tasks() - {asyncio.current_task(), running}:
        task.cancel()
    with pytest.raises(Halted, match="the task that executed the run was cancelled"):
        await running
    assert await run_durably(workflow, 1, context(), journal=journal) == (1, 1)
    assert sorted(effects.log) == [
        *("charge", "reserve", "ship", "ship", "tell", "tell")
    ]


@virtual
async def test_nothing_is_recorded_after_a_halt(clock):
    """Also by a step that does not let itself be cancelled: others own the run now."""

    @step
    async def stubborn(value):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return value

    journal = MemoryJournal()
    run = Run(stubborn, 1, context(), journal)
    task = asyncio.create_task(run.execute())
    await asyncio.sleep(1)
    run.halt("for lunch")
    with pytest.raises(Halted, match="for lunch"):
        await task
    assert journal.records == {}
    assert run.replayed == 0


@virtual
async def test_one_step_is_recorded_as_a_whole(clock, effects):
    """What is rolled back together is done again together."""
    workflow = OneStep(effects.step("a") >> effects.step("b")) >> effects.step("c")
    journal = await crashed(workflow, 1, 1)
    assert await run_durably(workflow, 1, context(), journal=journal) == 1
    assert effects.log == ["a", "b", "a", "b", "c"]
    assert [key.rpartition("/")[2] for key in journal.records] == ["one_step", "c"]


class RecordingEngine(InlineEngine):
    """An engine in this process that notes what is sent."""

    def __init__(self, *workflows):
        super().__init__(*workflows)
        self.sent = []

    async def call(self, task, /):
        """Note the task, and perform it."""
        self.sent.append(task)
        return await super().call(task)


@virtual
async def test_a_remote_step_is_recorded_at_its_place(clock, effects):
    """Items of a map that a worker performs find each its own record."""
    double = effects.step("double", takes=1, does=lambda x: 2 * x)
    far = remote(double, engine=InlineEngine(double))
    workflow = MapPrimitive(far, max_concurrency=3)
    journal = await crashed(workflow, [1, 10, 100], 4)
    found = await run_durably(workflow, [1, 10, 100], context(), journal=journal)
    assert found == [2, 20, 200]
    assert len(journal.records) == 3


@virtual
async def test_what_a_step_runs_by_itself_is_not_recorded(clock, effects):
    """A step may run a workflow with a context of its own, as often as it likes."""
    inner = effects.step("inner", does=lambda x: x + 1)

    @step
    async def outer(value):
        """Run another step twice."""
        first = await inner.execute(value, WorkflowContext())
        return first, await inner.execute(10 * value, WorkflowContext())

    workflow = outer >> effects.step("end")
    journal = await crashed(workflow, 1, 4)
    assert list(journal.records) == ["sequential/outer", "sequential/end"]
    journal.records.popitem()
    assert await run_durably(workflow, 1, context(), journal=journal) == (2, 11)


@virtual
async def test_a_remote_call_that_was_given_up_has_another_id_after_a_resume(
    clock, effects
):
    """Its id is revoked everywhere; its idempotency key stays what it was."""
    slow = effects.step("slow", takes=60)
    engine = RecordingEngine(slow)
    workflow, journal = remote(slow, engine=engine), MemoryJournal()
    task = asyncio.create_task(run_durably(workflow, 1, context(), journal=journal))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError, match=r"^$"):
        await task
    assert await run_durably(workflow, 1, context(), journal=journal) == 1
    first, second = engine.sent
    assert first.call_id != second.call_id
    keys = {one.context["idempotency_key"] for one in engine.sent}
    assert len(keys) == 1


@virtual
async def test_steps_of_a_remote_workflow_have_keys_of_their_own(clock):
    """One key for all of them would make the second look like the first again."""
    keys = []

    @step
    async def noted(value, context):
        """Note the key."""
        keys.append(context.idempotency_key)
        return value

    @step
    async def noted_too(value, context):
        """Note the key as well."""
        keys.append(context.idempotency_key)
        return value

    both = noted >> noted_too
    workflow = remote(both, engine=InlineEngine(both))
    for _ in range(2):
        await run_durably(workflow, 1, context(), journal=MemoryJournal())
    assert len(set(keys)) == 2
    assert keys[:2] == keys[2:]


class SlowJournal(MemoryJournal):
    """A journal that takes a second for each record, as a far database may."""

    async def write(self, key, record):
        """Keep a record, after a second."""
        await asyncio.sleep(1)
        await super().write(key, record)


@pytest.mark.parametrize("is_listed", [False, True], ids=["wrapped", "listed"])
@pytest.mark.parametrize("failures", [0, 1])
@virtual
async def test_what_is_cancelled_while_it_is_recorded_is_undone(
    clock, effects, failures, is_listed
):
    """The effect is there, whether or not its record was when the time was up."""
    retry = RetryPrimitive(
        effects.flaky("charge", failures), initial_delay=1, jitter="none"
    )
    refund = effects.step("refund", does=lambda _: None)
    ship = effects.step("ship")
    saga = (
        SagaPrimitive([(retry, refund), ship])
        if is_listed
        else SagaPrimitive(CompensationPrimitive(retry, refund) >> ship)
    )
    workflow = TimeoutPrimitive(saga, timeout_seconds=3.5 if failures else 0.5)
    journal = SlowJournal()
    for _ in range(2):
        with pytest.raises(TimeoutExceededError, match="took longer"):
            await run_durably(workflow, 1, context(), journal=journal)
        assert effects.log == ["charge"] * (failures + 1) + ["refund"]


@pytest.mark.parametrize("is_listed", [False, True], ids=["wrapped", "listed"])
@virtual
async def test_what_is_cancelled_while_the_next_step_is_recorded_is_undone(
    clock, effects, is_listed
):
    """A step without a compensation is given up at once, and what was before undone."""
    charge, ship = effects.step("charge"), effects.step("ship")
    refund = effects.step("refund", does=lambda _: None)
    saga = (
        SagaPrimitive([(charge, refund), ship])
        if is_listed
        else SagaPrimitive(CompensationPrimitive(charge, refund) >> ship)
    )
    workflow = TimeoutPrimitive(saga, timeout_seconds=1.5)
    with pytest.raises(TimeoutExceededError, match="took longer"):
        await run_durably(workflow, 1, context(), journal=SlowJournal())
    assert effects.log == ["charge", "ship", "refund"]


@pytest.mark.parametrize("is_listed", [False, True], ids=["wrapped", "listed"])
@virtual
async def test_nothing_is_begun_after_a_resume_of_what_was_undone(
    clock, effects, is_listed
):
    """A run that was given up between two steps is given up there again."""
    charge, ship = effects.step("charge"), effects.step("ship")
    refund = effects.step("refund", does=lambda _: None)
    saga = (
        SagaPrimitive([(charge, refund), ship])
        if is_listed
        else SagaPrimitive(CompensationPrimitive(charge, refund) >> ship)
    )
    workflow = TimeoutPrimitive(saga, timeout_seconds=0.5)
    for moment in range(1, 7):
        effects.log.clear()
        journal = await crashed(workflow, 1, moment, SlowJournal())
        is_undone = "refund" in effects.log
        with pytest.raises(TimeoutExceededError, match="took longer"):
            await run_durably(workflow, 1, context(), journal=journal)
        assert effects.log[-1] == "refund"
        assert not (is_undone and "ship" in effects.log)


@virtual
async def test_a_limit_below_a_compensation_that_came_too_late_is_no_cancellation(
    clock, effects
):
    """What was done all the same counts as done, as without a journal."""
    charge = CompensationPrimitive(
        TimeoutPrimitive(effects.step("charge"), timeout_seconds=0.5),
        effects.step("refund", does=lambda _: None),
    )
    workflow = SagaPrimitive(charge >> effects.step("ship"))
    assert await run_durably(workflow, 1, context(), journal=SlowJournal()) == 1
    assert effects.log == ["charge", "ship"]
