"""Streams: a chain streams when its last leaf does, and everything is closed."""

from __future__ import annotations

import pytest

from tests.core.tools import Log
from tta_primitives import WorkflowContext, WorkflowPrimitive, step
from tta_primitives.door import Interceptor, Observer, closing, listening

CLOSED: list[str] = []


@pytest.fixture(autouse=True)
def _forget():
    CLOSED.clear()


@step
async def tokens(text):
    try:
        for word in text.split():
            yield word
    finally:
        CLOSED.append("tokens")


@step
async def where(value, context):
    yield context.path
    yield value


@step
async def shout(text):
    return text.upper()


class Own(WorkflowPrimitive):
    async def execute(self, value, context):
        return "".join([chunk async for chunk in self.stream(value, context)])

    async def stream(self, value, context):
        yield context.path
        yield value


class NotAGenerator(WorkflowPrimitive):
    async def execute(self, value, context):
        return value

    def stream(self, value, context):
        return Countdown(value)


class Countdown:
    def __init__(self, count) -> None:
        self.count = count

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not self.count:
            raise StopAsyncIteration
        self.count -= 1
        return self.count


async def chunks(workflow, value="a b"):
    return [chunk async for chunk in workflow.stream(value, WorkflowContext())]


async def test_a_chain_streams_when_its_last_leaf_streams() -> None:
    """The steps before it run as always."""
    assert await chunks(shout >> tokens) == ["A", "B"]
    assert await chunks(shout >> Own()) == ["sequential/own", "A B"]
    assert await chunks((shout >> where).named("w")) == ["w/where", "A B"]


async def test_what_cannot_stream_yields_its_output() -> None:
    """One chunk, whatever it is."""
    assert await chunks(tokens >> shout) == ["AB"]
    assert await chunks(shout | shout) == [("A B", "A B")]


async def test_an_executed_stream_is_joined() -> None:
    """Text becomes one text, anything else a list."""
    assert await tokens.execute("a b", WorkflowContext()) == "ab"
    assert await tokens.execute("", WorkflowContext()) == []
    assert await where.execute(3, WorkflowContext()) == ["where", 3]
    assert await Own().execute("x", WorkflowContext()) == "ownx"


async def test_leaving_a_stream_closes_it_at_once() -> None:
    """Whoever stops reading closes what was opened, through the whole chain."""
    async with closing((shout >> tokens).stream("a b", WorkflowContext())) as stream:
        async for chunk in stream:
            assert chunk == "A"
            break
    assert CLOSED == ["tokens"]


async def test_a_stream_need_not_be_a_generator() -> None:
    """Any async iterator serves, heard or not, and need not have `aclose`."""
    assert await chunks(NotAGenerator(), 2) == [1, 0]
    with listening(observers=(Observer(),)):
        assert await chunks(shout >> (lambda _: 2) >> NotAGenerator()) == [1, 0]


async def test_streams_are_told_once() -> None:
    """Start and end are told, with the chunks as the output."""
    outputs = {}

    class Keep(Log):
        def finished(self, call):
            super().finished(call)
            outputs[call.path] = (call.is_stream, call.output)

    log = Keep()
    with listening(observers=(log,)):
        await chunks(shout >> tokens)
    assert log.lines == [
        "> sequential",
        "> sequential/shout",
        "< sequential/shout ok",
        "> sequential/tokens",
        "< sequential/tokens ok",
        "< sequential ok",
    ]
    assert outputs == {
        "sequential/shout": (False, "A B"),
        "sequential/tokens": (True, ["A", "B"]),
        "sequential": (True, ["A", "B"]),
    }


async def test_a_stream_that_is_left_is_told_as_cancelled() -> None:
    """Nobody knows what would have come."""
    log = Log()
    with listening(observers=(log,)):
        async with closing(tokens.stream("a b", WorkflowContext())) as stream:
            await anext(stream)
    assert log.lines == ["> tokens", "< tokens cancelled"]
    assert CLOSED == ["tokens"]


async def test_a_stream_that_fails_is_told_as_failed() -> None:
    """What came before is on the record."""
    kept = []

    class Keep(Observer):
        def finished(self, call):
            kept.append((call.status, call.output, call.error))

    error = ConnectionError("lost")

    @step
    async def breaking(value):
        yield 1
        raise error

    with listening(observers=(Keep(),)), pytest.raises(ConnectionError, match="lost"):
        await chunks(breaking)
    assert kept == [("failed", [1], error)]


async def test_interceptors_act_around_streams() -> None:
    """They may change the chunks and the input, or put another stream in place."""

    class Louder(Interceptor):
        async def stream(self, call, proceed):
            call.input_data += " c"
            async for chunk in proceed():
                yield chunk + "!"

    with listening(interceptors=(Louder(),)):
        assert await chunks(tokens) == ["a!", "b!", "c!"]
