"""What goes wrong inside of streams: each is told at the end, and nothing is left."""

from __future__ import annotations

import asyncio
import gc
import sys

import pytest

from pytest_tta.wire.exchange import WireAnswer
from tests.llm.bodies import (
    APIS,
    EVENTS,
    event,
    of_events,
    primitive,
    served,
    streamed,
    texts,
    whole,
)
from tests.wire.loopback import loopback
from tta_primitives import WorkflowContext
from tta_primitives.door import closing
from tta_primitives.llm import (
    BrokenToolCallError,
    EmptyResponseError,
    MalformedResponseError,
    ResponseFailedError,
    ResponseFilteredError,
    ResponseRefusedError,
    ResponseTruncatedError,
    StreamEndedError,
)
from tta_primitives.recovery import RetryPrimitive
from tta_primitives.recovery.classify import is_retryable


async def heard(api, answer, **options):
    """Return the texts of a stream, and what it raised at its end."""
    found = []
    async with served(api, answer, **options) as (llm, seen):
        try:
            async with closing(llm.stream("Hi", WorkflowContext())) as stream:
                async for text in stream:
                    found += [text]
        except Exception as error:
            assert len(seen) == 1
            return found, error
    return found, None


def begun(api, *words):
    """Return the events of a stream until its words are said."""
    more = {
        "chat": {"finish": None, "done": False},
        "responses": {"end": None},
        "anthropic": {"stop": None},
    }
    return EVENTS[api](*words, **more[api])


@pytest.mark.parametrize("api", APIS)
async def test_stream_without_a_finish_reason_has_not_ended(api) -> None:
    """The SDKs end such a stream in silence."""
    found, error = await heard(api, of_events(*begun(api, "Hel", "lo")))
    assert found == ["Hel", "lo"]
    assert type(error) is StreamEndedError
    assert isinstance(error, ConnectionError)
    assert (error.response.content, error.finish_reason) == ("Hello", "unknown")
    assert "without a finish reason" in str(error)
    assert is_retryable(error)


@pytest.mark.parametrize("api", APIS)
async def test_stream_without_an_end_is_returned_if_wanted(api) -> None:
    """Nothing is raised, and the outcome tells."""
    answer = of_events(*begun(api, "Hel"))
    context = WorkflowContext()
    async with served(api, answer, on_incomplete="return") as (llm, _):
        assert await texts(llm, context=context) == ["Hel"]
    assert context.outcomes["llm"].finish_reason == "unknown"


@pytest.mark.parametrize("api", APIS)
async def test_end_inside_of_an_event_is_no_end(api) -> None:
    """The last event without its blank line, or cut in its data, is dropped."""
    *first, last = begun(api, "Hel", "lo")[: 6 if api == "anthropic" else None]
    if api == "anthropic":
        *first, last = begun(api, "Hel", "lo")[:5]
    for cut in (last[:-1], last[: len(last) // 2]):
        found, error = await heard(api, of_events(*first, cut))
        assert (found, type(error)) == (["Hel"], StreamEndedError)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("ending", ["closed", "reset"])
async def test_cut_stream_is_an_error_of_the_connection(api, ending) -> None:
    """It is the SDK's own error, or ours if the SDK lets a raw one through."""
    events = begun(api, "Hel", "lo")
    answer = of_events(*events).cut(len(events), ending)
    found, error = await heard(api, answer)
    assert found == ["Hel", "lo"]
    assert _is_named(error)
    assert is_retryable(error)
    if isinstance(error, StreamEndedError):
        assert error.response.content == "Hello"
        assert "was cut" in str(error)
        assert error.__cause__ is not None


def _is_named(error) -> bool:
    module = type(error).__module__.partition(".")[0]
    return module in {"openai", "anthropic", "tta_primitives"}


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("words", [(), ("Hel",)], ids=["first token", "later"])
async def test_silence_ends_with_the_timeout(api, words) -> None:
    """A stream that stalls is given up after `timeout` seconds without a byte."""
    events = begun(api, *words) if words else []
    answer = of_events(*events).cut(len(events), "silent")
    found, error = await heard(api, answer, timeout=0.05)
    assert found == list(words)
    assert _is_named(error)
    assert is_retryable(error)
    assert "Timeout" in f"{type(error).__name__} {error}"


@pytest.mark.parametrize("api", APIS)
async def test_event_that_is_no_json_is_malformed(api) -> None:
    """The error of the parser is the cause, and what came before is kept."""
    name = {"anthropic": "content_block_delta"}.get(api)
    events = [*begun(api, "Hel"), event("{oops", name)]
    found, error = await heard(api, of_events(*events))
    assert (found, type(error)) == (["Hel"], MalformedResponseError)
    assert error.response.content == "Hel"
    assert "an event of its stream is no JSON" in str(error)
    assert error.__cause__ is not None


async def test_error_event_of_a_chat_is_the_sdks() -> None:
    """The SDK has an error for it, which passes unchanged."""
    told = {"error": {"message": "overloaded", "type": "server_error"}}
    events = [*begun("chat", "Hel"), event(told)]
    found, error = await heard("chat", of_events(*events))
    assert (found, type(error).__name__) == (["Hel"], "APIError")
    assert is_retryable(error)


async def test_error_event_of_anthropic_is_the_sdks() -> None:
    """The same for Anthropic's."""
    told = {"type": "overloaded_error", "message": "Overloaded"}
    events = begun("anthropic", "Hel")
    events.append(event({"type": "error", "error": told}, "error"))
    found, error = await heard("anthropic", of_events(*events))
    assert found == ["Hel"]
    assert "overloaded_error" in str(error)
    assert type(error).__module__.startswith("anthropic")
    assert is_retryable(error)


@pytest.mark.parametrize(
    "last",
    [
        {"type": "error", "code": "server_error", "message": "broke", "param": None},
        {
            "type": "response.failed",
            "response": {
                "id": "resp_1",
                "object": "response",
                "status": "failed",
                "output": [],
                "error": {"code": "server_error", "message": "broke"},
            },
        },
    ],
    ids=["error", "failed"],
)
async def test_error_event_of_a_response_is_raised(last) -> None:
    """The SDK hands it on as an event like any other."""
    last = {**last, "sequence_number": 9}
    events = [*begun("responses", "Hel"), event(last, last["type"])]
    found, error = await heard("responses", of_events(*events))
    assert (found, type(error)) == (["Hel"], ResponseFailedError)
    assert error.code == "server_error"
    assert error.response.content == "Hel"


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(whole, id="json"),
        pytest.param(
            lambda api: WireAnswer.of_bytes(b"<html>Sign in</html>", "text/html"),
            id="html",
        ),
        pytest.param(lambda api: of_events(), id="nothing"),
    ],
)
async def test_body_that_is_no_stream_has_no_end(api, answer) -> None:
    """The SDKs make an empty stream of it."""
    found, error = await heard(api, answer(api))
    assert (found, type(error)) == ([], StreamEndedError)


async def test_events_without_names_are_no_stream_of_anthropic() -> None:
    """The SDK passes over all of them."""
    events = [one.partition(b"\n")[2] for one in EVENTS["anthropic"]("Hi")]
    found, error = await heard("anthropic", of_events(*events))
    assert (found, type(error)) == ([], StreamEndedError)


LENGTH = {"incomplete_details": {"reason": "max_output_tokens"}}
FILTER = {"incomplete_details": {"reason": "content_filter"}}


@pytest.mark.parametrize(
    ("api", "more", "kind"),
    [
        ("chat", {"finish": "length"}, ResponseTruncatedError),
        ("chat", {"finish": "content_filter"}, ResponseFilteredError),
        ("responses", {"end": "response.incomplete", **LENGTH}, ResponseTruncatedError),
        ("responses", {"end": "response.incomplete", **FILTER}, ResponseFilteredError),
        ("anthropic", {"stop": "max_tokens"}, ResponseTruncatedError),
        (
            "anthropic",
            {"stop": "refusal", "details": {"category": "cyber"}},
            ResponseRefusedError,
        ),
    ],
)
async def test_stream_is_judged_at_its_end(api, more, kind) -> None:
    """The texts have been given; the error comes in place of the end."""
    found, error = await heard(api, streamed(api, "Hel", **more))
    assert (found, type(error)) == (["Hel"], kind)
    assert error.response.content == "Hel"
    assert not is_retryable(error)


async def test_refusal_of_a_chat_stream_is_told() -> None:
    """A refusal comes in deltas of its own, and is no text of the answer."""
    events = begun("chat")
    refusing = {"delta": {"refusal": "I cannot."}, "index": 0, "finish_reason": None}
    ending = {"delta": {}, "index": 0, "finish_reason": "stop"}
    events += [event({"id": "c", "choices": [one]}) for one in (refusing, ending)]
    found, error = await heard("chat", of_events(*events))
    assert (found, type(error)) == ([], ResponseRefusedError)
    assert error.response.content == "I cannot."


@pytest.mark.parametrize("api", APIS)
async def test_stream_that_says_nothing_is_empty(api) -> None:
    """It has an end and no text."""
    found, error = await heard(api, streamed(api))
    assert (found, type(error)) == ([], EmptyResponseError)


async def test_broken_tool_call_of_a_stream_is_told() -> None:
    """Anthropic's pieces of JSON do not make an object."""
    tools = [("c", "get_weather", ['{"city": "Par'])]
    answer = streamed("anthropic", stop="tool_use", tools=tools)
    found, error = await heard("anthropic", answer)
    assert (found, type(error)) == ([], BrokenToolCallError)


async def test_split_characters_are_put_together() -> None:
    """A character whose bytes come one by one is one character."""
    data = b"".join(EVENTS["chat"]("Füße", "😀"))
    answer = of_events(*[data[i : i + 1] for i in range(len(data))])
    found, error = await heard("chat", answer)
    assert (found, error) == (["Füße", "😀"], None)


@pytest.mark.parametrize("api", APIS)
async def test_retry_repeats_a_stream_that_ended_before_its_first_text(api) -> None:
    """Nothing was given yet, so that another attempt is no harm."""
    answers = (of_events(*begun(api)), streamed(api, "Hi"))
    async with served(api, *answers) as (llm, seen):
        retry = RetryPrimitive(llm, initial_delay=0.001)
        assert await texts(retry) == ["Hi"]
    assert len(seen) == 2


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("how", ["closed", "cancelled"])
async def test_stream_that_is_left_closes_its_connection(api, how) -> None:
    """The server sees the connection end, and no task or generator is left."""
    events = begun(api, "Hel")
    answer = of_events(*events).cut(len(events), "silent")
    async with loopback(lambda *_: answer) as server:
        before = asyncio.all_tasks()
        llm = primitive(api, server.url)
        stream = llm.stream("Hi", WorkflowContext())
        assert await anext(stream) == "Hel"
        (serving,) = asyncio.all_tasks() - before
        if how == "cancelled":
            task = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await stream.aclose()
        pool = llm_pool(llm)
        assert pool == []
        await llm.aclose()
        serving.cancel()
        gc.collect()


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("words", [0, 1, None], ids=["unread", "left", "whole"])
async def test_no_generator_of_an_sdk_is_left_to_the_collector(api, words) -> None:
    """Else the loop would close them in tasks, after the stream has ended."""
    left = []
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=hooks.firstiter, finalizer=left.append)
    try:
        async with served(api, streamed(api, "Hel", "lo", ".")) as (llm, _):
            stream = llm.stream("Hi", WorkflowContext())
            found = [] if words == 0 else [await anext(stream)]
            if words is None:
                found += [text async for text in stream]
            await stream.aclose()
            assert found == ["Hel", "lo", "."][:words]
            gc.collect()
    finally:
        sys.set_asyncgen_hooks(*hooks)
    assert [one for one in left if "Stream" in one.__qualname__] == []


def llm_pool(llm):
    """Return the open connections of a primitive's client on the running loop."""
    from tta_primitives.llm import clients

    (shared,) = clients._clients[asyncio.get_running_loop()].values()
    return shared.first._client._transport._pool.connections
