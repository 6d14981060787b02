"""The rows of the contract played to the real SDKs: on sockets, and without any.

All rows of a kind share one client of each SDK; a header tells which row a request is
of. What waits for a limit of the client's has a short one of real time, and the others
have one that no busy machine reaches.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from unittest import mock

import anthropic
import openai

from pytest_tta.clock.clock import VirtualClock
from pytest_tta.wire.transport import answering
from tests.wire.loopback import deaf, loopback, refusing
from tests.wire.outcomes import Outcome, outcome, without_pauses
from tests.wire.rows import Row

__all__ = ["ask", "on_sockets", "without_sockets"]

# In seconds; an answer's seconds are shorter on sockets, but longer than this.
_SHORT, _LONG = 1.0, 30.0
_SPEED = 0.05
_AT_ONCE = 8
_HEADER = "x-row"
# What an SDK reckons from a date must not depend on the moment.
_NOON = 1_800_000_000.0
# More than the buffers of two sockets hold.
_LARGE = "x" * 8_000_000


@dataclass(frozen=True)
class Kind:
    """How a row is asked.

    Attributes:
        connect: As `WireAnswer.connect`.
        reads_request: As `WireAnswer.reads_request`.
        waits: Whether the client reaches its limit.
    """

    connect: str
    reads_request: bool
    waits: bool

    @classmethod
    def of(cls, row: Row) -> Kind:
        """Return the kind of a row."""
        answer = row.answer(_body(row))
        last = answer.head_after + max((at for at, _ in answer.body), default=0.0)
        is_silent = answer.ending == "silent" or answer.connect == "silent"
        return cls(answer.connect, answer.reads_request, is_silent or last > 1)


def _body(row: Row) -> dict:
    """Return a request that is valid for any of the APIs."""
    asked = {"messages": [{"role": "user", "content": "?"}], "input": "?"}
    return {"model": "m", "max_tokens": 9, "stream": row.stream, **asked}


@asynccontextmanager
async def _clients(url: str, *, read: float = _LONG, connect: float = _LONG):
    """Yield a client of each SDK, with these limits in seconds."""
    seconds = {"timeout": read, "connect": connect, "pool": _LONG}
    # Nothing is encrypted, and to read the certificates of the machine for each client
    # would take longer than what is asked.
    first = openai.AsyncOpenAI(
        api_key="key",
        base_url=f"{url}/v1",
        max_retries=1,
        timeout=openai.Timeout(**seconds),
        http_client=openai.DefaultAsyncHttpxClient(verify=False),
    )
    second = anthropic.AsyncAnthropic(
        api_key="key",
        base_url=url,
        max_retries=1,
        timeout=anthropic.Timeout(**seconds),
        http_client=anthropic.DefaultAsyncHttpxClient(verify=False),
    )
    async with first, second:
        yield {"openai": first, "anthropic": second}


async def _asked(
    rows: dict[int, Row], url: str, kind: Kind, **question: str
) -> dict[Row, Outcome]:
    """Ask for all rows of a kind at one address, some of them at once."""
    # Those that wait do nothing meanwhile.
    places = asyncio.Semaphore(len(rows) if kind.waits else _AT_ONCE)

    async def one(client, number, row) -> Outcome:
        async with places:
            headers = {_HEADER: str(number)}
            return await outcome(
                client, row.api, stream=row.stream, headers=headers, **question
            )

    read = _SHORT if kind.waits else _LONG
    connect = _SHORT if kind.connect == "silent" else _LONG
    async with _clients(url, read=read, connect=connect) as clients:
        jobs = [
            one(clients[row.api.partition(".")[0]], number, row)
            for number, row in rows.items()
        ]
        # Tasks of their own: each has its own pauses.
        done = await asyncio.gather(*map(asyncio.ensure_future, jobs))
    return dict(zip(rows.values(), done, strict=True))


def _by_kind(rows) -> dict[Kind, dict[int, Row]]:
    kinds: dict[Kind, dict[int, Row]] = {}
    for number, row in enumerate(rows):
        kinds.setdefault(Kind.of(row), {})[number] = row
    return kinds


async def on_sockets(rows) -> dict[Row, Outcome]:
    """Return the outcomes of rows as a raw server on the loopback plays them.

    Rows without an address are left out, as names are not looked up on the loopback.
    """
    numbered = dict(enumerate(rows))

    def answer(_, seen):
        row = numbered[int(seen.header(_HEADER))]
        return row.answer(json.loads(seen.body))

    found: dict[Row, Outcome] = {}
    with without_pauses(), mock.patch.object(time, "time", return_value=_NOON):
        async with loopback(answer, speed=_SPEED) as served:
            for kind, some in _by_kind(rows).items():
                if kind.connect == "unresolved":
                    continue
                question = {} if kind.reads_request else {"question": _LARGE}
                with _address(kind, served.url) as url:
                    found |= await _asked(some, url, kind, **question)
    return found


def _address(kind: Kind, url: str):
    if kind.connect == "refused":
        return refusing()
    if kind.connect == "silent":
        return deaf(accepts=False)
    return nullcontext(url) if kind.reads_request else deaf(accepts=True)


class _Router:
    """Answers the requests of all rows at one host."""

    def __init__(self, rows) -> None:
        self._rows = dict(enumerate(rows))

    def serves(self, url) -> bool:
        return url.host == "llm.test"

    def begin(self, asking):
        headers = dict(asking.headers)
        row = self._rows[int(headers[_HEADER.encode()])]
        return _Exchange(row.answer(json.loads(asking.body)))


class _Exchange:
    """One request of a row."""

    def __init__(self, answer) -> None:
        self._answer = answer

    def answer(self):
        return self._answer

    def ended(self, how: str) -> None:
        pass

    def began(self) -> None:
        pass

    def closed(self, at: float) -> None:
        pass


def without_sockets(rows) -> dict[Row, Outcome]:
    """Return the outcomes of rows as what stands in for the network plays them."""

    async def all_kinds():
        found: dict[Row, Outcome] = {}
        for kind, some in _by_kind(rows).items():
            found |= await _asked(some, "http://llm.test", kind)
        return found

    with without_pauses(), answering(_Router(rows)):
        return VirtualClock().run(all_kinds())


def ask(fault, api, call):
    """Return what a call of an SDK returns, or raises, while a fault strikes it.

    Args:
        fault: What goes wrong.
        api: Which API is asked.
        call: An async function of a client.
    """
    rows = (Row(fault, api, stream=False),)

    async def one():
        async with _clients("http://llm.test") as clients:
            client = clients[api.partition(".")[0]]
            return await call(client.with_options(default_headers={_HEADER: "0"}))

    with without_pauses(), answering(_Router(rows)):
        return VirtualClock().run(one())
