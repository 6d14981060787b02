"""Real SDKs above, the fake providers below, as a test of a user holds them."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
from typing import TYPE_CHECKING

import anthropic
import httpx2
import openai
import pydantic
import pytest

from pytest_tta.doubles.unexpected import UnexpectedCall
from pytest_tta.faults import at_time, first, nth, stream_cut
from pytest_tta.harness import Harness, HarnessError
from pytest_tta.wire.wire import Wire
from tta_primitives import WorkflowContext, step
from tta_primitives.llm import LLMResponse, ToolCall, Usage
from tta_primitives.recovery import RetryPrimitive, TimeoutPrimitive

if TYPE_CHECKING:
    from pytest_tta.wire.exchange import WireAnswer

KEY = "sk-planted-0123456789"

# As an application does it: at import, long before any test.
openai_client = openai.AsyncOpenAI(api_key=KEY)
anthropic_client = anthropic.AsyncAnthropic(api_key=KEY)


@step
async def chat(question):
    """Ask OpenAI."""
    answer = await openai_client.chat.completions.create(
        model="gpt-5", messages=[{"role": "user", "content": question}]
    )
    return answer.choices[0].message.content


@step
async def respond(question):
    """Ask OpenAI by its newer API."""
    answer = await openai_client.responses.create(model="gpt-5", input=question)
    return answer.output_text


@step
async def claude(question):
    """Ask Anthropic."""
    answer = await anthropic_client.messages.create(
        model="claude-opus",
        max_tokens=100,
        messages=[{"role": "user", "content": question}],
    )
    return answer.content[0].text


class Limited:
    """A fault in as few bytes as will do; the catalogue has better ones."""

    def __init__(self, after) -> None:
        self.after = after

    def on_wire(self, strike) -> WireAnswer:
        """Refuse, and say when to come back."""
        return strike.api.error(
            "rate_limit", headers=[("retry-after", str(self.after))]
        )

    def __repr__(self) -> str:
        return f"Limited({self.after})"


@pytest.fixture
def tta():
    """Enter a harness that the test leaves by itself."""
    with Harness() as harness:
        yield harness


def test_each_api_answers_what_is_scripted(tta) -> None:
    """Chat completions, responses, messages; one script for OpenAI's two."""
    tta.wire.openai.reply("from chat")
    tta.wire.openai.reply("from responses")
    tta.wire.anthropic.reply("from messages")
    assert tta.run(chat, "a") == "from chat"
    assert tta.run(respond, "b") == "from responses"
    assert tta.run(claude, "c") == "from messages"
    assert [request.path for request in tta.wire.requests] == [
        "chat",
        "respond",
        "claude",
    ]


def test_rules_are_by_place_and_condition(tta) -> None:
    """As those of the double are."""
    tta.wire.openai.at("chat").reply("here").always()
    tta.wire.openai.when(contains="refund").reply("no")
    tta.wire.openai.when(lambda call: call.request.model == "gpt-5").reply("elsewhere")
    assert tta.run(respond, "a refund") == "no"
    assert tta.run(chat, "a refund") == "here"
    assert tta.run(respond, "anything") == "elsewhere"


def test_a_stream_comes_at_its_times(tta) -> None:
    """Through the SDK's own stream helper."""
    tta.wire.anthropic.reply(
        stream="one two three", first_token_after=2, tokens_per_second=10
    )

    async def read(question):
        loop = asyncio.get_running_loop()
        async with anthropic_client.messages.stream(
            model="claude-opus",
            max_tokens=100,
            messages=[{"role": "user", "content": question}],
        ) as stream:
            return [(loop.time(), text) async for text in stream.text_stream]

    seen = tta.run(read, "x")
    assert [text for _, text in seen] == ["one ", "two ", "three"]
    assert [at for at, _ in seen] == pytest.approx([2, 2.1, 2.2])


def test_tools_usage_and_reasons_come_through(tta) -> None:
    """All that a response can say."""
    tta.wire.openai.calls_tool("get_weather", city="Paris")
    tta.wire.openai.reply("cut", finish_reason="length", usage=Usage(3, 2))

    async def ask(question):
        return await openai_client.chat.completions.create(
            model="gpt-5", messages=[{"role": "user", "content": question}]
        )

    asked = tta.run(ask, "weather?").choices[0]
    [call] = asked.message.tool_calls
    assert asked.finish_reason == "tool_calls"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    cut = tta.run(ask, "more")
    assert cut.choices[0].finish_reason == "length"
    assert (cut.usage.prompt_tokens, cut.usage.completion_tokens) == (3, 2)


class Invoice(pydantic.BaseModel):
    """What is to be extracted."""

    number: int
    customer: str


def test_data_is_made_for_the_schema_of_the_request(tta) -> None:
    """And parsed by the SDK; equal for equal seeds."""
    tta.wire.openai.generates().times(2)

    async def extract(text):
        answer = await openai_client.chat.completions.parse(
            model="gpt-5",
            messages=[{"role": "user", "content": text}],
            response_format=Invoice,
        )
        return answer.choices[0].message.parsed

    first = tta.run(extract, "x")
    assert isinstance(first, Invoice)
    with Harness() as again:
        again.wire.openai.generates()
        assert again.run(extract, "x") == first
    assert tta.run(extract, "x") != first


def test_functions_answer_sync_or_async(tta) -> None:
    """They are given the call in no vendor's words; data become JSON text."""

    async def later(call):
        await asyncio.sleep(3)
        return LLMResponse(f"later: {call.request.last_user}")

    tta.wire.openai.answers(lambda call: f"now: {call.request.last_user}")
    tta.wire.openai.answers(later)
    tta.wire.openai.answers(lambda _: {"data": [1]})
    assert tta.run(chat, "a") == "now: a"
    assert tta.run(chat, "b") == "later: b"
    assert tta.elapsed == 3
    assert json.loads(tta.run(chat, "c")) == {"data": [1]}


def test_an_hour_of_the_sdks_own_retries_takes_no_time(tta) -> None:
    """Anthropic's SDK waits as long as it is told; every attempt is seen."""
    tta.wire.anthropic.fails(Limited(3600))
    tta.wire.anthropic.reply("at last")
    assert tta.run(claude, "x") == "at last"
    assert tta.elapsed == 3600.0
    assert [one.retry_count for one in tta.wire.anthropic.requests] == [0, 1]
    assert [one.at for one in tta.wire.anthropic.requests] == [0.0, 3600.0]


def test_an_hour_of_our_retries_takes_no_time(tta) -> None:
    """The SDK's retries are off, ours wait as long as they are told."""
    once = anthropic_client.with_options(max_retries=0)

    async def ask(question):
        answer = await once.messages.create(
            model="claude-opus",
            max_tokens=100,
            messages=[{"role": "user", "content": question}],
        )
        return answer.content[0].text

    retried = RetryPrimitive(
        step(ask), max_retries=1, max_retry_after=None, jitter="none"
    )
    tta.wire.anthropic.fails(Limited(3600))
    tta.wire.anthropic.reply("at last")
    assert tta.run(retried, "x") == "at last"
    assert tta.elapsed == 3600.0
    assert [one.retry_count for one in tta.wire.anthropic.requests] == [0, 0]


def test_a_read_timeout_fires_at_its_second(tta) -> None:
    """The first byte comes at 45 s, and the client waits for 30."""
    patient = openai_client.with_options(timeout=30, max_retries=0)

    async def ask(question):
        await patient.chat.completions.create(
            model="gpt-5", messages=[{"role": "user", "content": question}]
        )

    tta.wire.openai.reply("late", delay=45)
    with pytest.raises(openai.APITimeoutError, match="timed out"):
        tta.run(ask, "x")
    assert tta.elapsed == 30.0


def test_our_timeout_closes_the_answer(tta) -> None:
    """Nothing of the exchange is left open when a limit of ours ends it."""
    tta.wire.openai.reply("late", delay=45)
    with pytest.raises(TimeoutError, match="10 s"):
        tta.run(TimeoutPrimitive(chat, timeout_seconds=10), "x")
    [exchange] = tta.wire.exchanges
    assert exchange.is_closed
    assert tta.elapsed == 10.0


def test_blocking_clients_are_answered_too(tta) -> None:
    """In the time of the clock."""
    tta.wire.openai.reply("hello", delay=5)
    with openai.OpenAI(api_key=KEY) as client:
        answer = client.chat.completions.create(
            model="gpt-5", messages=[{"role": "user", "content": "x"}]
        )
    assert answer.choices[0].message.content == "hello"
    assert tta.elapsed == 5


@pytest.mark.parametrize(
    "base_url", ["https://llm.example/v1", "http://localhost:11434/v1"]
)
def test_compatible_servers_are_answered_where_they_are(tta, base_url) -> None:
    """With any base URL, and no confusion with the vendor's own."""
    other = tta.wire.host(base_url)
    assert tta.wire.host(base_url) is other
    other.reply("from the other")
    tta.wire.openai.reply("from OpenAI")
    client = openai.AsyncOpenAI(api_key=KEY, base_url=base_url)

    async def ask(question):
        answer = await client.chat.completions.create(
            model="llama", messages=[{"role": "user", "content": question}]
        )
        return answer.choices[0].message.content

    assert tta.run(ask, "x") == "from the other"
    assert tta.run(chat, "x") == "from OpenAI"
    assert [len(other.requests), len(tta.wire.openai.requests)] == [1, 1]
    tta.run(lambda _: None, None)


def test_a_wrong_host_is_refused_where_it_is_written() -> None:
    """Both words are checked."""
    wire = Wire()
    with pytest.raises(ValueError, match=r"base_url='llm\.example' must be a URL"):
        wire.host("llm.example")
    with pytest.raises(ValueError, match="like='mistral' must be one of"):
        wire.host("https://llm.example", like="mistral")


def test_what_a_provider_would_refuse_is_refused(tta) -> None:
    """With its own error, and no rule is used up."""

    async def ask(question):
        await openai_client.chat.completions.create(model="gpt-5", messages=[])

    tta.wire.openai.reply("fine")
    with pytest.raises(openai.BadRequestError, match="messages"):
        tta.run(ask, "x")
    assert tta.run(chat, "x") == "fine"


# --- faults by schedule ---------------------------------------------------------------


def test_faults_strike_by_schedule_whatever_is_scripted(tta) -> None:
    """Who is refused uses up no reply; each place counts for itself."""
    tta.wire.openai.inject(Limited(2), when=first(2))
    tta.wire.openai.at("chat").reply("from chat")
    tta.wire.openai.at("respond").reply("from respond")
    assert tta.run(chat, "x") == "from chat"
    assert tta.run(respond, "x") == "from respond"
    assert tta.elapsed == 8
    assert [one.retry_count for one in tta.wire.requests] == [0, 1, 2] * 2


def test_a_schedule_counts_time_from_the_start(tta) -> None:
    """An outage from the tenth to the hundredth second."""
    once = openai_client.with_options(max_retries=0)
    tta.wire.openai.inject(Limited(1), when=at_time(10, until=100))
    tta.wire.openai.reply("up").always()

    async def ask(seconds):
        await asyncio.sleep(seconds)
        try:
            await once.responses.create(model="gpt-5", input="x")
        except openai.RateLimitError:
            return "down"
        return "up"

    assert [tta.run(ask, one) for one in (5, 10, 50, 60)] == [
        "up",
        "down",
        "down",
        "up",
    ]


def test_requests_that_wait_for_a_connection_have_numbers_of_their_own(tta) -> None:
    """In the order in which they came, not in that of the pool."""
    numbers = []

    def answered(call):
        numbers.append(call.number)
        return "one"

    tta.wire.openai.answers(answered, delay=1).times(3)
    limits = httpx2.Limits(max_connections=1)

    async def ask(question):
        async with httpx2.AsyncClient(limits=limits, timeout=60) as narrow:
            client = openai.AsyncOpenAI(api_key=KEY, http_client=narrow)
            asked = [
                client.responses.create(model="gpt-5", input=question) for _ in range(3)
            ]
            await asyncio.gather(*asked)

    tta.run(ask, "x")
    assert numbers == [1, 2, 3]
    assert tta.elapsed == 3


def test_what_a_fault_lets_through_uses_a_reply_up(tta) -> None:
    """And where nothing is scripted, a fault needs nothing."""
    tta.wire.openai.inject(Limited(1), when=nth(1))
    with pytest.raises(openai.RateLimitError, match="429"):
        tta.run(ask_once, "x")
    tta.wire.openai.inject(Renamed(), when=nth(2))
    tta.wire.openai.reply("one")
    assert tta.run(ask_once, "x") == "one"
    assert tta.wire.verify() == []


class Renamed:
    """A fault after which the model's answer comes through."""

    def on_wire(self, strike) -> WireAnswer:
        """Answer with one header more."""
        return strike.answer().with_headers(("x-fault", "renamed"))


async def ask_once(question):
    """Ask without the SDK's retries."""
    once = openai_client.with_options(max_retries=0)
    return (await once.responses.create(model="gpt-5", input=question)).output_text


def test_a_fault_that_never_strikes_fails_the_test() -> None:
    """With its line and its schedule; a wrong one is refused at once."""

    def body(tta):
        tta.wire.openai.inject(Limited(1), when=nth(7))
        tta.wire.openai.reply("one")
        tta.run(chat, "x")

    assert re.search(
        r"test_wire.py:\d+ .*: Limited\(1\) never struck: .* none that nth\(7\)",
        problems_of(body),
    )
    with pytest.raises(TypeError, match=r"when=2 must be a schedule, such as first"):
        Wire().openai.inject(Limited(1), when=2)
    with pytest.raises(TypeError, match="fault=7 must be a fault that a provider"):
        Wire().openai.inject(7)


def test_a_fault_that_cannot_happen_to_a_request_says_so() -> None:
    """It is no failure of the provider, which an SDK would retry."""

    def body(tta):
        tta.wire.openai.fails(stream_cut(after_tokens=1))
        with pytest.raises(UnexpectedCall, match="it is not streamed"):
            tta.run(chat, "x")
        assert len(tta.wire.requests) == 1

    assert "stream_cut" in problems_of(body)


# --- what nobody foresaw --------------------------------------------------------------


def problems_of(body):
    """Return what a harness complains of when a test's body is over."""
    try:
        with Harness() as tta:
            body(tta)
    except HarnessError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("ask", [chat, respond, claude], ids=lambda one: one.name)
def test_an_unexpected_request_gets_through_the_sdk_at_once(ask) -> None:
    """One attempt, and the nearest rule with what differs; not the key."""

    def body(tta):
        tta.wire.openai.when(contains="refund").reply("no")
        tta.wire.anthropic.when(contains="refund").reply("no")
        with pytest.raises(UnexpectedCall, match="was not scripted"):
            tta.run(ask, "hello")
        assert len(tta.wire.requests) == 1

    text = problems_of(body)
    assert f"request 1 of {ask.name!r} was not scripted" in text
    assert "user: 'hello'" in text
    assert "the text does not contain 'refund'" in text
    assert "test_wire.py" in text
    assert KEY not in text


def test_an_unexpected_request_that_is_swallowed_fails_the_test() -> None:
    """`gather(return_exceptions=True)` hides it, and the harness tells."""

    async def gathered(question):
        asked = chat.execute(question, WorkflowContext())
        await asyncio.gather(asked, return_exceptions=True)

    def body(tta):
        tta.wire.anthropic.reply("never").optional()
        tta.run(gathered, "x")

    assert "was not scripted" in problems_of(body)


def test_an_api_that_there_is_not_is_named() -> None:
    """Embeddings, for instance."""

    async def embed(text):
        await openai_client.embeddings.create(model="e", input=text)

    def body(tta):
        tta.wire.openai.reply("never").optional()
        with pytest.raises(UnexpectedCall, match="/v1/embeddings"):
            tta.run(embed, "x")

    assert "is for no API of the fake provider" in problems_of(body)


def test_a_reply_that_is_not_used_fails_the_test() -> None:
    """With the line that scripted it."""

    def body(tta):
        tta.wire.openai.reply("a")
        tta.wire.openai.reply("b")
        tta.run(chat, "x")

    assert re.search(
        r"test_wire.py:\d+ .*reply\('b'\) was never used", problems_of(body)
    )


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (lambda wire: wire.openai.raises(ValueError("no")), "a provider sends bytes"),
        (lambda wire: wire.openai.fails(ValueError("no")), "must be a fault that a"),
        (lambda wire: wire.openai.fails(Limited(1), said=7), "said=7 must be a text"),
        (lambda wire: wire.openai.at(""), "must be labels"),
    ],
)
def test_what_cannot_be_sent_is_refused_where_it_is_written(write, text) -> None:
    """Not when it is to be sent."""
    with pytest.raises((TypeError, ValueError), match=text):
        write(Wire())


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (lambda one: one.returns(object()), "cannot be sent as text"),
        (lambda one: one.reply(stream=[(0, ValueError("no"))]), "is a fault"),
        (lambda one: one.generates(), "needs a request that has one"),
    ],
)
def test_what_cannot_be_sent_when_it_is_asked_for_says_why(tta, script, text) -> None:
    """A reply that has no bytes."""
    script(tta.wire.openai)
    with pytest.raises(TypeError, match=text):
        tta.run(chat, "x")


# --- secrets --------------------------------------------------------------------------


def test_keys_are_found_nowhere(tta, caplog) -> None:
    """Neither in requests, nor in traces, logs or texts."""
    caplog.set_level(logging.DEBUG, logger="pytest_tta")
    caplog.set_level(logging.DEBUG, logger="tta_primitives")
    tta.wire.openai.reply("hi")
    tta.wire.anthropic.reply("hi")
    gemini = tta.wire.host("https://llm.example/v1")
    gemini.reply("hi")
    client = openai.AsyncOpenAI(
        api_key=KEY, base_url="https://llm.example/v1", default_query={"key": KEY}
    )

    async def ask(question):
        await client.chat.completions.create(
            model="llama", messages=[{"role": "user", "content": question}]
        )

    for one in (chat, claude, ask):
        tta.run(one, "x")
    for request in tta.wire.requests:
        shown = [repr(request), str(request), request.url, str(dict(request.headers))]
        assert KEY not in "".join(shown)
    assert gemini.requests[0].url == "https://llm.example/v1/chat/completions?key"
    assert KEY not in repr(tta.wire.exchanges)
    assert KEY not in str(tta.trace.outline())
    assert KEY not in caplog.text


# --- several harnesses ----------------------------------------------------------------


def test_clients_that_nobody_closed_are_no_fault_of_a_test(tta) -> None:
    """The SDK closes them in a task of its own when they are garbage."""
    tta.wire.openai.reply("hi")

    async def ask(question):
        client = openai.AsyncOpenAI(api_key=KEY)
        answer = await client.chat.completions.create(
            model="gpt-5", messages=[{"role": "user", "content": question}]
        )
        del client
        gc.collect()
        return answer.choices[0].message.content

    assert tta.run(ask, "x") == "hi"


def test_a_stream_that_is_left_early_is_found_once() -> None:
    """By the audit, which says what to do; not as tasks that nobody has begun."""

    async def first_word(question):
        stream = await openai_client.chat.completions.create(
            model="gpt-5",
            messages=[{"role": "user", "content": question}],
            stream=True,
        )
        async for event in stream:
            if event.choices and event.choices[0].delta.content:
                return event.choices[0].delta.content
        return None

    def body(tta):
        tta.wire.openai.reply(stream="one two three")
        assert tta.run(first_word, "x") == "one "

    found = problems_of(body)
    assert found.startswith("leaked_response: the answer to request 1 ")
    assert "left running" not in found


def test_the_inner_harness_answers_while_it_is_entered(tta) -> None:
    """And the outer one afterwards."""
    tta.wire.openai.reply("outer")
    with Harness() as inner:
        inner.wire.openai.reply("inner")
        assert inner.run(chat, "x") == "inner"
    assert tta.run(chat, "x") == "outer"


def test_a_wire_that_was_scripted_before_is_there_when_it_is_entered() -> None:
    """And not after it was left."""
    harness = Harness()
    harness.wire.openai.reply("early")
    with harness as tta:
        assert tta.run(chat, "x") == "early"


def test_parts_of_a_parallel_answer_by_their_places(tta) -> None:
    """Whichever comes first."""
    tta.wire.openai.at("**/chat").reply("from chat", delay=2)
    tta.wire.openai.at("**/respond").reply("from respond", delay=1)
    assert tta.run(chat | respond, "x") == ("from chat", "from respond")
    assert tta.elapsed == 2


def test_a_tool_call_can_be_scripted_as_a_whole_response(tta) -> None:
    """Broken arguments as well, as models write them."""
    broken = ToolCall("f", broken_arguments='{"a": ')
    said = LLMResponse(tool_calls=(broken,), finish_reason="tool_calls")
    tta.wire.openai.returns(said)

    async def ask(question):
        answer = await openai_client.chat.completions.create(
            model="gpt-5", messages=[{"role": "user", "content": question}]
        )
        return answer.choices[0].message.tool_calls[0].function.arguments

    assert tta.run(ask, "x") == '{"a": '
