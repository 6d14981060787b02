"""Stand in for `time.monotonic` and its siblings: virtual inside a clock, else real."""

from __future__ import annotations

import sys
import threading
import time
import types
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from pytest_tta.clock import active

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_tta.clock.clock import VirtualClock

    _StaticMethod = staticmethod[..., Any]
else:
    _StaticMethod = staticmethod

__all__ = [
    "KEPT_REAL",
    "REAL",
    "REAL_TIME",
    "TRAMPOLINES",
    "WALL_TRAMPOLINES",
    "Trampoline",
    "is_kept_real",
    "read",
    "running_threads",
    "set_on_read",
    "set_wall",
    "thread_here",
]

KEPT_REAL = frozenset(
    {
        "_pydev_bundle",
        "_pydevd_bundle",
        "_pytest",
        "asyncio",
        "concurrent",
        "coverage",
        "debugpy",
        "execnet",
        "hypothesis",
        "multiprocessing",
        "pluggy",
        "pydevd",
        "pytest",
        "pytest_benchmark",
        "pytest_cov",
        "pytest_rerunfailures",
        "pytest_timeout",
        "pytest_tta",
        "queue",
        "selectors",
        "subprocess",
        "threading",
        "trio",
        "xdist",
    }
)
"""Top-level names of the packages that measure and wait in real time, always."""

_LONGEST_SLEEP = 2**63 / 1e9


def _real(name: str) -> Callable[..., Any]:
    """Return the builtin `time.<name>`, also while freezegun has replaced it."""
    found: Callable[..., Any] = getattr(time, name)
    api = sys.modules.get("freezegun.api")
    if isinstance(found, types.BuiltinFunctionType) or api is None:
        return found
    real: Callable[..., Any] = getattr(api, f"real_{name}", found)
    return real


REAL: dict[str, Callable[..., Any]] = {
    name: _real(name)
    for name in (
        "monotonic",
        "monotonic_ns",
        "perf_counter",
        "perf_counter_ns",
        "sleep",
        "time",
        "time_ns",
    )
}
"""The interpreter's own functions, by name."""

_monotonic: Callable[[], float] = REAL["monotonic"]
_monotonic_ns: Callable[[], int] = REAL["monotonic_ns"]
_perf_counter: Callable[[], float] = REAL["perf_counter"]
_perf_counter_ns: Callable[[], int] = REAL["perf_counter_ns"]
_sleep: Callable[[float], None] = REAL["sleep"]
_time: Callable[[], float] = REAL["time"]
_time_ns: Callable[[], int] = REAL["time_ns"]

_on_read: Callable[[], None] | None = None
_wall: VirtualClock | None = None

# `threading.current_thread()` would invent a dummy for a thread that it does
# not know, and leave it behind; a look into its table does not.
running_threads: dict[int, threading.Thread] = threading._active  # type: ignore[attr-defined]
_get_ident = threading.get_ident


def thread_here() -> threading.Thread | None:
    """Return the calling thread's object, or None for a thread without one."""
    return running_threads.get(_get_ident())


@cache
def is_kept_real(module: str) -> bool:
    """Tell whether `module`, a dotted name, keeps real time."""
    return module.partition(".")[0] in KEPT_REAL


def set_on_read(callback: Callable[[], None] | None) -> None:
    """Call `callback` after each virtual reading; None stops that."""
    global _on_read  # noqa: PLW0603 - one process has one time
    _on_read = callback


def set_wall(clock: VirtualClock | None) -> None:
    """Let `time.time` show the wall of `clock`, if its trampoline is installed."""
    global _wall  # noqa: PLW0603 - one process has one time
    _wall = clock


class Trampoline(_StaticMethod):
    """Replace one function of `time`.

    A static method does not bind when it is kept as a class attribute, as the
    builtin does not. Copying and pickling go by name, as for the builtin.

    Attributes:
        real: The interpreter's own function.

    """

    def __init__(self, function: Callable[..., Any]) -> None:
        """Wrap `function`, which carries the name of what it replaces."""
        super().__init__(function)
        self.real: Callable[..., Any] = REAL[function.__name__]
        self.__module__ = "time"
        self.__doc__ = self.real.__doc__

    def __reduce__(self) -> str:
        """Reduce to the name under which `time` holds it."""
        return str(self.__name__)

    def __repr__(self) -> str:
        """Show what it replaces."""
        return f"<time.{self.__name__}, virtual inside a clock>"


def monotonic() -> float:
    """Return the loop's time inside a clock, else the builtin's."""
    clock = active.clock
    if clock is None or not clock.threads.owns_current():
        return _monotonic()
    now = clock.timeline.now
    if _on_read is not None:
        _on_read()
    return now


def monotonic_ns() -> int:
    """Return the loop's time inside a clock, else the builtin's."""
    clock = active.clock
    if clock is None or not clock.threads.owns_current():
        return _monotonic_ns()
    now = clock.monotonic_ns()
    if _on_read is not None:
        _on_read()
    return now


def perf_counter() -> float:
    """Return the loop's time inside a clock, else the builtin's."""
    clock = active.clock
    if clock is None or not clock.threads.owns_current():
        return _perf_counter()
    now = clock.timeline.now
    if _on_read is not None:
        _on_read()
    return now


def perf_counter_ns() -> int:
    """Return the loop's time inside a clock, else the builtin's."""
    clock = active.clock
    if clock is None or not clock.threads.owns_current():
        return _perf_counter_ns()
    now = clock.monotonic_ns()
    if _on_read is not None:
        _on_read()
    return now


def time_() -> float:
    """Return the clock's wall inside a clock, else the builtin's."""
    clock = _wall
    if clock is None or not _shows(clock):
        return _time()
    return read(clock.wall_ns()) / 1_000_000_000


def time_ns() -> int:
    """Return the clock's wall inside a clock, else the builtin's."""
    clock = _wall
    if clock is None or not _shows(clock):
        return _time_ns()
    return read(clock.wall_ns())


def sleep(seconds: float, /) -> None:
    """Sleep in virtual time inside a clock, else as the builtin does."""
    clock = active.clock
    if clock is None or not clock.threads.owns_current():
        return _sleep(seconds)
    if not _is_length(seconds):
        return _sleep(seconds)  # which raises its own error
    if clock.threads.is_owner():
        return clock.block(seconds)
    return clock.sleep_in_thread(seconds)


time_.__name__ = time_.__qualname__ = "time"


def read(now: int) -> int:
    """Return `now`; where reading the time moves it, move it afterwards."""
    if _on_read is not None:
        _on_read()
    return now


def _is_length(seconds: object) -> bool:
    """Tell whether the builtin `sleep` would take it."""
    if not isinstance(seconds, float) and not hasattr(seconds, "__index__"):
        return False
    return 0 <= cast("float", seconds) < _LONGEST_SLEEP


def _shows(clock: VirtualClock) -> bool:
    return active.clock is clock and clock.threads.owns_current()


TRAMPOLINES: dict[str, Trampoline] = {
    function.__name__: Trampoline(function)
    for function in (monotonic, monotonic_ns, perf_counter, perf_counter_ns, sleep)
}
"""What replaces the functions of `time`, by name."""

WALL_TRAMPOLINES: dict[str, Trampoline] = {
    function.__name__: Trampoline(function) for function in (time_, time_ns)
}
"""What replaces `time.time` and `time.time_ns` where time-machine is missing."""


class _RealTime(types.ModuleType):
    """Show the module `time` to packages that keep real time.

    It looks each name up anew, so that what somebody else patches into `time`
    is seen; only our own functions, and freezegun's while a clock is active,
    give way to the real ones.
    """

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of time
        if active.clock is not None and name in REAL:
            return REAL[name]
        found = getattr(sys.modules["time"], name)
        return found.real if isinstance(found, Trampoline) else found

    def __dir__(self) -> list[str]:
        return dir(sys.modules["time"])


REAL_TIME = _RealTime("time", time.__doc__)
"""The module `time` for packages that keep real time."""
