"""A third set of bugs, written like the second: before any search had seen them."""

from __future__ import annotations

import asyncio

from pytest_tta import op
from tests.zoo.bug import Bug, bounded_op
from tta_primitives.recovery import RetryPrimitive

__all__ = ["BUGS"]


# Closed session: it is renewed after a while, and whoever comes meanwhile gets the old.


class SessionClosedError(Exception):
    """The session was closed."""


class Session:
    """Connections to a server."""

    def __init__(self):
        self.is_closed = False

    async def ask(self, text):
        if self.is_closed:
            raise SessionClosedError(text)
        await bounded_op("server.query")
        return text.upper()

    async def close(self):
        self.is_closed = True
        await bounded_op("session.close")


class RenewingClient:
    """A client that renews its session after ten minutes."""

    def __init__(self):
        self.session = None
        self.renewed_at = 0.0

    async def query(self, text):
        now = asyncio.get_running_loop().time()
        if now - self.renewed_at > 600:
            self.renewed_at = now
            await self.leave_session()
        if self.session is None:
            self.session = Session()
        return await self.session.ask(text)

    async def leave_session(self):
        if self.session is not None:
            await self.session.close()
            self.session = None


class SwappingClient(RenewingClient):
    """A client that has no session any more before it closes the old one."""

    async def leave_session(self):
        session, self.session = self.session, None
        if session is not None:
            await session.close()


def closed_session(tta, build):
    """A client is used again after a quarter of an hour, by two at a time."""

    async def later(client):
        await bounded_op("user.read")
        await bounded_op("user.touch")
        return await client.query("orders")

    async def serve(_):
        client = build()
        await client.query("ping")
        await asyncio.sleep(900)
        async with asyncio.TaskGroup() as group:
            menu = group.create_task(client.query("menu"))
            orders = group.create_task(later(client))
        return menu.result(), orders.result()

    assert tta.run(serve, None) == ("MENU", "ORDERS")


# Skipped row: pages are counted from the start, and a row before them is deleted.


class Orders:
    """A table of orders that is read in pages."""

    def __init__(self):
        self.rows = set(range(1, 7))

    async def page_at(self, offset):
        async with asyncio.timeout(5), op("orders.select"):
            return sorted(self.rows)[offset : offset + 3]

    async def page_after(self, last):
        async with asyncio.timeout(5), op("orders.select"):
            return sorted(row for row in self.rows if row > last)[:3]

    async def delete(self, row):
        async with asyncio.timeout(5), op("orders.delete"):
            self.rows.discard(row)


async def export_by_offset(orders):
    """Read page after page, each as far from the start as what was read."""
    rows = []
    while page := await orders.page_at(len(rows)):
        rows += page
    return rows


async def export_by_key(orders):
    """Read page after page, each behind the last row."""
    rows = []
    while page := await orders.page_after(rows[-1] if rows else 0):
        rows += page
    return rows


def skipped_row(tta, build):
    """All orders are exported while one of them is deleted."""

    async def delete(orders):
        await bounded_op("clerk.read")
        await bounded_op("clerk.check")
        await bounded_op("clerk.confirm")
        await orders.delete(1)

    async def serve(_):
        orders = Orders()
        async with asyncio.TaskGroup() as group:
            rows = group.create_task(build(orders))
            group.create_task(delete(orders))
        return set(rows.result())

    assert tta.run(serve, None) >= {2, 3, 4, 5, 6}


# Missed between: what is said after the room was read and before it is listened to.


class Room:
    """A room in which messages are told to those who have subscribed."""

    def __init__(self):
        self.messages = []
        self.listeners = []

    async def read(self):
        async with asyncio.timeout(5), op("room.read"):
            return list(self.messages)

    async def subscribe(self):
        news = asyncio.Queue()
        async with asyncio.timeout(5), op("room.subscribe"):
            self.listeners.append(news)
        return news

    async def say(self, message):
        async with asyncio.timeout(5), op("room.say"):
            self.messages.append(message)
            for news in self.listeners:
                news.put_nowait(message)


async def read_and_subscribe(room):
    """Read what there is, then listen."""
    messages = await room.read()
    return messages, await room.subscribe()


async def subscribe_and_read(room):
    """Listen, then read what there is."""
    news = await room.subscribe()
    return await room.read(), news


def missed_between(tta, build):
    """Whoever enters a room hears the last word, be it said before or after."""

    async def follow(room):
        messages, news = await build(room)
        while "bye" not in messages:
            messages.append(await news.get())

    async def speak(room):
        await bounded_op("keyboard.read")
        await bounded_op("keyboard.check")
        await room.say("bye")

    async def serve(_):
        room = Room()
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(follow(room))
            group.create_task(speak(room))

    tta.run(serve, None)


# Said twice: a stream that broke off begins again, and what was shown stays.


class Screen:
    """What a user sees."""

    def __init__(self):
        self.words = []


async def stream_answer():
    """Yield an answer word by word."""
    for word in ("yes", "we", "can"):
        await bounded_op("model.next")
        yield word


def show_and_retry(screen):
    """Show words as they come; begin again after a failure."""

    async def show(prompt):
        async for word in stream_answer():
            screen.words.append(word)
        return prompt

    return RetryPrimitive(show, max_retries=2)


def clear_and_retry(screen):
    """Show words as they come; wipe the screen before beginning again."""

    async def show(prompt):
        screen.words.clear()
        async for word in stream_answer():
            screen.words.append(word)
        return prompt

    return RetryPrimitive(show, max_retries=2)


def said_twice(tta, build):
    """The answer is on the screen, once."""
    screen = Screen()

    tta.run(build(screen), "can we?")
    assert screen.words == ["yes", "we", "can"]


# Never drained: a broken connection is thrown away, and nobody tells who waits for it.


class Pool:
    """A pool that can be waited for until all its connections are back."""

    def __init__(self):
        self.used = 0
        self.changed = asyncio.Condition()

    async def acquire(self):
        await bounded_op("db.connect")
        self.used += 1

    async def give_back(self, *, is_broken):
        self.used -= 1
        if not is_broken:
            await self.tell()

    async def tell(self):
        async with self.changed:
            self.changed.notify_all()

    async def drained(self):
        async with self.changed:
            await self.changed.wait_for(lambda: not self.used)


class TellingPool(Pool):
    """A pool that tells of connections that were thrown away as well."""

    async def give_back(self, *, is_broken):
        self.used -= 1
        await self.tell()


def never_drained(tta, build):
    """A service is told to end while it answers a request."""

    async def query(pool):
        await pool.acquire()
        is_broken = True
        try:
            await bounded_op("db.query")
            is_broken = False
        finally:
            await pool.give_back(is_broken=is_broken)

    async def answer(pool):
        try:
            await query(pool)
        except (ConnectionError, TimeoutError):
            return "503"
        return "200"

    async def serve(_):
        pool = build()
        async with asyncio.TaskGroup() as group:
            group.create_task(answer(pool))
            await bounded_op("signal.wait")
            await pool.drained()

    tta.run(serve, None)


# Mixed up: results in the order in which they came are put beside their texts.


async def embed(text):
    """Ask for the vector of a text."""
    await bounded_op("model.embed")
    return [float(len(text))]


async def embed_as_completed(texts):
    """Collect vectors as they come, to move a progress bar."""
    tasks = [asyncio.create_task(embed(text)) for text in texts]
    try:
        return [await done for done in asyncio.as_completed(tasks)]
    finally:
        await asyncio.gather(*tasks, return_exceptions=True)


async def embed_in_order(texts):
    """Collect vectors in the order of their texts."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(embed(text)) for text in texts]
    return [task.result() for task in tasks]


def mixed_up(tta, build):
    """Each text has its own vector."""

    async def serve(texts):
        vectors = await build(texts)
        return dict(zip(texts, vectors, strict=True))

    got = tta.run(serve, ["a", "bb", "ccc"])
    assert got == {"a": [1.0], "bb": [2.0], "ccc": [3.0]}


# Letter in hand: whoever runs out of time while he opens a letter drops it.


class Subscription:
    """Letters that are opened one after the other."""

    def __init__(self, letters):
        self.letters = list(letters)

    async def next(self):
        letter = self.letters.pop(0)
        try:
            await op("letter.open")
        except Exception:
            self.letters.insert(0, letter)
            raise
        return letter


class CarefulSubscription(Subscription):
    """A subscription that puts a letter back however its opening ends."""

    async def next(self):
        letter = self.letters.pop(0)
        try:
            await op("letter.open")
        except BaseException:
            self.letters.insert(0, letter)
            raise
        return letter


def letter_in_hand(tta, build):
    """Two letters are read, each within five seconds; a slow one is tried again."""
    subscription = build(["ann", "bob"])
    read = []

    async def serve(_):
        for _ in range(6):
            if not subscription.letters:
                return
            try:
                async with asyncio.timeout(5):
                    read.append(await subscription.next())
            except (ConnectionError, TimeoutError):
                continue

    tta.run(serve, None)
    assert read + subscription.letters == ["ann", "bob"]


# Orphaned call: a tool failed, and its call stays in the history without a result.


def is_whole(history):
    """Tell whether each call of a tool is followed by its result."""
    following = [*history[1:], "end"]
    pairs = zip(history, following, strict=True)
    return all(after == "result" for one, after in pairs if one == "call")


class Agent:
    """An agent that calls a tool before it answers."""

    def __init__(self):
        self.history = []

    async def answer(self, question):
        self.history.append(question)
        await bounded_op("model.complete")
        self.history.append("call")
        await self.use_tool()
        await bounded_op("model.complete")
        self.history.append("answer")

    async def use_tool(self):
        await bounded_op("tool.search")
        self.history.append("result")


class HonestAgent(Agent):
    """An agent that writes into its history that a tool has failed."""

    async def use_tool(self):
        try:
            await super().use_tool()
        except BaseException:
            self.history.append("result")
            raise


def orphaned_call(tta, build):
    """Two questions are asked; whatever fails, the history can be sent again."""
    agent = build()
    tta.always(lambda: is_whole(agent.history), "each call has its result")

    async def serve(questions):
        for question in questions:
            try:
                await agent.answer(question)
            except (ConnectionError, TimeoutError):
                agent.history.append("sorry")

    tta.run(serve, ["who?", "why?"])


BUGS = (
    Bug(
        "closed-session",
        "a request gets the session that another one is closing",
        ("error",),
        closed_session,
        RenewingClient,
        SwappingClient,
        issue_url="https://github.com/ClickHouse/clickhouse-connect/issues/744",
    ),
    Bug(
        "skipped-row",
        "a row is skipped because one before it was deleted",
        ("assertion",),
        skipped_row,
        export_by_offset,
        export_by_key,
        issue_url="https://github.com/taskcluster/taskcluster/issues/3278",
    ),
    Bug(
        "missed-between",
        "what is said between reading and listening is heard by nobody",
        ("deadlock", "error"),
        missed_between,
        read_and_subscribe,
        subscribe_and_read,
        issue_url="https://github.com/kdlbs/kandev/issues/2287",
    ),
    Bug(
        "said-twice",
        "a stream that begins again repeats what was shown",
        ("assertion",),
        said_twice,
        show_and_retry,
        clear_and_retry,
        issue_url="https://github.com/HKUDS/nanobot/issues/4038",
        uses_primitives=True,
    ),
    Bug(
        "never-drained",
        "nobody tells that a broken connection is gone",
        ("deadlock",),
        never_drained,
        Pool,
        TellingPool,
        issue_url="https://github.com/long2ice/asyncmy/issues/154",
    ),
    Bug(
        "mixed-up",
        "results are put beside others' inputs",
        ("assertion",),
        mixed_up,
        embed_as_completed,
        embed_in_order,
        issue_url="https://github.com/HKUDS/LightRAG/pull/464",
    ),
    Bug(
        "letter-in-hand",
        "a letter is lost when opening it takes too long",
        ("assertion",),
        letter_in_hand,
        Subscription,
        CarefulSubscription,
        issue_url="https://github.com/nats-io/nats.py/issues/392",
    ),
    Bug(
        "orphaned-call",
        "a tool that fails leaves a history that no model accepts",
        ("invariant",),
        orphaned_call,
        Agent,
        HonestAgent,
        issue_url="https://github.com/charmbracelet/crush/issues/529",
    ),
)
