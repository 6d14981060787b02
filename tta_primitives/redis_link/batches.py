"""What is asked of a Redis in one iteration of the event loop travels together.

One round trip on one connection answers all callers and all primitives with the same
client. Who asks alone pays for none of this but one turn of the loop: it sends its own
command in its own task. Nobody leads: a caller that is cancelled leaves alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import types
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator

__all__ = [
    "COMMAND_SECONDS",
    "UNDER_WAY",
    "Batches",
    "LinkDownError",
    "Lookup",
    "Parts",
    "Script",
    "Sender",
]

COMMAND_SECONDS = 0.2
"""How long one command, or what is sent in one go, may take, connecting included."""

UNDER_WAY = 8
"""How many batches may be under way on one event loop, each on a connection."""

COMMANDS = 128
"""How many commands, and how many keys of one look-up, travel together at most."""

BYTES = 1 << 20
"""How many bytes a batch may hold before the next command waits for its turn."""

Parts: TypeAlias = tuple[Any, ...]
Asker: TypeAlias = "tuple[Any, asyncio.Future[Any]]"
"""A command or a key, and where its answer is awaited."""


class LinkDownError(ConnectionError):
    """The server was not asked, or the batch that a command was part of failed."""


class Script:
    """A Lua script that Redis runs as one step, known there by its digest.

    Args:
        text: The script; Redis gives it `KEYS` and `ARGV`.
    """

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text: str = text
        # Redis asks for SHA-1; nothing secret depends on it.
        self.digest: str = hashlib.sha1(
            text.encode(), usedforsecurity=False
        ).hexdigest()


class Lookup:
    """A question about a key that a script answers for many keys at once.

    What is asked by the same object is answered together.

    Args:
        script: Returns a list with one answer for each of its `KEYS`.
        arguments: Its `ARGV`.
        alone: Returns the command that is sent instead for one key alone; None if it is
            the script then, too.
    """

    __slots__ = ("alone", "arguments", "script")

    def __init__(
        self,
        script: Script,
        arguments: Parts,
        alone: Callable[[str], Parts] | None = None,
    ) -> None:
        self.script: Script = script
        self.arguments: Parts = arguments
        self.alone: Callable[[str], Parts] | None = alone


class Sender(Protocol):
    """What batches are sent with."""

    async def ask(self, parts: Parts, seconds: float, /) -> Any:  # noqa: ANN401 - as Redis answers
        """Send one command within a limit and return the answer."""
        ...

    async def ask_all(self, commands: list[Parts], seconds: float, /) -> list[Any]:
        """Send commands in one go; an answer may be the error of one of them."""
        ...

    async def ask_script(
        self, script: Script, keys: list[str], arguments: Parts, seconds: float, /
    ) -> list[Any]:
        """Run a script within a limit, also one that Redis does not know yet."""
        ...


class _Batch:
    """What travels together.

    Attributes:
        sender: What it is sent with.
        commands: Who asks for a command.
        keys: Who looks a key up, by look-up.
        is_gathered: Whether whoever began it has given the others of the iteration
            their turn.
    """

    __slots__ = ("commands", "is_gathered", "keys", "sender")

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self.commands: list[Asker] = []
        self.keys: dict[Lookup, list[Asker]] = {}
        self.is_gathered = False

    def __bool__(self) -> bool:
        return bool(self.commands or self.keys)

    def answers(self) -> Iterator[asyncio.Future[Any]]:
        """Yield where answers are awaited."""
        for group in (self.commands, *self.keys.values()):
            for _, answer in group:
                yield answer


class _Lane:
    """What one event loop sends.

    Attributes:
        loop: The loop.
        waiting: What leaves next; None if nobody has begun to gather it.
        under_way: How many batches have left and not come back.
        tasks: Those that carry batches: a task lives only while somebody holds it.
    """

    __slots__ = ("loop", "tasks", "under_way", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.waiting: _Batch | None = None
        self.under_way = 0
        self.tasks: set[asyncio.Task[None]] = set()


class Batches:
    """Gathers what is asked in one iteration of a loop, and sends it.

    Args:
        width: How many batches may be under way on one loop; while they are, those who
            ask wait in the next one.
    """

    __slots__ = ("_lane", "_width")

    def __init__(self, width: int = UNDER_WAY) -> None:
        self._width = max(1, min(width, UNDER_WAY))
        self._lane: _Lane | None = None

    def send(self, sender: Sender, parts: Parts) -> Awaitable[Any]:
        """Send a command, together with all that is asked in this iteration.

        Args:
            sender: What it is sent with: the same for all who use these batches.
            parts: The command's name and its arguments.

        Returns:
            The answer, to be awaited; a LinkDownError if the batch failed, or what the
            sender raised, if nothing else was asked.
        """
        lane = self._lane_of(asyncio.get_running_loop())
        if lane.waiting is None:
            return self._send(lane, sender, parts)
        answer = lane.loop.create_future()
        lane.waiting.commands.append((parts, answer))
        return answer

    def look_up(self, sender: Sender, lookup: Lookup, key: str) -> Awaitable[Any]:
        """Look a key up, together with all that is asked in this iteration.

        Args:
            sender: What it is sent with: the same for all who use these batches.
            lookup: What is asked about it.
            key: The key.

        Returns:
            The answer, as `send` does.
        """
        lane = self._lane_of(asyncio.get_running_loop())
        batch = lane.waiting
        if batch is None:
            return self._look_up(lane, sender, lookup, key)
        answer = lane.loop.create_future()
        group = batch.keys.get(lookup)
        if group is None:
            batch.keys[lookup] = [(key, answer)]
        else:
            group.append((key, answer))
        return answer

    def _lane_of(self, loop: asyncio.AbstractEventLoop) -> _Lane:
        lane = self._lane
        if lane is None or lane.loop is not loop:
            lane = self._lane = _Lane(loop)
        return lane

    async def _send(self, lane: _Lane, sender: Sender, parts: Parts) -> Any:  # noqa: ANN401 - as Redis answers
        if lane.waiting is not None:  # This coroutine was made before, and begun after.
            return await self.send(sender, parts)
        batch = await self._gather(lane, sender)
        if batch is None:
            try:
                return await sender.ask(parts, COMMAND_SECONDS)
            finally:
                self._arrive(lane)
        answer = lane.loop.create_future()
        batch.commands.insert(0, (parts, answer))
        self._close(lane, batch)
        return await answer

    async def _look_up(
        self, lane: _Lane, sender: Sender, lookup: Lookup, key: str
    ) -> Any:  # noqa: ANN401 - as Redis answers
        if lane.waiting is not None:
            return await self.look_up(sender, lookup, key)
        batch = await self._gather(lane, sender)
        if batch is None:
            try:
                if lookup.alone is not None:
                    return await sender.ask(lookup.alone(key), COMMAND_SECONDS)
                [only] = await sender.ask_script(
                    lookup.script, [key], lookup.arguments, COMMAND_SECONDS
                )
                return only
            finally:
                self._arrive(lane)
        answer = lane.loop.create_future()
        batch.keys.setdefault(lookup, []).append((key, answer))
        self._close(lane, batch)
        return await answer

    async def _gather(self, lane: _Lane, sender: Sender) -> _Batch | None:
        """Begin a batch, and wait for those who ask in the same iteration.

        Returns:
            The batch; None if there is nobody else and the sender is free: then the
            caller is under way.
        """
        batch = lane.waiting = _Batch(sender)
        try:
            await _turn()
        except BaseException:
            self._close(lane, batch)
            raise
        if batch or lane.under_way >= self._width:
            return batch
        lane.waiting = None
        lane.under_way += 1
        return None

    def _close(self, lane: _Lane, batch: _Batch) -> None:
        """Note that a batch is gathered, and let it leave if it may."""
        batch.is_gathered = True
        if batch:
            self._depart(lane)
        else:
            lane.waiting = None

    def _depart(self, lane: _Lane) -> None:
        """Let the gathered batch leave, unless too many are under way."""
        batch = lane.waiting
        if batch is None or not batch.is_gathered or lane.under_way >= self._width:
            return
        lane.waiting = None
        if lane.loop.is_closed():  # Whoever asked was not cancelled, but thrown away.
            return
        lane.under_way += 1
        task = lane.loop.create_task(self._carry(lane, batch), name="batch for Redis")
        lane.tasks.add(task)
        task.add_done_callback(lane.tasks.discard)

    def _arrive(self, lane: _Lane) -> None:
        """Note that a batch is back, and let the next one leave."""
        lane.under_way -= 1
        self._depart(lane)

    async def _carry(self, lane: _Lane, batch: _Batch) -> None:
        """Ask what those want who still wait, and hand out the answers."""
        try:
            for asked, group in _questions(batch):
                await _answer(group, asked)
        finally:
            self._arrive(lane)
            for answer in batch.answers():
                # Not answered: the loop is being shut down, and the callers with it.
                answer.cancel()


@types.coroutine
def _turn() -> Generator[None, None, None]:
    """Let everybody else have a turn, as `asyncio.sleep(0)` does."""
    yield


def _questions(
    batch: _Batch,
) -> Iterator[tuple[Coroutine[Any, Any, list[Any]], list[Asker]]]:
    """Yield what is asked in one go, and who asks.

    Each has a limit of its own, but after one that has reached nobody the next ones
    fail at once.
    """
    sender = batch.sender
    commands = [asker for asker in batch.commands if not asker[1].done()]
    for lookup, group in batch.keys.items():
        askers = [asker for asker in group if not asker[1].done()]
        if len(askers) == 1 and lookup.alone is not None:
            [(key, answer)] = askers
            commands.append((lookup.alone(key), answer))
            continue
        for at in range(0, len(askers), COMMANDS):
            some = askers[at : at + COMMANDS]
            keys = [key for key, _ in some]
            asked = sender.ask_script(
                lookup.script, keys, lookup.arguments, COMMAND_SECONDS
            )
            yield asked, some
    for train in _trains(commands):
        asked = sender.ask_all([parts for parts, _ in train], COMMAND_SECONDS)
        yield asked, train


def _trains(askers: list[Asker]) -> Iterator[list[Asker]]:
    """Yield commands in groups that are neither too many nor too large."""
    train: list[Asker] = []
    size = 0
    for asker in askers:
        length = sum(len(p) for p in asker[0] if isinstance(p, (bytes, str)))
        if train and (len(train) >= COMMANDS or size + length > BYTES):
            yield train
            train, size = [], 0
        train.append(asker)
        size += length
    if train:
        yield train


async def _answer(group: list[Asker], asked: Coroutine[Any, Any, list[Any]]) -> None:
    """Hand out the answers to a group, or to each an error of its own."""
    try:
        answers = await asked
    except Exception as error:  # noqa: BLE001 - all who wait are told of it
        why = repr(error)
    else:
        why = f"{len(answers)} answers to {len(group)} questions"
        if len(answers) == len(group):
            for (_, future), answer in zip(group, answers, strict=True):
                if future.done():  # The caller has left.
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
            return
    for _, future in group:
        if not future.done():
            msg = f"a batch of {len(group)} failed: {why}"
            future.set_exception(LinkDownError(msg))
