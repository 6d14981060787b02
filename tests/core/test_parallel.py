"""`a | b`: order of the outputs, failures, limits, and nothing left running."""

from __future__ import annotations

import asyncio
import gc

import pytest

from pytest_tta.clock.clock import VirtualClock
from tests.garbage import only_new_garbage
from tta_primitives import (
    MapPrimitive,
    ParallelPrimitive,
    WorkflowContext,
    WorkflowPrimitive,
    step,
)
from tta_primitives.errors import TimeoutExceededError
from tta_primitives.recovery import FallbackPrimitive, RetryPrimitive, TimeoutPrimitive

DONE: list[str] = []


@pytest.fixture(autouse=True)
def _forget():
    DONE.clear()


def after(seconds, name, error=None):
    """Return a step that takes its time and then answers or fails."""

    async def work(value):
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            DONE.append(f"{name} cancelled")
            await asyncio.sleep(0.5)
            DONE.append(f"{name} cleaned up")
            raise
        DONE.append(name)
        if error is not None:
            raise error
        return f"{name} {value}"

    return step(work, name=name)


def run(workflow, value=1, context=None):
    """Run in virtual time; return the output and the seconds that it took."""
    clock = VirtualClock()
    try:
        return clock.run(workflow.execute(value, context or WorkflowContext()))
    finally:
        DONE.append(f"{clock.elapsed:g} s")


def test_case_87_outputs_stand_in_operand_order() -> None:
    """Branches run at the same time; who is first does not matter."""
    assert run(after(3, "a") | after(1, "b") | after(2, "c")) == ("a 1", "b 1", "c 1")
    assert DONE == ["b", "c", "a", "3 s"]


def test_case_87_a_failure_cancels_and_awaits_the_others() -> None:
    """The branch's own error is raised, after the others have cleaned up."""
    error = ValueError("b")
    with pytest.raises(ValueError, match="b") as raised:
        run(after(3, "a") | after(1, "b", error) | after(2, "c"))
    assert raised.value is error
    assert raised.value.__context__ is None
    assert DONE == [
        "b",
        "a cancelled",
        "c cancelled",
        "a cleaned up",
        "c cleaned up",
        "1.5 s",
    ]


def test_case_87_several_failures_are_a_group() -> None:
    """Branches that fail at the same time are all told."""
    first, second = ValueError("a"), KeyError("b")
    with pytest.raises(ExceptionGroup, match="branches of parallel failed") as raised:
        run(after(1, "a", first) | after(1, "b", second))
    assert raised.value.exceptions == (first, second)


def test_case_87_a_sole_failure_can_stay_in_a_group() -> None:
    """With `unwrap_single=False` the caller writes `except*` and nothing else."""
    workflow = ParallelPrimitive(
        after(1, "a"), after(1, "b", KeyError("b")), unwrap_single=False
    )
    with pytest.raises(ExceptionGroup, match="branches of parallel failed") as raised:
        run(workflow)
    assert [type(error) for error in raised.value.exceptions] == [KeyError]


def test_case_87_exceptions_can_be_collected() -> None:
    """With `return_exceptions=True` nothing is raised and nothing cancelled."""
    error = ValueError("a")
    workflow = ParallelPrimitive(
        after(1, "a", error), after(2, "b"), return_exceptions=True
    )
    assert run(workflow) == (error, "b 1")


def test_cancelling_the_caller_cancels_the_branches() -> None:
    """Nothing runs on, and the cancellation is not wrapped."""

    async def main():
        branches = after(5, "a") | after(5, "b")
        task = asyncio.create_task(branches.execute(1, WorkflowContext()))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError, match=r"^$"):
            await task
        assert task.cancelled()
        return len(asyncio.all_tasks())

    assert VirtualClock().run(main()) == 1
    assert DONE[:2] == ["a cancelled", "b cancelled"]


def test_collected_exceptions_are_never_cancellations() -> None:
    """`return_exceptions` handles what is an `Exception`, and no more."""

    @step
    async def leave(value):
        raise SystemExit(3)

    with pytest.raises(SystemExit, match="3"):
        run(ParallelPrimitive(leave, return_exceptions=True))


def test_only_so_many_branches_run_at_a_time() -> None:
    """`max_concurrency` starts the next branch when one has ended, in order."""
    branches = [after(1, name) for name in "abcde"]
    workflow = ParallelPrimitive(*branches, max_concurrency=2)
    assert run(workflow) == ("a 1", "b 1", "c 1", "d 1", "e 1")
    assert DONE == ["a", "b", "c", "d", "e", "3 s"]


def test_some_failures_can_be_tolerated() -> None:
    """With `min_success` the exceptions of the others stand in the tuple."""
    error = ValueError("a")
    workflow = ParallelPrimitive(
        after(1, "a", error), after(2, "b"), after(3, "c"), min_success=2
    )
    assert run(workflow) == (error, "b 1", "c 1")


def test_too_many_failures_are_all_told() -> None:
    """When `min_success` is out of reach the rest is cancelled; no error is lost."""
    errors = [ValueError("a"), KeyError("b")]
    workflow = ParallelPrimitive(
        after(1, "a", errors[0]), after(2, "b", errors[1]), after(9, "c"), min_success=2
    )
    with pytest.raises(ExceptionGroup, match="branches of parallel failed") as raised:
        run(workflow)
    assert list(raised.value.exceptions) == errors
    assert DONE[-1] == "2.5 s"


def test_state_is_shared_unless_isolated() -> None:
    """Branches see one `state`, or each its own deep copy."""

    @step
    async def count(value, context):
        context.state["seen"].append(value)
        await asyncio.sleep(1)
        return len(context.state["seen"])

    shared = WorkflowContext(state={"seen": []})
    assert run(ParallelPrimitive(count, count), 1, shared) == (2, 2)
    alone = WorkflowContext(state={"seen": []})
    assert run(ParallelPrimitive(count, count, isolate=True), 1, alone) == (1, 1)
    assert alone.state == {"seen": []}


def test_one_parallel_of_three() -> None:
    """`a | b | c` is flat, keeps options and name, and changes no operand."""
    two = ParallelPrimitive(after(1, "a"), after(1, "b"), max_concurrency=1).named("p")
    three = two | after(1, "c")
    assert len(two.branches) == 2
    assert [child.name for child in three.children()] == ["a", "b", "c"]
    assert (three.name, three.options()) == ("p", {"max_concurrency": 1})
    nested = after(1, "a") | (after(1, "b") | after(1, "c"))
    assert run(nested) == ("a 1", ("b 1", "c 1"))


def test_functions_stand_on_either_side() -> None:
    """Plain functions are branches too."""
    assert run(str | after(1, "a") | abs, -2) == ("-2", "a -2", 2)
    assert run(ParallelPrimitive([str, abs]), -2) == ("-2", 2)


def test_branches_see_paths_of_their_own() -> None:
    """Equal names are told apart by number."""

    @step
    def where(value, context):
        return context.path

    assert run((where | where | where).named("p")) == (
        "p/where",
        "p/where#2",
        "p/where#3",
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"max_concurrency": 0},
            "max_concurrency=0 must be a whole number of at least 1",
        ),
        ({"max_concurrency": True}, "max_concurrency=True must be a whole number"),
        ({"max_concurrency": 1.5}, r"max_concurrency=1\.5 must be a whole number"),
        ({"min_success": 0}, "min_success=0 must be a whole number of at least 1"),
        ({"min_success": 3}, "min_success=3 must be at most the number of branches, 2"),
        ({"isolate": 1}, "isolate=1 must be True or False"),
        ({"unwrap_single": None}, "unwrap_single=None must be True or False"),
        ({"return_exceptions": "yes"}, "return_exceptions='yes' must be True or False"),
    ],
)
def test_wrong_options_fail_at_construction(options, message) -> None:
    """The message names the parameter, shows the value and says what is allowed."""
    with pytest.raises((TypeError, ValueError), match=message):
        ParallelPrimitive(str, abs, **options)


def test_a_parallel_needs_a_branch() -> None:
    """An empty one is a mistake."""
    with pytest.raises(TypeError, match="ParallelPrimitive needs at least one branch"):
        ParallelPrimitive()
    with pytest.raises(TypeError, match="needs at least one branch"):
        ParallelPrimitive([])


def test_failures_leave_no_cyclic_garbage() -> None:
    """The error, its traceback and the tasks are freed when the caller lets go."""

    class Failing(WorkflowPrimitive):
        async def execute(self, value, context):
            raise ValueError(value)

    async def once(workflow):
        try:
            await workflow.execute(1, WorkflowContext())
        except ValueError as error:
            del error

    async def main(workflow):
        await once(workflow)
        with only_new_garbage():
            await once(workflow)
            return gc.collect()

    assert asyncio.run(main(str | Failing())) == 0
    assert asyncio.run(main(ParallelPrimitive(Failing(), max_concurrency=1))) == 0


def test_a_failure_that_ends_its_task_leaves_no_cyclic_garbage() -> None:
    """The task keeps the error, and the group that has run in it is not kept."""

    async def fail(value):
        raise ValueError(value)

    async def main(workflow):
        # In a task of its own, whose error leads to the frame of the parallel.
        task = asyncio.create_task(workflow.execute(1, WorkflowContext()))
        await asyncio.wait([task])
        return type(task.exception())

    async def twice(workflow):
        await main(workflow)
        with only_new_garbage():
            assert await main(workflow) is ValueError
            return gc.collect()

    assert asyncio.run(twice(str | step(fail))) == 0
    assert asyncio.run(twice(ParallelPrimitive(fail, max_concurrency=1))) == 0


def test_a_failure_leaves_no_cancellation_behind() -> None:
    """A limit further outside is still a limit when its time comes."""

    async def fail(value):
        await asyncio.sleep(1)
        raise ValueError

    async def main(workflow):
        with pytest.raises(ValueError, match=r"^$"):
            await workflow.execute([1], WorkflowContext())
        assert asyncio.current_task().cancelling() == 0

    for workflow in (step(fail) | fail, MapPrimitive(fail)):
        limited = TimeoutPrimitive(
            RetryPrimitive(workflow, max_retries=9, jitter="none"), timeout_seconds=4
        )
        clock = VirtualClock()
        with pytest.raises(TimeoutExceededError, match="longer than 4 s"):
            clock.run(limited.execute([1], WorkflowContext()))
        clock.run(main(MapPrimitive(fail)))
    VirtualClock().run(main(ParallelPrimitive(fail, after(9, "b"))))


@pytest.mark.parametrize("kind", ["parallel", "map"])
def test_a_cancellation_that_meets_a_failure_wins(kind) -> None:
    """While the others clean up after a failure, the caller leaves: nothing follows."""
    parallel = after(3, "slow") | after(1, "b", ValueError("b"))
    items = MapPrimitive(parallel, max_concurrency=2)
    workflow = FallbackPrimitive(
        parallel if kind == "parallel" else items, [after(0, "fallback")]
    )

    async def main():
        task = asyncio.create_task(workflow.execute([1], WorkflowContext()))
        await asyncio.sleep(1.2)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        return asyncio.get_running_loop().time()

    assert VirtualClock().run(main()) == 1.5
    assert "fallback" not in DONE
