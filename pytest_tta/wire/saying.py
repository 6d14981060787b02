"""What a scripted reply comes to: an answer of the model, in no API's words."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_tta.doubles.replies import (
    Answered,
    Asked,
    Fixed,
    Generated,
    Reply,
    Stream,
)
from pytest_tta.doubles.schema import instance
from pytest_tta.trace.snapshot import shorten
from pytest_tta.wire.api import Said
from tta_primitives.llm import LLMResponse

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from pytest_tta.wire.api import WireFault

__all__ = ["Faulted", "said_by"]


@dataclass(frozen=True, slots=True)
class Faulted(Reply):
    """Answer as a provider does when something goes wrong.

    Attributes:
        fault: What goes wrong.
        reply: What would have been said.
    """

    fault: WireFault
    reply: Reply


def said_by(reply: Reply, asked: Asked) -> Said | Awaitable[Said]:
    """Return what a reply says; awaitable if an async function of the test says it.

    Args:
        reply: The reply.
        asked: What it may look at.

    Raises:
        TypeError: It cannot be said in bytes.
    """
    if isinstance(reply, Faulted):
        return said_by(reply.reply, asked)
    if isinstance(reply, Stream):
        return _streamed(reply)
    if isinstance(reply, Generated):
        return _generated(reply, asked)
    if isinstance(reply, Answered):
        value = reply.function(asked.call)
        if inspect.isawaitable(value):
            return _said_later(value, reply.delay)
        return Said(response=_response_of(value), delay=reply.delay)
    if isinstance(reply, Fixed):
        return Said(response=_response_of(reply.result), delay=reply.delay)
    msg = f"{reply!r} cannot be sent; on the wire write .fails(server_error()) instead"
    raise TypeError(msg)


async def _said_later(value: Awaitable[object], delay: float) -> Said:
    return Said(response=_response_of(await value), delay=delay)


def _streamed(reply: Stream) -> Said:
    for _, chunk in reply.timeline:
        if not isinstance(chunk, str):
            msg = (
                f"{chunk!r} cannot be sent in a stream of text; what goes wrong on the "
                "wire is a fault: .fails(stream_cut(after_tokens=2), said='...')"
            )
            raise TypeError(msg)
    text = "".join(chunk for _, chunk in reply.timeline)
    whole = LLMResponse() if reply.response is None else reply.response
    return Said(
        response=replace(whole, content=text),
        timeline=reply.timeline,
        delay=reply.delay,
    )


def _generated(reply: Generated, asked: Asked) -> Said:
    schema = asked.call.request.schema if reply.schema is None else reply.schema
    if schema is None:
        msg = "generates() without a schema needs a request that has one"
        raise TypeError(msg)
    data = instance(schema, asked.chance)
    return Said(response=_response_of(data), delay=reply.delay)


def _response_of(value: Any) -> LLMResponse:  # noqa: ANN401 - whatever a test says
    """Return a response, a text, or data as JSON text, as a model would say it."""
    if isinstance(value, LLMResponse):
        return value
    if isinstance(value, str):
        return LLMResponse(value)
    dump = getattr(value, "model_dump_json", None)
    if dump is not None:
        return LLMResponse(dump())
    try:
        return LLMResponse(json.dumps(value))
    except (TypeError, ValueError) as error:
        msg = (
            f"{shorten(value)} cannot be sent as text ({error}); say a text, JSON "
            "data, a pydantic object, or an LLMResponse"
        )
        raise TypeError(msg) from error
