"""Our primitives, used in ways in which they cannot help."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from pytest_tta import op
from tests.zoo.bug import Bug, bounded_op
from tta_primitives import WorkflowContext, step
from tta_primitives.errors import SagaCompensationError
from tta_primitives.performance.cache import CachePrimitive
from tta_primitives.recovery import (
    BulkheadPrimitive,
    FallbackPrimitive,
    RetryPrimitive,
    SagaPrimitive,
    TimeoutPrimitive,
)

__all__ = ["BUGS"]


class Bank:
    """A bank that makes no charge twice for one key."""

    def __init__(self):
        self.charges = []
        self.known = set()

    async def charge(self, order, key=None):
        async with op("bank.charge"):
            if key is None or key not in self.known:
                self.known.add(key)
                self.charges.append(order)
        return "paid"

    async def cancel(self, order):
        async with asyncio.timeout(5):
            async with op("bank.cancel"):
                while order in self.charges:
                    self.charges.remove(order)


# Retry after a lost acknowledgement.


def retried_charge(bank):
    """Charge again after an error."""

    async def charge(order):
        return await bank.charge(order)

    return RetryPrimitive(charge, max_retries=2, attempt_timeout=5)


def minted_key(bank):
    """Charge again, with a key that is made for each attempt."""

    async def charge(order):
        return await bank.charge(order, key=uuid4().hex)

    return RetryPrimitive(charge, max_retries=2, attempt_timeout=5)


def kept_key(bank):
    """Charge again with the key of the step."""

    async def charge(order, context):
        return await bank.charge(order, key=context.idempotency_key)

    return RetryPrimitive(charge, max_retries=2, attempt_timeout=5)


def charged_once(tta, build):
    """An order is paid."""
    bank = Bank()
    tta.always(lambda: len(bank.charges) <= 1, "an order is charged once")

    assert tta.run(build(bank), 7) == "paid"


# A saga whose failed step has had its effect.


class Trip:
    """A hotel and a flight."""

    def __init__(self):
        self.booked = set()

    async def book(self, what):
        async with asyncio.timeout(5):
            async with op(f"{what}.book"):
                self.booked.add(what)
        return what

    async def cancel(self, what):
        async with asyncio.timeout(5):
            async with op(f"{what}.cancel"):
                self.booked.discard(what)


def _saga(trip, *, compensate_failed):
    async def book_hotel(_):
        return await trip.book("hotel")

    async def book_flight(_):
        return await trip.book("flight")

    async def cancel_hotel(_):
        await trip.cancel("hotel")

    async def cancel_flight(_):
        await trip.cancel("flight")

    return SagaPrimitive(
        [(book_hotel, cancel_hotel), (book_flight, cancel_flight)],
        compensate_failed=compensate_failed,
    )


def saga_of_done_steps(trip):
    """Undo the steps that said they were done."""
    return _saga(trip, compensate_failed=False)


def saga_of_begun_steps(trip):
    """Undo also the one that failed."""
    return _saga(trip, compensate_failed=True)


def uncompensated(tta, build):
    """A trip is booked wholly or not at all, unless somebody is told what is left."""
    trip = Trip()
    told = []
    tta.always(
        lambda: told or trip.booked in (set(), {"hotel", "flight"}),
        "a trip is booked wholly or not at all",
    )

    try:
        assert tta.run(build(trip), None) == "flight"
    except SagaCompensationError as error:
        told.append(error)
        raise


# A fallback that never comes, since nothing says when the primary has failed.


async def ask_model(question):
    """Ask the large model."""
    await op("large.complete")
    return question.upper()


async def ask_small_model(question):
    """Ask the small model."""
    await bounded_op("small.complete")
    return question.upper()


def patient_fallback():
    """Wait for the large model as long as it takes."""
    return FallbackPrimitive(ask_model, [ask_small_model])


def bounded_fallback():
    """Wait for the large model for ten seconds."""
    return FallbackPrimitive(
        TimeoutPrimitive(ask_model, timeout_seconds=10), [ask_small_model]
    )


def unbounded_primary(tta, build):
    """A question is answered, by whichever model."""
    assert tta.run(build(), "why") == "WHY"


# The wrong order of fallbacks: yesterday's prices come before the replica.


class Prices:
    """Prices from the database, its replica and a file."""

    def __init__(self):
        self.asked = []

    async def live(self, _):
        self.asked.append("live")
        await bounded_op("live.select")
        return "today"

    async def replica(self, _):
        self.asked.append("replica")
        await bounded_op("replica.select")
        return "today"

    async def file(self, _):
        self.asked.append("file")
        return "yesterday"


def file_before_replica(prices):
    """Take the file if the database fails."""
    return FallbackPrimitive(prices.live, [prices.file, prices.replica])


def replica_before_file(prices):
    """Take the replica if the database fails."""
    return FallbackPrimitive(prices.live, [prices.replica, prices.file])


def wrong_order(tta, build):
    """Prices are from today if anybody has them."""
    prices = Prices()
    tta.always(
        lambda: "file" not in prices.asked or "replica" in prices.asked,
        "old prices are shown only if the replica has failed too",
    )

    assert tta.run(build(prices), None) == "today"


# Retries around retries multiply.


async def search(query):
    """Search at a provider."""
    await bounded_op("provider.search")
    return query.upper()


def retries_in_retries():
    """Repeat in the client, in the service and in the workflow."""
    client = RetryPrimitive(search, max_retries=3)
    service = RetryPrimitive(client, max_retries=3, retry_nested=True)
    return RetryPrimitive(service, max_retries=3, retry_nested=True)


def one_retry():
    """Repeat in one place."""
    return RetryPrimitive(search, max_retries=3)


def nested_retries(tta, build):
    """A search is answered."""
    assert tta.run(build(), "tea") == "TEA"


# A permanent error is repeated.


class Model:
    """A model that is told again what it has refused."""

    def __init__(self):
        self.has_refused = False
        self.told_again = 0

    async def complete(self, prompt):
        self.told_again += self.has_refused
        try:
            await bounded_op("model.complete")
        except Exception as error:
            self.has_refused = getattr(error, "status_code", None) == 400
            raise
        return prompt.upper()


def retry_everything(model):
    """Repeat after any error."""
    return RetryPrimitive(model.complete, max_retries=3, retry_on=Exception)


def retry_what_may_pass(model):
    """Repeat after errors that may pass."""
    return RetryPrimitive(model.complete, max_retries=3)


def permanent_error(tta, build):
    """A prompt is completed."""
    model = Model()
    tta.always(lambda: model.told_again == 0, "what was refused is not sent again")

    assert tta.run(build(model), "tea") == "TEA"


# The answer of a limit: "declined", although the charge went through.


def declined_when_late(bank):
    """Say that it was declined."""
    return TimeoutPrimitive(bank.charge, timeout_seconds=5, fallback="declined")


def cancelled_when_late(bank):
    """Cancel it, then say that it was declined."""

    async def give_up(order):
        await bank.cancel(order)
        return "declined"

    return TimeoutPrimitive(bank.charge, timeout_seconds=5, fallback=give_up)


def late_charge(tta, build):
    """Whoever is declined pays nothing."""
    bank = Bank()
    said = []
    tta.always(
        lambda: not (said == ["declined"] and bank.charges),
        "whoever is declined pays nothing",
    )

    said.append(tta.run(build(bank), 7))


# A cache that remembers an outage.


class Rates:
    """A service with exchange rates."""

    def __init__(self):
        self.asked = 0

    async def rate(self, _):
        self.asked += 1
        await bounded_op("rates.get")
        return 2

    async def rate_or_none(self, currency):
        try:
            return await self.rate(currency)
        except (ConnectionError, TimeoutError):
            return None


def cache_around_none(rates):
    """Remember what there is, and that there is nothing."""
    return CachePrimitive(rates.rate_or_none, ttl=600)


def none_around_cache(rates):
    """Remember what there is."""
    return FallbackPrimitive(
        CachePrimitive(rates.rate, ttl=600),
        [None],
        fallback_on=(ConnectionError, TimeoutError),
    )


def cached_outage(tta, build):
    """A rate is unknown only if it could not be had just now."""
    rates = Rates()
    unasked = []
    tta.always(lambda: not unasked, "no rate is unknown that nobody has asked for")

    async def serve(_):
        workflow = build(rates)
        for _ in range(2):
            before = rates.asked
            answer = await workflow.execute("usd", WorkflowContext())
            if answer is None and rates.asked == before:
                unasked.append("usd")
            await asyncio.sleep(1)

    tta.run(serve, None)


# A step that lets nobody stop it.


def unstoppable_step():
    """Answer something, come what may."""

    async def recommend(user):
        try:
            await bounded_op("model.rank")
        except BaseException:
            return "bestsellers"
        return f"books for {user}"

    return step(recommend)


def stoppable_step():
    """Answer something if the model fails."""

    async def recommend(user):
        try:
            await bounded_op("model.rank")
        except Exception:
            return "bestsellers"
        return f"books for {user}"

    return step(recommend)


def unstoppable(tta, build):
    """Somebody gets recommendations."""
    assert tta.run(build(), "ann") in {"books for ann", "bestsellers"}


# A deadline that stays outside.


async def fetch(url):
    """Fetch a page."""
    await op("site.fetch")
    return url.upper()


def crawl_with_new_context():
    """Run a workflow in a step, as if it were another run."""
    crawl = RetryPrimitive(fetch, max_retries=2, attempt_timeout=20)

    async def summarise(url):
        return await crawl.execute(url, WorkflowContext())

    return step(summarise)


def crawl_within_context():
    """Run a workflow in a step, in the context of the step."""
    crawl = RetryPrimitive(fetch, max_retries=2, attempt_timeout=20)

    async def summarise(url, context):
        return await crawl.execute(url, context)

    return step(summarise)


def ignored_deadline(tta, build):
    """A summary is there in ten seconds, or an error is."""
    took = []
    tta.always(lambda: max(took, default=0) <= 10, "nobody waits for over ten seconds")

    async def serve(_):
        now = asyncio.get_running_loop().time
        began = now()
        try:
            context = WorkflowContext(deadline=began + 10)
            return await build().execute("url", context)
        finally:
            took.append(now() - began)

    assert tta.run(serve, None) == "URL"


# A sum in the state of a run, from branches that overwrite each other.


async def lookup(item):
    """Look something up."""
    await bounded_op("catalogue.read")
    return item


async def add_slowly(item, context):
    """Read the total, ask for the price, write the total."""
    total = context.state.get("total", 0)
    await bounded_op("price.read")
    context.state["total"] = total + 10
    return item


async def add_at_once(item, context):
    """Ask for the price, then add it."""
    await bounded_op("price.read")
    context.state["total"] = context.state.get("total", 0) + 10
    return item


def lost_in_state(tta, build):
    """Two items cost twenty."""
    later = step(lookup) >> lookup >> build
    context = WorkflowContext()

    tta.run(step(build) | later, "tea", context)
    assert context.state["total"] == 20


# A slot for the whole, and another of the same kind for its part.


def one_bulkhead():
    """Use one pool for orders and for their items."""
    pool = BulkheadPrimitive(_Call(), max_concurrency=2, max_queue=None)
    return pool, pool


def two_bulkheads():
    """Use a pool for orders and another for items."""
    return (
        BulkheadPrimitive(_Call(), max_concurrency=2, max_queue=None),
        BulkheadPrimitive(_Call(), max_concurrency=2, max_queue=None),
    )


def _Call():  # noqa: N802 - stands for a class
    async def call(function, context):
        return await function(context)

    return step(call)


def nested_slots(tta, build):
    """Two orders are stored with their items."""

    async def serve(_):
        orders, items = build()
        context = WorkflowContext()

        async def store_items(context):
            await bounded_op("items.insert")

        async def store_order(context):
            await bounded_op("orders.insert")
            await items.execute(store_items, context)

        async def later():
            await bounded_op("form.read")
            await bounded_op("form.check")
            await orders.execute(store_order, WorkflowContext())

        async with asyncio.TaskGroup() as group:
            group.create_task(orders.execute(store_order, context))
            group.create_task(later())

    tta.run(serve, None)


BUGS = (
    Bug(
        "retried-charge",
        "a retry charges again after a lost answer",
        ("invariant",),
        charged_once,
        retried_charge,
        kept_key,
        issue_url="https://github.com/MarkEdmondson1234/stripeR/issues/3",
        uses_primitives=True,
    ),
    Bug(
        "minted-key",
        "each attempt has an idempotency key of its own",
        ("invariant",),
        charged_once,
        minted_key,
        kept_key,
        issue_url="https://github.com/square/square-mcp-server/issues/31",
        uses_primitives=True,
    ),
    Bug(
        "uncompensated",
        "the effect of a step whose answer was lost is not undone",
        ("invariant",),
        uncompensated,
        saga_of_done_steps,
        saga_of_begun_steps,
        issue_url="https://github.com/Kaoruha/GinkGO/issues/6485",
        uses_primitives=True,
    ),
    Bug(
        "unbounded-primary",
        "a fallback waits for a primary that never answers",
        ("unbounded wait", "deadlock"),
        unbounded_primary,
        patient_fallback,
        bounded_fallback,
        issue_url="https://github.com/home-assistant/core/issues/14859",
        uses_primitives=True,
    ),
    Bug(
        "wrong-order",
        "old prices are shown although there are new ones",
        ("invariant",),
        wrong_order,
        file_before_replica,
        replica_before_file,
        uses_primitives=True,
    ),
    Bug(
        "nested-retries",
        "three retries around each other make 64 calls of four",
        ("retry storm",),
        nested_retries,
        retries_in_retries,
        one_retry,
        issue_url="https://github.com/HKUDS/nanobot/issues/2760",
        uses_primitives=True,
    ),
    Bug(
        "permanent-error",
        "what was refused is sent again",
        ("invariant",),
        permanent_error,
        retry_everything,
        retry_what_may_pass,
        issue_url="https://github.com/allenai/tutormoments/issues/52",
        uses_primitives=True,
    ),
    Bug(
        "late-charge",
        "a limit says declined, and the charge goes through",
        ("invariant",),
        late_charge,
        declined_when_late,
        cancelled_when_late,
        uses_primitives=True,
    ),
    Bug(
        "cached-outage",
        "a cache remembers that there was nothing",
        ("invariant",),
        cached_outage,
        cache_around_none,
        none_around_cache,
        uses_primitives=True,
    ),
    Bug(
        "unstoppable",
        "a step answers although it was cancelled",
        ("swallowed cancellation",),
        unstoppable,
        unstoppable_step,
        stoppable_step,
        issue_url="https://github.com/langflow-ai/langflow/pull/6625",
        uses_primitives=True,
    ),
    Bug(
        "ignored-deadline",
        "a workflow in a step knows nothing of the deadline",
        ("invariant",),
        ignored_deadline,
        crawl_with_new_context,
        crawl_within_context,
        uses_primitives=True,
    ),
    Bug(
        "lost-in-state",
        "branches overwrite each other's sum",
        ("assertion",),
        lost_in_state,
        add_slowly,
        add_at_once,
        uses_primitives=True,
    ),
    Bug(
        "nested-slots",
        "two orders hold the slots that their items need",
        ("deadlock",),
        nested_slots,
        one_bulkhead,
        two_bulkheads,
        uses_primitives=True,
    ),
)
