"""The order of the search: plainly, faults, schedules, cancellations, more rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_tta.explore.execution import Subject
from pytest_tta.explore.failures import FailureStore
from pytest_tta.explore.hunt import Hunt
from pytest_tta.explore.inquiry import Inquiry
from pytest_tta.explore.line import from_line, to_line
from pytest_tta.explore.options import SchedulesAsked, SweepAsked, Wanted
from pytest_tta.explore.outcome import Outcome, Verdict
from pytest_tta.explore.plan import FaultAt, Plan
from pytest_tta.harness import Harness
from tests.explore.toys import Cancelled, Fault, Toy
from tta_primitives import step

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_tta.explore.searching import SearchReport

# None that never answers: the toys have no limits.
KINDS = ("error", "lost-ack", "fatal")
BOTH = Wanted(False, SweepAsked(), SchedulesAsked())
ONLY_SWEEP = Wanted(True, SweepAsked(), None)
ONLY_SCHEDULES = Wanted(True, None, SchedulesAsked())


def nothing() -> None:
    """Check nothing."""


def fine():
    """Return two tasks that disturb nobody."""

    def task(site: str):
        try:
            yield site
        except (Cancelled, Fault):
            return

    return [task("load"), task("save")], nothing


def charging():
    """Return a task that pays again after an error, also if it was paid."""
    charges = []

    def task():
        for _ in range(2):
            try:
                lost = yield "pay"
            except Fault:
                continue
            charges.append(1)
            if lost != "lost-ack":
                return

    def check() -> None:
        assert len(charges) <= 1, f"{len(charges)} charges"

    return [task()], check


def racing():
    """Return two tasks of which the second must not be faster."""
    order = []

    def task(name: str):
        try:
            yield name
        except Fault:
            return
        order.append(name)

    def check() -> None:
        assert order != ["second", "first"], "second came first"

    return [task("first"), task("second")], check


def hunt(make, wanted: Wanted = BOTH, **more: Any) -> Hunt:
    """Return what searches a toy."""
    return Hunt(Toy(make, KINDS), wanted, seed_of=lambda number: number, **more)


def test_what_holds_is_searched_to_the_end() -> None:
    """All searches are done, and each has told what it tried."""
    hunted = hunt(fine)
    hunted.run()
    assert hunted.found is None
    assert list(hunted.searches) == ["sweep", "schedules", "cancellations"]
    assert hunted.executions == 2 + sum(
        one.executions for done in hunted.searches.values() for one in done
    )


@pytest.mark.parametrize(
    ("wanted", "searches"),
    [
        (ONLY_SWEEP, ["sweep"]),
        (ONLY_SCHEDULES, ["schedules", "cancellations"]),
    ],
)
def test_a_marker_asks_for_its_own_search(wanted: Wanted, searches: list[str]) -> None:
    """A sweep is no search for schedules, and the other way round."""
    hunted = hunt(fine, wanted)
    hunted.run()
    assert list(hunted.searches) == searches


def test_a_fault_is_found_and_nothing_searched_after_it() -> None:
    """The first failure ends the search, and is the smallest."""
    hunted = hunt(charging)
    hunted.run()
    assert hunted.found.plan.faults == (FaultAt("pay", 1, "lost-ack"),)
    assert hunted.found.verdict.text.startswith("2 charges")
    assert hunted.plain.verdict is None
    assert list(hunted.searches) == ["sweep"]


def test_a_schedule_is_found_and_made_small() -> None:
    """One deviation suffices, without a fault."""
    hunted = hunt(racing)
    hunted.run()
    assert hunted.found.plan.faults == ()
    assert len(hunted.found.plan.schedule.deviations) == 1


def test_what_fails_plainly_is_found_at_once() -> None:
    """Two executions suffice, and there is nothing to compare them with."""

    def failing():
        tasks, _ = fine()

        def check() -> None:
            raise AssertionError("no")

        return tasks, check

    hunted = hunt(failing)
    hunted.run()
    assert hunted.found.plan == Plan()
    assert (hunted.executions, hunted.plain) == (2, None)


def test_what_remembers_is_not_deterministic() -> None:
    """Two executions that differ are told before anything is searched."""
    calls = []

    def remembering():
        calls.append(1)
        tasks, _ = fine()

        def check() -> None:
            assert len(calls) < 2, "2 calls"

        return tasks, check

    hunted = hunt(remembering)
    hunted.run()
    assert hunted.executions == 2
    assert hunted.found.verdict.kind == "not deterministic"
    assert "first all is well, then assertion: 2 calls" in hunted.found.verdict.text


@pytest.mark.parametrize(("make", "is_found"), [(fine, False), (racing, True)])
def test_all_orders_are_tried_if_asked_for(make, is_found: bool) -> None:
    """Without a failure it is a proof, and said to be one."""
    wanted = Wanted(True, None, SchedulesAsked(exhaustive=True))
    hunted = hunt(make, wanted)
    asked = Inquiry(hunted, None, node_id="test", tree_of=lambda: "")
    asked.search()
    assert (hunted.found is not None) is is_found
    assert asked.facts()["all_orders"] is not is_found


def test_orders_of_pure_calls_are_not_told_apart() -> None:
    """A test that says what touches nothing needs fewer executions for its proof."""

    async def call(number: int) -> int:
        return number

    def body(tta) -> None:
        branches = [step(call).named(name) for name in ("a", "b", "c")]
        tta.run((branches[0] | branches[1] | branches[2]).named("fan"), 1)

    def proof(pure: tuple[str, ...] | None) -> SearchReport:
        """Return what trying all orders came to."""
        schedules = SchedulesAsked(exhaustive=True, pure=pure)
        with Harness() as tta, Subject(tta, lambda: body(tta)) as subject:
            hunted = Hunt(
                subject,
                Wanted(True, None, schedules),
                seed_of=lambda number: number,
                trees=lambda: subject.trees,
            )
            hunted.run()
        return hunted.searches["schedules"][0]

    every, some = proof(None), proof(("fan/*",))
    assert every.complete
    assert some.complete
    assert (every.executions, some.executions) == (6, 4)


def test_machines_share_all_orders() -> None:
    """One alone has not tried all, and says so; one of them has the failure."""
    wanted = Wanted(True, None, SchedulesAsked(exhaustive=True))
    asked = []
    for shard in [(0, 2), (1, 2)]:
        asked.append(
            Inquiry(
                hunt(racing, wanted, shard=shard),
                None,
                node_id="test",
                tree_of=lambda: "",
            )
        )
        asked[-1].search()
    assert any(one.hunt.found for one in asked)
    assert not any(one.facts()["all_orders"] for one in asked)


def test_rounds_have_new_seeds_and_faults() -> None:
    """Every second round has a call go wrong, each time another way."""
    plans = []
    toy = Toy(fine, KINDS)

    def execute(plan: Plan, choose: Any = None) -> Outcome:
        plans.append(plan)
        return toy(plan, choose)

    seeds = []

    def seed_of(number: int) -> int:
        seeds.append(number)
        return number

    hunted = Hunt(execute, BOTH, seed_of=seed_of)
    turns = iter([True] * 400)
    hunted.run(lambda: next(turns, False))
    assert hunted.rounds > 3
    assert seeds == list(range(hunted.rounds + 1))
    bases = {plan.faults for plan in plans[-300:]}
    assert len(bases) > 2


def test_shards_do_different_work() -> None:
    """Two machines together try what one would have tried."""
    struck = []
    for shard in [(0, 2), (1, 2)]:
        hunted = hunt(fine, ONLY_SWEEP, shard=shard)
        hunted.run()
        struck.append(set(hunted.searches["sweep"][0].reached))
    alone = hunt(fine, ONLY_SWEEP)
    alone.run()
    assert struck[0] | struck[1] == set(alone.searches["sweep"][0].reached)
    assert struck[0] & struck[1] == set()


def inquiry(make, folder: Path | None, tree: str = "3fa9c1d2") -> Inquiry:
    """Return the exploration of a toy."""
    store = None if folder is None else FailureStore(folder, "test_a.py::test")
    return Inquiry(hunt(make), store, node_id="test_a.py::test", tree_of=lambda: tree)


def test_what_is_found_is_reported_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report names what broke, what it takes, and the line that brings it back."""
    monkeypatch.setenv("PYTHONHASHSEED", "random")
    asked = inquiry(charging, tmp_path)
    asked.search()
    lines = asked.text().splitlines()
    assert lines[0].startswith("found while exploring: assertion: 2 charges")
    assert "  call 1 of pay has its effect, and then fails: the answer is lost" in lines
    assert "  pay  <- struck" in lines
    line = "tta1 f=pay#1:lost-ack t=3fa9c1d2"
    assert lines[-2] == f"pytest test_a.py::test --tta-replay='{line}'"
    stored = FailureStore(tmp_path, "test_a.py::test").load()
    assert [one.line for one in stored] == [line]
    facts = asked.facts()
    assert facts["line"] == line
    assert facts["verdict"]["kind"] == "assertion"


def test_what_may_not_come_back_is_not_kept(tmp_path: Path) -> None:
    """A test that is not deterministic says nothing about a plan."""
    calls = []

    def remembering():
        calls.append(1)
        tasks, _ = fine()

        def check() -> None:
            assert len(calls) < 2, "2 calls"

        return tasks, check

    asked = inquiry(remembering, tmp_path)
    asked.search()
    assert asked.found.verdict.kind == "not deterministic"
    assert FailureStore(tmp_path, "test_a.py::test").load() == []


def kept(folder: Path, plan: Plan) -> FailureStore:
    """Return a store in which a plan is kept."""
    store = FailureStore(folder, "test_a.py::test")
    store.keep(to_line(plan), Verdict("assertion", "2 charges"))
    return store


LOST = Plan((FaultAt("pay", 1, "lost-ack"),), tree="3fa9c1d2")


def test_what_is_kept_is_tried_first(tmp_path: Path) -> None:
    """It still fails, so that nothing is searched."""
    kept(tmp_path, LOST)
    asked = inquiry(charging, tmp_path)
    asked.search()
    assert asked.hunt.searches == {}
    assert [one["state"] for one in asked.kept] == ["still failing"]
    assert asked.found.plan.faults == LOST.faults


def test_what_was_fixed_is_forgotten_after_two_runs(tmp_path: Path) -> None:
    """The search goes on, since there may be more."""
    store = kept(tmp_path, LOST._replace(faults=(FaultAt("load", 1, "lost-ack"),)))
    for left in (1, 0):
        asked = inquiry(fine, tmp_path)
        asked.search()
        assert [one["state"] for one in asked.kept] == ["fixed"]
        assert len(asked.hunt.searches) == 3
        assert len(store.load()) == left


def test_what_strikes_nothing_in_another_tree_is_stale(tmp_path: Path) -> None:
    """A site that is gone tells nothing about the failure."""
    store = kept(tmp_path, LOST)
    asked = inquiry(fine, tmp_path, tree="00000000")
    asked.search()
    assert [one["state"] for one in asked.kept] == ["stale"]
    assert len(store.load()) == 1


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    """The search goes on without it."""
    kept(tmp_path, LOST).load()[0].path.write_text("no", encoding="utf-8")
    asked = inquiry(fine, tmp_path)
    asked.search()
    assert [one["state"] for one in asked.kept] == ["unreadable"]


@pytest.mark.parametrize(
    ("make", "fault", "said"),
    [
        (charging, "pay#1:lost-ack", "still fails"),
        (fine, "load#1:error", "holds now"),
        (fine, "pay#1:error", "holds now; no call came to pay, so that nothing went"),
    ],
)
def test_a_replay_executes_its_plan_alone(make, fault: str, said: str) -> None:
    """There is no search, only the verdict; a plan that strikes nothing says so."""
    asked = inquiry(make, None)
    asked.replay(from_line(f"tta1 f={fault}"))
    assert asked.replayed.startswith(said)
    assert ("no call came" in asked.replayed) is ("no call came" in said)
    assert asked.hunt.searches == {}


def test_a_replay_in_another_tree_says_so() -> None:
    """It is executed all the same."""
    asked = inquiry(charging, None)
    asked.replay(LOST._replace(tree="00000000"))
    assert "the workflows have changed since (tree 00000000, and now 3" in asked.text()


def test_facts_are_plain_data() -> None:
    """A worker can send them."""
    asked = inquiry(fine, None)
    asked.search()
    facts = asked.facts()
    assert facts["executions"] == asked.hunt.executions
    assert facts["reached"][:2] == ["load:error", "load:fatal"]
    assert facts["unreached"] == []
    assert (facts["verdict"], facts["line"]) == (None, None)
