"""Open wrappers: what `Cache >> llm >> store` means, sentence by sentence."""

from __future__ import annotations

import pytest

from tests.core.tools import Tag
from tta_primitives import SequentialPrimitive, WorkflowContext, step
from tta_primitives.errors import OpenWrapperError


@step
async def llm(text):
    return f"llm {text}"


@step
async def store(text):
    return f"store {text}"


@step
async def check(text):
    return f"check {text}"


async def run(workflow, text="x"):
    return await workflow.execute(text, WorkflowContext())


@pytest.mark.parametrize(
    ("workflow", "expected"),
    [
        (Tag("C") >> llm >> store, "store C(llm x)"),
        (Tag("C") >> (llm >> store), "C(store llm x)"),
        (Tag("C") >> Tag("R") >> llm, "C(R(llm x))"),
        (Tag("C") >> Tag("R") >> llm >> store, "store C(R(llm x))"),
        (Tag("C") >> (Tag("R") >> llm), "C(R(llm x))"),
        (Tag("A") >> Tag("B") >> Tag("C") >> llm, "A(B(C(llm x)))"),
        (Tag("A") >> (Tag("B") >> Tag("C")) >> llm, "A(B(C(llm x)))"),
        (check >> Tag("C") >> llm >> store, "store C(llm check x)"),
        (check >> (Tag("C") >> Tag("R")) >> llm, "C(R(llm check x))"),
        (check >> Tag("C") >> Tag("R") >> llm, "C(R(llm check x))"),
        (Tag("C") >> Tag("R", llm) >> store, "store C(R(llm x))"),
    ],
)
async def test_an_open_wrapper_wraps_the_next_operand(workflow, expected) -> None:
    """It is read like a stacked decorator: the next operand, and nothing more."""
    assert await run(workflow) == expected


@pytest.mark.parametrize(
    ("workflow", "expected"),
    [
        (Tag("L1") >> llm >> Tag("L2"), "L1(L2(llm x))"),
        (llm >> Tag("R") >> Tag("C"), "C(R(llm x))"),
        (llm >> (Tag("C") >> Tag("R")), "C(R(llm x))"),
        (Tag("A") >> Tag("B") >> llm >> Tag("C"), "A(B(C(llm x)))"),
        (Tag("A", llm) >> Tag("B"), "B(A(llm x))"),
        (check >> Tag("A") >> llm >> Tag("B"), "A(B(llm check x))"),
        (check >> llm >> Tag("B"), "B(llm check x)"),
        (Tag("A") >> (check >> llm) >> Tag("B"), "A(B(llm check x))"),
    ],
)
async def test_a_wrapper_that_nothing_follows_wraps_the_link_before(
    workflow, expected
) -> None:
    """At a chain's end it goes inside the wrappers that the chain bound to the link."""
    assert await run(workflow) == expected


async def test_extending_a_chain_never_changes_what_is_bound() -> None:
    """The open end of a chain wraps what follows, and the shorter chain stays."""
    short = Tag("L1") >> llm >> Tag("L2")
    longer = short >> store
    assert await run(short) == "L1(L2(llm x))"
    assert await run(longer) == "L2(store L1(llm x))"
    assert await run(short) == "L1(L2(llm x))"


async def test_naming_seals_an_open_end() -> None:
    """After `.named` an end is bound, and what follows is not wrapped by it."""
    chain = Tag("L1") >> llm >> Tag("L2")
    sealed = chain.named("answer")
    assert sealed.steps[0] is chain.steps[0]
    assert sealed.name == "answer"
    assert await run(sealed >> store) == "store L1(L2(llm x))"


async def test_a_chain_as_an_operand_is_bound() -> None:
    """A chain with an open end means the same on the right of `>>` and beside `|`."""
    end = llm >> Tag("C")
    assert await run(check >> end) == "C(llm check x)"
    assert await run(end | check) == ("C(llm x)", "check x")


async def test_plain_functions_bind_open_wrappers() -> None:
    """A function follows an open wrapper, or stands before it, like a step."""
    assert await run(Tag("C") >> str.upper) == "C(X)"
    assert await run(str.upper >> Tag("C") >> llm) == "C(llm X)"
    assert await run(str.upper >> Tag("C")) == "C(X)"


def test_binding_copies_the_wrapper() -> None:
    """State belongs to the bound copy: one open wrapper serves many chains."""
    cache = Tag("C")
    first, second = (cache >> llm), (cache >> store)
    assert cache.is_open
    assert first.steps[0].primitive is llm
    assert second.steps[0].primitive is store


def test_a_stack_names_its_outermost() -> None:
    """A name given to stacked wrappers is the name of what they become."""
    bound = (Tag("A") >> Tag("B")).named("guard") >> llm
    assert [one.name for one in bound.steps] == ["guard"]
    assert (Tag("A") >> Tag("B")).named("guard").bind(llm).name == "guard"


def test_constructors_bind_like_the_operator() -> None:
    """`SequentialPrimitive` reads its arguments as `>>` reads its operands."""
    built = SequentialPrimitive(Tag("C"), llm, store)
    assert built.describe() == (Tag("C") >> llm >> store).describe()
    assert SequentialPrimitive([Tag("C"), llm]).describe() == (
        (Tag("C") >> llm).describe()
    )


@pytest.mark.parametrize(
    "compose",
    [
        lambda: Tag("C") | llm,
        lambda: llm | Tag("C"),
        lambda: (Tag("C") >> Tag("R")) | llm,
        lambda: str.upper | Tag("C"),
        lambda: SequentialPrimitive(Tag("C")),
        lambda: SequentialPrimitive(Tag("C"), Tag("R")),
        lambda: Tag("C", Tag("R")),
        lambda: Tag("C", Tag("R") >> Tag("S")),
    ],
)
def test_what_wraps_nothing_is_no_operand(compose) -> None:
    """`|`, a constructor and a wrapper refuse what still waits for its primitive."""
    with pytest.raises(OpenWrapperError, match=r"wraps nothing yet: give it a primi"):
        compose()


@pytest.mark.parametrize("workflow", [Tag("C"), Tag("C") >> Tag("R")])
async def test_an_open_wrapper_cannot_be_executed(workflow) -> None:
    """Running it says what is missing and how to write it."""
    with pytest.raises(OpenWrapperError, match=r"Tag\(\.\.\.\) >> primitive"):
        await run(workflow)


def test_a_bound_wrapper_cannot_be_bound_again() -> None:
    """`bind` is for open ones."""
    with pytest.raises(TypeError, match=r"<Tag 'llm' tag='C'> already wraps 'llm'"):
        Tag("C", llm).bind(store)


def test_repr_and_describe_show_the_bound_structure() -> None:
    """What a chain means can be read from it."""
    chain = Tag("L1") >> llm >> Tag("L2") >> store
    assert repr(Tag("C")) == "<Tag open tag='C'>"
    assert (
        repr(Tag("A") >> Tag("B")) == "<open <Tag open tag='A'> >> <Tag open tag='B'>>"
    )
    assert repr(chain) == (
        "<SequentialPrimitive 'sequential' <Tag 'llm' tag='L1'> >> <Tag 'store' "
        "tag='L2'>>"
    )
    assert [child["name"] for child in chain.describe()["children"]] == ["tag", "tag"]
    assert (Tag("A") >> Tag("B")).describe() == {
        "type": "Tag",
        "name": "tag",
        "options": {"tag": "A"},
        "children": [
            {"type": "Tag", "name": "tag", "options": {"tag": "B"}, "children": []}
        ],
    }
