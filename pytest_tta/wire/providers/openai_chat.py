"""OpenAI's chat completions, which many other servers speak too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_tta.wire.api import Said
from pytest_tta.wire.providers.encoding import event
from pytest_tta.wire.providers.json_api import JSONApi
from pytest_tta.wire.providers.openai_completion import Completion
from pytest_tta.wire.providers.openai_errors import (
    NO_WORDS,
    OpenAIComplaints,
    Refused,
    error_answer,
    error_fields,
    refusal,
)
from pytest_tta.wire.providers.openai_turns import conversation
from pytest_tta.wire.providers.reading import Fields, rest_of
from pytest_tta.wire.providers.speech import Speech
from pytest_tta.wire.providers.tokens import usage_of
from tta_primitives.llm import LLMRequest, LLMResponse, Tool

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Unpack

    from pytest_tta.wire.api import ErrorKind, ErrorTold
    from pytest_tta.wire.exchange import WireAnswer

__all__ = ["OpenAIChat"]

_TAKEN = {"max_completion_tokens", "max_tokens", "messages", "model", "temperature"}
_SCHEMA = "json_schema"
_HOTTEST = 2


class OpenAIChat(JSONApi):
    """`POST /chat/completions` of OpenAI and of servers that take the same requests.

    Args:
        name: The provider and the API.
        status_as_code: Whether errors carry the HTTP status, a number, as their code,
            and no type, as OpenRouter's do.
    """

    def __init__(
        self, name: str = "openai.chat", *, status_as_code: bool = False
    ) -> None:
        super().__init__(name)
        self._status_as_code = status_as_code

    def serves(self, method: str, path: str, /) -> bool:
        """Tell whether a request is for this API; see `Api.serves`."""
        return method == "POST" and path.endswith("/chat/completions")

    def request(self, body: Mapping[str, Any], /) -> LLMRequest:
        """Return what is asked; see `Api.request`.

        `developer` is read as `system`, and the `function` messages of old as those of
        tools. What is no text becomes words such as `[image_url image/png]`.

        Raises:
            ValueError: OpenAI would refuse it.
        """
        fields = Fields(body, OpenAIComplaints())
        model, messages = fields.text("model"), tuple(conversation(fields))
        schema, form = _schema(fields)
        _check_stream_options(fields)
        tools, built_in = _tools(fields)
        options = rest_of(body, _TAKEN, response_format=form, tools=built_in)
        return LLMRequest(
            messages,
            model,
            tools,
            schema,
            fields.number("temperature", 0, _HOTTEST),
            fields.count("max_completion_tokens") or fields.count("max_tokens"),
            options,
        )

    def answer(self, said: Said, body: Mapping[str, Any], number: int, /) -> WireAnswer:
        """Return the answer as OpenAI writes it; see `Api.answer`.

        Without usage it is estimated, as `providers.tokens` tells. Of a stream, what
        tells its end is the chunk with the finish reason, the chunk with the usage if
        `stream_options` ask for it, and `[DONE]`.
        """
        copies = Fields(body, OpenAIComplaints()).count("n") or 1
        return self._written(said, body, number, copies)

    def empty(self, body: Mapping[str, Any], number: int, /) -> WireAnswer:
        """Return an answer without any choice."""
        return self._written(Said(response=LLMResponse()), body, number, 0)

    def _written(
        self, said: Said, body: Mapping[str, Any], number: int, copies: int
    ) -> WireAnswer:
        refuses = said.response.finish_reason == "refusal"
        speech = Speech.of(said, NO_WORDS if refuses else "")
        completion = Completion(
            said=said,
            speech=speech,
            usage=usage_of(self.request(body), said.response, speech.text),
            body=body,
            number=number,
            copies=copies,
        )
        return completion.streamed() if self.streams(body) else completion.whole()

    def error(self, kind: ErrorKind, /, **told: Unpack[ErrorTold]) -> WireAnswer:
        """Return an error as OpenAI writes it; see `Api.error`."""
        refused = refusal(kind, told.get("message"))
        status = told.get("status") or refused.status
        error = self._error(refused, status)
        return error_answer(refused, error, status, told.get("headers", ()))

    def error_event(self, kind: ErrorKind, message: str | None = None, /) -> bytes:
        """Return an error as it comes in the middle of a stream."""
        refused = refusal(kind, message)
        return event({"error": self._error(refused, refused.status)})

    def _error(self, refused: Refused, status: int) -> dict[str, Any]:
        if self._status_as_code:
            told = {"provider_name": "Upstream", "raw": refused.message}
            return {"message": refused.message, "code": status, "metadata": told}
        return error_fields(refused)


def _schema(
    fields: Fields,
) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """Return the schema of a structured answer, or another form that was asked for."""
    if not fields.has("response_format"):
        return None, None
    wanted = fields.fields("response_format")
    if wanted.word("type", ("text", "json_object", _SCHEMA)) != _SCHEMA:
        return None, wanted.values
    return wanted.fields(_SCHEMA).fields("schema").values, None


def _check_stream_options(fields: Fields) -> None:
    if fields.has("stream_options"):
        fields.fields("stream_options")
        if fields.values.get("stream") is not True:
            msg = "'stream_options' is only allowed when 'stream' is enabled."
            raise ValueError(msg)


def _tools(fields: Fields) -> tuple[tuple[Tool, ...], list[Mapping[str, Any]]]:
    """Return the functions among the tools, and the tools of other kinds."""
    functions, others = [], []
    for one in fields.items("tools", required=False):
        if one.word("type", ("function", "custom")) == "function":
            functions.append(one.fields("function").tool("parameters"))
        else:
            others.append(one.values)
    return tuple(functions), others
