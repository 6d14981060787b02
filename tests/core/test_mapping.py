"""`MapPrimitive`: many items, so many at a time, in order, and nothing left running."""

from __future__ import annotations

import asyncio
import gc
import sys

import pytest

from pytest_tta.clock.clock import VirtualClock
from tests.core.tools import Log, Paths, Tag
from tests.garbage import only_new_garbage
from tta_primitives import MapPrimitive, WorkflowContext, step
from tta_primitives.door import closing, listening
from tta_primitives.errors import OpenWrapperError

NOTES: list[object] = []


@pytest.fixture(autouse=True)
def _forget():
    NOTES.clear()


@step
async def wait(seconds):
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        NOTES.append(f"{seconds} cancelled")
        raise
    if seconds < 0.5:
        raise ValueError(seconds)
    NOTES.append(seconds)
    return seconds


async def source(*items, step=0.0):
    try:
        for item in items:
            NOTES.append(f"take {item}")
            await asyncio.sleep(step)
            yield item
    finally:
        NOTES.append("closed")


async def reading(mapped, items):
    return [one async for one in mapped.stream(items, WorkflowContext())]


def run(coroutine):
    """Return the output and the virtual seconds that it took."""
    clock = VirtualClock()
    return clock.run(coroutine), clock.elapsed


def mapped(items, **options):
    return MapPrimitive(wait, **options).execute(items, WorkflowContext())


@pytest.mark.parametrize(
    ("limit", "seconds"), [(1, 8.0), (2, 4.0), (3, 3.0), (10, 3.0)]
)
def test_so_many_items_at_a_time(limit, seconds) -> None:
    """A free worker takes the next item; outputs stand in the order of the items."""
    assert run(mapped([3, 1, 1, 2, 1], max_concurrency=limit)) == (
        [3, 1, 1, 2, 1],
        seconds,
    )


def test_unordered_outputs_stand_as_they_were_finished() -> None:
    """The quickest is first."""
    assert run(mapped([3, 1, 2], ordered=False)) == ([1, 2, 3], 3.0)


@pytest.mark.parametrize(
    "make",
    [tuple, iter, dict.fromkeys, set, source],
    ids=["tuple", "iterator", "dict", "set", "async"],
)
def test_items_come_from_anything_iterable(make) -> None:
    """Lists, sets, generators, async generators."""
    items = make(1, 2, 3) if make is source else make([1, 2, 3])
    assert run(mapped(items)) == ([1, 2, 3], 3.0)


def test_no_items_no_outputs() -> None:
    """An empty list is a list."""
    assert run(mapped([])) == ([], 0.0)
    assert run(mapped(source())) == ([], 0.0)
    assert run(reading(MapPrimitive(wait), [])) == ([], 0.0)


@pytest.mark.parametrize("items", ["text", b"bytes", 3, None])
async def test_what_is_no_collection_of_items_is_refused(items) -> None:
    """A text would be taken apart, which nobody means."""
    wanted = (
        f"map needs an iterable or async iterable of items, not {type(items).__name__}"
    )
    with pytest.raises(TypeError, match=wanted):
        await mapped(items)
    with pytest.raises(TypeError, match=wanted):
        await reading(MapPrimitive(wait), items)


@pytest.mark.parametrize("make", [list, lambda items: source(*items)])
def test_a_failure_cancels_the_rest(make) -> None:
    """The item's own error is raised, nothing runs on, and the source is closed."""

    async def main():
        with pytest.raises(ValueError, match=r"0\.1") as raised:
            await mapped(make([3, 0.1, 2, 5]), max_concurrency=3)
        assert raised.value.__context__ is None
        return len(asyncio.all_tasks())

    assert run(main()) == (1, 0.1)
    assert {"3 cancelled", "2 cancelled"} <= set(NOTES)
    assert 5 not in NOTES


def test_several_failures_are_a_group() -> None:
    """Items that fail at the same time are all told."""
    with pytest.raises(ExceptionGroup, match="items of map failed") as raised:
        run(mapped([0.1, 0.1]))
    assert [type(error) for error in raised.value.exceptions] == [ValueError] * 2


def test_exceptions_can_be_collected() -> None:
    """An item's exception stands in its place."""
    (first, second, third), seconds = run(mapped([1, 0.1, 2], return_exceptions=True))
    assert (first, third, seconds) == (1, 2, 2.0)
    assert isinstance(second, ValueError)


def test_cancelling_the_caller_cancels_the_items() -> None:
    """Nothing runs on."""

    async def main():
        task = asyncio.create_task(mapped([5, 5, 5]))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError, match=r"^$"):
            await task
        return len(asyncio.all_tasks())

    assert run(main()) == (1, 1.0)
    assert NOTES == ["5 cancelled"] * 3


def test_an_async_source_is_taken_from_one_by_one() -> None:
    """Two workers never wait for it at once, and it is not read ahead."""
    assert run(mapped(source(1, 1, 1, 1, step=1), max_concurrency=2)) == (
        [1, 1, 1, 1],
        5.0,
    )
    assert "closed" in NOTES


def test_a_stream_yields_as_soon_as_it_can() -> None:
    """In the order of the items, or as they are finished."""

    async def times(ordered):
        mapped = MapPrimitive(wait, max_concurrency=3, ordered=ordered)
        start = asyncio.get_running_loop().time()
        return [
            (one, asyncio.get_running_loop().time() - start)
            async for one in mapped.stream(source(2, 1, 3, 1), WorkflowContext())
        ]

    assert run(times(True))[0] == [(2, 2.0), (1, 2.0), (3, 3.0), (1, 3.0)]
    assert run(times(False))[0] == [(1, 1.0), (2, 2.0), (1, 2.0), (3, 3.0)]


@pytest.mark.parametrize("ordered", [True, False])
def test_a_stream_does_not_run_far_ahead(ordered) -> None:
    """A slow consumer holds the source: endless streams need little memory."""

    async def endless():
        number = 1
        while True:
            NOTES.append(number)
            yield number
            number += 1

    async def main():
        mapped = MapPrimitive(str, max_concurrency=3, ordered=ordered)
        async with closing(mapped.stream(endless(), WorkflowContext())) as stream:
            for _ in range(10):
                await anext(stream)
                await asyncio.sleep(1)
        return max(NOTES), len(asyncio.all_tasks())

    assert run(main())[0] == (16, 1)


def test_a_stream_that_is_left_stops_its_workers() -> None:
    """Items at work are cancelled and awaited, and the source is closed."""

    async def main():
        mapped, items = MapPrimitive(wait, max_concurrency=2), (1, 9, 9, 9, 9, 9)
        async with closing(mapped.stream(source(*items), WorkflowContext())) as stream:
            assert await anext(stream) == 1
        return len(asyncio.all_tasks())

    assert run(main()) == (1, 1.0)
    assert {"9 cancelled", "closed"} <= set(NOTES)


@pytest.mark.parametrize("items", [[0.1, 3], [0.1, 0.1, 3]])
def test_a_stream_raises_what_an_item_raises(items) -> None:
    """The first failure ends the stream and the work on the other items."""

    async def main():
        with pytest.raises(
            (ValueError, ExceptionGroup), match=r"0\.1|items of map failed"
        ) as raised:
            await reading(MapPrimitive(wait), items)
        kind = ValueError if len(items) == 2 else ExceptionGroup
        assert type(raised.value) is kind
        return len(asyncio.all_tasks())

    assert run(main()) == (1, 0.1)
    assert NOTES == ["3 cancelled"]


async def test_failures_leave_no_cyclic_garbage() -> None:
    """Errors, tracebacks and tasks are freed when the caller lets go."""

    async def broken(item):
        raise ValueError(item)

    async def once(execute):
        try:
            await execute([1])
        except ValueError as error:
            del error

    mapped = MapPrimitive(broken)
    for execute in (
        lambda items: mapped.execute(items, WorkflowContext()),
        lambda items: reading(mapped, items),
    ):
        await once(execute)
        with only_new_garbage():
            await once(execute)
            assert gc.collect() == 0


def test_a_source_that_fails_fails_the_map() -> None:
    """Also when only the taking of an item fails."""

    async def breaking():
        yield 1
        raise ConnectionError("lost")

    def broken():
        yield 1
        raise ConnectionError("lost")

    for make in (breaking, broken):
        with pytest.raises(ConnectionError, match="lost"):
            run(mapped(make()))
        with pytest.raises(ConnectionError, match="lost"):
            run(reading(MapPrimitive(wait), make()))


async def test_items_are_told_at_one_path() -> None:
    """Each item is another execution at the same place."""
    log = Log()
    with listening(observers=(log,)):
        await MapPrimitive(Paths()).execute([1, 2], WorkflowContext())
    assert sorted(log.lines) == [
        "< map ok",
        "< map/paths ok",
        "< map/paths ok",
        "> map",
        "> map/paths",
        "> map/paths",
    ]


async def test_a_map_composes() -> None:
    """It is a step like any other, and shows what it does."""
    chain = str.split >> MapPrimitive(str.upper, max_concurrency=2) >> "-".join
    assert await chain.execute("a b", WorkflowContext()) == "A-B"
    assert repr(MapPrimitive(wait, ordered=False)) == (
        "<MapPrimitive 'map' max_concurrency=10 ordered=False>"
    )
    assert MapPrimitive(wait, return_exceptions=True).describe() == {
        "type": "MapPrimitive",
        "name": "map",
        "options": {"max_concurrency": 10, "return_exceptions": True},
        "children": [wait.describe()],
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: MapPrimitive(wait, max_concurrency=0),
            "max_concurrency=0 must be a wh",
        ),
        (lambda: MapPrimitive(wait, max_concurrency=None), "max_concurrency=None must"),
        (lambda: MapPrimitive(wait, ordered=1), "ordered=1 must be True or False"),
        (lambda: MapPrimitive(3), "3 cannot be a step of a workflow"),
    ],
)
def test_wrong_arguments_fail_at_construction(make, message) -> None:
    """The message names the parameter, shows the value and says what is allowed."""
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_an_open_wrapper_cannot_be_mapped() -> None:
    """It has to wrap something first."""
    with pytest.raises(OpenWrapperError, match="wraps nothing yet"):
        MapPrimitive(Tag("T"))


async def leaves_at_one(value):
    if value == 1:
        raise asyncio.CancelledError
    await asyncio.sleep(1)
    return value


@pytest.mark.parametrize("ordered", [True, False])
def test_an_item_that_cancels_itself_is_not_left_out(ordered) -> None:
    """A list that lacks one output would be wrong: the cancellation comes out."""
    every = MapPrimitive(leaves_at_one, max_concurrency=2, ordered=ordered)
    with pytest.raises(asyncio.CancelledError, match=r"^$"):
        VirtualClock().run(every.execute(range(4), WorkflowContext()))


@pytest.mark.parametrize("ordered", [True, False])
def test_a_stream_does_not_leave_out_an_item_that_cancels_itself(ordered) -> None:
    """Nor does it end as if there had been no more items."""
    every = MapPrimitive(leaves_at_one, max_concurrency=2, ordered=ordered)

    async def consume():
        return [output async for output in every.stream(range(4), WorkflowContext())]

    with pytest.raises(asyncio.CancelledError, match=r"^$"):
        VirtualClock().run(consume())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_a_stream_ends_when_its_workers_were_eager() -> None:
    """Workers that end while they are created are counted as well."""
    every = MapPrimitive(str)

    async def consume():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        async with asyncio.timeout(60):
            return [
                output async for output in every.stream(range(3), WorkflowContext())
            ]

    assert VirtualClock().run(consume()) == ["0", "1", "2"]
