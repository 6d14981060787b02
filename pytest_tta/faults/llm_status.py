"""Faults that a provider reports with a status: limits, refusals to serve, outages."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from pytest_tta.faults.llm_base import Expectation, LLMFault, Raises, written
from pytest_tta.faults.llm_edits import replaced, spliced
from pytest_tta.faults.llm_reports import (
    Advice,
    LLMStatusError,
    Reported,
    checked_advice,
    checked_message,
    reported,
    status_fault,
)
from tta_primitives.arguments import (
    check_choice,
    check_count,
    check_flag,
    is_timedelta,
    seconds,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from pytest_tta.faults.llm_base import Written
    from pytest_tta.wire.api import ErrorKind, WireStrike
    from pytest_tta.wire.exchange import WireAnswer

__all__ = [
    "auth",
    "bad_gateway_html",
    "bad_request",
    "bad_tool_call",
    "billing",
    "conflict",
    "error_event",
    "gateway_timeout",
    "model_gone",
    "overloaded",
    "permission",
    "quota_exceeded",
    "rate_limit",
    "request_timeout",
    "server_error",
    "spend_limit",
    "too_large",
    "unprocessable",
]

_SERVER_ERRORS = range(500, 600)
_HTML = """\
<html>
<head><title>{status} Bad Gateway</title></head>
<body><center><h1>{status} Bad Gateway</h1></center><hr></body>
</html>
"""


def rate_limit(
    after: float | timedelta | str | None = None,
    *,
    after_ms: float | str | None = None,
    date: float | timedelta | None = None,
    message: str | None = None,
    should_retry: bool | None = None,
) -> LLMFault:
    """Answer 429: too many requests for now.

    Args:
        after: The header `retry-after`: seconds, of any sign, or a text that is sent as
            it is, such as "soon"; None for no such header.
        after_ms: The header `retry-after-ms`: milliseconds, or a text.
        date: The header `retry-after` as an HTTP date, so many seconds from the moment
            of the answer.
        message: What the provider says.
        should_retry: The header `x-should-retry`; None for no such header.

    Raises:
        TypeError: An argument is of another kind.
        ValueError: Both `after` and `date` are given, as there is one such header, or
            `date` is negative.
    """
    if after is not None and date is not None:
        msg = (
            f"rate_limit(after={after!r}, date={date!r}) has one header retry-after "
            "for both; give after= for seconds, or date= for an HTTP date"
        )
        raise ValueError(msg)
    advice = Advice(
        after=_header_of("after", after),
        after_ms=_header_of("after_ms", after_ms),
        date=None if date is None else seconds("date", date, zero=True),
        should_retry=checked_advice(should_retry),
    )
    source = written(
        rate_limit,
        after=_number(after),
        after_ms=after_ms,
        date=_number(date),
        message=checked_message(message),
        should_retry=should_retry,
    )
    told = Reported(kind="rate_limit", message=message, advice=advice)
    return status_fault(source, told, may_retry=True)


def _header_of(name: str, value: float | timedelta | str | None) -> str | None:
    """Return the value of a header; numbers may be such as no server should send."""
    if is_timedelta(value):
        value = value.total_seconds()
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        kind = type(value).__name__
        msg = f"{name}={value!r} must be a number, a text or None, not {kind}"
        raise TypeError(msg)
    return f"{value:.17g}"


def _number(value: float | timedelta | str | None) -> float | str | None:
    return value.total_seconds() if is_timedelta(value) else value  # type: ignore[return-value]


def quota_exceeded(
    *, message: str | None = None, should_retry: bool | None = None
) -> LLMFault:
    """Answer 429 for a quota that is used up, which no waiting brings back.

    Args:
        message: What the provider says.
        should_retry: The header `x-should-retry`; None for no such header.

    Raises:
        TypeError: An argument is of another kind.
    """
    return _plain(quota_exceeded, "quota", message, should_retry)


def spend_limit(
    *, message: str | None = None, should_retry: bool | None = None
) -> LLMFault:
    """Answer 429 for a limit of spending; arguments as for `quota_exceeded`."""
    return _plain(spend_limit, "spend_limit", message, should_retry)


def overloaded(
    *,
    in_stream: bool = False,
    after_tokens: int = 1,
    message: str | None = None,
    should_retry: bool | None = None,
) -> LLMFault:
    """Answer that the provider has too much to do: 503, or 529 as Anthropic does.

    Args:
        in_stream: Whether it says so within a stream, after status 200.
        after_tokens: How many tokens of that stream come before.
        message: What the provider says.
        should_retry: The header `x-should-retry`; None for no such header.

    Raises:
        TypeError: An argument is of another kind.
        ValueError: `after_tokens` is not a count.
    """
    source = written(
        overloaded,
        in_stream=check_flag("in_stream", in_stream),
        after_tokens=check_count("after_tokens", after_tokens),
        message=message,
        should_retry=should_retry,
    )
    told = reported("overloaded", message, should_retry=should_retry)
    if in_stream:
        return _event_fault(source, told, after_tokens)
    return status_fault(source, told, may_retry=True)


def error_event(
    kind: Literal["server_error", "overloaded", "rate_limit"] = "server_error",
    *,
    after_tokens: int = 1,
    message: str | None = None,
) -> LLMFault:
    """Report an error within a stream, after status 200.

    Args:
        kind: What went wrong.
        after_tokens: How many tokens come before.
        message: What the provider says.

    Raises:
        TypeError: The message is no text.
        ValueError: The kind is unknown, or `after_tokens` is not a count.
    """
    check_choice("kind", kind, ("server_error", "overloaded", "rate_limit"))
    source = written(
        error_event,
        kind=kind,
        after_tokens=check_count("after_tokens", after_tokens),
        message=message,
    )
    return _event_fault(source, reported(kind, message), after_tokens)


def _event_fault(source: Written, told: Reported, after_tokens: int) -> LLMFault:
    return Raises(
        after_tokens,
        source,
        Expectation(may_retry=True),
        partial(_event, told, after_tokens),
        ("stream",),
        error=partial(_event_error, told),
    )


def _event(told: Reported, after_tokens: int, strike: WireStrike) -> WireAnswer:
    event = strike.api.error_event(told.kind, told.message)
    return spliced(strike.answer(), after_tokens, event)


def _event_error(told: Reported) -> LLMStatusError:
    """Return the error with the status that was given before it happened."""
    error = told.error()
    return LLMStatusError(error.message, 200, {}, error.body)


def server_error(
    status: int = 500, *, message: str | None = None, should_retry: bool | None = None
) -> LLMFault:
    """Answer that the server failed.

    Args:
        status: The status, from 500 to 599.
        message: What the provider says.
        should_retry: The header `x-should-retry`; None for no such header.

    Raises:
        TypeError: An argument is of another kind.
        ValueError: The status is none of a server's error.
    """
    source = written(
        server_error,
        status=_checked_status(status),
        message=message,
        should_retry=should_retry,
    )
    told = reported("server_error", message, should_retry=should_retry, status=status)
    return status_fault(source, told, may_retry=True, delivered=True)


def bad_gateway_html(status: int = 502) -> LLMFault:
    """Answer with the HTML page of a gateway in front of the provider.

    Args:
        status: The status, from 500 to 599; 520 and the like are Cloudflare's.

    Raises:
        ValueError: The status is none of a server's error.
    """
    source = written(bad_gateway_html, status=_checked_status(status))
    page = _HTML.format(status=status)
    return Raises(
        0,
        source,
        Expectation(may_retry=True),
        partial(_gateway_page, page, status),
        error=partial(LLMStatusError, page, status, {"content-type": "text/html"}),
    )


def _gateway_page(page: str, status: int, strike: WireStrike) -> WireAnswer:
    answer = replace(strike.answer(), head_after=0.0)
    return replaced(answer, page.encode(), "text/html", status)


def _checked_status(status: int) -> int:
    if not isinstance(status, int) or status not in _SERVER_ERRORS:
        msg = f"status={status!r} must be that of a server's error, from 500 to 599"
        raise ValueError(msg)
    return status


def gateway_timeout(
    *, message: str | None = None, should_retry: bool | None = None
) -> LLMFault:
    """Answer 504; arguments as for `quota_exceeded`."""
    return _plain(
        gateway_timeout,
        "gateway_timeout",
        message,
        should_retry,
        may_retry=True,
        delivered=True,
    )


def auth(*, message: str | None = None, should_retry: bool | None = None) -> LLMFault:
    """Answer 401, a bad key; arguments as for `quota_exceeded`."""
    return _plain(auth, "auth", message, should_retry)


def billing(
    *, message: str | None = None, should_retry: bool | None = None
) -> LLMFault:
    """Answer 402, no credit is left; arguments as for `quota_exceeded`."""
    return _plain(billing, "billing", message, should_retry)


def permission(
    *, message: str | None = None, should_retry: bool | None = None
) -> LLMFault:
    """Answer 403, not with this key or from this place; as `quota_exceeded`."""
    return _plain(permission, "permission", message, should_retry)


def model_gone(
    *, message: str | None = None, should_retry: bool | None = None
) -> LLMFault:
    """Answer 404, no such model any more; arguments as for `quota_exceeded`."""
    return _plain(model_gone, "not_found", message, should_retry)


def request_timeout(
    *, message: str | None = None, should_retry: bool | None = None
) -> LLMFault:
    """Answer 408, the request took too long; arguments as for `quota_exceeded`."""
    return _plain(
        request_timeout,
        "timeout",
        message,
        should_retry,
        may_retry=True,
        delivered=True,
    )


def conflict(
    *, message: str | None = None, should_retry: bool | None = None
) -> LLMFault:
    """Answer 409, something else holds what is needed; as `quota_exceeded`."""
    return _plain(conflict, "conflict", message, should_retry, may_retry=True)


def too_large(
    *, message: str | None = None, should_retry: bool | None = None
) -> LLMFault:
    """Answer 413, the request has too many bytes; arguments as for `quota_exceeded`."""
    return _plain(too_large, "too_large", message, should_retry)


def unprocessable(
    *, message: str | None = None, should_retry: bool | None = None
) -> LLMFault:
    """Answer 422, the request makes no sense; arguments as for `quota_exceeded`."""
    return _plain(unprocessable, "unprocessable", message, should_retry)


def bad_request(
    *, message: str | None = None, should_retry: bool | None = None
) -> LLMFault:
    """Answer 400, the request is not valid; arguments as for `quota_exceeded`."""
    return _plain(bad_request, "bad_request", message, should_retry)


def bad_tool_call(
    *, message: str | None = None, should_retry: bool | None = None
) -> LLMFault:
    """Answer 400 because the model's own tool call is broken, as Groq does.

    Another try may well succeed, as the model may write another call; arguments as for
    `quota_exceeded`.
    """
    return _plain(
        bad_tool_call,
        "bad_tool_call",
        message,
        should_retry,
        may_retry=True,
        delivered=True,
    )


def _plain(
    maker: Callable[..., LLMFault],
    kind: ErrorKind,
    message: str | None,
    should_retry: object,
    *,
    may_retry: bool = False,
    delivered: bool = False,
) -> LLMFault:
    """Return a fault of which nothing can be chosen but the words and the advice."""
    source = written(maker, message=message, should_retry=should_retry)
    told = reported(kind, message, should_retry=checked_advice(should_retry))
    return status_fault(source, told, may_retry=may_retry, delivered=delivered)
