"""What stands in for the network under httpx and httpx2, for clients of any age.

A request for a host that the test answers is answered here; every other one goes where
it would have gone. What the client has set is kept to: its limits for connecting,
reading, writing and for a place in its pool, in the time of the test's clock.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pytest_tta.clock.errors import ClockDeadlock
from pytest_tta.clock.functions import monotonic, sleep
from pytest_tta.clock.imports import watch_imports
from pytest_tta.names import HTTP_LIBRARIES
from pytest_tta.wire.exchange import WireAnswer
from pytest_tta.wire.families import Family, WireError, loaded_families
from pytest_tta.wire.forwarding import Forward, fetch_in_task, fetch_in_thread
from pytest_tta.wire.framing import Reader
from pytest_tta.wire.guard import asking_for
from pytest_tta.wire.playing import Playing
from pytest_tta.wire.seats import Seat, seats_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
    from types import ModuleType

    from pytest_tta.wire.playing import Waits

__all__ = ["Asking", "Exchange", "Router", "answering", "naming"]


class Exchange(Protocol):
    """One request that a test answers."""

    def answer(self) -> WireAnswer | Awaitable[WireAnswer] | Forward:
        """Return what the server does.

        Awaitable where a test's function is async; a `Forward` lets the request through
        to the real server.
        """
        ...

    def ended(self, how: str, /) -> None:
        """Note how it ended: "" for the end of the body, else what went wrong."""
        ...

    def began(self) -> None:
        """Note that the client has the head."""
        ...

    def closed(self, at: float, /) -> None:
        """Note that the client has let go of the answer, at a time of the clock."""
        ...


class Asking:
    """A request as it left the client.

    Attributes:
        method: `POST`, for instance.
        url: Where to, with all that was asked.
        headers: The raw headers, in order.
        body: What was sent.
        timeout: The client's limits in seconds, None where there is none.
        at: When, in seconds of the clock.
        in_task: Whether the client runs in an event loop.
    """

    __slots__ = ("at", "body", "headers", "in_task", "method", "timeout", "url")

    def __init__(self, request: Any, body: bytes, at: float, *, in_task: bool) -> None:  # noqa: ANN401 - of either library
        self.method: str = request.method
        self.url: Any = request.url
        self.headers: list[tuple[bytes, bytes]] = list(request.headers.raw)
        self.body: bytes = body
        limits: Mapping[str, float | None] = request.extensions.get("timeout") or {}
        self.timeout: dict[str, float | None] = dict(limits)
        self.at: float = at
        self.in_task: bool = in_task


class Router(Protocol):
    """Who answers which hosts."""

    def serves(self, url: Any, /) -> bool:  # noqa: ANN401 - a URL of either library
        """Tell whether requests to a URL are answered here."""
        ...

    def begin(self, asking: Asking, /) -> Exchange:
        """Take a request that is to be answered."""
        ...


_ENCODING = b"accept-encoding"

_routers: list[Router] = []
_patched: dict[str, Family] = {}
_is_watching = False


@contextmanager
def answering(router: Router) -> Iterator[None]:
    """Let a router answer what it serves; the one that came last is asked first.

    Raises:
        WireError: A library that is loaded sends requests in an unknown way.
    """
    _watch()
    for family in loaded_families():
        _patch(family)
    _routers.append(router)
    try:
        yield
    finally:
        _routers.remove(router)
        if not _routers:
            for family in _patched.values():
                family.unpatch()
            _patched.clear()


class _Nobody:
    """Answers nothing."""

    def serves(self, _: Any, /) -> bool:  # noqa: ANN401 - a URL of either library
        return False

    def begin(self, asking: Asking, /) -> Exchange:
        raise NotImplementedError(asking.method)


@contextmanager
def naming() -> Iterator[None]:
    """Let what refuses a connection say which request wants it.

    Where requests cannot be intercepted their connections are refused all the same.
    """
    with ExitStack() as stack:
        with suppress(WireError):
            stack.enter_context(answering(_Nobody()))
        yield


def _watch() -> None:
    """See the libraries that are imported later, too."""
    global _is_watching  # noqa: PLW0603 - once per process
    if not _is_watching:
        _is_watching = True
        watch_imports(HTTP_LIBRARIES, _after_import)


def _after_import(module: ModuleType) -> None:
    if _routers and module.__name__ in HTTP_LIBRARIES:
        _patch(Family(module))


def _patch(family: Family) -> None:
    if family.name not in _patched:
        family.check()
        family.patch(_between)
        _patched[family.name] = family


def _between(family: Family, transport: Any, in_tasks: bool) -> Any:  # noqa: ANN401, FBT001 - as `patch` asks
    if not _routers:
        return transport
    kinds = _kinds_of(family)
    kind = kinds.in_tasks if in_tasks else kinds.blocking
    return kind(family, transport)


class _Kinds(NamedTuple):
    """What is ours and of a library's own types as well, as the library checks them."""

    blocking: type
    in_tasks: type
    body_of_thread: type
    body_in_tasks: type


_kinds: dict[str, _Kinds] = {}


def _kinds_of(family: Family) -> _Kinds:
    kinds = _kinds.get(family.name)
    if kinds is None:
        module = family.module
        kinds = _kinds[family.name] = _Kinds(
            type("WireTransport", (_Blocking, module.BaseTransport), {}),
            type("AsyncWireTransport", (_InTasks, module.AsyncBaseTransport), {}),
            type("WireBody", (_BodyOfThread, module.SyncByteStream), {}),
            type("AsyncWireBody", (_BodyInTasks, module.AsyncByteStream), {}),
        )
    return kinds


def _router_for(url: Any) -> Router | None:  # noqa: ANN401 - a URL of either library
    return next((one for one in reversed(_routers) if one.serves(url)), None)


class _Between:
    """What both transports share.

    Args:
        family: The library.
        transport: Where requests go that nobody here answers.
    """

    def __init__(self, family: Family, transport: Any) -> None:  # noqa: ANN401 - as above
        self._family = family
        self._transport = transport

    def _playing(
        self,
        asking: Asking,
        answer: WireAnswer,
        now: Any,  # noqa: ANN401 - a function
        began: float | None,
    ) -> Playing:
        target = asking.url.raw_path
        reader = Reader(asking.method.encode(), target, asking.headers)
        return Playing(
            answer,
            reader,
            asking.timeout,
            now,
            self._family.error,
            in_task=asking.in_task,
            began=began,
        )

    def _onward(self, request: Any, body: bytes) -> Any:  # noqa: ANN401 - of either library
        """Return a request for the real server, whose answer is to be readable."""
        kept = [one for one in request.headers.raw if one[0].lower() != _ENCODING]
        return self._family.module.Request(
            request.method,
            request.url,
            headers=[*kept, (_ENCODING, b"identity")],
            content=body,
            extensions=dict(request.extensions),
        )

    @contextmanager
    def _pool_timeout(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            name = "PoolTimeout"
            raise self._family.error(name, "") from None

    @staticmethod
    def _give_up(
        exchange: Exchange, seat: Seat | None, error: BaseException, at: float
    ) -> None:
        if seat is not None:
            seat.leave()
        exchange.ended(repr(error))
        exchange.closed(at)

    def _response(self, head: Any, body: object) -> Any:  # noqa: ANN401 - of either library
        status, reason, headers = head
        extensions = {"http_version": b"HTTP/1.1", "reason_phrase": bytes(reason)}
        return self._family.module.Response(
            status, headers=headers, stream=body, extensions=extensions
        )


class _InTasks(_Between):
    """Stands in for the network of an async client."""

    async def handle_async_request(self, request: Any) -> Any:  # noqa: ANN401 - as above
        router = _router_for(request.url)
        if router is None:
            with asking_for(f"{request.method} {request.url}"):
                return await self._transport.handle_async_request(request)
        loop = asyncio.get_running_loop()
        body = await request.aread()
        asking = Asking(request, body, loop.time(), in_task=True)
        exchange = router.begin(asking)
        seat = None
        try:
            with self._pool_timeout():
                seat = await seats_of(self._transport).take_in_task(
                    asking.timeout.get("pool")
                )
            answer, began = exchange.answer(), None
            if isinstance(answer, Forward):
                began, onward = loop.time(), self._onward(request, body)
                answer = await fetch_in_task(answer, self._transport, onward)
            elif not isinstance(answer, WireAnswer):
                answer = await answer
            playing = self._playing(asking, answer, loop.time, began)
            head = await self._drive(playing.head())
        except BaseException as error:
            self._give_up(exchange, seat, error, loop.time())
            raise
        exchange.began()
        stream = _kinds_of(self._family).body_in_tasks
        return self._response(head, stream(playing, exchange, seat))

    @staticmethod
    async def _drive(waits: Waits) -> Any:  # noqa: ANN401 - as the waits return
        while True:
            try:
                wait = next(waits)
            except StopIteration as done:
                return done.value
            await _pause(wait)


async def _pause(wait: float | None) -> None:
    if wait is None:
        await asyncio.get_running_loop().create_future()
    else:
        await asyncio.sleep(wait)


class _BodyInTasks:
    """A body that is read once, in a task."""

    def __init__(self, playing: Playing, exchange: Exchange, seat: Seat) -> None:
        self._parts = playing.parts()
        self._exchange = exchange
        self._seat = seat

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            for part in self._parts:
                if isinstance(part, bytes):
                    yield part
                else:
                    await _pause(part)
        except BaseException as error:
            self._exchange.ended(repr(error))
            raise
        self._exchange.ended("")

    async def aclose(self) -> None:
        self._parts.close()
        self._seat.leave()
        self._exchange.closed(asyncio.get_running_loop().time())


class _Blocking(_Between):
    """Stands in for the network of a client that blocks its thread."""

    def handle_request(self, request: Any) -> Any:  # noqa: ANN401 - as above
        router = _router_for(request.url)
        if router is None:
            with asking_for(f"{request.method} {request.url}"):
                return self._transport.handle_request(request)
        body = request.read()
        asking = Asking(request, body, monotonic(), in_task=False)
        exchange = router.begin(asking)
        seat = None
        try:
            with self._pool_timeout():
                seat = seats_of(self._transport).take_in_thread(
                    asking.timeout.get("pool")
                )
            answer, began = exchange.answer(), None
            if isinstance(answer, Forward):
                began, onward = monotonic(), self._onward(request, body)
                answer = fetch_in_thread(answer, self._transport, onward)
            playing = self._playing(asking, _at_once(answer), monotonic, began)
            head = self._drive(playing.head())
        except BaseException as error:
            self._give_up(exchange, seat, error, monotonic())
            raise
        exchange.began()
        stream = _kinds_of(self._family).body_of_thread
        return self._response(head, stream(playing, exchange, seat))

    @staticmethod
    def _drive(waits: Waits) -> Any:  # noqa: ANN401 - as the waits return
        while True:
            try:
                wait = next(waits)
            except StopIteration as done:
                return done.value
            _block(wait)


def _at_once(answer: WireAnswer | Awaitable[WireAnswer]) -> WireAnswer:
    if isinstance(answer, WireAnswer):
        return answer
    msg = "an async function cannot answer a client that blocks its thread"
    raise TypeError(msg)


def _block(wait: float | None) -> None:
    if wait is None:
        msg = (
            "a client that blocks its thread waits for an answer that never comes, and "
            "has no timeout that would end it"
        )
        raise ClockDeadlock(msg)
    sleep(wait)


class _BodyOfThread:
    """A body that is read once, in a thread."""

    def __init__(self, playing: Playing, exchange: Exchange, seat: Seat) -> None:
        self._parts = playing.parts()
        self._exchange = exchange
        self._seat = seat

    def __iter__(self) -> Iterator[bytes]:
        try:
            for part in self._parts:
                if isinstance(part, bytes):
                    yield part
                else:
                    _block(part)
        except BaseException as error:
            self._exchange.ended(repr(error))
            raise
        self._exchange.ended("")

    def close(self) -> None:
        self._parts.close()
        self._seat.leave()
        self._exchange.closed(monotonic())
