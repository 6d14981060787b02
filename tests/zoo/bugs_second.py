"""A second set of bugs: written when the defaults of the search were settled."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

import httpx

from pytest_tta import op
from tests.zoo.bug import Bug, bounded_op
from tta_primitives.recovery import FallbackPrimitive, RetryPrimitive

__all__ = ["BUGS"]


# Dropped letter: nobody can handle it, it cannot be put aside, and it is taken for
# done all the same. That takes two faults.


class Letters:
    """A broker with letters, and a place for those that nobody can handle."""

    def __init__(self):
        self.pending = {"order 7"}
        self.handled = []
        self.dead = []

    async def handle(self, letter):
        async with asyncio.timeout(5), op("orders.insert"):
            self.handled.append(letter)
        return letter

    async def put_aside(self, letter):
        async with asyncio.timeout(5), op("dead.publish"):
            self.dead.append(letter)
        return letter

    async def acknowledge(self, letter):
        async with asyncio.timeout(5), op("broker.acknowledge"):
            self.pending.discard(letter)
        return letter

    def is_kept(self):
        return bool(self.pending or self.handled or self.dead)


def put_aside_or_log(letters):
    """Note that a letter could not be put aside, and go on."""
    log = []

    async def put_aside(letter):
        try:
            await letters.put_aside(letter)
        except Exception as error:
            log.append(f"cannot put {letter} aside: {error}")
        return letter

    handle = RetryPrimitive(letters.handle, max_retries=2)
    return FallbackPrimitive(handle, [put_aside]) >> letters.acknowledge


def put_aside_or_fail(letters):
    """Leave a letter that could not be put aside to the broker."""
    handle = RetryPrimitive(letters.handle, max_retries=2)
    return FallbackPrimitive(handle, [letters.put_aside]) >> letters.acknowledge


def dropped_letter(tta, build):
    """A letter is handled, or put aside, or the broker still has it."""
    letters = Letters()
    tta.always(letters.is_kept, "no letter is lost")

    assert tta.run(build(letters), "order 7") == "order 7"


# Lost last save: what was typed during a save counts as saved.


class Notes:
    """The server that notes are saved on."""

    def __init__(self):
        self.text = ""

    async def save(self, text):
        async with asyncio.timeout(5), op("notes.save"):
            self.text = text


class Editor:
    """An editor that saves each second what was changed."""

    def __init__(self, notes):
        self.notes = notes
        self.text = ""
        self.is_changed = False

    def type(self, text):
        self.text += text
        self.is_changed = True

    async def save(self):
        if self.is_changed:
            await self.notes.save(self.text)
            self.is_changed = False

    async def save_each_second(self):
        while True:
            await asyncio.sleep(1)
            try:
                await self.save()
            except (ConnectionError, TimeoutError):
                continue


class AttentiveEditor(Editor):
    """An editor that knows what it has saved."""

    async def save(self):
        if self.is_changed:
            text = self.text
            await self.notes.save(text)
            self.is_changed = self.text != text


def lost_last_save(tta, build):
    """All that was typed is saved when the editor is closed."""
    notes = Notes()

    async def write(editor):
        for text in ("tea", " and", " milk"):
            await bounded_op("keyboard.read")
            editor.type(text)

    async def serve(_):
        editor = build(notes)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            saving = group.create_task(editor.save_each_second())
            await write(editor)
            await asyncio.sleep(2.5)
            saving.cancel()
        await editor.save()

    tta.run(serve, None)
    assert notes.text == "tea and milk"


# Reused token: two requests renew a session with a token that is good once.


class Accounts:
    """A service that ends a session whose old token is shown again."""

    def __init__(self):
        self.number = 0
        self.access = None
        self.used = set()

    def __call__(self, request):
        if request.url.path == "/token":
            return self.renew(json.loads(request.content)["refresh"])
        if request.headers["authorization"] != self.access:
            return httpx.Response(401)
        return httpx.Response(200, json={"path": request.url.path})

    def renew(self, refresh):
        if refresh in self.used:
            self.access = None
            return httpx.Response(400, json={"error": "invalid_grant"})
        self.used.add(refresh)
        self.number += 1
        self.access = f"access {self.number}"
        answer = {"access": self.access, "refresh": f"refresh {self.number}"}
        return httpx.Response(200, json=answer)


class Session:
    """A session in which whoever is refused renews."""

    def __init__(self, client):
        self.client = client
        self.access = "access 0"
        self.refresh = "refresh 0"

    async def get(self, path):
        access = self.access
        response = await self.ask(path)
        if response.status_code == 401:
            await self.renew(access)
            response = await self.ask(path)
        return response.raise_for_status().json()["path"]

    async def ask(self, path):
        headers = {"authorization": self.access}
        return await self.client.get(path, headers=headers)

    async def renew(self, refused):
        response = await self.client.post("/token", json={"refresh": self.refresh})
        answer = response.raise_for_status().json()
        self.access, self.refresh = answer["access"], answer["refresh"]


class SharedSession(Session):
    """A session that is renewed once for all who were refused."""

    def __init__(self, client):
        super().__init__(client)
        self.lock = asyncio.Lock()

    async def renew(self, refused):
        async with self.lock:
            if self.access == refused:
                await super().renew(refused)


def reused_token(tta, build):
    """Two parts of a page are read in a session that has to be renewed."""

    async def later(session):
        await bounded_op("profile.read")
        await bounded_op("profile.show")
        return await session.get("/orders")

    async def serve(_):
        transport = httpx.MockTransport(Accounts())
        async with httpx.AsyncClient(
            transport=transport, base_url="http://accounts.test", timeout=5
        ) as client:
            session = build(client)
            async with asyncio.TaskGroup() as group:
                menu = group.create_task(session.get("/menu"))
                orders = group.create_task(later(session))
        return menu.result(), orders.result()

    assert tta.run(serve, None) == ("/menu", "/orders")


# Rolled back: the answer to a change comes later than the news of the next one.
# Corrected after the searches had seen it: here a node could run the pod before it was
# created, in both versions. Now it waits.


class Cluster:
    """A cluster that answers who changes a pod, and tells who watches it."""

    def __init__(self):
        self.pod = (0, "absent")
        self.news = asyncio.Queue()
        self.created = asyncio.Event()

    async def change(self, state):
        async with op("api.patch"):
            version, _ = self.pod
            self.pod = answer = (version + 1, state)
            self.news.put_nowait(answer)
            self.created.set()
        await op("api.answer")
        return answer

    async def watch(self):
        news = await self.news.get()
        await op("watch.read")
        return news


class LastComes:
    """A cache of what came last."""

    def __init__(self):
        self.pod = (0, "absent")

    def put(self, pod):
        self.pod = pod


class NewestStays(LastComes):
    """A cache of what is newest."""

    def put(self, pod):
        self.pod = max(self.pod, pod)


def rolled_back(tta, build):
    """A pod is created, and a node runs it; the cache says so in the end."""

    async def create(cluster, cache):
        cache.put(await cluster.change("created"))

    async def watch(cluster, cache):
        for _ in range(2):
            cache.put(await cluster.watch())

    async def run(cluster):
        await cluster.created.wait()
        await op("node.pull")
        await op("node.start")
        await cluster.change("running")

    async def serve(_):
        cluster, cache = Cluster(), build()
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(create(cluster, cache))
            group.create_task(watch(cluster, cache))
            await run(cluster)
        return cache.pod

    assert tta.run(serve, None) == (2, "running")


# Dead consumer: whoever empties the queue is gone, and nobody tells who fills it.


async def send_unwatched(frames, write):
    """Hand frames to a writer, and trust that it lives."""
    queue = asyncio.Queue(1)

    async def write_all():
        """Write frames until there are none."""
        while (frame := await queue.get()) is not None:
            await write(frame)

    writer = asyncio.create_task(write_all())
    for frame in frames:
        await queue.put(frame)
    await queue.put(None)
    await writer


async def send_together(frames, write):
    """Hand frames to a writer, and end with it."""
    queue = asyncio.Queue(1)

    async def write_all():
        """Write frames until there are none."""
        while (frame := await queue.get()) is not None:
            await write(frame)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(write_all())
        for frame in frames:
            await queue.put(frame)
        await queue.put(None)


def dead_consumer(tta, build):
    """Frames are written in their order, or an error says that they were not."""
    written = []

    async def write(frame):
        async with asyncio.timeout(5), op("socket.write"):
            written.append(frame)

    async def serve(_):
        await build("abcd", write)

    tta.run(serve, None)
    assert written == ["a", "b", "c", "d"]


# Expired lease: its holder was slow, and writes what it has read before another did.


class Stale(Exception):
    """Somebody with a newer lease has been here."""


class Leases:
    """A service that gives a document to one at a time, for half a minute."""

    def __init__(self):
        self.token = 0
        self.until = 0.0

    async def acquire(self):
        while not await self.try_to_acquire():
            await asyncio.sleep(10)
        return self.token

    async def try_to_acquire(self):
        async with asyncio.timeout(5), op("lease.ask"):
            now = asyncio.get_running_loop().time()
            is_free = now >= self.until
            if is_free:
                self.token += 1
                self.until = now + 30
        return is_free

    async def release(self, token):
        async with asyncio.timeout(5), op("lease.release"):
            if token == self.token:
                self.until = 0.0


class Open:
    """A document that anybody writes."""

    def __init__(self):
        self.lines = ()

    async def read(self, token):
        async with op("document.read"):
            self.check(token)
        return self.lines

    async def write(self, lines, token):
        async with op("document.write"):
            self.check(token)
            self.lines = lines

    def check(self, token):
        """Let everybody in."""


class Fenced(Open):
    """A document that knows the newest lease it has seen."""

    newest = 0

    def check(self, token):
        if token < self.newest:
            raise Stale
        self.newest = token


def expired_lease(tta, build):
    """Two writers add a line each, one after the other, however slow they are."""

    async def try_to_add(leases, document, line):
        token = await leases.acquire()
        try:
            lines = await document.read(token)
            await op("model.write")
            await document.write((*lines, line), token)
        finally:
            await leases.release(token)

    async def add(leases, document, line):
        while True:
            try:
                return await try_to_add(leases, document, line)
            except Stale:
                continue

    async def serve(_):
        leases, document = Leases(), build()
        async with asyncio.timeout(300), asyncio.TaskGroup() as group:
            group.create_task(add(leases, document, "ann was here"))
            group.create_task(add(leases, document, "bob was here"))
        return sorted(document.lines)

    assert tta.run(serve, None) == ["ann was here", "bob was here"]


# Committed past: the position says that all before it is done, and one is not.


class Topic:
    """A topic that goes on at the position that was committed."""

    def __init__(self):
        self.position = 0
        self.done = set()

    async def handle(self, number):
        async with asyncio.timeout(5), op("letter.handle"):
            self.done.add(number)

    async def commit(self, position):
        async with asyncio.timeout(5), op("topic.commit"):
            self.position = max(self.position, position)

    def is_honest(self):
        return set(range(self.position)) <= self.done


async def commit_what_is_done(topic, number, done):
    """Commit the position after each letter."""
    await topic.handle(number)
    await topic.commit(number + 1)


async def commit_what_is_done_before(topic, number, done):
    """Commit the position up to which there is no gap."""
    await topic.handle(number)
    done.add(number)
    position = 0
    while position in done:
        position += 1
    await topic.commit(position)


def committed_past(tta, build):
    """Three letters are handled side by side; none of them is skipped for ever."""
    topic = Topic()
    tta.always(topic.is_honest, "what was committed was handled")

    async def serve(_):
        done = set()
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(build(topic, number, done))

    tta.run(serve, None)
    assert topic.position == 3


# Open generator: the error that is being handled holds the rows, and they hold the
# connection that is needed to handle it.


class Table:
    """A table behind a single connection."""

    def __init__(self):
        self.connection = asyncio.Semaphore(1)
        self.log = []

    async def rows(self):
        async with self.connection:
            for number in range(3):
                await bounded_op("table.fetch")
                yield number

    async def note(self, text):
        async with self.connection:
            await bounded_op("log.insert")
            self.log.append(text)


async def export_and_leave(table, write):
    """Write row after row."""
    rows = table.rows()
    async for row in rows:
        await write(row)


async def export_and_close(table, write):
    """Write row after row, and close the rows however that ends."""
    async with aclosing(table.rows()) as rows:
        async for row in rows:
            await write(row)


def open_generator(tta, build):
    """A table is written to a file, or the log says why it was not."""
    written = []

    async def write(row):
        await bounded_op("file.write")
        written.append(row)

    async def serve(_):
        table = Table()
        try:
            await build(table, write)
        except (ConnectionError, TimeoutError) as error:
            await table.note(f"not exported: {error}")
        return table.log

    log = tta.run(serve, None)
    assert written == [0, 1, 2] or len(log) == 1


BUGS = (
    Bug(
        "dropped-letter",
        "a letter that could not be put aside is taken for done",
        ("invariant",),
        dropped_letter,
        put_aside_or_log,
        put_aside_or_fail,
        issue_url="https://github.com/proteanhq/protean/issues/1263",
        uses_primitives=True,
    ),
    Bug(
        "lost-last-save",
        "what was typed during a save counts as saved",
        ("assertion",),
        lost_last_save,
        Editor,
        AttentiveEditor,
        issue_url="https://github.com/buggyj/savetiddlers/issues/36",
    ),
    Bug(
        "reused-token",
        "two requests renew a session with the same token",
        ("error",),
        reused_token,
        Session,
        SharedSession,
        issue_url="https://github.com/HQBase/hqbase/issues/41",
    ),
    Bug(
        "rolled-back",
        "an answer that is late overwrites what is newer",
        ("assertion",),
        rolled_back,
        LastComes,
        NewestStays,
        issue_url="https://github.com/opensandbox-group/OpenSandbox/issues/1673",
    ),
    Bug(
        "dead-consumer",
        "whoever fills a queue waits for somebody who has died",
        ("deadlock", "unhandled error", "left running"),
        dead_consumer,
        send_unwatched,
        send_together,
        issue_url="https://github.com/dewet22/givenergy-modbus/pull/54",
    ),
    Bug(
        "expired-lease",
        "a lease ends while its holder is at work, and two write",
        ("assertion",),
        expired_lease,
        Open,
        Fenced,
        issue_url="https://github.com/nexspence/nexspence/issues/371",
    ),
    Bug(
        "committed-past",
        "a position is committed although a letter before it failed",
        ("invariant",),
        committed_past,
        commit_what_is_done,
        commit_what_is_done_before,
        issue_url="https://github.com/confluentinc/confluent-kafka-go/issues/1179",
    ),
    Bug(
        "open-generator",
        "rows that nobody closes keep the only connection",
        ("deadlock", "permit not returned"),
        open_generator,
        export_and_leave,
        export_and_close,
        issue_url="https://github.com/graphql-python/gql/pull/230",
    ),
)
