"""What a provider's API has to be able to do; one class for each implements it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Unpack

    from pytest_tta.wire.exchange import WireAnswer
    from tta_primitives.llm import LLMRequest, LLMResponse

__all__ = ["Api", "ErrorKind", "ErrorTold", "Said", "WireFault", "WireStrike"]

ErrorKind: TypeAlias = Literal[
    "bad_request",
    "context_length",
    "content_filter",
    "bad_tool_call",
    "auth",
    "billing",
    "permission",
    "not_found",
    "timeout",
    "conflict",
    "too_large",
    "unprocessable",
    "rate_limit",
    "quota",
    "spend_limit",
    "server_error",
    "overloaded",
    "gateway_timeout",
]
"""What went wrong, in no vendor's words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a model says, in no vendor's words.

    Attributes:
        response: The whole answer: text, tool calls, why it ended, usage, model.
        timeline: The text in pieces, each with its seconds after the head; None for
            words that come all at once. What is not streamed comes with the last.
        delay: Seconds until the head.
    """

    response: LLMResponse
    timeline: tuple[tuple[float, str], ...] | None = None
    delay: float = 0.0


class ErrorTold(TypedDict, total=False):
    """What may be told of an error otherwise than a provider usually does.

    Attributes:
        status: The HTTP status, in place of the one that goes with the kind.
        message: What the error says, in place of the provider's words.
        headers: Further headers, in place of the provider's of the same names.
    """

    status: int | None
    message: str | None
    headers: Iterable[tuple[str, str]]


class Api(Protocol):
    """One API of a provider: how it is asked, and how it answers.

    Attributes:
        name: The provider and the API, such as `openai.chat`.
    """

    name: str

    def serves(self, method: str, path: str, /) -> bool:
        """Tell whether a request is for this API.

        Args:
            method: `POST`, for instance.
            path: The path of the URL, without the query.
        """
        ...

    def request(self, body: Mapping[str, Any], /) -> LLMRequest:
        """Return what is asked, in no vendor's words.

        Args:
            body: The JSON of the request.

        Raises:
            ValueError: The provider would refuse it; the text is the reason.
        """
        ...

    def streams(self, body: Mapping[str, Any], /) -> bool:
        """Tell whether a request asks for a stream."""
        ...

    def answer(self, said: Said, body: Mapping[str, Any], number: int, /) -> WireAnswer:
        """Return the answer as the provider writes it, a stream if one is asked for.

        Equal arguments give equal bytes: ids come from the number, dates from a fixed
        day. Of a stream, every event is a part of the body of its own.

        Args:
            said: What the model says.
            body: The JSON of the request.
            number: Which request it is, from 1.
        """
        ...

    def empty(self, body: Mapping[str, Any], number: int, /) -> WireAnswer:
        """Return an answer without any choice or content, as providers sometimes do."""
        ...

    def error(self, kind: ErrorKind, /, **told: Unpack[ErrorTold]) -> WireAnswer:
        """Return an error as the provider writes it.

        Args:
            kind: What went wrong.
            told: What is told of it otherwise than usual.
        """
        ...

    def error_event(self, kind: ErrorKind, message: str | None = None, /) -> bytes:
        """Return an error as it comes in the middle of a stream."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WireStrike:
    """One fault acting on one request.

    Attributes:
        api: The API that was asked.
        body: The JSON of the request.
        number: Which request to the wire it is, from 1.
        said: What the model would have said.
    """

    api: Api
    body: Mapping[str, Any]
    number: int
    said: Said

    def answer(self) -> WireAnswer:
        """Return what would have been answered without the fault."""
        return self.api.answer(self.said, self.body, self.number)


class WireFault(Protocol):
    """What a fault can do to an answer, whichever fault it is."""

    def on_wire(self, strike: WireStrike, /) -> WireAnswer:
        """Return what is answered instead."""
        ...
