"""Clients: made when needed, shared, bounded by deadlines, and closed in the end."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import warnings

import anthropic
import httpx2
import openai
import pytest

from pytest_tta.wire.exchange import WireAnswer
from tests.llm.bodies import APIS, BODIES, MODELS, of_events, primitive, texts, whole
from tests.repository.source import ROOT
from tests.wire.loopback import loopback
from tta_primitives import WorkflowContext
from tta_primitives.errors import TimeoutExceededError
from tta_primitives.llm import AnthropicPrimitive, OpenAIPrimitive, clients
from tta_primitives.recovery import HedgePrimitive, RetryPrimitive, TimeoutPrimitive


def open_clients():
    """Return how many clients there are on the running loop."""
    return len(clients._clients.get(asyncio.get_running_loop(), {}))


@pytest.mark.parametrize("api", APIS)
async def test_client_is_made_when_needed_and_closed_in_the_end(api) -> None:
    """`aclose` closes it, and what is used again opens another."""
    async with loopback(lambda *_: whole(api)) as server:
        llm = primitive(api, server.url)
        assert open_clients() == 0
        for _ in range(2):
            await llm.execute("Hi", WorkflowContext())
            assert open_clients() == 1
            await llm.aclose()
            assert open_clients() == 0
        await llm.aclose()


async def test_primitives_of_one_server_share_a_client() -> None:
    """It is closed when the last of them is."""
    async with loopback(lambda *_: whole("chat")) as server:
        one, two = primitive("chat", server.url), primitive("chat", server.url)
        async with one:
            await one.execute("Hi", WorkflowContext())
            await two.execute("Hi", WorkflowContext())
            assert open_clients() == 1
        assert open_clients() == 1
        await two.execute("Hi", WorkflowContext())
        await two.aclose()
        assert open_clients() == 0


async def test_renamed_copy_is_the_same_owner() -> None:
    """Closing either closes what both use."""
    async with loopback(lambda *_: whole("chat")) as server:
        llm = primitive("chat", server.url)
        await llm.named("other").execute("Hi", WorkflowContext())
        await llm.aclose()
        assert open_clients() == 0


async def test_forgotten_primitive_does_not_keep_a_client_open() -> None:
    """Who is gone counts no longer as a user."""
    async with loopback(lambda *_: whole("chat")) as server:
        one, two = primitive("chat", server.url), primitive("chat", server.url)
        await one.execute("Hi", WorkflowContext())
        await two.execute("Hi", WorkflowContext())
        del two
        gc.collect()
        await one.aclose()
        assert open_clients() == 0


@pytest.mark.parametrize("api", APIS)
def test_nothing_is_left_when_a_loop_ends(api) -> None:
    """`asyncio.run` closes what nobody has closed, without a warning."""

    async def ask():
        async with loopback(lambda *_: whole(api)) as server:
            llm = primitive(api, server.url)
            await llm.execute("Hi", WorkflowContext())
            loop = asyncio.get_running_loop()
            (shared,) = clients._clients[loop].values()
            return loop, shared.first

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loop, client = asyncio.run(ask())
        assert client.is_closed()
        assert not clients._clients.get(loop)
        gc.collect()


def test_one_primitive_serves_many_loops() -> None:
    """Threads with a loop each have a client each."""

    async def ask(llm):
        answers = [await llm.execute("Hi", WorkflowContext()) for _ in range(3)]
        assert open_clients() == 1
        return answers

    async def everywhere():
        async with loopback(lambda *_: whole("chat")) as server:
            llm = primitive("chat", server.url)
            threads = [asyncio.to_thread(asyncio.run, ask(llm)) for _ in range(4)]
            return await asyncio.gather(*threads, ask(llm)), llm

    answers, llm = asyncio.run(everywhere())
    assert [str(one) for thread in answers for one in thread] == ["Hello."] * 15
    assert llm.stats.calls == 15


def test_loops_that_ended_are_let_go() -> None:
    """A loop that nobody has shut down properly is forgotten at the next one."""

    async def ask(url):
        await primitive("chat", url).execute("Hi", WorkflowContext())

    async def once():
        async with loopback(lambda *_: whole("chat")) as server:
            await ask(server.url)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(once())
    loop.close()
    assert loop in clients._clients
    asyncio.run(once())
    assert loop not in clients._clients


# -- a client of the user's own -------------------------------------------------------


def with_mock(api, handler, **options):
    """Return a primitive whose client has a function for a transport, and both."""
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(handler))
    kind = anthropic.AsyncAnthropic if api == "anthropic" else openai.AsyncOpenAI
    client = kind(api_key="sk-own", http_client=http, max_retries=5)
    options = {"model": MODELS[api], "client": client, **options}
    if api == "anthropic":
        return AnthropicPrimitive(**options), client
    return OpenAIPrimitive(api=api, **options), client


@pytest.mark.parametrize("api", APIS)
async def test_own_client_is_used_without_its_retries_and_left_open(api) -> None:
    """Its retries would multiply with those of a RetryPrimitive."""
    requests = []

    def handler(request):
        requests.append(request)
        return httpx2.Response(503, json={"error": {"message": "busy"}})

    llm, client = with_mock(api, handler)
    retry = RetryPrimitive(llm, max_retries=2, initial_delay=0.001)
    async with llm:
        with pytest.raises(Exception, match="busy") as caught:
            await retry.execute("Hi", WorkflowContext())
    assert type(caught.value).__module__.partition(".")[0] in {"openai", "anthropic"}
    assert len(requests) == 3
    assert (client.max_retries, client.is_closed()) == (5, False)
    await client.close()


@pytest.mark.parametrize("kind", [openai.OpenAI, anthropic.Anthropic])
def test_sync_client_is_refused(kind) -> None:
    """It would block the event loop."""
    ours = OpenAIPrimitive if kind is openai.OpenAI else AnthropicPrimitive
    client = kind(api_key="k")
    with pytest.raises(TypeError, match="would block the event loop; use Async"):
        ours(model="m", client=client)
    client.close()


# -- retry -----------------------------------------------------------------------------


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("streams", [False, True])
async def test_sdk_never_retries_by_itself(api, streams) -> None:
    """A retry is ours, once: two retries are three requests."""
    answer = WireAnswer.of_json({"error": {"message": "busy"}}, status=503)
    async with loopback(lambda *_: answer) as server, primitive(api, server.url) as llm:
        retry = RetryPrimitive(llm, max_retries=2, initial_delay=0.001)
        with pytest.raises(Exception, match="busy"):
            await (texts(retry) if streams else retry.execute("Hi", WorkflowContext()))
    assert len(server.seen) == 3
    assert [one.header("x-stainless-retry-count") for one in server.seen] == ["0"] * 3


@pytest.mark.parametrize("api", APIS)
async def test_truncated_answer_is_asked_for_once(api) -> None:
    """The same question would be cut off at the same place."""
    stop = {"chat": "length", "anthropic": "max_tokens", "responses": "incomplete"}
    reason = {"incomplete_details": {"reason": "max_output_tokens"}}
    more = reason if api == "responses" else {}
    answer = whole(api, "Hel", stop[api], **more)
    async with loopback(lambda *_: answer) as server, primitive(api, server.url) as llm:
        with pytest.raises(Exception, match="max_output_tokens"):
            await RetryPrimitive(llm).execute("Hi", WorkflowContext())
    assert len(server.seen) == 1


async def test_empty_answer_is_asked_for_again() -> None:
    """The next one may have something to say."""
    async with (
        loopback(lambda number, _: whole("chat", "" if number < 3 else "Hi")) as server,
        primitive("chat", server.url) as llm,
    ):
        retry = RetryPrimitive(llm, initial_delay=0.001)
        assert str(await retry.execute("Hi", WorkflowContext())) == "Hi"
    assert len(server.seen) == 3


async def test_attempts_send_no_idempotency_key() -> None:
    """Who honours it would answer a retry with the broken answer it has kept."""
    async with (
        loopback(lambda number, _: whole("chat", "" if number < 2 else "Hi")) as server,
        primitive("chat", server.url) as llm,
    ):
        retry = RetryPrimitive(llm, initial_delay=0.001)
        await retry.execute("Hi", WorkflowContext(idempotency_key="order 7"))
    assert [one.header("idempotency-key") for one in server.seen] == [None, None]


async def test_call_may_be_hedged() -> None:
    """Asking twice does no harm but to the bill."""
    slow = WireAnswer(has_head=False, ending="silent")
    async with (
        loopback(lambda number, _: slow if number == 1 else whole("chat")) as server,
        primitive("chat", server.url) as llm,
    ):
        hedged = HedgePrimitive(llm, delay=0.02)
        assert str(await hedged.execute("Hi", WorkflowContext())) == "Hello."
    assert len(server.seen) == 2


# -- deadlines -------------------------------------------------------------------------


def silent_client(api, patience, **options):
    """Return a primitive whose provider never answers, within the SDK's patience."""

    async def handler(request):
        patience.append(dict(request.extensions["timeout"]))
        await asyncio.sleep(request.extensions["timeout"]["read"])
        raise httpx2.ReadTimeout("slow", request=request)

    return with_mock(api, handler, **options)[0]


@pytest.mark.parametrize("api", APIS)
async def test_deadline_bounds_the_sdks_timeouts(api, tta) -> None:
    """It waits no longer than the time that is left, and a moment more."""
    patience = []
    llm = silent_client(api, patience)
    limited = TimeoutPrimitive(llm, timeout_seconds=2)
    with pytest.raises(TimeoutExceededError, match="took longer than 2 s"):
        await limited.execute("Hi", WorkflowContext())
    assert patience == [dict.fromkeys(("connect", "read", "write", "pool"), 2.25)]
    assert tta.elapsed == 2


@pytest.mark.parametrize("streams", [False, True])
async def test_deadline_that_nobody_enforces_is_kept(tta, streams) -> None:
    """A deadline of the caller's own ends the call, also without a timeout around."""
    llm = silent_client("chat", [])
    deadline = asyncio.get_running_loop().time() + 3
    context = WorkflowContext(deadline=deadline)
    with pytest.raises(TimeoutExceededError, match="openai took longer than 3 s"):
        await (texts(llm, context=context) if streams else llm.execute("Hi", context))
    assert tta.elapsed == 3


@pytest.mark.parametrize("streams", [False, True])
async def test_nothing_is_asked_after_the_deadline(tta, streams) -> None:
    """No time left is no request."""
    patience = []
    llm = silent_client("chat", patience)
    context = WorkflowContext(deadline=asyncio.get_running_loop().time())
    with pytest.raises(TimeoutExceededError, match="had no time left to start"):
        await (texts(llm, context=context) if streams else llm.execute("Hi", context))
    assert patience == []


@pytest.mark.parametrize("api", APIS)
async def test_timeout_is_of_the_next_byte(api, tta) -> None:
    """Its error is the SDK's, and comes after so many seconds of silence."""
    patience = []
    llm = silent_client(api, patience, timeout=30)
    with pytest.raises(Exception, match="timed out") as caught:
        await llm.execute("Hi", WorkflowContext())
    assert type(caught.value).__name__ == "APITimeoutError"
    assert patience == [{"connect": 5, "read": 30, "write": 30, "pool": 30}]
    assert tta.elapsed == 30


async def test_timeout_of_an_own_client_is_left_as_it_is(tta) -> None:
    """Only what the deadline does not allow is shortened."""
    patience = []
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(_noting(patience)))
    timeout = httpx2.Timeout(7, connect=1, pool=None)
    client = openai.AsyncOpenAI(api_key="k", http_client=http, timeout=timeout)
    llm = OpenAIPrimitive(model="m", client=client)
    await llm.execute("Hi", WorkflowContext())
    deadline = asyncio.get_running_loop().time() + 3
    await llm.execute("Hi", WorkflowContext(deadline=deadline))
    await client.close()
    usual = {"connect": 1, "read": 7, "write": 7, "pool": None}
    short = {"connect": 1, "read": 3.25, "write": 3.25, "pool": 3.25}
    assert patience == [usual, short]


def _noting(patience):
    def handler(request):
        patience.append(dict(request.extensions["timeout"]))
        return httpx2.Response(200, json=BODIES["chat"]())

    return handler


@pytest.mark.parametrize("api", APIS)
async def test_cancelled_stream_is_closed(api) -> None:
    """A timeout around a stream leaves no open response behind."""
    silent = of_events().cut(0, "silent")
    async with loopback(lambda *_: silent) as server, primitive(api, server.url) as llm:
        with pytest.raises(TimeoutExceededError, match="took longer"):
            await texts(TimeoutPrimitive(llm, timeout_seconds=0.05))
        (shared,) = clients._clients[asyncio.get_running_loop()].values()
        assert shared.first._client._transport._pool.connections == []


# -- imports ---------------------------------------------------------------------------


def test_sdks_are_imported_when_a_primitive_is_made() -> None:
    """Not with the package, and not in the first request either."""
    code = """
import sys
import tta_primitives.llm as llm
sdks = {"openai", "anthropic", "httpx", "httpx2", "pydantic"}
assert not sdks & set(sys.modules), sdks & set(sys.modules)
llm.OpenAIPrimitive(model="m")
assert "openai" in sys.modules and "anthropic" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    ("kind", "name"), [(OpenAIPrimitive, "openai"), (AnthropicPrimitive, "anthropic")]
)
def test_missing_sdk_says_what_to_install(kind, name, monkeypatch) -> None:
    """At construction, in one sentence."""
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ImportError, match=rf"pip install 'tta-dev-primitives\[{name}\]'"
    ):
        kind(model="m")
