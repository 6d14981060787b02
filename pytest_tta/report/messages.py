"""What was said to a language model and what it answered, read from what was recorded.

Conversations come in many shapes: an `LLMRequest`, a mapping for a vendor's SDK, a list
of messages, a plain question. Whatever has messages is read; nothing here fails.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_tta.trace.snapshot import shorten

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_tta.harness import Harness
    from pytest_tta.trace.spans import Span

__all__ = ["Conversations", "Said"]

Said: TypeAlias = tuple[str, str]
"""Who speaks, and what."""

_ANSWERS = "assistant"
_OK = 200


class Conversations:
    """What was said in the calls of one run.

    Args:
        harness: What the test held.
    """

    def __init__(self, harness: Harness) -> None:
        double, wire = harness._parts.llm, harness._parts.wire
        self._scripted = set() if double is None else set(double.calls.paths)
        self._exchanges: dict[Any, list[Any]] = {}
        for exchange in () if wire is None else wire.exchanges:
            self._exchanges.setdefault(exchange.caller, []).append(exchange)

    def of(self, span: Span) -> list[Said]:
        """Return what was said in one call; nothing if it asked no model.

        Args:
            span: The call.
        """
        sent = self._exchanges.get(span._call)
        if sent is not None:
            return [one for exchange in sent for one in _of_exchange(exchange)]
        if span._call.primitive.children():
            # Retries and fallbacks are given what the model is given, and ask it not.
            return []
        is_model = span.path in self._scripted or _is_model(span)
        asked = _asked(span.input, is_model=is_model)
        if not asked:
            return []
        answer = _answered(span.output)
        return [*asked, (_ANSWERS, answer)] if answer else asked


def _is_model(span: Span) -> bool:
    """Tell whether a primitive is one of ours that ask models."""
    module = sys.modules.get("tta_primitives.llm.primitive")
    return module is not None and isinstance(span._call.primitive, module.LLMPrimitive)


def _of_exchange(exchange: Any) -> Iterator[Said]:  # noqa: ANN401 - the wire may not be there
    call = exchange.call
    if call is not None:
        yield from _asked(call.input, is_model=True)
    sent = exchange.sent
    if sent is not None:
        yield _ANSWERS, _sent(sent.status, b"".join(part for _, part in sent.body))


def _sent(status: int, body: bytes) -> str:
    """Return what an answer says; the whole of it if that is no plain one."""
    text = body.decode("utf-8", "replace")
    try:
        said = _answered(json.loads(text)) if status == _OK else ""
    except (ValueError, RecursionError):
        # A stream, or something broken, such as a hundred thousand brackets.
        said = ""
    return said or f"HTTP {status}: {text}"


def _asked(value: object, *, is_model: bool) -> list[Said]:
    messages = _read(value, "messages")
    if _is_message(value):
        messages = [value]
    elif isinstance(value, (list, tuple)) and value and all(map(_is_message, value)):
        messages = value
    if isinstance(messages, Sequence) and not isinstance(messages, str):
        system = _read(value, "system")
        first = [("system", _content(system))] if system else []
        return [*first, *(_spoken(one) for one in messages)]
    return [("user", _content(value))] if is_model and value is not None else []


def _is_message(value: object) -> bool:
    return isinstance(_read(value, "role"), str) and _has(value, "content")


def _spoken(message: object) -> Said:
    role = _read(message, "role")
    said = [_content(_read(message, "content")), *_tool_calls(message)]
    return role if isinstance(role, str) else "", "\n".join(filter(None, said))


def _answered(output: object) -> str:
    """Return what a model has answered; empty if nothing."""
    choices = _read(output, "choices")
    if isinstance(choices, (list, tuple)) and choices:
        return _spoken(_read(choices[0], "message"))[1]
    if _has(output, "content"):
        said = [_content(_read(output, "content")), *_tool_calls(output)]
        return "\n".join(filter(None, said))
    if isinstance(output, (str, list, tuple)):
        return _content(output)
    return "" if output is None else shorten(output, sys.maxsize)


def _tool_calls(message: object) -> Iterator[str]:
    calls = _read(message, "tool_calls")
    for call in calls if isinstance(calls, (list, tuple)) else ():
        function = _read(call, "function") or call
        name, arguments = _read(function, "name"), _read(function, "arguments")
        yield f"calls {name}({arguments})"


def _content(value: object) -> str:
    """Return content as text: texts as they are, parts joined, anything else shown."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        if all(isinstance(part, str) for part in value):
            return "".join(value)
        return "\n".join(map(_part, value))
    return shorten(value, sys.maxsize)


def _part(part: object) -> str:
    text = _read(part, "text")
    return text if isinstance(text, str) else shorten(part, sys.maxsize)


def _read(value: object, name: str) -> Any:  # noqa: ANN401 - whatever is there
    if isinstance(value, Mapping):
        return value.get(name)
    try:
        return getattr(value, name, None)
    except Exception:  # noqa: BLE001 - a property of anything may fail in any way
        return None


def _has(value: object, name: str) -> bool:
    if isinstance(value, Mapping):
        return name in value
    return _read(value, name) is not None
