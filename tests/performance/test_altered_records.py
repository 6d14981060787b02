"""The checks fail for a storage that gives records back otherwise than it got them."""

from __future__ import annotations

import pytest

from tests.performance.tools import virtual
from tests.performance.toy_storages import ToyStorage, expect_failure

DAY = 86400


def as_text(record):
    return record._replace(value=record.value.decode("latin-1"))


def as_good_text(record):
    return record._replace(value=record.value.decode(errors="replace").encode())


def without_empty(record):
    return record if record.value else None


def without_minus_one(record):
    return None if record.value == b"-1" else record


def cut(record):
    return record._replace(value=record.value[:65536])


def in_milliseconds(record):
    return record._replace(fresh_for=record.fresh_for * 1000)


def kept_in_milliseconds(record):
    return record._replace(kept_for=record.kept_for * 1000)


def aged_twice(record):
    return record._replace(fresh_for=record.fresh_for / 2)


def kept_while_fresh(record):
    return record._replace(kept_for=record.fresh_for)


def untagged(record):
    return record._replace(tags=())


def with_tags_split(record):
    return record._replace(tags=tuple(" ".join(record.tags).split(" ")))


def as_plain_tuple(record):
    return tuple(record)


def never_stale(record):
    return record._replace(fresh_for=max(0.0, record.fresh_for))


def gone_when_stale(record):
    return record if record.fresh_for > 0 else None


def fresh_for_a_year(record):
    return record._replace(fresh_for=min(record.fresh_for, 365 * DAY))


def kept_for_a_year(record):
    return record._replace(kept_for=min(record.kept_for, 365 * DAY))


GIVES = "gives_back_what_it_was_given"
STALE = "tells_how_long_a_record_has_been_stale"
INFINITE = "keeps_for_ever_if_asked"

ALTERED = [
    (as_text, GIVES, "the value of a record kept just now: got ''"),
    (as_good_text, GIVES, r"the value of a record kept just now: got b'\x00\r\n\xef"),
    (without_empty, GIVES, "5 records were kept, and these given back: [None, Rec"),
    (without_minus_one, GIVES, "5 records were kept, and these given back: [Rec"),
    (cut, GIVES, "the value of a record kept just now: got b'xxx"),
    (in_milliseconds, GIVES, "fresh_for of a record kept just now: got 4999"),
    (aged_twice, GIVES, "fresh_for of a record kept just now: got 24.9"),
    (kept_while_fresh, GIVES, "kept_for of a record kept just now: got 49.9"),
    (kept_in_milliseconds, GIVES, "kept_for of a record kept just now: got 9999"),
    (untagged, GIVES, "the tags of a record kept just now: got set() instead of {"),
    (with_tags_split, GIVES, "the tags of a record kept just now: got {"),
    (as_plain_tuple, GIVES, "5 records were kept, and these given back: [(b'', 49."),
    (never_stale, STALE, "fresh_for after its end: got 0.0, which is not between"),
    (in_milliseconds, STALE, "fresh_for after its end: got -2"),
    (gone_when_stale, STALE, "1 records were kept, and these given back: [None]"),
    (fresh_for_a_year, INFINITE, "an infinite fresh_for: got 31536000,"),
    (kept_for_a_year, INFINITE, "an infinite kept_for: got 31536000,"),
]


@pytest.mark.parametrize(("alter", "name", "message"), ALTERED)
@virtual
async def test_an_altered_record_is_told(alter, name, message) -> None:
    """Whatever of a record is not as it was kept, the check says what."""
    await expect_failure(name, ToyStorage(alter), message)


@virtual
async def test_a_storage_that_is_too_slow_is_told() -> None:
    """After more than ten seconds nobody could tell its times from wrong ones."""
    message = "fresh_for of a record kept just now: got 39.5"
    await expect_failure(GIVES, ToyStorage(seconds=10.5), message)
