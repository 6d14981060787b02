"""Faults in the body of an answer whose status says that all is well.

Many of them raise nothing in a client: what it returns is empty, or of another type.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_tta.faults.llm_base import (
    Alters,
    Expectation,
    LLMFault,
    Raises,
    written,
)
from pytest_tta.faults.llm_edits import (
    data_of,
    is_stream,
    replaced,
    resized,
    rewritten,
    said_with_mark,
    with_data,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_tta.wire.api import WireStrike
    from pytest_tta.wire.exchange import WireAnswer
    from tta_primitives.llm import LLMResponse

__all__ = [
    "bad_gzip",
    "bad_utf8",
    "empty_body",
    "empty_choices",
    "error_in_200",
    "html_200",
    "json_instead_of_sse",
    "malformed_json",
    "null_200",
    "short_body",
]

_PAGE = """\
<html>
<head><title>Sign in</title></head>
<body><h1>Sign in to this network</h1></body>
</html>
"""
# A character that nobody writes: where it stands in the text, other bytes are put.
_MARK = "\ue000"
_NO_UTF8 = b"\xff"
_JSON = "application/json"


def empty_choices() -> LLMFault:
    """Answer without any choice or content."""
    return _altered(empty_choices, _empty_answer, _empty)


def error_in_200() -> LLMFault:
    """Report an error of the server under status 200."""
    return _altered(error_in_200, _error_answer, _empty)


def html_200() -> LLMFault:
    """Answer with an HTML page under status 200, as a captive portal does."""
    wire = partial(_fixed, _PAGE.encode(), "text/html")
    return _altered(html_200, wire, _page)


def null_200() -> LLMFault:
    """Answer with the JSON `null`."""
    return _altered(null_200, partial(_fixed, b"null", _JSON), _empty)


def json_instead_of_sse() -> LLMFault:
    """Answer a request for a stream with plain JSON, all of it at once."""
    return _altered(json_instead_of_sse, _unstreamed, _empty, ("stream",))


def empty_body() -> LLMFault:
    """Answer with no body at all."""
    return _raised(empty_body, _without_body, partial(no_json, ""))


def malformed_json() -> LLMFault:
    """Answer with JSON that ends in its middle; for a stream, as `bad_event` does."""
    return _raised(malformed_json, _half_json, partial(no_json, '{"choices": [{'))


def bad_utf8() -> LLMFault:
    """Answer with bytes within the text that are no UTF-8."""
    return _raised(bad_utf8, _garbled, _no_utf8)


def short_body() -> LLMFault:
    """Close the connection in the middle of the body."""
    error = partial(ConnectionError, "the connection was closed within the body")
    return _raised(short_body, _half_body, error)


def bad_gzip() -> LLMFault:
    """Announce a compressed body (`content-encoding: gzip`) and send a plain one."""
    error = partial(ConnectionError, "the body cannot be decompressed")
    return _raised(bad_gzip, _announced, error)


def _altered(
    maker: Callable[[], LLMFault],
    wire: Callable[[WireStrike], WireAnswer],
    alter: Callable[[LLMResponse], LLMResponse],
    needs: tuple[str, ...] = (),
) -> LLMFault:
    expect = Expectation(may_retry=True)
    return Alters(0, written(maker), expect, wire, needs, alter=alter)


def _raised(
    maker: Callable[[], LLMFault],
    wire: Callable[[WireStrike], WireAnswer],
    error: Callable[[], Exception],
) -> LLMFault:
    expect = Expectation(may_retry=True)
    return Raises(0, written(maker), expect, wire, error=error)


def _empty(response: LLMResponse) -> LLMResponse:
    return replace(
        response, content="", tool_calls=(), data=None, finish_reason="unknown"
    )


def _page(response: LLMResponse) -> LLMResponse:
    return replace(_empty(response), content=_PAGE)


def _empty_answer(strike: WireStrike) -> WireAnswer:
    return strike.api.empty(strike.body, strike.number)


def _error_answer(strike: WireStrike) -> WireAnswer:
    """Return an error as each API tells it in what is a good answer otherwise."""
    if strike.api.name == "openai.responses":
        return rewritten(strike.answer(), _as_failed)
    return strike.api.error("server_error", status=200)


def _as_failed(value: dict[str, Any]) -> None:
    response = value.get("response") if "type" in value else value
    if value.get("type") == "response.completed":
        value["type"] = "response.failed"
    if isinstance(response, dict) and response.get("status") == "completed":
        response["status"] = "failed"
        response["output"] = []
        error = {"code": "server_error", "message": "The server had an error."}
        response["error"] = error


def _fixed(data: bytes, kind: str, strike: WireStrike) -> WireAnswer:
    return replace(replaced(strike.answer(), data, kind), head_after=strike.said.delay)


def _unstreamed(strike: WireStrike) -> WireAnswer:
    body = {**strike.body, "stream": False}
    return strike.api.answer(strike.said, body, strike.number)


def _without_body(strike: WireStrike) -> WireAnswer:
    kind = "text/event-stream" if strike.api.streams(strike.body) else _JSON
    return _fixed(b"", kind, strike)


def _half_json(strike: WireStrike) -> WireAnswer:
    answer = strike.answer()
    if not is_stream(answer):
        data = data_of(answer)
        return with_data(answer, data[: len(data) // 2])
    return broken_event(answer, 0)


def broken_event(answer: WireAnswer, tokens: int) -> WireAnswer:
    """Return a stream in which the event after so many tokens is no JSON."""
    at = answer.tokens[min(tokens, len(answer.tokens) - 1)] if answer.tokens else 0
    body = list(answer.body)
    when, part = body[at]
    head, _, _ = part.partition(b"data: ")
    body[at] = when, head + b'data: {"oops\n\n'
    return replace(answer, body=tuple(body))


def _garbled(strike: WireStrike) -> WireAnswer:
    said = said_with_mark(strike, _MARK)
    answer = strike.api.answer(said, strike.body, strike.number)
    escaped = json.dumps(_MARK)[1:-1].encode()
    body = tuple(
        (at, part.replace(_MARK.encode(), _NO_UTF8).replace(escaped, _NO_UTF8))
        for at, part in answer.body
    )
    return resized(replace(answer, body=body))


def _half_body(strike: WireStrike) -> WireAnswer:
    answer = strike.answer()
    if is_stream(answer):
        return answer.cut(max(1, len(answer.body) // 2), "closed")
    data = data_of(answer)
    at = answer.body[-1][0] if answer.body else 0.0
    return replace(answer, body=((at, data[: len(data) // 2]),), ending="closed")


def _announced(strike: WireStrike) -> WireAnswer:
    return strike.answer().with_headers(("content-encoding", "gzip"))


def no_json(text: str) -> Exception:
    """Return what a client raises for text that breaks off where a value should be."""
    return json.JSONDecodeError("Expecting value", text, len(text))


def _no_utf8() -> Exception:
    return UnicodeDecodeError("utf-8", _NO_UTF8, 0, 1, "invalid start byte")
