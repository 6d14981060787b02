"""What can be wrong with a model's answer: one error for each, drawn as a tree.

    PrimitiveError
    ├── LLMConfigurationError             also a ValueError: no key, or no model
    └── IncompleteResponseError           carries the response; retryable or not
        ├── ResponseTruncatedError        out of tokens                    not retryable
        ├── ResponseFilteredError         stopped by a content filter      not retryable
        ├── ResponseRefusedError          the model declined               not retryable
        ├── EmptyResponseError            neither text nor a tool call
        ├── BrokenToolCallError           also a ValueError
        ├── InvalidStructuredOutputError  also a ValueError: not by the schema
        ├── StreamEndedError              also a ConnectionError: cut, or without an end
        ├── MalformedResponseError        also a ValueError: no answer of this API
        └── ResponseFailedError           an error inside of an answer with status 200

What a vendor's SDK raises for an HTTP status or a lost connection passes unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tta_primitives.errors import PrimitiveError

if TYPE_CHECKING:
    from tta_primitives.llm.messages import FinishReason, LLMResponse

__all__ = [
    "BrokenToolCallError",
    "EmptyResponseError",
    "IncompleteResponseError",
    "InvalidStructuredOutputError",
    "LLMConfigurationError",
    "MalformedResponseError",
    "ResponseFailedError",
    "ResponseFilteredError",
    "ResponseRefusedError",
    "ResponseTruncatedError",
    "StreamEndedError",
]


class LLMConfigurationError(PrimitiveError, ValueError):
    """A call cannot be made because a key or the name of a model is missing."""

    retryable = False


class IncompleteResponseError(PrimitiveError):
    """A model's answer is not one to go on with.

    Attributes:
        response: What there is of the answer.
        retryable: Whether the same request may get a better one.
    """

    retryable: bool = True

    def __init__(self, message: str, *, response: LLMResponse) -> None:
        super().__init__(message)
        self.response = response

    @property
    def finish_reason(self) -> FinishReason:
        """Why the answer ended."""
        return self.response.finish_reason


class ResponseTruncatedError(IncompleteResponseError):
    """The answer, or the model's context, has no room for further tokens."""

    retryable = False


class ResponseFilteredError(IncompleteResponseError):
    """A content filter of the provider has stopped the answer."""

    retryable = False


class ResponseRefusedError(IncompleteResponseError):
    """The model declined to answer; `response.content` is what it said."""

    retryable = False


class EmptyResponseError(IncompleteResponseError):
    """The answer has neither text nor a tool call."""


class BrokenToolCallError(IncompleteResponseError, ValueError):
    """A tool call has arguments that are no JSON object, or names an unknown tool."""


class InvalidStructuredOutputError(IncompleteResponseError, ValueError):
    """The answer does not have the form that the schema asks for."""


class StreamEndedError(IncompleteResponseError, ConnectionError):
    """A stream was cut, or ended without saying that the answer is whole.

    `response.content` is what had come until then.
    """


class MalformedResponseError(IncompleteResponseError, ValueError):
    """What came with status 200 is no answer of this API: a page, `null`, no JSON."""


class ResponseFailedError(IncompleteResponseError):
    """The provider reports an error inside of an answer with status 200.

    Attributes:
        code: The provider's word for it, None if it has none.
    """

    def __init__(
        self,
        message: str,
        *,
        response: LLMResponse,
        code: str | None = None,
        retryable: bool = True,
    ) -> None:
        super().__init__(message, response=response)
        self.code = code
        self.retryable = retryable
