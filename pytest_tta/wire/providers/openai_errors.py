"""How OpenAI refuses a request, and what stands in the heads of its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_tta.wire.exchange import WireAnswer
from pytest_tta.wire.providers.encoding import json_bytes
from pytest_tta.wire.providers.identity import made_id
from pytest_tta.wire.providers.limits import openai_limits, told_wait

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_tta.wire.api import ErrorKind
    from pytest_tta.wire.providers.reading import JSONPath

__all__ = [
    "NO_WORDS",
    "OpenAIComplaints",
    "Refused",
    "answer_headers",
    "error_answer",
    "error_fields",
    "refusal",
]

# What a model says that refuses without a word: clients take an empty text for none.
NO_WORDS = "I'm sorry, but I can't help with that."

_REQUEST = "invalid_request_error"
_SERVER = "server_error"
_NOUNS = {
    "array": "an array of objects",
    "integer": "an integer",
    "number": "a decimal",
    "object": "an object",
    "string": "a string",
}


class Refused(NamedTuple):
    """What OpenAI says of one kind of error.

    Attributes:
        status: The HTTP status.
        type: The kind, in OpenAI's words.
        code: What exactly; None where OpenAI gives no code.
        message: The text for people.
        param: Which field of the request is to blame.
        more: Further fields.
    """

    status: int
    type: str | None
    code: str | None
    message: str
    param: str | None = None
    more: Mapping[str, Any] = {}


_REFUSED: Mapping[ErrorKind, Refused] = {
    "bad_request": Refused(400, _REQUEST, None, "Invalid request."),
    "context_length": Refused(
        400,
        _REQUEST,
        "context_length_exceeded",
        "This model's maximum context length is 128000 tokens. However, your messages "
        "resulted in 131072 tokens. Please reduce the length of the messages.",
        "messages",
    ),
    # The policy block of Azure, which has a code where OpenAI itself has none.
    "content_filter": Refused(
        400,
        None,
        "content_filter",
        "The response was filtered due to the prompt triggering Azure OpenAI's content "
        "management policy. Please modify your prompt and retry.",
        "prompt",
        {
            "status": 400,
            "innererror": {
                "code": "ResponsibleAIPolicyViolation",
                "content_filter_result": {
                    "hate": {"filtered": False, "severity": "safe"},
                    "self_harm": {"filtered": False, "severity": "safe"},
                    "sexual": {"filtered": False, "severity": "safe"},
                    "violence": {"filtered": True, "severity": "high"},
                },
            },
        },
    ),
    # Servers that check the model's tool calls themselves, such as Groq's.
    "bad_tool_call": Refused(
        400,
        _REQUEST,
        "tool_use_failed",
        "Failed to call a function. Please adjust your prompt. "
        "See 'failed_generation' for more details.",
        None,
        {"failed_generation": '{"name": '},
    ),
    "auth": Refused(401, _REQUEST, "invalid_api_key", "Incorrect API key provided."),
    # OpenAI answers 429 instead; those that take its requests answer 402.
    "billing": Refused(
        402,
        "billing_not_active",
        "billing_not_active",
        "Your account is not active, please check your billing details.",
    ),
    "permission": Refused(
        403,
        "request_forbidden",
        "unsupported_country_region_territory",
        "Country, region, or territory not supported",
    ),
    "not_found": Refused(
        404,
        _REQUEST,
        "model_not_found",
        "The model does not exist or you do not have access to it.",
    ),
    "timeout": Refused(408, "timeout", "request_timeout", "Request timed out."),
    "conflict": Refused(
        409, _REQUEST, "conflict", "Another request holds the lock of this resource."
    ),
    "too_large": Refused(
        413, _REQUEST, None, "Maximum content size limit (26214400) exceeded."
    ),
    "unprocessable": Refused(
        422, _REQUEST, None, "The request is well formed but cannot be processed."
    ),
    "rate_limit": Refused(
        429,
        "requests",
        "rate_limit_exceeded",
        "Rate limit reached on requests per min (RPM): Limit 10000, Used 10000, "
        "Requested 1. Please try again later.",
    ),
    "quota": Refused(
        429,
        "insufficient_quota",
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    "spend_limit": Refused(
        429,
        _REQUEST,
        "billing_hard_limit_reached",
        "Billing hard limit has been reached",
    ),
    "server_error": Refused(
        500,
        _SERVER,
        None,
        "The server had an error while processing your request. Sorry about that!",
    ),
    "overloaded": Refused(
        503,
        _SERVER,
        "server_is_overloaded",
        "The engine is currently overloaded, please try again later",
    ),
    "gateway_timeout": Refused(504, _SERVER, None, "The gateway timed out."),
}


class OpenAIComplaints:
    """What OpenAI says of a request that it does not take."""

    def missing(self, path: JSONPath, /) -> str:
        """Say that something must be there."""
        return f"Missing required parameter: '{_written(path)}'."

    def wrong(self, path: JSONPath, expected: str, value: object, /) -> str:
        """Say of which type something must be."""
        return (
            f"Invalid type for '{_written(path)}': expected {_NOUNS[expected]}, "
            f"but got {_noun(value)} instead."
        )

    def unknown(
        self, path: JSONPath, value: object, allowed: tuple[str, ...], /
    ) -> str:
        """Say which words are known."""
        words = ", ".join(f"'{word}'" for word in allowed)
        return f"Invalid value for '{_written(path)}': '{value}'. Supported: {words}."

    def outside(
        self, path: JSONPath, value: float, least: float, most: float, /
    ) -> str:
        """Say that a number is too small or too large."""
        wanted = f">= {least:g}" if value < least else f"<= {most:g}"
        return (
            f"Invalid '{_written(path)}': expected a value {wanted}, "
            f"but got {value:g} instead."
        )


def refusal(kind: ErrorKind, message: str | None = None) -> Refused:
    """Return what OpenAI says of a kind of error.

    Args:
        kind: What went wrong.
        message: The text in place of the usual one.
    """
    refused = _REFUSED[kind]
    return refused if message is None else refused._replace(message=message)


def error_fields(refused: Refused) -> dict[str, Any]:
    """Return an error as OpenAI's bodies have it."""
    return {
        "message": refused.message,
        "type": refused.type,
        "param": refused.param,
        "code": refused.code,
        **refused.more,
    }


def error_answer(
    refused: Refused,
    error: Mapping[str, Any],
    status: int,
    headers: Iterable[tuple[str, str]],
) -> WireAnswer:
    """Return an error under the head that OpenAI gives it.

    Args:
        refused: What OpenAI says.
        error: The error as the body has it.
        status: The HTTP status.
        headers: Further headers, in place of ours of the same names.
    """
    given = tuple((name.lower(), value) for name, value in headers)
    wait = told_wait(given) if refused.code == "rate_limit_exceeded" else None
    answer = WireAnswer.of_bytes(
        json_bytes({"error": error}),
        "application/json",
        status=status,
        headers=answer_headers(0, 0.0, wait=wait),
    )
    return answer.with_headers(*given)


def answer_headers(
    number: int, delay: float, *, wait: float | None = None
) -> tuple[tuple[str, str], ...]:
    """Return the headers of an answer, beside those that say what its body is.

    Args:
        number: Which request it is, from 1; 0 for an error.
        delay: Seconds that the model took to begin.
        wait: Seconds until the next request may come; None if it may come at once.
    """
    return (
        ("openai-organization", "org-test"),
        ("openai-processing-ms", str(round(delay * 1000))),
        ("openai-version", "2020-10-01"),
        ("x-request-id", made_id("req_", number)),
        *openai_limits(wait=wait),
    )


def _written(path: JSONPath) -> str:
    """Return a path as in `messages[0].role`."""
    steps = (f"[{one}]" if isinstance(one, int) else f".{one}" for one in path)
    return "".join(steps).removeprefix(".")


def _noun(value: object) -> str:
    kinds = {bool: "a boolean", int: "an integer", float: "a decimal", str: "a string"}
    if isinstance(value, list):
        return "an array"
    return "null" if value is None else kinds.get(type(value), "an object")
