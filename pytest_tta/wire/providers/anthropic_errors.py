"""How Anthropic refuses a request, and what stands in the heads of its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_tta.wire.exchange import WireAnswer
from pytest_tta.wire.providers.encoding import json_bytes
from pytest_tta.wire.providers.identity import made_id
from pytest_tta.wire.providers.limits import anthropic_limits, told_wait

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_tta.wire.api import ErrorKind
    from pytest_tta.wire.providers.reading import JSONPath

__all__ = ["AnthropicComplaints", "answer_headers", "error_answer", "error_body"]

_REQUEST = "invalid_request_error"
_LIMIT = "rate_limit_error"
_NOUNS = {
    "array": "list",
    "integer": "integer",
    "number": "number",
    "object": "dictionary",
    "string": "string",
}


class _Refused(NamedTuple):
    status: int
    type: str
    message: str
    code: str | None = None


_REFUSED: Mapping[ErrorKind, _Refused] = {
    "bad_request": _Refused(400, _REQUEST, "Invalid request"),
    "context_length": _Refused(
        400, _REQUEST, "prompt is too long: 210000 tokens > 200000 maximum"
    ),
    "content_filter": _Refused(
        400, _REQUEST, "Output blocked by content filtering policy"
    ),
    "bad_tool_call": _Refused(
        400,
        _REQUEST,
        "messages.1.content.0.tool_use.input: Input should be a valid dictionary",
    ),
    "auth": _Refused(401, "authentication_error", "invalid x-api-key"),
    "billing": _Refused(
        402,
        "billing_error",
        "Your credit balance is too low to access the Anthropic API.",
    ),
    "permission": _Refused(
        403,
        "permission_error",
        "Your API key does not have permission to use the specified resource.",
    ),
    "not_found": _Refused(404, "not_found_error", "model: not found"),
    "timeout": _Refused(408, "timeout_error", "Request timed out"),
    "conflict": _Refused(
        409, "conflict_error", "The resource is being changed by another request"
    ),
    "too_large": _Refused(413, "request_too_large", "Request exceeds the maximum size"),
    "unprocessable": _Refused(
        422, _REQUEST, "The request is well formed but cannot be processed"
    ),
    "rate_limit": _Refused(
        429,
        _LIMIT,
        "This request would exceed your organization's rate limit of 4,000 requests "
        "per minute.",
    ),
    "quota": _Refused(429, _LIMIT, "You have reached your specified API usage limits."),
    "spend_limit": _Refused(
        429,
        _LIMIT,
        "Your organization has reached the monthly spend limit of its tier.",
        "enforced_spend_limit_reached",
    ),
    "server_error": _Refused(500, "api_error", "Internal server error"),
    "overloaded": _Refused(529, "overloaded_error", "Overloaded"),
    "gateway_timeout": _Refused(504, "timeout_error", "Gateway timed out"),
}


class AnthropicComplaints:
    """What Anthropic says of a request that it does not take."""

    def missing(self, path: JSONPath, /) -> str:
        """Say that something must be there."""
        return f"{_written(path)}: Field required"

    def wrong(self, path: JSONPath, expected: str, _: object, /) -> str:
        """Say of which type something must be."""
        return f"{_written(path)}: Input should be a valid {_NOUNS[expected]}"

    def unknown(self, path: JSONPath, _: object, allowed: tuple[str, ...], /) -> str:
        """Say which words are known."""
        words = " or ".join(f"'{word}'" for word in allowed)
        return f"{_written(path)}: Input should be {words}"

    def outside(
        self, path: JSONPath, value: float, least: float, most: float, /
    ) -> str:
        """Say that a number is too small or too large."""
        wanted = f"greater than or equal to {least:g}"
        if value >= least:
            wanted = f"less than or equal to {most:g}"
        return f"{_written(path)}: Input should be {wanted}"


def error_body(kind: ErrorKind, message: str | None = None) -> dict[str, Any]:
    """Return an error as Anthropic's bodies and events have it.

    Args:
        kind: What went wrong.
        message: The text in place of the usual one.
    """
    refused = _REFUSED[kind]
    error: dict[str, Any] = {
        "details": {"error_code": refused.code} if refused.code else None,
        "type": refused.type,
        "message": refused.message if message is None else message,
    }
    return {"type": "error", "error": error, "request_id": made_id("req_", 0)}


def error_answer(
    kind: ErrorKind,
    status: int | None = None,
    message: str | None = None,
    headers: Iterable[tuple[str, str]] = (),
) -> WireAnswer:
    """Return an error under the head that Anthropic gives it.

    Args:
        kind: What went wrong.
        status: The HTTP status; the usual one unless given.
        message: The text in place of the usual one.
        headers: Further headers, in place of ours of the same names.
    """
    given = tuple((name.lower(), value) for name, value in headers)
    wait = told_wait(given) if kind == "rate_limit" else None
    answer = WireAnswer.of_bytes(
        json_bytes(error_body(kind, message)),
        "application/json",
        status=_REFUSED[kind].status if status is None else status,
        headers=answer_headers(0, wait=wait),
    )
    return answer.with_headers(*given)


def answer_headers(
    number: int, *, wait: float | None = None
) -> tuple[tuple[str, str], ...]:
    """Return the headers of an answer, beside those that say what its body is.

    Args:
        number: Which request it is, from 1; 0 for an error.
        wait: Seconds until the next request may come; None if it may come at once.
    """
    return (
        ("anthropic-organization-id", "00000000-0000-0000-0000-000000000000"),
        *anthropic_limits(wait=wait),
        ("request-id", made_id("req_", number)),
    )


def _written(path: JSONPath) -> str:
    """Return a path as in `messages.0.role`."""
    return ".".join(map(str, path))
