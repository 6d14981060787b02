"""The usual stack: what it is made of, in which order, and what that order does."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from pytest_tta.clock.clock import VirtualClock
from tests.recovery.doubles import Boom, Rejected, Script, Stream, chunks_of, virtual
from tta_primitives import SequentialPrimitive, WorkflowContext, step
from tta_primitives.door import Observer, listening
from tta_primitives.errors import (
    BulkheadFullError,
    CircuitOpenError,
    RateLimitExceededError,
    TimeoutExceededError,
)
from tta_primitives.performance import CachePrimitive
from tta_primitives.primitive import positions
from tta_primitives.recovery import (
    BulkheadPrimitive,
    CircuitBreakerPrimitive,
    FallbackPrimitive,
    RateLimitPrimitive,
    RetryPrimitive,
    TimeoutPrimitive,
)
from tta_primitives.recovery.classify import is_retryable
from tta_primitives.resilient import resilient

EVERY_LAYER = {
    "fallbacks": ["sorry"],
    "cache": 300,
    "rate_limit": 100,
    "bulkhead": 10,
}
NOTHING = dict.fromkeys(
    [
        "fallbacks",
        "total_timeout",
        "cache",
        "retry",
        "circuit_breaker",
        "rate_limit",
        "bulkhead",
        "attempt_timeout",
    ]
)


@step
async def llm(question):
    """Answer at once."""
    return f"answer to {question}"


@pytest.fixture
def clock():
    """A clock that starts at 0 and moves when everybody waits."""
    return VirtualClock()


class Paths(Observer):
    """The paths of the calls that began."""

    def __init__(self):
        self.seen = []

    def started(self, call):
        self.seen.append(call.path)


def layers_of(primitive):
    """Return the names from the outside down to the leaf."""
    names = [primitive.name]
    while primitive.children():
        primitive = primitive.children()[0]
        names.append(primitive.name)
    return names


def layer(primitive, name):
    """Return the layer with this name."""
    return next(one for _, one in positions(primitive) if one.name == name)


async def ask(primitive, question="why?"):
    return await primitive.execute(question, WorkflowContext())


def test_rule_03_the_layers_stand_in_the_documented_order():
    """Given all of them, the stack is that of the documentation."""
    assert layers_of(resilient(llm, **EVERY_LAYER)) == [
        "fallback",
        "total_timeout",
        "cache",
        "retry",
        "circuit_breaker",
        "rate_limit",
        "bulkhead",
        "attempt_timeout",
        "llm",
    ]


def test_case_93_the_stack_describes_itself():
    """By default it is two limits, a retry and a breaker."""
    leaf = {"type": "StepPrimitive", "name": "llm", "options": {}, "children": []}
    attempt = {
        "type": "TimeoutPrimitive",
        "name": "attempt_timeout",
        "options": {"timeout_seconds": 20.0},
        "children": [leaf],
    }
    breaker = {
        "type": "CircuitBreakerPrimitive",
        "name": "circuit_breaker",
        "options": {"record_on": f"{is_retryable.__module__}.is_retryable"},
        "children": [attempt],
    }
    retry = {
        "type": "RetryPrimitive",
        "name": "retry",
        "options": {},
        "children": [breaker],
    }
    assert resilient(llm).describe() == {
        "type": "TimeoutPrimitive",
        "name": "total_timeout",
        "options": {"timeout_seconds": 60.0},
        "children": [retry],
    }


@virtual
async def test_paths_name_the_layers(clock):
    """Faults, traces and errors say which of the two limits it was."""
    observer = Paths()
    with listening(observers=(observer,)):
        await ask(resilient(llm, **EVERY_LAYER).named("answer"))
    assert observer.seen[-1] == (
        "answer/total_timeout/cache/retry/circuit_breaker/rate_limit/bulkhead/"
        "attempt_timeout/llm"
    )
    hanging = resilient(Script("late", takes=90), retry=0)
    with pytest.raises(
        TimeoutExceededError, match="attempt_timeout/script took longer than 20 s"
    ):
        await ask(hanging)


@pytest.mark.parametrize("left_out", [None, False])
@pytest.mark.parametrize("name", NOTHING)
def test_each_layer_can_be_left_out(name, left_out):
    """What is left out leaves no trace in the tree."""
    primitive = resilient(llm, **{**EVERY_LAYER, name: left_out})
    named = {"fallbacks": "fallback"}.get(name, name)
    assert named not in layers_of(primitive)
    assert len(layers_of(primitive)) == 8


def test_without_any_layer_the_primitive_is_left():
    """Then there is nothing to put around it."""
    assert resilient(llm, **NOTHING) is llm
    assert resilient(lambda question: question, **NOTHING).name == "lambda"
    with pytest.raises(TypeError, match=r"nothing to wrap and no layer to wrap it"):
        resilient(**NOTHING)


OPTIONS = [
    ("total_timeout", 30, {"timeout_seconds": 30}),
    ("total_timeout", timedelta(minutes=1), {"timeout_seconds": 60}),
    ("total_timeout", {"timeout_seconds": 5}, {"timeout_seconds": 5}),
    ("total_timeout", TimeoutPrimitive(timeout_seconds=5), {"timeout_seconds": 5}),
    ("cache", 300, {"ttl": 300}),
    ("cache", {"ttl": 300, "max_size": 9}, {"ttl": 300, "max_size": 9}),
    ("cache", CachePrimitive(ttl=1), {"ttl": 1}),
    ("retry", 5, {"max_retries": 5}),
    ("retry", 0, {"max_retries": 0}),
    ("retry", True, {}),
    ("retry", {"jitter": "none"}, {"jitter": "none"}),
    ("retry", RetryPrimitive(max_retries=1), {"max_retries": 1}),
    ("circuit_breaker", True, {"record_on": is_retryable}),
    ("circuit_breaker", 9, {"failure_threshold": 9, "record_on": is_retryable}),
    (
        "circuit_breaker",
        {"failure_rate": 0.5},
        {"failure_rate": 0.5, "record_on": is_retryable},
    ),
    ("circuit_breaker", {"record_on": (OSError,)}, {"record_on": (OSError,)}),
    (
        "circuit_breaker",
        CircuitBreakerPrimitive(failure_threshold=2),
        {"failure_threshold": 2},
    ),
    ("rate_limit", 0.5, {"rate": 0.5}),
    ("rate_limit", {"rate": 60, "period": 60}, {"rate": 60, "period": 60}),
    ("rate_limit", RateLimitPrimitive(rate=3), {"rate": 3}),
    ("bulkhead", 10, {"max_concurrency": 10}),
    (
        "bulkhead",
        {"max_concurrency": 10, "max_queue": 5},
        {"max_concurrency": 10, "max_queue": 5},
    ),
    ("bulkhead", BulkheadPrimitive(max_concurrency=2), {"max_concurrency": 2}),
    ("attempt_timeout", 5, {"timeout_seconds": 5}),
]


@pytest.mark.parametrize(
    ("name", "given", "options"),
    OPTIONS,
    ids=[
        f"{name} {type(given).__name__} {n}"
        for n, (name, given, _) in enumerate(OPTIONS)
    ],
)
def test_a_layer_is_given_by_a_value_a_dict_or_an_open_wrapper(name, given, options):
    """Its most important value, its options, or the wrapper itself."""
    made = layer(resilient(llm, **{name: given}), name)
    shown = made.options()
    assert {key: shown.get(key, getattr(made, key, None)) for key in options} == options


def test_a_limit_may_be_a_function():
    """As with the wrapper itself."""

    def by_length(question, context):
        return len(question)

    made = layer(resilient(llm, total_timeout=by_length), "total_timeout")
    assert made.options() == {"timeout_seconds": by_length}


def test_an_open_fallback_brings_its_options():
    """Alternatives alone are given as a list."""
    given = FallbackPrimitive(fallbacks=["sorry"], fallback_on=OSError)
    made = resilient(llm, fallbacks=given)
    assert made.fallback_on == (OSError,)
    assert made.name == "fallback"


def test_a_wrapper_that_was_named_keeps_its_name():
    """Whoever has named it wants to find it again."""
    mine = RetryPrimitive(max_retries=1).named("again")
    assert "again" in layers_of(resilient(llm, retry=mine))


@virtual
async def test_without_a_primitive_the_stack_is_open(clock):
    """It wraps the next operand, and every binding has a state of its own."""
    policy = resilient(circuit_breaker=1, retry=None)
    down, fine = policy >> Script(Boom()), policy >> llm
    with pytest.raises(Boom, match="boom"):
        await ask(down)
    with pytest.raises(CircuitOpenError, match="open"):
        await ask(down)
    assert await ask(fine) == "answer to why?"
    assert isinstance(fine >> llm, SequentialPrimitive)
    assert resilient(**{**NOTHING, "retry": 1}).is_open


@virtual
async def test_a_failure_that_passes_is_retried(clock):
    """The answer comes in the end, and is kept if there is a cache."""
    script = Script(Boom(), Boom(), "42")
    answer = resilient(script, cache=60)
    assert await ask(answer) == "42"
    assert await ask(answer) == "42"
    assert script.calls == 3


@virtual
async def test_rule_03_the_limits_bound_attempts_and_everything(clock):
    """Attempts of 20 s, as many as fit into 60 s."""
    script = Script("late", takes=90)
    with pytest.raises(TimeoutExceededError, match="took longer than"):
        await ask(resilient(script))
    assert clock.elapsed <= 60
    assert script.calls == 3


@virtual
async def test_the_fallback_answers_whatever_goes_wrong(clock):
    """A failure, an open circuit, a full bulkhead, and the time that is up."""
    for script, options in [
        (Script(Boom()), {}),
        (Script(Boom()), {"circuit_breaker": 1}),
        (Script("late", takes=90), {}),
        (Script("late", takes=90), {"retry": None}),
    ]:
        answer = resilient(script, fallbacks=["sorry"], **options)
        assert await ask(answer) == "sorry"


@virtual
async def test_the_emergency_answer_is_not_kept(clock):
    """The cache is further inside than the fallback."""
    answer = resilient(Script(Boom(), "42"), fallbacks=["sorry"], cache=60, retry=None)
    assert [await ask(answer) for _ in range(3)] == ["sorry", "42", "42"]


@virtual
async def test_the_breaker_counts_every_attempt(clock):
    """Five failures in a row open it, in the middle of a retry."""
    script = Script(Boom())
    answer = resilient(script)
    with pytest.raises(Boom, match="boom"):
        await ask(answer)
    with pytest.raises(CircuitOpenError, match="open"):
        await ask(answer)
    assert script.calls == 5


@virtual
async def test_rule_06_the_breaker_counts_no_rejection_from_below(clock):
    """A full bulkhead and a rate limit say nothing about what is called."""
    answer = resilient(
        Script("42", takes=5),
        retry=None,
        bulkhead=1,
        rate_limit={"rate": 3, "max_wait": 0},
    )
    results = await asyncio.gather(
        *(ask(answer) for _ in range(20)), return_exceptions=True
    )
    kinds = [type(result) for result in results]
    assert kinds.count(str) == 1
    assert kinds.count(BulkheadFullError) == 2
    assert kinds.count(RateLimitExceededError) == 17
    stats = layer(answer, "circuit_breaker").stats
    assert (stats.state, stats.failures, stats.successes) == ("closed", 0, 1)


@virtual
async def test_the_breaker_counts_nothing_that_a_retry_would_not_repeat(clock):
    """Ten bad requests of one caller do not close the service for the others."""
    script = Script(*[Rejected(status_code=400)] * 10, *[TypeError("bug")] * 10, "42")
    answer = resilient(script)
    for _ in range(10):
        with pytest.raises(Rejected, match="rejected"):
            await ask(answer)
    for _ in range(10):
        with pytest.raises(TypeError, match="bug"):
            await ask(answer)
    assert await ask(answer) == "42"


@virtual
async def test_waiting_for_a_slot_is_no_part_of_an_attempt(clock):
    """The limit of an attempt begins when the call begins."""
    answer = resilient(
        Script("42", takes=15), bulkhead={"max_concurrency": 1, "max_queue": 2}
    )
    results = await asyncio.gather(*(ask(answer) for _ in range(3)))
    assert results == ["42"] * 3
    assert clock.elapsed == 45


@virtual
async def test_waiting_for_a_turn_holds_no_slot(clock):
    """One slot is enough, however many wait for the rate."""
    answer = resilient(Script("42"), bulkhead=1, rate_limit={"rate": 1, "burst": 1})
    assert await asyncio.gather(*(ask(answer) for _ in range(5))) == ["42"] * 5
    assert clock.elapsed == 4
    assert layer(answer, "bulkhead").stats.peak == 1


@virtual
async def test_every_attempt_takes_its_turn(clock):
    """The rate limit counts attempts, for that is what the service sees."""
    answer = resilient(
        Script(Boom(), Boom(), "42"),
        retry={"initial_delay": 0},
        rate_limit={"rate": 1, "burst": 1},
    )
    assert await ask(answer) == "42"
    assert clock.elapsed == 2


@virtual
async def test_a_cancelled_call_leaves_no_slot_and_no_task(clock):
    """Whatever layer it is in when the caller leaves."""
    answer = resilient(Script("42", takes=9), **EVERY_LAYER)
    for at in (0, 1, 5):
        task = asyncio.create_task(ask(answer))
        await asyncio.sleep(at)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    await asyncio.sleep(0)
    assert layer(answer, "bulkhead").stats.active == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


@virtual
async def test_a_stream_passes_through_all_layers(clock):
    """Until its first chunk it is retried; only a cache would collect it."""
    stream = Stream([Boom()], ["4", 0.1, "2"])
    answer = resilient(stream, **{**EVERY_LAYER, "cache": None})
    assert await chunks_of(answer, "why?", WorkflowContext()) == (["4", "2"], None)
    assert stream.calls == 2


@virtual
async def test_rule_07_a_step_that_is_not_idempotent_is_not_repeated(clock):
    """Not after a failure whose outcome is unknown."""
    script = Script(Boom(), "42")
    once = step(script, name="pay", idempotent=False)
    with pytest.raises(Boom, match="boom"):
        await ask(resilient(once))
    assert script.calls == 1


BAD = [
    ({"fallbacks": "sorry"}, TypeError, r"fallbacks='sorry' must be a list"),
    (
        {"fallbacks": FallbackPrimitive(llm, ["sorry"])},
        TypeError,
        "fallbacks=<FallbackPrimitive 'llm'> must be an open FallbackPrimitive",
    ),
    (
        {"total_timeout": 0},
        ValueError,
        "total_timeout: timeout_seconds=0 must be a positive number of seconds",
    ),
    (
        {"attempt_timeout": True},
        TypeError,
        "attempt_timeout: timeout_seconds=True must be a positive number of seconds",
    ),
    ({"cache": True}, TypeError, "cache: ttl=True must be"),
    ({"cache": {"max_size": 3}}, TypeError, "cache: CachePrimitive needs ttl="),
    ({"cache": {"ttl": 3, "tll": 4}}, TypeError, "cache: .* has no option 'tll'"),
    ({"retry": -1}, ValueError, "retry: max_retries=-1 must be a whole number"),
    ({"retry": {"max_retrys": 3}}, TypeError, "retry: .*argument 'max_retrys'"),
    (
        {"retry": RetryPrimitive(llm)},
        TypeError,
        "retry=<RetryPrimitive 'llm'> must be an open RetryPrimitive, one that wraps",
    ),
    (
        {"retry": CachePrimitive(ttl=3)},
        TypeError,
        "retry=<CachePrimitive open ttl=3> must be an open RetryPrimitive",
    ),
    (
        {"circuit_breaker": 0},
        ValueError,
        "circuit_breaker: failure_threshold=0 must be",
    ),
    ({"rate_limit": 0}, ValueError, "rate_limit: rate=0 must be a positive number"),
    ({"rate_limit": True}, TypeError, "rate_limit: rate=True must be a positive"),
    ({"bulkhead": 2.5}, ValueError, "bulkhead: max_concurrency=2.5 must be a whole"),
    ({"bulkhead": {}}, TypeError, "bulkhead: .*'max_concurrency'"),
]


@pytest.mark.parametrize(
    ("options", "error", "message"), BAD, ids=[str(n) for n in range(len(BAD))]
)
def test_what_is_wrong_is_said_with_the_name_of_the_layer(options, error, message):
    """The error comes when the stack is made, and names what was given."""
    with pytest.raises(error, match=message):
        resilient(llm, **options)


def test_what_is_wrapped_is_checked():
    """As everywhere."""
    with pytest.raises(TypeError, match="'llm' cannot be a step of a workflow"):
        resilient("llm")
    with pytest.raises(TypeError, match="unexpected keyword argument 'max_retries'"):
        resilient(llm, max_retries=3)
