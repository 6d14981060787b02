"""What spans of language models are called and tell: OpenTelemetry's conventions.

Names and attributes are those of the semantic conventions for generative AI client
inference, which are still in development; read on 2026-11-29 at
https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/ and, where they moved,
https://github.com/open-telemetry/semantic-conventions-genai. `server.address` and
`server.port` are stable: https://opentelemetry.io/docs/specs/semconv/registry/.

Messages are told only if the user wants it: `gen_ai.input.messages`,
`gen_ai.output.messages` and `gen_ai.system_instructions`, as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tta_primitives.door import Call
    from tta_primitives.llm.messages import LLMRequest, LLMResponse, Message
    from tta_primitives.llm.primitive import LLMPrimitive

__all__ = ["USAGE", "Request", "answered", "asked", "is_llm", "output_messages"]

# The event that tells what an answer took, with the names of the conventions.
USAGE = "llm.usage"

_SERVERS = {"anthropic": "api.anthropic.com", "openai": "api.openai.com"}
_PORTS = {"http": 80, "https": 443}
# Those of the SDKs' arguments that the conventions know, and of what type they are.
_OPTIONS: dict[str, tuple[str, type | tuple[type, ...]]] = {
    "frequency_penalty": ("gen_ai.request.frequency_penalty", (int, float)),
    "presence_penalty": ("gen_ai.request.presence_penalty", (int, float)),
    "seed": ("gen_ai.request.seed", int),
    "stop": ("gen_ai.request.stop_sequences", (str, list, tuple)),
    "stop_sequences": ("gen_ai.request.stop_sequences", (list, tuple)),
    "top_k": ("gen_ai.request.top_k", int),
    "top_p": ("gen_ai.request.top_p", (int, float)),
}

_kinds: dict[type, bool] = {}


class Request(NamedTuple):
    """How the span of a call of a language model begins.

    Attributes:
        name: The span's name: the operation and the model.
        attributes: What is known before the call.
    """

    name: str
    attributes: dict[str, Any]


def is_llm(primitive: object) -> bool:
    """Tell whether a primitive asks a language model.

    Nobody who has no such primitive pays for the import of what they are made of.
    """
    kind = type(primitive)
    known = _kinds.get(kind)
    if known is None:
        module = sys.modules.get("tta_primitives.llm.primitive")
        known = module is not None and issubclass(kind, module.LLMPrimitive)
        _kinds[kind] = known
    return known


def asked(call: Call, clean: Callable[[Any], str] | None) -> Request | None:
    """Return how the span of an LLM primitive's call begins, None if it asks nothing.

    Args:
        call: The call, about to be executed.
        clean: Makes a bounded text without secrets of messages; None if they are not
            to be told.
    """
    primitive: LLMPrimitive = call.primitive  # type: ignore[assignment]
    try:
        request = primitive._request(call.input_data)
    except Exception:  # noqa: BLE001 - the call itself will raise and tell it
        return None
    told: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": primitive._vendor.name,
        "gen_ai.request.model": request.model,
        "gen_ai.request.temperature": request.temperature,
        "gen_ai.request.max_tokens": request.max_output_tokens,
        "gen_ai.request.stream": True if call.is_stream else None,
        "gen_ai.output.type": None if request.schema is None else "json",
        "gen_ai.conversation.id": call.context.session_id,
        **_server(primitive),
        **_options(request),
    }
    if clean is not None:
        told |= _input(request, clean)
    known = {name: value for name, value in told.items() if value is not None}
    return Request(f"chat {request.model}", known)


def answered(detail: dict[str, Any]) -> dict[str, Any]:
    """Return what the event of an answer's usage tells, without what is not known."""
    return {
        name: value
        for name, value in detail.items()
        if value is not None and (value or "cache" not in name)
    }


def output_messages(response: LLMResponse, clean: Callable[[Any], str]) -> str:
    """Return an answer as the conventions' JSON schema of output messages has it."""
    message = {
        "role": "assistant",
        "parts": list(_parts(response.content, response.tool_calls)),
        "finish_reason": response.finish_reason,
    }
    return clean([message])


def _server(primitive: LLMPrimitive) -> dict[str, Any]:
    from urllib.parse import urlsplit

    vendor = primitive._vendor.name
    url = primitive._url() or f"https://{_SERVERS.get(vendor, '')}"
    try:
        parts = urlsplit(url)
        address, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return {}
    return {"server.address": address, "server.port": port} if address else {}


def _options(request: LLMRequest) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in request.options.items():
        attribute, kind = _OPTIONS.get(name, ("", ()))
        if isinstance(value, kind) and not isinstance(value, bool):
            is_text = attribute.endswith("stop_sequences") and isinstance(value, str)
            found[attribute] = [value] if is_text else value
    return found


def _input(request: LLMRequest, clean: Callable[[Any], str]) -> dict[str, str]:
    system = [one for one in request.messages if one.role == "system"]
    rest = [one for one in request.messages if one.role != "system"]
    told = {"gen_ai.input.messages": clean([_message(one) for one in rest])}
    if system:
        parts = [part for one in system for part in _parts(one.content, ())]
        told["gen_ai.system_instructions"] = clean(parts)
    return told


def _message(message: Message) -> dict[str, Any]:
    if message.role == "tool":
        answer = {
            "type": "tool_call_response",
            "id": message.tool_call_id,
            "response": message.content,
        }
        return {"role": "tool", "parts": [answer]}
    parts = list(_parts(message.content, message.tool_calls))
    return {"role": message.role, "parts": parts}


def _parts(content: str, tool_calls: Iterable[Any]) -> Iterable[dict[str, Any]]:
    if content:
        yield {"type": "text", "content": content}
    for one in tool_calls:
        yield {
            "type": "tool_call",
            "id": one.id,
            "name": one.name,
            "arguments": dict(one.arguments),
        }


def as_json(value: object) -> str:
    """Return data as JSON, by their types what JSON does not know."""
    return json.dumps(
        value, ensure_ascii=False, default=lambda one: f"<{type(one).__name__}>"
    )
