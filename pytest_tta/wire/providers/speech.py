"""What a model says, cut as it comes out of a model: in words, and in fragments."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_tta.wire.providers.encoding import json_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_tta.wire.api import Said
    from tta_primitives.llm import LLMResponse, ToolCall

__all__ = ["Speech", "arguments_text", "fragments", "words"]

_FRAGMENT = 8


@dataclass(frozen=True, slots=True)
class Speech:
    """The text of an answer, whole and in pieces.

    Attributes:
        text: The whole text.
        pieces: Its pieces, each with its seconds after the head.
        begins: When the first piece comes.
        ends: When the last piece comes, and everything that follows the text.
    """

    text: str
    pieces: tuple[tuple[float, str], ...]
    begins: float = 0.0
    ends: float = 0.0

    @classmethod
    def of(cls, said: Said, default: str = "") -> Speech:
        """Return what is said, in words unless it is cut already.

        Args:
            said: What the model says.
            default: The text in place of none at all.
        """
        pieces = said.timeline
        if pieces is None:
            pieces = tuple((0.0, word) for word in words(_text_of(said.response)))
        begins, ends = (pieces[0][0], pieces[-1][0]) if pieces else (0.0, 0.0)
        if default and not any(piece for _, piece in pieces):
            pieces = tuple((ends, word) for word in words(default))
        return cls("".join(piece for _, piece in pieces), pieces, begins, ends)


def words(text: str) -> tuple[str, ...]:
    """Return the words of a text, each with the blanks that follow it."""
    return tuple(re.findall(r"^\s+|\S+\s*", text))


def fragments(text: str) -> Iterator[str]:
    """Yield a text in short pieces that heed neither words nor JSON."""
    for start in range(0, len(text), _FRAGMENT):
        yield text[start : start + _FRAGMENT]


def arguments_text(call: ToolCall) -> str:
    """Return the arguments of a call as the model wrote them."""
    if call.broken_arguments is not None:
        return call.broken_arguments
    return json_text(dict(call.arguments))


def _text_of(response: LLMResponse) -> str:
    """Return the content, or structured data as the JSON that a model writes."""
    if response.content or response.data is None:
        return response.content
    dump = getattr(response.data, "model_dump_json", None)
    return json_text(response.data) if dump is None else str(dump())
