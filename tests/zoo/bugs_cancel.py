"""Plain asyncio that loses something when it is cancelled, late or told of an error."""

from __future__ import annotations

import asyncio
from collections import deque

import tenacity

from pytest_tta import op
from tests.zoo.bug import Bug, bounded_op

__all__ = ["BUGS"]


# Cancel between acquire and release: the slot is taken, the connection not yet there.


class LeakyPool:
    """A pool that gives its slot back after errors, and forgets cancellations."""

    def __init__(self):
        self.slots = asyncio.Semaphore(1)

    async def connect(self):
        await self.slots.acquire()
        try:
            await op("db.connect")
        except Exception:
            self.slots.release()
            raise
        return "connection"

    def give_back(self, connection):
        self.slots.release()


class TightPool(LeakyPool):
    """A pool that gives its slot back whatever happens."""

    async def connect(self):
        await self.slots.acquire()
        try:
            await op("db.connect")
        except BaseException:
            self.slots.release()
            raise
        return "connection"


def pool_cancelled(tta, build):
    """Two requests with a time limit share a pool of one connection."""

    async def query(pool):
        async with asyncio.timeout(5):
            connection = await pool.connect()
            try:
                await op("db.query")
            finally:
                pool.give_back(connection)
        return "row"

    async def request(pool):
        try:
            return await query(pool)
        except (ConnectionError, TimeoutError):
            return "503"

    async def serve(_):
        pool = build()
        return [await request(pool), await request(pool)]

    tta.run(serve, None)


# Leaked permit: an error on the way to the release.


async def call_and_release(permits, text):
    """Release after the call."""
    await permits.acquire()
    await bounded_op("model.complete")
    permits.release()
    return text.upper()


async def call_within(permits, text):
    """Hold the permit for as long as the call takes, however it ends."""
    async with permits:
        await bounded_op("model.complete")
    return text.upper()


def leaked_permit(tta, build):
    """Three prompts share two permits; one that fails is left out."""

    async def prompt(permits, text):
        try:
            return await build(permits, text)
        except (ConnectionError, TimeoutError):
            return None

    async def serve(_):
        permits = asyncio.Semaphore(2)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for text in "abc":
                group.create_task(prompt(permits, text))

    tta.run(serve, None)


# Lost slot: a freed slot is handed to somebody who has gone.


class ForgetfulLimiter:
    """A limiter that keeps those who have gone in its queue."""

    def __init__(self):
        self.is_taken = False
        self.waiting = deque()

    async def __aenter__(self):
        if self.is_taken:
            place = asyncio.get_running_loop().create_future()
            self.waiting.append(place)
            await self.queue(place)
        self.is_taken = True

    async def queue(self, place):
        await place

    async def __aexit__(self, *_):
        if not self.waiting:
            self.is_taken = False
            return
        place = self.waiting.popleft()
        if not place.done():
            place.set_result(None)


class CarefulLimiter(ForgetfulLimiter):
    """A limiter that passes by who has gone, and passes on what nobody takes."""

    async def queue(self, place):
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():
                await self.__aexit__()
            raise

    async def __aexit__(self, *_):
        while self.waiting:
            place = self.waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self.is_taken = False


def lost_slot(tta, build):
    """Three jobs run one after the other; one that is cancelled makes room."""
    done = []

    async def job(limiter, number):
        async with limiter:
            await bounded_op("job.run")
            done.append(number)

    async def serve(_):
        limiter = build()
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(job(limiter, number))

    tta.run(serve, None)
    assert done == [0, 1, 2]


# Leaked task: fire and forget.


async def order_and_forget(number):
    """Start the audit, and do not look back."""
    audit = asyncio.create_task(bounded_op("audit.write"))
    await bounded_op("orders.insert")
    await bounded_op("mail.send")
    del audit
    return number


async def order_and_wait(number):
    """Start the audit, and end when it has ended."""
    async with asyncio.TaskGroup() as group:
        group.create_task(bounded_op("audit.write"))
        await bounded_op("orders.insert")
        await bounded_op("mail.send")
    return number


def leaked_task(tta, build):
    """An order is taken, and its audit written."""
    assert tta.run(build, 7) == 7


# Swallowed cancellation: a retry that repeats everything but one error.


def retry_unless(read):
    """Repeat everything that is no ValueError; a cancellation is none."""
    return tenacity.retry(
        retry=tenacity.retry_if_not_exception_type(ValueError),
        stop=tenacity.stop_after_attempt(3),
        wait=tenacity.wait_fixed(1),
        reraise=True,
    )(read)


def retry_if(read):
    """Repeat what may pass."""
    return tenacity.retry(
        retry=tenacity.retry_if_exception_type((ConnectionError, TimeoutError)),
        stop=tenacity.stop_after_attempt(3),
        wait=tenacity.wait_fixed(1),
        reraise=True,
    )(read)


def swallowed_cancellation(tta, build):
    """A read is repeated after an error."""

    async def read():
        await bounded_op("db.read")
        return "row"

    async def serve(_):
        return await build(read)()

    assert tta.run(serve, None) == "row"


# Single flight: who leads is cancelled, and those who follow wait for ever.


class Flights:
    """One load for all who ask at the same time."""

    def __init__(self, load):
        self.load = load
        self.flights = {}

    async def get(self, key):
        if key in self.flights:
            return await self.follow(key)
        return await self.lead(key)

    async def follow(self, key):
        return await asyncio.shield(self.flights[key])

    async def lead(self, key):
        flight = self.flights[key] = asyncio.get_running_loop().create_future()
        try:
            flight.set_result(await self.load(key))
        except Exception as error:
            flight.set_exception(error)
            flight.exception()
            raise
        finally:
            del self.flights[key]
        return flight.result()


class SafeFlights(Flights):
    """The same, in which somebody else leads when the leader goes."""

    async def lead(self, key):
        flight = asyncio.get_running_loop().create_future()
        self.flights[key] = flight
        try:
            flight.set_result(await self.load(key))
        except Exception as error:
            flight.set_exception(error)
            flight.exception()
            raise
        finally:
            del self.flights[key]
            flight.cancel()
        return flight.result()

    async def follow(self, key):
        flight = self.flights[key]
        await asyncio.wait([flight])
        if flight.cancelled():
            return await self.get(key)
        return flight.result()


def leader_cancelled(tta, build):
    """Two requests share a load; one of them may go away."""

    async def load(key):
        await bounded_op("db.load")
        return key.upper()

    async def serve(_):
        flights = build(load)
        async with asyncio.TaskGroup() as group:
            requests = [group.create_task(flights.get("menu")) for _ in range(2)]
        return [one.result() for one in requests]

    assert tta.run(serve, None) == ["MENU", "MENU"]


# Reused connection: the answer to a request that was cancelled waits in the line.


class Line:
    """A connection to a server that answers in order."""

    def __init__(self):
        self.answers = deque()

    async def ask(self, question):
        self.answers.append(f"data of {question}")
        await op("line.read")
        return self.answers.popleft()


class SharedLine:
    """A client that goes on using its connection."""

    def __init__(self):
        self.line = Line()
        self.lock = asyncio.Lock()

    async def ask(self, question):
        async with self.lock:
            return await self.line.ask(question)


class RenewedLine(SharedLine):
    """A client that drops a connection whose answer nobody has read."""

    async def ask(self, question):
        async with self.lock:
            line, self.line = self.line, Line()
            answer = await line.ask(question)
            self.line = line
            return answer


def foreign_answer(tta, build):
    """Two users ask for their data within a time limit, on one connection."""
    shown = []
    tta.always(
        lambda: all(answer == f"data of {user}" for user, answer in shown),
        "nobody sees what belongs to somebody else",
    )

    async def page(client, user):
        try:
            async with asyncio.timeout(2):
                shown.append((user, await client.ask(user)))
        except (ConnectionError, TimeoutError):
            pass

    async def serve(_):
        client = build()
        await page(client, "ann")
        await page(client, "bob")

    tta.run(serve, None)


# Late answer: the limit is reached, the money is gone.


class Bank:
    """A bank that knows what it has charged."""

    def __init__(self):
        self.charges = []

    async def charge(self, order):
        async with op("bank.charge"):
            self.charges.append(order)

    async def cancel(self, order):
        async with asyncio.timeout(5):
            async with op("bank.cancel"):
                if order in self.charges:
                    self.charges.remove(order)


async def pay_in_time(bank, order):
    """Take a charge that is late for one that failed."""
    try:
        async with asyncio.timeout(5):
            await bank.charge(order)
    except TimeoutError:
        return "failed"
    return "paid"


async def pay_or_cancel(bank, order):
    """Take a charge that is late back before it counts as failed."""
    try:
        async with asyncio.timeout(5):
            await bank.charge(order)
    except TimeoutError:
        await bank.cancel(order)
        return "failed"
    return "paid"


def late_answer(tta, build):
    """An order that was not paid has cost nothing."""
    bank = Bank()
    said = {}
    tta.always(
        lambda: not (said.get(7) == "failed" and 7 in bank.charges),
        "what was reported as failed was not charged",
    )

    async def serve(_):
        said[7] = await build(bank, 7)

    tta.run(serve, None)


# Partial result: those who failed are left out of the sum.


async def sum_what_came(read):
    """Add what the regions have answered."""
    found = await asyncio.gather(
        *(read(region) for region in ("eu", "us", "asia")), return_exceptions=True
    )
    return sum(one for one in found if not isinstance(one, BaseException))


async def sum_all(read):
    """Add what all regions have answered, or fail."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(read(region)) for region in ("eu", "us", "asia")]
    return sum(task.result() for task in tasks)


def partial_result(tta, build):
    """The revenue of three regions is added."""
    revenue = {"eu": 10, "us": 20, "asia": 30}

    async def read(region):
        await bounded_op("region.read")
        return revenue[region]

    async def serve(_):
        return await build(read)

    assert tta.run(serve, None) == 60


# Published before the commit: the world hears of an order that does not exist.


class Orders:
    """A database of orders, and what was said about them."""

    def __init__(self):
        self.rows = []
        self.events = []

    async def insert(self, order):
        async with asyncio.timeout(5):
            async with op("orders.commit"):
                self.rows.append(order)

    async def publish(self, order):
        async with asyncio.timeout(5):
            async with op("events.publish"):
                self.events.append(order)


async def publish_then_commit(orders, order):
    """Say it, then do it."""
    await orders.publish(order)
    await orders.insert(order)


async def commit_then_publish(orders, order):
    """Do it, then say it."""
    await orders.insert(order)
    await orders.publish(order)


def published_too_early(tta, build):
    """An order is stored, and an event says so."""
    orders = Orders()
    tta.always(
        lambda: set(orders.events) <= set(orders.rows),
        "there is an order for each event",
    )

    async def serve(_):
        await build(orders, 7)

    tta.run(serve, None)
    assert orders.events == orders.rows == [7]


BUGS = (
    Bug(
        "pool-cancelled",
        "a slot is lost when opening its connection is cancelled",
        ("permit not returned", "deadlock", "unbounded wait"),
        pool_cancelled,
        LeakyPool,
        TightPool,
        issue_url="https://github.com/MagicStack/asyncpg/issues/467",
    ),
    Bug(
        "leaked-permit",
        "a permit is lost when the call fails",
        ("permit not returned", "error"),
        leaked_permit,
        call_and_release,
        call_within,
    ),
    Bug(
        "lost-slot",
        "a slot is handed to a waiter that has gone",
        ("deadlock", "permit not returned"),
        lost_slot,
        ForgetfulLimiter,
        CarefulLimiter,
        issue_url="https://github.com/agronholm/anyio/pull/1145",
    ),
    Bug(
        "leaked-task",
        "the audit is started and nobody waits for it",
        ("left running", "unhandled error"),
        leaked_task,
        order_and_forget,
        order_and_wait,
        issue_url="https://github.com/bachya/aioambient/issues/486",
    ),
    Bug(
        "swallowed-cancellation",
        "a cancelled call is repeated",
        ("swallowed cancellation",),
        swallowed_cancellation,
        retry_unless,
        retry_if,
        issue_url="https://github.com/jd/tenacity/issues/529",
    ),
    Bug(
        "leader-cancelled",
        "those who share a load wait for one who has gone",
        ("deadlock",),
        leader_cancelled,
        Flights,
        SafeFlights,
    ),
    Bug(
        "foreign-answer",
        "after a cancellation one user gets the answer of another",
        ("invariant",),
        foreign_answer,
        SharedLine,
        RenewedLine,
        issue_url="https://github.com/redis/redis-py/issues/2624",
    ),
    Bug(
        "late-answer",
        "a charge that is late is taken for one that failed",
        ("invariant",),
        late_answer,
        pay_in_time,
        pay_or_cancel,
    ),
    Bug(
        "partial-result",
        "regions that failed are missing in the sum",
        ("assertion",),
        partial_result,
        sum_what_came,
        sum_all,
        issue_url="https://github.com/lablup/backend.ai/issues/11221",
    ),
    Bug(
        "published-too-early",
        "an event tells of an order that was not stored",
        ("invariant",),
        published_too_early,
        publish_then_commit,
        commit_then_publish,
        issue_url="https://github.com/headsnet/domain-events-bundle/issues/27",
    ),
)
