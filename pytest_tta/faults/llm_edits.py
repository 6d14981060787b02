"""Changes to what goes over the wire: cut after a token, spliced, rewritten."""

from __future__ import annotations

import json
import random
import re
from bisect import bisect_left
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_tta.wire.api import Said, WireStrike
    from pytest_tta.wire.exchange import Ending, Part, WireAnswer
    from tta_primitives.llm import LLMResponse

__all__ = [
    "cut_after",
    "data_of",
    "is_stream",
    "parts_after",
    "postponed",
    "replaced",
    "resized",
    "retold",
    "rewritten",
    "said_with_mark",
    "sliced",
    "spliced",
    "with_data",
    "without_answer",
    "words",
]

_EVENT_STREAM = "text/event-stream"
_SIZES = (1, 2, 3, 5, 8, 13, 40)


def words(text: str, count: int) -> str:
    """Return the first words of a text, or half of one that has no more than that."""
    found = re.findall(r"\s*\S+", text)
    if len(found) > count:
        return "".join(found[:count])
    return text[: len(text) // 2] if count else ""


def retold(said: Said, response: LLMResponse) -> Said:
    """Return what is said with another response, whose text keeps the times."""
    if said.timeline is None:
        return replace(said, response=response)
    left, at, pieces = response.content, 0.0, []
    for at, piece in said.timeline:
        if not left or not left.startswith(piece):
            break
        pieces.append((at, piece))
        left = left[len(piece) :]
    if left:
        pieces.append((at, left))
    return replace(said, response=response, timeline=tuple(pieces))


def is_stream(answer: WireAnswer) -> bool:
    """Tell whether an answer consists of events."""
    return (answer.header("content-type") or "").startswith(_EVENT_STREAM)


def data_of(answer: WireAnswer) -> bytes:
    """Return the whole body."""
    return b"".join(part for _, part in answer.body)


def replaced(
    answer: WireAnswer, data: bytes, content_type: str, status: int = 200
) -> WireAnswer:
    """Return an answer of which nothing is left but when it comes.

    Args:
        answer: What would have been answered.
        data: The whole body, whose length is told.
        content_type: What it is.
        status: The HTTP status.
    """
    head = ("content-type", content_type), ("content-length", str(len(data)))
    body = ((0.0, data),) if data else ()
    return replace(answer, status=status, headers=head, body=body, tokens=(), tail=0)


def without_answer(answer: WireAnswer) -> WireAnswer:
    """Return what is left of an answer that never comes: no head, no body."""
    return replace(answer, has_head=False, headers=(), body=(), tokens=(), tail=0)


def with_data(answer: WireAnswer, data: bytes) -> WireAnswer:
    """Return an answer with another body, whose length is told if one was."""
    at = answer.body[-1][0] if answer.body else 0.0
    return resized(replace(answer, body=((at, data),), tokens=(0,), tail=0))


def resized(answer: WireAnswer) -> WireAnswer:
    """Return an answer with the length of its body told, if one was told before."""
    if answer.length is None:
        return answer
    size = str(len(data_of(answer)))
    pairs = ((k, size if k == "content-length" else v) for k, v in answer.headers)
    return replace(answer, headers=tuple(pairs))


def parts_after(answer: WireAnswer, tokens: int) -> int:
    """Return how many parts of a body have come when so many tokens have."""
    if not answer.tokens:
        return len(answer.body) - answer.tail
    if tokens == 0:
        return answer.tokens[0]
    return answer.tokens[min(tokens, len(answer.tokens)) - 1] + 1


def cut_after(answer: WireAnswer, tokens: int, ending: Ending) -> WireAnswer:
    """Return an answer that ends when so many tokens have come."""
    return answer.cut(parts_after(answer, tokens), ending)


def spliced(answer: WireAnswer, tokens: int, data: bytes) -> WireAnswer:
    """Return an answer that ends with these bytes after so many tokens."""
    parts = parts_after(answer, tokens)
    cut = answer.cut(parts, "complete")
    later = [at for at, _ in answer.body[parts : parts + 1]]
    at = (later or [cut.body[-1][0] if cut.body else 0.0])[0]
    return replace(cut, body=(*cut.body, (at, data)))


def postponed(answer: WireAnswer, tokens: int, seconds: float) -> WireAnswer:
    """Return an answer in which what comes after so many tokens comes later."""
    first = parts_after(answer, tokens)
    return replace(
        answer,
        body=tuple(
            (at + seconds if index >= first else at, part)
            for index, (at, part) in enumerate(answer.body)
        ),
    )


def rewritten(
    answer: WireAnswer, change: Callable[[dict[str, Any]], None]
) -> WireAnswer:
    """Return an answer with every JSON object in it changed, in place, by a function.

    Args:
        answer: A JSON body, or events whose data are JSON objects.
        change: Gets each object, and changes it or leaves it as it is.
    """
    if not is_stream(answer):
        return with_data(answer, _changed(data_of(answer), change))
    body = ((at, _rewritten_event(part, change)) for at, part in answer.body)
    return replace(answer, body=tuple(body))


def _rewritten_event(part: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """Return an event with its data changed, and with the name that goes with them."""
    head, begin, rest = part.partition(b"data: {")
    if not begin:
        return part
    data, end, more = (b"{" + rest).partition(b"\n")
    changed = _changed(data, change)
    old, new = (json.loads(one).get("type") for one in (data, changed))
    if new != old:
        head = head.replace(str(old).encode(), str(new).encode())
    return head + b"data: " + changed + end + more


def _changed(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    value, before = json.loads(data), json.loads(data)
    change(value)
    if value == before:
        return data
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def sliced(answer: WireAnswer, seed: int) -> WireAnswer:
    """Return an answer whose bytes come in other pieces, at the same times.

    What comes at one time is joined, so that pieces end within an event, within a
    character, and hold the end of one event with the beginning of the next.
    """
    chance = random.Random(seed)  # noqa: S311 - the same pieces for the same seed
    body: list[Part] = []
    for at, data in _by_time(answer.body):
        begin = 0
        while begin < len(data):
            end = begin + chance.choice(_SIZES)
            body.append((at, data[begin:end]))
            begin = end
    ends, old_ends = _ends(body), _ends(answer.body)
    tokens = sorted({bisect_left(ends, old_ends[index]) for index in answer.tokens})
    kept = old_ends[len(answer.body) - answer.tail - 1] if answer.tail else None
    tail = 0 if kept is None else sum(end > kept for end in ends)
    return replace(answer, body=tuple(body), tokens=tuple(tokens), tail=tail)


def _by_time(body: tuple[Part, ...]) -> list[Part]:
    joined: list[Part] = []
    for at, data in body:
        if joined and joined[-1][0] == at:
            joined[-1] = at, joined[-1][1] + data
        else:
            joined.append((at, data))
    return joined


def _ends(body: Iterable[Part]) -> list[int]:
    return list(accumulate(len(data) for _, data in body))


def said_with_mark(strike: WireStrike, mark: str) -> Said:
    """Return what is said with a mark within its text."""
    response = strike.said.response
    middle = len(response.content) // 2
    text = response.content[:middle] + mark + response.content[middle:]
    return retold(strike.said, replace(response, content=text))
