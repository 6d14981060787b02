"""All bugs of the zoo."""

from __future__ import annotations

from tests.zoo import (
    bugs_cancel,
    bugs_fleet,
    bugs_http,
    bugs_primitives,
    bugs_races,
    bugs_redis,
    bugs_second,
    bugs_third,
)

__all__ = ["SECOND", "THIRD", "ZOO"]

ZOO = (
    *bugs_races.BUGS,
    *bugs_cancel.BUGS,
    *bugs_http.BUGS,
    *bugs_redis.BUGS,
    *bugs_fleet.BUGS,
    *bugs_primitives.BUGS,
)

SECOND = bugs_second.BUGS
"""Eight more: how the search does with them is reported, and nothing is tuned to it."""

THIRD = bugs_third.BUGS
"""Eight more, of which the same is true."""
