"""Faults within a stream, after status 200: it breaks off, stalls, or holds garbage.

And what only looks like a fault: comments, other line ends, other pieces. Every client
must take that as it is.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pytest_tta.faults.llm_base import (
    Alters,
    Expectation,
    Harmless,
    LLMFault,
    Pauses,
    Raises,
    Stalls,
    written,
)
from pytest_tta.faults.llm_bodies import broken_event, no_json
from pytest_tta.faults.llm_edits import (
    cut_after,
    data_of,
    is_stream,
    parts_after,
    postponed,
    sliced,
    spliced,
    words,
)
from tta_primitives.arguments import check_choice, check_count
from tta_primitives.arguments import seconds as duration

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from pytest_tta.wire.api import WireStrike
    from pytest_tta.wire.exchange import Ending, WireAnswer
    from tta_primitives.llm import LLMResponse

__all__ = [
    "bad_event",
    "crlf",
    "cut_event",
    "keepalives",
    "no_event_lines",
    "no_finish",
    "slow_first_token",
    "split_bytes",
    "stall",
    "stream_cut",
]

_HOWS = ("closed", "reset", "clean")
_STREAM = ("stream",)
_COMMENT = b": keep-alive\n\n"


def stream_cut(
    after_tokens: int = 1, how: Literal["closed", "reset", "clean"] = "closed"
) -> LLMFault:
    """Break a stream off.

    Args:
        after_tokens: How many tokens come before.
        how: The connection is closed within the body, or torn down (RST); or the body
            ends as HTTP has it, so that only what is missing tells of the break.

    Raises:
        ValueError: `after_tokens` is not a count, or `how` is unknown.
    """
    tokens = check_count("after_tokens", after_tokens)
    check_choice("how", how, _HOWS)
    source = written(stream_cut, after_tokens=tokens, how=how)
    ending: Ending = "complete" if how == "clean" else how
    wire = partial(_cut, tokens, ending)
    expect = Expectation(may_retry=True)
    if how == "clean":
        alter = partial(_unfinished, tokens)
        return Alters(tokens, source, expect, wire, _STREAM, alter=alter, ends=True)
    kind = ConnectionResetError if how == "reset" else ConnectionError
    error = partial(kind, "the connection broke within the stream")
    return Raises(tokens, source, expect, wire, _STREAM, error=error)


def no_finish() -> LLMFault:
    """End a stream without what tells that it is over: all text, no reason, no mark."""
    source = written(no_finish)
    expect = Expectation(may_retry=True)
    alter = partial(_unfinished, None)
    return Alters(0, source, expect, _without_tail, _STREAM, alter=alter, is_text=False)


def cut_event(
    after_tokens: int = 1, *, at: Literal["data", "blank_line"] = "data"
) -> LLMFault:
    """End a stream cleanly, but within an event.

    Args:
        after_tokens: How many tokens come before.
        at: In the middle of its data, or before the blank line that would complete it.

    Raises:
        ValueError: `after_tokens` is not a count, or `at` is unknown.
    """
    tokens = check_count("after_tokens", after_tokens)
    check_choice("at", at, ("data", "blank_line"))
    source = written(cut_event, after_tokens=tokens, at=at)
    wire = partial(_within_event, tokens, at)
    alter = partial(_unfinished, tokens)
    expect = Expectation(may_retry=True)
    return Alters(tokens, source, expect, wire, _STREAM, alter=alter, ends=True)


def bad_event(after_tokens: int = 1) -> LLMFault:
    """Send an event whose data are no JSON.

    Args:
        after_tokens: How many tokens come before.

    Raises:
        ValueError: It is not a count.
    """
    tokens = check_count("after_tokens", after_tokens)
    source = written(bad_event, after_tokens=tokens)
    expect = Expectation(may_retry=True)
    error = partial(no_json, '{"oops')
    wire = partial(_broken, tokens)
    return Raises(tokens, source, expect, wire, _STREAM, error=error)


def stall(after_tokens: int = 1) -> LLMFault:
    """Send nothing more, for ever; of an answer that is no stream, after its half.

    Args:
        after_tokens: How many tokens come before.

    Raises:
        ValueError: It is not a count.
    """
    tokens = check_count("after_tokens", after_tokens)
    source = written(stall, after_tokens=tokens)
    expect = Expectation(may_retry=True)
    return Stalls(tokens, source, expect, partial(_silent, tokens))


def slow_first_token(seconds: float | timedelta) -> LLMFault:
    """Begin to speak late: the head comes in time, what follows does not.

    An answer that is no stream is late as a whole.

    Args:
        seconds: How much later, or a timedelta.

    Raises:
        TypeError: It is no duration.
        ValueError: It is not positive.
    """
    late = duration("seconds", seconds)
    source = written(slow_first_token, seconds=late)
    expect = Expectation(may_retry=True, may_accept=True)
    return Pauses(0, source, expect, partial(_late, late), pause=late)


def no_event_lines() -> LLMFault:
    """Send events without their `event:` lines, which Anthropic's clients go by."""
    return _harmful(no_event_lines, _unnamed, ("stream", "anthropic"))


def keepalives(every: int = 1) -> LLMFault:
    """Send comments between the events, as proxies do to keep a connection open.

    Args:
        every: After how many events each.

    Raises:
        ValueError: It is not a count of at least 1.
    """
    step = check_count("every", every, minimum=1)
    source = written(keepalives, every=step)
    return _harmless(source, partial(_commented, step), _STREAM)


def split_bytes(seed: int = 0) -> LLMFault:
    """Send the same bytes in other pieces, which end anywhere.

    Args:
        seed: Chooses the pieces.

    Raises:
        ValueError: It is not a count.
    """
    chosen = check_count("seed", seed)
    source = written(split_bytes, seed=chosen)
    return _harmless(source, partial(_split, chosen))


def crlf() -> LLMFault:
    """End the lines of a stream with CR and LF, as its standard allows."""
    return _harmless(written(crlf), _with_crlf, _STREAM)


def _harmless(
    source: tuple[str, tuple[tuple[str, Any], ...]],
    wire: Callable[[WireStrike], WireAnswer],
    needs: tuple[str, ...] = (),
) -> LLMFault:
    expect = Expectation(may_retry=False, may_accept=True)
    return Harmless(0, source, expect, wire, needs)


def _harmful(
    maker: Callable[[], LLMFault],
    wire: Callable[[WireStrike], WireAnswer],
    needs: tuple[str, ...],
) -> LLMFault:
    expect = Expectation(may_retry=True)
    alter = partial(_unfinished, 0)
    return Alters(0, written(maker), expect, wire, needs, alter=alter, ends=True)


def _unfinished(tokens: int | None, response: LLMResponse) -> LLMResponse:
    text = response.content
    return replace(
        response,
        content=text if tokens is None else words(text, tokens),
        tool_calls=response.tool_calls if tokens is None else (),
        data=None,
        finish_reason="unknown",
    )


def _cut(tokens: int, ending: Ending, strike: WireStrike) -> WireAnswer:
    return cut_after(strike.answer(), tokens, ending)


def _without_tail(strike: WireStrike) -> WireAnswer:
    answer = strike.answer()
    return answer.cut(len(answer.body) - answer.tail, "complete")


def _within_event(tokens: int, at: str, strike: WireStrike) -> WireAnswer:
    answer = strike.answer()
    _, part = answer.body[min(parts_after(answer, tokens), len(answer.body) - 1)]
    event = part.rstrip(b"\n")
    if at == "data":
        head, begin, data = event.partition(b"data: ")
        event = head + begin + data[: len(data) // 2]
    return spliced(answer, tokens, event)


def _broken(tokens: int, strike: WireStrike) -> WireAnswer:
    return broken_event(strike.answer(), tokens)


def _silent(tokens: int, strike: WireStrike) -> WireAnswer:
    answer = strike.answer()
    if is_stream(answer):
        return cut_after(answer, tokens, "silent")
    data = data_of(answer)
    return replace(answer, body=((0.0, data[: len(data) // 2]),), ending="silent")


def _late(late: float, strike: WireStrike) -> WireAnswer:
    answer = strike.answer()
    return postponed(answer, 0, late) if is_stream(answer) else answer.delayed(late)


def _unnamed(strike: WireStrike) -> WireAnswer:
    return _by_part(strike.answer(), _without_name)


def _without_name(part: bytes) -> bytes:
    lines = part.split(b"\n")
    return b"\n".join(line for line in lines if not line.startswith(b"event:"))


def _with_crlf(strike: WireStrike) -> WireAnswer:
    return _by_part(strike.answer(), lambda part: part.replace(b"\n", b"\r\n"))


def _by_part(answer: WireAnswer, change: Callable[[bytes], bytes]) -> WireAnswer:
    body = tuple((at, change(part)) for at, part in answer.body)
    return replace(answer, body=body)


def _commented(step: int, strike: WireStrike) -> WireAnswer:
    """Put comments into the parts, so that which of them are tokens stays as it is."""
    answer = strike.answer()
    body = tuple(
        (at, part + _COMMENT if index % step == 0 else part)
        for index, (at, part) in enumerate(answer.body, start=1)
    )
    return replace(answer, body=body)


def _split(seed: int, strike: WireStrike) -> WireAnswer:
    return sliced(strike.answer(), seed)
