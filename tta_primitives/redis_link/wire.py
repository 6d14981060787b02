"""One command, one answer: the client's connections without what it adds to them.

`execute_command` wraps each command for retries and telemetry, and its pool counts what
it hands out: together a quarter of what a short command costs. Here the same is done by
the public methods of pool and connection. A second try is made only where a connection
that had been idle turns out to be closed, as after a restart of the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from tta_primitives.redis_link.batches import Parts

__all__ = ["Wire"]


class Wire:
    """Sends commands over the connections of a client.

    Answers are bytes, whatever the client decodes otherwise.

    Args:
        client: A `redis.asyncio.Redis`.
    """

    __slots__ = ("_client", "_counts_only", "_is_plain", "_known")

    _client: Any  # Some of its methods have no types.

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._known: object = None
        self._is_plain = False
        # Whether all that `get_connection` adds to two public methods is to count.
        self._counts_only = False

    @property
    def size(self) -> int:
        """How many connections there may be."""
        size: int = getattr(self._client.connection_pool, "max_connections", 100)
        return size

    async def ask(self, parts: Parts) -> Any:  # noqa: ANN401 - as Redis answers
        """Send one command and return the answer."""
        if not self._may_bypass():
            # The option by which redis-py leaves the answer as bytes.
            return await self._client.execute_command(*parts, NEVER_DECODE=True)
        pool = self._client.connection_pool
        if self._counts_only:
            connection = pool.get_available_connection()
            was_idle = connection.is_connected
        else:
            connection, was_idle = await pool.get_connection(), True
        try:
            if self._counts_only:
                await pool.ensure_connection(connection)
            try:
                await connection.send_command(*parts)
                return await connection.read_response(disable_decoding=True)
            except Exception as error:
                if not (was_idle and _is_hangup(error)):
                    raise
            await connection.connect()
            await connection.send_command(*parts)
            return await connection.read_response(disable_decoding=True)
        finally:
            await pool.release(connection)

    async def ask_all(self, commands: list[Parts]) -> list[Any]:
        """Send commands in one go; an answer may be the error of one of them."""
        pipeline = self._client.pipeline(transaction=False)
        for parts in commands:
            pipeline.execute_command(*parts, NEVER_DECODE=True)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers

    def _may_bypass(self) -> bool:
        """Tell whether nobody has put anything of his own into `execute_command`.

        Tracing does, and so do doubles that fail on purpose.
        """
        function = getattr(self._client.execute_command, "__func__", None)
        if function is not self._known:
            self._known = function
            self._examine(function)
        return self._is_plain

    def _examine(self, function: object) -> None:
        from redis.asyncio import ConnectionPool

        code = getattr(function, "__code__", None)
        self._is_plain = (
            getattr(code, "co_name", "") == "execute_command"
            and getattr(function, "__module__", "") == "redis.asyncio.client"
            and not hasattr(function, "__wrapped__")
            and not self._client.single_connection_client
        )
        # A pool of another kind may let its callers wait for a connection.
        pool: Any = type(self._client.connection_pool)
        self._counts_only = pool.get_connection is ConnectionPool.get_connection


def _is_hangup(error: Exception) -> bool:
    from redis import exceptions

    return isinstance(error, exceptions.ConnectionError)
