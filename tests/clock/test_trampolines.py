"""Python's own time functions follow a clock inside it, and only there."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import importlib
import math
import pickle
import queue
import subprocess
import sys
import textwrap
import threading
import time
import types
from time import monotonic, perf_counter, perf_counter_ns
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings, strategies

from pytest_tta.clock import functions, trampolines
from pytest_tta.clock.clock import VirtualClock
from pytest_tta.clock.functions import REAL, REAL_TIME, TRAMPOLINES
from pytest_tta.clock.imports import ImportWatcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    """Enter a clock whose monotonic time starts at 1000 s."""
    with VirtualClock(loop_start=1000) as entered:
        yield entered


def in_thread(function: Callable[[], object]) -> object:
    """Run `function` in a thread that no clock knows, and return its result."""
    results: queue.SimpleQueue[object] = queue.SimpleQueue()
    start = getattr(threading.Thread.start, "__tta_wrapped__", threading.Thread.start)
    thread = threading.Thread(target=lambda: results.put(function()))
    start(thread)
    thread.join()
    return results.get()


def module(source: str, name: str = "theirs") -> types.ModuleType:
    """Make a module as it was before the trampolines: with the real functions."""
    made = types.ModuleType(name)
    real = types.ModuleType("time")
    vars(real).update(REAL)
    vars(made)["time"] = real
    exec(textwrap.dedent(source), vars(made))
    vars(made)["time"] = time
    return made


# --- what they show ----------------------------------------------------------


def test_h04_all_readings_agree_before_and_after_a_jump(clock: VirtualClock) -> None:
    """Loop, monotonic and perf_counter are one time, however they were imported."""

    async def readings() -> list[float]:
        loop = asyncio.get_running_loop()
        return [
            loop.time(),
            time.monotonic(),
            monotonic(),
            time.perf_counter(),
            perf_counter(),
            time.monotonic_ns() / 1e9,
            perf_counter_ns() / 1e9,
            clock.time,
        ]

    async def main() -> list[list[float]]:
        before = await readings()
        await asyncio.sleep(0.1)
        return [before, await readings()]

    assert clock.run(main()) == [[1000.0] * 8, [1000.1] * 8]


def test_a_class_attribute_does_not_bind(clock: VirtualClock) -> None:
    """`timer = time.monotonic` in a class works as with the builtin."""

    class Stopwatch:
        timer = time.monotonic

    assert Stopwatch().timer() == 1000.0


def test_a_trampoline_is_copied_and_pickled_by_name() -> None:
    """What can be done with the builtin can be done with its replacement."""
    trampolines.install()

    assert copy.deepcopy(time.monotonic) is time.monotonic
    assert pickle.loads(pickle.dumps(time.sleep)) is time.sleep
    assert repr(time.perf_counter) == "<time.perf_counter, virtual inside a clock>"
    assert time.monotonic.__doc__ == REAL["monotonic"].__doc__


def test_h26_sleep_moves_time_in_a_plain_test(clock: VirtualClock) -> None:
    """A test without a loop sleeps an hour at once, and the log has it."""
    began = REAL["monotonic"]()

    time.sleep(3600)

    assert time.monotonic() == 4600.0
    assert REAL["monotonic"]() - began < 1
    assert [(s.delay, s.kind) for s in clock.sleeps] == [(3600, "blocking")]


def test_h26_asyncio_run_inside_a_plain_test_is_virtual(clock: VirtualClock) -> None:
    """A loop of the clock's making runs in its time, before and after a sleep."""

    async def nap() -> float:
        await asyncio.sleep(60)
        return time.monotonic()

    time.sleep(5)
    with asyncio.Runner(loop_factory=clock.new_loop) as runner:
        assert runner.run(nap()) == 1065.0
    time.sleep(5)

    assert clock.elapsed == 70.0


@pytest.mark.parametrize(
    ("length", "error", "text"),
    [
        (-1, ValueError, "sleep length must be non-negative"),
        (math.nan, ValueError, "NaN"),
        ("1", TypeError, "'str' object cannot be interpreted as an integer"),
        (math.inf, OverflowError, "timestamp"),
    ],
)
def test_sleep_refuses_what_the_builtin_refuses(
    clock: VirtualClock, length: Any, error: type[Exception], text: str
) -> None:
    """A wrong length is the same error with and without a clock."""
    with pytest.raises(error, match=text):
        time.sleep(length)

    assert clock.elapsed == 0


def test_a_strange_thread_keeps_real_time(clock: VirtualClock) -> None:
    """A thread that was not started by the test sees and waits real time."""
    before = REAL["monotonic"]()

    seen = in_thread(lambda: (time.monotonic(), time.sleep(0.001), time.monotonic()))

    assert isinstance(seen, tuple)
    assert before < seen[0] < seen[0] + 0.001 <= seen[2] <= REAL["monotonic"]()
    assert clock.elapsed == 0


def test_time_is_real_again_after_the_clock() -> None:
    """Nothing stays behind when a clock is left."""
    with VirtualClock():
        time.sleep(10)
    before = REAL["monotonic"]()

    between = [time.monotonic(), monotonic(), time.perf_counter()]

    assert all(before <= each <= REAL["monotonic"]() for each in between)


@pytest.mark.skipif(not hasattr(time, "pthread_getcpuclockid"), reason="needs fork")
def test_a_forked_child_has_real_time() -> None:
    """A child has no use for the time of its parent's loop."""
    script = """
        import os, time
        from pytest_tta.clock.clock import VirtualClock
        with VirtualClock(loop_start=0):
            child = os.fork()
            if not child:
                os._exit(0 if time.monotonic() > 1 else 7)
            status = os.waitpid(child, 0)[1]
            print(os.waitstatus_to_exitcode(status), time.monotonic())
    """

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "0 0.0\n"


# --- references that were taken before ---------------------------------------


def test_installing_again_does_nothing() -> None:
    """The second call finds everything done."""
    first = trampolines.install()
    start = threading.Thread.start

    assert trampolines.install() is first
    assert threading.Thread.start is start


def test_a_name_imported_before_is_replaced() -> None:
    """`from time import monotonic` of an older module holds the trampoline."""
    theirs = module("monotonic = time.monotonic; other = len")

    done = trampolines.replace_references({"theirs": theirs}, TRAMPOLINES)

    assert theirs.monotonic is TRAMPOLINES["monotonic"]
    assert theirs.other is len
    assert (done.replaced, done.refused, done.note) == (1, (), None)


def test_defaults_attributes_and_closures_are_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Timers kept in defaults, in classes and by dataclasses follow, too."""
    monkeypatch.setitem(sys.modules, "theirs", types.ModuleType("theirs"))
    theirs = module(
        """
        import dataclasses

        def default(timer=time.monotonic):
            return timer

        def keyword(*, timer=time.perf_counter):
            return timer

        class Cache:
            timer = time.monotonic_ns

            def __init__(self, timer=time.monotonic):
                self.kept = timer

            @classmethod
            def make(cls, sleep=time.sleep):
                return sleep

            class Inner:
                timer = time.monotonic

        @dataclasses.dataclass
        class Stamp:
            at: object = dataclasses.field(default_factory=time.monotonic)
        """
    )

    trampolines.replace_references({"theirs": theirs}, TRAMPOLINES)

    assert theirs.default() is TRAMPOLINES["monotonic"]
    assert theirs.keyword() is TRAMPOLINES["perf_counter"]
    assert vars(theirs.Cache)["timer"] is TRAMPOLINES["monotonic_ns"]
    assert theirs.Cache().kept is TRAMPOLINES["monotonic"]
    assert theirs.Cache.make() is TRAMPOLINES["sleep"]
    assert vars(theirs.Cache.Inner)["timer"] is TRAMPOLINES["monotonic"]
    with VirtualClock(loop_start=5):
        assert theirs.Stamp().at == 5.0


def test_the_scan_asks_no_module_for_anything() -> None:
    """A lazy module is not made to load by being looked at."""

    class Lazy(types.ModuleType):
        def __getattribute__(self, name: str) -> object:
            raise AssertionError(name)

    class Loading(types.ModuleType):
        @property
        def __dict__(self) -> dict[str, object]:
            raise AssertionError

    class Proxy:
        @property
        def __class__(self) -> type:
            raise AssertionError

        @__class__.setter
        def __class__(self, value: type) -> None: ...

    theirs = module("monotonic = time.monotonic")
    vars(theirs)["proxy"] = Proxy()
    everything = {"lazy": Lazy("lazy"), "none": None, "theirs": theirs, "odd": 3}
    everything["loading"] = Loading("loading")

    assert trampolines.replace_references(everything, TRAMPOLINES).replaced == 1


def test_a_reference_that_cannot_be_replaced_is_named() -> None:
    """Where an interpreter or a class refuses, the note says what stays real."""
    theirs = module(
        """
        class Fixed(type):
            def __setattr__(cls, name, value):
                raise TypeError("immutable")

        class Kept(metaclass=Fixed):
            timer = time.monotonic
        """
    )

    done = trampolines.replace_references({"theirs": theirs}, TRAMPOLINES)

    assert done.refused == ("theirs.Kept.timer",)
    assert done.replaced == 0
    assert done.note == (
        "these references cannot be replaced and show real time: theirs.Kept.timer"
    )


def test_an_interpreter_whose_time_is_fixed_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the module `time` itself takes no new function, that is said as well."""

    class Fixed(types.ModuleType):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    fixed = Fixed("time")
    vars(fixed).update(REAL)
    monkeypatch.setattr(trampolines, "time", fixed)

    done = trampolines._put({"sleep": TRAMPOLINES["sleep"]})

    assert done.refused == ("time.sleep",)


# --- who keeps real time -----------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "threading",
        "queue",
        "subprocess",
        "asyncio.base_events",
        "_pytest.timing",
        "pytest_timeout",
        "hypothesis.core",
    ],
)
def test_waiting_and_measuring_packages_keep_real_time(
    clock: VirtualClock, name: str
) -> None:
    """A lock with a time limit must not wait for a clock that stands still."""
    namespace = vars(importlib.import_module(name))

    held = [key for key, value in namespace.items() if value in TRAMPOLINES.values()]

    assert held == []
    assert namespace.get("time", REAL_TIME) in {REAL_TIME, *REAL.values()}


@pytest.mark.parametrize("around", [True, False], ids=["around", "inside"])
def test_deadlines_of_hypothesis_are_real(*, around: bool) -> None:
    """An example may sleep for an hour, wherever the clock is entered."""
    slept: list[float] = []

    @settings(deadline=500, max_examples=3, database=None)
    @given(strategies.integers())
    def example(number: int) -> None:
        with contextlib.nullcontext() if around else VirtualClock():
            before = time.monotonic()
            time.sleep(3600)
            slept.append(time.monotonic() - before)

    with VirtualClock() if around else contextlib.nullcontext():
        example()

    assert set(slept) == {3600.0}


def test_a_package_that_keeps_real_time_may_be_imported_later(
    clock: VirtualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What such a package takes from `time` after the installation is real, too."""
    package = tmp_path / "pytest_benchmark"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import time\n"
        "from time import perf_counter\n"
        "class Timer:\n"
        "    timer = time.perf_counter\n"
        "    def read(self, timer=time.perf_counter):\n"
        "        return timer()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    import pytest_benchmark as late

    monkeypatch.delitem(sys.modules, "pytest_benchmark")
    before = REAL["monotonic"]()
    readings = [
        late.perf_counter(),
        late.time.perf_counter(),
        late.Timer.timer(),
        late.Timer().read(),
    ]
    assert all(before <= each <= REAL["monotonic"]() for each in readings)
    assert late.time.sleep is REAL["sleep"]
    assert type(late.__spec__.loader).__name__ == "SourceFileLoader"


def test_watching_imports_leaves_modules_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watched module has its own loader, and others are not looked at."""
    (tmp_path / "watched_one.py").write_text("value = 1\n")
    (tmp_path / "another_one.py").write_text("value = 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    told: list[str] = []
    watcher = ImportWatcher({"watched_one"}, lambda new: told.append(new.__name__))
    monkeypatch.setattr(sys, "meta_path", [watcher, *sys.meta_path])

    import another_one
    import watched_one

    monkeypatch.delitem(sys.modules, "another_one")
    monkeypatch.delitem(sys.modules, "watched_one")
    assert told == ["watched_one"]
    assert type(watched_one.__loader__) is type(another_one.__loader__)
    assert watcher.find_spec("no_such_module_anywhere") is None


def test_real_time_shows_what_others_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that patches `time.monotonic` reaches asyncio as it did before."""
    trampolines.install()
    monkeypatch.setattr(time, "monotonic", lambda: 42.0)

    assert REAL_TIME.monotonic() == 42.0
    assert REAL_TIME.struct_time is time.struct_time
    assert dir(REAL_TIME) == dir(time)
    with VirtualClock():
        assert REAL_TIME.monotonic is REAL["monotonic"]


def test_reading_may_move_time(clock: VirtualClock) -> None:
    """What was set to follow a reading happens after it, for every reading."""
    functions.set_on_read(lambda: clock.stall(1))
    try:
        readings = [time.monotonic(), time.perf_counter(), time.monotonic_ns() / 1e9]
    finally:
        functions.set_on_read(None)

    assert readings == [1000.0, 1001.0, 1002.0]
    assert trampolines.Installed() == (0, ())
