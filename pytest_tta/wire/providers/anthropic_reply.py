"""An answer of the Messages API, written whole or in events."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_tta.wire.exchange import WireAnswer
from pytest_tta.wire.providers.anthropic_errors import answer_headers
from pytest_tta.wire.providers.encoding import Events, event, json_bytes
from pytest_tta.wire.providers.identity import made_id
from pytest_tta.wire.providers.speech import Speech, arguments_text, fragments

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_tta.wire.api import Said
    from tta_primitives.llm import FinishReason, ToolCall, Usage

__all__ = ["Reply"]

# Anthropic has one word for what it filters and what the model refuses; the category
# tells the first.
_ENDS: Mapping[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "refusal": "refusal",
    "unknown": "pause_turn",
}
_DETAILS: Mapping[FinishReason, Mapping[str, Any]] = {
    "content_filter": {
        "type": "refusal",
        "category": "general_harms",
        "explanation": None,
    },
    "refusal": {"type": "refusal", "category": None, "explanation": None},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What is answered to one request.

    Attributes:
        said: What the model says.
        speech: Its text, whole and in pieces.
        usage: The tokens it takes.
        model: The model that answers.
        number: Which request it is, from 1.
    """

    said: Said
    speech: Speech
    usage: Usage
    model: str
    number: int

    def whole(self) -> WireAnswer:
        """Return the answer as one object, when the last piece has come."""
        text, calls = self.speech.text, self.said.response.tool_calls
        content = [{"type": "text", "text": text}] if text else []
        content += [
            self._call_block(place, call) | {"input": _input(call)}
            for place, call in enumerate(calls)
        ]
        value = self._message() | self._stop() | {"content": content}
        return WireAnswer.of_bytes(
            json_bytes(value),
            "application/json",
            headers=answer_headers(self.number),
            after=self.said.delay + self.speech.ends,
        )

    def streamed(self) -> WireAnswer:
        """Return the answer as events; the message itself is there at once."""
        stream, ends = _Stream(), self.speech.ends
        message = self._message()
        message["usage"]["output_tokens"] = 0
        stream.add(0.0, "message_start", {"message": message})
        if self.speech.text:
            stream.text(self.speech)
        for place, call in enumerate(self.said.response.tool_calls):
            stream.call(self._call_block(place, call), arguments_text(call), ends)
        delta = {**self._stop(), "container": None}
        usage = _usage(self.usage)
        stream.add(ends, "message_delta", {"delta": delta, "usage": usage})
        stream.add(ends, "message_stop", {})
        return WireAnswer.of_events(
            stream.events.parts,
            headers=answer_headers(self.number),
            tokens=stream.events.tokens,
            tail=2,
            after=self.said.delay,
        )

    def _message(self) -> dict[str, Any]:
        """Return the message at its beginning."""
        return {
            "id": made_id("msg_", self.number),
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [],
            "container": None,
            "diagnostics": None,
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            "usage": {
                **_usage(self.usage),
                "cache_creation": {
                    "ephemeral_5m_input_tokens": 0,
                    "ephemeral_1h_input_tokens": 0,
                },
                "inference_geo": "not_available",
                "service_tier": "standard",
                "speed": "standard",
            },
        }

    def _stop(self) -> dict[str, Any]:
        reason = self.said.response.finish_reason
        return {
            "stop_reason": _ENDS[reason],
            "stop_sequence": None,
            "stop_details": _DETAILS.get(reason),
        }

    def _call_block(self, place: int, call: ToolCall) -> dict[str, Any]:
        return {
            "type": "tool_use",
            "id": call.id or made_id("toolu_", self.number, place),
            "name": call.name,
            "input": {},
            "caller": {"type": "direct"},
        }


class _Stream:
    """Events as they are written, block after block."""

    def __init__(self) -> None:
        self.events = Events()
        self._blocks = 0

    def add(
        self, at: float, name: str, fields: Mapping[str, Any], *, token: bool = False
    ) -> None:
        self.events.add(at, event({"type": name, **fields}, name), token=token)

    def text(self, speech: Speech) -> None:
        self._begin(speech.begins, {"type": "text", "text": ""}, token=False)
        for at, piece in speech.pieces:
            self._delta(at, {"type": "text_delta", "text": piece}, piece)
        self._stop(speech.ends)

    def call(self, block: Mapping[str, Any], arguments: str, at: float) -> None:
        """Write a call: its name, an empty piece of its input, and then the input."""
        self._begin(at, block, token=True)
        for text in ("", *fragments(arguments)):
            self._delta(at, {"type": "input_json_delta", "partial_json": text}, text)
        self._stop(at)

    def _begin(self, at: float, block: Mapping[str, Any], *, token: bool) -> None:
        told = {"index": self._blocks, "content_block": block}
        self.add(at, "content_block_start", told, token=token)
        if self._blocks == 0:
            self.add(at, "ping", {})

    def _delta(self, at: float, delta: Mapping[str, Any], content: str) -> None:
        told = {"index": self._blocks, "delta": delta}
        self.add(at, "content_block_delta", told, token=bool(content))

    def _stop(self, at: float) -> None:
        self.add(at, "content_block_stop", {"index": self._blocks})
        self._blocks += 1


def _usage(usage: Usage) -> dict[str, Any]:
    """Return the tokens as Anthropic counts them: those from its cache apart."""
    return {
        "input_tokens": max(0, usage.input_tokens - usage.cached_tokens),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": 0},
        "server_tool_use": None,
    }


def _input(call: ToolCall) -> object:
    if call.broken_arguments is None:
        return dict(call.arguments)
    try:
        return json.loads(call.broken_arguments)
    except ValueError:
        return call.broken_arguments
