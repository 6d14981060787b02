"""Reading a request's JSON, and refusing it in the provider's words."""

# ruff: noqa: ANN401 - JSON holds whatever was sent

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias

from tta_primitives.llm import Tool, ToolCall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Complaints", "Fields", "JSONPath", "call_of", "described", "rest_of"]

JSONPath: TypeAlias = tuple[str | int, ...]

# Where a picture, a file or a recording says what it is, the telling ones first.
_TELLING = ("url", "image_url", "file_url", "file_id", "filename", "title", "format")
_INSIDE = ("source", "image_url", "file", "input_audio")


class Complaints(Protocol):
    """How a provider says what is wrong with a request."""

    def missing(self, path: JSONPath, /) -> str:
        """Say that something must be there."""
        ...

    def wrong(self, path: JSONPath, expected: str, value: object, /) -> str:
        """Say that something must be a `string`, `array`, `object` or `number`."""
        ...

    def unknown(
        self, path: JSONPath, value: object, allowed: tuple[str, ...], /
    ) -> str:
        """Say which words are known."""
        ...

    def outside(
        self, path: JSONPath, value: float, least: float, most: float, /
    ) -> str:
        """Say that a number is too small or too large."""
        ...


@dataclass(frozen=True, slots=True)
class Fields:
    """One object of a request's JSON, which knows where it stands.

    Attributes:
        values: What it holds.
        complaints: How to say what is wrong with it.
        path: Where it stands in the request.
    """

    values: Mapping[str, Any]
    complaints: Complaints
    path: JSONPath = ()

    def has(self, name: str) -> bool:
        """Tell whether something is given that is not null."""
        return self.values.get(name) is not None

    def get(self, name: str) -> Any:
        """Return a value that must be given.

        Raises:
            ValueError: It is not, or it is null.
        """
        if not self.has(name):
            raise ValueError(self.complaints.missing((*self.path, name)))
        return self.values[name]

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text.

        Args:
            name: Its name.
            default: What it is when not given; None if it must be.

        Raises:
            ValueError: It is not given, or no text.
        """
        if default is not None and not self.has(name):
            return default
        value = self.get(name)
        if not isinstance(value, str):
            self._wrong(name, "string", value)
        return value

    def filled(self, name: str) -> str:
        """Return a text that is not empty.

        Raises:
            ValueError: It is not given, no text, or empty.
        """
        text = self.text(name)
        if not text:
            raise ValueError(self.complaints.missing((*self.path, name)))
        return text

    def word(self, name: str, allowed: tuple[str, ...]) -> str:
        """Return one of the words that are allowed.

        Raises:
            ValueError: It is not given, or none of them.
        """
        value = self.get(name)
        if value not in allowed:
            path = (*self.path, name)
            raise ValueError(self.complaints.unknown(path, value, allowed))
        return str(value)

    def fields(self, name: str) -> Fields:
        """Return an object.

        Raises:
            ValueError: It is not given, or no object.
        """
        value = self.get(name)
        if not isinstance(value, Mapping):
            self._wrong(name, "object", value)
        return Fields(value, self.complaints, (*self.path, name))

    def items(self, name: str, *, required: bool = True) -> list[Fields]:
        """Return the objects of an array.

        Args:
            name: Its name.
            required: Whether it must be given.

        Raises:
            ValueError: It is not given, or no array of objects.
        """
        if not required and not self.has(name):
            return []
        value = self.get(name)
        if not isinstance(value, list):
            self._wrong(name, "array", value)
        return [self._item(name, index, one) for index, one in enumerate(value)]

    def number(self, name: str, least: float, most: float) -> float | None:
        """Return a number, None if it is not given.

        Raises:
            ValueError: It is no number, or not between the two.
        """
        if not self.has(name):
            return None
        value = self.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._wrong(name, "number", value)
        if not least <= value <= most:
            path = (*self.path, name)
            raise ValueError(self.complaints.outside(path, value, least, most))
        return value

    def count(self, name: str) -> int | None:
        """Return a whole number from 1, None if it is not given.

        Raises:
            ValueError: It is no whole number, or less than 1.
        """
        value = self.number(name, 1, float("inf"))
        if value is not None and not isinstance(value, int):
            self._wrong(name, "integer", value)
        return value

    def content(
        self, name: str, part_text: Callable[[Fields], str], *, required: bool = True
    ) -> str:
        """Return content, which is a text or an array of parts, as text.

        Args:
            name: Its name.
            part_text: What a part says.
            required: Whether it must be given.

        Raises:
            ValueError: It is not given, or neither of both.
        """
        if isinstance(self.values.get(name), str):
            return self.text(name)
        parts = self.items(name, required=required)
        return "\n".join(text for text in map(part_text, parts) if text)

    def tool(self, schema: str) -> Tool:
        """Return the tool that the object describes.

        Args:
            schema: Under which name the JSON schema of its arguments stands.

        Raises:
            ValueError: It has no name, or its schema is no object.
        """
        parameters = self.fields(schema).values if self.has(schema) else {}
        return Tool(self.filled("name"), self.text("description", ""), parameters)

    def _item(self, name: str, index: int, value: object) -> Fields:
        if not isinstance(value, Mapping):
            self._wrong(name, "object", value, index)
        return Fields(value, self.complaints, (*self.path, name, index))

    def _wrong(self, name: str, expected: str, value: object, *more: int) -> NoReturn:
        path = (*self.path, name, *more)
        raise ValueError(self.complaints.wrong(path, expected, value))


def call_of(fields: Fields, call_id: str) -> ToolCall:
    """Return a tool call of a conversation, whose arguments are JSON text.

    Args:
        fields: What holds `name` and `arguments`.
        call_id: The id of the call.

    Raises:
        ValueError: Name or arguments are missing.
    """
    name, text = fields.filled("name"), fields.text("arguments")
    try:
        arguments = json.loads(text)
    except ValueError:
        arguments = None
    if isinstance(arguments, dict):
        return ToolCall(name, arguments, call_id)
    return ToolCall(name, {}, call_id, broken_arguments=text)


def described(part: Mapping[str, Any]) -> str:
    """Return readable words for a part that is no text: `[image image/png]`."""
    about = _about(part)
    kind = str(part.get("type", "part"))
    return f"[{kind} {about}]" if about else f"[{kind}]"


def _about(part: Mapping[str, Any]) -> str:
    for name in (*_TELLING, "media_type", "id"):
        value = part.get(name)
        if isinstance(value, str):
            return _short(value)
    inner = (part.get(name) for name in _INSIDE)
    return next((_about(one) for one in inner if isinstance(one, Mapping)), "")


def _short(value: str) -> str:
    """Return an address as it is, and of data within one only what kind it is."""
    if not value.startswith("data:"):
        return value
    return re.split("[;,]", value.removeprefix("data:"), maxsplit=1)[0]


def rest_of(
    body: Mapping[str, Any], taken: Iterable[str], **left: object
) -> dict[str, Any]:
    """Return what a request asks beside what was taken from it.

    Args:
        body: The JSON of the request.
        taken: The names of what was taken as a whole.
        left: What is left of that of which only a part was taken, if anything is.
    """
    names = {*taken, *left}
    rest = {name: value for name, value in body.items() if name not in names}
    return rest | {name: value for name, value in left.items() if value}
