"""What a person reads who has never heard of a primitive."""

from __future__ import annotations

import asyncio
import re

import openai
import pytest

from pytest_tta.faults import length
from pytest_tta.harness import Harness, HarnessError

client = openai.AsyncOpenAI(api_key="sk-test", max_retries=0)


async def ask(question):
    """Ask, and look at nothing but the text."""
    answer = await client.chat.completions.create(
        model="gpt-5", messages=[{"role": "user", "content": question}]
    )
    return answer.choices[0].message.content


def told(body):
    """Return what a harness complains of when an async body is over."""

    def hold():
        with Harness() as tta:
            tta.clock.run(body(tta))

    with pytest.raises(HarnessError, match=r".") as caught:
        hold()
    return str(caught.value)


def test_a_request_from_no_primitive_is_named_by_the_line_that_sent_it() -> None:
    """The SDK's own lines say nothing to who uses it."""

    async def body(tta):
        tta.wire.openai.when(contains="refund").reply("no").optional()
        await asyncio.gather(ask("hello"), return_exceptions=True)

    first, *rest = told(body).splitlines()[-4:]
    assert re.fullmatch(
        r".*request 1 from .*test_messages\.py:\d+ in ask was not scripted "
        r"\(at 0 s on the loop's clock\)",
        first,
    )
    assert rest[0] == "  input: gpt-5, user: 'hello'"


def test_a_reply_that_nobody_asked_for_says_that_no_request_came() -> None:
    """Whether a workflow was run is another question."""

    async def body(tta):
        tta.wire.openai.reply("hello")

    assert told(body).endswith("reply('hello') was never used: no request came")


def test_a_finding_says_how_to_live_with_it() -> None:
    """In a line that can be copied into the test."""

    def body():
        with Harness() as tta:
            tta.wire.openai.fails(length(), said="one two three")
            assert tta.run(ask, "hello") == "one"

    with pytest.raises(HarnessError, match="accepted_bad_answer: request 1") as caught:
        body()
    last = str(caught.value).splitlines()[-1]
    assert last == "  or let it be: tta_wire.tolerate('accepted_bad_answer')"


def test_an_api_that_there_is_not_is_not_sent_on_to_another_double() -> None:
    """The host is answered here, so nobody else is asked."""

    async def body(tta):
        assert tta.wire.openai.requests == []
        await asyncio.gather(
            client.embeddings.create(model="m", input="x"), return_exceptions=True
        )

    assert told(body).endswith(
        "/v1/embeddings is for no API of the fake provider, which has openai.chat, "
        "openai.responses; replace what asks for it"
    )
