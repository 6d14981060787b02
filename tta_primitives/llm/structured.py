"""Structured answers: what a schema asks of a model, and the data in its answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tta_primitives.extras import needs
from tta_primitives.keys import digest
from tta_primitives.llm.json_check import problem

__all__ = ["Structure"]

_LONGEST_NAME = 64


class Structure:
    """The form of a structured answer.

    Attributes:
        name: A name that providers accept.
        schema: The JSON schema.
        sent: The schema as it is sent: objects made by a type are closed and have all
            their fields, as strict providers want it.
        is_strict: Whether a provider can hold the model strictly to it.
    """

    __slots__ = ("_adapter", "is_strict", "name", "schema", "sent")

    def __init__(self, given: Mapping[str, Any] | type) -> None:
        self._adapter: Any = None
        if isinstance(given, Mapping):
            self.schema: dict[str, Any] = dict(given)
            self.sent: dict[str, Any] = self.schema
            name = self.schema.get("title")
        else:
            self._adapter = _adapter_of(given)
            self.schema = self._adapter.json_schema()
            closed = _closed(self.schema)
            self.sent = closed if _is_strict(closed) else self.schema
            name = getattr(given, "__name__", None)
        self.is_strict: bool = _is_strict(self.sent)
        clean = re.sub(r"[^A-Za-z0-9_-]+", "_", str(name or "answer")).strip("_")
        self.name: str = clean[:_LONGEST_NAME] or "answer"

    @classmethod
    def of(cls, given: object) -> Structure | None:
        """Return the structure of what a user gives as a schema, None for None.

        Raises:
            TypeError: It is neither a JSON schema nor a type, or of no type that
                pydantic can make a schema of.
            ImportError: It is a type, and pydantic is not installed.
        """
        if given is None:
            return None
        if isinstance(given, (Mapping, type)):
            return cls(given)
        msg = (
            f"schema={given!r} must be a pydantic model, another type that pydantic "
            "knows, or a JSON schema as a mapping"
        )
        raise TypeError(msg)

    def __repr__(self) -> str:
        # Two versions of a model with one name must not share a cache.
        text = json.dumps(self.schema, sort_keys=True, default=str)
        return f"{self.name}#{digest(text)[:8]}"

    def parse(self, text: str) -> Any:  # noqa: ANN401 - an object of the user's type
        """Return the data in an answer: an object of the type, or what the JSON says.

        Raises:
            ValueError: It is no JSON, or not of this form.
        """
        if self._adapter is not None:
            return self._adapter.validate_json(text)
        data = json.loads(text)
        wrong = problem(data, self.schema)
        if wrong is not None:
            raise ValueError(wrong)
        return data


def _adapter_of(kind: type) -> Any:  # noqa: ANN401 - pydantic's, which is not imported
    with needs("pydantic", f"schema={kind.__name__}"):
        from pydantic import TypeAdapter
    from pydantic.errors import PydanticSchemaGenerationError

    try:
        return TypeAdapter(kind)
    except PydanticSchemaGenerationError as error:
        msg = f"schema={kind!r} is no type that pydantic can make a JSON schema of"
        raise TypeError(msg) from error


def _closed(schema: Any) -> Any:  # noqa: ANN401 - any part of a JSON schema
    """Return a schema with closed objects, all of whose fields are required."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    dropped = {"default", "discriminator"}
    closed: dict[str, Any] = {}
    for key, part in schema.items():
        if key in {"properties", "$defs", "definitions"}:
            # Names that users chose, which may be those of keywords.
            closed[key] = {name: _closed(inner) for name, inner in part.items()}
        elif key not in dropped:
            closed["anyOf" if key == "oneOf" else key] = _closed(part)
    if "$ref" in closed:
        # Beside a reference nothing else may stand.
        return {"$ref": closed["$ref"]}
    if "properties" in closed:
        closed["additionalProperties"] = closed.get("additionalProperties", False)
        closed["required"] = list(closed["properties"])
    return closed


def _is_strict(schema: Any, *, is_root: bool = True) -> bool:  # noqa: ANN401 - as above
    """Tell whether all objects of a schema are closed and have all their fields."""
    if isinstance(schema, list):
        return all(_is_strict(part, is_root=False) for part in schema)
    if not isinstance(schema, dict):
        return True
    if is_root and schema.get("type") != "object" and "$ref" not in schema:
        return False
    if schema.get("type") == "object":
        names = set(schema.get("properties", {}))
        is_whole = names == set(schema.get("required", ()))
        if schema.get("additionalProperties") is not False or not is_whole:
            return False
    return all(
        _is_strict(list(part.values()), is_root=False)
        if key in {"properties", "$defs", "definitions"}
        else _is_strict(part, is_root=False)
        for key, part in schema.items()
    )
