"""Libraries whose calls are sites: they are patched while a test is explored."""

# ruff: noqa: ANN401 - classes, requests and answers of libraries

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from pytest_tta.explore.injected import marked
from pytest_tta.explore.sites import AROUND
from pytest_tta.names import HTTP_LIBRARIES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import ExitStack

    from pytest_tta.explore.sites import Seen, Sites

__all__ = ["enter"]

_REDIS = "redis.asyncio.client"
_FAKE_REDIS = "fakeredis._core._server"


def enter(stack: ExitStack, sites: Sites) -> Callable[[], None]:
    """Patch the libraries that are loaded, until a stack is closed.

    Args:
        stack: What ends it.
        sites: Where calls are noted, and chosen.

    Returns:
        What is called before each execution: it lets libraries begin anew.
    """
    if not HTTP_LIBRARIES.isdisjoint(sys.modules):
        from pytest_tta.wire.transport import naming

        # As long as there is one router, a wire of the body need not patch anything.
        stack.enter_context(naming())
    for name in sorted(HTTP_LIBRARIES):
        module = sys.modules.get(name)
        client = getattr(module, "AsyncClient", None)
        if hasattr(client, "_send_single_request"):
            _patch(stack, client, "_send_single_request", _http(sites, module))
    redis = sys.modules.get(_REDIS)
    if redis is not None:
        for owner, method, label in (
            (redis.Redis, "_send_command_parse_response", None),
            (redis.Pipeline, "_execute_transaction", "MULTI"),
            (redis.Pipeline, "_execute_pipeline", "PIPELINE"),
        ):
            if hasattr(owner, method):
                _patch(stack, owner, method, _redis(sites, label))
    fleet = sys.modules.get("pytest_tta.fleet.simulation")
    if fleet is not None:
        stack.callback(setattr, fleet, "planner", None)
        fleet.planner = sites  # type: ignore[attr-defined]
    return _new_fake_servers(stack)


def _new_fake_servers(stack: ExitStack) -> Callable[[], None]:
    """Return what lets fakeredis forget the servers of the execution before.

    It keeps them by a random host, and random is the same in each execution.
    """
    module = sys.modules.get(_FAKE_REDIS)
    servers = getattr(getattr(module, "FakeServer", None), "_servers_map", None)
    if not isinstance(servers, dict):
        return _nothing
    before = dict(servers)

    def begin() -> None:
        if len(servers) > len(before):
            servers.clear()
            servers.update(before)

    stack.callback(begin)
    return begin


def _nothing() -> None:
    """Begin nothing anew."""


def _patch(stack: ExitStack, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    original = vars(owner).get(name)
    if original is not None:
        stack.callback(setattr, owner, name, original)
        made = make(original)
        made.__tta_inner__ = original
        setattr(owner, name, made)


class _Errors:
    """What a library raises, and for how long it waits.

    Attributes:
        refused: Where nothing was executed.
        lost: Where the answer is lost.
        timed_out: Where the library's own limit is up.
        limit: That limit in seconds, None for none.
    """

    refused: BaseException
    lost: BaseException
    timed_out: BaseException
    limit: float | None

    def fatal(self) -> Any:
        """Return or raise what will be the same next time."""
        raise NotImplementedError

    async def discard(self, answer: Any) -> None:
        """Let go of an answer that is lost."""
        raise NotImplementedError


async def _through(
    sites: Sites, seen: Seen, errors: _Errors, effect: Callable[[], Awaitable[Any]]
) -> Any:
    """Make one call of a library, as the plan says."""
    kind = seen.kind
    if kind == "hang":
        await _silence(sites, seen, errors)
    await sites.operation(seen)
    if kind in {"error", "outage"}:
        raise marked(errors.refused)
    if kind == "fatal":
        answer = errors.fatal()
        sites.told = True
        return answer
    answer = await effect()
    if kind in {"lost-ack", "late"}:
        await errors.discard(answer)
        if kind == "lost-ack":
            raise marked(errors.lost)
        await _silence(sites, seen, errors)
    return answer


async def _silence(sites: Sites, seen: Seen, errors: _Errors) -> None:
    """Wait until the library gives up, or for ever."""
    try:
        async with asyncio.timeout(errors.limit):
            await sites.hang(seen)
    except TimeoutError:
        raise marked(errors.timed_out) from None


# --- httpx and httpx2 ------------------------------------------------------------


def _http(sites: Sites, module: Any) -> Callable[[Any], Any]:
    def make(original: Any) -> Any:
        async def _send_single_request(self: Any, request: Any) -> Any:
            url = request.url
            label = f"httpx:{request.method} {url.host}{url.path}"
            seen = sites.saw_inside(label, AROUND)
            if seen.kind is None:
                await sites.operation(seen)
                return await original(self, request)
            errors = _HttpErrors(module, request, str(seen))
            return await _through(sites, seen, errors, lambda: original(self, request))

        return _send_single_request

    return make


class _HttpErrors(_Errors):
    def __init__(self, module: Any, request: Any, what: str) -> None:
        text = f"injected at {what}"
        self._module = module
        self._request = request
        self._text = text
        self.refused = module.ConnectError(text, request=request)
        # Whoever is refused may try again; who loses an answer may have been served.
        self.lost = module.ReadError(text, request=request)
        self.timed_out = module.ReadTimeout(text, request=request)
        self.limit = request.extensions.get("timeout", {}).get("read")

    def fatal(self) -> Any:
        """Return HTTP 400."""
        return self._module.Response(400, text=self._text, request=self._request)

    async def discard(self, answer: Any) -> None:
        """Close a response that nobody gets."""
        await answer.aclose()


# --- redis -----------------------------------------------------------------------


def _redis(sites: Sites, label: str | None) -> Callable[[Any], Any]:
    def make(original: Any) -> Any:
        async def send(self: Any, connection: Any, *args: Any, **options: Any) -> Any:
            # The first thing that a client sends is the name of its command.
            site = f"redis:{label or str(args[0]).upper()}"
            seen = sites.saw_inside(site, AROUND)
            if seen.kind is None:
                await sites.operation(seen)
                return await original(self, connection, *args, **options)
            errors = _RedisErrors(self, str(seen))
            return await _through(
                sites,
                seen,
                errors,
                lambda: original(self, connection, *args, **options),
            )

        return send

    return make


class _RedisErrors(_Errors):
    def __init__(self, client: Any, what: str) -> None:
        from redis import exceptions

        text = f"injected at {what}"
        self.refused = self.lost = exceptions.ConnectionError(text)
        self.timed_out = exceptions.TimeoutError(text)
        self._fatal = exceptions.ResponseError(text)
        self.limit = client.connection_pool.connection_kwargs.get("socket_timeout")

    def fatal(self) -> Any:
        """Raise what a server answers to a command that is wrong."""
        raise marked(self._fatal)

    async def discard(self, answer: Any) -> None:
        """Leave an answer that is nothing but data to the collector."""
