"""The context: what a run shares, what belongs to a view, and what travels on."""

from __future__ import annotations

import asyncio
import copy
import json
import re

import pytest

from pytest_tta.clock.clock import VirtualClock
from tests.core.tools import Tag
from tta_primitives import MapPrimitive, WorkflowContext, WorkflowPrimitive, step
from tta_primitives.chance import seeded
from tta_primitives.context import earlier
from tta_primitives.primitive import Wrapper, as_operand

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Twice(Wrapper):
    """A retry in small: two executions of what it wraps, in one key scope."""

    def __init__(self, primitive) -> None:
        self._wrap(as_operand(primitive))

    async def execute(self, value, context):
        one = self._wrapped()
        view = context.below(self, one, one.name)
        view.open_key_scope(self)
        first = await one.execute(value, view)
        view.reopen_key_scope()
        return [first, await one.execute(value, view)]


class InTurn(WorkflowPrimitive):
    """An agent in small: executes the same primitive for one input after another."""

    def __init__(self, primitive) -> None:
        self.primitive = as_operand(primitive)

    async def execute(self, values, context):
        return [await self.primitive.execute(value, context) for value in values]


@step
async def key(value, context):
    return context.idempotency_key


@step
async def other(value, context):
    return context.idempotency_key


def test_ids_and_containers_are_made_when_they_are_read() -> None:
    """Creating a context stores nothing that was not given."""
    context = WorkflowContext()
    assert context._fields is None
    assert re.fullmatch("[0-9a-f]{32}", context.correlation_id)
    assert context.correlation_id == context.correlation_id
    assert context.run_id != context.correlation_id
    assert context.workflow_id is None
    assert context.session_id is None
    assert context.state == context.metadata == context.tags == context.baggage == {}
    assert context.deps == context.outcomes == {}
    assert context.checkpoints == []


def test_what_is_given_is_kept() -> None:
    """Containers are the caller's own objects, not copies."""
    state, deps = {"a": 1}, {"db": object()}
    context = WorkflowContext("c", "w", "s", state=state, deps=deps, tags={"t": "1"})
    assert (context.correlation_id, context.workflow_id) == ("c", "w")
    assert (context.session_id, context.tags) == ("s", {"t": "1"})
    assert context.state is state
    assert context.deps is deps


def test_ids_come_from_the_one_factory() -> None:
    """A seed repeats them."""
    with seeded(7):
        first = (WorkflowContext().correlation_id, WorkflowContext().run_id)
    with seeded(7):
        assert (WorkflowContext().correlation_id, WorkflowContext().run_id) == first


def test_a_child_shares_the_run() -> None:
    """What one view writes, all see; its deadline is its own."""
    root = WorkflowContext(deadline=50.0)
    child = root.child(deadline=20.0)
    child.state["x"] = 1
    child.outcomes["a/b"] = "stale"
    child.workflow_id = "w"
    assert root.state == {"x": 1}
    assert root.outcomes == {"a/b": "stale"}
    assert root.workflow_id == "w"
    assert child.run_id == root.run_id
    assert (root.deadline, child.deadline) == (50.0, 20.0)
    assert child.child(deadline=30.0).deadline == 20.0
    assert root.child().deadline == 50.0
    assert isinstance(child, WorkflowContext)


def test_an_isolated_child_has_a_state_of_its_own() -> None:
    """State is copied deeply; everything else is still shared."""
    root = WorkflowContext(state={"list": [1]})
    child = root.child(isolate=True)
    child.state["list"].append(2)
    child.outcomes["a"] = 1
    child.tags["t"] = "1"
    assert root.state == {"list": [1]}
    assert root.outcomes == {"a": 1}
    assert root.tags == {"t": "1"}
    assert child.run_id == root.run_id
    assert child.correlation_id == root.correlation_id
    assert child.child().state is child.state


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(None, None, None), (1.0, None, 1.0), (None, 2.0, 2.0), (3.0, 2.0, 2.0)],
)
def test_the_earlier_deadline_counts(first, second, expected) -> None:
    """None means that there is no deadline."""
    assert earlier(first, second) == expected


def test_time_is_the_loops() -> None:
    """Elapsed and remaining time, and checkpoints, follow the event loop's clock."""

    async def main():
        loop = asyncio.get_running_loop()
        context = WorkflowContext(deadline=loop.time() + 10)
        await asyncio.sleep(1.5)
        context.child().checkpoint("fetched")
        await asyncio.sleep(1)
        return context.elapsed_ms(), context.checkpoints, context.remaining()

    clock = VirtualClock()
    assert clock.run(main()) == (2500.0, [("fetched", 1500.0)], 7.5)


def test_time_counts_from_the_first_use_in_a_loop() -> None:
    """A context that was made outside has not begun before it is used."""
    context = WorkflowContext()

    async def main():
        first = context.elapsed_ms()
        await asyncio.sleep(2)
        return first, context.elapsed_ms(), context.remaining()

    assert VirtualClock().run(main()) == (0.0, 2000.0, None)


async def test_positions_are_made_of_labels() -> None:
    """A path is the parent's path and the child's label, stored on no primitive."""

    @step
    async def where(value, context):
        return context.path

    workflow = (Tag("a", where) >> where >> where).named("root")
    context = WorkflowContext()
    assert context.path == ""
    assert await workflow.execute(0, context) == "root/where#2"
    assert await Tag("a", where).named("t").execute(0, context) == "a(t/where)"
    assert context.path == ""


async def test_idempotency_keys_are_constant_over_attempts() -> None:
    """Inside a retry each step has a key that all attempts see."""

    class Both(WorkflowPrimitive):
        def __init__(self) -> None:
            self.first, self.second = key, other

        async def execute(self, value, context):
            return (
                await self.first.execute(value, context),
                await self.second.execute(value, context),
            )

    first, second = await Twice(Both()).execute(0, WorkflowContext())
    assert first == second
    assert first[0] != first[1]
    assert re.fullmatch("[0-9a-f]{32}", first[0])


async def test_each_execution_of_a_retry_has_its_own_keys() -> None:
    """Two retries of one step in one run, and two runs, do not share them."""
    twice = Twice(key)
    context = WorkflowContext()
    runs = [await twice.execute(0, context) for _ in range(2)]
    runs.append(await twice.execute(0, WorkflowContext()))
    assert len({run[0] for run in runs}) == 3
    assert all(run[0] == run[1] for run in runs)


async def test_the_callers_key_repeats_a_run() -> None:
    """A redelivered job derives the same keys; outside a retry it sees its own."""
    runs = [
        await Twice(key).execute(0, WorkflowContext(idempotency_key=order))
        for order in ("order-1", "order-1", "order-2")
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert await key.execute(0, WorkflowContext(idempotency_key="order-1")) == "order-1"
    assert await key.execute(0, WorkflowContext()) is None


async def test_keys_hold_across_nested_retries() -> None:
    """When the outer one repeats the inner one, the step's key is still the same."""
    nested = await Twice(Twice(key)).execute(0, WorkflowContext())
    assert len({one for attempt in nested for one in attempt}) == 1


@pytest.mark.parametrize("given", [None, "order-1"])
async def test_items_of_a_map_have_keys_of_their_own(given) -> None:
    """Two items must not look like one request, and stay the same over attempts."""
    context = WorkflowContext(idempotency_key=given)
    first, second = await Twice(MapPrimitive(key)).execute([1, 2], context)
    assert first == second
    assert first[0] != first[1]
    inner = await MapPrimitive(Twice(key)).execute([1, 2], context)
    assert len({one for item in inner for one in item}) == 2
    nested = await Twice(MapPrimitive(MapPrimitive(key))).execute(
        [[1, 2], [3]], context
    )
    assert nested[0] == nested[1]
    assert len({one for row in nested[0] for one in row}) == 3


@pytest.mark.parametrize("given", [None, "order-1"])
async def test_executions_of_a_retry_in_one_attempt_have_keys_of_their_own(
    given,
) -> None:
    """What one attempt does twice is two requests, and both are repeated as such."""
    context = WorkflowContext(idempotency_key=given)
    first, second = await Twice(InTurn(Twice(key))).execute([1, 2], context)
    assert first == second
    assert len({one for execution in first for one in execution}) == 2
    deep = await Twice(MapPrimitive(InTurn(Twice(Twice(key))))).execute(
        [[1, 2], [3, 4]], context
    )
    assert deep[0] == deep[1]
    keys = {str(execution) for item in deep[0] for execution in item}
    assert len(keys) == 4


async def test_branches_and_their_retries_have_keys_of_their_own() -> None:
    """Whichever branch is faster, each has the same keys in the next attempt."""
    first, second = await Twice(Twice(key) | Twice(key) | key).execute(
        0, WorkflowContext()
    )
    assert first == second
    assert len({str(branch) for branch in first}) == 3


async def test_an_items_retries_repeat_with_the_callers_key() -> None:
    """A redelivered job derives the same keys in whatever order its items run."""

    @step
    async def retried(value, context):
        for _ in range(value):
            await asyncio.sleep(0)
        return (await Twice(key).execute(value, context))[0]

    runs = []
    for turns in ([0, 9], [9, 0]):
        context = WorkflowContext(idempotency_key="order-1")
        runs.append(await MapPrimitive(retried).execute(turns, context))
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 2


async def test_the_callers_key_is_told_apart_by_items_of_items() -> None:
    """The numbers of all maps around a step stand in its key."""
    context = WorkflowContext(idempotency_key="order-1")
    keys = await MapPrimitive(MapPrimitive(key)).execute([[1, 2], [3]], context)
    assert keys == [["order-1[0][0]", "order-1[0][1]"], ["order-1[1][0]"]]


async def test_the_callers_key_is_told_apart_by_items() -> None:
    """Without a retry, items see the caller's key with their number."""
    context = WorkflowContext(idempotency_key="order-1")
    keys = await MapPrimitive(key).execute(["a", "b"], context)
    assert keys == ["order-1[0]", "order-1[1]"]
    assert await MapPrimitive(key).execute(["a"], WorkflowContext()) == [None]


def test_headers_carry_the_run_to_another_service() -> None:
    """Names and forms are those of W3C Trace Context and Baggage."""
    context = WorkflowContext(
        "req-1",
        traceparent=PARENT,
        tracestate="vendor=1",
        baggage={"user": "Ä b", "a,b": "1=2"},
    )
    headers = context.to_headers()
    assert headers == {
        "x-correlation-id": "req-1",
        "traceparent": PARENT,
        "tracestate": "vendor=1",
        "baggage": "user=%C3%84%20b,a%2Cb=1%3D2",
    }
    again = WorkflowContext.from_headers(
        {k.title(): f" {v} " for k, v in headers.items()}
    )
    assert again.to_headers() == headers
    assert again.baggage == {"user": "Ä b", "a,b": "1=2"}


@pytest.mark.parametrize(
    "value",
    [
        "",
        "junk",
        PARENT.replace("00-", "ff-", 1),
        PARENT + "-more",
        PARENT.upper(),
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
    ],
)
def test_a_malformed_traceparent_is_left_out(value) -> None:
    """A bad header never fails a request, and takes its tracestate along."""
    context = WorkflowContext.from_headers({"traceparent": value, "tracestate": "v=1"})
    assert (context.traceparent, context.tracestate) == (None, None)


def test_a_later_version_of_traceparent_is_read() -> None:
    """W3C Trace Context asks to accept more fields from a higher version."""
    later = PARENT.replace("00-", "01-", 1) + "-more"
    assert WorkflowContext.from_headers({"traceparent": later}).traceparent == later


@pytest.mark.parametrize("sent", ["a\nERROR forged", "caf\xe9", "a\x1b[2Jb"])
def test_id_that_could_forge_a_line_is_left_out(sent) -> None:
    """Headers of messages in a queue are not checked by any server."""
    context = WorkflowContext.from_headers({"X-Correlation-ID": sent})
    assert context.correlation_id != sent
    assert context.to_headers() == {"x-correlation-id": context.correlation_id}


def test_hostile_headers_are_left_out() -> None:
    """Neither a huge value comes in, nor a line break goes out."""
    context = WorkflowContext.from_headers(
        {"x-correlation-id": "x" * 300, "baggage": "a=" + "b" * 9000}
    )
    assert re.fullmatch("[0-9a-f]{32}", context.correlation_id)
    assert context.baggage == {}
    assert WorkflowContext.from_headers({"baggage": "a, =1,b=2;p=3"}).baggage == {
        "b": "2"
    }
    forged = WorkflowContext("x\r\nset-cookie: a")
    assert forged.to_headers() == {}


def test_a_context_travels_as_plain_data() -> None:
    """All but the live objects; the deadline travels as the seconds that remain."""

    async def main():
        now = asyncio.get_running_loop().time
        context = WorkflowContext(
            "c",
            "w",
            tags={"t": "1"},
            state={"n": [1]},
            metadata={"m": 1},
            deps={"db": object()},
            deadline=now() + 10,
            idempotency_key="k",
        )
        await asyncio.sleep(4)
        data = context.to_dict()
        json.dumps(data)
        assert data["remaining_seconds"] == 6.0
        await asyncio.sleep(100)
        again = WorkflowContext.from_dict(data)
        assert again.remaining() == 6.0
        assert again.to_dict() == data
        assert again.run_id == context.run_id
        assert again.deps == {}
        again.state["n"].append(2)
        assert context.state == {"n": [1]}

    VirtualClock().run(main())


def test_an_empty_description_gives_a_new_context() -> None:
    """Every field of the data is optional."""
    context = WorkflowContext.from_dict({})
    assert context.deadline is None
    assert context.run_id != WorkflowContext.from_dict({}).run_id


def test_repr_shows_what_identifies_it() -> None:
    """The correlation id, the path and the deadline, as far as there are any."""
    context = WorkflowContext("c", deadline=3.0)
    assert repr(context) == "<WorkflowContext correlation_id='c' deadline=3.0>"
    view = context.below(key, other, "other")
    assert repr(view) == (
        "<WorkflowContext correlation_id='c' path='key/other' deadline=3.0>"
    )
    assert repr(view.position_of(other)) == "<Position 'key/other'>"


def test_a_context_can_be_copied() -> None:
    """A shallow copy is another root with the same containers."""
    context = WorkflowContext("c", state={"a": 1}, deadline=2.0)
    twin = copy.copy(context)
    assert twin.state is context.state
    assert (twin.correlation_id, twin.deadline) == ("c", 2.0)
    twin.workflow_id = "other"
    twin.correlation_id = "d"
    assert (context.workflow_id, context.correlation_id) == (None, "c")


def test_a_copy_of_a_context_without_fields_has_fields_of_its_own() -> None:
    """What the copy is given first does not reach the context it was made of."""
    context = WorkflowContext()
    copy.copy(context).state["a"] = 1
    assert context.state == {}


def test_a_context_takes_no_other_attributes() -> None:
    """A typing error is an error, rather than an attribute that nobody reads."""
    with pytest.raises(AttributeError, match="dead_line"):
        WorkflowContext().dead_line = 5.0


async def test_places_are_made_when_they_are_asked_for() -> None:
    """A view remembers who made it, and has one position from the first question on."""
    context = WorkflowContext()
    view = context.below(key, other, "other#2")
    assert isinstance(view._position, tuple)
    assert view.of(other) is view
    assert isinstance(view._position, tuple)
    position = view.position_of(other)
    assert position is view.position_of(other)
    assert (position.path, position.parent.path) == ("key/other#2", "key")


async def test_a_view_of_another_primitive_stands_below() -> None:
    """Who is called with the view of somebody else makes one below that."""
    context = WorkflowContext()
    view = context.below(key, other, "other")
    below = view.of(key)
    assert (view.path, below.path) == ("key/other", "key/other/key")
    assert context.of(key).of(key).path == "key"
    assert context.of(key).below(key, other, "other").path == "key/other"
    assert view.child().path == "key/other"
