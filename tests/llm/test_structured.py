"""Structured answers: what is asked of the provider, and what is made of its answer."""

from __future__ import annotations

import sys
from typing import Literal

import pytest
from pydantic import BaseModel, ValidationError

from tests.llm.bodies import APIS, sent, served, streamed, texts, whole
from tta_primitives import WorkflowContext
from tta_primitives.llm import (
    BrokenToolCallError,
    InvalidStructuredOutputError,
    LLMRequest,
    Message,
    ResponseTruncatedError,
    Tool,
)
from tta_primitives.llm.json_check import problem
from tta_primitives.llm.structured import Structure
from tta_primitives.recovery.classify import is_retryable


class Line(BaseModel):
    """A line of an invoice."""

    item: str
    count: int = 1


class Invoice(BaseModel):
    """What the tests want to know."""

    total: float
    currency: Literal["EUR", "USD"]
    lines: list[Line] = []


GOOD = '{"total": 12.5, "currency": "EUR", "lines": [{"item": "tea", "count": 2}]}'
LINE = {
    "type": "object",
    "description": "A line of an invoice.",
    "title": "Line",
    "properties": {
        "item": {"title": "Item", "type": "string"},
        "count": {"title": "Count", "type": "integer"},
    },
    "required": ["item", "count"],
    "additionalProperties": False,
}
CITY = {
    "title": "City!",
    "type": "object",
    "properties": {"name": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["name"],
}


@pytest.mark.parametrize("api", APIS)
async def test_answer_becomes_an_object_of_the_model(api) -> None:
    """The text is parsed and validated into `data`."""
    async with served(api, whole(api, GOOD), schema=Invoice) as (llm, _):
        response = await llm.execute("?", WorkflowContext())
    line = Line(item="tea", count=2)
    assert response.data == Invoice(total=12.5, currency="EUR", lines=[line])
    assert response.content == GOOD


@pytest.mark.parametrize("api", APIS)
async def test_schema_is_sent_as_the_provider_wants_it(api) -> None:
    """Objects are closed and have all their fields, so that it can be strict."""
    async with served(api, whole(api, GOOD), schema=Invoice) as (llm, seen):
        await llm.execute("?", WorkflowContext())
    body = sent(seen)
    if api == "chat":
        form = body["response_format"]["json_schema"]
        assert body["response_format"]["type"] == "json_schema"
        assert (form["name"], form["strict"]) == ("Invoice", True)
    elif api == "responses":
        form = body["text"]["format"]
        assert (form["type"], form["name"]) == ("json_schema", "Invoice")
        assert form["strict"] is True
    else:
        form = body["output_config"]["format"]
        assert form["type"] == "json_schema"
    schema = form["schema"]
    assert schema["required"] == ["total", "currency", "lines"]
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Line"] == LINE


async def test_json_schema_is_sent_as_it_is() -> None:
    """It is strict only if it is closed and has all its fields."""
    answer = whole("chat", '{"name": "Paris"}')
    async with served("chat", answer, schema=CITY) as (llm, seen):
        response = await llm.execute("?", WorkflowContext())
    assert response.data == {"name": "Paris"}
    form = sent(seen)["response_format"]["json_schema"]
    assert form == {"name": "City", "schema": CITY}


async def test_schema_of_a_request_outweighs_the_primitives() -> None:
    """One primitive serves several forms."""
    request = LLMRequest((Message("user", "?"),), schema=CITY)
    answer = whole("chat", '{"name": "Paris"}')
    async with served("chat", answer, schema=Invoice) as (llm, _):
        response = await llm.execute(request, WorkflowContext())
    assert response.data == {"name": "Paris"}


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"total": 1}', "$.currency: Field required"),
        ('{"total": 1, "currency": "GBP"}', "$.currency: Input should be"),
        ("Certainly! Here it is:", "Invalid JSON"),
        (GOOD[:30], "Invalid JSON"),
    ],
    ids=["missing", "wrong", "prose", "cut"],
)
async def test_answer_of_another_form_is_an_error(api, text, shown) -> None:
    """Valid JSON of a wrong form, prose, and half an object."""
    async with served(api, whole(api, text), schema=Invoice) as (llm, _):
        with pytest.raises(
            InvalidStructuredOutputError, match="not of the form Invoice"
        ) as caught:
            await llm.execute("?", WorkflowContext())
    error = caught.value
    assert shown in str(error)
    assert isinstance(error.__cause__, ValidationError)
    assert error.response.content == text
    assert is_retryable(error)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Paris", "Expecting value"),
        ('{"people": 2}', r"\$\.name is missing"),
        ('{"name": 2}', r"\$\.name is 2, not of type string"),
    ],
)
async def test_json_schema_is_checked(text, shown) -> None:
    """Without a library for it, as far as types and fields."""
    async with served("chat", whole("chat", text), schema=CITY) as (llm, _):
        with pytest.raises(InvalidStructuredOutputError, match=shown):
            await llm.execute("?", WorkflowContext())


async def test_truncated_answer_is_truncated_first() -> None:
    """Half an object for lack of tokens is no matter of its form."""
    answer = whole("chat", GOOD[:30], "length")
    async with served("chat", answer, schema=Invoice) as (llm, _):
        with pytest.raises(ResponseTruncatedError, match="max_output_tokens"):
            await llm.execute("?", WorkflowContext())


async def test_tool_call_comes_before_the_data() -> None:
    """A model that calls a tool has not answered yet."""
    call = ("c", "look", "{}")
    answer = whole("chat", None, "tool_calls", tool_calls=[call])
    async with served("chat", answer, schema=Invoice, tools=[Tool("look")]) as (llm, _):
        response = await llm.execute("?", WorkflowContext())
    assert (response.data, response.tool_calls[0].name) == (None, "look")
    async with served("chat", answer, schema=Invoice) as (llm, _):
        with pytest.raises(BrokenToolCallError, match="it was given are: none"):
            await llm.execute("?", WorkflowContext())


@pytest.mark.parametrize("api", APIS)
async def test_stream_is_parsed_at_its_end(api) -> None:
    """The outcome has the data; an answer of another form is an error there."""
    context = WorkflowContext()
    answers = (streamed(api, GOOD[:30], GOOD[30:]), streamed(api, GOOD[:30]))
    async with served(api, *answers, schema=Invoice) as (llm, _):
        assert "".join(await texts(llm, context=context)) == GOOD
        assert context.outcomes["llm"].data.total == 12.5
        with pytest.raises(InvalidStructuredOutputError, match="form Invoice"):
            await texts(llm)


async def test_answer_of_another_form_is_returned_without_data() -> None:
    """With `on_incomplete="return"` the text is there, and no data."""
    options = {"schema": Invoice, "on_incomplete": "return"}
    async with served("chat", whole("chat", "Certainly!"), **options) as (llm, _):
        response = await llm.execute("?", WorkflowContext())
    assert (response.content, response.data) == ("Certainly!", None)


def test_open_objects_cannot_be_strict() -> None:
    """A field with any names in it would be refused by a strict provider."""

    class Words(BaseModel):
        counts: dict[str, int]

    structure = Structure(Words)
    assert not structure.is_strict
    assert structure.sent == structure.schema


def test_field_called_like_a_keyword_is_a_field() -> None:
    """`default`, `oneOf` and `properties` may be names of fields."""

    class Odd(BaseModel):
        default: int
        oneOf: str  # noqa: N815 - that is the point
        properties: bool

    sent_schema = Structure(Odd).sent
    assert list(sent_schema["properties"]) == ["default", "oneOf", "properties"]
    assert Structure(Odd).is_strict


@pytest.mark.parametrize("given", ["Invoice", 7, ["a"]])
def test_what_is_no_schema_is_refused(given) -> None:
    """Neither a mapping nor a type."""
    with pytest.raises(TypeError, match=r"schema=.* must be a pydantic model"):
        Structure.of(given)


def test_type_that_has_no_schema_is_refused() -> None:
    """Any type will not do."""

    class Thing:
        pass

    with pytest.raises(TypeError, match="no type that pydantic can make"):
        Structure.of(Thing)


def test_missing_pydantic_says_what_to_install(monkeypatch) -> None:
    """A type as a schema is the only thing that needs it."""
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(
        ImportError, match=r"pip install 'tta-dev-primitives\[pydantic\]'"
    ):
        Structure.of(Invoice)
    assert Structure.of(CITY).name == "City"


TREE = {
    "$ref": "#/$defs/Node",
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "below": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
            },
            "required": ["name"],
            "additionalProperties": False,
        }
    },
}


@pytest.mark.parametrize(
    ("value", "schema", "wrong"),
    [
        ({"name": "a", "below": [{"name": "b"}]}, TREE, None),
        ({"name": "a", "below": [{}]}, TREE, "$.below[0].name is missing"),
        ({"name": "a", "x": 1}, TREE, "$.x is not in the schema"),
        (1.0, {"type": "integer"}, None),
        (1.5, {"type": "integer"}, "$ is 1.5, not of type integer"),
        (True, {"type": "integer"}, "$ is True, not of type integer"),
        (None, {"type": ["string", "null"]}, None),
        (1, {"type": ["string", "null"]}, "$ is 1, not of type string or null"),
        ("c", {"enum": ["a", "b"]}, "$ is 'c', none of ['a', 'b']"),
        (True, {"const": 1}, "$ is True, not 1"),
        ("a", {"anyOf": [{"type": "null"}, {"type": "string"}]}, None),
        (1, {"oneOf": [{"type": "null"}]}, "$ is 1, which fits none of its oneOf"),
        ({}, {"allOf": [{"required": ["a"]}]}, "$.a is missing"),
        (
            {"a": "x"},
            {"additionalProperties": {"type": "integer"}},
            "$.a is 'x', not of type integer",
        ),
        ({"a": 1}, {"properties": {"a": False}}, "$.a must not be there"),
        (1, {"$ref": "#"}, None),
        ("long", {"maxLength": 2}, None),
        (1, {"type": "unheard-of"}, None),
    ],
)
def test_form_of_json_is_checked_as_far_as_told(value, schema, wrong) -> None:
    """What is not checked (lengths, patterns, ...) is taken for kept."""
    assert problem(value, schema) == wrong
