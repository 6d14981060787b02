"""Rate limits as dependencies of FastAPI routes."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from fastapi import Depends, FastAPI, HTTPException, Request
from redis.asyncio import Redis

from tests.services import require_service
from tta_primitives.chance import new_id
from tta_primitives.door import Observer, add_observer, remove_observer
from tta_primitives.integrations.asgi import WorkflowMiddleware
from tta_primitives.integrations.fastapi_limits import RateLimit, by_client, by_header


def app_with(*limits: RateLimit) -> FastAPI:
    """Return a service with one route behind these limits."""
    app = FastAPI()

    @app.get("/answer", dependencies=[Depends(limit) for limit in limits])
    async def answer() -> dict[str, int]:
        """Answer."""
        return {"answer": 42}

    return app


def client_of(app: FastAPI, host: str = "198.51.100.7", **headers) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, client=(host, 4711))
    return httpx.AsyncClient(
        transport=transport, base_url="http://service", headers=headers
    )


async def statuses(client: httpx.AsyncClient, count: int) -> list[int]:
    return [(await client.get("/answer")).status_code for _ in range(count)]


async def test_requests_beyond_the_limit_get_429(tta) -> None:
    """The headers say what is allowed, what is left and when to come back."""
    async with client_of(app_with(RateLimit(rate=2, period=60))) as client:
        first = await client.get("/answer")
        assert first.json() == {"answer": 42}
        assert first.headers["ratelimit-policy"] == '"default";q=2;w=60'
        assert first.headers["ratelimit"] == '"default";r=1;t=0'
        second = await client.get("/answer")
        assert second.headers["ratelimit"] == '"default";r=0;t=30'
        third = await client.get("/answer")
        assert third.status_code == 429
        assert third.json() == {"detail": "Too many requests: try again in 30 s"}
        assert third.headers["retry-after"] == "30"
        assert third.headers["ratelimit"] == '"default";r=0;t=30'
        await tta.clock.advance(30)
        assert await statuses(client, 2) == [200, 429]


async def test_waiting_as_long_as_told_is_enough(tta) -> None:
    """`Retry-After` is rounded up: who obeys is let in."""
    limit = RateLimit(rate=7, period=60, burst=1)
    async with client_of(app_with(limit)) as client:
        for _ in range(3):
            assert await statuses(client, 1) == [200]
            refused = await client.get("/answer")
            await tta.clock.advance(float(refused.headers["retry-after"]))
    assert (limit.stats.admitted, limit.stats.rejected) == (3, 3)


async def test_clients_are_told_apart_by_address(tta) -> None:
    """One noisy client does not shut the others out."""
    app = app_with(RateLimit(rate=1, period=60))
    async with client_of(app) as one, client_of(app, "198.51.100.8") as other:
        assert await statuses(one, 2) == [200, 429]
        assert await statuses(other, 1) == [200]


async def test_clients_are_told_apart_by_a_header(tta) -> None:
    """A key of the user's own; who has none is told apart by the address."""
    app = app_with(RateLimit(rate=1, period=60, key=by_header("x-api-key")))
    async with (
        client_of(app, **{"X-Api-Key": "a"}) as ada,
        client_of(app, **{"X-Api-Key": "b"}) as bob,
        client_of(app) as nobody,
    ):
        assert await statuses(ada, 2) == [200, 429]
        assert await statuses(bob, 2) == [200, 429]
        assert await statuses(nobody, 2) == [200, 429]


async def test_key_may_be_any_function(tta) -> None:
    """It may be async, and None lets a request pass uncounted."""

    async def tenant(request: Request) -> str | None:
        """Ask who it is, and let probes pass."""
        await asyncio.sleep(0)
        return request.query_params.get("tenant")

    async with client_of(app_with(RateLimit(rate=1, key=tenant))) as client:
        assert await statuses(client, 3) == [200, 200, 200]
        codes = [(await client.get("/answer?tenant=a")).status_code for _ in range(2)]
        assert codes == [200, 429]
        assert "ratelimit" not in (await client.get("/answer")).headers


def request_from(host: str | None, **headers: str) -> Request:
    raw = [(k.encode(), v.encode()) for k, v in headers.items()]
    client = None if host is None else (host, 1)
    return Request({"type": "http", "client": client, "headers": raw})


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("2001:db8:0:1::7", "2001:db8:0:1::/64"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("/run/app.sock", "/run/app.sock"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_address_is_that_of_a_household(host, key) -> None:
    """Who has a network of IPv6 addresses is one client all the same."""
    assert by_client(request_from(host)) == key


def test_header_is_not_kept_as_it_is() -> None:
    """An API key does not end up in Redis or in a dump of the memory."""
    key = by_header("x-api-key")(request_from("::1", **{"x-api-key": "sk-secret"}))
    assert len(key) == 32
    assert "secret" not in key


async def test_several_limits_hold_at_once(tta) -> None:
    """A burst limit and a daily one have a name each in the headers."""
    app = app_with(
        RateLimit(rate=1, name="burst"), RateLimit(rate=2, period=86_400, name="daily")
    )
    async with client_of(app) as client:
        first = await client.get("/answer")
        assert first.headers["ratelimit-policy"] == (
            '"burst";q=1;w=1, "daily";q=2;w=86400'
        )
        await tta.clock.advance(1)
        assert await statuses(client, 1) == [200]
        await tta.clock.advance(1)
        assert (await client.get("/answer")).headers["retry-after"] == "43198"


async def test_limit_is_part_of_the_run_of_its_request(tta) -> None:
    """It takes nothing over from strangers that the request has not taken over."""
    contexts = []

    class Watching(Observer):
        def started(self, call) -> None:
            contexts.append(call.context)

    app = app_with(RateLimit(rate=2, period=60))
    app.add_middleware(WorkflowMiddleware, trust_headers=False)
    headers = {
        "x-correlation-id": "mine",
        "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
    }
    watching = Watching()
    add_observer(watching)
    try:
        async with client_of(app, **headers) as client:
            answer = await client.get("/answer")
    finally:
        remove_observer(watching)
    assert {(one.correlation_id, one.traceparent) for one in contexts} == {
        (answer.headers["x-correlation-id"], None)
    }


async def test_requests_may_wait_for_their_turn(tta) -> None:
    """With `max_wait` a small excess is delayed, and only the rest refused."""
    async with client_of(app_with(RateLimit(rate=1, burst=1, max_wait=2))) as client:
        calls = [client.get("/answer") for _ in range(4)]
        codes = [reply.status_code for reply in await asyncio.gather(*calls)]
    assert codes == [200, 200, 200, 429]
    assert tta.elapsed == 2.0


@pytest.fixture(params=["double", "server"])
async def clients(request):
    """Two clients of one Redis, as two processes would have."""
    if request.param == "double":
        server = FakeServer()
        found = [FakeAsyncRedis(server=server) for _ in range(2)]
    else:
        host, port = require_service("redis")
        found = [Redis(host=host, port=port) for _ in range(2)]
    yield found
    for client in found:
        await client.aclose()


async def test_processes_share_a_limit(clients) -> None:
    """What one has let in counts in the other; nobody claims to know what is left."""
    name = f"test_{new_id()}"
    apps = [
        app_with(RateLimit(rate=2, period=3600, name=name, storage=redis))
        for redis in clients
    ]
    async with client_of(apps[0]) as here, client_of(apps[1]) as there:
        first = await here.get("/answer")
        assert first.status_code == 200
        assert "ratelimit" not in first.headers
        assert await statuses(there, 2) == [200, 429]
        assert await statuses(here, 1) == [429]
    keys = [key async for key in clients[0].scan_iter(f"tta:rate:fastapi:{name}:*")]
    assert len(keys) >= 1
    await clients[0].delete(*keys)


async def test_refusal_says_nothing_of_the_inside(tta) -> None:
    """Neither a path nor a key is in what the client gets, nor in the error's chain."""
    limit = RateLimit(rate=1, period=60)
    from fastapi import Response

    await limit(request_from("198.51.100.7"), Response())
    with pytest.raises(HTTPException, match="429: Too many requests") as caught:
        await limit(request_from("198.51.100.7"), Response())
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": "x-api-key"}, "must be a function of the request"),
        ({"name": 'a"b'}, "must be a word of letters"),
        ({"rate": 0}, "rate=0 must be a positive number"),
        ({"period": 0}, "period=0 must be a positive number"),
        ({"max_wait": -1}, "max_wait=-1 must be"),
    ],
    ids=["key", "name", "rate", "period", "max_wait"],
)
def test_arguments_are_checked(options, message) -> None:
    """What is wrong is said where the limit is made."""
    with pytest.raises((TypeError, ValueError), match=message):
        RateLimit(**{"rate": 1, **options})
