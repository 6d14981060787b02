"""An answer of the chat API, written whole or in chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_tta.wire.exchange import WireAnswer
from pytest_tta.wire.providers.encoding import Events, event, json_bytes
from pytest_tta.wire.providers.identity import CREATED, made_id
from pytest_tta.wire.providers.openai_errors import answer_headers
from pytest_tta.wire.providers.speech import Speech, arguments_text, fragments

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_tta.wire.api import Said
    from tta_primitives.llm import FinishReason, ToolCall, Usage

__all__ = ["Completion"]

# A refusal ends as any answer does; what tells it is the field of the message.
_ENDS: Mapping[FinishReason, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "stop",
    # Other servers have reasons of their own; no client can know all of them.
    "unknown": "other",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What is answered to one request.

    Attributes:
        said: What the model says.
        speech: Its text, whole and in pieces.
        usage: The tokens it takes.
        body: The JSON of the request.
        number: Which request it is, from 1.
        copies: How many choices there are, all of them alike.
    """

    said: Said
    speech: Speech
    usage: Usage
    body: Mapping[str, Any]
    number: int
    copies: int

    def whole(self) -> WireAnswer:
        """Return the answer as one object, when the last piece has come."""
        after = self.said.delay + self.speech.ends
        value = self._head("chat.completion") | {
            "choices": [self._choice(index) for index in range(self.copies)],
            "usage": _usage(self.usage),
        }
        if "metadata" in self.body:
            value["metadata"] = self.body["metadata"]
        return WireAnswer.of_bytes(
            json_bytes(value),
            "application/json",
            headers=answer_headers(self.number, after),
            after=after,
        )

    def streamed(self) -> WireAnswer:
        """Return the answer as chunks; the role comes with the first piece of text."""
        head = self._head("chat.completion.chunk")
        options = self.body.get("stream_options") or {}
        tells_usage = bool(options.get("include_usage"))
        if tells_usage:
            head["usage"] = None
        chunks, ends = _Chunks(head, self.copies), self.speech.ends
        self._speak(chunks)
        self._call_tools(chunks)
        chunks.add(ends, {}, end=_ENDS[self.said.response.finish_reason])
        if tells_usage:
            last = {"choices": [], "usage": _usage(self.usage)}
            chunks.events.add(ends, event(head | last))
        elif not self.copies:
            chunks.events.add(ends, event(head | {"choices": []}))
        chunks.events.add(ends, b"data: [DONE]\n\n")
        return WireAnswer.of_events(
            chunks.events.parts,
            headers=answer_headers(self.number, self.said.delay),
            tokens=chunks.events.tokens,
            tail=self.copies + 1 + tells_usage,
            after=self.said.delay,
        )

    @property
    def _refuses(self) -> bool:
        return self.said.response.finish_reason == "refusal"

    @property
    def _is_silent(self) -> bool:
        """Whether there is no content: null, where no words would be an empty text."""
        only_calls = bool(self.said.response.tool_calls) and not self.speech.text
        return self._refuses or only_calls

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": made_id("chatcmpl-", self.number),
            "object": kind,
            "created": CREATED,
            "model": self.said.response.model or self.body["model"],
            "service_tier": "default",
            "system_fingerprint": "fp_test",
        }

    def _choice(self, index: int) -> dict[str, Any]:
        text, response = self.speech.text, self.said.response
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if self._is_silent else text,
            "refusal": text if self._refuses else None,
            "annotations": [],
        }
        if response.tool_calls:
            message["tool_calls"] = [
                self._call_head(place, call)
                | {"function": {"name": call.name, "arguments": arguments_text(call)}}
                for place, call in enumerate(response.tool_calls)
            ]
        return {
            "index": index,
            "message": message,
            "logprobs": None,
            "finish_reason": _ENDS[response.finish_reason],
        }

    def _call_head(self, place: int, call: ToolCall) -> dict[str, Any]:
        call_id = call.id or made_id("call_", self.number, place)
        return {"id": call_id, "type": "function"}

    def _speak(self, chunks: _Chunks) -> None:
        content = None if self._is_silent else ""
        opening = {"role": "assistant", "content": content, "refusal": None}
        chunks.add(self.speech.begins, opening)
        said_in = "refusal" if self._refuses else "content"
        for at, piece in self.speech.pieces:
            chunks.add(at, {said_in: piece}, token=bool(piece))

    def _call_tools(self, chunks: _Chunks) -> None:
        at = self.speech.ends
        for place, call in enumerate(self.said.response.tool_calls):
            named = {"function": {"name": call.name, "arguments": ""}}
            opening = {"index": place, **self._call_head(place, call), **named}
            chunks.add(at, {"tool_calls": [opening]}, token=True)
            for text in fragments(arguments_text(call)):
                delta = {"index": place, "function": {"arguments": text}}
                chunks.add(at, {"tool_calls": [delta]}, token=True)


class _Chunks:
    """Chunks as they are written, one for each of the choices."""

    def __init__(self, head: Mapping[str, Any], copies: int) -> None:
        self.events = Events()
        self._head = head
        self._copies = copies

    def add(
        self,
        at: float,
        delta: Mapping[str, Any],
        *,
        end: str | None = None,
        token: bool = False,
    ) -> None:
        for index in range(self._copies):
            choice = {"index": index, "delta": delta, "logprobs": None}
            choices = [choice | {"finish_reason": end}]
            data = event({**self._head, "choices": choices})
            self.events.add(at, data, token=token)


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": 0,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
