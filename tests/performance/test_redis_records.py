"""Bytes in Redis: what was written is read, and whatever else lies there is told."""

from __future__ import annotations

import json
import math
import pickle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.performance.tools import virtual
from tta_primitives.performance import Record, UnreadableRecord
from tta_primitives.performance.redis_records import (
    FOR_EVER,
    LONGEST_SECONDS,
    MAGIC,
    decoded,
    encoded,
    wall_now,
)

NOW = 946_684_800_000_000
STAMP = b"0946684800000000"
TEXTS = st.text(max_size=20)
RECORDS = st.builds(
    Record,
    st.binary(max_size=200),
    st.just(60.0) | st.floats(-1000, 60).map(lambda seconds: round(seconds, 6)),
    st.floats(60, 1e9).map(lambda seconds: round(seconds, 6)) | st.just(math.inf),
    st.lists(TEXTS.filter(lambda tag: len(tag.encode()) < 256), max_size=4).map(tuple),
)


def written(record: Record) -> bytes:
    return MAGIC + STAMP + encoded(record, NOW).body


def reason(data: bytes, now: int = NOW) -> str:
    found = decoded(data, now)
    assert isinstance(found, UnreadableRecord)
    return found.reason


@given(record=RECORDS)
def test_what_was_written_is_read(record) -> None:
    """Value, times and tags, to the microsecond."""
    assert decoded(written(record), NOW) == record


@given(data=st.binary(max_size=300))
@example(data=b"")
@example(data=MAGIC)
@example(data=MAGIC + STAMP)
@example(data=MAGIC + bytes(37))
def test_any_other_bytes_are_unreadable(data) -> None:
    """None of them is an error, and none is a value."""
    assert isinstance(decoded(data, NOW), UnreadableRecord)


@given(record=RECORDS, data=st.data())
def test_a_record_that_was_changed_is_unreadable(record, data) -> None:
    """One byte is enough, wherever it is but in the stamp, which Redis writes."""
    whole = written(record)
    places = [place for place in range(len(whole)) if not 4 <= place < 20]
    place = data.draw(st.sampled_from(places))
    other = data.draw(st.integers(1, 255))
    changed = bytearray(whole)
    changed[place] ^= other
    assert isinstance(decoded(bytes(changed), NOW), UnreadableRecord)


@given(record=RECORDS, data=st.data())
def test_a_record_that_was_cut_or_lengthened_is_unreadable(record, data) -> None:
    """Half a number is a number, too; the check finds that it is not the one."""
    whole = written(record)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    assert isinstance(decoded(cut, NOW), UnreadableRecord)
    more = whole + data.draw(st.binary(min_size=1, max_size=20))
    assert isinstance(decoded(more, NOW), UnreadableRecord)


FOREIGN = [
    (pickle.dumps({"a": 1}), "it has no form or version that is known here"),
    (json.dumps({"a": 1}).encode(), "it has no form or version that is known here"),
    (
        written(Record(b"1", 1, 1)).replace(b"tta1", b"tta2"),
        "it has no form or version",
    ),
    (written(Record(b"1", 1, 1))[:30], "it has no form or version that is known here"),
    (written(Record(b"12", 1, 1))[:-1], "it was cut or changed"),
]


@pytest.mark.parametrize(("data", "why"), FOREIGN, ids=range(len(FOREIGN)))
def test_case_72_it_is_told_why_bytes_are_no_record(data, why) -> None:
    """A pickle, bare JSON, another version, half a head, half a value."""
    assert reason(data).startswith(why)


def forged(fresh_until: int, kept_until: int, rest: bytes = b"\0") -> bytes:
    """Return a record with a true check and dates of one's own."""
    from zlib import crc32

    body = fresh_until.to_bytes(8, signed=True) + kept_until.to_bytes(8, signed=True)
    body += rest
    return MAGIC + STAMP + crc32(body).to_bytes(4) + body


SECOND = 1_000_000
CENTURIES = 3 * LONGEST_SECONDS * SECOND
ABSURD = [
    forged(NOW + 2 * SECOND, NOW + SECOND),
    forged(FOR_EVER, NOW + SECOND),
    forged(NOW, NOW + CENTURIES),
    forged(NOW + CENTURIES, NOW + CENTURIES),
]


@pytest.mark.parametrize("data", ABSURD, ids=range(len(ABSURD)))
def test_dates_that_make_no_sense_are_told(data) -> None:
    """Fresh after it is forgotten, or kept for centuries."""
    assert reason(data) == "its dates make no sense"


def test_tags_that_cannot_be_read_are_told() -> None:
    """A count that is too high, a length that is, and a text that is none."""
    for tags in (b"\2\1a", b"\1", b"\1\2\xc3\x28"):
        data = forged(NOW + SECOND, NOW + SECOND, tags)
        assert reason(data) == "its tags cannot be read"


@pytest.mark.parametrize("kept", [NOW, NOW - 1, 0, -CENTURIES])
def test_a_record_whose_time_is_over_is_none(kept) -> None:
    """That is no fault of its own."""
    assert decoded(forged(kept, kept), NOW) is None


def test_what_is_kept_for_ever_stays_so() -> None:
    """A century from now is no date that anybody means."""
    record = decoded(written(Record(b"", math.inf, math.inf)), NOW)
    assert (record.fresh_for, record.kept_for) == (math.inf, math.inf)
    long = decoded(written(Record(b"", 2 * LONGEST_SECONDS, math.inf)), NOW)
    assert long.fresh_for == math.inf


def test_redis_forgets_every_record_some_day() -> None:
    """The time is rounded up, never 0, and no longer than Redis takes."""
    times = (0.0001, 1.0001, math.inf)
    got = [encoded(Record(b"", 0, kept), NOW).milliseconds for kept in times]
    assert got == [1, 1001, LONGEST_SECONDS * 1000]


def test_only_bytes_can_be_written() -> None:
    """Making them is the serializer's work."""
    with pytest.raises(TypeError, match="a value in Redis must be bytes, not dict"):
        encoded(Record({"a": 1}, 1, 1), NOW)


@pytest.mark.parametrize(
    ("tags", "what"),
    [(["a"] * 256, "not 256 of up to 1"), (["ü" * 128], "of up to 256")],
)
def test_too_many_or_too_long_tags_are_refused(tags, what) -> None:
    """They stand in the record, which must stay readable."""
    with pytest.raises(ValueError, match=f"at most 255 tags of 255 bytes, .*{what}"):
        encoded(Record(b"", 1, 1, tuple(tags)), NOW)


def test_as_many_and_as_long_tags_as_are_allowed_come_back() -> None:
    """The limit itself is within it."""
    tags = ("a" * 255,) * 255
    record = Record(b"x", 1, 1, tags)
    assert decoded(written(record), NOW) == record


@virtual
async def test_the_date_is_that_of_the_wall() -> None:
    """In a test it is virtual, and exact."""
    assert wall_now() == NOW
