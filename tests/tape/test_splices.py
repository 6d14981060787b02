"""Faults are put into recordings, and whoever asks again gets the recording."""

from __future__ import annotations

import asyncio

import httpx2
import openai
import pytest

from pytest_tta.faults import keepalives, length, rate_limit, stall, stream_cut
from pytest_tta.harness import HarnessError
from pytest_tta.tape import Tape
from pytest_tta.wire.exchange import WireAnswer
from tests.tape.clients import QUESTION, chat, chat_stream, openai_options
from tests.tape.server import always, echoes, says, serving

NOWHERE = "https://llm.example"
WORDS = tuple((place / 10, f"w{place} ") for place in range(1, 6))


@pytest.fixture
def tape(run):
    """Record a stream of five words, then a whole answer."""
    with serving(says("", timeline=WORDS)) as server:

        async def both(_):
            await chat_stream(server.url)
            await chat(server.url)

        run(both, mode="once")


async def _words(url, **more):
    """Return the words that come, and how it ends."""
    said = []
    try:
        async with openai.AsyncOpenAI(**openai_options(url, **more)) as client:
            stream = await client.chat.completions.create(
                model="gpt-5", messages=QUESTION, stream=True
            )
            async for chunk in stream:
                delta = chunk.choices[0].delta.content if chunk.choices else None
                said += [delta.strip()] if delta else []
    except openai.OpenAIError as error:
        return said, type(error).__name__, type(error.__cause__).__name__
    return said, "end", ""


async def _streams(_):
    """Ask twice for the stream, and once for the answer."""
    first, second = await _words(NOWHERE), await _words(NOWHERE)
    await chat(NOWHERE)
    return first, second


ENDS = {
    "closed": ("APIConnectionError", "RemoteProtocolError"),
    "reset": ("APIConnectionError", "ReadError"),
    "clean": ("end", ""),
}


@pytest.mark.usefixtures("tape")
@pytest.mark.parametrize("how", ENDS)
def test_a_stream_is_cut_after_a_token(how, run) -> None:
    """The first time; whoever asks again gets all of it."""
    first, second = run(_streams, before=lambda tape: tape.cut(after_token=2, how=how))
    assert first == (["w1", "w2"], *ENDS[how])
    assert second == (["w1", "w2", "w3", "w4", "w5"], "end", "")


@pytest.mark.usefixtures("tape")
def test_an_error_comes_before_the_recording(run) -> None:
    """The SDK's own retry waits as it is told, and is answered from the tape."""

    async def ask(_):
        words, _, _ = await _words(NOWHERE, max_retries=1)
        await chat(NOWHERE)
        return words, asyncio.get_running_loop().time()

    words, at = run(ask, before=lambda tape: tape.fault(rate_limit(after=20)))
    assert words == ["w1", "w2", "w3", "w4", "w5"]
    assert 20 <= at < 22


@pytest.mark.usefixtures("tape")
def test_faults_of_one_exchange_happen_one_after_the_other(run) -> None:
    """A limit, then a cut, then the recording."""

    def twice(tape) -> None:
        tape.fault(rate_limit(after=2))
        tape.fault(stream_cut(1, "closed"))

    async def thrice(_):
        found = [await _words(NOWHERE) for _ in range(3)]
        await chat(NOWHERE)
        return found

    limited, cut, whole = run(thrice, before=twice)
    assert limited[1] == "RateLimitError"
    assert cut[:2] == (["w1"], "APIConnectionError")
    assert whole[1] == "end"


@pytest.mark.usefixtures("tape")
def test_a_fault_strikes_the_exchange_of_its_number(run) -> None:
    """And no other one."""

    async def ask(_):
        words = await _words(NOWHERE)
        with pytest.raises(openai.RateLimitError, match="429"):
            await chat(NOWHERE)
        return words[1]

    assert run(ask, before=lambda tape: tape.fault(rate_limit(), nth=2)) == "end"


@pytest.mark.usefixtures("tape")
def test_what_every_client_bears_uses_the_recording_up(run) -> None:
    """There is no reason to ask again."""

    async def ask(_):
        words = await _words(NOWHERE)
        await chat(NOWHERE)
        return words

    found = run(ask, before=lambda tape: tape.fault(keepalives()))
    assert found == (["w1", "w2", "w3", "w4", "w5"], "end", "")
    with pytest.raises(HarnessError, match="it is the same, and was used already"):
        run(_streams, before=lambda tape: tape.fault(keepalives()))


@pytest.mark.usefixtures("tape")
def test_a_stall_ends_at_the_clients_limit(run) -> None:
    """In virtual time, counted from the last token."""

    async def ask(_):
        words = await _words(NOWHERE, timeout=60)
        at = asyncio.get_running_loop().time()
        await chat(NOWHERE)
        return words, at

    words, at = run(ask, before=lambda tape: tape.fault(stall(2)))
    assert words[:2] == (["w1", "w2"], "APITimeoutError")
    assert 60 <= at < 61


@pytest.mark.usefixtures("tape")
def test_what_is_said_otherwise_is_told_by_the_provider(run) -> None:
    """A fault that changes the words gets those of the recording."""

    async def ask(_):
        await _words(NOWHERE)
        answer = await chat(NOWHERE)
        return answer["choices"][0]["finish_reason"]

    assert run(ask, before=lambda tape: tape.fault(length(), nth=2)) == "length"


@pytest.mark.usefixtures("tape")
def test_answers_are_late_by_as_much_as_is_said(run) -> None:
    """One of them, or all; seconds or timedelta."""

    async def ask(_):
        loop = asyncio.get_running_loop()
        await _words(NOWHERE)
        first = loop.time()
        await chat(NOWHERE)
        return first, loop.time()

    first, second = run(ask)
    late = run(ask, before=lambda tape: tape.delay(5, nth=2))
    assert late == pytest.approx((first, second + 5))
    late = run(ask, before=lambda tape: tape.delay(5))
    assert late == pytest.approx((first + 5, second + 10))


@pytest.mark.usefixtures("tape")
def test_a_fault_that_does_not_happen_fails_the_test(run) -> None:
    """By its number."""

    async def ask(_):
        await _words(NOWHERE)
        await chat(NOWHERE)

    def twice(tape) -> None:
        tape.fault(keepalives(), nth=1)
        tape.fault(rate_limit(after=3), nth=1)

    told = r"rate_limit\(after=3.*\) for exchange 1 of the tape .* did not happen"
    with pytest.raises(HarnessError, match=told):
        run(ask, before=twice)


@pytest.mark.usefixtures("tape")
def test_a_fault_that_cannot_happen_fails_the_test(run) -> None:
    """An answer that is no stream cannot be cut like one."""

    async def ask(_):
        await _words(NOWHERE)
        await chat(NOWHERE)

    told = r"stream_cut\(.*\) cannot happen to request 2 .*it is not streamed"
    with pytest.raises(HarnessError, match=told):
        run(ask, before=lambda tape: tape.cut(nth=2))


def test_a_fault_of_an_api_that_nobody_knows_is_refused(run) -> None:
    """It has no form in which it could be said."""

    async def ask(url):
        async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
            await client.post(f"{url}/v1/embeddings", json={"input": "x"})

    with serving(always(WireAnswer.of_json({"data": []}))) as server:
        run(lambda _: ask(server.url), mode="once")
    with pytest.raises(HarnessError, match=r"cannot happen to POST .*/embeddings"):
        run(lambda _: ask(NOWHERE), before=lambda tape: tape.fault(rate_limit()))


@pytest.mark.usefixtures("tape")
@pytest.mark.parametrize(
    ("edit", "error", "told"),
    [
        (lambda tape: tape.fault(rate_limit(), nth=3), ValueError, "has 2 exchanges"),
        (lambda tape: tape.fault(rate_limit(), nth=0), ValueError, "nth=0"),
        (lambda tape: tape.cut(-1), ValueError, "after_token=-1"),
        (lambda tape: tape.cut(how="torn"), ValueError, "how='torn'"),
        (lambda tape: tape.fault("limit"), TypeError, "fault='limit' must be a fault"),
        (lambda tape: tape.delay("long"), TypeError, "duration='long'"),
        (lambda tape: tape.delay(-1), ValueError, "duration=-1"),
        (lambda tape: tape.optional(3), ValueError, "nth=3: the tape"),
        (lambda tape: tape.add_host("https://x"), ValueError, "must be a host such as"),
        (lambda tape: tape.ignore(""), ValueError, "must have a name, such as"),
        (lambda tape: tape.ignore(3), TypeError, "ignored field 3 must be text"),
    ],
)
def test_wrong_arguments_are_refused_by_name(edit, error, told, path) -> None:
    """When they are written, not when they matter."""
    with pytest.raises(error, match=told):
        edit(Tape(path))


def test_a_recording_run_has_the_same_faults(run, path) -> None:
    """The tape gets the whole answer, and the client sees what the replay will show."""

    async def ask(url):
        return [await _words(url), await _words(url)]

    def cut(tape) -> None:
        tape.cut(after_token=3)

    with serving(says("", timeline=WORDS)) as server:
        recorded = run(lambda _: ask(server.url), mode="once", before=cut)
        assert len(server.seen) == 1
    assert len(Tape(path).recordings) == 1
    assert recorded[0][0] == ["w1", "w2", "w3"]
    assert run(lambda _: ask(NOWHERE), before=cut) == recorded


def test_recordings_by_hand_may_answer_often_or_not_at_all(run, path) -> None:
    """`repeat` and `optional`, as a user writes them into the file."""
    with serving(echoes) as server:
        run(lambda _: chat(server.url), mode="once")

    async def ask(times):
        return [
            (await chat(NOWHERE))["choices"][0]["message"]["content"]
            for _ in range(times)
        ]

    text = path.read_text("utf-8")
    path.write_text(text + "  repeat: always\n", "utf-8")
    assert run(lambda _: ask(3)) == ["1: How many?"] * 3
    path.write_text(text + "  repeat: 2\n", "utf-8")
    assert run(lambda _: ask(2)) == ["1: How many?"] * 2
    with pytest.raises(HarnessError, match=r"exchange 1 .* was not asked for"):
        run(lambda _: ask(1))
    path.write_text(text + "  optional: true\n", "utf-8")
    assert run(lambda _: ask(0)) == []


def test_what_a_user_wrote_stays_when_more_is_recorded(run, path) -> None:
    """Mode new adds, and keeps `repeat` and what was edited."""
    with serving(echoes) as server:
        run(lambda _: chat(server.url), mode="once")
        text = path.read_text("utf-8").replace("1: How many?", "edited")
        path.write_text(text + "  repeat: always\n", "utf-8")

        async def more(_):
            again = await chat(server.url)
            other = await chat(server.url, [{"role": "user", "content": "And?"}])
            return [one["choices"][0]["message"]["content"] for one in (again, other)]

        assert run(more, mode="new") == ["edited", "2: And?"]
    assert [one.repeat for one in Tape(path).recordings] == [None, 1]
    # In mode new nothing is sent that is on the tape, and nothing written without need.
    text = path.read_text("utf-8")
    assert run(more, mode="new") == ["edited", "2: And?"]
    assert path.read_text("utf-8") == text
