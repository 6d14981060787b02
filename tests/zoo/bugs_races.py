"""Races in plain asyncio: what another does between a look and an act."""

from __future__ import annotations

import asyncio
from collections import Counter

from pytest_tta import op
from tests.zoo.bug import Bug, bounded_op

__all__ = ["BUGS"]


# Check, then act: everybody who misses loads.


class CheckThenActCache:
    """A cache that looks, loads and stores, and lets others look in between."""

    def __init__(self, load):
        self.load = load
        self.values = {}

    async def get(self, key):
        if key not in self.values:
            self.values[key] = await self.load(key)
        return self.values[key]


class LockedCache(CheckThenActCache):
    """The same cache with one loader at a time."""

    def __init__(self, load):
        super().__init__(load)
        self.lock = asyncio.Lock()

    async def get(self, key):
        async with self.lock:
            return await super().get(key)


def stampede(tta, build):
    """Two parts of a page want the same menu; it is loaded once."""
    loads = []

    async def load(key):
        await op("db.load")
        loads.append(key)
        return key.upper()

    async def sidebar(cache):
        await op("session.read")
        await op("session.touch")
        return await cache.get("menu")

    async def serve(_):
        cache = build(load)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            page = group.create_task(cache.get("menu"))
            side = group.create_task(sidebar(cache))
        return page.result(), side.result()

    assert tta.run(serve, None) == ("MENU", "MENU")
    assert loads == ["menu"]


# Lost update: both read 100, both write what they made of it.


class Rows:
    """A database of numbers."""

    def __init__(self, **rows):
        self.rows = rows

    async def read(self, key):
        await op("db.read")
        return self.rows[key]

    async def write(self, key, value):
        async with op("db.write"):
            self.rows[key] = value

    async def add(self, key, value):
        async with op("db.add"):
            self.rows[key] += value


async def deposit_by_reading(rows, amount):
    """Read the balance, and write the new one."""
    balance = await rows.read("balance")
    await rows.write("balance", balance + amount)


async def deposit_by_adding(rows, amount):
    """Let the database add."""
    await rows.add("balance", amount)


def lost_update(tta, build):
    """Two deposits reach one account; the balance has both."""
    rows = Rows(balance=100)

    async def standing_order():
        await op("mandate.read")
        await op("mandate.log")
        await build(rows, 5)

    async def serve(_):
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(build(rows, 10))
            group.create_task(standing_order())

    tta.run(serve, None)
    assert rows.rows["balance"] == 115


# Two probes: half open means "let one through", not "let them through".


class Rejected(Exception):
    """The breaker is open."""


class LooseBreaker:
    """A breaker that is half open for everybody."""

    def __init__(self, recovery):
        self.recovery = recovery
        self.state = "closed"
        self.opened_at = 0.0

    def admit(self):
        now = asyncio.get_running_loop().time()
        if self.state == "open":
            if now - self.opened_at < self.recovery:
                raise Rejected
            self.state = "half-open"

    async def call(self, function):
        self.admit()
        try:
            result = await function()
        except ConnectionError:
            self.state = "open"
            self.opened_at = asyncio.get_running_loop().time()
            raise
        self.state = "closed"
        return result


class StrictBreaker(LooseBreaker):
    """A breaker that lets one probe through."""

    is_probing = False

    async def call(self, function):
        if self.is_probing:
            raise Rejected
        if self.state == "closed":
            return await super().call(function)
        self.is_probing = True
        try:
            return await super().call(function)
        finally:
            self.is_probing = False


class Recovering:
    """A service that was down, and counts who comes while it is being probed."""

    def __init__(self):
        self.is_down = True
        self.running = self.most = 0

    async def answer(self, breaker):
        self.running += 1
        if breaker.state == "half-open":
            self.most = max(self.most, self.running)
        try:
            await op("service.answer")
            if self.is_down:
                raise ConnectionError("down")
            return "answer"
        finally:
            self.running -= 1


def two_probes(tta, build):
    """A service comes back; one call finds out, the others wait for its verdict."""
    service = Recovering()
    tta.always(lambda: service.most <= 1, "a service that recovers gets one call")

    async def request(breaker):
        try:
            return await breaker.call(lambda: service.answer(breaker))
        except (ConnectionError, Rejected):
            return "come back later"

    async def later_request(breaker):
        await op("session.read")
        await op("session.touch")
        return await request(breaker)

    async def serve(_):
        breaker = build(recovery=10)
        async with asyncio.timeout(60):
            await request(breaker)
            await asyncio.sleep(10)
            service.is_down = False
            async with asyncio.TaskGroup() as group:
                group.create_task(request(breaker))
                group.create_task(later_request(breaker))

    tta.run(serve, None)


# Starvation: a lock that whoever comes first gets is never free for who looks late.


class SpinLock:
    """A lock to look at until it is free, as on many a database."""

    def __init__(self):
        self.is_held = False

    async def acquire(self):
        while self.is_held:
            await op("lock.look")
        self.is_held = True

    def release(self):
        self.is_held = False


class QueueLock(SpinLock):
    """A lock that serves who waits longest."""

    def __init__(self):
        self.lock = asyncio.Lock()

    async def acquire(self):
        await self.lock.acquire()

    def release(self):
        self.lock.release()


def starvation(tta, build):
    """A busy writer and a report share a table; the report gets its turn."""
    overtaken = 0
    is_waiting = False

    async def writer(lock):
        nonlocal overtaken
        for _ in range(8):
            await lock.acquire()
            overtaken += is_waiting
            try:
                await op("table.write")
            finally:
                lock.release()
            await op("queue.next")

    async def report(lock):
        nonlocal is_waiting
        is_waiting = True
        await lock.acquire()
        is_waiting = False
        try:
            await op("table.read")
        finally:
            lock.release()

    async def serve(_):
        lock = build()
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(writer(lock))
            group.create_task(report(lock))

    tta.run(serve, None)
    assert overtaken <= 4


# Deadlock by lock order: a transfer there and one back, at the same time.


class Accounts:
    """Accounts with a lock each."""

    def __init__(self):
        self.balances = Counter(a=100, b=100)
        self.locks = {"a": asyncio.Lock(), "b": asyncio.Lock()}

    async def book(self, source, target, amount):
        await bounded_op("db.check")
        self.balances[source] -= amount
        self.balances[target] += amount


async def transfer_as_given(accounts, source, target, amount):
    """Lock the source, then the target."""
    async with accounts.locks[source]:
        await bounded_op("db.limit")
        async with accounts.locks[target]:
            await accounts.book(source, target, amount)


async def transfer_in_order(accounts, source, target, amount):
    """Lock in one order for everybody."""
    first, second = sorted([source, target])
    async with accounts.locks[first]:
        await bounded_op("db.limit")
        async with accounts.locks[second]:
            await accounts.book(source, target, amount)


def lock_order(tta, build):
    """Two transfers cross; both are booked."""

    async def way_back(accounts):
        for _ in range(3):
            await bounded_op("mandate.read")
        await build(accounts, "b", "a", 20)

    async def serve(_):
        accounts = Accounts()
        async with asyncio.TaskGroup() as group:
            group.create_task(build(accounts, "a", "b", 50))
            group.create_task(way_back(accounts))
        return accounts.balances

    assert tta.run(serve, None) == {"a": 70, "b": 130}


# Lost wakeup: the letter comes between the look and the wait.


class Mailbox:
    """A mailbox that forgets the bell when it has found nothing."""

    def __init__(self):
        self.letters = []
        self.bell = asyncio.Event()

    def put(self, letter):
        self.letters.append(letter)
        self.bell.set()

    async def take(self):
        while not self.letters:
            await op("log.empty")
            self.bell.clear()
            await self.bell.wait()
        return self.letters.pop(0)


class PatientMailbox(Mailbox):
    """A mailbox that clears the bell before it looks."""

    async def take(self):
        while True:
            self.bell.clear()
            if self.letters:
                return self.letters.pop(0)
            await op("log.empty")
            await self.bell.wait()


def lost_wakeup(tta, build):
    """A letter that is put into the box is taken out."""

    async def sender(mailbox):
        await op("upstream.read")
        await op("upstream.confirm")
        mailbox.put("letter")

    async def serve(_):
        mailbox = build()
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            taken = group.create_task(mailbox.take())
            group.create_task(sender(mailbox))
        return taken.result()

    assert tta.run(serve, None) == "letter"


# Double execution: a job that takes long is given to another worker.


class Broker:
    """A queue that gives a job out again when it was not acknowledged in time."""

    def __init__(self, visibility):
        self.visibility = visibility
        self.queue = asyncio.Queue()
        self.timers = {}

    async def take(self):
        job = await self.queue.get()
        if job != "stop":
            self.timers[job] = asyncio.get_running_loop().call_later(
                self.visibility, self.queue.put_nowait, job
            )
        return job

    def acknowledge(self, job):
        self.timers[job].cancel()
        self.queue.put_nowait("stop")
        self.queue.put_nowait("stop")


class Mailer:
    """A mail server that sends no message id twice."""

    def __init__(self):
        self.sent = []
        self.known = set()

    async def send(self, job, message_id=None):
        async with op("mail.send"):
            if message_id not in self.known:
                self.sent.append(job)
            self.known.update({message_id} - {None})


async def send_again(mailer, job):
    """Send what the broker gives out."""
    await mailer.send(job)


async def send_once(mailer, job):
    """Let the mail server know the job from the last time."""
    await mailer.send(job, message_id=job)


def double_execution(tta, build):
    """A mail is sent once, however many workers there are."""
    mailer = Mailer()
    tta.always(lambda: len(mailer.sent) <= 1, "nobody gets a mail twice")

    async def worker(broker):
        while (job := await broker.take()) != "stop":
            await build(mailer, job)
            broker.acknowledge(job)

    async def serve(_):
        broker = Broker(visibility=30)
        broker.queue.put_nowait("mail 7")
        async with asyncio.timeout(300), asyncio.TaskGroup() as group:
            group.create_task(worker(broker))
            group.create_task(worker(broker))

    tta.run(serve, None)
    assert mailer.sent == ["mail 7"]


# Three windows: whoever reads and compares gives up after three conflicts.


class Conflict(Exception):
    """Others were always faster."""


class Document:
    """A document with a version."""

    def __init__(self):
        self.version = 0

    async def read(self):
        await op("document.read")
        return self.version

    async def swap(self, version):
        await op("document.swap")
        if version != self.version:
            return False
        self.version += 1
        return True


async def save_in_three_tries(document, lock):
    """Read, compare and swap, at most three times."""
    for _ in range(3):
        if await document.swap(await document.read()):
            return
    raise Conflict


async def save_alone(document, lock):
    """Do the same while nobody else writes."""
    async with lock:
        await save_in_three_tries(document, lock)


def three_windows(tta, build):
    """Somebody saves a document while another types; it is saved."""

    async def typist(document, lock):
        await op("keyboard.read")
        for _ in range(6):
            async with lock:
                await op("document.type")
                document.version += 1

    async def serve(_):
        document = Document()
        lock = asyncio.Lock()
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(build(document, lock))
            group.create_task(typist(document, lock))
        return document.version

    assert tta.run(serve, None) == 7


# Refund twice: two agents press the button.


class Shop:
    """Orders, and the money that went back."""

    def __init__(self):
        self.status = "paid"
        self.refunds = []

    async def read(self):
        await op("orders.read")
        return self.status

    async def mark(self, status):
        async with op("orders.mark"):
            self.status = status

    async def claim(self):
        """Mark it as being refunded, if it was paid: one statement of the database."""
        async with op("orders.claim"):
            was, self.status = self.status, "refunding"
        return was == "paid"

    async def pay_back(self):
        async with op("bank.refund"):
            self.refunds.append(30)


async def refund_by_looking(shop):
    """Refund an order that is paid, then say that it was refunded."""
    if await shop.read() == "paid":
        await shop.pay_back()
        await shop.mark("refunded")


async def refund_by_claim(shop):
    """Claim the refund first."""
    if await shop.claim():
        await shop.pay_back()
        await shop.mark("refunded")


def refund_twice(tta, build):
    """Two agents refund one order; the customer gets the money once."""
    shop = Shop()
    tta.always(lambda: len(shop.refunds) <= 1, "an order is refunded once")

    async def second_agent():
        await op("chat.read")
        await op("chat.answer")
        await op("chat.close")
        await build(shop)

    async def serve(_):
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(build(shop))
            group.create_task(second_agent())

    tta.run(serve, None)
    assert shop.refunds == [30]


BUGS = (
    Bug(
        "stampede",
        "everybody who misses the cache loads",
        ("assertion",),
        stampede,
        CheckThenActCache,
        LockedCache,
        issue_url="https://github.com/aio-libs/aiocache/issues/1041",
    ),
    Bug(
        "lost-update",
        "both read 100, and one deposit is gone",
        ("assertion",),
        lost_update,
        deposit_by_reading,
        deposit_by_adding,
    ),
    Bug(
        "two-probes",
        "a half-open breaker lets everybody through",
        ("invariant",),
        two_probes,
        LooseBreaker,
        StrictBreaker,
        issue_url="https://github.com/Skyscanner/pyfailsafe/pull/31",
    ),
    Bug(
        "starvation",
        "who looks whether a lock is free may look for ever",
        ("assertion", "retry storm"),
        starvation,
        SpinLock,
        QueueLock,
    ),
    Bug(
        "lock-order",
        "two transfers hold what the other needs",
        ("deadlock",),
        lock_order,
        transfer_as_given,
        transfer_in_order,
    ),
    Bug(
        "lost-wakeup",
        "the bell rings between the look and the wait",
        ("error", "deadlock"),
        lost_wakeup,
        Mailbox,
        PatientMailbox,
    ),
    Bug(
        "double-execution",
        "a job that takes longer than the broker waits is done twice",
        ("invariant", "assertion"),
        double_execution,
        send_again,
        send_once,
        issue_url="https://github.com/celery/kombu/issues/337",
    ),
    Bug(
        "three-windows",
        "three conflicts in a row, and a save is given up",
        ("error",),
        three_windows,
        save_in_three_tries,
        save_alone,
    ),
    Bug(
        "refund-twice",
        "two agents look, and both refund",
        ("invariant", "assertion"),
        refund_twice,
        refund_by_looking,
        refund_by_claim,
        issue_url="https://github.com/juspay/hyperswitch/issues/13182",
    ),
)
