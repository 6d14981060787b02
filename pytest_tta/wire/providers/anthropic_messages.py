"""Anthropic's Messages API: how it is asked, and how it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_tta.wire.api import Said
from pytest_tta.wire.providers.anthropic_errors import (
    AnthropicComplaints,
    error_answer,
    error_body,
)
from pytest_tta.wire.providers.anthropic_reply import Reply
from pytest_tta.wire.providers.anthropic_turns import conversation
from pytest_tta.wire.providers.encoding import event
from pytest_tta.wire.providers.json_api import JSONApi
from pytest_tta.wire.providers.reading import Fields, rest_of
from pytest_tta.wire.providers.speech import Speech
from pytest_tta.wire.providers.tokens import usage_of
from tta_primitives.llm import LLMRequest, LLMResponse, Tool

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Unpack

    from pytest_tta.wire.api import ErrorKind, ErrorTold
    from pytest_tta.wire.exchange import WireAnswer

__all__ = ["AnthropicMessages"]

_TAKEN = {"max_tokens", "messages", "model", "system", "temperature"}


class AnthropicMessages(JSONApi):
    """`POST /v1/messages` of Anthropic.

    Args:
        name: The provider and the API.
    """

    def __init__(self, name: str = "anthropic.messages") -> None:
        super().__init__(name)

    def serves(self, method: str, path: str, /) -> bool:
        """Tell whether a request is for this API; see `Api.serves`."""
        return method == "POST" and path.endswith("/v1/messages")

    def request(self, body: Mapping[str, Any], /) -> LLMRequest:
        """Return what is asked; see `Api.request`.

        `system` is the first message. Each result of a tool is a message of its own,
        before what the user says in the same turn. Thinking is left out.

        Raises:
            ValueError: Anthropic would refuse it.
        """
        fields = Fields(body, AnthropicComplaints())
        model = fields.text("model")
        fields.get("max_tokens")
        most = fields.count("max_tokens")
        schema, settings = _schema(fields)
        tools, built_in = _tools(fields)
        options = rest_of(body, _TAKEN, output_config=settings, tools=built_in)
        return LLMRequest(
            tuple(conversation(fields)),
            model,
            tools,
            schema,
            fields.number("temperature", 0, 1),
            most,
            options,
        )

    def answer(self, said: Said, body: Mapping[str, Any], number: int, /) -> WireAnswer:
        """Return the answer as Anthropic writes it; see `Api.answer`.

        Anthropic parses the arguments of a call itself. Broken ones stream as they
        are; in an answer that is not streamed they stand as a JSON string, unless they
        are JSON that is no object. Of a stream, what tells its end are `message_delta`
        and `message_stop`. Without usage it is estimated, as `providers.tokens` tells.
        """
        speech = Speech.of(said)
        reply = Reply(
            said=said,
            speech=speech,
            usage=usage_of(self.request(body), said.response, speech.text),
            model=said.response.model or body["model"],
            number=number,
        )
        return reply.streamed() if self.streams(body) else reply.whole()

    def empty(self, body: Mapping[str, Any], number: int, /) -> WireAnswer:
        """Return an answer that has ended and has no content."""
        return self.answer(Said(response=LLMResponse()), body, number)

    def error(self, kind: ErrorKind, /, **told: Unpack[ErrorTold]) -> WireAnswer:
        """Return an error as Anthropic writes it; see `Api.error`."""
        return error_answer(kind, **told)

    def error_event(self, kind: ErrorKind, message: str | None = None, /) -> bytes:
        """Return an error as it comes in the middle of a stream."""
        return event(error_body(kind, message), "error")


def _schema(fields: Fields) -> tuple[Mapping[str, Any] | None, dict[str, Any]]:
    """Return the schema of a structured answer, and the rest of `output_config`."""
    if not fields.has("output_config"):
        return None, {}
    output = fields.fields("output_config")
    settings = dict(output.values)
    if not output.has("format"):
        return None, settings
    wanted = output.fields("format")
    wanted.word("type", ("json_schema",))
    del settings["format"]
    return wanted.fields("schema").values, settings


def _tools(fields: Fields) -> tuple[tuple[Tool, ...], list[Mapping[str, Any]]]:
    """Return the tools of the client, and those that Anthropic runs or knows itself."""
    own, others = [], []
    for one in fields.items("tools", required=False):
        if one.text("type", "custom") == "custom":
            one.get("input_schema")
            own.append(one.tool("input_schema"))
        else:
            others.append(one.values)
    return tuple(own), others
