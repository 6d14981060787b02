"""freezegun sets and moves a clock instead of freezing time beside it."""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import freezegun
import freezegun.api
import pydantic
import pytest

from pytest_tta.clock import frozen, functions, trampolines, wall
from pytest_tta.clock.clock import VirtualClock
from pytest_tta.clock.frozen import ClockReversal
from pytest_tta.clock.functions import REAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MARCH = datetime(2024, 3, 1, 12, tzinfo=UTC)
NAIVE = datetime(2024, 3, 1, 12)  # noqa: DTZ001 - as freezegun shows it
TEXT = "2024-03-01 12:00:00"


class Warm(pydantic.BaseModel):
    """Make pydantic import what it is made of, before any test freezes time.

    freezegun asks every module for all its names, lazy ones too; what is imported
    that way keeps freezegun's types for good, and other tests would find them.
    """

    at: datetime


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    """Enter a clock."""
    with VirtualClock() as entered:
        yield entered


@pytest.fixture
def freezer() -> Iterator[Any]:
    """Freeze time as pytest-freezer's fixture of this name does."""
    with freezegun.freeze_time() as factory:
        yield factory


@pytest.fixture(params=["time-machine", "without time-machine"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with and without time-machine."""
    if request.param != "time-machine":
        monkeypatch.setattr(wall, "_has_time_machine", lambda: False)
    return str(request.param)


def readings() -> list[float]:
    """Read the wall in the ways that freezegun promises to freeze."""
    return [
        time.time(),
        time.time_ns() / 1e9,
        datetime.now(UTC).timestamp(),
        dt.datetime.now(UTC).timestamp(),
    ]


def assert_time_is_real() -> None:
    """Check that nobody has anything patched."""
    assert not freezegun.api.freeze_factories
    assert dt.datetime is freezegun.api.real_datetime
    assert abs(time.time() - REAL["time"]()) < 60
    assert abs(time.monotonic() - REAL["monotonic"]()) < 60
    assert time.monotonic is functions.TRAMPOLINES["monotonic"]
    assert functions._on_read is None


# --- H24: inside a clock -----------------------------------------------------


def test_h24_a_freeze_gives_the_clock_its_start(
    clock: VirtualClock, engine: str
) -> None:
    """Both agree on the wall, monotonic time and the loop, and nothing hangs."""

    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        with freezegun.freeze_time(TEXT):
            before = readings()
            await asyncio.sleep(3600)
            agree = time.monotonic() == time.perf_counter() == loop.time()
            return [before, readings(), agree, clock.now]

    start = MARCH.timestamp()
    assert clock.run(main()) == [
        [start] * 4,
        [start + 3600] * 4,
        True,
        MARCH + timedelta(hours=1),
    ]


def test_h24_an_async_function_may_be_decorated(engine: str) -> None:
    """`@freeze_time` on a coroutine function starts inside the clock."""

    @freezegun.freeze_time(TEXT)
    async def decorated() -> tuple[datetime, float]:
        await asyncio.sleep(30)
        return datetime.now(UTC), asyncio.get_running_loop().time()

    clock = VirtualClock()
    assert clock.run(decorated()) == (MARCH + timedelta(seconds=30), 30.0)
    assert_time_is_real()


@freezegun.freeze_time(TEXT)
async def test_h24_an_async_test_may_be_decorated() -> None:
    """A decorated async test without a clock is freezegun's own, as ever."""
    assert datetime.now(UTC) == MARCH


def test_h24_a_decorated_plain_function_gets_its_factory(clock: VirtualClock) -> None:
    """`as_arg` and `as_kwarg` hand out what moves the clock."""

    @freezegun.freeze_time(TEXT, as_kwarg="frozen")
    def decorated(frozen: Any) -> datetime:
        frozen.tick(10)
        time.sleep(5)
        return datetime.now(UTC)

    assert decorated() == MARCH + timedelta(seconds=15)
    assert clock.elapsed == 15


def test_h24_the_freezer_fixture_moves_the_clock(
    clock: VirtualClock, freezer: Any
) -> None:
    """A freeze without a date freezes the clock's present."""
    assert freezer() == datetime(2000, 1, 1)  # noqa: DTZ001 - as freezegun shows it

    freezer.move_to(TEXT)

    assert datetime.now(UTC) == MARCH == clock.now
    assert freezer.time_to_freeze == NAIVE


def test_h24_the_freezer_fixture_may_come_first(
    freezer: Any, clock: VirtualClock
) -> None:
    """A freeze that was there before the clock moves it all the same."""
    freezer.move_to("2050-01-01")
    freezer.tick(5)

    assert clock.now == datetime(2050, 1, 1, 0, 0, 5, tzinfo=UTC)
    assert readings() == [clock.now.timestamp()] * 4
    assert time.monotonic() == clock.time


@pytest.mark.parametrize("delta", [5, 5.0, timedelta(seconds=5)])
def test_h24_tick_takes_what_freezegun_takes(
    clock: VirtualClock, delta: float | timedelta
) -> None:
    """Seconds, whole or not, and timedeltas; it returns the new present."""
    with freezegun.freeze_time(TEXT) as factory:
        assert factory.tick(delta) == NAIVE + timedelta(seconds=5)
        assert factory.tick() == NAIVE + timedelta(seconds=6)

    assert clock.elapsed == 6


@pytest.mark.parametrize(
    "target", ["2024-03-01 13:00:00.123400", NAIVE.replace(hour=13, microsecond=123400)]
)
def test_h24_move_to_is_exact(clock: VirtualClock, target: Any) -> None:
    """The wall shows the very microsecond that was asked for, decades away."""
    with freezegun.freeze_time("1974-03-01") as factory:
        factory.move_to(target)

        assert datetime.now(UTC) == MARCH.replace(hour=13, microsecond=123400)
        time.sleep(1e-7)
        factory.move_to(target)
        assert datetime.now(UTC) == MARCH.replace(hour=13, microsecond=123400)


def test_h24_tick_fires_timers_in_order(clock: VirtualClock) -> None:
    """What became due fires after a tick, in the order in which it was due."""

    async def main() -> list[str]:
        loop, fired = asyncio.get_running_loop(), list[str]()
        with freezegun.freeze_time(TEXT) as factory:
            for delay in (3, 1, 2, 9):
                loop.call_later(delay, fired.append, f"due at {delay}")
            factory.tick(5)
            assert loop.time() == 5.0
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return fired

    assert clock.run(main()) == ["due at 1", "due at 2", "due at 3"]


@pytest.mark.parametrize("way", ["tick", "move_to", "time_to_freeze"])
def test_h24_going_back_is_refused(clock: VirtualClock, way: str) -> None:
    """An error names both instants, and time stays where it is."""
    with freezegun.freeze_time(TEXT) as factory:
        move: Callable[[], object] = {
            "tick": lambda: factory.tick(-1),
            "move_to": lambda: factory.move_to("2024-03-01 11:59:59"),
            "time_to_freeze": lambda: setattr(
                factory, "time_to_freeze", NAIVE - timedelta(seconds=1)
            ),
        }[way]
        with pytest.raises(
            ClockReversal,
            match="time cannot go back from 2024-03-01 12:00:00 to 2024-03-01 11:59:59",
        ):
            move()

        assert datetime.now(UTC) == MARCH
    assert issubclass(ClockReversal, ValueError)


def test_another_freeze_may_start_earlier(clock: VirtualClock) -> None:
    """Each freeze sets the wall anew; the loop does not notice."""
    with freezegun.freeze_time("2030-01-01"):
        time.sleep(1)
    with freezegun.freeze_time("1990-01-01"):
        year = datetime.now(UTC).year

    assert year == 1990
    assert clock.now == datetime(2000, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert clock.elapsed == 1


def test_nested_freezes_end_in_turn(clock: VirtualClock, engine: str) -> None:
    """The outer freeze is back when the inner one ends, and has gone on."""
    with freezegun.freeze_time("2030-01-01"):
        with freezegun.freeze_time(TEXT) as inner:
            inner.tick(2)
            assert datetime.now(UTC) == MARCH + timedelta(seconds=2)
        assert datetime.now(UTC) == datetime(2030, 1, 1, 0, 0, 2, tzinfo=UTC)


def test_a_freeze_inside_keeps_the_types(clock: VirtualClock) -> None:
    """With time-machine freezegun patches nothing, so that types stay theirs."""
    with freezegun.freeze_time(TEXT):
        assert dt.datetime is freezegun.api.real_datetime
        assert type(datetime.now(UTC)) is datetime
        assert uuid.uuid1().time // 10_000_000 - 12_219_292_800 == int(time.time())


@pytest.mark.parametrize(
    ("offset", "hour", "minute"),
    [(0, 12, 0), (-4, 8, 0), (timedelta(hours=5, minutes=30), 17, 30)],
)
def test_local_time_lies_at_the_freezes_offset(
    clock: VirtualClock, engine: str, offset: float | timedelta, hour: int, minute: int
) -> None:
    """`tz_offset` moves local time, and UTC does not care."""
    local = time.localtime().tm_gmtoff
    with freezegun.freeze_time(TEXT, tz_offset=offset):  # type: ignore[arg-type]
        here, there = dt.datetime.now(), dt.datetime.now(UTC)  # noqa: DTZ005 - asked for

    assert (here.hour, here.minute) == (hour, minute)
    assert there == MARCH
    assert time.localtime().tm_gmtoff == local


def test_auto_tick_moves_the_clock_with_each_reading(
    clock: VirtualClock, engine: str
) -> None:
    """A loop that polls the time comes to its end, on either clock."""
    with freezegun.freeze_time(TEXT, auto_tick_seconds=15) as factory:
        first, second = datetime.now(UTC), time.time()
        deadline = time.monotonic() + 60
        polls = sum(1 for _ in iter(lambda: time.monotonic() < deadline, False))
        factory.update_step_width(1)
        third, fourth = time.monotonic(), time.monotonic()
        factory.tick()

    assert (first, second) == (MARCH, MARCH.timestamp() + 15)
    assert (polls, fourth - third) == (3, 1)
    before = clock.elapsed
    assert (time.monotonic(), clock.elapsed) == (clock.time, before)


def test_a_ticking_freeze_goes_on_in_virtual_time(clock: VirtualClock) -> None:
    """`tick=True` means that time goes on, and in a clock it goes on by waiting."""
    with freezegun.freeze_time(TEXT, tick=True) as factory:
        time.sleep(10)
        factory.tick(5)

        assert datetime.now(UTC) == MARCH + timedelta(seconds=15)


def test_real_asyncio_is_not_needed(clock: VirtualClock, engine: str) -> None:
    """The option that works around freezegun's hang changes nothing."""

    async def main() -> float:
        with freezegun.freeze_time(TEXT, real_asyncio=True):
            await asyncio.sleep(60)
            return time.time()

    assert clock.run(main()) == MARCH.timestamp() + 60


# --- H24: around a clock -----------------------------------------------------


def test_h24_a_freeze_around_the_clock_sets_and_follows_it(engine: str) -> None:
    """A freeze that began before is the start, and goes on from the end."""
    with freezegun.freeze_time(TEXT) as factory:
        with VirtualClock() as clock:
            before = readings()
            clock.run(asyncio.sleep(60))
            inside = readings()
            monotonic = time.monotonic()
        after = readings()
        factory.move_to("2020-01-01")
        back = time.time()

    start = MARCH.timestamp()
    assert (before, inside, after) == ([start] * 4, [start + 60] * 4, [start + 60] * 4)
    assert monotonic == 60.0
    assert back == datetime(2020, 1, 1, tzinfo=UTC).timestamp()
    assert_time_is_real()


def test_a_ticking_freeze_around_the_clock_ticks_on() -> None:
    """Afterwards it ticks in real time again, from where the clock was."""
    with freezegun.freeze_time(TEXT, tick=True) as factory:
        factory.start -= timedelta(hours=5)  # type: ignore[union-attr]
        with VirtualClock():
            time.sleep(3600)
        after = datetime.now(UTC)

    assert timedelta(0) <= after - MARCH - timedelta(hours=6) < timedelta(minutes=1)


def test_a_stepping_freeze_around_the_clock_steps() -> None:
    """Every reading is a step, before, inside and after."""
    with freezegun.freeze_time(TEXT, auto_tick_seconds=1):
        seen = [time.time()]
        with VirtualClock():
            seen += [time.time(), time.time()]
        seen.append(time.time())

    assert [each - MARCH.timestamp() for each in seen] == [0, 1, 2, 3]
    assert functions._on_read is None


def test_freezes_around_and_inside_the_clock_nest() -> None:
    """The inner one patches nothing more, and its end gives the outer one back."""
    with freezegun.freeze_time("2030-01-01"), VirtualClock() as clock:
        with freezegun.freeze_time(TEXT) as inner:
            inner.tick(5)
            assert readings() == [MARCH.timestamp() + 5] * 4
        assert clock.now == datetime(2030, 1, 1, 0, 0, 5, tzinfo=UTC)
        assert readings() == [clock.now.timestamp()] * 4


def test_a_freeze_that_outlives_the_clock_is_freezeguns_again() -> None:
    """What was begun inside and not ended goes on frozen, patches and all."""
    freeze = freezegun.freeze_time(TEXT)
    with VirtualClock():
        factory: Any = freeze.start()
        factory.tick(1)
    outlived = [datetime.now(UTC), dt.datetime.now(UTC), factory()]
    frozen_type = dt.datetime
    freeze.stop()

    later = MARCH + timedelta(seconds=1)
    assert outlived == [later, later, NAIVE + timedelta(seconds=1)]
    assert frozen_type is freezegun.api.FakeDatetime
    assert_time_is_real()


# --- no clock ----------------------------------------------------------------


def test_freezegun_without_a_clock_is_as_it_was() -> None:
    """Trampolines are frozen as the builtins were, and thawed afterwards."""
    trampolines.install()
    with freezegun.freeze_time(TEXT) as factory:
        before = [time.monotonic(), time.perf_counter(), *readings()]
        factory.tick(-10)
        after = time.monotonic()

    assert before == [MARCH.timestamp()] * 6
    assert after == MARCH.timestamp() - 10
    assert_time_is_real()


def test_names_imported_before_freezegun_are_frozen_without_a_clock() -> None:
    """A module that holds a trampoline is patched as if it held the builtin."""
    trampolines.install()
    theirs = type(sys)("theirs_to_freeze")
    vars(theirs)["monotonic"] = time.monotonic
    sys.modules["theirs_to_freeze"] = theirs
    try:
        with freezegun.freeze_time(TEXT):
            inside = theirs.monotonic()
        assert theirs.monotonic is time.monotonic
    finally:
        del sys.modules["theirs_to_freeze"]

    assert inside == MARCH.timestamp()


def test_freezing_tells_whether_time_is_frozen() -> None:
    """The wall asks before it chooses its engine."""
    before = frozen.is_freezing()
    with freezegun.freeze_time(TEXT):
        inside = frozen.is_freezing()
        engine = wall.best_engine()

    assert (before, inside, engine) == (False, True, "freezegun")
