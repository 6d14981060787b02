"""Observers are told when a stream's own code runs, and when its consumer's does."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from tta_primitives import SequentialPrimitive, WorkflowContext, WorkflowPrimitive
from tta_primitives.door import Interceptor, Observer, listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tta_primitives.door import Call


class Letters(WorkflowPrimitive[str, str]):
    def __init__(self, said: list[str]) -> None:
        self._said = said

    async def execute(self, input_data: str, context: WorkflowContext) -> str:
        return input_data

    async def stream(
        self, input_data: str, context: WorkflowContext
    ) -> AsyncIterator[str]:
        try:
            for letter in input_data:
                self._said.append(f"makes {letter}")
                if letter == "!":
                    raise ValueError("no")
                yield letter
        finally:
            self._said.append("ends")


class Steps(Observer):
    def __init__(self, said: list[str]) -> None:
        self._said = said

    def started(self, call: Call, /) -> None:
        self._said.append(f"started {call.path}")

    def finished(self, call: Call, /) -> None:
        self._said.append(f"finished {call.status}")

    def resumed(self, call: Call, /) -> None:
        self._said.append("in")

    def suspended(self, call: Call, /) -> None:
        self._said.append("out")


async def test_each_chunk_is_between_resumed_and_suspended():
    """The consumer's code runs outside of every pair."""
    said: list[str] = []
    with listening(observers=(Steps(said),)):
        async for letter in Letters(said).stream("ab", WorkflowContext()):
            said.append(f"gets {letter}")  # noqa: PERF401 - said by others, too
    assert said == [
        "started letters",
        *["in", "makes a", "out", "gets a"],
        *["in", "makes b", "out", "gets b"],
        *["in", "ends", "out"],
        *["in", "out"],
        "finished ok",
    ]


async def test_a_stream_that_is_left_early_is_closed_inside_a_pair():
    """What a stream does in `finally` is its own code, too."""
    said: list[str] = []
    with listening(observers=(Steps(said),)):
        async with aclosing(Letters(said).stream("ab", WorkflowContext())) as letters:
            async for _ in letters:
                break
    assert said[3:] == ["out", "in", "ends", "out", "finished cancelled"]


async def test_a_stream_that_fails_is_suspended():
    """An error goes out of the pair like a chunk."""
    said: list[str] = []
    with (
        listening(observers=(Steps(said),)),
        pytest.raises(ValueError, match="no"),
    ):
        async for _ in Letters(said).stream("!", WorkflowContext()):
            pass
    assert said == [
        "started letters",
        *["in", "makes !", "ends", "out", "in", "out"],
        "finished failed",
    ]


async def test_hooks_run_in_the_task_that_asks_for_the_chunk():
    """A consumer that asks from a task of its own each time gets each pair in one."""
    tasks: list[set[str]] = []

    class Tasks(Observer):
        def resumed(self, call: Call, /) -> None:
            tasks.append({asyncio.current_task().get_name()})

        def suspended(self, call: Call, /) -> None:
            tasks[-1].add(asyncio.current_task().get_name())

    with listening(observers=(Tasks(),)):
        letters = Letters([]).stream("ab", WorkflowContext())
        for name in ("first", "second"):
            await asyncio.create_task(anext(letters), name=name)
        await letters.aclose()
    assert tasks[:2] == [{"first"}, {"second"}]


async def test_calls_that_are_executed_are_never_resumed():
    """For them `started` and `finished` are the pair."""
    said: list[str] = []
    with listening(observers=(Steps(said),)):
        await Letters(said).execute("a", WorkflowContext())
    assert said == ["started letters", "finished ok"]


async def test_interceptors_of_a_stream_run_inside_the_pairs():
    """What is put around a stream belongs to it."""
    said: list[str] = []

    class Loud(Interceptor):
        async def stream(self, call, proceed):
            async for letter in proceed():
                said.append("intercepts")
                yield letter.upper()

    with listening(observers=(Steps(said),), interceptors=(Loud(),)):
        found = [x async for x in Letters(said).stream("a", WorkflowContext())]
    assert found == ["A"]
    assert said[1:5] == ["in", "makes a", "intercepts", "out"]


async def test_a_hook_that_raises_does_not_change_the_stream():
    """It is logged once and dropped, as any hook."""

    class Broken(Observer):
        def resumed(self, call: Call, /) -> None:
            raise RuntimeError("broken")

    with listening(observers=(Broken(),)):
        chain = SequentialPrimitive(Letters([]), Letters([]))
        assert [x async for x in chain.stream("ab", WorkflowContext())] == ["a", "b"]
