"""Calls of httpx and redis are sites, as long as a test is explored."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import fakeredis
import httpx
import httpx2
import openai
import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from pytest_tta.explore.plan import Plan
from tests.explore.bodies import exploring, faults, outcome_of, said

if TYPE_CHECKING:
    from pytest_tta import Harness

HTTPX = "httpx:POST shop.test/orders"


class Shop:
    """A server that counts its orders."""

    def __init__(self) -> None:
        self.orders = 0

    def answer(self, library: Any) -> Any:
        """Return a transport that takes an order with each request."""

        def take(_: Any) -> Any:
            self.orders += 1
            return library.Response(200, text="taken")

        return library.MockTransport(take)


def ordering(library: Any, told: list[Any], **options: Any) -> Any:
    """Return a body that orders once, and writes down what it was told."""

    def body(tta: Harness) -> None:
        shop = Shop()

        async def main(_: None) -> None:
            """Order."""
            transport = shop.answer(library)
            async with library.AsyncClient(transport=transport, **options) as client:
                try:
                    answer = await client.post("http://shop.test/orders?key=secret")
                    told.append(answer.status_code)
                except library.HTTPError as error:
                    told.append(type(error).__name__)
            told.append(shop.orders)

        tta.run(main, None)

    return body


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_request_is_a_site(library: Any) -> None:
    """Its label says what is asked for, without the values of a query."""
    outcome = outcome_of(ordering(library, []))
    assert [seen.site for seen in outcome.calls] == [HTTPX]
    assert outcome.verdict is None


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.parametrize(
    ("kind", "told", "seconds"),
    [
        # Who is refused may safely try again; who loses an answer may not.
        ("error", ["ConnectError", 0], 0),
        ("outage", ["ConnectError", 0], 0),
        ("lost-ack", ["ReadError", 1], 0),
        ("hang", ["ReadTimeout", 0], 3),
        ("late", ["ReadTimeout", 1], 3),
        ("fatal", [400, 0], 0),
    ],
)
def test_faults_strike_a_request(
    library: Any, kind: str, told: list[Any], seconds: float
) -> None:
    """Each with the library's own error, and within the client's own limit."""
    found: list[Any] = []
    body = ordering(library, found, timeout=3)
    outcome = outcome_of(body, faults(f"{HTTPX}#1:{kind}"))
    assert found == told
    assert outcome.seconds == seconds
    assert outcome.verdict is None


def test_a_client_without_a_limit_waits_for_ever() -> None:
    """That is found as what it is."""
    outcome = outcome_of(ordering(httpx, [], timeout=None), faults(f"{HTTPX}#1:hang"))
    assert said(outcome).startswith(f"unbounded wait: call 1 of {HTTPX} never answers")


def test_assertions_about_an_answer_that_tells_a_fault_are_not_judged() -> None:
    """HTTP 400 is an answer, and no error that leaves the body."""
    told: list[Any] = []
    order = ordering(httpx, told)

    def body(tta: Harness) -> None:
        told.clear()
        order(tta)
        assert told == [200, 1]

    with exploring(body) as subject:
        assert subject(Plan()).verdict is None
        outcome = subject(faults(f"{HTTPX}#1:fatal"))
    assert (outcome.verdict, outcome.is_judged) == (None, False)


def test_an_sdk_on_our_wire_is_a_site() -> None:
    """The SDK's own retries are further calls."""

    def body(tta: Harness) -> None:
        tta.wire.openai.reply("Hello").always()

        async def main(_: None) -> str | None:
            """Ask."""
            async with openai.AsyncOpenAI(api_key="k", max_retries=2) as client:
                said = await client.chat.completions.create(
                    model="m", messages=[{"role": "user", "content": "?"}]
                )
                return said.choices[0].message.content

        assert tta.run(main, None) == "Hello"

    site = "httpx:POST api.openai.com/v1/chat/completions"
    with exploring(body) as subject:
        plain = subject(Plan())
        # What the SDK asks its own machine is no site for faults.
        assert [seen.site for seen in plain.calls if seen.kinds] == [site]
        assert subject(Plan()).digest == plain.digest
        outcome = subject(faults(f"{site}#1:error"))
        struck = [seen.is_struck for seen in outcome.calls if seen.kinds]
        assert struck == [True, False]
        assert outcome.verdict is None


def counting(told: list[Any], *, retries: int = 0, **options: Any) -> Any:
    """Return a body that counts in redis, and writes down what it was told."""

    def body(tta: Harness) -> None:
        async def main(_: None) -> None:
            """Count, and look."""
            client = fakeredis.FakeAsyncRedis(**options)
            client.set_retry(Retry(NoBackoff(), retries))
            try:
                await client.incr("n")
            except redis.exceptions.RedisError as error:
                told.append(type(error).__name__)
            told.append(await client.get("n"))
            await client.aclose()

        told.clear()
        tta.run(main, None)

    return body


def test_a_command_is_a_site() -> None:
    """Its label is what is sent, by its name."""
    outcome = outcome_of(counting([]))
    assert [seen.site for seen in outcome.calls] == ["redis:INCRBY", "redis:GET"]
    assert outcome.verdict is None


@pytest.mark.parametrize(
    ("kind", "told", "seconds"),
    [
        ("error", ["ConnectionError", None], 0),
        ("lost-ack", ["ConnectionError", b"1"], 0),
        ("hang", ["TimeoutError", None], 2),
        ("late", ["TimeoutError", b"1"], 2),
        ("fatal", ["ResponseError", None], 0),
    ],
)
def test_faults_strike_a_command(kind: str, told: list[Any], seconds: float) -> None:
    """Each with redis-py's own error, and within the client's own limit."""
    found: list[Any] = []
    body = counting(found, socket_timeout=2)
    outcome = outcome_of(body, faults(f"redis:INCRBY#1:{kind}"))
    assert found == told
    assert outcome.seconds == seconds
    assert outcome.verdict is None


def test_the_retries_of_a_client_are_further_calls() -> None:
    """A client that sends a lost command again counts twice: that is how it is."""
    found: list[Any] = []
    body = counting(found, retries=1)
    outcome_of(body, faults("redis:INCRBY#1:lost-ack"))
    assert found == [b"2"]


def test_a_pipeline_is_one_call() -> None:
    """With or without a transaction."""

    def body(tta: Harness) -> None:
        async def main(_: None) -> None:
            """Send two commands at once, twice."""
            client = fakeredis.FakeAsyncRedis()
            for transaction in (True, False):
                async with client.pipeline(transaction=transaction) as pipeline:
                    await pipeline.incr("n").incr("n").execute()
            await client.aclose()

        tta.run(main, None)

    sites = [seen.site for seen in outcome_of(body).calls]
    assert sites == ["redis:MULTI", "redis:PIPELINE"]


def test_libraries_are_left_as_they_were() -> None:
    """Nothing is patched once the exploration is over."""
    before = (
        httpx.AsyncClient._send_single_request,
        redis.asyncio.Redis._send_command_parse_response,
        asyncio.Lock.acquire,
        asyncio.Semaphore.acquire,
        asyncio.Semaphore.__init__,
    )
    outcome_of(ordering(httpx, []))
    assert before == (
        httpx.AsyncClient._send_single_request,
        redis.asyncio.Redis._send_command_parse_response,
        asyncio.Lock.acquire,
        asyncio.Semaphore.acquire,
        asyncio.Semaphore.__init__,
    )
