"""What the LLM double can answer: a value, an error, a stream, data of a schema."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypedDict, TypeGuard

from pytest_tta.doubles.schema import instance
from tta_primitives.arguments import check_number, seconds
from tta_primitives.llm import LLMResponse, ToolCall, Usage

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence
    from datetime import timedelta
    from typing import Unpack

    from pytest_tta.doubles.calls import LLMCall
    from pytest_tta.doubles.schema import Schema
    from tta_primitives.llm import FinishReason

__all__ = [
    "Answered",
    "Asked",
    "Failure",
    "Fixed",
    "Generated",
    "Reply",
    "SayOptions",
    "Spoken",
    "Stream",
    "Timeline",
    "fresh",
    "is_error",
    "joined",
    "say",
    "wait_for",
]

Timeline: TypeAlias = "tuple[tuple[float, Any], ...]"
Spoken: TypeAlias = "str | Iterable[tuple[float, Any]]"


class Asked(NamedTuple):
    """What a reply may look at.

    Attributes:
        call: The call that is answered.
        chance: A random generator that belongs to this call alone.
    """

    call: LLMCall
    chance: random.Random


class Reply:
    """One way to answer a call.

    Attributes:
        usage: The tokens that the answer is charged for, None if it tells nothing.
    """

    __slots__ = ()

    @property
    def usage(self) -> Usage | None:
        """The tokens that the answer is charged for, None if it tells nothing."""
        return None

    async def value(self, asked: Asked, /) -> object:
        """Return what the call returns."""
        raise NotImplementedError

    async def chunks(self, asked: Asked, /) -> AsyncIterator[object]:
        """Yield what the call streams: the value in one piece, unless it has parts."""
        value = await self.value(asked)
        yield value.content if isinstance(value, LLMResponse) else value


@dataclass(frozen=True, slots=True)
class Fixed(Reply):
    """Answer with a value as it is.

    Attributes:
        result: The value.
        delay: Seconds of the loop's clock before that.
    """

    result: object
    delay: float = 0.0

    @property
    def usage(self) -> Usage | None:
        """The tokens that a response tells."""
        return self.result.usage if isinstance(self.result, LLMResponse) else None

    async def value(self, _: Asked, /) -> object:
        """Return the value after the delay."""
        await wait_for(self.delay)
        return self.result


@dataclass(frozen=True, slots=True)
class Failure(Reply):
    """Answer with an error.

    Attributes:
        error: The error, or a class to make one of.
        delay: Seconds of the loop's clock before that.
    """

    error: BaseException | type[BaseException]
    delay: float = 0.0

    async def value(self, _: Asked, /) -> object:
        """Raise the error after the delay."""
        await wait_for(self.delay)
        raise fresh(self.error)


@dataclass(frozen=True, slots=True)
class Stream(Reply):
    """Answer in chunks, each at its own time after the delay.

    Attributes:
        timeline: Seconds and chunks; an exception in a chunk's place is raised then.
        response: What the whole answer is, its content still empty; None for text.
        delay: Seconds of the loop's clock before that.
    """

    timeline: Timeline
    response: LLMResponse | None = None
    delay: float = 0.0

    @property
    def usage(self) -> Usage | None:
        """The tokens that the response tells."""
        return None if self.response is None else self.response.usage

    async def value(self, _: Asked, /) -> object:
        """Return the joined chunks when the last one has come."""
        chunks = [chunk async for chunk in _play(self.timeline, self.delay)]
        if self.response is None:
            return joined(chunks)
        return replace(self.response, content="".join(map(str, chunks)))

    def chunks(self, _: Asked, /) -> AsyncIterator[object]:
        """Yield the chunks at their times."""
        return _play(self.timeline, self.delay)


@dataclass(frozen=True, slots=True)
class Generated(Reply):
    """Answer with data that is valid against a schema, made from the seed.

    Attributes:
        schema: A JSON schema or a pydantic model; None for that of the request.
        as_text: Answer with JSON text, as a model would.
        delay: Seconds of the loop's clock before that.
    """

    schema: Schema | None
    as_text: bool = False
    delay: float = 0.0

    async def value(self, asked: Asked, /) -> object:
        """Return the data after the delay."""
        await wait_for(self.delay)
        schema = asked.call.request.schema if self.schema is None else self.schema
        if schema is None:
            msg = "generates() without a schema needs a request that has one"
            raise TypeError(msg)
        data = instance(schema, asked.chance)
        return _json_text(data) if self.as_text else data


@dataclass(frozen=True, slots=True)
class Answered(Reply):
    """Answer with what a function makes of the call.

    Attributes:
        function: Sync or async, of the call.
        delay: Seconds of the loop's clock before it is asked.
    """

    function: Callable[[LLMCall], object]
    delay: float = 0.0

    async def value(self, asked: Asked, /) -> object:
        """Return what the function returns, awaited if need be."""
        await wait_for(self.delay)
        result = self.function(asked.call)
        return await result if inspect.isawaitable(result) else result


class SayOptions(TypedDict):
    """The options of `say`."""

    stream: Spoken | None
    first_token_after: float | timedelta
    tokens_per_second: float | None
    tool_calls: Sequence[ToolCall]
    usage: Usage | None
    finish_reason: FinishReason | None
    response: bool
    delay: float | timedelta


def say(text: str | None, **options: Unpack[SayOptions]) -> Reply:
    """Return the reply that says something; see `Script.reply`."""
    calls = tuple(options["tool_calls"])
    _check_said(text, options["stream"], calls)
    delay = seconds("delay", options["delay"], zero=True)
    pace = options["first_token_after"], options["tokens_per_second"]
    whole = _response(text, calls, options)
    if options["stream"] is not None:
        return Stream(_timeline(options["stream"], *pace), whole, delay)
    if any(pace):
        msg = "first_token_after= and tokens_per_second= pace a stream; give stream="
        raise TypeError(msg)
    return Fixed(text if whole is None else whole, delay)


def _response(
    text: str | None, calls: tuple[ToolCall, ...], options: SayOptions
) -> LLMResponse | None:
    """Return a response if something is told that plain text cannot carry."""
    reason, usage = options["finish_reason"], options["usage"]
    if not (calls or usage or reason or options["response"]):
        return None
    usual: FinishReason = "tool_calls" if calls else "stop"
    return LLMResponse(text or "", calls, reason or usual, usage)


def _check_said(text: object, stream: object, tool_calls: tuple[object, ...]) -> None:
    if text is not None and not isinstance(text, str):
        msg = f"text={text!r} must be text; to return any value, write .returns(...)"
        raise TypeError(msg)
    if text is not None and stream is not None:
        msg = "reply() says either text or stream=, not both"
        raise TypeError(msg)
    if text is None and stream is None and not tool_calls:
        msg = "reply() needs text, stream= or tool_calls="
        raise TypeError(msg)
    for call in tool_calls:
        if not isinstance(call, ToolCall):
            msg = f"tool_calls: {call!r} must be a ToolCall"
            raise TypeError(msg)


def is_error(value: object) -> TypeGuard[BaseException | type[BaseException]]:
    """Tell whether a value is an exception or a class of exceptions."""
    return isinstance(value, BaseException) or (
        isinstance(value, type) and issubclass(value, BaseException)
    )


def fresh(error: BaseException | type[BaseException]) -> BaseException:
    """Return an error to raise; one that is raised again loses its old traceback."""
    return error() if isinstance(error, type) else error.with_traceback(None)


def joined(chunks: list[Any]) -> object:
    """Return the text that chunks make up, or the list of them if they are no text."""
    is_text = bool(chunks) and all(isinstance(chunk, str) for chunk in chunks)
    return "".join(chunks) if is_text else chunks


async def wait_for(duration: float) -> None:
    """Wait some seconds of the loop's clock; nothing and less return at once."""
    if duration > 0:
        await asyncio.sleep(duration)


async def _play(timeline: Timeline, delay: float) -> AsyncIterator[Any]:
    clock = asyncio.get_running_loop()
    start = clock.time() + delay
    for at, chunk in timeline:
        # From the start, not from the last chunk: a slow reader does not slow a model.
        await wait_for(start + at - clock.time())
        if is_error(chunk):
            raise fresh(chunk)
        yield chunk


def _timeline(
    stream: Spoken,
    first_token_after: float | timedelta,
    tokens_per_second: float | None,
) -> Timeline:
    if isinstance(stream, str):
        return _paced(stream, first_token_after, tokens_per_second)
    if first_token_after or tokens_per_second is not None:
        msg = (
            "first_token_after= and tokens_per_second= pace a text; pairs of seconds "
            "and chunks have their own times"
        )
        raise TypeError(msg)
    entries: list[tuple[float, Any]] = []
    for entry in stream:
        entries.append(_entry(entry, entries[-1] if entries else (0.0, None)))
    return tuple(entries)


def _entry(entry: object, before: tuple[float, Any]) -> tuple[float, Any]:
    if not (isinstance(entry, tuple) and len(entry) == 2):  # noqa: PLR2004 - a pair
        msg = f"stream: {entry!r} must be a pair (seconds, chunk)"
        raise TypeError(msg)
    at = seconds("stream: the time", entry[0], zero=True)
    if at < before[0]:
        msg = f"stream: {entry!r} stands after {before!r} and must not be earlier"
        raise ValueError(msg)
    return at, entry[1]


def _paced(
    text: str, first_token_after: float | timedelta, tokens_per_second: float | None
) -> Timeline:
    """Return the words of a text, each with its blanks, at their times."""
    first = seconds("first_token_after", first_token_after, zero=True)
    rate = math.inf
    if tokens_per_second is not None:
        rate = check_number("tokens_per_second", tokens_per_second)
    words = re.findall(r"^\s+|\S+\s*", text)
    return tuple((first + index / rate, word) for index, word in enumerate(words))


def _json_text(data: object) -> str:
    dump = getattr(data, "model_dump_json", None)
    return json.dumps(data) if dump is None else str(dump())
