"""Choices: which way is taken, what happens without one, what is told."""

from __future__ import annotations

import enum
import pickle

import pytest

from tests.core.tools import Log, Paths, Tag
from tta_primitives import (
    ConditionalPrimitive,
    RouterPrimitive,
    WorkflowContext,
    step,
)
from tta_primitives.door import listening
from tta_primitives.errors import NoRouteError, OpenWrapperError


@step
async def fast(value):
    return f"fast {value}"


@step
async def good(value):
    return f"good {value}"


@step
async def tokens(value):
    yield "one"
    yield "two"


class Route(enum.Enum):
    CHEAP = 1
    DEAR = 2


async def run(workflow, value="x", **fields):
    return await workflow.execute(value, WorkflowContext(**fields))


async def is_long(value):
    return len(value) > 3


@pytest.mark.parametrize(
    "condition",
    [
        lambda value: len(value) > 3,
        is_long,
        lambda value, context: value == context.state["long"],
        step(is_long)._function,
    ],
)
async def test_a_condition_chooses_one_of_two_ways(condition) -> None:
    """It is sync or async, with or without the context."""
    choice = ConditionalPrimitive(condition, good, fast)
    assert await run(choice, "long", state={"long": "long"}) == "good long"
    assert await run(choice, "x", state={"long": "long"}) == "fast x"


async def test_without_an_else_the_input_goes_through() -> None:
    """What the condition refuses is left as it is, also as a stream."""
    choice = ConditionalPrimitive(bool, fast)
    assert await run(choice, "x") == "fast x"
    assert await run(choice, "") == ""
    stream = choice.stream("", WorkflowContext())
    assert [chunk async for chunk in stream] == [""]


async def test_a_router_takes_the_named_route() -> None:
    """A name is anything hashable; functions are routes too."""
    router = RouterPrimitive(
        {Route.CHEAP: fast, Route.DEAR: lambda value: value * 2},
        lambda value: Route.CHEAP if value == "x" else Route.DEAR,
    )
    assert await run(router, "x") == "fast x"
    assert await run(router, "y") == "yy"


@pytest.mark.parametrize("default", ["fast", fast, fast._function])
async def test_the_default_takes_what_is_no_route(default) -> None:
    """The default is a route's name, a primitive or a function."""
    router = RouterPrimitive({"fast": fast, "good": good}, lambda v: v, default)
    assert await run(router, "good") == "good good"
    assert await run(router, "other") == "fast other"
    assert await run(router, ["unhashable"]) == "fast ['unhashable']"


async def test_no_route_names_the_nearest() -> None:
    """The error shows what was asked for, what was meant and what there is."""
    router = RouterPrimitive({"fast": fast, "good": good, 3: good}, lambda value: value)
    with pytest.raises(
        NoRouteError, match="router has no route 'fsat'; did you mean 'fast'"
    ) as raised:
        await run(router, "fsat")
    assert isinstance(raised.value, LookupError)
    with pytest.raises(NoRouteError, match=r"route None; it has 'fast', 'good', 3$"):
        await run(router, None)
    with pytest.raises(
        NoRouteError, match=r"^sequential/router has no route \[1\]; it"
    ):
        await run((lambda _: [1]) >> router)


async def test_choices_stream() -> None:
    """The chosen way's chunks come through."""
    for choice in (
        ConditionalPrimitive(bool, tokens, fast),
        RouterPrimitive({True: tokens}, bool),
    ):
        stream = choice.stream("x", WorkflowContext())
        assert [chunk async for chunk in stream] == ["one", "two"]


async def test_choices_are_told() -> None:
    """An event says which way was taken; the ways have paths of their own."""
    log = Log()
    choice = ConditionalPrimitive(bool, Paths(), Paths())
    router = RouterPrimitive({"a": Paths(), "b": Paths()}, lambda _: "b")
    with listening(observers=(log,)):
        assert await run(choice, "") == "conditional/paths#2"
        assert await run(router) == "router/paths#2"
    assert await run(choice, "") == "conditional/paths#2"
    assert await run(router) == "router/paths#2"
    assert log.lines == [
        "> conditional",
        "! conditional branch.taken branch='else'",
        "> conditional/paths#2",
        "< conditional/paths#2 ok",
        "< conditional ok",
        "> router",
        "! router route.taken route='b'",
        "> router/paths#2",
        "< router/paths#2 ok",
        "< router ok",
    ]


async def test_questions_see_the_choices_own_place() -> None:
    """The context that a condition gets is that of the primitive that asks."""
    choice = ConditionalPrimitive(lambda _, ctx: ctx.state.update(at=ctx.path), good)
    state = {}
    await run(fast >> choice, state=state)
    assert state == {"at": "sequential/conditional"}


def test_choices_are_described() -> None:
    """The question, the names of the routes, and all ways in order."""
    choice = ConditionalPrimitive(is_long, good, fast)
    router = RouterPrimitive({"fast": fast, "good": good}, is_long, "good")
    assert repr(choice) == "<ConditionalPrimitive 'conditional' condition='is_long'>"
    assert router.describe() == {
        "type": "RouterPrimitive",
        "name": "router",
        "options": {"routes": ["fast", "good"], "default": "good"},
        "children": [fast.describe(), good.describe()],
    }
    assert not ConditionalPrimitive(bool, step(idempotent=False)(str)).idempotent


async def test_choices_can_be_pickled() -> None:
    """As long as their functions can."""
    choice = pickle.loads(pickle.dumps(ConditionalPrimitive(bool, good, fast)))
    assert await run(choice) == "good x"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConditionalPrimitive(True, fast), "condition=True must be a function"),
        (
            lambda: ConditionalPrimitive(fast, good),
            "condition=<StepPrim.* must be a fun",
        ),
        (lambda: ConditionalPrimitive(lambda: 1, good), "cannot be a step: it has no"),
        (lambda: ConditionalPrimitive(bool, 3), "3 cannot be a step of a workflow"),
        (
            lambda: ConditionalPrimitive(lambda a, b, c: 1, good),
            r"condition=lambda must be f\(input\) or f\(input, .*\), and wants b, c",
        ),
        (
            lambda: RouterPrimitive([fast], bool),
            r"routes=\[.*\] must be a mapping of na",
        ),
        (lambda: RouterPrimitive({}, bool), "must have at least one route"),
        (
            lambda: RouterPrimitive({"a": fast}, None),
            "router_fn=None must be a function",
        ),
        (
            lambda: RouterPrimitive({"fast": fast}, bool, "fats"),
            "default='fats' is no route; did you mean 'fast'",
        ),
    ],
)
def test_wrong_arguments_fail_at_construction(make, message) -> None:
    """The message names the parameter and says what is allowed."""
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_open_wrappers_are_no_ways() -> None:
    """They have to wrap something first."""
    for make in (
        lambda: ConditionalPrimitive(bool, Tag("T")),
        lambda: RouterPrimitive({"a": Tag("T")}, bool),
    ):
        with pytest.raises(OpenWrapperError, match="wraps nothing yet"):
            make()


@pytest.mark.parametrize(
    ("default", "told"), [("fast", "fast"), (fast, "default"), (None, "good")]
)
async def test_what_is_told_of_a_route_is_no_input(default, told) -> None:
    """A name that is no route may be a user's; the default's name is told instead."""
    log = Log()
    router = RouterPrimitive({"fast": fast, "good": good}, lambda v: v, default)
    wanted = "good" if default is None else "user-17"
    with listening(observers=(log,)):
        await router.execute(wanted, WorkflowContext())
    assert f"! router route.taken route={told!r}" in log.lines
