"""Clients of HTTP services, with httpx."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from itertools import count

import httpx

from pytest_tta import op
from tests.zoo.bug import Bug

__all__ = ["BUGS"]


class Payments:
    """A payment service that keeps idempotency keys."""

    def __init__(self):
        self.charges = []
        self.known = set()

    def __call__(self, request):
        key = request.headers.get("idempotency-key")
        if key is None or key not in self.known:
            self.known.add(key)
            self.charges.append(json.loads(request.content)["order"])
        return httpx.Response(200, json={"status": "paid"})


def client_of(handler, **options):
    """Return a client whose server is a function."""
    options.setdefault("timeout", 5)
    return httpx.AsyncClient(
        transport=httpx.MockTransport(handler), base_url="http://pay.test", **options
    )


# Double charge: the answer was lost, the charge was not.


async def charge_and_retry(client, order):
    """Ask again after an error of the network."""
    for attempt in range(3):
        try:
            return await client.post("/charges", json={"order": order})
        except httpx.TransportError:
            if attempt == 2:
                raise
            await asyncio.sleep(1)
    return None


async def charge_with_key(client, order):
    """Ask again with the key of the order."""
    headers = {"Idempotency-Key": f"order-{order}"}
    for attempt in range(3):
        try:
            return await client.post("/charges", json={"order": order}, headers=headers)
        except httpx.TransportError:
            if attempt == 2:
                raise
            await asyncio.sleep(1)
    return None


async def charge_with_new_keys(client, order):
    """Ask again with a key that is made for each request."""
    numbers = count(1)
    for attempt in range(3):
        headers = {"Idempotency-Key": f"request-{order}-{next(numbers)}"}
        try:
            return await client.post("/charges", json={"order": order}, headers=headers)
        except httpx.TransportError:
            if attempt == 2:
                raise
            await asyncio.sleep(1)
    return None


def double_charge(tta, build):
    """An order is charged once."""
    payments = Payments()
    tta.always(lambda: len(payments.charges) <= 1, "an order is charged once")

    async def serve(_):
        async with client_of(payments) as client:
            response = await build(client, 7)
        return response.raise_for_status().status_code

    assert tta.run(serve, None) == 200


# Unbounded call: no limit on how long a server may think.


async def ask_without_limit(transport):
    """Wait for as long as it takes."""
    async with httpx.AsyncClient(transport=transport, timeout=None) as client:
        return (await client.get("http://jobs.test/next")).raise_for_status()


async def ask_with_limit(transport):
    """Wait for as long as the client waits by default."""
    async with httpx.AsyncClient(transport=transport) as client:
        return (await client.get("http://jobs.test/next")).raise_for_status()


def unbounded_call(tta, build):
    """A job is fetched, or an error says that it could not be."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={"job": 7}))

    async def serve(_):
        return (await build(transport)).json()["job"]

    assert tta.run(serve, None) == 7


# Leaked response: a stream that is left in the middle keeps its connection.


class Chunks(httpx.AsyncByteStream):
    """A body in pieces, that knows whether it was closed."""

    def __init__(self, opened, closed):
        self.opened = opened
        self.closed = closed

    async def __aiter__(self):
        self.opened.append(1)
        for number in range(3):
            await op("body.read")
            yield b"%d" % number

    async def aclose(self):
        self.closed.append(1)


async def read_and_close(client):
    """Close the response when it was read."""
    response = await client.send(client.build_request("GET", "/file"), stream=True)
    response.raise_for_status()
    chunks = [chunk async for chunk in response.aiter_raw()]
    await response.aclose()
    return b"".join(chunks)


async def read_within(client):
    """Close the response however reading ends."""
    async with client.stream("GET", "/file") as response:
        response.raise_for_status()
        chunks = [chunk async for chunk in response.aiter_raw()]
    return b"".join(chunks)


def leaked_response(tta, build):
    """A file is read within a time limit, and its connection given back."""
    opened, closed = [], []
    tta.always(lambda: len(closed) >= len(opened), "each connection is given back")

    async def serve(_):
        client = client_of(lambda _: httpx.Response(200, stream=Chunks(opened, closed)))
        async with asyncio.timeout(10):
            return await build(client)

    assert tta.run(serve, None) == b"012"


# Retry storm: somebody who never gives up, and nobody to tell him to.


async def poll_for_ever(client):
    """Ask until there is an answer."""
    while True:
        try:
            return await client.get("/status")
        except httpx.TransportError:
            await asyncio.sleep(0.1)


async def poll_with_patience(client):
    """Ask five times, each time later."""
    for attempt in range(5):
        try:
            return await client.get("/status")
        except httpx.TransportError:
            if attempt == 4:
                raise
            await asyncio.sleep(2**attempt)
    return None


def retry_storm(tta, build):
    """The status of a service is asked for."""

    async def serve(_):
        async with client_of(lambda _: httpx.Response(200)) as client:
            return (await build(client)).raise_for_status().status_code

    assert tta.run(serve, None) == 200


# An error handler that crashes: its table of reasons lacks one.

REASONS = {httpx.ReadTimeout: "slow", httpx.ConnectTimeout: "slow"}


async def count_known_reasons(client, reasons):
    """Count why there was no rate."""
    try:
        response = await client.get("/rates")
    except httpx.TransportError as error:
        reasons[REASONS[type(error)]] += 1
        return None
    return response.raise_for_status().json()["rate"]


async def count_all_reasons(client, reasons):
    """Count why there was no rate, also for reasons that nobody has thought of."""
    try:
        response = await client.get("/rates")
    except httpx.TransportError as error:
        reasons[REASONS.get(type(error), "other")] += 1
        return None
    return response.raise_for_status().json()["rate"]


def crashing_handler(tta, build):
    """A rate is read; without one the price is shown in euros."""

    async def serve(_):
        async with client_of(lambda _: httpx.Response(200, json={"rate": 2})) as client:
            return await build(client, Counter())

    assert tta.run(serve, None) in {2, None}


BUGS = (
    Bug(
        "double-charge",
        "a charge whose answer is lost is made again",
        ("invariant",),
        double_charge,
        charge_and_retry,
        charge_with_key,
        issue_url="https://github.com/EuroPython/epcon/issues/795",
    ),
    Bug(
        "new-key-each-time",
        "each attempt has an idempotency key of its own",
        ("invariant",),
        double_charge,
        charge_with_new_keys,
        charge_with_key,
        issue_url="https://github.com/stripe/stripe-php/issues/637",
    ),
    Bug(
        "unbounded-call",
        "a request waits for ever for a server that does not answer",
        ("unbounded wait", "deadlock"),
        unbounded_call,
        ask_without_limit,
        ask_with_limit,
        issue_url="https://github.com/scrapinghub/python-scrapinghub/issues/19",
    ),
    Bug(
        "leaked-response",
        "a response that is left in the middle is not closed",
        ("invariant",),
        leaked_response,
        read_and_close,
        read_within,
        issue_url="https://github.com/encode/httpx/issues/1461",
    ),
    Bug(
        "retry-storm",
        "a poll that never gives up",
        ("retry storm", "livelock", "unbounded wait"),
        retry_storm,
        poll_for_ever,
        poll_with_patience,
    ),
    Bug(
        "crashing-handler",
        "the handler of an error has no word for one",
        ("error",),
        crashing_handler,
        count_known_reasons,
        count_all_reasons,
        issue_url="https://github.com/surrealdb/surrealdb.py/issues/29",
    ),
)
