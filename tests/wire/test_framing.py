"""Answers as the bytes of HTTP/1.1: when each is sent, and where they are over."""

from __future__ import annotations

import pytest

from pytest_tta.wire.exchange import WireAnswer
from pytest_tta.wire.framing import Reader, frames_of

LENGTH = ("content-length", "4")


def test_parts_come_after_their_head() -> None:
    """Their seconds are counted from the head, and the head's from the request."""
    answer = WireAnswer(head_after=2.0, body=((1.0, b"a"), (3.5, b"b")))
    assert [at for at, _ in frames_of(answer)] == [2.0, 3.0, 5.5, 5.5, 5.5]


@pytest.mark.parametrize("headers", [(), (LENGTH,)], ids=["chunks", "length"])
def test_an_empty_part_ends_nothing(headers) -> None:
    """As a chunk it would be the last one, and without chunks the connection's end."""
    body = ((0.0, b"on"), (0.0, b""), (0.0, b"ce"))
    assert read(WireAnswer(headers=headers, body=body)) == (b"once", True)


@pytest.mark.parametrize("headers", [(), (LENGTH,)], ids=["chunks", "length"])
def test_a_body_is_over_before_the_connection_is(headers) -> None:
    """Also if the server says that it will close it, as the end is told before."""
    closing = (*headers, ("connection", "close"))
    answer = WireAnswer(headers=closing, body=((0.0, b"once"),))
    assert read(answer, without_end=True) == (b"once", True)


def read(answer, *, without_end=False) -> tuple[bytes, bool]:
    """Return the body, and whether it is over, as a reader has it."""
    frames = [data for _, data in frames_of(answer)]
    if without_end:
        assert frames.pop() == b""
    reader = Reader(b"POST", b"/", [(b"host", b"llm.test")])
    body = b""
    for data in frames:
        if reader.is_over:
            break
        reader.feed(data)
        if not reader.has_begun:
            assert reader.head() is not None
        body += b"".join(reader.data())
    return body, reader.is_over
