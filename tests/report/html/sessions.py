"""Sessions to show on a page: a real one, a large one and a hostile one."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from pytest_tta import Harness
from pytest_tta.faults import first, nth
from pytest_tta.report.facts import facts
from pytest_tta.report.runs import run_record
from tta_primitives import WorkflowContext, step
from tta_primitives.llm import LLMResponse, Usage
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import (
    CircuitBreakerPrimitive,
    FallbackPrimitive,
    RetryPrimitive,
    TimeoutPrimitive,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_tta.report.record import (
        CoverageRecord,
        CoveredNode,
        ItemRecord,
        SessionRecord,
        SpanRecord,
        WrittenTest,
    )
    from tta_primitives import WorkflowPrimitive

__all__ = ["coverage", "example", "hostile", "large", "session", "span", "written"]

QUESTION = "Why was order 7 charged twice?"
DRAFT = (
    "Order 7 was charged once, on 3 May. The second line on the statement is the "
    "authorisation, which the bank releases after seven days [ticket 4711]."
)


def session(*tests: WrittenTest, **changes: Any) -> SessionRecord:
    """Return a session of these tests, always at the same time."""
    record: dict[str, Any] = {
        "version": 1,
        "schema": "tta-report-1",
        "created_at": "2026-11-29T17:54:03+00:00",
        "python": "3.11.2",
        "pytest": "9.0.1",
        "tta": "0.1.0",
        "seed": 7,
        "clock": "virtual",
        "real_seconds": 2.84,
        "tests": list(tests),
        "coverage": None,
    }
    return {**record, **changes}


def written(node_id: str, tta: ItemRecord | None = None, **changes: Any) -> WrittenTest:
    """Return a test that has passed, unless the changes say otherwise."""
    record: dict[str, Any] = {
        "node_id": node_id,
        "outcome": "passed",
        "real_seconds": 0.004,
        "file": node_id.partition("::")[0],
        "line": 12,
        "failure": "",
        "replay": "",
        "tta": tta,
        "attempt": 1,
    }
    return {**record, **changes}


def span(number: int, parent: int | None = None, **changes: Any) -> SpanRecord:
    """Return a call of a second that went well."""
    record: dict[str, Any] = {
        "id": number,
        "parent": parent,
        "path": f"root/call-{number}",
        "name": f"call-{number}",
        "label": f"call-{number}",
        "kind": "StepPrimitive",
        "task": "Task-1",
        "execution": 1,
        "status": "ok",
        "started_at": float(number),
        "ended_at": number + 1.0,
        "input": "",
        "output": "",
        "error": None,
        "fault": "",
        "events": [],
        "messages": [],
    }
    return {**record, **changes}


def item(*spans: SpanRecord, **changes: Any) -> ItemRecord:
    """Return what is known of a test with these calls."""
    run: dict[str, Any] = {
        "of": "the test",
        "spans": list(spans),
        "sleeps": [],
        "problems": [],
        "left_out": 0,
    }
    last = max((one["ended_at"] or 0.0 for one in spans), default=0.0)
    record: dict[str, Any] = {
        "version": 1,
        "seed": 7,
        "virtual_seconds": last,
        "workflows": ["root"],
        "totals": [],
        "run": {**run, **changes},
    }
    return record


# A real one.


@step
async def search_docs(question: str) -> str:
    """Look into the handbook."""
    await asyncio.sleep(0.35)
    return "Authorisations are released after seven days."


@step
async def search_tickets(question: str) -> str:
    """Look into what was asked before."""
    await asyncio.sleep(0.8)
    return "ticket 4711: the second line is an authorisation"


@step
async def price_history(question: str) -> str:
    """Ask the shop."""
    await asyncio.sleep(0.12)
    return "3 May: 40.00, captured"


@step
async def prompt(passages: Any) -> list[dict[str, str]]:
    """Write down what the model is told."""
    told = "\n".join(f"- {passage}" for passage in passages)
    return [
        {"role": "system", "content": f"Answer from the passages:\n{told}"},
        {"role": "user", "content": QUESTION},
    ]


@step
async def writer(passages: Any) -> LLMResponse:
    """Stand where a model is asked."""
    raise NotImplementedError


@step
async def short_writer(passages: Any) -> LLMResponse:
    """Stand where a smaller model is asked."""
    raise NotImplementedError


@step
async def review(answer: LLMResponse) -> str:
    """Wait for somebody who never comes."""
    await asyncio.sleep(0.4)
    if "4711" in answer.content:
        msg = "the answer quotes ticket 4711, which belongs to another customer"
        raise ValueError(msg)
    return answer.content


def service() -> WorkflowPrimitive[str, str]:
    """Return a service with most of what can go wrong."""
    passages = (
        search_docs
        | search_tickets
        | RetryPrimitive(
            price_history, max_retries=2, initial_delay=0.25, jitter="none"
        )
    ).named("passages")
    guarded = CircuitBreakerPrimitive(
        TimeoutPrimitive(writer, timeout_seconds=10),
        failure_threshold=3,
        recovery_timeout=3600,
    )
    patient = RetryPrimitive(
        guarded,
        max_retries=2,
        backoff_strategy=[2, 7200],
        max_delay=7200,
        jitter="none",
    )
    answering = FallbackPrimitive(patient, fallbacks=[short_writer])
    return (CachePrimitive(passages, ttl=3600) >> prompt >> answering >> review).named(
        "answer"
    )


def answered() -> ItemRecord:
    """Run the service with faults, and return what was recorded of it."""
    with Harness(seed=7) as tta:
        tta.faults.at("price_history").fail(
            ConnectionError("reset by peer"), when=first(2)
        )
        tta.faults.at("writer").hang(when=nth(1))
        tta.faults.at("writer").fail(OSError("503 overloaded"), when=nth(2))
        tta.faults.at("writer").fail(OSError("503 overloaded"), when=nth(3))
        tta.llm.at("short_writer").reply(
            DRAFT, usage=Usage(input_tokens=812, output_tokens=61), delay=1.6
        )
        workflow = service()
        with suppress(ValueError):
            tta.run(workflow, QUESTION, WorkflowContext())
        run = run_record(tta)
        for call in run["spans"]:
            call["fault"] = call["fault"].partition(" at ")[0]
        return {**facts(tta), "run": run}


def checkout() -> ItemRecord:
    """Run two buyers of the last seat, who both find it free."""
    seats = 1

    @step
    async def is_free(buyer: str) -> str:
        await asyncio.sleep(0.05)
        if not seats:
            msg = "sold out"
            raise LookupError(msg)
        return buyer

    @step
    async def pay(buyer: str) -> str:
        await asyncio.sleep(1.2 if buyer == "Ada" else 0.7)
        return buyer

    @step
    async def take_seat(buyer: str) -> str:
        nonlocal seats
        await asyncio.sleep(0.05)
        seats -= 1
        return f"{buyer}: {seats} left"

    @step
    async def send_ticket(buyer: str) -> str:
        await asyncio.sleep(30)
        return f"ticket of {buyer}"

    async def both() -> None:
        buy = (is_free >> pay >> take_seat).named("buy")
        buyers = [
            asyncio.create_task(buy.execute(one, WorkflowContext()), name=one)
            for one in ("Ada", "Bob")
        ]
        await asyncio.gather(*buyers)
        post = asyncio.create_task(send_ticket.execute("Ada", WorkflowContext()))
        late = TimeoutPrimitive(send_ticket.named("send_mail"), timeout_seconds=0.4)
        with suppress(TimeoutError):
            await late.execute("Bob", WorkflowContext())
        unfinished.append(post)

    unfinished: list[asyncio.Task[str]] = []
    with Harness(seed=7) as tta:
        tta.clock.run(both())
        return {**facts(tta), "run": run_record(tta)}


FAILURE = """\
    async def test_answers_quote_only_the_customers_own_tickets(tta):
        tta.faults.at("writer").hang(when=nth(1))
        tta.llm.at("short_writer").reply(DRAFT, delay=1.6)
>       text = await service().execute(QUESTION, WorkflowContext())

tests/support/test_answer.py:41:
_ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _
support/answer.py:88: in review
    raise ValueError(msg)
E   ValueError: the answer quotes ticket 4711, which belongs to another customer
"""
RACE = """\
found while exploring: assertion: no seat is sold twice: assert -1 >= 0
what it takes:
  is_free of Bob begins before take_seat of Ada
    at tests/shop/test_seats.py:41 in buy: if not await hall.is_free(buyer):
found in 231 executions
    def test_last_seat_is_sold_once(tta):
        hall = Hall(seats=1)
        tta.always(hall.is_not_oversold, "no seat is sold twice")
>       tta.run(hall.open, ["Ada", "Bob"])
E       AssertionError: no seat is sold twice: assert -1 >= 0
"""


@cache
def example() -> SessionRecord:
    """Return a session as people have them: most passes, a little does not."""
    race: ItemRecord = {
        **checkout(),
        "exploration": {
            "executions": 231,
            "rounds": 4,
            "all_orders": None,
            "reached": ["buy/pay:error", "buy/pay:lost_ack", "buy/take_seat:error"],
            "unreached": ["buy/pay:timeout"],
            "not_judged": 0,
            "never": [],
            "failures": [],
            "replay": "",
            "verdict": {
                "kind": "assertion",
                "text": "AssertionError: no seat is sold twice: assert -1 >= 0",
                "where": "tests/shop/test_seats.py:58",
            },
            "line": "tta1.eJyrVkrLz1eyUkpKLFKqBQA",
        },
    }
    race["run"]["of"] = "what exploring found"
    quiet = ("retries_a_reset", "keeps_an_answer_for_an_hour", "asks_once_for_many")
    other = ("limits_each_tenant", "compensates_in_reverse", "hedges_the_slow_tail")
    quick: ItemRecord = {**item(), "virtual_seconds": 3602.5, "workflows": ["answer"]}
    del quick["run"]
    return session(
        *(written(f"tests/support/test_answer.py::test_{one}", quick) for one in quiet),
        written(
            "tests/support/test_answer.py::"
            "test_answers_quote_only_the_customers_own_tickets",
            answered(),
            outcome="failed",
            line=37,
            real_seconds=0.021,
            failure=FAILURE,
            replay="pytest --tta --tta-seed=7 'tests/support/test_answer.py::"
            "test_answers_quote_only_the_customers_own_tickets'",
        ),
        *(written(f"tests/shop/test_checkout.py::test_{one}", quick) for one in other),
        written(
            "tests/shop/test_seats.py::TestHall::test_last_seat_is_sold_once",
            race,
            outcome="failed",
            line=55,
            real_seconds=0.62,
            failure=RACE,
            replay="pytest --tta --tta-replay='tta1.eJyrVkrLz1eyUkpKLFKqBQA' "
            "'tests/shop/test_seats.py::TestHall::test_last_seat_is_sold_once'",
        ),
        written(
            "tests/shop/test_stock.py::test_levels_are_read_from_the_replica",
            outcome="error",
            failure="E   fixture 'replica' not found\n",
        ),
        written("tests/shop/test_stock.py::test_bins", outcome="skipped"),
        *(
            written(f"tests/shop/test_prices.py::test_rounds[{one}]", quick)
            for one in ("0.1", "0.125", "1e9", "-0", "π", "½")
        ),
        coverage=coverage(),
    )


# Coverage of it.

REACHED = {
    "CachePrimitive": {"hit": "tests", "miss": "tests", "stale": ""},
    "CircuitBreakerPrimitive": {
        "closed": "tests",
        "opened": "sweep",
        "rejected": "",
        "half_opened": "",
    },
    "FallbackPrimitive": {"primary": "tests", "fallback 1": "sweep", "all failed": ""},
    "ParallelPrimitive": {"all ok": "tests", "one failed": "sweep"},
    "RetryPrimitive": {"first try": "tests", "retried": "tests", "exhausted": ""},
    "TimeoutPrimitive": {"in time": "tests", "expired": "sweep"},
}


def coverage() -> CoverageRecord:
    """Return what tests have reached of the service."""
    tree = service().describe()
    nodes = dict(_covered(tree, tree["name"]))
    outcomes = [one for node in nodes.values() for one in node["outcomes"]]
    covered = sum(bool(one["by"]) for one in outcomes if not one["excluded"])
    total = sum(not one["excluded"] for one in outcomes)
    return {
        "covered": covered,
        "total": total,
        "percent": 100 * covered / total,
        "workflows": [{"name": "answer", "tree": tree, "nodes": nodes}],
    }


def _covered(tree: Any, path: str) -> Iterator[tuple[str, CoveredNode]]:
    reached = REACHED.get(tree["type"], {})
    if reached:
        outcomes = [
            {"name": name, "by": by, "excluded": name == "stale"}
            for name, by in reached.items()
        ]
        yield path, {"primitive": tree["type"], "outcomes": outcomes}
    for child in tree["children"]:
        yield from _covered(child, f"{path}/{child['name']}")


# A large one.


def large(count: int) -> SessionRecord:
    """Return a session with one run of so many calls."""
    tta = item(*_many(count), sleeps=[_sleep(i) for i in range(200)])
    return session(
        written("test_large.py::test_all", tta, outcome="failed", failure="E   no\n")
    )


def _many(count: int) -> Iterator[SpanRecord]:
    for number in range(count):
        is_batch = number % 20 == 0
        batch = number - number % 20
        yield span(
            number,
            None if number == 0 else 0 if is_batch else batch,
            path=f"root/batch/call-{number % 20}" if number else "root",
            label="batch" if is_batch else f"call-{number % 20}",
            started_at=number * 0.5,
            ended_at=count * 0.5
            if number == 0
            else number * 0.5 + (10 if is_batch else 0.4),
            status="failed" if number % 997 == 5 else "ok",
            error={"type": "OSError", "message": "no"} if number % 997 == 5 else None,
            input=f"'item {number}' " + "x" * 300,
            output="y" * 300,
        )


def _sleep(number: int) -> Any:
    where = "service.py:12 in wait"
    return {"at": number * 20.0, "seconds": 3.0, "where": where, "task": "Task-1"}


# A hostile one.

SCRIPT = "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>"
BREAKOUT = (
    "</script></pre></title></style><script>window.pwned = 1</script><!-- <script>"
)
BACKWARDS = (
    "\u202etxt.exe\u202c \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627"
)
CONTROLS = "\u2028\u2029 \0\x1b[2J {{script}} \ud800"
HOSTILE = f"\"' onload=alert(1) {SCRIPT} {BREAKOUT} {BACKWARDS} {CONTROLS}"
LONG = "wide" * 500


def hostile(size: int = 1_000) -> SessionRecord:
    """Return a session in which everything that may be a text is hostile."""
    call = span(
        1,
        0,
        path=HOSTILE,
        label=HOSTILE,
        name=HOSTILE,
        kind=HOSTILE,
        task=HOSTILE,
        status="failed",
        input=HOSTILE + "x" * size,
        output=HOSTILE,
        error={"type": HOSTILE, "message": HOSTILE},
        fault=HOSTILE,
        events=[{"at": 1.5, "name": HOSTILE, "detail": {HOSTILE: HOSTILE}}],
        messages=[{"role": HOSTILE, "text": HOSTILE}],
    )
    sleep = {"at": 1.0, "seconds": float("inf"), "where": HOSTILE, "task": HOSTILE}
    tta = item(span(0, label=LONG), call, problems=[HOSTILE], sleeps=[sleep])
    tta["workflows"] = [HOSTILE]
    tta["totals"] = [
        {
            "workflow": HOSTILE,
            "runs": 1,
            "failed": 1,
            "calls": 2,
            "retries": 0,
            "faults": 1,
            "virtual_seconds": 2.0,
        }
    ]
    outcome = {"name": HOSTILE, "by": "", "excluded": False}
    node = {"primitive": HOSTILE, "outcomes": [outcome]}
    tree = {"type": HOSTILE, "name": HOSTILE, "options": {}, "children": []}
    workflow = {"name": HOSTILE, "tree": tree, "nodes": {HOSTILE: node}}
    covered = {"covered": 0, "total": 1, "percent": 0.0, "workflows": [workflow]}
    return session(
        written(
            f"test_a.py::test_b[{HOSTILE}]",
            tta,
            outcome="failed",
            failure=HOSTILE,
            replay=HOSTILE,
        ),
        written(f"test_a.py::{LONG}"),
        written("test_a.py::javascript:alert(1)", outcome="skipped"),
        coverage=covered,
    )
