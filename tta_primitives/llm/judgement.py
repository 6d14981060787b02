"""Whether a model's answer is one to go on with, and the error for each that is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tta_primitives.llm import errors
from tta_primitives.llm.reading import mapping_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tta_primitives.llm.messages import LLMResponse, Tool
    from tta_primitives.llm.reading import Reading
    from tta_primitives.llm.structured import Structure

__all__ = ["OnIncomplete", "check_answer", "judge", "named"]

OnIncomplete: TypeAlias = Literal["raise", "return"]

# Words for what will be the same the next time; all others leave hope.
_PERMANENT = (
    *(
        "authentication",
        "billing",
        "content_filter",
        "content_policy",
        "context_length",
    ),
    *("insufficient_quota", "invalid", "model_not_found", "not_found", "permission"),
)
# HTTP statuses that repeat themselves, which some gateways have in place of a word.
_PERMANENT_STATUSES = frozenset({400, 401, 402, 403, 404, 413, 422})
# Where libraries that send bytes have their errors; SDKs let some of them through.
_TRANSPORTS = frozenset(
    {"anyio", "h11", "h2", "httpcore", "httpcore2", "httpx", "httpx2"}
)
_SHOWN = 80


def judge(
    reading: Reading,
    structure: Structure | None,
    tools: Iterable[Tool] | None,
    where: str,
    on_incomplete: OnIncomplete,
    *,
    is_stream: bool = False,
) -> LLMResponse:
    """Return the response if it is one to go on with, or if nobody wants it judged.

    Args:
        reading: What was read of it.
        structure: What a structured answer must look like.
        tools: Those that the model could ask for; None if that is not known.
        where: Model and path, for the error.
        on_incomplete: Whether to raise, or to return it as it is.
        is_stream: Whether it was streamed.

    Raises:
        IncompleteResponseError: It is not one to go on with.
    """
    check_answer(reading, where)
    data: Any = None
    error = _unfinished(reading, where, is_stream=is_stream)
    error = error or _broken_tools(reading, tools, where)
    if error is None and structure is not None and not reading.tool_calls:
        try:
            data = structure.parse(reading.content)
        except ValueError as problem:
            error = _invalid(reading, structure, problem, where)
    if error is None or on_incomplete == "return":
        return reading.response(data)
    raise error


def check_answer(reading: Reading, where: str) -> None:
    """Refuse what is no answer at all, whatever the user wants to be returned.

    Raises:
        ResponseFailedError: The provider reports an error.
        MalformedResponseError: It has not the form of an answer.
    """
    if reading.error:
        raise _failed(reading, where)
    if not reading.is_answer:
        msg = f"{where} got JSON that is no answer of this API; check base_url and api"
        raise errors.MalformedResponseError(msg, response=reading.response())


def _failed(reading: Reading, where: str) -> errors.ResponseFailedError:
    told: Mapping[str, Any] = mapping_of(reading.error) or {"message": reading.error}
    word = told.get("code") or told.get("type")
    code = None if word is None else str(word)
    words = f"{told.get('code')} {told.get('type')}".lower()
    is_status = isinstance(word, int) and word in _PERMANENT_STATUSES
    is_permanent = is_status or any(part in words for part in _PERMANENT)
    msg = (
        f"{where} got status 200 with an error in it: {code}: "
        f"{_clipped(str(told.get('message')))}"
    )
    response = reading.response()
    return errors.ResponseFailedError(
        msg, response=response, code=code, retryable=not is_permanent
    )


def _unfinished(
    reading: Reading, where: str, *, is_stream: bool
) -> errors.IncompleteResponseError | None:
    if reading.finish_reason in {"stop", "tool_calls"}:
        if reading.content.strip() or reading.tool_calls:
            return None
        msg = f"{where} is empty: no text and no tool call ({reading.reason})"
        return errors.EmptyResponseError(msg, response=reading.response())
    return _cut_short(reading, where, is_stream=is_stream)


def _cut_short(
    reading: Reading, where: str, *, is_stream: bool
) -> errors.IncompleteResponseError:
    response, reason = reading.response(), reading.reason
    match reading.finish_reason:
        case "length":
            msg = (
                f"{where} was cut off after {_told(reading)} ({reason}): raise "
                "max_output_tokens=, or ask for less"
            )
            return errors.ResponseTruncatedError(msg, response=response)
        case "content_filter":
            msg = f"{where} was stopped by the provider's content filter ({reason})"
            return errors.ResponseFilteredError(msg, response=response)
        case "refusal":
            why = f", {reading.detail}" if reading.detail else ""
            msg = f"{where} was refused by the model ({reason}{why}); ask otherwise"
            return errors.ResponseRefusedError(msg, response=response)
        case "unknown" if reason is None and is_stream:
            msg = f"{where} ended after {_told(reading)} without a finish reason"
            return errors.StreamEndedError(msg, response=response)
        case _ if not (reading.content or reading.tool_calls or reason):
            msg = f"{where} is empty: no text, no tool call and no finish reason"
            return errors.EmptyResponseError(msg, response=response)
        case _:
            msg = (
                f"{where} ended with the finish reason {reason!r}, which does not say "
                "that the answer is whole"
            )
            return errors.IncompleteResponseError(msg, response=response)


def _told(reading: Reading) -> str:
    if reading.usage is not None and reading.usage.output_tokens:
        return f"{reading.usage.output_tokens} tokens"
    return f"{len(reading.content)} characters"


def _broken_tools(
    reading: Reading, tools: Iterable[Tool] | None, where: str
) -> errors.BrokenToolCallError | None:
    known = None if tools is None else {tool.name for tool in tools}
    response = reading.response()
    for call in response.tool_calls:
        if call.broken_arguments is not None:
            what = f"arguments that are no JSON object: {call.broken_arguments!r}"
            msg = f"{where} calls {call.name!r} with {_clipped(what)}"
            return errors.BrokenToolCallError(msg, response=response)
        if known is not None and call.name not in known:
            names = ", ".join(map(repr, sorted(known))) or "none"
            msg = f"{where} calls {call.name!r}; the tools it was given are: {names}"
            return errors.BrokenToolCallError(msg, response=response)
    if response.finish_reason == "tool_calls" and not response.tool_calls:
        msg = f"{where} says that it calls tools ({reading.reason}), and calls none"
        return errors.BrokenToolCallError(msg, response=response)
    return None


def _invalid(
    reading: Reading, structure: Structure, problem: ValueError, where: str
) -> errors.InvalidStructuredOutputError:
    # What pydantic says first; its text has a line for each, and a link.
    told: Any = problem
    wrong = str(problem)
    if hasattr(told, "errors"):
        first = told.errors(include_url=False, include_context=False)[0]
        place = ".".join(["$", *map(str, first["loc"])])
        wrong = f"{place}: {first['msg']}"
    msg = f"{where} is not of the form {structure.name}: {_clipped(wrong)}"
    error = errors.InvalidStructuredOutputError(msg, response=reading.response())
    error.__cause__ = problem
    return error


def named(
    error: Exception, reading: Reading, where: str, *, is_stream: bool
) -> errors.IncompleteResponseError | None:
    """Return a named error for what an SDK lets through raw, None for all others.

    Args:
        error: What came out of the SDK.
        reading: What was read until then.
        where: Model and path.
        is_stream: Whether a stream had begun.
    """
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    is_unreadable = isinstance(error, UnicodeDecodeError) or "json" in modules
    if not is_unreadable and modules.isdisjoint(_TRANSPORTS):
        return None
    response, told = reading.response(), f"{type(error).__name__}: {error}"
    if is_unreadable:
        what = "an event of its stream" if is_stream else "the body"
        msg = f"{where} got status 200, but {what} is no JSON ({_clipped(told)})"
        return errors.MalformedResponseError(msg, response=response)
    msg = f"{where} was cut after {_told(reading)} ({_clipped(told)})"
    return errors.StreamEndedError(msg, response=response)


def _clipped(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text_of(text[:_SHOWN])}..."
