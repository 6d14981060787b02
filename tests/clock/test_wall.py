"""The wall clock follows a clock, with the types of the standard library intact."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import math
import queue
import threading
import time
import uuid
from datetime import UTC, date, datetime
from time import time as time_taken_before
from typing import TYPE_CHECKING

import aiocache
import cachetools
import fakeredis
import orjson
import pydantic
import pytest
import time_machine
from _pytest import timing

from pytest_tta.clock import trampolines, wall
from pytest_tta.clock.clock import VirtualClock
from pytest_tta.clock.functions import REAL
from pytest_tta.clock.wall import Wall, best_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Y2K = 946_684_800


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    """Enter a clock whose wall starts at 2000-01-01."""
    with VirtualClock() as entered:
        yield entered


def real_time() -> float:
    """Read the machine's wall clock, whatever is patched."""
    if time_machine.escape_hatch.is_travelling():
        return time_machine.escape_hatch.time.time()
    return float(REAL["time"]())


def in_strange_thread(function: Callable[[], object]) -> object:
    """Run `function` in a thread that no clock knows."""
    results: queue.SimpleQueue[object] = queue.SimpleQueue()
    start = getattr(threading.Thread.start, "__tta_wrapped__", threading.Thread.start)
    thread = threading.Thread(target=lambda: results.put(function()))
    start(thread)
    thread.join()
    return results.get()


# --- what it shows -----------------------------------------------------------


def wall_readings() -> list[float]:
    """Read the wall in every way that Python offers, in seconds since 1970."""
    return [
        time.time(),
        time_taken_before(),
        time.time_ns() / 1e9,
        time.clock_gettime(time.CLOCK_REALTIME),
        time.clock_gettime_ns(time.CLOCK_REALTIME) / 1e9,
        datetime.now(UTC).timestamp(),
        dt.datetime.now().timestamp(),  # noqa: DTZ005 - local time is asked
        time.mktime(time.localtime()),
        float(int(time.strftime("%s"))),
    ]


def test_h04_every_wall_reading_agrees_before_and_after_a_jump(
    clock: VirtualClock,
) -> None:
    """The wall moves with the loop, in whichever way it is asked."""

    async def main() -> tuple[list[float], date, list[float], date]:
        before, day = wall_readings(), datetime.now(UTC).date()
        await asyncio.sleep(86_400)
        return before, day, wall_readings(), datetime.now(UTC).date()

    assert clock.run(main()) == (
        [float(Y2K)] * 9,
        date(2000, 1, 1),
        [Y2K + 86_400.0] * 9,
        date(2000, 1, 2),
    )


def test_h04_the_local_day_follows(clock: VirtualClock) -> None:
    """`date.today()` is the local day of the clock's wall."""
    time.sleep(36 * 3600)

    assert date.today() == clock.now.astimezone().date()  # noqa: DTZ011 - that is asked
    assert clock.now == datetime(2000, 1, 2, 12, tzinfo=UTC)


def test_what_is_built_on_the_wall_follows(clock: VirtualClock) -> None:
    """Log records and time-based identifiers carry the clock's time."""
    record = logging.makeLogRecord({})
    epoch_of_uuid = datetime(1582, 10, 15, tzinfo=UTC)

    made = uuid.uuid1()

    assert logging.LogRecord("a", 1, "b", 2, "c", (), None).created == float(Y2K)
    assert epoch_of_uuid + dt.timedelta(microseconds=made.time // 10) == clock.now
    assert record.created == float(Y2K)


def test_a_clock_without_wall_leaves_it_alone() -> None:
    """`wall=False` moves the monotonic clock only."""
    with VirtualClock(wall=False):
        before = real_time()
        time.sleep(1e9)

        assert before <= time.time() <= before + 60


@pytest.mark.parametrize("way", ["error", "plain"])
def test_the_wall_is_real_again_afterwards(way: str) -> None:
    """Nothing stays patched when a clock is left, by an error or without."""
    generate = uuid._generate_time_safe  # type: ignore[attr-defined]
    try:
        with VirtualClock():
            if way == "error":
                raise LookupError(way)
    except LookupError:
        pass

    assert not time_machine.escape_hatch.is_travelling()
    assert uuid._generate_time_safe is generate  # type: ignore[attr-defined]
    assert abs(time.time() - real_time()) < 60
    assert abs(datetime.now(UTC).timestamp() - real_time()) < 60


# --- H20 ---------------------------------------------------------------------


def test_h20_a_start_today_and_ten_years_of_sleep() -> None:
    """Large times stay exact: the loop wakes, and the wall is ten years on."""
    ten_years = 10 * 365 * 86_400
    today = real_time()

    async def main() -> tuple[float, float, float]:
        loop, start, began = asyncio.get_running_loop(), time.time(), clock.elapsed
        await asyncio.sleep(ten_years)
        return start, time.time() - start, loop.time() - began

    clock = VirtualClock(start="now")
    start, on_the_wall, in_the_loop = clock.run(main())
    assert (on_the_wall, in_the_loop) == (ten_years, ten_years)
    assert today <= start <= real_time()


def test_h20_a_loop_that_starts_at_todays_epoch_second() -> None:
    """Monotonic time may start as late as the wall does."""
    epoch = math.floor(real_time())
    clock = VirtualClock(start=epoch, loop_start=epoch)

    async def main() -> list[float]:
        seen = []
        for _ in range(3):
            await asyncio.sleep(0.25)
            seen.append(time.monotonic())
        return seen

    assert clock.run(main()) == [epoch + 0.25, epoch + 0.5, epoch + 0.75]


# --- H23 ---------------------------------------------------------------------


def test_h23_pydantic_and_orjson_see_the_types_they_know(clock: VirtualClock) -> None:
    """Models are defined, validated and written inside a clock as outside."""

    class Event(pydantic.BaseModel):
        at: datetime = pydantic.Field(default_factory=lambda: datetime.now(UTC))
        day: date

    event = Event(day=date(2000, 1, 1))

    assert type(datetime.now(UTC)) is dt.datetime
    assert type(date.today()) is dt.date  # noqa: DTZ011 - its type is asked
    assert event.at == datetime(2000, 1, 1, tzinfo=UTC)
    assert event.model_dump_json() == (
        '{"at":"2000-01-01T00:00:00Z","day":"2000-01-01"}'
    )
    assert orjson.dumps(datetime.now(UTC)) == b'"2000-01-01T00:00:00+00:00"'


# --- H14 ---------------------------------------------------------------------


def test_h14_keys_of_fakeredis_expire_in_virtual_time(clock: VirtualClock) -> None:
    """`ttl()` counts down with the clock and the key is gone at its end."""

    async def main() -> list[object]:
        async with fakeredis.FakeAsyncRedis() as redis:
            await redis.set("key", "value", ex=3600)
            seen: list[object] = [await redis.ttl("key")]
            await asyncio.sleep(3599)
            seen += [await redis.ttl("key"), await redis.get("key")]
            await asyncio.sleep(1.001)
            return [*seen, await redis.get("key"), await redis.ttl("key")]

    assert clock.run(main()) == [3600, 1, b"value", None, -2]
    assert clock.elapsed == 3600.001


def test_h14_entries_of_cachetools_expire_in_virtual_time(clock: VirtualClock) -> None:
    """Its default timer was bound when it was imported, and follows all the same."""
    cache: cachetools.TTLCache[str, int] = cachetools.TTLCache(maxsize=9, ttl=60)

    async def main() -> list[int | None]:
        cache["a"] = 1
        await asyncio.sleep(59.5)
        before = cache.get("a")
        await asyncio.sleep(0.5)
        return [before, cache.get("a")]

    assert clock.run(main()) == [1, None]


def test_h14_entries_of_aiocache_expire_in_virtual_time(clock: VirtualClock) -> None:
    """Its memory cache sets a timer of the loop for each entry."""

    async def main() -> list[object]:
        cache = aiocache.SimpleMemoryCache()
        await cache.set("a", 1, ttl=30)
        await asyncio.sleep(29)
        before = await cache.get("a")
        await asyncio.sleep(1.5)
        return [before, await cache.get("a")]

    assert clock.run(main()) == [1, None]


# --- who keeps real time -----------------------------------------------------


def test_strange_threads_see_the_real_wall(clock: VirtualClock) -> None:
    """What runs beside the test keeps its own time of day."""
    seen = in_strange_thread(lambda: (time.time(), datetime.now(UTC).timestamp()))

    assert isinstance(seen, tuple)
    assert all(abs(each - real_time()) < 60 for each in seen)


def test_pytest_keeps_the_real_wall(clock: VirtualClock) -> None:
    """Durations and dates of pytest's reports are real while a clock is active."""
    before = REAL["perf_counter"]()
    instant = timing.Instant()
    time.sleep(1e6)
    duration = instant.elapsed()

    assert abs(duration.start.time - real_time()) < 60
    assert duration.seconds <= REAL["perf_counter"]() - before


# --- time-machine of the user's own ------------------------------------------


def test_a_travel_around_the_clock_goes_on_afterwards() -> None:
    """A clock inside a travel shows its own wall and gives the travel back."""
    with time_machine.travel(datetime(1985, 10, 26, tzinfo=UTC), tick=False):
        with VirtualClock():
            inside = time.time()
        after = datetime.now(UTC)

    assert inside == float(Y2K)
    assert after == datetime(1985, 10, 26, tzinfo=UTC)


def test_a_travel_inside_the_clock_is_the_users_own(clock: VirtualClock) -> None:
    """time-machine has the last word on the wall until its travel ends."""
    with time_machine.travel(datetime(1985, 10, 26, tzinfo=UTC), tick=False):
        assert datetime.now(UTC).year == 1985

    assert time.time() == float(Y2K)


def test_a_travel_that_outlives_the_clock_goes_on() -> None:
    """The clock takes itself off the stack from wherever it stands."""
    travel = time_machine.travel(datetime(1985, 10, 26, tzinfo=UTC), tick=False)
    with VirtualClock():
        travel.start()
    outlived = datetime.now(UTC)
    travel.stop()

    assert outlived == datetime(1985, 10, 26, tzinfo=UTC)
    assert not time_machine.escape_hatch.is_travelling()


# --- without time-machine ----------------------------------------------------


@pytest.fixture
def no_time_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make it look as if time-machine were not installed."""
    monkeypatch.setattr(wall, "_has_time_machine", lambda: False)


@pytest.mark.usefixtures("no_time_machine")
def test_without_time_machine_time_follows_and_a_note_says_what_does_not() -> None:
    """`time.time()` is trampolined, wherever it was imported; dates stay real."""
    with VirtualClock() as clock:
        time.sleep(60)
        readings = [time.time(), time_taken_before(), time.time_ns() / 1e9]
        day = datetime.now(UTC).timestamp()

    assert readings == [Y2K + 60.0] * 3
    assert abs(day - real_time()) < 60
    assert abs(time_taken_before() - real_time()) < 60
    assert clock.notes == [
        (
            "without time-machine only time.time() and time.time_ns() show virtual "
            "time, datetime.now() shows real time; install time-machine"
        )
    ]


@pytest.mark.usefixtures("no_time_machine")
def test_without_time_machine_strange_threads_see_the_real_wall() -> None:
    """The trampoline of `time.time` asks whose thread it is, too."""
    with VirtualClock():
        seen = in_strange_thread(time.time)

    assert isinstance(seen, float)
    assert abs(seen - real_time()) < 60


def test_with_time_machine_the_trampolines_do_not_stand_in_its_way(
    clock: VirtualClock,
) -> None:
    """Once `time.time` has a trampoline, time-machine is asked through it."""
    trampolines.install_wall()

    assert time.time() == float(Y2K)
    assert clock.notes == []


def test_the_best_engine_is_time_machine(clock: VirtualClock) -> None:
    """It is chosen where it is installed, and a wall says what it uses."""
    shown = Wall(clock)

    assert best_engine() == "time-machine"
    assert (shown.engine, shown.note) == (None, None)


def test_an_old_time_machine_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before version 3.0 it had no stack of travellers."""

    def fail(name: str) -> None:
        raise AttributeError(name)

    wall._has_time_machine.cache_clear()
    monkeypatch.setattr(wall.importlib, "import_module", fail)
    try:
        assert best_engine() == "time.time"
    finally:
        wall._has_time_machine.cache_clear()
