"""What is counted, of whom, and what is left alone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tta.clock.clock import VirtualClock
from pytest_tta.coverage import Collector
from pytest_tta.coverage.collector import current
from tests.coverage import shop
from tta_primitives import (
    WorkflowContext,
    WorkflowPrimitive,
    step,
)
from tta_primitives import primitive as primitives
from tta_primitives.door import is_listening
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import (
    FallbackPrimitive,
    RetryPrimitive,
    SagaPrimitive,
    TimeoutPrimitive,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Collect what the test's own workflows do."""
    made = Collector()
    made.births.begin()
    yield made
    made.births.end()


def run(workflow: WorkflowPrimitive[Any, Any], *inputs: object) -> None:
    """Execute a workflow for each input, one after the other."""

    async def all_of_them() -> None:
        for one in inputs:
            await workflow.execute(one, WorkflowContext())

    in_virtual_time(all_of_them())


def in_virtual_time(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on a virtual clock."""
    VirtualClock().run(work)


def reached(collector: Collector) -> dict[str, list[str]]:
    """Return the outcomes that were reached, by path."""
    return {
        node.path: node.reached(sweep=True)
        for workflow in collector.data.workflows
        for node in workflow.nodes.values()
    }


def test_outcomes_of_every_node_are_counted(collector: Collector) -> None:
    """Also of nodes that never run, which have none."""
    with collector.observing("test_it", "test"):
        run(shop.make_fallback(), 1, 2)
    assert reached(collector) == {
        "fallback": ["primary ok"],
        "fallback/price": ["ok"],
        "fallback/pay": [],
        "fallback/ship": [],
    }
    hit = collector.data.workflows[0].nodes["fallback"].hits["primary ok"]["test"]
    assert (hit.hits, hit.tests) == (2, ["test_it"])


def test_trees_of_one_factory_are_one_workflow(collector: Collector) -> None:
    """Each test makes its own, and they count together."""
    for name in ("test_a", "test_b"):
        with collector.observing(name, "test"):
            run(shop.make_retry(), 1)
    (workflow,) = collector.data.workflows
    assert workflow.nodes["retry"].hits["ok@1"]["test"].tests == ["test_a", "test_b"]


def test_other_constants_are_another_workflow(collector: Collector) -> None:
    """A retry with other limits has other outcomes."""
    with collector.observing("test_it", "test"):
        for number in (1, 2):
            run(RetryPrimitive(shop.pay, max_retries=number), 1)
    first, second = collector.data.workflows
    found = {"ok@3" in one.nodes["retry"].universe for one in (first, second)}
    assert found == {True, False}
    assert first.tree != second.tree
    assert first.place == second.place


def test_sweep_inside_a_test_counts_apart(collector: Collector) -> None:
    """A search of a test begins and ends while the test is observed."""
    made = shop.make_retry()
    with collector.observing("test_it", "test"):
        run(made, 1)
        with collector.observing("test_it", "sweep"):
            run(made, 1, 1, 1)
        run(made, 1)
    ways = collector.data.workflows[0].nodes["retry"].hits["ok@1"]
    assert {via: hit.hits for via, hit in ways.items()} == {"test": 2, "sweep": 3}


def test_nobody_listens_outside(collector: Collector) -> None:
    """What runs before or after costs nothing and counts nothing."""
    assert not is_listening()
    with collector.observing("test_it", "test"):
        assert is_listening()
    assert not is_listening()
    run(shop.make_retry(), 1)
    assert collector.data.workflows == []


def test_lone_step_is_no_workflow(collector: Collector) -> None:
    """The body of a test that `tta.run` executes would be one."""
    with collector.observing("test_it", "test"):
        run(shop.pay, 1)
    assert collector.data.workflows == []


def test_workflow_inside_a_step_is_one_of_its_own(collector: Collector) -> None:
    """Nobody can see it from outside, so it stands beside the one that ran it."""
    inner = shop.make_retry()

    @step
    async def call(item: int) -> Any:
        """Run another workflow."""
        return await inner.execute(item, WorkflowContext())

    with collector.observing("test_it", "test"):
        run(TimeoutPrimitive(call, timeout_seconds=1), 1)
    names = sorted(workflow.name for workflow in collector.data.workflows)
    assert names == ["retry", "timeout"]


def test_streams_are_counted_like_calls(collector: Collector) -> None:
    """A stream that has ended was a success."""
    made = shop.make_retry()

    async def read() -> None:
        """Read a stream to its end."""
        async for _ in made.stream(1, WorkflowContext()):
            pass

    with collector.observing("test_it", "test"):
        in_virtual_time(read())
    assert reached(collector) == {"retry": ["ok@1"], "retry/price": ["ok"]}


def test_limit_outside_cancels_what_is_inside(collector: Collector) -> None:
    """An attempt that a limit ends was cancelled, as far as the retry can see."""

    @step
    async def hang(_: int) -> None:
        """Wait for long."""
        await asyncio.sleep(3600)

    limited = TimeoutPrimitive(RetryPrimitive(hang), timeout_seconds=1)
    workflow = FallbackPrimitive(limited, fallbacks=[0])
    with collector.observing("test_it", "test"):
        run(workflow, 1)
    assert reached(collector) == {
        "fallback": ["ok@value"],
        "fallback/timeout": ["fired"],
        "fallback/timeout/retry": ["cancelled in attempt"],
        "fallback/timeout/retry/hang": ["cancelled"],
        "fallback/value": ["ok"],
    }


def test_reload_is_told_from_a_first_load(collector: Collector) -> None:
    """An entry that has expired is another outcome than one that never was."""
    cache = CachePrimitive(shop.pay, ttl=10)

    async def twice() -> None:
        """Ask again when the time is over."""
        await cache.execute(1, WorkflowContext())
        await asyncio.sleep(10)
        await cache.execute(1, WorkflowContext())

    with collector.observing("test_it", "test"):
        in_virtual_time(twice())
    hits = collector.data.workflows[0].nodes["cache"].hits
    assert {name: ways["test"].hits for name, ways in hits.items()} == {
        "miss": 1,
        "expired": 1,
    }


def test_compensation_that_never_runs_has_no_outcomes(collector: Collector) -> None:
    """Nothing follows the last step that could have it undone."""
    saga = SagaPrimitive([(shop.pay, shop.refund), (shop.ship, shop.recall)])
    with collector.observing("test_it", "test"):
        run(saga, 1)
    nodes = collector.data.workflows[0].nodes
    assert nodes["saga/refund"].universe == ("ok", "failed", "cancelled")
    assert nodes["saga/recall"].universe == ()
    assert nodes["saga"].universe == (
        "complete",
        "fails@pay",
        "fails@ship",
        "compensation fails@pay",
        "cancelled",
    )


def test_names_of_a_saga_may_be_of_several_lines(collector: Collector) -> None:
    """What a name holds does not matter to how the pairs are written down."""

    async def charge(item: int) -> int:
        """Charge."""
        return item

    pay = step(charge, name="pay\tnow\nor never")
    saga = SagaPrimitive([(pay, shop.refund), (shop.ship, shop.recall)])
    with collector.observing("test_it", "test"):
        run(saga, 1)
    nodes = collector.data.workflows[0].nodes
    assert nodes["saga/refund"].universe == ("ok", "failed", "cancelled")


def test_sync_steps_are_no_calls_that_fail(collector: Collector) -> None:
    """What a plain function raises is a matter of ordinary tests."""

    @step
    def double(number: int) -> int:
        """Compute."""
        return 2 * number

    with collector.observing("test_it", "test"):
        run(RetryPrimitive(double), 1)
    nodes = collector.data.workflows[0].nodes
    assert nodes["retry"].universe == ("ok@1",)
    assert nodes["retry/double"].universe == ("ok",)


def test_place_is_where_a_wrapper_was_written(collector: Collector) -> None:
    """Not where a chain has bound it."""
    line = test_place_is_where_a_wrapper_was_written.__code__.co_firstlineno
    retry = RetryPrimitive(max_retries=1)
    workflow = retry >> shop.pay >> shop.ship
    with collector.observing("test_it", "test"):
        run(workflow, 1)
    place = collector.data.workflows[0].nodes["sequential/retry"].place
    assert place.endswith(f"test_collector.py:{line + 3}")


def test_comment_on_the_first_or_last_line_leaves_out(collector: Collector) -> None:
    """Some outcomes by their names, or all of them."""
    first = RetryPrimitive(  # tta: no cover
        shop.pay
    )
    last = RetryPrimitive(
        shop.pay, max_retries=1
    )  # tta: no cover(exhausted, cancelled*)
    with collector.observing("test_it", "test"):
        run(first, 1)
        run(last, 1)
    counted = [one.nodes["retry"].counted for one in collector.data.workflows]
    assert counted == [[], ["ok@1", "ok@2", "not retried", "hint honoured"]]


def test_end_takes_back_what_begin_did() -> None:
    """A second session in this process begins as the first did."""
    copied = primitives._copied
    made = Collector()
    made.births.begin()
    assert primitives._copied is not copied
    made.births.end()
    assert primitives._copied is copied
    assert isinstance(shop.make_retry(), RetryPrimitive)


def test_without_a_session_there_is_no_collector() -> None:
    """Whoever asks is told that nothing is collected."""
    assert current() is None
