"""Messages of a simulated fleet are sites: faults of networks and workers strike."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

# A search of a fleet finds it loaded: the ordinary run of the test has asked for it.
import pytest_tta.fleet.fleet  # noqa: F401
from pytest_tta.explore.options import KINDS
from pytest_tta.explore.plan import Plan
from pytest_tta.explore.sites import AROUND, FLEET
from tests.explore.bodies import exploring, faults, outcome_of, schedule
from tests.zoo.bugs_fleet import BUGS
from tests.zoo.visit import replayed
from tta_primitives import step
from tta_primitives.distributed import remote

if TYPE_CHECKING:
    from pytest_tta import Harness

PAY = "fleet:pay"
LOCAL = "sequential/pay"
_done: list[int] = []


@step
async def pay(amount: int) -> int:
    """Do something that counts, and takes a while."""
    await asyncio.sleep(1)
    _done.append(amount)
    return amount


def paying(tta: Harness) -> None:
    """Let workers pay one amount after the other."""
    _done.clear()
    engine = tta.fleet.serve(pay)
    send = remote(pay, engine=engine, timeout_seconds=100)
    tta.run(send, 1)
    tta.run(send, 2)


def paying_together(tta: Harness) -> None:
    """Let workers pay two amounts at the same time."""
    _done.clear()
    send = remote(pay, engine=tta.fleet.serve(pay), timeout_seconds=100)
    tta.run((lambda x: x) >> (send | (step(lambda _: 2).named("two") >> send)), 1)


def paying_nearby(tta: Harness) -> None:
    """Let a local step be performed by the fleet."""
    _done.clear()
    tta.fleet.at("pay")
    tta.run(pay >> step(str), 1)


def test_a_message_is_a_site() -> None:
    """Each call of a remote step is one, and executions repeat."""
    with exploring(paying) as subject:
        outcome = subject(Plan())
        assert outcome.verdict is None
        assert [(seen.site, seen.number, seen.kinds) for seen in outcome.calls] == [
            (PAY, 1, FLEET),
            (PAY, 2, FLEET),
        ]
        assert subject(Plan()).digest == outcome.digest


def test_what_a_worker_does_is_no_workflow_of_its_own() -> None:
    """A plan has the same tree if its message is lost or delivered twice."""
    trees = set()
    for kind in ("duplicate", "drop", "error"):
        with exploring(paying_together) as subject:
            subject(faults(f"{PAY}#1:{kind}"))
            trees.add(subject.tree)
    assert len(trees) == 1


def test_a_step_that_is_treated_as_remote_is_a_site_on_its_worker_too() -> None:
    """Faults of its message come beside those of the step itself."""
    outcome = outcome_of(paying_nearby)
    assert [(seen.site, seen.kinds) for seen in outcome.calls] == [
        (f"fleet:{LOCAL}", FLEET),
        (LOCAL, AROUND),
    ]


@pytest.mark.parametrize(
    ("kind", "done", "seconds", "ended"),
    [
        ("error", [], 0, "told"),
        ("lost-ack", [1], 1, "told"),
        ("drop", [], 100, "told"),
        ("drop-answer", [1], 100, "told"),
        ("duplicate", [1, 1, 2], 2, "returned"),
        ("reorder", [1, 2], 32, "returned"),
        ("crash-before", [1, 2], 32, "returned"),
        ("crash-after", [1, 1, 2], 33, "returned"),
        ("crash-unacknowledged", [1, 2], 2, "returned"),
    ],
)
def test_what_becomes_of_a_message(
    kind: str, done: list[int], seconds: int, ended: str
) -> None:
    """What was lost is lost; what a worker had that dies is delivered again."""
    outcome = outcome_of(paying, faults(f"{PAY}#1:{kind}"))
    assert (_done, outcome.seconds, outcome.ended) == (done, seconds, ended)
    assert [call.is_struck for call in outcome.calls][:1] == [True]
    assert outcome.verdict is None


def test_a_message_that_is_held_back_comes_after_a_later_one() -> None:
    """It waits for no timeout if there is one."""
    outcome = outcome_of(paying_together, faults(f"{PAY}#1:reorder"))
    assert (_done, outcome.seconds) == ([2, 1], 2)


def test_the_order_of_messages_is_a_choice() -> None:
    """Without a fault, too: no broker promises the order in which it was sent."""
    orders = set()
    with exploring(paying_together) as subject:
        for plan in (Plan(), schedule((0, 1))):
            assert subject(plan).verdict is None
            orders.add(tuple(_done))
    assert orders == {(1, 2), (2, 1)}


def test_a_step_in_this_process_has_no_messages() -> None:
    """Only a fleet delivers again."""

    def body(tta: Harness) -> None:
        tta.run(pay >> step(str), 1)

    outcome = outcome_of(body, faults(f"{LOCAL}#1:crash-after"))
    assert [(seen.kinds, seen.is_struck) for seen in outcome.calls] == [(AROUND, False)]


def test_the_marker_knows_all_faults_of_a_fleet() -> None:
    """In the order in which they are tried."""
    assert set(FLEET) | set(AROUND) == set(KINDS)


@pytest.mark.parametrize(
    ("bug", "fault"),
    [
        ("delivered-twice", "fleet:deposit#1:duplicate"),
        ("lost-answer", "fleet:report#1:drop"),
        ("lost-answer", "fleet:report#1:drop-answer"),
        ("out-of-order", "fleet:write#2:reorder"),
        ("sent-again", "fleet:send#1:crash-after"),
    ],
)
def test_each_fault_shows_the_bug_that_it_is_for(bug: str, fault: str) -> None:
    """It alone is enough, and the corrected version bears it."""
    (entry,) = (one for one in BUGS if one.name == bug)
    (broken,) = replayed(entry, entry.buggy, f"tta1 f={fault}", 1)
    (held,) = replayed(entry, entry.corrected, f"tta1 f={fault}", 1)
    assert broken.verdict is not None
    assert broken.verdict.kind in entry.kinds
    assert held.verdict is None
