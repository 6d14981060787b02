"""A fleet of taskiq on Redis: streams that lose no task, and replies without polling.

    fleet = redis_fleet("redis://localhost:6379/0", Registry(summarize))
    broker = fleet.broker

and `taskiq worker module:broker` on as many machines as needed.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tta_primitives.arguments import check_count, seconds
from tta_primitives.chance import new_id
from tta_primitives.extras import needs
from tta_primitives.loops import now

with needs("taskiq", __name__, "redis"):
    from redis.asyncio import Redis
    from redis.exceptions import RedisError, ResponseError
with needs("taskiq", __name__):
    from taskiq import AckableMessage

    from tta_primitives.integrations.taskiq import (
        DELIVERIES_LABEL,
        TaskiqEngine,
        unanswered,
    )
with needs("taskiq", __name__, "taskiq_redis"):
    from taskiq_redis import RedisStreamBroker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from datetime import timedelta

    from tta_primitives.distributed.registry import Registry

__all__ = ["FleetBroker", "RedisMailbox", "redis_fleet"]

logger: logging.Logger = logging.getLogger(__name__)

_BLOCK_SECONDS = 2.0
# Longer than the server is asked to wait, or each quiet moment would be an error.
_ANSWER_SECONDS = _BLOCK_SECONDS + 5.0
_PAUSE = 0.2
_LONGEST_PAUSE = 5.0

_AWAY = (RedisError, OSError, asyncio.TimeoutError)


def redis_fleet(
    url: str,
    registry: Registry,
    *,
    queue: str = "tta",
    visibility_timeout: float | timedelta = 30.0,
    max_deliveries: int = 5,
    keep_seconds: float | timedelta = 3600.0,
) -> TaskiqEngine:
    """Return an engine whose workers share a Redis.

    Args:
        url: Of the Redis, with its password if it has one.
        registry: What workers can be asked for.
        queue: The name of the stream, and what other keys begin with.
        visibility_timeout: How long a task of a worker that gave no sign of life lies
            until another gets it. Workers give one every third of it for each task.
        max_deliveries: After so many workers have died of a task it fails.
        keep_seconds: How long replies and cancellations are kept for those who are
            away.
    """
    broker = FleetBroker(
        url,
        queue_name=queue,
        visibility_timeout=visibility_timeout,
        max_deliveries=max_deliveries,
    )
    mailbox = RedisMailbox(url, prefix=queue, keep_seconds=keep_seconds)
    return TaskiqEngine(registry, broker=broker, mailbox=mailbox)


class FleetBroker(RedisStreamBroker):
    """A stream of tasks that are gone when they are answered, and not before.

    Beyond what taskiq's own broker does, the tasks of a killed worker are found also
    while no new ones come, long tasks are not delivered again while their worker lives,
    what is done leaves the stream, and a task sent before the first worker is kept.

    Args:
        url: Of the Redis.
        queue_name: The name of the stream.
        visibility_timeout: As for `redis_fleet`.
        max_deliveries: As for `redis_fleet`.
    """

    def __init__(
        self,
        url: str,
        *,
        queue_name: str = "tta",
        visibility_timeout: float | timedelta = 30.0,
        max_deliveries: int = 5,
    ) -> None:
        super().__init__(
            url,
            queue_name=queue_name,
            consumer_group_name=queue_name,
            consumer_name=new_id(),
            consumer_id="0",
        )
        self._visible = seconds("visibility_timeout", visibility_timeout)
        self._most = check_count("max_deliveries", max_deliveries, minimum=1)
        self._in_flight: set[bytes] = set()
        self._heart: asyncio.Task[None] | None = None
        self._look_at = 0.0

    def _redis(self) -> Redis:
        return Redis(connection_pool=self.connection_pool)

    async def startup(self) -> None:
        """Make the stream and its group, and begin to give signs of life."""
        await super().startup()
        if self.is_worker_process and self._heart is None:
            self._heart = asyncio.create_task(self._beat(), name="tta-fleet-heart")

    async def shutdown(self) -> None:
        """End everything; what this worker has not answered, others will get."""
        if self._heart is not None:
            self._heart.cancel()
            await asyncio.wait((self._heart,))
            self._heart = None
        if self.is_worker_process:
            with suppress(*_AWAY):
                await self._leave()
        await super().shutdown()

    async def _leave(self) -> None:
        """Take this consumer out of the group, unless it has left tasks unanswered."""
        group = self.consumer_group_name
        name = self.consumer_name
        left = await self._redis().xpending_range(
            self.queue_name, group, "-", "+", 1, consumername=name
        )
        if not left:
            await self._redis().xgroup_delconsumer(self.queue_name, group, name)

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Yield tasks, one by one, so that no worker hoards what another could do."""
        pause = _PAUSE
        while True:
            try:
                found = await self._next()
            except ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                # The server was restarted empty.
                await self._declare_consumer_group()
                continue
            except _AWAY as error:
                logger.warning("Redis is away: %s", type(error).__name__)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            pause = _PAUSE
            if found is not None:
                yield found

    async def _next(self) -> AckableMessage | None:
        """Return a task that another has left, or else a new one."""
        if now() >= self._look_at:
            left = await self._left_task()
            if left is not None:
                return left
            self._look_at = now() + self._visible / 2
        wait = min(_BLOCK_SECONDS, max(0.001, self._look_at - now()))
        fetched: Any = await self._redis().xreadgroup(
            self.consumer_group_name,
            self.consumer_name,
            {self.queue_name: ">"},
            count=1,
            block=max(1, int(wait * 1000)),
        )
        for _, messages in fetched or ():
            for number, fields in messages:
                return await self._message(number, fields)
        return None

    async def _left_task(self) -> AckableMessage | None:
        """Return a task whose worker gave no sign of life, None if there is none."""
        claimed: Any = await self._redis().xautoclaim(
            self.queue_name,
            self.consumer_group_name,
            self.consumer_name,
            min_idle_time=int(self._visible * 1000),
            count=1,
        )
        for number, fields in claimed[1]:
            if number in self._in_flight:
                return None  # Our own: the loop was held for long, and it is claimed.
            told: Any = await self._redis().xpending_range(
                self.queue_name, self.consumer_group_name, number, number, 1
            )
            deliveries = told[0]["times_delivered"] if told else 1
            is_too_often = deliveries > self._most
            return await self._message(
                number, fields, deliveries if is_too_often else None
            )
        return None

    async def _message(
        self, number: bytes, fields: dict[bytes, bytes], too_often: int | None = None
    ) -> AckableMessage | None:
        """Return a task to be performed, None for what is none and is dropped."""
        try:
            data = fields[b"data"]
            if too_often is not None:
                data = _labelled(data, too_often)
        except (LookupError, TypeError, ValueError, AttributeError):
            # It would end each worker that gets it, one after the other.
            logger.warning("what came instead of a task is dropped: %.80r", number)
            await self._take_out(number)
            return None
        self._in_flight.add(number)
        return AckableMessage(data=data, ack=self._acknowledging(number))

    def _acknowledging(self, number: bytes) -> Callable[[], Awaitable[None]]:
        async def acknowledge() -> None:
            # From now on it may be claimed by others.
            self._in_flight.discard(number)
            if unanswered.get():
                return
            await self._take_out(number)

        return acknowledge

    async def _take_out(self, number: bytes) -> None:
        async with self._redis().pipeline() as pipe:
            pipe.xack(self.queue_name, self.consumer_group_name, number)
            pipe.xdel(self.queue_name, number)
            await pipe.execute()

    async def _beat(self) -> None:
        """Give a sign of life for each task that is being performed."""
        while _goes_on():
            await asyncio.sleep(self._visible / 3)
            try:
                await self._sign_of_life()
            except _AWAY as error:
                logger.warning("no sign of life was given: %s", type(error).__name__)

    async def _sign_of_life(self) -> None:
        if not self._in_flight:
            return
        held: Any = await self._redis().xpending_range(
            self.queue_name,
            self.consumer_group_name,
            "-",
            "+",
            len(self._in_flight) + 1000,
            consumername=self.consumer_name,
        )
        # One that another has claimed since is no longer ours.
        ours = [one["message_id"] for one in held]
        alive: list[Any] = [number for number in ours if number in self._in_flight]
        if alive:
            await self._redis().xclaim(
                self.queue_name,
                self.consumer_group_name,
                self.consumer_name,
                0,
                alive,
                justid=True,
            )


def _goes_on() -> bool:
    """Tell whether the current task was not cancelled.

    The client may swallow a cancellation that comes together with an answer.
    """
    task = asyncio.current_task()
    return task is None or not task.cancelling()


def _labelled(data: bytes, deliveries: int) -> bytes:
    """Return a message of taskiq with a label that it was delivered too often."""
    message = json.loads(data)
    message["labels"] = {**message.get("labels", {}), DELIVERIES_LABEL: deliveries}
    return json.dumps(message).encode()


class RedisMailbox:
    """Replies in a stream for each caller, cancellations on a channel for all workers.

    A caller holds one connection that waits for replies, a worker one that waits for
    cancellations. Replies that come while a caller is cut off are kept for it.

    Args:
        url: Of the Redis.
        prefix: What the keys begin with.
        keep_seconds: How long they are kept.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "tta",
        keep_seconds: float | timedelta = 3600.0,
    ) -> None:
        self._url = url
        self._prefix = prefix
        self._keep = int(seconds("keep_seconds", keep_seconds)) or 1
        self.address: str = f"{prefix}:replies:{new_id()}"
        self._client: Redis | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._ahead = 0.0

    async def receive(self, deliver: Callable[[str], None]) -> None:
        """Begin to read the replies to this process."""
        await self._connect()
        self._begin(self._read(deliver), "tta-fleet-replies")

    async def obey(self, cancel: Callable[[str], object]) -> None:
        """Begin to listen to cancellations."""
        await self._connect()
        self._begin(self._listen(cancel), "tta-fleet-cancellations")

    async def post(self, address: str, reply: str) -> None:
        """Post a reply, again and again while Redis is away.

        Raises:
            redis.exceptions.RedisError: It has been away for as long as replies are
                kept.
        """
        pause, waited = _PAUSE, 0.0
        while True:
            try:
                async with self._redis().pipeline() as pipe:
                    pipe.xadd(address, {"reply": reply})
                    pipe.expire(address, self._keep)
                    await pipe.execute()
            except _AWAY:
                if waited >= self._keep:
                    raise
                await asyncio.sleep(pause)
                waited += pause
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                return

    async def revoke(self, call_id: str) -> None:
        """Cancel a call, also one that no worker has begun."""
        async with self._redis().pipeline() as pipe:
            pipe.set(f"{self._prefix}:cancelled:{call_id}", 1, ex=self._keep)
            pipe.publish(f"{self._prefix}:cancelled", call_id)
            await pipe.execute()

    async def is_revoked(self, call_id: str) -> bool:
        """Tell whether a call was cancelled before this worker got it."""
        try:
            key = f"{self._prefix}:cancelled:{call_id}"
            return bool(await self._redis().exists(key))
        except _AWAY:
            return False

    def now(self) -> float:
        """Return the time of the server, as it was found when this was connected."""
        return now() + self._ahead

    async def close(self) -> None:
        """End both, and let the connections go."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        client, self._client = self._client, None
        if client is not None:
            with suppress(*_AWAY):
                await client.delete(self.address)
            await client.aclose()

    def _redis(self) -> Redis:
        if self._client is None:
            self._client = Redis.from_url(self._url, socket_timeout=_ANSWER_SECONDS)
        return self._client

    async def _connect(self) -> None:
        """Learn how far the server's clock is ahead of this event loop's."""
        before = now()
        whole, millionths = await self._redis().time()
        self._ahead = whole + millionths / 1e6 - (before + now()) / 2

    def _begin(self, work: Any, name: str) -> None:  # noqa: ANN401 - a coroutine
        self._tasks.append(asyncio.create_task(work, name=name))

    async def _read(self, deliver: Callable[[str], None]) -> None:
        last, pause = b"0", _PAUSE
        while _goes_on():
            try:
                block = int(_BLOCK_SECONDS * 1000)
                found: Any = await self._redis().xread(
                    {self.address: last}, block=block
                )
                for _, messages in found or ():
                    for number, fields in messages:
                        last = number
                        deliver(fields[b"reply"].decode())
                    await self._redis().xtrim(self.address, minid=_after(last))
            except _AWAY as error:
                logger.warning("no replies can be read: %s", type(error).__name__)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                pause = _PAUSE

    async def _listen(self, cancel: Callable[[str], object]) -> None:
        pause = _PAUSE
        while _goes_on():
            try:
                async with self._redis().pubsub() as channel:
                    await channel.subscribe(f"{self._prefix}:cancelled")
                    while _goes_on():
                        told = await channel.get_message(
                            ignore_subscribe_messages=True, timeout=_BLOCK_SECONDS
                        )
                        pause = _PAUSE
                        if told is not None:
                            cancel(told["data"].decode())
            except _AWAY as error:
                logger.warning("no cancellations come: %s", type(error).__name__)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)


def _after(number: bytes) -> str:
    """Return the id that follows an id of a stream."""
    moment, _, count = number.decode().partition("-")
    return f"{moment}-{int(count) + 1}"
