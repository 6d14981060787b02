"""How primitives talk to a Redis that they share: bounded, and quick to give up.

A server that hangs must cost a call no more than a moment, and a server that is away
nothing at all. So every command has a limit, and after one that could not reach the
server, others fail at once for a while, until one that probes it has got through.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

__all__ = ["LinkDownError", "RedisLink", "Script", "is_redis", "link_to"]

COMMAND_SECONDS = 0.2
"""How long one command may take, connecting included."""

COOL_DOWN_SECONDS = 1.0
"""How long nobody asks a server that could not be reached."""


class LinkDownError(ConnectionError):
    """The server was not asked, because it could not be reached a moment ago."""


class Script:
    """A Lua script that Redis runs as one step, known there by its digest.

    Args:
        text: The script; Redis gives it `KEYS` and `ARGV`.
    """

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        # Redis asks for SHA-1; nothing secret depends on it.
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class RedisLink:
    """The use of one client by all primitives that were given it.

    Answers are bytes, whatever the client decodes otherwise.

    Args:
        client: A `redis.asyncio.Redis`, which stays the caller's to close.
    """

    __slots__ = ("__weakref__", "_away_until", "_client", "_reason")

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._away_until: float | None = None
        self._reason = ""

    @property
    def is_away(self) -> bool:
        """Whether the server could not be reached when it was last asked."""
        return self._away_until is not None

    async def command(self, *parts: bytes | str | float) -> Any:  # noqa: ANN401 - as Redis answers
        """Send one command and return the answer.

        Args:
            parts: The command's name and its arguments.

        Raises:
            LinkDownError: The server could not be reached a moment ago.
            Exception: What the client raised; a TimeoutError after 200 ms.
        """
        self._check()
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                # The option by which redis-py leaves the answer as bytes.
                answer = await self._client.execute_command(*parts, NEVER_DECODE=True)
        except Exception as error:
            self._note(error)
            raise
        self._away_until = None
        return answer

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[bytes | str | float] = (),
    ) -> Any:  # noqa: ANN401 - as the script answers
        """Run a script, sending its text only where Redis does not know it yet.

        Args:
            script: What to run.
            keys: Its `KEYS`.
            arguments: Its `ARGV`.

        Raises:
            LinkDownError: The server could not be reached a moment ago.
            Exception: What the client raised; a TimeoutError after 200 ms.
        """
        rest = (len(keys), *keys, *arguments)
        try:
            return await self.command("EVALSHA", script.digest, *rest)
        except Exception as error:
            if type(error).__name__ != "NoScriptError":
                raise
        return await self.command("EVAL", script.text, *rest)

    def _check(self) -> None:
        """Let one of many through to see whether the server is back."""
        if self._away_until is None:
            return
        now = asyncio.get_running_loop().time()
        # A moment that is further away was noted on another loop's clock.
        if now < self._away_until <= now + COOL_DOWN_SECONDS:
            msg = f"Redis could not be reached a moment ago: {self._reason}"
            raise LinkDownError(msg)
        self._away_until = now + COOL_DOWN_SECONDS

    def _note(self, error: Exception) -> None:
        """Remember that the server cannot be reached, if that is what an error says."""
        if _is_outage(error):
            now = asyncio.get_running_loop().time()
            self._away_until = now + COOL_DOWN_SECONDS
            self._reason = repr(error)
        else:
            self._away_until = None


def _is_outage(error: Exception) -> bool:
    from redis import exceptions

    kinds = (OSError, TimeoutError, exceptions.ConnectionError, exceptions.TimeoutError)
    return isinstance(error, kinds)


_links: WeakKeyDictionary[Any, RedisLink] = WeakKeyDictionary()


def is_redis(value: object) -> bool:
    """Tell whether a value is a client of Redis, of whichever kind."""
    return hasattr(value, "execute_command") and hasattr(value, "get_encoder")


def link_to(name: str, client: Any) -> RedisLink:  # noqa: ANN401 - checked here
    """Return the link that all primitives with this client share.

    Args:
        name: The parameter, for the message.
        client: A `redis.asyncio.Redis`, or one of fakeredis.

    Raises:
        TypeError: It is something else, such as a blocking client.
    """
    if not is_redis(client):
        msg = f"{name}={client!r} must be a redis.asyncio.Redis"
        raise TypeError(msg)
    kind = f"{type(client).__module__}.{type(client).__qualname__}"
    if not asyncio.iscoroutinefunction(client.execute_command):
        msg = (
            f"{name}= is a {kind}, which would block the event loop; use "
            "redis.asyncio.Redis"
        )
        raise TypeError(msg)
    if not hasattr(client, "connection_pool"):
        msg = (
            f"{name}= is a {kind}; only a client of one server (or of a primary, by "
            "Sentinel) is supported: redis.asyncio.Redis"
        )
        raise TypeError(msg)
    link = _links.get(client)
    if link is None:
        link = _links[client] = RedisLink(client)
    return link
