"""What was recorded from a server is what every SDK is given afterwards, offline."""

from __future__ import annotations

import asyncio
import importlib
import json
import time

import httpx
import httpx2
import openai
import pytest

from pytest_tta.clock.clock import VirtualClock
from pytest_tta.doubles.unexpected import UnexpectedCall
from pytest_tta.harness import Harness, HarnessError
from pytest_tta.tape import Tape
from pytest_tta.wire.exchange import WireAnswer
from tests.tape.clients import QUESTION, WAYS, chat, chat_stream, openai_options
from tests.tape.server import always, each, echoes, says, serving
from tests.wire.loopback import refusing
from tta_primitives import WorkflowContext, step
from tta_primitives.recovery import HedgePrimitive, TimeoutPrimitive

HOST = "https://api.openai.com"
NOWHERE = "https://llm.example"
WORDS = ((0.1, "one "), (0.2, "two "), (0.4, "three"))


@pytest.mark.parametrize("way", WAYS)
def test_each_sdk_is_given_what_it_was_given_before(way, run) -> None:
    """Chat, responses, messages; streamed or not; async, blocking, in a thread."""
    ask = WAYS[way]
    with serving(says("one two three")) as server:
        real = asyncio.run(ask(server.url))
        recorded = run(lambda _: ask(server.url), mode="once")
        assert len(server.seen) == 2
    played = run(lambda _: ask(NOWHERE))
    # The fake provider numbers its answers, and so the second has other ids.
    assert _without_ids(recorded) == _without_ids(real)
    assert played == recorded


def _without_ids(value):
    text = json.dumps(value, default=str)
    for number in (1, 2):
        text = text.replace(f"{number:018d}", "#")
    return text


@pytest.mark.parametrize("family", ["httpx", "httpx2"])
def test_either_library_is_recorded_and_played(family, run) -> None:
    """Clients without an SDK, too; what comes is bytes of the same meaning."""
    module = importlib.import_module(family)

    def asking(url):
        async def ask(_):
            async with module.AsyncClient(trust_env=False) as client:
                response = await client.post(f"{url}/v1/embeddings", json={"a": 1})
                return response.status_code, response.json()

        return ask

    with serving(always(WireAnswer.of_json({"data": [1.5, None, "é"]}))) as server:
        recorded = run(asking(server.url), mode="once")
    assert recorded == (200, {"data": [1.5, None, "é"]})
    assert run(asking(NOWHERE)) == recorded


async def _arrivals(url):
    """Return when each word of a stream comes, and when it is over."""
    loop = asyncio.get_running_loop()
    async with openai.AsyncOpenAI(**openai_options(url)) as client:
        stream = await client.chat.completions.create(
            model="gpt-5", messages=QUESTION, stream=True
        )
        return [
            loop.time()
            async for chunk in stream
            if chunk.choices and chunk.choices[0].delta.content
        ]


def test_tokens_come_at_their_real_times_on_the_virtual_clock(run, path) -> None:
    """Recording and replay agree to the millisecond, and replay takes no time."""
    with serving(says("", timeline=WORDS, delay=0.1), speed=1) as server:
        recorded = run(lambda _: _arrivals(server.url), mode="once")
    began = time.monotonic()
    played = run(lambda _: _arrivals(NOWHERE))
    assert played == pytest.approx(recorded, abs=1e-9)
    first, second, third = recorded
    # Not earlier than they were sent; how much later is the machine's affair.
    assert first >= 0.2
    assert second - first >= 0.05
    assert third - second >= 0.1
    slow = Tape(path).recordings[0].answer
    assert slow.head_after >= 0.1
    assert [at for at, _ in slow.body] == sorted(at for at, _ in slow.body)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(("factor", "share"), [(1, 1), (2, 0.5), (0.5, 2), (0, 0)])
def test_speed_changes_all_times(factor, share, run) -> None:
    """Twice as fast takes half the time; 0 takes none."""
    with serving(says("", timeline=WORDS, delay=0.1), speed=0.1) as server:
        recorded = run(lambda _: _arrivals(server.url), mode="once")

    def at_speed(tape) -> None:
        tape.speed(factor)

    played = run(lambda _: _arrivals(NOWHERE), before=at_speed)
    assert played == pytest.approx([at * share for at in recorded])


@pytest.mark.parametrize("factor", [-1, True, "fast", float("nan"), float("inf")])
def test_a_wrong_speed_is_refused(factor, path) -> None:
    """By its name and value."""
    with pytest.raises(ValueError, match=r"factor=.* must be a number from 0"):
        Tape(path).speed(factor)


def test_each_recording_is_used_once_and_in_order(run) -> None:
    """Equal requests are given the answers in the order in which they came."""

    async def thrice(url):
        return [(await chat(url))["choices"][0]["message"]["content"] for _ in range(3)]

    with serving(echoes) as server:
        run(lambda _: thrice(server.url), mode="once")
    assert run(lambda _: thrice(NOWHERE)) == [
        "1: How many?",
        "2: How many?",
        "3: How many?",
    ]


def test_requests_at_once_are_told_apart_by_what_they_ask(run, path) -> None:
    """However their answers overlap, and whichever comes first at the replay."""
    asked = [[{"role": "user", "content": word}] for word in "abcdef"]

    async def all_of(url, questions):
        found = await asyncio.gather(*(chat(url, one) for one in questions))
        return [one["choices"][0]["message"]["content"] for one in found]

    with serving(echoes) as server:
        recorded = run(lambda _: all_of(server.url, asked), mode="once")
    assert sorted(one[-1] for one in recorded) == list("abcdef")
    assert run(lambda _: all_of(NOWHERE, asked[::-1])) == recorded[::-1]
    # The file has them in the order of the requests, not of the answers.
    assert [one.body["messages"][0]["content"] for one in Tape(path).recordings] == [
        *"abcdef"
    ]


def test_a_hosts_own_recordings_go_first(run) -> None:
    """Two servers that are asked the same do not get each other's answers."""

    async def both(first, second):
        one, other = await chat(first), await chat(second)
        return [answer["choices"][0]["message"]["content"] for answer in (one, other)]

    with serving(says("here")) as one, serving(says("there")) as other:
        urls = one.url, other.url
        run(lambda _: both(*urls), mode="once")
    assert run(lambda _: both(*urls)) == ["here", "there"]
    assert run(lambda _: both(*urls[::-1])) == ["there", "here"]


def test_the_primitive_that_asked_is_on_the_tape(path) -> None:
    """By its path."""
    with serving(says("hi")) as server:

        @step
        async def llm(_):
            return await chat(server.url)

        workflow = TimeoutPrimitive(llm, timeout_seconds=30).named("answer")
        with Harness(tape=Tape(path, mode="once")) as tta:
            tta.run(workflow, None)
    assert Tape(path).recordings[0].asked_by == "answer/llm"


def test_who_is_cancelled_meanwhile_is_recorded_as_a_whole(run, path) -> None:
    """The slower leg of a hedge, which nobody waits for, plays again at the replay."""

    def hedged(url):
        @step
        async def llm(_):
            return (await chat(url))["choices"][0]["message"]["content"]

        return HedgePrimitive(llm, delay=0.05)

    answers = each(says("slow", delay=0.5), says("fast"))
    with serving(answers, speed=1) as server:
        assert run(hedged(server.url), mode="once") == "fast"
    assert [one.answer.status for one in Tape(path).recordings] == [200, 200]
    assert run(hedged(NOWHERE)) == "fast"


def test_a_timeout_of_the_workflow_is_the_same_both_times(run) -> None:
    """What was given up after a while is given up at the same instant."""

    def limited(url):
        @step
        async def llm(_):
            return await chat(url)

        async def ask(_):
            loop = asyncio.get_running_loop()
            try:
                limited = TimeoutPrimitive(llm, timeout_seconds=0.1)
                await limited.execute(None, WorkflowContext())
            except TimeoutError:
                return loop.time()
            return None

        return ask

    with serving(says("slow", delay=0.4), speed=1) as server:
        assert run(limited(server.url), mode="once") == pytest.approx(0.1)
    assert run(limited(NOWHERE)) == pytest.approx(0.1)


async def _status(url):
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        body = {"model": "gpt-5", "messages": QUESTION}
        response = await client.post(f"{url}/v1/chat/completions", json=body)
        return response.status_code


def test_recording_longer_than_the_clock_may_be_held(path) -> None:
    """A real answer takes as long as it takes, though the clock has a limit."""
    clock = VirtualClock(hold_cap=0.05)
    with (
        serving(says("late", delay=0.3), speed=1) as server,
        Harness(tape=Tape(path, mode="once"), clock=clock) as tta,
    ):
        found = tta.run(lambda _: _status(server.url), None)
    assert found == 200


def test_a_clients_own_timeout_ends_a_recording(run, path) -> None:
    """A server that says nothing is not waited for longer than the client would."""

    async def ask(url):
        try:
            await chat(url, timeout=0.2)
        except openai.APITimeoutError as error:
            return type(error.__cause__).__name__
        return None

    silent = WireAnswer(has_head=False, ending="silent")
    with serving(always(silent)) as server:
        found = run(lambda _: ask(server.url), mode="once", keep_errors=True)
    assert found == "ReadTimeout"
    assert Tape(path).recordings[0].response["ended"] == "silent"
    assert run(lambda _: ask(NOWHERE)) == "ReadTimeout"


# --- what is no success ---------------------------------------------------------

OVERLOADED = WireAnswer.of_json({"error": {"message": "busy"}}, status=529)
EVENTS = WireAnswer.of_events([(0.0, b'data: {"choices":[]}\n\n')])
FAILURES = {
    "status": OVERLOADED,
    "closed before the head": WireAnswer(has_head=False, ending="closed"),
    "reset before the head": WireAnswer(has_head=False, ending="reset"),
    "closed in the stream": EVENTS.cut(1, "closed"),
    "reset in the stream": EVENTS.cut(1, "reset"),
}


async def _outcome(url):
    try:
        return await chat_stream(url)
    except openai.OpenAIError as error:
        cause = type(error.__cause__).__name__
        return type(error).__name__, str(error), cause


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_recorded_if_asked_for(name, run) -> None:
    """The client sees the same error of the real server, recording, and replay."""
    with serving(always(FAILURES[name])) as server:
        real = asyncio.run(_outcome(server.url))
        recorded = run(lambda _: _outcome(server.url), mode="once", keep_errors=True)
    assert recorded == real
    assert run(lambda _: _outcome(NOWHERE)) == real


def test_a_refused_connection_is_recorded_if_asked_for(run) -> None:
    """Though nobody answered at all."""
    with refusing() as url:
        real = asyncio.run(_outcome(url))
        recorded = run(lambda _: _outcome(url), mode="once", keep_errors=True)
    assert recorded == real == run(lambda _: _outcome(NOWHERE))


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_not_recorded_unasked(name, run, path) -> None:
    """The client sees it, and the test fails, as a replay would."""
    with (
        serving(always(FAILURES[name])) as server,
        pytest.raises(HarnessError, match=r"which is not put on the tape.*errors"),
    ):
        run(lambda _: _outcome(server.url), mode="once")
    assert not path.exists()


def test_a_failure_that_was_overcome_is_left_out(run, path) -> None:
    """The SDK's own retry got through: the tape has the answer alone."""
    answers = each(always(OVERLOADED), says("hi"))

    async def ask(url):
        answer = await chat(url, max_retries=1)
        return answer["choices"][0]["message"]["content"]

    with serving(answers) as server:
        assert run(lambda _: ask(server.url), mode="once") == "hi"
    assert [one.answer.status for one in Tape(path).recordings] == [200]
    assert run(lambda _: ask(NOWHERE)) == "hi"


# --- what does not fit ----------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_a_miss_gets_through_every_sdk(way, run) -> None:
    """It is no error of the network to anybody, and there is one attempt."""
    with serving(says("x")) as server:
        run(lambda _: chat(server.url, [{"role": "user", "content": "?"}]), mode="once")

    async def ask(_):
        try:
            return await WAYS[way](NOWHERE, max_retries=3)
        except Exception:
            return "swallowed"

    with pytest.raises(HarnessError, match=r"request 1 of 'ask', POST .* is not on"):
        run(ask)


def test_a_miss_is_told_even_if_it_was_swallowed(run) -> None:
    """By a bare except, for instance."""

    async def ask(_):
        try:
            await chat(NOWHERE)
        except BaseException:
            return "swallowed"

    with pytest.raises(HarnessError, match="there is no such file; record it with"):
        run(ask)


def test_a_miss_shows_in_what_it_differs(run, path) -> None:
    """Path by path, from the recording that is most like it."""
    near = [{"role": "system", "content": "Be brief."}, *QUESTION]
    far = [{"role": "user", "content": "Something else"}]
    now = [{"role": "system", "content": "Be brief!"}, *QUESTION]

    async def both(url):
        await chat(url, far)
        await chat(url, near)

    with serving(says("x")) as server:
        run(lambda _: both(server.url), mode="once")
    with pytest.raises(HarnessError, match="is not on the tape") as caught:
        run(lambda _: chat(NOWHERE, now))
    lines = str(caught.value).splitlines()
    assert lines[0] == (
        f"request 1 of 'lambda', POST {NOWHERE}/v1/chat/completions, is not on the "
        f"tape {path} (at 0 s on the clock)"
    )
    assert lines[1].startswith("  nearest: exchange 2, POST http://127.0.0.1:")
    assert lines[2] == (
        "    messages[0].content: recorded 'Be brief.' / now 'Be brief!'"
    )
    assert lines[3] == (
        "  record what is missing with --tta-record=new, or all of it with "
        "--tta-record=all"
    )


def test_a_miss_shows_the_first_few_of_many_differences(run) -> None:
    """And how many more there are."""

    def asking(url, method, options):
        async def ask(_):
            async with httpx.AsyncClient(trust_env=False) as client:
                await client.request(method, f"{url}/v1/models", json=options)

        return ask

    recorded = dict.fromkeys("abcdef", 1)
    with serving(always(WireAnswer.of_json({}))) as server:
        run(asking(server.url, "POST", recorded), mode="once")
    with pytest.raises(HarnessError, match="is not on the tape") as caught:
        run(asking(NOWHERE, "PUT", dict.fromkeys("abcdef", 2)))
    lines = str(caught.value).splitlines()
    assert lines[2:8] == [
        "    the method: recorded 'POST' / now 'PUT'",
        "    a: recorded 1 / now 2",
        "    b: recorded 1 / now 2",
        "    c: recorded 1 / now 2",
        "    d: recorded 1 / now 2",
        "    and 2 more",
    ]


def test_a_miss_on_a_blank_tape_says_that_it_is_blank(run, path) -> None:
    """The file is there; what it lacks is a recording."""
    path.parent.mkdir()
    path.write_text("tta_tape: 1\nsdk: {}\ncalls: []\n", "utf-8")
    with pytest.raises(HarnessError, match="nothing is recorded on it"):
        run(lambda _: chat(NOWHERE))


def test_a_test_may_name_fields_that_do_not_matter(run) -> None:
    """Beside those that the session ignores; what is not named still counts."""
    options = {"user": "a", "seed": 1}

    def asking(url, **options):
        async def ask(_):
            async with httpx.AsyncClient(trust_env=False) as client:
                return (await client.post(f"{url}/v1/models", json=options)).json()

        return ask

    with serving(always(WireAnswer.of_json({"data": 1}))) as server:
        run(asking(server.url, **options), mode="once")
    ask = asking(NOWHERE, user="b", seed=2)

    def both(tape):
        tape.ignore("user")
        tape.ignore("seed")

    assert run(ask, before=both) == {"data": 1}
    assert run(ask, ignore=["user"], before=lambda tape: tape.ignore("seed"))
    with pytest.raises(HarnessError, match="seed: recorded 1 / now 2"):
        run(ask, before=lambda tape: tape.ignore("user"))


def test_a_second_equal_request_says_that_the_first_used_it_up(run) -> None:
    """And how to let it answer more than once."""
    with serving(says("x")) as server:
        run(lambda _: chat(server.url), mode="once")

    async def twice(_):
        await chat(NOWHERE)
        await chat(NOWHERE)

    with pytest.raises(HarnessError, match=r"it is the same, and was used.*repeat"):
        run(twice)


def test_a_miss_tells_that_the_sdk_is_another(run, path) -> None:
    """Its version is on the tape."""
    with serving(says("x")) as server:
        run(lambda _: chat(server.url), mode="once")
    text = path.read_text("utf-8")
    assert f"openai: {openai.__version__}\n" in text
    old = text.replace(f"openai: {openai.__version__}", "openai: 1.2.3")
    path.write_text(old, "utf-8")
    told = rf"recorded with openai 1\.2\.3, now {openai.__version__}"
    with pytest.raises(HarnessError, match=told):
        run(lambda _: chat_stream(NOWHERE))


def test_what_is_left_over_fails_the_test(run) -> None:
    """Unless it is optional, all of it or by its number."""
    with serving(says("x")) as server:

        async def two(url):
            await chat(url)
            await chat_stream(url)

        run(lambda _: two(server.url), mode="once")
    with pytest.raises(HarnessError, match=r"exchange 2 of the tape .* not asked for"):
        run(lambda _: chat(NOWHERE))
    run(lambda _: chat(NOWHERE), before=lambda tape: tape.optional(2))
    run(lambda _: chat(NOWHERE), before=lambda tape: tape.optional())


def test_a_tape_without_a_file_says_how_to_give_it_one() -> None:
    """A harness outside of pytest knows no test's file."""
    with (
        Harness() as tta,
        pytest.raises(RuntimeError, match=r"Harness\(tape=Tape\('tapes/weather.yaml"),
    ):
        _ = tta.tape


def test_hosts_of_others_are_left_alone(run) -> None:
    """A tape answers models; other services go where they would have gone."""

    def answer(request):
        return httpx.Response(200, text="from elsewhere")

    async def ask(_):
        transport = httpx.MockTransport(answer)
        async with httpx.AsyncClient(transport=transport) as client:
            return (await client.get("https://weather.example/v1")).text

    assert run(ask) == "from elsewhere"

    def with_host(tape) -> None:
        tape.add_host("weather.example")

    with pytest.raises(
        HarnessError, match=r"GET https://weather.example/v1, is not on"
    ):
        run(ask, before=with_host)
    run(ask, before=with_host, mode="once")
    assert run(ask) == "from elsewhere"


def test_an_unexpected_call_is_what_is_raised(path) -> None:
    """The same error as that of the doubles, so that nothing swallows it."""

    async def ask(_):
        with pytest.raises(UnexpectedCall, match="is not on the tape"):
            await chat(HOST)

    told = "is not on the tape"
    with pytest.raises(HarnessError, match=told), Harness(tape=Tape(path)) as tta:
        tta.run(ask, None)


def test_nothing_is_written_when_the_block_fails(run, path) -> None:
    """A recording of a test that fails is worth nothing."""

    async def ask(url) -> None:
        await chat(url)
        raise ValueError("on purpose")

    with serving(says("hi")) as server, pytest.raises(ValueError, match="on purpose"):
        run(lambda _: ask(server.url), mode="all")
    assert not path.exists()


def test_a_timer_that_is_due_meanwhile_does_not_make_an_answer_late(run) -> None:
    """It moves the clock while the answer is fetched; the answer comes when it came."""

    async def ask(url):
        loop = asyncio.get_running_loop()
        status, _ = await asyncio.gather(_status(url), asyncio.sleep(0.1))
        return status, loop.time()

    with serving(says("late", delay=0.4), speed=1) as server:
        recorded = run(lambda _: ask(server.url), mode="once")
    assert run(lambda _: ask(NOWHERE)) == (200, pytest.approx(recorded[1]))
