"""What a provider reports with a status, on the wire and as an error of a primitive."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_tta.clock import active
from pytest_tta.faults.llm_base import Expectation, LLMFault, Raises
from tta_primitives.arguments import (
    check_flag,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_tta.faults.llm_base import Written
    from pytest_tta.wire.api import ErrorKind, WireStrike
    from pytest_tta.wire.exchange import WireAnswer

__all__ = [
    "Advice",
    "LLMStatusError",
    "Reported",
    "StatusAnswer",
    "checked_advice",
    "checked_message",
    "reported",
    "status_fault",
]

Headers: TypeAlias = tuple[tuple[str, str], ...]

_RATE_LIMITED = 429
# Of each kind the status, the word in the body, and the text. They are for the height
# of a primitive; on the wire each provider has its own.
_WORDS: dict[str, tuple[int, str, str]] = {
    "bad_request": (400, "invalid_request_error", "The request is not valid."),
    "context_length": (
        400,
        "context_length_exceeded",
        "The prompt is longer than the context of the model.",
    ),
    "content_filter": (400, "content_filter", "The prompt was filtered."),
    "bad_tool_call": (400, "tool_use_failed", "The model's tool call is not valid."),
    "auth": (401, "invalid_api_key", "The API key is not valid."),
    "billing": (402, "billing_error", "The credit is used up."),
    "permission": (403, "permission_error", "This is not permitted with this key."),
    "not_found": (404, "model_not_found", "There is no such model."),
    "timeout": (408, "request_timeout", "The request took too long."),
    "conflict": (409, "conflict", "Something else holds the resource."),
    "too_large": (413, "request_too_large", "The request is too large."),
    "unprocessable": (422, "unprocessable_entity", "The request makes no sense."),
    "rate_limit": (_RATE_LIMITED, "rate_limit_exceeded", "Too many requests."),
    "quota": (_RATE_LIMITED, "insufficient_quota", "The quota is used up."),
    "spend_limit": (_RATE_LIMITED, "rate_limit_error", "The spend limit is reached."),
    "server_error": (500, "server_error", "The server had an error."),
    "overloaded": (503, "overloaded_error", "The server is overloaded."),
    "gateway_timeout": (504, "timeout_error", "The gateway waited for too long."),
}


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """What an error says of the HTTP answer that it came with.

    Attributes:
        status_code: The status.
        headers: By name in lower case.
    """

    status_code: int
    headers: Mapping[str, str]


class LLMStatusError(Exception):
    """What a primitive raises in place of a vendor's error that has a status.

    Args:
        message: What the provider says.
        status_code: The HTTP status.
        headers: Those of the answer, by name in lower case.
        body: The JSON of the answer; None if it was none.
    """

    # All arguments are positional, so that copies and pickles keep them.
    def __init__(
        self,
        message: str,
        status_code: int,
        headers: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, status_code, headers, body)
        self.message = message
        self.status_code = status_code
        self.response: StatusAnswer = StatusAnswer(status_code, headers)
        self.body = body

    def __str__(self) -> str:
        return f"{self.status_code}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What the headers say about coming back."""

    after: str | None = None
    after_ms: str | None = None
    date: float | None = None
    should_retry: bool | None = None

    @property
    def wait(self) -> float | None:
        """The seconds that a client must wait; None if it is told nothing sound."""
        if (exact := _positive(self.after_ms)) is not None:
            return exact / 1000
        return self.date if self.after is None else _positive(self.after)

    def headers(self) -> Headers:
        """Return the headers; those that tell of limits are the provider's own."""
        pairs: list[tuple[str, str]] = []
        if self.after is not None:
            pairs.append(("retry-after", self.after))
        if self.date is not None:
            # A date knows no fractions, and earlier than asked for is too early.
            pairs.append(("retry-after", _http_date(self.date)))
        if self.after_ms is not None:
            pairs.append(("retry-after-ms", self.after_ms))
        if self.should_retry is not None:
            pairs.append(("x-should-retry", str(self.should_retry).lower()))
        return tuple(pairs)


def _positive(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def _http_date(wait: float) -> str:
    return formatdate(math.ceil(_now() + wait), usegmt=True)


def _now() -> float:
    """Return the date as the code under test sees it, in seconds since 1970."""
    clock = active.clock
    # Asked from here, `time.time()` shows real time also while a clock is active.
    if clock is None or not clock._shows_wall:
        return time.time()
    return clock.wall_ns() / 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """An error that a provider reports, at both heights."""

    kind: ErrorKind
    status: int | None = None
    message: str | None = None
    advice: Advice = field(default_factory=Advice)

    def answer(self, strike: WireStrike) -> WireAnswer:
        """Return it as the provider writes it."""
        return strike.api.error(
            self.kind,
            status=self.status,
            message=self.message,
            headers=self.advice.headers(),
        )

    def error(self) -> LLMStatusError:
        """Return it as a primitive raises it."""
        usual, word, text = _WORDS[self.kind]
        message = text if self.message is None else self.message
        told: dict[str, Any] = {"message": message, "type": word, "code": word}
        if self.kind == "spend_limit":
            told = {"message": message, "type": word}
            told["details"] = {"error_code": "enforced_spend_limit_reached"}
        return LLMStatusError(
            message,
            usual if self.status is None else self.status,
            dict(self.advice.headers()),
            {"error": told},
        )


def status_fault(
    source: Written, reported: Reported, *, may_retry: bool, delivered: bool = False
) -> LLMFault:
    """Return a fault that a provider reports with a status.

    Args:
        source: How it is written down.
        reported: What is reported.
        may_retry: Whether a client may try again, if `x-should-retry` does not tell.
        delivered: Whether the request may have been executed.
    """
    told = reported.advice.should_retry
    expect = Expectation(
        may_retry=may_retry if told is None else told,
        not_before=reported.advice.wait,
        delivered=delivered,
    )
    return Raises(0, source, expect, reported.answer, error=reported.error)


def reported(
    kind: ErrorKind,
    message: str | None = None,
    *,
    should_retry: bool | None = None,
    status: int | None = None,
) -> Reported:
    """Return an error that a provider reports; its arguments are checked.

    Raises:
        TypeError: The message is no text, or `should_retry` is no bool.
    """
    return Reported(
        kind=kind,
        status=status,
        message=checked_message(message),
        advice=Advice(should_retry=checked_advice(should_retry)),
    )


def checked_message(message: str | None) -> str | None:
    """Return what a provider says, None for its usual words.

    Raises:
        TypeError: It is no text.
    """
    if message is not None and not isinstance(message, str):
        msg = f"message={message!r} must be a text, or None for the provider's own"
        raise TypeError(msg)
    return message


def checked_advice(should_retry: object) -> bool | None:
    """Return what `x-should-retry` says, None for no such header.

    Raises:
        TypeError: It is neither a bool nor None.
    """
    if should_retry is None:
        return None
    return check_flag("should_retry", should_retry)
