"""Random sagas with random ends, beside a book that is kept by hand."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_tta.clock.clock import VirtualClock
from tests.recovery.doubles import Boom
from tta_primitives import (
    MapPrimitive,
    ParallelPrimitive,
    SequentialPrimitive,
    WorkflowContext,
    WorkflowPrimitive,
    step,
)
from tta_primitives.errors import SagaCompensationError, TimeoutExceededError
from tta_primitives.recovery import (
    CompensationPrimitive,
    FallbackPrimitive,
    RetryPrimitive,
    SagaPrimitive,
    TimeoutPrimitive,
)

EXAMPLES = settings(database=None, max_examples=400, deadline=None)
HANG = 3600
# One step more often works than not, or nothing would ever be undone.
OUTCOMES = ["ok", "ok", "ok", "ok", "fail", "hang", "stubborn"]


@dataclass
class Book:
    """What happened in one run, told by the steps themselves.

    Attributes:
        failed: For each saga that did not complete, what it had to undo, last first.
        undone: The executions that were undone, in order.
        broken: Whether a compensation has failed.
    """

    failed: list[list[int]] = field(default_factory=list)
    undone: list[int] = field(default_factory=list)
    broken: bool = False
    serial: count = field(default_factory=count)


# The completed steps of the nearest saga, as the book sees it.
nearest: ContextVar[list[int]] = ContextVar("nearest")


@dataclass(frozen=True)
class Leaf:
    """A step with a compensation: how long both take, and how they end."""

    takes: int
    outcome: str
    undo_takes: int
    undo_fails: bool

    def functions(self, book):
        """Return the step and its compensation."""

        async def work(value):
            with suppress(*([asyncio.CancelledError] * (self.outcome == "stubborn"))):
                await asyncio.sleep(HANG if self.outcome == "hang" else self.takes)
            if self.outcome == "fail":
                raise Boom
            number = next(book.serial)
            nearest.get().append(number)
            return number

        async def undo(record):
            await asyncio.sleep(self.undo_takes)
            book.undone.append(record.output)
            if self.undo_fails:
                book.broken = True
                raise OSError("undo")

        return step(work, name="work"), step(undo, name="undo")

    def build(self, book):
        return CompensationPrimitive(*self.functions(book))


@dataclass(frozen=True)
class Node:
    """Several nodes, put together in one of the ways that there are."""

    kind: str
    parts: tuple[Leaf | Node, ...]

    def build(self, book):
        built = [part.build(book) for part in self.parts]
        makers = {
            "chain": lambda: SequentialPrimitive(*built),
            "parallel": lambda: ParallelPrimitive(*built),
            "items": lambda: EachOf(MapPrimitive(built[0], max_concurrency=2)),
            "retry": lambda: RetryPrimitive(built[0], max_retries=1, initial_delay=1),
            "fallback": lambda: FallbackPrimitive(built[0], built[1:] or [0]),
            "timeout": lambda: TimeoutPrimitive(built[0], timeout_seconds=3),
            "saga": lambda: Audited(SagaPrimitive(SequentialPrimitive(*built)), book),
            "list": lambda: Audited(SagaPrimitive(self.listed(book)), book),
        }
        return makers[self.kind]()

    def listed(self, book):
        """Return the steps of a saga as a list; what has no compensation is alone."""
        return [
            part.functions(book) if isinstance(part, Leaf) else part.build(book)
            for part in self.parts
        ]


class EachOf(WorkflowPrimitive):
    """Gives three items to a primitive."""

    def __init__(self, items):
        self.items = items

    async def execute(self, input_data, context):
        return await self.items.execute([1, 2, 3], context)


class Audited(WorkflowPrimitive):
    """A saga, beside which the book is kept."""

    def __init__(self, saga, book):
        self.saga = saga
        self.book = book

    async def execute(self, input_data, context):
        outer, own = nearest.get(), []
        token = nearest.set(own)
        try:
            output = await self.saga.execute(input_data, context)
        except BaseException:
            self.book.failed.append(own[::-1])
            raise
        finally:
            nearest.reset(token)
        outer.extend(own)
        return output


leaves = st.builds(
    Leaf,
    takes=st.integers(0, 3),
    outcome=st.sampled_from(OUTCOMES),
    undo_takes=st.integers(0, 3),
    undo_fails=st.sampled_from([False, False, False, True]),
)
KINDS = ["chain", "parallel", "items", "retry", "fallback", "timeout", "saga", "list"]
nodes = st.recursive(
    leaves,
    lambda parts: st.builds(
        Node,
        kind=st.sampled_from(KINDS),
        parts=st.lists(parts, min_size=1, max_size=4).map(tuple),
    ),
    max_leaves=10,
)
sagas = st.builds(
    Node,
    kind=st.sampled_from(["saga", "list"]),
    parts=st.lists(nodes, min_size=1, max_size=4).map(tuple),
)


async def end_of(workflow, cancel_at):
    """Run a workflow, cancelling it at these times; return what it came to."""
    loop = asyncio.get_running_loop()
    nearest.set([])
    task = asyncio.create_task(workflow.execute("in", WorkflowContext()))
    for at in cancel_at:
        loop.call_at(at, task.cancel)
    # Whatever hangs is ended at last, as a server would do it.
    loop.call_at(1000, task.cancel)
    await asyncio.wait([task])
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, left
    return asyncio.CancelledError() if task.cancelled() else task.exception()


@EXAMPLES
@given(saga=sagas, cancel_at=st.lists(st.floats(0, 12), max_size=3))
def test_completed_steps_are_undone_in_reverse_each_once(saga, cancel_at):
    """Of every saga that did not complete, exactly what was done in it is undone."""
    book = Book()
    error = VirtualClock().run(end_of(saga.build(book), cancel_at))
    due = [number for numbers in book.failed for number in numbers]
    assert sorted(book.undone) == sorted(due)
    assert len(set(due)) == len(due)
    for numbers in book.failed:
        # Sagas in two branches may undo at the same time.
        assert [n for n in book.undone if n in numbers] == numbers
    if error is None:
        return
    kinds = (asyncio.CancelledError, Boom, TimeoutExceededError, ExceptionGroup)
    assert isinstance(error, kinds)
    if isinstance(error, SagaCompensationError):
        assert book.broken
