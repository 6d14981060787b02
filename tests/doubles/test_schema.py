"""Data made from JSON schemas and pydantic models."""

from __future__ import annotations

import random
import re
from datetime import date, datetime, timedelta
from decimal import Decimal  # noqa: TC003 - read by pydantic
from enum import Enum
from typing import Annotated, Literal
from uuid import UUID

import jsonschema
import pytest
from pydantic import BaseModel, Field, field_validator

from pytest_tta.doubles.schema import generate, instance
from pytest_tta.doubles.texts import FORMATS, matching


def samples(schema, count=25):
    """Return data of a schema for several seeds."""
    return [generate(schema, random.Random(seed)) for seed in range(count)]


NODE = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "left": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
        "others": {"type": "array", "items": {"$ref": "#/$defs/node"}},
    },
    "required": ["name", "left"],
}

SCHEMAS = {
    "text": {"type": "string"},
    "short text": {"type": "string", "maxLength": 3},
    "one letter": {"type": "string", "minLength": 1, "maxLength": 1},
    "long text": {"type": "string", "minLength": 120, "maxLength": 121},
    "no text": {"type": "string", "maxLength": 0},
    "pattern": {"type": "string", "pattern": r"^[A-Z]{2}-\d{3,5}(x|y)?$"},
    "pattern in bounds": {"type": "string", "pattern": "^a+$", "minLength": 3},
    "integer": {"type": "integer"},
    "integer in bounds": {"type": "integer", "minimum": -2, "maximum": 2},
    "integer above": {"type": "integer", "exclusiveMinimum": 1000},
    "integer below": {"type": "integer", "exclusiveMaximum": -5},
    "multiple": {"type": "integer", "multipleOf": 7, "minimum": 50},
    "number": {"type": "number"},
    "number in bounds": {"type": "number", "minimum": 0.001, "maximum": 0.002},
    "number between": {
        "type": "number",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 0.01,
    },
    "steps": {"type": "number", "multipleOf": 0.25, "minimum": 1},
    "boolean": {"type": "boolean"},
    "null": {"type": "null"},
    "anything": {},
    "const": {"const": {"a": [1]}},
    "enum": {"enum": ["a", 1, None]},
    "examples": {"type": "string", "examples": ["first", "second"]},
    "types": {"type": ["string", "null"]},
    "list": {"type": "array", "items": {"type": "integer"}},
    "list in bounds": {"type": "array", "items": {}, "minItems": 3, "maxItems": 4},
    "unique": {
        "type": "array",
        "items": {"enum": [1, 2, 3]},
        "minItems": 3,
        "uniqueItems": True,
    },
    "pair": {
        "type": "array",
        "prefixItems": [{"type": "string"}, {"type": "integer"}],
        "items": False,
        "minItems": 2,
    },
    "object": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    },
    "inferred": {"properties": {"a": {"minimum": 3}}, "required": ["a", "c"]},
    "mapping": {
        "type": "object",
        "additionalProperties": {"type": "integer"},
        "minProperties": 2,
    },
    "named": {
        "type": "object",
        "propertyNames": {"pattern": "^k[0-9]$"},
        "additionalProperties": {"type": "boolean"},
        "minProperties": 2,
    },
    "few": {
        "type": "object",
        "properties": {"a": {}, "b": {}, "c": {}},
        "required": ["c"],
        "maxProperties": 2,
    },
    "one of": {"oneOf": [{"type": "integer"}, {"type": "string"}]},
    "any of with base": {
        "type": "object",
        "properties": {"kind": {"const": "x"}},
        "required": ["kind"],
        "anyOf": [{"required": ["kind", "a"]}, {"required": ["kind", "b"]}],
    },
    "all of": {
        "allOf": [
            {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"b": {"minLength": 3}}, "required": ["b"]},
        ]
    },
    "stricter of both": {
        "type": "integer",
        "minimum": 0,
        "maximum": 100,
        "allOf": [{"minimum": 40}, {"maximum": 42}],
    },
    "weaker part": {"type": "integer", "minimum": 90, "allOf": [{"minimum": 0}]},
    "recursive": {"$defs": {"node": NODE}, "$ref": "#/$defs/node"},
    "escaped name": {"$defs": {"a/b": {"const": 1}}, "$ref": "#/$defs/a~1b"},
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_data_are_valid(name):
    """An independent validator finds nothing wrong, whatever the seed."""
    schema = SCHEMAS[name]
    validator = jsonschema.Draft202012Validator(schema)
    for data in samples(schema):
        validator.validate(data)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_formats_are_valid(name):
    """Every known format passes a validator's check, where it has one."""
    schema = {"type": "string", "format": name}
    kind = jsonschema.Draft202012Validator
    validator = kind(schema, format_checker=kind.FORMAT_CHECKER)
    for data in samples(schema):
        validator.validate(data)


@pytest.mark.parametrize(
    ("name", "parse"),
    [
        ("date", date.fromisoformat),
        ("date-time", datetime.fromisoformat),
        ("uuid", UUID),
        ("email", re.compile(r"[a-z]+@example\.com").fullmatch),
        ("uri", re.compile(r"https://[a-z]+\.example\.com/[a-z]+").fullmatch),
    ],
)
def test_formats_are_what_they_say(name, parse):
    """The standard library reads what was made."""
    assert all(parse(FORMATS[name](random.Random(seed))) for seed in range(20))


EXPECTED = {
    "id": "cd613e30-d8f1-4adf-91b7-584a2265b1f5",
    "total": 76.38,
    "note": "grove linden",
}


def test_equal_seeds_give_equal_data():
    """The same seed repeats the data exactly, on every interpreter."""
    schema = {
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "total": {"type": "number"},
            "note": {"type": "string"},
        }
    }
    first, second = (generate(schema, random.Random(1)) for _ in range(2))
    assert first == second
    assert first == EXPECTED


def test_seeds_give_different_data():
    """Another seed is another answer."""
    assert len({str(one) for one in samples({"type": "string"})}) > 10


def test_a_schema_that_holds_itself_ends():
    """Optional parts of a recursive schema are left out some levels down."""
    for data in samples(SCHEMAS["recursive"]):
        depth, node = 0, data
        while node is not None:
            node, depth = node["left"], depth + 1
        assert depth <= 5


@pytest.mark.parametrize(
    "pattern",
    [
        "abc",
        r"^\d{4}-\d{2}$",
        r"^[^a-c]{3}$",
        r"^(foo|bar)+baz?$",
        r"^\w+\s\W\S\D$",
        r"^.{2,4}$",
        r"^(a|b)\1$",
        r"^[\d\-_]{5}$",
        r"^(?:x|y){2}$",
        r"^(?P<year>\d{4})$",
        r"^a*?b++c$",
        r"^é+$",
        "[^x]",
    ],
)
def test_texts_match_their_pattern(pattern):
    """What is written for an expression is found by it."""
    for seed in range(20):
        assert re.search(pattern, matching(pattern, random.Random(seed)))


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Line(BaseModel):
    product: str = Field(min_length=2, max_length=30)
    amount: int = Field(gt=0, lt=10)
    price: Decimal = Field(ge=0, decimal_places=2, max_digits=6)


class Order(BaseModel):
    number: str = Field(pattern=r"^ORD-[0-9]{6}$")
    placed_at: datetime
    due: date | None
    wait: timedelta
    lines: list[Line] = Field(min_length=1, max_length=3)
    colour: Colour
    kind: Literal["new", "used"]
    ratio: Annotated[float, Field(gt=0, lt=1)]
    tags: set[str] = Field(default_factory=set)
    prices: dict[str, float]
    place: tuple[float, float]
    parent: Order | None = None


def test_a_pydantic_model_is_filled_and_validated():
    """Everything that models usually hold comes out as a valid object."""
    for seed in range(25):
        order = instance(Order, random.Random(seed))
        assert isinstance(order, Order)
        assert order == Order.model_validate(order.model_dump())


class Even(BaseModel):
    number: int

    @field_validator("number")
    @classmethod
    def is_even(cls, value):
        if value != 1001:
            raise ValueError("not 1001")
        return value


def test_a_model_that_refuses_its_own_schema_is_named():
    """A rule that is not in the schema cannot be guessed: the message says so."""
    with pytest.raises(
        ValueError, match=r"Even refuses .*; write \.returns\(Even\(\.\.\.\)\)"
    ):
        instance(Even, random.Random(0))


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"not": {"type": "null"}}, r"schemas with 'not' are not supported"),
        ({"properties": {"a": {"if": {}}}}, r"schemas with 'if' are not supported"),
        ({"type": "text"}, r"type 'text' is none of JSON schema's types"),
        ({"$ref": "#/$defs/a"}, r"refers to '#/\$defs/a', which it does not have"),
        ({"items": False, "minItems": 1}, r"the schema false allows no value"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, r"no multiple of 1 lies"),
        ({"type": "number", "minimum": 5, "maximum": 4}, r"no number lies between"),
        ({"pattern": "^(?=a)b"}, r"a pattern with 'assert' is not supported"),
        ({"pattern": "("}, r"pattern '\(' is no regular expression"),
        ({"pattern": "^a{5}$", "maxLength": 4}, r"no text of the allowed length"),
        ({"format": "uuid", "maxLength": 4}, r"no 'uuid' has between 0 and 4 l"),
        ({"items": {"const": 1}, "minItems": 2, "uniqueItems": True}, r"no 2 dif"),
        (
            {"$defs": {"a": {"required": ["a"], "properties": {"a": {"$ref": "#"}}}},
             "$ref": "#/$defs/a"},
            r"the schema requires itself without end",
        ),
    ],
)  # fmt: skip
def test_schemas_that_cannot_be_followed_say_why(schema, message):
    """The keyword, the reference or the bounds are named."""
    with pytest.raises(ValueError, match=message):
        generate(schema, random.Random(0))


@pytest.mark.parametrize("schema", [int, 3, None])
def test_what_is_no_schema_is_refused(schema):
    """Only mappings and pydantic models describe data."""
    with pytest.raises(
        TypeError, match="is neither a JSON schema nor a pydantic model"
    ):
        generate(schema, random.Random(0))
