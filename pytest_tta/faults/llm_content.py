"""Faults in what the model says: cut off, filtered, refused, or of another form.

The answer is a good one as far as HTTP goes. Whoever does not look at the reason for
its end, or at its form, takes it for a success.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pytest_tta.faults.llm_base import (
    Alters,
    Expectation,
    LLMFault,
    answer_of,
    written,
)
from pytest_tta.faults.llm_edits import rewritten, words
from pytest_tta.faults.llm_reports import checked_message, reported, status_fault
from tta_primitives.arguments import check_choice, check_count
from tta_primitives.llm import LLMResponse, ToolCall

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_tta.faults.llm_base import Written
    from pytest_tta.wire.api import WireStrike
    from pytest_tta.wire.exchange import WireAnswer
    from tta_primitives.llm import FinishReason

__all__ = [
    "content_filter",
    "context_length",
    "length",
    "pause_turn",
    "prose_instead_of_json",
    "refusal",
    "tool_args",
    "wrong_schema",
]

_WHERE = ("prompt", "answer")
_BAD = ("json", "schema", "name", "truncated")
_REFUSAL = "I'm sorry, but I can't help with that."
_PROSE = "Sure! Here is what I have found. Let me know if you need anything else."
_OTHER_SHAPE: dict[str, Any] = {"unexpected": True}
_UNKNOWN_TOOL = "no_such_tool"


def length(after_tokens: int = 1) -> LLMFault:
    """End the answer because it has become too long.

    Args:
        after_tokens: How many tokens, words here, the answer has; of a text with no
            more than that, half.

    Raises:
        ValueError: `after_tokens` is not a count.
    """
    tokens = check_count("after_tokens", after_tokens)
    source = written(length, after_tokens=tokens)
    return _ended(source, partial(_cut, tokens, "length"), tokens)


def content_filter(
    where: Literal["prompt", "answer"] = "answer", *, after_tokens: int = 1
) -> LLMFault:
    """Let a filter of the provider act.

    Args:
        where: On the answer, which ends there; or on the prompt, which is refused with
            status 400.
        after_tokens: How many tokens of a filtered answer come before.

    Raises:
        ValueError: `where` is unknown, or `after_tokens` is not a count.
    """
    check_choice("where", where, _WHERE)
    tokens = check_count("after_tokens", after_tokens)
    source = written(content_filter, where=where, after_tokens=tokens)
    if where == "prompt":
        return status_fault(source, reported("content_filter"), may_retry=False)
    return _ended(source, partial(_cut, tokens, "content_filter"), tokens)


def context_length(
    where: Literal["prompt", "answer"] = "prompt",
    *,
    after_tokens: int = 1,
    message: str | None = None,
) -> LLMFault:
    """Fill the context of the model.

    Args:
        where: With the prompt, which is refused with status 400; or with the answer,
            which ends there.
        after_tokens: How many tokens of such an answer come before.
        message: What the provider says of the prompt.

    Raises:
        TypeError: The message is no text.
        ValueError: `where` is unknown, or `after_tokens` is not a count.
    """
    check_choice("where", where, _WHERE)
    tokens = check_count("after_tokens", after_tokens)
    source = written(
        context_length,
        where=where,
        after_tokens=tokens,
        message=checked_message(message),
    )
    if where == "prompt":
        told = reported("context_length", message)
        return status_fault(source, told, may_retry=False)
    alter = partial(_cut, tokens, "length")
    return _ended(source, alter, tokens, partial(_full, alter))


def refusal(category: str | None = None, *, text: str = _REFUSAL) -> LLMFault:
    """Let the model refuse to answer.

    Args:
        category: Why, in the provider's words; only Anthropic tells it.
        text: What it says instead.

    Raises:
        TypeError: One of them is no text.
    """
    for name, value in (("category", category), ("text", text)):
        if not isinstance(value, str) and (value is not None or name == "text"):
            msg = f"{name}={value!r} must be a text, not {type(value).__name__}"
            raise TypeError(msg)
    source = written(refusal, category=category, text=text)
    alter = partial(_said, text, "refusal")
    wire = partial(_refused, alter, category)
    expect = Expectation(may_retry=False)
    return Alters(0, source, expect, wire, alter=alter)


def pause_turn() -> LLMFault:
    """End the turn for a pause, to be taken up by a further request (Anthropic)."""
    alter = partial(_cut, 1, "unknown")
    source = written(pause_turn)
    wire = partial(_stopped, alter, "pause_turn")
    expect = Expectation(may_retry=True)
    return Alters(1, source, expect, wire, ("anthropic",), alter=alter, ends=True)


def tool_args(
    bad: Literal["json", "schema", "name", "truncated"] = "json",
) -> LLMFault:
    """Let the model call a tool in a way in which it cannot be called.

    If the model calls none, it is made to call the first tool of the request.

    Args:
        bad: What is wrong: the arguments are no JSON, or do not go with the tool's
            schema; there is no tool of that name; the arguments break off because the
            answer has become too long.

    Raises:
        ValueError: `bad` is unknown.
    """
    check_choice("bad", bad, _BAD)
    source = written(tool_args, bad=bad)
    wire = partial(_called, bad)
    alter = partial(_broken_call, bad, "a_tool")
    expect = Expectation(may_retry=True)
    return Alters(0, source, expect, wire, alter=alter, is_text=False)


def wrong_schema() -> LLMFault:
    """Answer with sound JSON of another form than was asked for."""
    alter = partial(_said, json.dumps(_OTHER_SHAPE), "stop")
    return _other_form(wrong_schema, alter)


def prose_instead_of_json() -> LLMFault:
    """Answer with a friendly text where JSON was asked for."""
    return _other_form(prose_instead_of_json, partial(_said, _PROSE, "stop"))


def _ended(
    source: Written,
    alter: Callable[[LLMResponse], LLMResponse],
    tokens: int,
    wire: Callable[[WireStrike], WireAnswer] | None = None,
) -> LLMFault:
    """Return a fault that ends an answer after so many tokens."""
    if wire is None:
        wire = partial(_altered, alter)
    # The same request may well be answered in full: a model does not repeat itself.
    expect = Expectation(may_retry=True)
    return Alters(tokens, source, expect, wire, alter=alter, ends=True)


def _other_form(
    maker: Callable[[], LLMFault], alter: Callable[[LLMResponse], LLMResponse]
) -> LLMFault:
    expect = Expectation(may_retry=True)
    wire = partial(_altered, alter)
    return Alters(0, written(maker), expect, wire, alter=alter)


def _altered(
    alter: Callable[[LLMResponse], LLMResponse], strike: WireStrike
) -> WireAnswer:
    return answer_of(strike, alter)


def _said(text: str, reason: FinishReason, response: LLMResponse) -> LLMResponse:
    return replace(
        response, content=text, tool_calls=(), data=None, finish_reason=reason
    )


def _cut(tokens: int, reason: FinishReason, response: LLMResponse) -> LLMResponse:
    """Return the beginning of an answer; of tool calls only the text before them."""
    text = _text_of(response)
    return _said(words(text, tokens), reason, response)


def _text_of(response: LLMResponse) -> str:
    if response.content or response.data is None:
        return response.content
    dump = getattr(response.data, "model_dump_json", None)
    return json.dumps(response.data) if dump is None else str(dump())


def _refused(
    alter: Callable[[LLMResponse], LLMResponse],
    category: str | None,
    strike: WireStrike,
) -> WireAnswer:
    answer = answer_of(strike, alter)
    if category is None or not strike.api.name.startswith("anthropic"):
        return answer
    return rewritten(answer, partial(_detailed, category))


def _detailed(category: str, value: dict[str, Any]) -> None:
    """Say why a message was refused, where it says that it was."""
    for holder in _messages(value):
        if holder.get("stop_reason") == "refusal":
            holder["stop_details"] = {"type": "refusal", "category": category}


def _full(
    alter: Callable[[LLMResponse], LLMResponse], strike: WireStrike
) -> WireAnswer:
    if strike.api.name.startswith("anthropic"):
        return _stopped(alter, "model_context_window_exceeded", strike)
    return answer_of(strike, alter)


def _stopped(
    alter: Callable[[LLMResponse], LLMResponse], reason: str, strike: WireStrike
) -> WireAnswer:
    """Return an answer of Anthropic's that ends for a reason of its own."""
    return rewritten(answer_of(strike, alter), partial(_with_reason, reason))


def _with_reason(reason: str, value: dict[str, Any]) -> None:
    for holder in _messages(value):
        if holder.get("stop_reason") is not None:
            holder["stop_reason"] = reason


def _messages(value: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what has a reason for its end, in an answer or an event of a stream."""
    places = (value, value.get("message"), value.get("delta"))
    return [one for one in places if isinstance(one, dict)]


def _called(bad: str, strike: WireStrike) -> WireAnswer:
    tools = strike.api.request(strike.body).tools
    name = tools[0].name if tools else "a_tool"
    return answer_of(strike, partial(_broken_call, bad, name))


def _broken_call(bad: str, name: str, response: LLMResponse) -> LLMResponse:
    """Return a response whose last tool call is broken."""
    usual = ToolCall(name, {"text": "value"}, "call_1")
    *others, last = response.tool_calls or (usual,)
    text = json.dumps(dict(last.arguments))
    reason: FinishReason = "length" if bad == "truncated" else "tool_calls"
    if bad == "name":
        last = replace(last, name=_UNKNOWN_TOOL)
    elif bad == "schema":
        last = replace(last, arguments=_OTHER_SHAPE, broken_arguments=None)
    else:
        # A comma too many is what models write; half of it is what a limit leaves.
        broken = text[:-1] + ",}" if bad == "json" else text[: max(1, len(text) // 2)]
        last = replace(last, arguments={}, broken_arguments=broken)
    calls = (*others, last)
    return replace(response, tool_calls=calls, finish_reason=reason, data=None)
