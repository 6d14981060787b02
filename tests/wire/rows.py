"""The rows of the contract: each fault, on each API, streamed and not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_tta.faults import llm_bodies, llm_connection, llm_content, llm_status
from pytest_tta.faults import llm_streams as streams
from pytest_tta.wire.api import Said, WireStrike
from pytest_tta.wire.providers.anthropic_messages import AnthropicMessages
from pytest_tta.wire.providers.openai_chat import OpenAIChat
from pytest_tta.wire.providers.openai_responses import OpenAIResponses
from tests.wire.outcomes import APIS
from tta_primitives.llm import LLMResponse, Usage

if TYPE_CHECKING:
    from pytest_tta.faults import LLMFault
    from pytest_tta.wire.exchange import WireAnswer

__all__ = ["ROWS", "SECTIONS", "Row"]

_APIS = {
    api.name: api for api in (OpenAIChat(), OpenAIResponses(), AnthropicMessages())
}
# With letters of two bytes, which pieces of bytes may end within.
TEXT = "Paris is sunny, 21 °C, and the café is open."
_SAID = Said(response=LLMResponse(TEXT, usage=Usage(12, 11)))

_limit = llm_status.rate_limit
SECTIONS: dict[str, tuple[LLMFault, ...]] = {
    "Limits and outages": (
        _limit(after=2, after_ms=1500),
        _limit(after=30),
        _limit(date=30),
        _limit(),
        _limit(after=3600),
        _limit(after=0),
        _limit(after=-1),
        _limit(after="soon"),
        _limit(after=30, should_retry=False),
        llm_status.quota_exceeded(),
        llm_status.spend_limit(),
        llm_status.overloaded(),
        llm_status.overloaded(in_stream=True),
        llm_status.server_error(),
        llm_status.server_error(503),
        llm_status.server_error(should_retry=False),
        llm_status.bad_gateway_html(),
        llm_status.bad_gateway_html(520),
        llm_status.gateway_timeout(),
        llm_status.request_timeout(),
        llm_status.conflict(),
    ),
    "Requests that are refused": (
        llm_status.bad_request(),
        llm_status.bad_request(should_retry=True),
        llm_content.context_length(),
        llm_content.content_filter("prompt"),
        llm_status.bad_tool_call(),
        llm_status.auth(),
        llm_status.billing(),
        llm_status.permission(),
        llm_status.model_gone(),
        llm_status.too_large(),
        llm_status.unprocessable(),
    ),
    "Connections": (
        llm_connection.connect_refused(),
        llm_connection.dns(),
        llm_connection.slow_connect(),
        llm_connection.slow_write(),
        llm_connection.no_headers(),
        llm_connection.reset(),
        llm_connection.closed_early(),
        llm_connection.garbage_head(),
    ),
    "Bodies under status 200": (
        llm_bodies.empty_choices(),
        llm_bodies.error_in_200(),
        llm_bodies.html_200(),
        llm_bodies.null_200(),
        llm_bodies.empty_body(),
        llm_bodies.malformed_json(),
        llm_bodies.bad_utf8(),
        llm_bodies.short_body(),
        llm_bodies.bad_gzip(),
        llm_bodies.json_instead_of_sse(),
    ),
    "What the model says": (
        llm_content.length(2),
        llm_content.content_filter(after_tokens=2),
        llm_content.context_length("answer", after_tokens=2),
        llm_content.refusal(),
        llm_content.refusal("cyber"),
        llm_content.pause_turn(),
        llm_content.tool_args("json"),
        llm_content.tool_args("schema"),
        llm_content.tool_args("name"),
        llm_content.tool_args("truncated"),
        llm_content.wrong_schema(),
        llm_content.prose_instead_of_json(),
    ),
    "Within a stream": (
        streams.slow_first_token(60),
        streams.stall(2),
        streams.stream_cut(2),
        streams.stream_cut(2, "reset"),
        streams.stream_cut(2, "clean"),
        streams.no_finish(),
        streams.cut_event(2),
        streams.cut_event(2, at="blank_line"),
        streams.bad_event(2),
        llm_status.error_event(after_tokens=2),
        llm_status.error_event("rate_limit", after_tokens=2),
        streams.no_event_lines(),
    ),
    "What is no fault": (
        streams.slow_first_token(0.1),
        streams.keepalives(),
        streams.split_bytes(7),
        streams.crlf(),
    ),
}


@dataclass(frozen=True)
class Row:
    """One fault on one API.

    Attributes:
        fault: What goes wrong.
        api: The name of the API.
        stream: Whether a stream is asked for.
    """

    fault: LLMFault
    api: str
    stream: bool

    def __str__(self) -> str:
        return f"{self.fault!r}-{self.api}-{'stream' if self.stream else 'whole'}"

    @property
    def applies(self) -> bool:
        """Whether the fault can happen there."""
        return self.fault.applies(self._strike({"stream": self.stream}))

    def answer(self, body: dict) -> WireAnswer:
        """Return what is answered to a request."""
        return self.fault.on_wire(self._strike(body))

    def _strike(self, body) -> WireStrike:
        return WireStrike(api=_APIS[self.api], body=body, number=1, said=_SAID)


ROWS = tuple(
    row
    for faults in SECTIONS.values()
    for fault in faults
    for api in APIS
    for stream in (False, True)
    if (row := Row(fault, api, stream)).applies
)
