"""How primitives talk to a Redis that they share: together, bounded, quick to give up.

A server that hangs must cost a call no more than a moment, and a server that is away
nothing at all. So every command has a limit, and after one that could not reach the
server, others fail at once for a while, until one that probes it has got through.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from tta_primitives.redis_link.batches import Batches, LinkDownError
from tta_primitives.redis_link.packed import unpacked
from tta_primitives.redis_link.watch import Watch
from tta_primitives.redis_link.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Sequence

    from redis.asyncio import Redis

    from tta_primitives.redis_link.batches import Lookup, Parts, Script

__all__ = [
    "COOL_DOWN_SECONDS",
    "RedisLink",
    "is_redis",
    "link_to",
]

T = TypeVar("T")

AGAIN = -3
"""What a script answers for a key if the answers before it were long enough."""

COOL_DOWN_SECONDS = 1.0
"""How long nobody asks a server that could not be reached."""


class RedisLink:
    """The use of one client by all primitives that were given it.

    What is asked in one iteration of the event loop travels together. Answers are
    bytes, whatever the client decodes otherwise.

    Args:
        client: A `redis.asyncio.Redis`, which stays the caller's to close.
    """

    __slots__ = (
        "__weakref__",
        "_away_until",
        "_batches",
        "_client",
        "_reason",
        "_watch",
        "_wire",
    )

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._wire = Wire(client)
        self._watch: Watch | None = None
        # Half of a small pool is left to the client's owner.
        self._batches = Batches(self._wire.size // 2)
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
        if self._away_until is not None:
            self._refuse_while_away()
        return await self._batches.send(self, parts)

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
            if not _is_unknown_script(error):
                raise
        return await self.command("EVAL", script.text, *rest)

    def look_up(self, lookup: Lookup, key: str) -> Awaitable[Any]:
        """Ask about one key; all keys of one iteration are handed to one script.

        Args:
            lookup: What is asked. Who gives the same object is answered together.
            key: The key.

        Returns:
            The answer, to be awaited; it raises as `command` does.

        Raises:
            LinkDownError: The server could not be reached a moment ago.
        """
        if self._away_until is not None:
            self._refuse_while_away()
        return self._batches.look_up(self, lookup, key)

    def _refuse_while_away(self) -> None:
        """Spare those the wait for a batch who would get nothing from it."""
        if self._is_resting():
            raise self._refusal()

    def _check(self) -> None:
        """Let one of many through to see whether the server is back."""
        if self._away_until is None:
            return
        if self._is_resting():
            raise self._refusal()
        now = asyncio.get_running_loop().time()
        self._away_until = now + COOL_DOWN_SECONDS

    def _is_resting(self) -> bool:
        now = asyncio.get_running_loop().time()
        # A moment that is further away was noted on another loop's clock.
        return now < (self._away_until or now) <= now + COOL_DOWN_SECONDS

    def _refusal(self) -> LinkDownError:
        msg = f"Redis could not be reached a moment ago: {self._reason}"
        return LinkDownError(msg)

    async def ask(self, parts: Parts, seconds: float, /) -> Any:  # noqa: ANN401 - as Redis answers
        """Send one command at once and return the answer.

        Args:
            parts: The command's name and its arguments.
            seconds: How long it may take.
        """
        self._check()
        return await self._bounded(self._wire.ask(parts), seconds)

    async def ask_all(self, commands: list[Parts], seconds: float, /) -> list[Any]:
        """Send commands at once, in one go; an answer may be the error of one of them.

        Args:
            commands: Of each its name and its arguments.
            seconds: How long all of them may take.
        """
        self._check()
        return await self._bounded(self._wire.ask_all(commands), seconds)

    async def ask_script(
        self, script: Script, keys: list[str], arguments: Parts, seconds: float, /
    ) -> list[Any]:
        """Run a script at once, sending its text only where Redis does not know it yet.

        Args:
            script: What to run: it returns a list with one answer for each of `KEYS`,
                as it is or as `packed` makes a text of it. For the first it has
                one; for others it may have `AGAIN`, and is run again for those.
            keys: Its `KEYS`.
            arguments: Its `ARGV`.
            seconds: How long each run may take.
        """
        answers = await self._run_once(script, keys, arguments, seconds)
        while AGAIN in answers:
            late = [at for at, answer in enumerate(answers) if answer == AGAIN]
            some = [keys[at] for at in late]
            more = await self._run_once(script, some, arguments, seconds)
            for at, answer in zip(late, more, strict=True):
                answers[at] = answer
        return answers

    async def _run_once(
        self, script: Script, keys: list[str], arguments: Parts, seconds: float
    ) -> list[Any]:
        rest = (len(keys), *keys, *arguments)
        try:
            answers = await self.ask(("EVALSHA", script.digest, *rest), seconds)
        except Exception as error:
            if not _is_unknown_script(error):
                raise
            answers = await self.ask(("EVAL", script.text, *rest), seconds)
        return unpacked(answers) if type(answers) is bytes else list(answers)

    async def _bounded(self, operation: Coroutine[Any, Any, T], seconds: float) -> T:
        """Await what talks to the server, and note whether the server is there."""
        watch, loop = self._watch, asyncio.get_running_loop()
        if watch is None or watch.loop is not loop:
            watch = self._watch = Watch(loop)
        try:
            answer = await watch.within(operation, seconds)
        except Exception as error:
            self._note(error)
            raise
        self._away_until = None
        return answer

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


def _is_unknown_script(error: Exception) -> bool:
    # By name: redis-py is imported by those who use it, and not here.
    return type(error).__name__ == "NoScriptError"


# By identity: a link keeps its client alive, and lives as long as a primitive uses it.
_links: WeakValueDictionary[int, RedisLink] = WeakValueDictionary()


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
    if isinstance(client, type) or not is_redis(client):
        msg = f"{name}={client!r} must be a redis.asyncio.Redis"
        raise TypeError(msg)
    kind = f"{type(client).__module__}.{type(client).__qualname__}"
    if not inspect.iscoroutinefunction(client.execute_command):
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
    link = _links.get(id(client))
    if link is None:
        link = _links[id(client)] = RedisLink(client)
    return link
