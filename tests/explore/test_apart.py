"""Nothing of an execution reaches the next, although much is kept for its speed."""

from __future__ import annotations

import gc
import random
import weakref

from pytest_tta import Harness
from pytest_tta.explore.execution import Subject
from pytest_tta.explore.plan import FaultAt, Plan
from tta_primitives import step
from tta_primitives.recovery import FallbackPrimitive, RetryPrimitive


class Order:
    """What a workflow works on."""


async def take(order: Order) -> None:
    """Take an order."""


async def guess(_order: int) -> str:
    """Answer at once."""
    return "guess"


def test_what_is_drawn_in_pairs_begins_anew() -> None:
    """`random.gauss` draws two numbers and keeps the second."""
    drawn: list[float] = []
    with (
        Harness() as tta,
        Subject(tta, lambda: drawn.append(random.gauss())) as subject,
    ):
        for _ in range(3):
            subject(Plan())
    assert drawn == [drawn[0]] * 3


def test_nothing_that_a_workflow_worked_on_is_kept() -> None:
    """A long search keeps what its last execution was about, and no more."""
    orders: list[weakref.ref[Order]] = []
    workflow = RetryPrimitive(step(take))

    def body() -> None:
        order = Order()
        orders.append(weakref.ref(order))
        tta.run(workflow, order)

    with Harness() as tta, Subject(tta, body) as subject:
        for _ in range(3):
            subject(Plan())
        gc.collect()
        assert [order() is None for order in orders] == [True, True, False]


def test_a_fallback_of_the_execution_before_excuses_nothing() -> None:
    """A test's assertion is judged if nobody else has answered in this execution."""

    def body() -> None:
        asked: list[int] = []

        async def ask(order: int) -> int:
            """Ask, and be asked again if the answer is lost."""
            asked.append(order)
            return order

        quote = FallbackPrimitive(step(guess, name="quote"), [lambda _order: "guess"])
        tta.run(RetryPrimitive(step(ask)) >> quote, 1)
        assert asked == [1]

    asked_twice = Plan(faults=(FaultAt("sequential/retry/ask", 1, "lost-ack"),))
    answered = Plan(faults=(FaultAt("sequential/fallback/quote", 1, "error"),))
    with Harness() as tta, Subject(tta, body) as subject:
        found = [subject(plan) for plan in (Plan(), answered, asked_twice)]
    assert [one.verdict and one.verdict.kind for one in found] == [
        None,
        None,
        "assertion",
    ]
