"""The contract of the catalogue: each fault is what it says, for the vendors' SDKs.

Every fault is played twice to the real SDKs, streamed and not: by a raw server on a
socket, which is the truth, and by what stands in for the network in a test.
"""

from __future__ import annotations

import asyncio
import json

import openai
import pytest
from pydantic import BaseModel, ValidationError

from pytest_tta.faults import (
    content_filter,
    length,
    overloaded,
    prose_instead_of_json,
    rate_limit,
    refusal,
    tool_args,
    wrong_schema,
)
from pytest_tta.wire.api import Said, WireStrike
from pytest_tta.wire.providers.openai_chat import OpenAIChat
from tests.wire import catalogue_page as page
from tests.wire import record
from tests.wire.loopback import deaf, loopback, refusing
from tests.wire.outcomes import APIS, Outcome
from tests.wire.playing import ask, without_sockets
from tests.wire.rows import ROWS, SECTIONS, TEXT, Row
from tta_primitives.llm import LLMResponse

FAULTS = [fault for faults in SECTIONS.values() for fault in faults]
CHAT, RESPONSES, MESSAGES = APIS
ENDS = {CHAT: "stop", RESPONSES: "completed", MESSAGES: "end_turn"}
# Each row is played once in a session, whichever process it falls to: by the test of
# its group, which looks at all that is said of it.
GROUPS = [
    faults[first : first + 3]
    for faults in SECTIONS.values()
    for first in range(0, len(faults), 3)
]

# Which classes, and after which pauses, the SDKs of today raise.
RAISED = {
    ("rate_limit(after=2, after_ms=1500)", CHAT, "whole"): ("RateLimitError", [1.5]),
    ("rate_limit(after=2, after_ms=1500)", MESSAGES, "stream"): (
        "RateLimitError",
        [1.5],
    ),
    ("rate_limit(date=30)", CHAT, "whole"): ("RateLimitError", [30]),
    ("rate_limit(after=3600)", RESPONSES, "whole"): ("RateLimitError", []),
    ("rate_limit(after=3600)", MESSAGES, "whole"): ("RateLimitError", [3600]),
    ("rate_limit(after=0)", MESSAGES, "whole"): ("RateLimitError", ["own"]),
    ("rate_limit(after=-1)", CHAT, "whole"): ("RateLimitError", ["own"]),
    ("rate_limit(after='soon')", CHAT, "stream"): ("RateLimitError", ["own"]),
    ("rate_limit(after=30, should_retry=False)", CHAT, "whole"): ("RateLimitError", []),
    ("quota_exceeded()", CHAT, "whole"): ("RateLimitError", ["own"]),
    ("overloaded()", MESSAGES, "whole"): ("OverloadedError", ["own"]),
    ("overloaded(in_stream=True)", MESSAGES, "stream"): ("APIStatusError", []),
    ("bad_request(should_retry=True)", CHAT, "whole"): ("BadRequestError", ["own"]),
    ("context_length()", MESSAGES, "whole"): ("BadRequestError", []),
    ("billing()", MESSAGES, "whole"): ("PaymentRequiredError", []),
    ("no_headers()", CHAT, "whole"): ("APITimeoutError ReadTimeout", ["own"]),
    ("slow_connect()", MESSAGES, "stream"): ("APITimeoutError ConnectTimeout", ["own"]),
    ("slow_write()", CHAT, "whole"): ("APITimeoutError WriteTimeout", ["own"]),
    ("dns()", CHAT, "whole"): ("APIConnectionError ConnectError", ["own"]),
    ("reset()", MESSAGES, "whole"): ("APIConnectionError ReadError", ["own"]),
    ("empty_body()", CHAT, "whole"): ("JSONDecodeError", []),
    ("bad_utf8()", CHAT, "whole"): ("UnicodeDecodeError", []),
    ("stream_cut(after_tokens=2)", CHAT, "stream"): (
        "APIConnectionError RemoteProtocolError",
        [],
    ),
    ("stream_cut(after_tokens=2)", MESSAGES, "stream"): ("RemoteProtocolError", []),
    ("stream_cut(after_tokens=2, how='reset')", MESSAGES, "stream"): ("ReadError", []),
    ("stall(after_tokens=2)", CHAT, "stream"): ("APITimeoutError ReadTimeout", []),
    ("stall(after_tokens=2)", MESSAGES, "stream"): ("ReadTimeout", []),
    ("bad_event(after_tokens=2)", RESPONSES, "stream"): ("JSONDecodeError", []),
    ("error_event(after_tokens=2)", CHAT, "stream"): ("APIError", []),
}

# These raise nothing in any SDK, and none of them may be taken as a success.
SILENT = {
    "content_filter(after_tokens=2)",
    "context_length(where='answer', after_tokens=2)",
    "cut_event(after_tokens=2)",
    "cut_event(after_tokens=2, at='blank_line')",
    "empty_choices()",
    "error_in_200()",
    "html_200()",
    "json_instead_of_sse()",
    "length(after_tokens=2)",
    "no_event_lines()",
    "no_finish()",
    "null_200()",
    "pause_turn()",
    "prose_instead_of_json()",
    "refusal()",
    "refusal(category='cyber')",
    "stream_cut(after_tokens=2, how='clean')",
    "tool_args()",
    "tool_args(bad='name')",
    "tool_args(bad='schema')",
    "tool_args(bad='truncated')",
    "wrong_schema()",
}


@pytest.mark.parametrize("faults", GROUPS, ids=lambda faults: repr(faults[0]))
def test_faults_are_what_they_say(faults) -> None:
    """As on a socket, as the tables here have it, and as the page shows it.

    Errors and their causes, texts, pauses and contents are those of a socket.
    """
    played = without_sockets([row for row in ROWS if row.fault in faults])
    assert record.unlike(played) == {}
    assert raised(played) == {
        key: value for key, value in RAISED.items() if key in keys_of(played)
    }
    assert silent(faults, played) == SILENT & set(map(repr, faults))
    assert taken_for_whole(played) == []
    assert harmful(played) == []
    assert otherwise_than_recorded(played) == {}


def keys_of(played) -> dict:
    """Return the rows as the table of what is raised names them."""
    how = {True: "stream", False: "whole"}
    return {(repr(row.fault), row.api, how[row.stream]): row for row in played}


def raised(played) -> dict:
    """Return errors and pauses of those rows that the table tells of."""
    rows = {key: row for key, row in keys_of(played).items() if key in RAISED}
    found = {key: played[row] for key, row in rows.items()}
    return {key: (" ".join(o.errors), list(o.pauses)) for key, o in found.items()}


def silent(faults, played) -> set[str]:
    """Return the faults that must not be accepted, and raise nothing anywhere."""
    return {
        repr(fault)
        for fault in faults
        if not fault.expect.may_accept
        and not any(played[row].errors for row in played if row.fault == fault)
    }


def taken_for_whole(played) -> list[str]:
    """Return what must not be accepted, and leaves an answer as it would have been.

    Prose, other JSON and broken calls are seen in the content itself.
    """
    return [
        str(row)
        for row, outcome in played.items()
        if not row.fault.expect.may_accept
        and not outcome.errors
        and (outcome.text, outcome.ending) == (TEXT, ENDS[row.api])
        and not outcome.more
    ]


def harmful(played) -> list[tuple[str, Outcome]]:
    """Return what is no fault, and yet spoils the text or the reason for its end."""
    harmless = SECTIONS["What is no fault"]
    return [
        (str(row), o)
        for row, o in played.items()
        if row.fault in harmless
        and (o.text, o.ending, o.errors) != (TEXT, ENDS[row.api], ())
    ]


def otherwise_than_recorded(played) -> dict[str, tuple[object, object]]:
    """Return what is not as the page shows it; other versions may do otherwise.

    If there is any, run `python -m tests.wire.catalogue_page`.
    """
    newest = {
        str(one): one.rows for versions in record.read().values() for one in versions
    }
    found = {}
    for one in record.installed_record(played).values():
        kept = newest.get(str(one))
        for name, values in one.rows.items() if kept is not None else ():
            if kept.get(name) != values:
                found[name] = (values, kept.get(name))
    return found


def test_every_row_is_looked_at() -> None:
    """Each is in one group, only one has no socket, and no table tells of others."""
    assert [fault for faults in GROUPS for fault in faults] == FAULTS
    assert {row.fault for row in ROWS} == set(FAULTS)
    assert set(keys_of(ROWS)) >= set(RAISED)
    assert set(map(repr, FAULTS)) >= SILENT
    unresolved = {
        repr(row.fault)
        for row in ROWS
        if row.answer({**page.BODY, "stream": row.stream}).connect == "unresolved"
    }
    assert unresolved == {"dns()"}


def in_virtual_time(fault, api, *, stream=False) -> Outcome:
    row = Row(fault, api, stream)
    return without_sockets([row])[row]


class City(BaseModel):
    """What a structured answer must look like."""

    city: str


class get_weather(BaseModel):  # noqa: N801 - the name of the tool
    """A tool with a schema."""

    city: str


def parse_chat(**options):
    async def call(client):
        reply = await client.chat.completions.parse(
            model="gpt-5", messages=[{"role": "user", "content": "?"}], **options
        )
        return reply.choices[0].message

    return call


def parse_message(client):
    return client.messages.parse(
        model="claude-sonnet-5",
        max_tokens=9,
        messages=[{"role": "user", "content": "?"}],
        output_format=City,
    )


async def stream_message(client):
    tool = {"name": "get_weather", "input_schema": City.model_json_schema()}
    async with client.messages.stream(
        model="claude-sonnet-5",
        max_tokens=9,
        messages=[{"role": "user", "content": "?"}],
        tools=[tool],
    ) as stream:
        return await stream.get_final_message()


TOOLS = [openai.pydantic_function_tool(get_weather)]


@pytest.mark.parametrize(
    ("fault", "api", "call", "error", "words"),
    [
        (
            length(),
            CHAT,
            parse_chat(response_format=City),
            openai.LengthFinishReasonError,
            "length limit",
        ),
        (
            content_filter(),
            CHAT,
            parse_chat(response_format=City),
            openai.ContentFilterFinishReasonError,
            "content filter",
        ),
        (
            wrong_schema(),
            CHAT,
            parse_chat(response_format=City),
            ValidationError,
            "city",
        ),
        (
            prose_instead_of_json(),
            CHAT,
            parse_chat(response_format=City),
            ValidationError,
            "Invalid JSON",
        ),
        (
            tool_args("json"),
            CHAT,
            parse_chat(tools=TOOLS),
            ValidationError,
            "Invalid JSON",
        ),
        (
            tool_args("schema"),
            CHAT,
            parse_chat(tools=TOOLS),
            ValidationError,
            "city",
        ),
        (length(), MESSAGES, parse_message, ValidationError, "Invalid JSON"),
        (wrong_schema(), MESSAGES, parse_message, ValidationError, "city"),
        (
            tool_args("json"),
            MESSAGES,
            stream_message,
            ValueError,
            "Unable to parse tool parameter JSON",
        ),
    ],
)
def test_helpers_of_the_sdks_raise(fault, api, call, error, words) -> None:
    """What `create` passes on in silence, the helpers that parse do not."""
    with pytest.raises(error, match=words):
        ask(fault, api, call)


def test_parse_leaves_a_refusal_unparsed() -> None:
    """It stands in its own field, and there is no data."""
    message = ask(refusal(), CHAT, parse_chat(response_format=City))
    assert (message.parsed, message.content) == (None, None)
    assert message.refusal == "I'm sorry, but I can't help with that."


def test_helper_takes_a_tool_call_that_breaks_off_for_what_is_there() -> None:
    """Anthropic's helper shows the input as if the model had ended it."""
    message = ask(tool_args("truncated"), MESSAGES, stream_message)
    assert message.stop_reason == "max_tokens"
    assert message.content[-1].input == {}


def test_openrouter_tells_the_status_as_a_number() -> None:
    """Its errors have the HTTP status as their code, which the SDK reads as text."""
    api = OpenAIChat("openrouter.chat", status_as_code=True)
    said = Said(response=LLMResponse("hi"))
    strike = WireStrike(api=api, body={}, number=1, said=said)
    answer = rate_limit(after=3).on_wire(strike)
    assert json.loads(answer.body[0][1])["error"]["code"] == 429
    assert answer.header("retry-after") == "3"


def test_same_fault_is_other_words_of_each_vendor() -> None:
    """One fault is 503 for OpenAI and 529 for Anthropic."""
    found = {api: in_virtual_time(overloaded(), api).status for api in APIS}
    assert found == {CHAT: 503, RESPONSES: 503, MESSAGES: 529}


async def test_loopback_refuses_stays_deaf_and_never_accepts() -> None:
    """Its addresses are what they say: refused, accepted but unread, not accepted."""
    loop = asyncio.get_running_loop()

    async def connect(url):
        host, _, port = url.removeprefix("http://").partition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.close()

    with refusing() as url, pytest.raises(ConnectionRefusedError, match="Errno 111"):
        await connect(url)
    with deaf(accepts=True) as url:
        await connect(url)
    with deaf(accepts=False) as url:
        connecting = loop.create_task(connect(url))
        done, _ = await asyncio.wait([connecting], timeout=0.05)
        assert not done
        connecting.cancel()


async def test_loopback_ends_silent_connections() -> None:
    """Leaving it does not wait for what it would never have sent."""
    silent = Row(FAULTS[0], CHAT, stream=False).answer({"model": "m", **page.BODY})
    async with loopback(lambda *_: silent.cut(0, "silent")) as served:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", int(served.url.rpartition(":")[2])
        )
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 429")
    assert await reader.read() != b"never"
    writer.close()


def test_page_shows_what_is_recorded() -> None:
    """Whoever changes the catalogue runs `python -m tests.wire.catalogue_page`."""
    assert page.PATH.read_text("utf-8") == page.text(record.read())


def test_every_row_is_recorded_of_two_majors() -> None:
    """Of today's SDKs, and of those before they took to httpx2."""
    recorded = record.read()
    majors = {sdk: [one.major for one in found] for sdk, found in recorded.items()}
    assert majors == {"openai": [3, 2], "anthropic": [2, 0]}
    for sdk, found in recorded.items():
        rows = {str(row) for row in ROWS if record.sdk_of(row) == sdk}
        assert [set(one.rows) for one in found] == [rows, rows]


def test_record_keeps_older_majors_when_newer_ones_change(tmp_path) -> None:
    """What an older SDK shares with a newer one is still its own."""
    older = record.Recorded("openai", "2.0", {"a": {"text": "x"}, "b": {"text": "y"}})
    today = record.Recorded("openai", "3.0", {"a": {"text": "x"}, "b": {"text": "z"}})
    later = record.Recorded("openai", "3.1", {"a": {"text": "w"}, "b": {"text": "z"}})
    path = tmp_path / "record.json"
    record.write({"openai": [today, older]}, path)
    assert path.read_text("utf-8").count('"a"') == 1
    assert record.read(path) == {"openai": [today, older]}
    record.write(record.merged(record.read(path), {"openai": later}), path)
    assert record.read(path) == {"openai": [later, older]}
    record.write(record.merged({}, {"openai": later}), path)
    assert record.read(path) == {"openai": [later]}
