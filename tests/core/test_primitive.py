"""Primitives and chains: how they compose, are called and are copied."""

from __future__ import annotations

import copy
import pickle

import pytest

from tests.core.tools import Paths, Tag
from tta_primitives import (
    ParallelPrimitive,
    SequentialPrimitive,
    WorkflowContext,
    WorkflowPrimitive,
    step,
)
from tta_primitives.primitive import as_operand, as_primitive, labels, positions
from tta_primitives.recovery import RetryPrimitive
from tta_primitives.signature import check_method


@step
async def double(number):
    return number * 2


@step
async def show(number, context):
    return f"{context.path}: {number}"


class HTTPCallPrimitive(WorkflowPrimitive):
    async def execute(self, value, context):
        return value


class Llm(WorkflowPrimitive):
    name = "gpt"

    async def execute(self, value, context):
        return context.path


class Named(WorkflowPrimitive):
    def __init__(self, name) -> None:
        self.name = name

    async def execute(self, value, context):
        return context.path


async def run(workflow, value=1):
    return await workflow.execute(value, WorkflowContext())


async def test_each_step_gets_what_the_one_before_returned() -> None:
    """`a >> b` runs a, then b; functions stand on either side."""
    assert await run(double >> double >> double) == 8
    assert await run((lambda x: x + 1) >> double >> str) == "4"


async def test_sequences_flatten() -> None:
    """`(a >> b) >> c`, `a >> (b >> c)` and `a >> b >> c` are one sequence."""
    plain = double >> str >> len
    assert ((double >> str) >> len).describe() == plain.describe()
    assert (double >> (double >> len)).describe() == (
        double >> double >> len
    ).describe()
    assert [one.name for one in plain.steps] == ["double", "str", "len"]
    assert (double >> (double >> show).named("inner")).steps[1].name == "inner"


async def test_then_is_the_operator() -> None:
    """`.then(f)` is `>>`, and chains."""
    chain = double.then(lambda x: x + 1).then(str)
    assert await run(chain) == "3"
    assert repr(chain) == repr(double >> (lambda x: x + 1) >> str)


async def test_extending_never_changes_a_chain() -> None:
    """Composition makes new chains and leaves the old ones."""
    two = double >> double
    three = two >> double
    assert (await run(two), await run(three)) == (4, 8)
    assert len(two.steps) == 2


async def test_a_chain_of_one_stands_for_its_link() -> None:
    """It adds no name, no path and no description of its own."""
    one = SequentialPrimitive(show)
    assert one.name == "show"
    assert await run(one) == "show: 1"
    assert one.describe() == show.describe()
    assert one.children() == ()
    assert one.steps == (show,)
    assert await run(one.named("alone")) == "alone/show: 1"
    assert (one >> double).name == "sequential"
    assert [one.name for one in (double >> one).steps] == ["double", "show"]


async def test_a_subclass_of_a_chain_is_one_link() -> None:
    """What a user's class adds is not taken apart by `>>`."""

    class Counted(SequentialPrimitive):
        async def execute(self, value, context):
            return [await super().execute(value, context)]

    counted = Counted(double, double)
    assert await run(counted >> len) == 1
    assert await run(double >> counted) == [8]
    assert [one.name for one in (double >> counted).steps] == ["double", "counted"]


def test_default_names() -> None:
    """A class is named in snake case without the word Primitive."""
    assert HTTPCallPrimitive().name == "httpcall"
    assert (double >> show).name == "sequential"
    assert (double | show).name == "parallel"
    assert WorkflowPrimitive().name == "workflow"
    assert type("Primitive", (Llm,), {})().name == "workflow"
    assert type("_RetryHTTP2", (Llm,), {})().name == "retry_http2"


async def test_names_can_be_given_in_many_ways() -> None:
    """In the body of a class, in its constructor, by assignment, and for a copy."""
    assert await run(Llm()) == "gpt"
    assert await run(Named("mini")) == "mini"
    llm = Llm()
    llm.name = "other"
    assert await run(llm) == "other"
    assert await run(llm.named("third")) == "third"
    assert await run(llm) == "other"
    assert type("Sub", (Llm,), {})().name == "sub"


@pytest.mark.parametrize("name", ["", "a/b", "a@1", "a#2", None, 3])
def test_a_name_must_fit_into_a_path(name) -> None:
    """Paths are made of names, so that some characters are taken."""
    with pytest.raises(
        ValueError, match="must be a non-empty text without '/', '@' an"
    ):
        double.named(name)
    with pytest.raises(ValueError, match="must be a non-empty text without"):
        Named(name)


def test_a_bad_name_in_a_class_fails_when_it_is_made() -> None:
    """Not only when the first call is told."""
    with pytest.raises(ValueError, match="name='a/b' must be"):
        type("Bad", (WorkflowPrimitive,), {"name": "a/b"})


def test_siblings_of_one_name_are_numbered() -> None:
    """The first has the name itself."""
    assert labels((double, show, double, double)) == (
        "double",
        "show",
        "double#2",
        "double#3",
    )


def test_positions_lists_the_paths_of_a_tree() -> None:
    """Each place with the primitive that stands there, parents first."""
    tree = (double >> (show | show) >> Tag("T", double)).named("root")
    assert [path for path, _ in positions(tree)] == [
        "root",
        "root/double",
        "root/parallel",
        "root/parallel/show",
        "root/parallel/show#2",
        "root/tag",
        "root/tag/double",
    ]
    assert dict(positions(tree))["root/tag/double"] is double
    assert [path for path, _ in positions(double, "a/b")] == ["a/b"]


async def test_paths_of_positions_are_those_of_execution() -> None:
    """What a leaf sees when it runs is what the tree says beforehand."""
    tree = (Paths() | Paths() | (Paths().named("p") | Paths())).named("root")
    ran = await run(tree)
    leaves = [path for path, one in positions(tree) if isinstance(one, Paths)]
    assert [ran[0], ran[1], *ran[2]] == leaves


def test_children_are_found_in_attributes() -> None:
    """Single ones, and those in lists, tuples and dictionaries."""

    class Own(WorkflowPrimitive):
        def __init__(self) -> None:
            self.one = double
            self.many = [show, "no"]
            self.by_name = {"tag": Tag("T", double)}
            self.number = 3

    assert [child.name for child in Own().children()] == ["double", "show", "tag"]
    assert double.children() == ()


def test_idempotence_is_that_of_all_parts() -> None:
    """One step that must not be repeated makes the whole such."""
    once = step(idempotent=False)(lambda x: x)
    assert double.idempotent
    for whole in (double >> once, double | once, Tag("T", once), Tag("T") >> once):
        assert whole.idempotent is False
    assert (double >> show).idempotent


@pytest.mark.parametrize("value", [3, None, "text"])
def test_what_is_no_step_is_refused(value) -> None:
    """Constructors say what they take."""
    for refuse in (as_primitive, as_operand, SequentialPrimitive, ParallelPrimitive):
        with pytest.raises(
            TypeError, match=f"{value!r} cannot be a step of a workflow"
        ):
            refuse(value)


def test_a_sequence_needs_a_step() -> None:
    """An empty one is a mistake."""
    for empty in ((), ([],)):
        with pytest.raises(
            TypeError, match="SequentialPrimitive needs at least one st"
        ):
            SequentialPrimitive(*empty)


TREE = (double >> (show | double) >> Tag("T", Llm())).named("root")


@pytest.mark.parametrize(
    "twin",
    [copy.copy, copy.deepcopy, lambda tree: pickle.loads(pickle.dumps(tree))],
    ids=["copy", "deepcopy", "pickle"],
)
async def test_workflows_can_be_copied_and_pickled(twin) -> None:
    """A twin is described and behaves alike."""
    other = twin(TREE)
    assert other.describe() == TREE.describe()
    assert await run(other) == await run(TREE) == "T(root/tag/gpt)"
    assert (await run(twin(SequentialPrimitive(show)))) == "show: 1"
    assert twin(Tag("A") >> Tag("B")).is_open


async def test_one_step_serves_in_many_places() -> None:
    """A position belongs to a place, not to the object that stands there."""
    assert await run(show >> show) == "sequential/show#2: sequential/show: 1"


async def test_a_wrong_call_is_pythons_own_error() -> None:
    """A forgotten context is a TypeError that names it."""
    with pytest.raises(
        TypeError, match=r"missing 1 required positional arg.*'context'"
    ):
        await HTTPCallPrimitive().execute(1)


def every_class_of_ours(base=WorkflowPrimitive):
    """Yield the classes of this package that can be executed, private ones as well."""
    for cls in base.__subclasses__():
        if cls.__module__.startswith("tta_primitives."):
            yield cls
        yield from every_class_of_ours(cls)


def test_our_own_methods_are_what_those_of_users_must_be() -> None:
    """They are not checked when they are imported, which takes a while."""
    checked = 0
    assert RetryPrimitive in every_class_of_ours()
    for cls in every_class_of_ours():
        for name in {"execute", "stream"} & vars(cls).keys():
            method = vars(cls)[name]
            check_method(cls, name, getattr(method, "__wrapped__", method))
            checked += 1
    assert checked > 20
