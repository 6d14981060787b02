"""Whether a JSON value has the form that a JSON schema asks for, as far as is checked.

Checked are `type`, `enum`, `const`, `properties`, `required`, `additionalProperties`,
`items`, `anyOf`, `oneOf` (as `anyOf`), `allOf` and references inside of the schema.
Everything else (lengths, ranges, patterns, formats, ...) is taken for kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tta_primitives.llm.reading import mapping_of, mappings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["problem", "resolved"]

_TYPES: dict[str, tuple[type, ...]] = {
    "array": (list,),
    "boolean": (bool,),
    "integer": (int, float),
    "null": (type(None),),
    "number": (int, float),
    "object": (dict,),
    "string": (str,),
}
# A schema that refers to itself with nothing in between would never end.
_MOST_REFERENCES = 32


def problem(value: object, schema: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a value, None if nothing is.

    Args:
        value: What JSON was parsed into.
        schema: The JSON schema.
    """
    return next(_problems(value, schema, schema, "$"), None)


def resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a reference such as `#/$defs/Item` leads to; else the schema itself.

    Args:
        schema: Which may be a reference.
        root: The whole schema, in which it is looked up.
    """
    for _ in range(_MOST_REFERENCES):
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#"):
            return schema
        found: Mapping[str, Any] = root
        for part in reference.split("/")[1:]:
            found = mapping_of(found.get(part.replace("~1", "/").replace("~0", "~")))
        schema = found
    return {}


def _problems(
    value: object, schema: object, root: Mapping[str, Any], where: str
) -> Iterator[str]:
    if schema is False:
        yield f"{where} must not be there"
    if not isinstance(schema, Mapping):
        return
    schema = resolved(schema, root)
    yield from _of_value(value, schema, where)
    yield from _of_choices(value, schema, root, where)
    if isinstance(value, dict):
        yield from _of_object(value, schema, root, where)
    elif isinstance(value, list):
        items = schema.get("items")
        for index, part in enumerate(value):
            yield from _problems(part, items, root, f"{where}[{index}]")


def _of_value(value: object, schema: Mapping[str, Any], where: str) -> Iterator[str]:
    kinds = schema.get("type")
    if isinstance(kinds, str):
        kinds = [kinds]
    if isinstance(kinds, list) and not any(_is_a(value, kind) for kind in kinds):
        yield f"{where} is {_shown(value)}, not of type {' or '.join(map(str, kinds))}"
    choices = schema.get("enum")
    if isinstance(choices, list) and not any(_same(value, one) for one in choices):
        yield f"{where} is {_shown(value)}, none of {choices!r}"
    if "const" in schema and not _same(value, schema["const"]):
        yield f"{where} is {_shown(value)}, not {schema['const']!r}"


def _of_choices(
    value: object, schema: Mapping[str, Any], root: Mapping[str, Any], where: str
) -> Iterator[str]:
    for part in mappings_of(schema.get("allOf")):
        yield from _problems(value, part, root, where)
    for word in ("anyOf", "oneOf"):
        choices = mappings_of(schema.get(word))
        fits = (next(_problems(value, c, root, where), None) is None for c in choices)
        if choices and not any(fits):
            yield f"{where} is {_shown(value)}, which fits none of its {word}"


def _of_object(
    value: dict[str, Any],
    schema: Mapping[str, Any],
    root: Mapping[str, Any],
    where: str,
) -> Iterator[str]:
    known = mapping_of(schema.get("properties"))
    required = schema.get("required")
    for name in required if isinstance(required, list) else []:
        if name not in value:
            yield f"{where}.{name} is missing"
    others = schema.get("additionalProperties", True)
    for name, part in value.items():
        if name in known:
            yield from _problems(part, known[name], root, f"{where}.{name}")
        elif others is False:
            yield f"{where}.{name} is not in the schema"
        else:
            yield from _problems(part, others, root, f"{where}.{name}")


def _is_a(value: object, kind: object) -> bool:
    types = _TYPES.get(str(kind))
    if types is None:
        return True
    if isinstance(value, bool):
        return bool in types
    is_whole = not isinstance(value, float) or value.is_integer()
    return isinstance(value, types) and (kind != "integer" or is_whole)


def _same(value: object, other: object) -> bool:
    # To JSON, unlike to Python, true is not 1.
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 - a short line
