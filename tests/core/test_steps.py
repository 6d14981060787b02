"""Functions as steps: what they are called with, extras, names and copies."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import json
import operator
import pickle
import threading

import pytest

from pytest_tta.clock.clock import VirtualClock
from tta_primitives import StepPrimitive, WorkflowContext, WorkflowPrimitive, step
from tta_primitives.errors import TimeoutExceededError, UnboundStepError


async def run(workflow, value="x", context=None):
    return await workflow.execute(value, context or WorkflowContext())


@step
async def fetch(user: int) -> str:
    """Fetch a user."""
    return f"user {user}"


@step(name="charge", idempotent=False, timeout_seconds=2)
async def charge_card(order, context: WorkflowContext):
    return order, context.path


@step
async def query_database(data, session, *, limit=10):
    return data, session, limit


class Multiplier:
    def __init__(self, factor) -> None:
        self.factor = factor

    def __call__(self, value):
        return value * self.factor

    async def later(self, value, ctx):
        return value, ctx.path


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x + 1, 4),
        (operator.neg, -3),
        (str, "3"),
        (functools.partial(operator.add, 10), 13),
        (Multiplier(5), 15),
        (Multiplier(5).later, (3, "later")),
        (lambda x, ctx: (x, ctx.path), (3, "lambda")),
        (lambda x, context: (x, context.path), (3, "lambda")),
        (lambda *args: args, (3,)),
        (lambda x, **options: (x, options), (3, {})),
        (lambda x, extra=2: x * extra, 6),
        (lambda x: fetch.execute(x, WorkflowContext()), "user 3"),
        (json.dumps, "3"),
    ],
)
async def test_what_is_callable_can_be_a_step(function, expected) -> None:
    """Lambdas, builtins, classes, partials, objects and bound methods all work."""
    assert await run(step(function), 3) == expected


async def test_the_context_is_known_by_its_annotation() -> None:
    """A second parameter annotated `WorkflowContext` may have any name."""

    async def named(value, run: WorkflowContext):
        return value, run.path

    def quoted(value, c: WorkflowContext):
        return value, c.path

    assert await run(step(named)) == ("x", "named")
    assert await run(step(quoted)) == ("x", "quoted")


async def test_extras_are_bound_by_calling() -> None:
    """By position or by name, all at once or one after the other."""
    assert await run(query_database("db")) == ("x", "db", 10)
    assert await run(query_database(session="db", limit=3)) == ("x", "db", 3)
    assert await run(query_database(limit=3)("db")) == ("x", "db", 3)
    assert await run(fetch >> query_database("db")) == ("user x", "db", 10)


async def test_extras_stand_after_the_context() -> None:
    """`f(input, context, session)` gets its context and what was bound."""

    @step
    def save(data, context, session, table="t"):
        return data, context.path, session, table

    assert await run(save("db", "users")) == ("x", "save", "db", "users")


def test_binding_copies_the_step() -> None:
    """The step itself stays unbound, for the next request's session."""
    first, second = query_database("a"), query_database("b")
    assert first._extras == {"session": "a"}
    assert second._extras == {"session": "b"}
    assert query_database._extras == {}
    assert first.name == "query_database"


async def test_running_with_an_unbound_extra_names_it() -> None:
    """The error says which parameter is missing, and what to write."""
    wanted = (
        r"step 'query_database' was executed before its parameter 'session' was bound; "
        r"write query_database\(session=\.\.\.\)"
    )
    with pytest.raises(UnboundStepError, match=wanted):
        await run(query_database)


def test_composing_with_an_unbound_extra_fails_at_once() -> None:
    """A step or a plain function that wants more than it can get is refused early."""

    def plain(data, session):
        return data, session

    with pytest.raises(UnboundStepError, match="made part of a workflow before its"):
        _ = fetch >> query_database
    with pytest.raises(UnboundStepError, match=r"step\(plain\)\(session=\.\.\.\)"):
        _ = fetch | plain


@pytest.mark.parametrize(
    ("bind", "message"),
    [
        (
            lambda: query_database("a", "b"),
            r"'query_database' cannot be bound: too many.*are: session, limit",
        ),
        (lambda: query_database(sesion="a"), "unexpected keyword argument 'sesion'"),
        (lambda: query_database("a", session="b"), "multiple values for .*'session'"),
        (lambda: fetch("a"), "'fetch' has no extras to bind; to run it, write await"),
    ],
)
def test_wrong_extras_are_named(bind, message) -> None:
    """Too many, unknown or doubled extras fail when they are bound."""
    with pytest.raises(TypeError, match=message):
        bind()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: step(lambda: 1),
            r"lambda\(\) cannot be a step: it has no first",
        ),
        (lambda: fetch >> (lambda *, x: x), r"lambda\(x\) cannot be a step"),
        (lambda: fetch >> WorkflowPrimitive, "WorkflowPrimitive is a class; use an in"),
        (lambda: step(3), r"function=3 must be a function"),
        (lambda: step(fetch), r"function=<StepPrimitive 'fetch'> must be a function"),
        (lambda: StepPrimitive(print, name="a/b"), r"name='a/b' must be a non-empty"),
        (lambda: step(name="")(print), r"name='' must be a non-empty text"),
        (
            lambda: step(blocking=True)(fetch._function),
            r"'fetch' is async; leave it out",
        ),
        (lambda: step(blocking=1)(print), "blocking=1 must be True or False"),
        (lambda: step(idempotent=None)(print), "idempotent=None must be True or Fal"),
        (
            lambda: step(timeout_seconds=0)(print),
            "timeout_seconds=0 must be a positive",
        ),
        (lambda: step(timeout_seconds="1")(print), "timeout_seconds='1' must be a pos"),
    ],
)
def test_wrong_steps_fail_when_they_are_made(make, message) -> None:
    """The message names the function or the parameter and says what is allowed."""
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_what_is_no_operand_is_pythons_own_error() -> None:
    """`primitive >> 3` fails like any unsupported operand."""
    for operate in (operator.rshift, operator.or_):
        with pytest.raises(TypeError, match="unsupported operand"):
            operate(fetch, 3)
        with pytest.raises(TypeError, match="unsupported operand"):
            operate(3, fetch)


def test_a_step_looks_like_its_function() -> None:
    """Name, docstring and signature are those of the function."""
    assert fetch.name == "fetch"
    assert fetch.__doc__ == "Fetch a user."
    assert fetch.__name__ == "fetch"
    assert str(inspect.signature(fetch._function)) == "(user: 'int') -> 'str'"
    assert step(functools.partial(fetch._function)).name == "fetch"
    assert step(Multiplier(2)).name == "Multiplier"


def test_options_are_shown() -> None:
    """`repr` and `describe` show what was set, and only that."""
    assert repr(fetch) == "<StepPrimitive 'fetch'>"
    assert repr(charge_card) == (
        "<StepPrimitive 'charge' idempotent=False timeout_seconds=2.0>"
    )
    assert charge_card.describe() == {
        "type": "StepPrimitive",
        "name": "charge",
        "options": {"idempotent": False, "timeout_seconds": 2.0},
        "children": [],
    }


async def test_a_blocking_step_runs_in_a_thread() -> None:
    """The loop is not held, and the context variables go along."""
    step_thread = step(lambda _: threading.get_ident(), name="t", blocking=True)
    assert await run(step_thread) != threading.get_ident()


def test_a_step_with_a_limit_times_out() -> None:
    """`timeout_seconds` raises our timeout, which names the step's path."""

    @step(timeout_seconds=2)
    async def slow(value):
        await asyncio.sleep(3)

    clock = VirtualClock()
    with pytest.raises(TimeoutExceededError, match="slow"):
        clock.run(run(fetch >> slow))
    assert clock.elapsed == 2.0


def test_a_stream_step_with_a_limit_times_out() -> None:
    """The limit counts for the whole stream, however it is read."""

    @step(timeout_seconds=2)
    async def slow(value):
        for number in range(3):
            yield number
            await asyncio.sleep(1.5)

    async def chunks():
        return [chunk async for chunk in slow.stream("x", WorkflowContext())]

    for coroutine in (chunks(), run(slow)):
        clock = VirtualClock()
        with pytest.raises(TimeoutExceededError, match="slow"):
            clock.run(coroutine)
        assert clock.elapsed == 2.0


async def test_steps_survive_pickling() -> None:
    """A decorated step is found by its name; others travel with their function."""
    assert pickle.loads(pickle.dumps(fetch)) is fetch
    renamed = pickle.loads(pickle.dumps(step(operator.neg, name="minus")))
    assert (renamed.name, await run(renamed, 3)) == ("minus", -3)
    partial = step(functools.partial(operator.add, 1), idempotent=False)
    again = pickle.loads(pickle.dumps(partial >> operator.neg))
    assert await run(again, 3) == -4
    assert again.steps[0].idempotent is False


async def test_copies_of_steps_are_alike() -> None:
    """A shallow copy is another step; a deep one shares what was bound to it."""
    session = object()
    bound = query_database(session)
    for twin in (copy.copy(bound), copy.deepcopy(bound), copy.deepcopy(fetch >> bound)):
        assert (await run(twin))[1] is session
    assert copy.copy(bound) is not bound


async def test_a_step_given_its_parents_context_finds_its_own_place() -> None:
    """A primitive of the user's may simply pass its own context on."""

    class Both(WorkflowPrimitive):
        def __init__(self) -> None:
            self.first, self.second = (step(path, name=n) for n in ("one", "two"))

        async def execute(self, value, context):
            return [
                await self.first.execute(value, context),
                await self.second.execute(value, context),
            ]

    def path(value, context):
        return context.path

    assert await run(Both()) == ["both/one", "both/two"]
    assert await run((lambda x: x) >> Both()) == [
        "sequential/both/one",
        "sequential/both/two",
    ]

    class Whole(WorkflowPrimitive):
        async def execute(self, value, context):
            return await (fetch >> step(path)).execute(value, context)

    assert await run(fetch >> Whole()) == "sequential/whole/sequential/path"
    assert await run(fetch >> Both()) == [
        "sequential/both/one",
        "sequential/both/two",
    ]


def test_a_limit_is_the_deadline_that_the_function_finds() -> None:
    """What it calls knows how much time is left; the caller's context stays."""

    @step(timeout_seconds=5)
    async def plain(value, context):
        return context.deadline

    @step(timeout_seconds=5)
    async def streamed(value, context):
        yield context.deadline

    async def main():
        found = []
        for one in (plain, streamed):
            for given in (None, 2, 9):
                context = WorkflowContext(deadline=given)
                found.append(await one.execute(0, context))
                assert context.deadline == given
        context = WorkflowContext()
        found += [[chunk async for chunk in streamed.stream(0, context)]]
        return found

    assert VirtualClock().run(main()) == [5, 2, 5, [5], [2], [5], [5]]


@pytest.mark.parametrize(("given", "limit"), [(None, 5), (2, 2), (9, 5)])
def test_a_streaming_step_heeds_its_limit_and_the_deadline(given, limit) -> None:
    """Whichever is earlier, in a stream as in an execution."""

    @step(timeout_seconds=5)
    async def slow(value):
        yield "a"
        await asyncio.sleep(60)
        yield "b"

    async def consume():
        return [c async for c in slow.stream(0, WorkflowContext(deadline=given))]

    clock = VirtualClock()
    with pytest.raises(TimeoutExceededError, match=rf"^slow took longer than {limit}"):
        clock.run(consume())
    assert clock.elapsed == limit


def test_a_streaming_step_with_a_limit_is_closed_when_its_consumer_leaves() -> None:
    """Its `finally` has run when `aclose` returns, limit or not."""
    log = []

    @step(timeout_seconds=5)
    async def source(value):
        try:
            yield "a"
            yield "b"
        finally:
            log.append("closed")

    async def main():
        chunks = source.stream(0, WorkflowContext())
        assert await anext(chunks) == "a"
        await chunks.aclose()
        return list(log)

    assert VirtualClock().run(main()) == ["closed"]
