"""A test that asserts a property kills the mutants that break it; a weak one does not.

Both sets of tests below run the same workflows, and each is a session of pytest.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

import pytest

from pytest_tta.mutation.operators import OPERATORS

if TYPE_CHECKING:
    from tests.plugin.conftest import Run

Table: TypeAlias = dict[str, dict[str, list[str]]]

WORKFLOWS = """
import asyncio

import pytest

from pytest_tta.faults import always, first, nth
from tta_primitives import step
from tta_primitives.errors import (
    CircuitOpenError, ExecutionRejectedError, TimeoutExceededError
)
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import (
    BulkheadPrimitive, CircuitBreakerPrimitive, FallbackPrimitive, RateLimitPrimitive,
    RetryPrimitive, SagaPrimitive, TimeoutPrimitive,
)

calls = []
delays = [1]

async def wait(seconds):
    await asyncio.sleep(seconds)

@pytest.fixture(autouse=True)
def _forget():
    calls.clear()

@step
async def load(text):
    calls.append(text)
    return f"{text}!"

@step
async def slow(text):
    await asyncio.sleep(delays[0])
    return text

@step
async def slow_load(text):
    await asyncio.sleep(delays[0])
    calls.append(text)
    return f"{text}!"

@step
async def cheap(text):
    return "cheap"

@step
async def shout(text):
    return text.upper() + "."

@step
async def store(text):
    calls.append("stored")
    return text + ","

@step
async def undo(record):
    calls.append("undone")

@step
async def undo_load(record):
    calls.append("unloaded")

class Permanent(Exception):
    status_code = 400

def retry():
    return RetryPrimitive(load, max_retries=2, initial_delay=1, jitter="none")

def timeout():
    return TimeoutPrimitive(slow, timeout_seconds=2)

def nested():
    inner = RetryPrimitive(slow, max_retries=2, initial_delay=0)
    return TimeoutPrimitive(inner, timeout_seconds=2.5)

def fallback():
    return FallbackPrimitive(load, [cheap, "nothing"])

def breaker():
    return CircuitBreakerPrimitive(load, failure_threshold=2, recovery_timeout=5)

def cache():
    return CachePrimitive(slow_load, ttl=60)

def saga():
    return SagaPrimitive([(store, undo), load])

def saga_of_two():
    return SagaPrimitive([(store, undo), (load, undo_load), shout])

def limited_breaker():
    return TimeoutPrimitive(breaker(), timeout_seconds=2)

def parallel():
    return slow | slow.named("other")

def chain():
    return load >> shout >> store

def bulkhead():
    return BulkheadPrimitive(slow, max_concurrency=2)

def rate():
    return RateLimitPrimitive(load, rate=1, burst=1, max_wait=10)

"""

STRONG = """
from shop import *
from shop import _forget

def fails(tta, workflow, error, text="x"):
    with pytest.raises(error):
        tta.run(workflow, text)

def test_retry_goes_on_as_often_as_it_says(tta):
    tta.faults.at("load").fail(ConnectionError(), when=always())
    fails(tta, retry(), ConnectionError)
    assert tta.elapsed == 3
    assert len(tta.trace.spans_at("retry/load")) == 3

def test_retry_stops_at_what_is_permanent(tta):
    tta.faults.at("load").fail(Permanent(), when=first(1))
    fails(tta, retry(), Permanent)

def test_timeout(tta):
    tta.faults.at("slow").hang(when=nth(2))
    workflow = timeout()
    assert tta.run(workflow, "x") == "x"
    fails(tta, workflow, TimeoutExceededError)
    assert tta.elapsed == 3

def test_nested(tta):
    tta.faults.at("slow").hang(when=always())
    fails(tta, nested(), TimeoutExceededError)
    assert tta.elapsed == 2.5

def test_fallback(tta):
    tta.faults.at("load").fail(ConnectionError(), when=nth(2))
    tta.faults.at("load").fail(ConnectionError(), when=nth(3))
    tta.faults.at("cheap").fail(ConnectionError(), when=nth(2))
    workflow = fallback()
    assert [tta.run(workflow, "x") for _ in range(3)] == ["x!", "cheap", "nothing"]

def test_breaker(tta):
    tta.faults.at("load").fail(ConnectionError(), when=first(2))
    workflow = breaker()
    fails(tta, workflow, ConnectionError)
    fails(tta, workflow, ConnectionError)
    fails(tta, workflow, CircuitOpenError)
    assert workflow.state == "open"
    tta.run(wait, 5)
    assert tta.run(workflow, "x") == "x!"

def test_cache(tta):
    workflow = cache()
    assert tta.run(workflow, "x") == tta.run(workflow, "x") == "x!"
    assert tta.run(workflow, "y") == "y!"
    assert calls == ["x", "y"]
    tta.run(wait, 61)
    tta.run(workflow, "x")
    assert calls == ["x", "y", "x"]

def test_saga(tta):
    tta.faults.at("load").fail(ConnectionError(), when=always())
    fails(tta, saga(), ConnectionError)
    assert calls == ["stored", "undone"]

def test_a_failed_load_is_tried_again(tta):
    tta.faults.at("slow_load").fail(ConnectionError(), when=first(1))
    workflow = cache()
    fails(tta, workflow, ConnectionError)
    assert tta.run(workflow, "x") == "x!"

def test_saga_undoes_the_last_first(tta):
    tta.faults.at("shout").fail(ConnectionError(), when=always())
    fails(tta, saga_of_two(), ConnectionError)
    assert calls == ["stored", "x,", "unloaded", "undone"]

def test_breaker_hears_nothing_from_cancellations(tta):
    tta.faults.at("load").hang(when=first(2))
    workflow = limited_breaker()
    fails(tta, workflow, TimeoutExceededError)
    fails(tta, workflow, TimeoutExceededError)
    assert tta.run(workflow, "x") == "x!"
    assert tta.elapsed == 4

def test_a_branch_that_fails_ends_them_all(tta):
    tta.faults.at("slow").fail(ConnectionError(), when=always())
    fails(tta, parallel(), ConnectionError)

def test_parallel(tta):
    assert tta.run(parallel(), "x") == ("x", "x")
    assert tta.elapsed == 1

def test_chain(tta):
    assert tta.run(chain(), "x") == "X!.,"
"""

TOGETHER = """
def branches(one):
    return one | one | one

def test_bulkhead(tta):
    with pytest.raises(ExecutionRejectedError):
        tta.run(branches(bulkhead()), "x")

def test_bulkhead_takes_two(tta):
    one = bulkhead()
    assert tta.run(one | one, "x") == ("x", "x")

def test_rate(tta):
    assert len(tta.run(branches(rate()), "x")) == 3
    assert tta.elapsed == 2

def test_flight(tta):
    tta.run(branches(cache()), "x")
    assert calls == ["x"]
"""

WEAK = """
from shop import *
from shop import _forget

delays[0] = 0.01
MADE = [retry, timeout, nested, fallback, breaker, saga, cache]
MADE += [saga_of_two, limited_breaker]
SHARED = [bulkhead, rate, cache]

@pytest.mark.parametrize("make", [*MADE, parallel, chain], ids=lambda f: f.__name__)
def test_it_runs(tta, make):
    assert tta.run(make(), "x") is not None

@pytest.mark.parametrize("make", SHARED, ids=lambda f: f.__name__)
def test_it_runs_together(tta, make):
    one = make()
    try:
        tta.run(one | one | one, "x")
    except Exception:
        pass
"""


def rows(result: pytest.RunResult) -> Table:
    """Return the changes by operator, each with what became of it where it was made."""
    found: Table = {}
    for line in result.outlines:
        operator, _, what, how = (*re.split(r" {2,}", line.strip()), *4 * [""])[:4]
        if operator in OPERATORS:
            found.setdefault(operator, {}).setdefault(what, []).append(how)
    return found


@pytest.fixture(scope="module")
def strong_and_weak() -> dict[str, Table]:
    """Keep both tables, so that they are made once."""
    return {}


def is_killed(hows: list[str]) -> bool:
    """Tell whether a change was noticed anywhere."""
    return any(how.startswith("killed by") for how in hows)


def table_of(
    name: str,
    pytester: pytest.Pytester,
    run: Run,
    known: dict[str, Table],
) -> Table:
    """Run the strong or the weak tests with --tta-mutate."""
    if name not in known:
        pytester.makepyfile(shop=WORKFLOWS)
        pytester.makepyfile(WEAK if name == "weak" else STRONG + TOGETHER)
        result = run("--tta", "--tta-mutate", "-p", "no:randomly", "-q")
        assert result.ret == 0, result.stdout.str()
        known[name] = rows(result)
    return known[name]


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_test_that_asserts_the_property_kills(
    operator: str,
    pytester: pytest.Pytester,
    run: Run,
    strong_and_weak: dict[str, Table],
) -> None:
    """Each change of each operator is noticed in the workflow that is about it."""
    made = table_of("strong", pytester, run, strong_and_weak)[operator]
    assert [what for what, hows in made.items() if not is_killed(hows)] == []


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_weak_test_lets_it_survive(
    operator: str,
    pytester: pytest.Pytester,
    run: Run,
    strong_and_weak: dict[str, Table],
) -> None:
    """A test that only runs the workflow notices nothing."""
    made = table_of("weak", pytester, run, strong_and_weak)[operator]
    assert [what for what, hows in made.items() if is_killed(hows)] == []
