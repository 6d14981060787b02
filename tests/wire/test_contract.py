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
from tests.wire.loopback import deaf, loopback, refusing
from tests.wire.outcomes import APIS, Outcome
from tests.wire.playing import ask, on_sockets, without_sockets
from tests.wire.rows import ROWS, SECTIONS, TEXT, Row
from tta_primitives.llm import LLMResponse

FAULTS = [fault for faults in SECTIONS.values() for fault in faults]
CHAT, RESPONSES, MESSAGES = APIS
LIMIT = "RateLimitError"
RESET = "stream_cut(after_tokens=2, how='reset')"


@pytest.fixture(scope="module")
def truth():
    """The outcomes of all rows on real sockets."""
    return asyncio.run(on_sockets(ROWS))


@pytest.fixture(scope="module")
def played():
    """The outcomes of all rows without any socket, in virtual time."""
    return without_sockets(ROWS)


def test_what_stands_in_for_the_network_is_as_real(truth, played) -> None:
    """Errors and their causes, texts, pauses and contents are those of a socket.

    Names are not looked up on the loopback; everything else was sent. What a busy
    machine may have spoilt is sent once more.
    """
    unlike = [row for row, outcome in truth.items() if played[row] != outcome]
    again = asyncio.run(on_sockets(unlike))
    assert {row: played[row] for row in unlike} == again
    assert {repr(row.fault) for row in set(played) - set(truth)} == {"dns()"}
    assert set(played) == set(ROWS)


@pytest.mark.parametrize("fault", SECTIONS["What is no fault"], ids=repr)
def test_what_is_no_fault_harms_nobody(fault, played) -> None:
    """Every client gets the whole text, and the reason for its end."""
    ends = {CHAT: "stop", RESPONSES: "completed", MESSAGES: "end_turn"}
    found = [(row, played[row]) for row in ROWS if row.fault == fault]
    assert {(o.text, o.ending, o.errors) for _, o in found} == {
        (TEXT, ends[row.api], ()) for row, _ in found
    }


def in_virtual_time(fault, api, *, stream=False) -> Outcome:
    row = Row(fault, api, stream)
    return without_sockets([row])[row]


@pytest.mark.parametrize(
    ("fault", "api", "how", "errors", "pauses"),
    [
        ("rate_limit(after=2, after_ms=1500)", CHAT, "whole", LIMIT, [1.5]),
        (
            "rate_limit(after=2, after_ms=1500)",
            MESSAGES,
            "stream",
            "RateLimitError",
            [1.5],
        ),
        ("rate_limit(date=30)", CHAT, "whole", LIMIT, [30]),
        ("rate_limit(after=3600)", RESPONSES, "whole", LIMIT, []),
        ("rate_limit(after=3600)", MESSAGES, "whole", LIMIT, [3600]),
        ("rate_limit(after=0)", MESSAGES, "whole", LIMIT, ["own"]),
        ("rate_limit(after=-1)", CHAT, "whole", LIMIT, ["own"]),
        ("rate_limit(after='soon')", CHAT, "stream", LIMIT, ["own"]),
        (
            "rate_limit(after=30, should_retry=False)",
            CHAT,
            "whole",
            "RateLimitError",
            [],
        ),
        ("quota_exceeded()", CHAT, "whole", LIMIT, ["own"]),
        ("overloaded()", MESSAGES, "whole", "OverloadedError", ["own"]),
        ("overloaded(in_stream=True)", MESSAGES, "stream", "APIStatusError", []),
        ("bad_request(should_retry=True)", CHAT, "whole", "BadRequestError", ["own"]),
        ("context_length()", MESSAGES, "whole", "BadRequestError", []),
        ("billing()", MESSAGES, "whole", "PaymentRequiredError", []),
        (
            "no_headers()",
            CHAT,
            "whole",
            "APITimeoutError ReadTimeout",
            ["own"],
        ),
        (
            "slow_connect()",
            MESSAGES,
            "stream",
            "APITimeoutError ConnectTimeout",
            ["own"],
        ),
        ("slow_write()", CHAT, "whole", "APITimeoutError WriteTimeout", ["own"]),
        ("dns()", CHAT, "whole", "APIConnectionError ConnectError", ["own"]),
        ("reset()", MESSAGES, "whole", "APIConnectionError ReadError", ["own"]),
        ("empty_body()", CHAT, "whole", "JSONDecodeError", []),
        ("bad_utf8()", CHAT, "whole", "UnicodeDecodeError", []),
        (
            "stream_cut(after_tokens=2)",
            CHAT,
            "stream",
            "APIConnectionError RemoteProtocolError",
            [],
        ),
        ("stream_cut(after_tokens=2)", MESSAGES, "stream", "RemoteProtocolError", []),
        (
            "stream_cut(after_tokens=2, how='reset')",
            MESSAGES,
            "stream",
            "ReadError",
            [],
        ),
        ("stall(after_tokens=2)", CHAT, "stream", "APITimeoutError ReadTimeout", []),
        ("stall(after_tokens=2)", MESSAGES, "stream", "ReadTimeout", []),
        ("bad_event(after_tokens=2)", RESPONSES, "stream", "JSONDecodeError", []),
        ("error_event(after_tokens=2)", CHAT, "stream", "APIError", []),
    ],
)
def test_sdks_raise(  # noqa: PLR0917 - a row of a table
    played, fault, api, how, errors, pauses
) -> None:
    """Which classes, and after which pauses, the SDKs of today raise."""
    by_name = {str(row): outcome for row, outcome in played.items()}
    outcome = by_name[f"{fault}-{api}-{how}"]
    assert (" ".join(outcome.errors), list(outcome.pauses)) == (errors, pauses)


SILENT = (
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
)


def test_many_faults_are_silent(played) -> None:
    """These raise nothing in any SDK, and none of them may be taken as a success."""
    quiet = {
        repr(fault)
        for fault in FAULTS
        if not fault.expect.may_accept
        and not any(played[row].errors for row in ROWS if row.fault == fault)
    }
    assert sorted(quiet) == sorted(SILENT)


def test_whoever_may_not_take_an_answer_is_shown_why(played) -> None:
    """No fault that must not be accepted leaves an answer as it would have been.

    Prose, other JSON and broken calls are seen in the content itself.
    """
    ends = {CHAT: "stop", RESPONSES: "completed", MESSAGES: "end_turn"}
    unseen = [
        row
        for row in ROWS
        if not row.fault.expect.may_accept
        and not played[row].errors
        and (played[row].text, played[row].ending) == (TEXT, ends[row.api])
        and not played[row].more
    ]
    assert unseen == []


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


def test_page_is_up_to_date(played) -> None:
    """It shows what the SDKs do today; of SDKs in other versions nothing is compared.

    If this fails, run `python -m tests.wire.catalogue_page`.
    """
    written, made = page.PATH.read_text("utf-8"), page.text(played)
    assert page.comparable(written, made) == page.comparable(made, written)
    if page.versions_of(written) == page.VERSIONS:
        assert written == made


def test_page_of_other_versions_is_compared_in_part() -> None:
    """What an SDK in another version does is no reason to fail."""
    shown = f"| fault | wire | correct | {' | '.join(APIS)} |"
    mine = f"{shown}\n| `a()` | 1 | give up | `A` | `B` | `C` |\n| openai | 1 |\n"
    theirs = mine.replace("`A`", "`Z`").replace("openai | 1", "openai | 2")
    with_anthropic = "| anthropic | 3 |\n"
    kept = page.comparable(mine + with_anthropic, theirs + with_anthropic)
    assert kept == page.comparable(theirs + with_anthropic, mine + with_anthropic)
    assert ["`a()`", "1", "give up", "`C`"] in kept
