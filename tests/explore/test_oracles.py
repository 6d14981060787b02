"""What is wrong whatever a test asserts: tasks, permits, errors, state that is kept."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tta import op
from pytest_tta.explore.execution import ExplorationError
from pytest_tta.explore.plan import Plan
from tests.explore.bodies import cancelling, exploring, faults, outcome_of, said
from tta_primitives.performance import CachePrimitive, MemoryStorage
from tta_primitives.recovery import (
    BulkheadPrimitive,
    CircuitBreakerPrimitive,
    HedgePrimitive,
    Quantile,
    RateLimitPrimitive,
    RetryBudget,
    RetryPrimitive,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pytest_tta import Harness

ERROR = faults("a#1:error")


def running(main: Callable[[], Awaitable[Any]]) -> Callable[[Harness], None]:
    """Return a body that runs an async function."""

    async def step(_: None) -> Any:
        """Run it."""
        return await main()

    def body(tta: Harness) -> None:
        tta.run(step, None)

    return body


# Tasks.


def test_tasks_that_are_left_running_are_found() -> None:
    """With the line at which each of them stands."""
    kept: list[Any] = []

    async def main() -> None:
        """Forget a task if something fails."""
        kept[:] = [asyncio.create_task(asyncio.sleep(60))]
        await op("a")
        await kept[0]

    with exploring(running(main)) as subject:
        assert subject(Plan()).verdict is None
        outcome = subject(ERROR)
        assert said(outcome).startswith("left running: task Task-2")
        # What was left does not get into the next execution.
        assert subject(Plan()).verdict is None


def test_errors_of_tasks_that_nobody_looks_at_are_found() -> None:
    """Without waiting for the collector."""
    kept: list[Any] = []

    async def work() -> None:
        """Do something in the background."""
        await op("a")

    async def main() -> None:
        """Wait long enough."""
        kept[:] = [asyncio.create_task(work())]
        await asyncio.sleep(1)

    with exploring(running(main)) as subject:
        assert subject(Plan()).verdict is None
        text = "unhandled error: task 'Task-2' ended with ConnectionError("
        assert said(subject(ERROR)).startswith(text)


def test_errors_that_somebody_looked_at_are_none() -> None:
    """A gather with `return_exceptions`, or a task that was awaited."""

    async def work() -> None:
        """Do something in the background."""
        await op("a")

    async def main() -> None:
        """Look at both results."""
        await asyncio.gather(work(), work(), return_exceptions=True)

    assert outcome_of(running(main), ERROR).verdict is None


def test_errors_of_callbacks_are_found() -> None:
    """Which asyncio would only log."""

    async def main() -> None:
        """Call something that fails."""
        asyncio.get_running_loop().call_soon(int, "x")
        await op("a")

    assert said(outcome_of(running(main))).startswith("unhandled error: a callback")


# Permits.


@pytest.mark.parametrize(
    "make",
    [
        asyncio.Lock,
        asyncio.Condition,
        lambda: asyncio.Semaphore(2),
        lambda: asyncio.BoundedSemaphore(1),
    ],
)
def test_permits_that_are_not_returned_are_found(make: Callable[[], Any]) -> None:
    """With the line that has acquired them."""

    async def main() -> None:
        """Release only if all goes well."""
        permit = make()
        await permit.acquire()
        await op("a")
        permit.release()

    body = running(main)
    assert outcome_of(body).verdict is None
    outcome = outcome_of(body, ERROR)
    assert outcome.verdict is not None
    assert outcome.verdict.kind == "permit not returned"
    assert outcome.verdict.text.startswith("asyncio.")
    assert "test_oracles.py" in outcome.verdict.where
    assert said(outcome_of(body, cancelling("main", 0))).startswith("permit not")


def test_a_permit_of_a_block_comes_back() -> None:
    """Whatever goes wrong in it."""

    async def main() -> None:
        """Use `async with`."""
        async with asyncio.Lock(), asyncio.Semaphore(1):
            await op("a")

    assert outcome_of(running(main), ERROR).verdict is None
    assert outcome_of(running(main), cancelling("main", 0)).verdict is None


def test_a_semaphore_that_is_a_signal_is_no_permit() -> None:
    """It begins with nothing, and whoever acquires it never releases it."""

    async def main() -> None:
        """Signal twice, and wait once."""
        signal = asyncio.Semaphore(0)
        signal.release()
        signal.release()
        await signal.acquire()
        await op("a")

    assert outcome_of(running(main)).verdict is None


def test_a_permit_of_before_is_free_in_the_next_execution() -> None:
    """One that a fixture has made would be held for ever, after one leak."""
    lock, permits = asyncio.Lock(), asyncio.Semaphore(1)

    async def main() -> None:
        """Release only if all goes well."""
        await lock.acquire()
        await permits.acquire()
        await op("a")
        permits.release()
        lock.release()

    with exploring(running(main)) as subject:
        for _ in range(2):
            assert subject(Plan()).verdict is None
            assert said(subject(ERROR)).startswith("permit not returned")


async def one(number: int) -> int:
    """Return what was given."""
    return number


def test_a_slot_of_a_bulkhead_that_is_not_returned_is_found() -> None:
    """As a permit."""

    def body(tta: Harness) -> None:
        bulkhead = BulkheadPrimitive(one, max_concurrency=2)
        tta.run(bulkhead, 1)
        for slots in bulkhead._by_loop._by_loop.values():
            slots.active += 1

    text = "permit not returned: bulkhead: 1 of 2 slots were still taken"
    assert said(outcome_of(body)).startswith(text)


def test_a_probe_of_a_breaker_that_is_not_returned_is_found() -> None:
    """A circuit would stay half-open."""

    async def fail(_: int) -> int:
        """Fail."""
        raise OSError("down")

    def body(tta: Harness) -> None:
        breaker = CircuitBreakerPrimitive(fail, failure_threshold=1, recovery_timeout=1)
        with pytest.raises(OSError, match="down"):
            tta.run(breaker, 1)
        tta.clock.stall(2)
        with pytest.raises(OSError, match="down"):
            tta.run(breaker, 1)
        circuit = breaker._circuit
        circuit.half_open("by hand")
        circuit.admit(2.0)

    text = "permit not returned: circuit_breaker: a probe of the half-open circuit"
    assert said(outcome_of(body)).startswith(text)


# State that survives.


def stateful() -> dict[str, Any]:
    """Return one of each primitive that keeps state."""
    return {
        "bulkhead": BulkheadPrimitive(one, max_concurrency=2),
        "cache": CachePrimitive(one, ttl=60),
        "circuit_breaker": CircuitBreakerPrimitive(one),
        "hedge": HedgePrimitive(one, delay=Quantile(0.9)),
        "rate_limit": RateLimitPrimitive(one, rate=10, period=1),
        "retry": RetryPrimitive(one, budget=RetryBudget()),
    }


@pytest.mark.parametrize("name", stateful())
def test_state_that_survives_an_execution_is_refused(name: str) -> None:
    """The error names primitive, path and test, and shows what to write."""
    kept = stateful()[name]

    def body(tta: Harness) -> None:
        tta.run(kept, 1)

    with exploring(body, test_name="tests/test_shop.py::test_x[1]") as subject:
        assert subject(Plan()).verdict is None
        with pytest.raises(ExplorationError, match=f"^{name} ") as caught:
            subject(Plan())
    text = str(caught.value)
    assert (
        "keeps what it knows from one execution of tests/test_shop.py::test_x" in text
    )
    assert f"with the {type(kept).__name__} in it" in text
    assert "    def test_x(tta):\n" in text


@pytest.mark.parametrize("name", stateful())
def test_state_that_is_made_anew_is_none(name: str) -> None:
    """A factory that is called in the body is what is wanted."""

    def body(tta: Harness) -> None:
        tta.run(stateful()[name], 1)

    with exploring(body) as subject:
        for _ in range(20):
            assert subject(Plan()).verdict is None


def test_a_storage_that_survives_is_refused() -> None:
    """Two caches that share it see each other's entries."""
    storage = MemoryStorage()

    def body(tta: Harness) -> None:
        tta.run(CachePrimitive(one, ttl=60, storage=storage, namespace="n"), 1)

    with exploring(body) as subject:
        subject(Plan())
        with pytest.raises(ExplorationError, match="CachePrimitive"):
            subject(Plan())


def test_a_tree_without_state_may_survive() -> None:
    """A retry counts, and does nothing else by what it has counted."""
    workflow = RetryPrimitive(one, max_retries=1)

    def body(tta: Harness) -> None:
        tta.run(workflow, 1)

    with exploring(body) as subject:
        for _ in range(3):
            assert subject(Plan()).verdict is None


class Bank:
    """A double that a fixture makes once."""

    def __init__(self) -> None:
        self.charges: list[str] = []


def test_doubles_of_fixtures_are_rewound_if_they_are_named() -> None:
    """Charges of one execution do not add up with those of the next."""
    bank = Bank()

    def body(tta: Harness) -> None:
        async def main(_: None) -> None:
            """Charge."""
            async with op("a"):
                bank.charges.append("x")

        tta.run(main, None)
        assert bank.charges == ["x"]

    with exploring(body, keep=[bank]) as subject:
        for _ in range(3):
            assert subject(Plan()).verdict is None
