"""What caches make of dates and errors of classes that they have never heard of."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from tta_primitives import WorkflowContext
from tta_primitives.keys import canonical, memory_key
from tta_primitives.performance import CachePrimitive


class Day(date):
    """A date of a library, such as those that stand in for the time of a test."""

    def __repr__(self):
        return "some day"


class Moment(datetime):
    """A moment of a library, with its own idea of what to show."""

    def __repr__(self):
        return "some time"


@pytest.mark.parametrize("key", [memory_key, canonical])
def test_a_date_of_a_class_of_its_own_is_told_by_its_value(key):
    """What it shows of itself does not count, its class and its value do."""
    noon = Moment(2024, 5, 1, 12, tzinfo=UTC)
    assert key(Day(2024, 5, 1)) == key(Day(2024, 5, 1))
    assert key(noon) == key(Moment(2024, 5, 1, 12, tzinfo=UTC))
    values = [
        *(Day(2024, 5, 1), Day(2024, 5, 2), date(2024, 5, 1)),
        *(noon, noon + timedelta(microseconds=1), noon.replace(tzinfo=None)),
        datetime(2024, 5, 1, 12, tzinfo=UTC),
    ]
    assert len({key(value) for value in values}) == len(values)


class RefusedError(Exception):
    """An error that writes its message itself, and so again when it is copied."""

    def __init__(self, code):
        super().__init__(f"refused with {code}")


async def test_a_remembered_failure_is_never_told_in_other_words():
    """If a copy of an error would say something else, the error itself is raised."""
    first = RefusedError(402)

    async def refuse(_):
        raise first

    cache = CachePrimitive(refuse, ttl=60, negative_ttl=60, negative_on=RefusedError)
    for _ in range(3):
        with pytest.raises(RefusedError, match=r"^refused with 402$") as caught:
            await cache.execute("a", WorkflowContext())
        assert caught.value is first
    assert cache.stats.hits == 2
