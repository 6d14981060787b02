"""One execution of a test's body: what is chosen, what goes wrong, what is told."""

from __future__ import annotations

import asyncio
import gc
import random
import uuid
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tta import Harness, MockPrimitive, op
from pytest_tta.explore import execution
from pytest_tta.explore.execution import ExplorationError, Subject
from pytest_tta.explore.plan import Plan
from pytest_tta.trace import S
from tests.explore.bodies import (
    cancelling,
    exploring,
    faults,
    outcome_of,
    said,
    schedule,
)
from tests.garbage import only_new_garbage
from tta_primitives import ParallelPrimitive, WorkflowContext, step
from tta_primitives.chance import new_id, rng
from tta_primitives.recovery import FallbackPrimitive, RetryPrimitive, TimeoutPrimitive
from tta_primitives.recovery.alternatives import ValuePrimitive

if TYPE_CHECKING:
    from pytest_tta.explore.outcome import Outcome


class Rejected(Exception):
    """What one retry of these tests expects."""


async def add(number: int) -> int:
    """Add one."""
    return number + 1


async def double(number: int) -> int:
    """Double a number."""
    return number * 2


def chain(tta: Harness) -> None:
    """Run two steps, the first one with retries and a limit."""
    limited = TimeoutPrimitive(step(add), timeout_seconds=2)
    tta.run(RetryPrimitive(limited, max_retries=2, jitter="none") >> step(double), 1)


FIRST, SECOND = "sequential/retry/timeout/add", "sequential/double"
AROUND = ("error", "lost-ack", "hang", "late", "fatal", "outage")


def sites(outcome: Outcome) -> list[str]:
    """Return the sites of an execution's calls."""
    return [seen.site for seen in outcome.calls]


# What is a site.


def test_each_call_of_an_async_leaf_is_a_site() -> None:
    """Its path names it, and all kinds of faults make sense."""
    outcome = outcome_of(chain)
    assert [tuple(seen) for seen in outcome.calls] == [
        (FIRST, 1, AROUND, False),
        (SECOND, 1, AROUND, False),
    ]


def test_roots_and_sync_steps_are_no_sites() -> None:
    """A sync function waits for nobody, and the root is what the test calls itself."""

    def body(tta: Harness) -> None:
        tta.run(add, 1)
        tta.run(step(str.upper) >> step(str.lower), "x")

    assert outcome_of(body).calls == ()


def test_a_constant_is_no_site() -> None:
    """What stands in without asking anybody cannot fail."""

    def body(tta: Harness) -> None:
        tta.run(FallbackPrimitive(add, [ValuePrimitive(0)]), 1)

    plan = faults("fallback/add#1:fatal")
    assert sites(outcome_of(body, plan)) == ["fallback/add"]


def test_mocks_and_the_llm_double_are_sites() -> None:
    """They stand for the outside."""

    def body(tta: Harness) -> None:
        tta.llm.reply("fine")
        tta.run(MockPrimitive("look", return_value=1) >> tta.llm.primitive(), "x")

    outcome = outcome_of(body)
    assert sites(outcome) == ["sequential/look", "sequential/llm"]
    assert outcome.verdict is None


def test_operations_in_a_leaf_are_sites_instead_of_it() -> None:
    """The leaf stays a choice point, and faults strike what is inside."""

    async def load(key: str) -> str:
        """Ask twice, once around an effect."""
        await op("db.read")
        async with op("db.write"):
            return key

    def body(tta: Harness) -> None:
        tta.run(step(load) >> step(str.upper), "x")

    outcome = outcome_of(body)
    assert [(seen.site, seen.kinds) for seen in outcome.calls] == [
        ("sequential/load", ()),
        ("db.read", ("error", "hang", "fatal", "outage")),
        ("db.write", AROUND),
    ]


def test_calls_of_a_leaf_inside_a_leaf_are_sites_instead_of_it() -> None:
    """A step may compose by hand."""

    async def outer(number: int, context: WorkflowContext) -> int:
        """Call another step."""
        return await step(add).execute(number, context)

    def body(tta: Harness) -> None:
        tta.run(step(outer) >> step(str), 1)

    assert [(seen.site, bool(seen.kinds)) for seen in outcome_of(body).calls] == [
        ("sequential/outer", False),
        ("sequential/outer/add", True),
    ]


def test_what_runs_in_a_thread_is_a_site() -> None:
    """It runs inline when it is chosen."""

    def body(tta: Harness) -> None:
        async def main(_: None) -> str:
            """Do something that blocks."""
            return await asyncio.to_thread(str.upper, "x")

        assert tta.run(main, None) == "X"

    outcome = outcome_of(body)
    assert [(seen.site, seen.kinds) for seen in outcome.calls] == [
        ("thread:str.upper", AROUND)
    ]
    assert said(outcome_of(body, faults("thread:str.upper#1:error"))) == "told"


# What faults do.


def recorded(tta: Harness, *, limit: float = 2) -> list[str]:
    """Run an effect under a time limit; return what has come of it."""
    effects: list[str] = []

    async def pay(order: str) -> str:
        """Do it."""
        effects.append(order)
        return order

    workflow = TimeoutPrimitive(step(pay), timeout_seconds=limit) >> step(str.upper)
    try:
        effects.append(tta.run(workflow, "a"))
    except (ConnectionError, TimeoutError) as error:
        effects.append(type(error).__name__)
    except Exception as error:
        effects.append(f"{type(error).__name__} {error.status_code}")  # type: ignore[attr-defined]
    return effects


@pytest.mark.parametrize(
    ("kind", "effects", "seconds"),
    [
        ("error", ["ConnectionError"], 0),
        ("lost-ack", ["a", "ConnectionError"], 0),
        ("hang", ["TimeoutExceededError"], 2),
        ("late", ["a", "TimeoutExceededError"], 2),
        ("fatal", ["PermanentFailure 400"], 0),
        ("outage", ["ConnectionError"], 0),
    ],
)
def test_faults_strike_a_step(kind: str, effects: list[str], seconds: float) -> None:
    """Each kind says whether there is an effect, and how the answer fails to come."""
    found: list[str] = []

    def body(tta: Harness) -> None:
        found[:] = recorded(tta)

    outcome = outcome_of(body, faults(f"sequential/timeout/pay#1:{kind}"))
    assert found == effects
    assert outcome.seconds == seconds
    assert [seen.is_struck for seen in outcome.calls] == [True]


@pytest.mark.parametrize(
    ("kind", "effects"),
    [
        ("error", ["ConnectionError"]),
        ("lost-ack", ["paid", "ConnectionError"]),
        ("hang", ["TimeoutError"]),
        ("late", ["paid", "TimeoutError"]),
        ("fatal", ["PermanentFailure"]),
    ],
)
def test_faults_strike_an_operation(kind: str, effects: list[str]) -> None:
    """As they strike a step."""
    found: list[str] = []

    def body(tta: Harness) -> None:
        async def pay(_: None) -> None:
            """Do it, and say how it failed."""
            try:
                async with asyncio.timeout(1), op("pay"):
                    found.append("paid")
            except Exception as error:
                found.append(type(error).__name__)

        tta.run(pay, None)

    outcome_of(body, faults(f"pay#1:{kind}"))
    assert found == effects


def test_an_outage_strikes_all_calls_from_its_first() -> None:
    """Retries do not help."""
    outcome = outcome_of(chain, faults(f"{FIRST}#2:outage", f"{FIRST}#1:error"))
    assert [seen.is_struck for seen in outcome.calls] == [True, True, True]
    assert outcome.ended == "told"


def test_an_error_is_one_that_the_nearest_retry_expects() -> None:
    """Otherwise the retry would never be put to the test."""

    def body(tta: Harness) -> None:
        retry = RetryPrimitive(
            step(add), max_retries=1, retry_on=(Rejected,), jitter="none"
        )
        assert tta.run(retry, 1) == 2

    outcome = outcome_of(body, faults("retry/add#1:error"))
    assert [seen.is_struck for seen in outcome.calls] == [True, False]
    assert outcome.verdict is None


def test_a_fault_that_strikes_nothing_changes_nothing() -> None:
    """Its execution is a plain one."""

    def body(tta: Harness) -> None:
        chain(tta)
        raise AssertionError("wrong")

    outcome = outcome_of(body, faults("nowhere#1:error"))
    assert said(outcome) == "assertion: wrong"


# Schedules, deadlines and cancellations.


def racing(tta: Harness) -> None:
    """Let two tasks race for a list."""
    order: list[str] = []

    async def run(name: str) -> None:
        """Say that it was here."""
        await op(name)
        order.append(name)

    async def main(_: None) -> None:
        """Run both."""
        async with asyncio.TaskGroup() as group:
            group.create_task(run("a"))
            group.create_task(run("b"))

    tta.run(main, None)
    assert order == ["a", "b"]


def test_the_oldest_comes_first_unless_the_plan_says_otherwise() -> None:
    """A schedule is replayed by its deviations."""
    assert outcome_of(racing).verdict is None
    outcome = outcome_of(racing, schedule((0, 1)))
    assert said(outcome).startswith("assertion")
    assert [choice.taken for choice in outcome.choices] == [1]


def test_a_chooser_is_asked_instead_of_the_schedule() -> None:
    """As searches do it."""
    with exploring(racing) as subject:
        outcome = subject(Plan(), lambda units: len(units) - 1)
    assert said(outcome).startswith("assertion")


def test_a_limit_runs_out_early_only_within_its_budget() -> None:
    """Then it counts as a deviation: an error that reaches the caller is fair."""

    def body(tta: Harness) -> None:
        async def main(_: None) -> None:
            """Wait for two operations within a limit."""
            async with asyncio.timeout(1):
                await op("a")

        tta.run(main, None)

    with exploring(body) as subject:
        assert subject(Plan(), lambda units: len(units) - 1).early == 0
        outcome = subject(schedule((0, 1), early=1))
    assert (outcome.ended, outcome.early, outcome.seconds) == ("told", 1, 1.0)


def test_who_can_be_cancelled_is_noted_at_each_rest() -> None:
    """What the test runs, and the tasks that its own code has made."""
    assert outcome_of(racing).rests == (
        ("main", "Task-2", "Task-3"),
        ("main", "Task-3"),
    )


def test_tasks_that_libraries_make_are_not_cancelled() -> None:
    """Nobody outside has a handle on them."""

    def body(tta: Harness) -> None:
        tta.run(ParallelPrimitive(add, double), 1)

    assert set(outcome_of(body).rests) == {("main",)}


def test_what_the_test_runs_is_cancelled_while_it_waits() -> None:
    """That the cancellation reaches the caller is a fair end."""
    outcome = outcome_of(chain, cancelling("main", 0))
    assert (outcome.ended, outcome.verdict) == ("cancelled", None)
    assert sites(outcome) == [FIRST]


def test_another_task_is_cancelled_by_its_name() -> None:
    """The assertions of the body have no say then."""
    outcome = outcome_of(racing, cancelling("Task-2", 0))
    assert (outcome.verdict, outcome.is_judged) == (None, False)


# What an execution is given, and leaves behind.


def test_equal_plans_give_equal_digests_and_others_do_not() -> None:
    """Whatever was executed before."""
    error = faults(f"{FIRST}#1:error")
    with exploring(chain) as subject:
        digests = [
            subject(plan).digest for plan in (Plan(), error, Plan(), error, Plan())
        ]
    assert digests[0] == digests[2] == digests[4]
    assert digests[1] == digests[3]
    assert digests[0] != digests[1]


def test_each_execution_has_the_same_chance_and_ids() -> None:
    """Of the primitives, of Python and of the system; another seed gives others."""
    drawn: list[tuple[Any, ...]] = []

    def body(tta: Harness) -> None:
        async def main(_: None) -> None:
            """Draw from everything."""
            await op("x")
            chance = rng()
            drawn.append(
                (
                    chance.random(),
                    chance.randint(1, 9**9),
                    new_id(),
                    random.random(),
                    uuid.uuid4(),
                )
            )

        tta.run(main, None)

    with exploring(body) as subject:
        for plan in (Plan(), Plan(), Plan(seed=7)):
            subject(plan)
    assert drawn[0] == drawn[1]
    assert not set(drawn[0]) & set(drawn[2])


def test_an_operation_takes_a_round_as_in_an_ordinary_run() -> None:
    """Also where nothing else could come before its answer."""
    rounds: list[int] = []

    def body(tta: Harness) -> None:
        async def main(_: None) -> None:
            rounds.append(len(list(op("x").__await__())))

        tta.run(main, None)

    outcome_of(body)
    assert rounds == [1]


def test_chance_is_that_of_an_ordinary_run() -> None:
    """The jitter of a retry is the same on both loops."""
    drawn: list[float] = []

    def body(tta: Harness) -> None:
        async def main(_: None) -> None:
            """Draw one number, and make one id."""
            drawn.append(rng().random() + int(new_id(), 16))

        tta.run(main, None)

    harness = Harness(seed=3)
    with harness as tta:
        mark = tta.mark()
        body(tta)
        with Subject(tta, lambda: body(tta), mark=mark) as subject:
            subject(Plan())
    assert drawn[0] == drawn[1]


def test_time_begins_anew_with_each_execution() -> None:
    """So do the trace and what is problematic."""
    found: list[object] = []

    def body(tta: Harness) -> None:
        chain(tta)
        found.append((tta.elapsed, tta.trace == S("sequential"), len(tta.trace.roots)))

    with exploring(body) as subject:
        for _ in range(3):
            subject(faults(f"{FIRST}#1:hang"))
    assert found == [found[0]] * 3
    assert found[0] == (2.5, True, 1)


def test_the_harness_is_afterwards_what_it_was_before() -> None:
    """The report of an ordinary run tells of that run, whatever was explored."""
    with Harness() as tta:
        mark = tta.mark()
        chain(tta)
        sleeps, outline = list(tta.clock.sleeps), tta.trace.outline()
        with Subject(tta, lambda: chain(tta), mark=mark) as subject:
            for number in (1, 2):
                subject(faults(f"{FIRST}#{number}:hang"))
        assert list(tta.clock.sleeps) == sleeps
        assert tta.trace.outline() == outline
        assert tta.run(add, 1) == 2


def test_an_async_body_is_what_runs() -> None:
    """It may be cancelled as `main`."""

    async def body(_: Harness) -> None:
        """Wait for an operation, and for a step."""
        await op("a")
        await (step(add) >> step(double)).execute(1, WorkflowContext())

    outcome = outcome_of(body)
    assert sites(outcome) == ["a", "sequential/add", "sequential/double"]
    assert outcome_of(body, cancelling("main", 1)).ended == "cancelled"


def test_several_runs_of_a_body_are_one_execution() -> None:
    """Their calls and choices are counted on."""

    def body(tta: Harness) -> None:
        chain(tta)
        chain(tta)

    outcome = outcome_of(body, faults(f"{FIRST}#2:lost-ack"))
    assert [seen.number for seen in outcome.calls if seen.site == FIRST] == [1, 2, 3]
    assert [seen.is_struck for seen in outcome.calls] == [False] * 2 + [True] + [
        False,
        False,
    ]


def test_mocks_of_fixtures_have_not_been_called_before() -> None:
    """A mock that was made before the body counts anew in each execution."""
    pay = MockPrimitive("pay", side_effect=["paid"])

    def body(tta: Harness) -> None:
        assert tta.run(pay >> step(str.upper), "x") == "PAID"
        pay.assert_called_once()

    with exploring(body) as subject:
        for _ in range(3):
            assert subject(Plan()).verdict is None


def test_a_subject_wants_to_be_entered() -> None:
    """The message says how."""
    with Harness() as tta:
        subject = Subject(tta, lambda: chain(tta), test_name="test_x")
        with pytest.raises(RuntimeError, match=r"'test_x'.* is not entered; write"):
            subject(Plan())


def test_something_real_cannot_be_explored() -> None:
    """That is no finding, but said of the test."""

    async def body(_: Harness) -> None:
        """Open a connection."""
        await asyncio.open_connection("localhost", 1)

    with exploring(body) as subject, pytest.raises(ExplorationError, match="localhost"):
        subject(Plan())


def test_the_tree_has_a_digest() -> None:
    """It changes with an option of a primitive."""

    def other(tta: Harness) -> None:
        limited = TimeoutPrimitive(step(add), timeout_seconds=3)
        retry = RetryPrimitive(limited, max_retries=2, jitter="none")
        tta.run(retry >> step(double), 1)

    digests = []
    for body in (chain, chain, other):
        with exploring(body) as subject:
            assert subject.tree == ""
            subject(Plan())
            digests.append(subject.tree)
    assert digests[0] == digests[1] != digests[2]
    assert len(digests[0]) == 8


# --- what is left in memory -----------------------------------------------------------


async def ask(_: object) -> None:
    """Call the outside once."""
    async with op("a"):
        pass


GUARDED = TimeoutPrimitive(
    RetryPrimitive(step(ask, name="one") | step(ask, name="two"), initial_delay=0),
    timeout_seconds=9,
)


def test_an_execution_that_fails_is_no_cyclic_garbage() -> None:
    """An error leads to the frames that it has left, and none of them leads to it."""
    plan = faults("a#1:error", "a#3:fatal")

    def body(tta: Harness) -> None:
        tta.run(GUARDED, None)

    with exploring(body) as subject, only_new_garbage():
        for _ in range(3):
            assert subject(plan).ended == "told"
        subject(Plan())
        assert gc.collect() == 0


def test_garbage_of_another_test_is_not_collected_in_an_execution() -> None:
    """The client of an SDK makes a task of its own then, in whichever loop runs."""
    tasks: list[int] = []

    class Client:
        """Close itself as such a client does."""

        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            with suppress(RuntimeError):
                asyncio.get_running_loop().create_task(asyncio.Event().wait())

    async def work(_: object) -> None:
        await op("call")
        gc.set_threshold(1, 1, 1)
        kept = [[number] for number in range(100)]
        tasks.append(len(asyncio.all_tasks()))
        del kept

    def body(tta: Harness) -> None:
        tta.run(step(work), None)

    threshold = gc.get_threshold()
    gc.set_threshold(0)
    try:
        Client()
        with exploring(body) as subject:
            subject(Plan())
    finally:
        gc.set_threshold(*threshold)
    assert tasks == [1]


def test_what_is_cyclic_garbage_is_collected_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After so many objects, not after each execution: to collect takes a while."""
    left: weakref.WeakSet[set[object]] = weakref.WeakSet()

    class Knot(set[object]):
        """Hold itself."""

        __hash__ = object.__hash__

    def body(_: Harness) -> None:
        knot = Knot()
        knot.add(knot)
        left.add(knot)

    monkeypatch.setattr(execution, "_MOST_GARBAGE", 2000)
    with exploring(body) as subject, only_new_garbage():
        for _ in range(20):
            subject(Plan())
        assert len(left) == 20
        for _ in range(2000):
            subject(Plan())
        assert len(left) < 2000
