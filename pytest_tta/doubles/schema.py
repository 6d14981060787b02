"""Data that is valid against a JSON schema, the same for the same seed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_tta.doubles.texts import FORMATS, matching, words
from pytest_tta.trace.snapshot import shorten

if TYPE_CHECKING:
    import random

__all__ = ["Schema", "generate", "instance"]

Schema: TypeAlias = "Mapping[str, Any] | type"

_Json: TypeAlias = Any
_DEEP = 3
_TRIES = 100
_USUAL_RANGE = 100
# What restricts in ways that this module does not follow: data made without looking at
# them might not be valid, so they are refused by name.
_UNSUPPORTED = frozenset(
    {
        "contains",
        "dependencies",
        "dependentRequired",
        "dependentSchemas",
        "if",
        "not",
    }
)
_TYPE_OF_KEYWORD = {
    "properties": "object",
    "required": "object",
    "additionalProperties": "object",
    "items": "array",
    "prefixItems": "array",
    "minItems": "array",
    "pattern": "string",
    "format": "string",
    "minLength": "string",
    "maxLength": "string",
    "minimum": "number",
    "maximum": "number",
    "exclusiveMinimum": "number",
    "exclusiveMaximum": "number",
    "multipleOf": "number",
}


def instance(schema: Schema, rng: random.Random) -> object:
    """Return data for a JSON schema, or an object for a pydantic model.

    Args:
        schema: A mapping, or a class with `model_json_schema` and
            `model_validate_json`, as pydantic's models are.
        rng: Where chance comes from.

    Raises:
        TypeError: It is neither.
        ValueError: The schema cannot be followed, or the model refuses what was made.
    """
    data = generate(schema, rng)
    if isinstance(schema, Mapping):
        return data
    model: Any = schema
    try:
        return model.model_validate_json(json.dumps(data))
    except ValueError as error:
        msg = (
            f"{model.__name__} refuses {shorten(data)}, made from its own schema; "
            f"write .returns({model.__name__}(...)): {error}"
        )
        raise ValueError(msg) from error


def generate(schema: Schema, rng: random.Random) -> _Json:
    """Return plain data that is valid against a schema.

    All properties are filled in, optional ones down to a depth of three; `const`,
    `enum` and `examples` are preferred to invention.

    Args:
        schema: A JSON schema, or a pydantic model.
        rng: Where chance comes from.

    Raises:
        TypeError: It is neither.
        ValueError: The schema allows nothing, or says what cannot be followed.
    """
    root = _root(schema)
    try:
        return _Generator(root, rng).value(root, 0)
    except RecursionError:
        msg = f"the schema requires itself without end: {schema!r}"
        raise ValueError(msg) from None


def _root(schema: Schema) -> Mapping[str, Any]:
    if isinstance(schema, Mapping):
        return schema
    if not hasattr(schema, "model_json_schema"):
        msg = f"{schema!r} is neither a JSON schema nor a pydantic model"
        raise TypeError(msg)
    return schema.model_json_schema()  # type: ignore[no-any-return]  # pydantic's


class _Generator:
    """Makes the data of one schema.

    Args:
        root: What `$ref` refers to.
        rng: Where chance comes from.
    """

    def __init__(self, root: Mapping[str, Any], rng: random.Random) -> None:
        self._root = root
        self._rng = rng

    def value(self, schema: Mapping[str, Any] | bool, depth: int) -> _Json:  # noqa: FBT001 - JSON schema's own
        schema = self._flat(schema)
        if "const" in schema:
            return schema["const"]
        for keyword in ("enum", "examples"):
            if schema.get(keyword):
                return self._rng.choice(list(schema[keyword]))
        if options := schema.get("anyOf") or schema.get("oneOf"):
            return self._option(schema, options, depth)
        return self._made(self._type(schema, depth), schema, depth)

    def _made(self, kind: str, schema: dict[str, Any], depth: int) -> _Json:
        match kind:
            case "object":
                made: _Json = self._object(schema, depth)
            case "array":
                made = self._array(schema, depth)
            case "string":
                made = self._string(schema)
            case "integer":
                made = round(self._multiple(schema, schema.get("multipleOf", 1)))
            case "number":
                made = self._number(schema)
            case "boolean":
                made = self._rng.choice((True, False))
            case _:
                made = None
        return made

    def _flat(self, schema: Mapping[str, Any] | bool) -> dict[str, Any]:  # noqa: FBT001 - as above
        """Return a schema with its `$ref` and `allOf` written out."""
        if schema is False:
            msg = "the schema false allows no value"
            raise ValueError(msg)
        flat = {} if schema is True else dict(schema)
        if refused := sorted(_UNSUPPORTED & flat.keys()):
            msg = f"schemas with {refused[0]!r} are not supported; use .returns(...)"
            raise ValueError(msg)
        parts = list(flat.pop("allOf", ()))
        if "$ref" in flat:
            parts.insert(0, self._referred(flat.pop("$ref")))
        for part in parts:
            flat = _both(flat, self._flat(part))
        return flat

    def _referred(self, reference: str) -> Mapping[str, Any]:
        found: Any = self._root
        for name in reference.removeprefix("#").strip("/").split("/"):
            key = name.replace("~1", "/").replace("~0", "~")
            found = found if key == "" else found.get(key)
            if found is None:
                msg = f"the schema refers to {reference!r}, which it does not have"
                raise ValueError(msg)
        return found  # type: ignore[no-any-return]  # a part of the schema

    def _option(self, schema: dict[str, Any], options: list[Any], depth: int) -> _Json:
        base = {k: v for k, v in schema.items() if k not in {"anyOf", "oneOf"}}
        flat = [self._flat(option) for option in options]
        nulls = [one for one in flat if one.get("type") == "null"]
        others = [one for one in flat if one.get("type") != "null"]
        kinds = {str(one.get("type")) for one in others}
        if kinds == {"number", "string"}:
            # A decimal, as pydantic writes it: not every text is one.
            others = [one for one in others if one["type"] == "number"]
        if depth >= _DEEP:
            # What cannot hold the schema itself comes first, or there might be no end.
            flat_ones = [one for one in others if not _holds_others(one)]
            others = [] if nulls else (flat_ones or others)
        return self._first_possible(base, others, nulls, depth)

    def _first_possible(
        self,
        base: dict[str, Any],
        others: list[dict[str, Any]],
        nulls: list[dict[str, Any]],
        depth: int,
    ) -> _Json:
        """Return what the first possible option gives, in an order of chance."""
        options = [*self._rng.sample(others, len(others)), *nulls]
        for option in options[:-1]:
            try:
                return self.value(_both(base, option), depth)
            except ValueError:
                continue
        return self.value(_both(base, options[-1]), depth)

    def _type(self, schema: dict[str, Any], depth: int) -> str:
        kind = schema.get("type")
        if isinstance(kind, list):
            others = [one for one in kind if one != "null"]
            kind = "null" if depth >= _DEEP and "null" in kind else (others or kind)[0]
        if kind is None:
            found = (_TYPE_OF_KEYWORD[k] for k in schema if k in _TYPE_OF_KEYWORD)
            kind = next(found, "string")
        if kind not in _TYPES:
            msg = f"type {kind!r} is none of JSON schema's types: {', '.join(_TYPES)}"
            raise ValueError(msg)
        return str(kind)

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, _Json]:
        known: dict[str, Any] = schema.get("properties", {})
        required = set(schema.get("required", ()))
        wanted = [name for name in known if depth < _DEEP or name in required]
        wanted += [name for name in schema.get("required", ()) if name not in known]
        spare = [name for name in wanted if name not in required]
        while spare and len(wanted) > schema.get("maxProperties", math.inf):
            wanted.remove(spare.pop())
        rest = schema.get("additionalProperties", True)
        made = {name: self.value(known.get(name, rest), depth + 1) for name in wanted}
        return self._filled(made, schema, depth)

    def _filled(
        self, made: dict[str, _Json], schema: dict[str, Any], depth: int
    ) -> dict[str, _Json]:
        """Add entries of a free mapping, as many as it must have, or one to show."""
        rest = schema.get("additionalProperties", True)
        shows_one = bool(rest) and rest is not True and depth < _DEEP and not made
        least = max(schema.get("minProperties", 0), int(shows_one))
        names = {"type": "string", **schema.get("propertyNames", {})}
        for patterned, rule in schema.get("patternProperties", {}).items():
            names, rest = {"type": "string", "pattern": patterned}, rule
        for _ in range(_TRIES):
            if len(made) >= least:
                return made
            made.setdefault(self.value(names, depth), self.value(rest, depth + 1))
        msg = f"no object with {least} properties was found for {schema!r}"
        raise ValueError(msg)

    def _array(self, schema: dict[str, Any], depth: int) -> list[_Json]:
        first = schema.get("prefixItems", [])
        made = [self.value(one, depth + 1) for one in first]
        items = schema.get("items", True)
        least = schema.get("minItems", 0)
        shown = 0 if depth >= _DEEP or items in (True, False) else 2
        most = schema.get("maxItems", math.inf)
        count = min(max(least, shown, len(first)), most)
        is_unique = schema.get("uniqueItems", False)
        for _ in range(_TRIES):
            if len(made) >= count:
                return made
            item = self.value(items, depth + 1)
            if not (is_unique and item in made):
                made.append(item)
        if len(made) >= least:
            return made
        msg = f"no {least} different items were found for {schema!r}"
        raise ValueError(msg)

    def _string(self, schema: dict[str, Any]) -> str:
        shortest, longest = schema.get("minLength", 0), schema.get("maxLength")
        if "pattern" in schema:
            return matching(schema["pattern"], self._rng, shortest, longest)
        make = FORMATS.get(schema.get("format", ""))
        text = make(self._rng) if make else words(self._rng, shortest, longest)
        if len(text) < shortest or (longest is not None and len(text) > longest):
            msg = (
                f"no {schema['format']!r} has between {shortest} and {longest} letters"
            )
            raise ValueError(msg)
        return text

    def _number(self, schema: dict[str, Any]) -> float:
        if "multipleOf" in schema:
            return self._multiple(schema, schema["multipleOf"])
        low, high = _bounds(schema, 0)
        if low > high:
            msg = f"no number lies between {low} and {high}: {schema!r}"
            raise ValueError(msg)
        value = self._rng.uniform(low, high)
        rounded = round(value, 2)
        is_inside = low <= rounded <= high and not _is_excluded(schema, rounded)
        return rounded if is_inside else (low + high) / 2

    def _multiple(self, schema: dict[str, Any], step: float) -> float:
        low, high = _bounds(schema, step)
        first, last = math.ceil(low / step), math.floor(high / step)
        if first > last:
            msg = f"no multiple of {step} lies between {low} and {high}: {schema!r}"
            raise ValueError(msg)
        # Rounded, because 3 * 0.1 is not the 0.3 that a validator looks for.
        return round(self._rng.randint(first, last) * step, 10)


_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")


def _both(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that says what two schemas say."""
    merged = {**first, **second}
    if "properties" in first and "properties" in second:
        merged["properties"] = {**first["properties"], **second["properties"]}
    if "required" in first and "required" in second:
        merged["required"] = [*first["required"], *second["required"]]
    for keyword, stricter in _STRICTER.items():
        if keyword in first and keyword in second:
            merged[keyword] = stricter(first[keyword], second[keyword])
    return merged


_STRICTER = {
    "minimum": max,
    "minLength": max,
    "minItems": max,
    "maximum": min,
    "maxLength": min,
    "maxItems": min,
}


def _holds_others(schema: dict[str, Any]) -> bool:
    keywords = {"properties", "items", "prefixItems", "anyOf", "oneOf"}
    return not keywords.isdisjoint(schema)


def _bounds(schema: dict[str, Any], step: float) -> tuple[float, float]:
    """Return the least and the greatest value, a usual range where one is missing."""
    low = schema.get("minimum", -math.inf)
    high = schema.get("maximum", math.inf)
    if "exclusiveMinimum" in schema:
        low = max(low, schema["exclusiveMinimum"] + _nudge(step))
    if "exclusiveMaximum" in schema:
        high = min(high, schema["exclusiveMaximum"] - _nudge(step))
    width = _USUAL_RANGE * max(step, 1)
    if low == -math.inf and high == math.inf:
        return 0, width
    if low == -math.inf:
        return high - width, high
    return (low, low + width) if high == math.inf else (low, high)


def _nudge(step: float) -> float:
    """Return what takes a whole number past an excluded bound; others are checked."""
    return step / 2 if step else 0


def _is_excluded(schema: dict[str, Any], value: float) -> bool:
    bounds = (schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum"))
    return value in bounds
