"""What the command line, the ini file and the markers say."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, cast

import pytest

from pytest_tta.clock.clock import VirtualClock
from pytest_tta.wire.hosts import AllowedHosts, HostRule, parse_rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_tta.tape.tape import Permit, RecordMode, Tape

__all__ = [
    "ClockSettings",
    "Settings",
    "clock_of",
    "hosts_of",
    "read_settings",
    "seed_of",
    "tape_of",
]

CLOCKS = ("virtual", "real")

_TWO_OWNERS = "each gives async tests a time of its own; use one of the two"


class Settings(NamedTuple):
    """The settings of a session.

    Attributes:
        on: Whether `--tta` is on.
        seed: The seed of every test that has none of its own.
        clock: "virtual" or "real", the time of async tests under `--tta`.
        hosts: What every test may connect to.
        record: The mode of all tapes; None for what each test says.
        record_errors: Whether answers that are no success are recorded as well.
        ignore: Fields of requests that need not be as they were recorded.
        runs: Whose runs a report shows in detail: "failed", "all", or "" without one.
    """

    on: bool
    seed: int
    clock: str
    hosts: AllowedHosts
    record: str | None
    record_errors: bool
    ignore: tuple[str, ...]
    runs: str = ""

    def shows_run(self, *, failed: bool) -> bool:
        """Tell whether a report shows everything that a test did.

        Args:
            failed: Whether the test has failed.
        """
        return self.runs == "all" or (failed and self.runs == "failed")


class ClockSettings(NamedTuple):
    """The clock of one test, as the marker `tta_clock` sets it.

    Attributes:
        mode: "virtual" or "real".
        start: What the wall clock shows at first.
        io: What open connections to the outside mean: "hold", "grace" or "jump".
        hold_cap: Real seconds after which outside work is an error.
        max_jumps: Moves of time after which the run counts as endless.
        autojump: Whether time moves by itself.
    """

    mode: str = "virtual"
    start: Any = None
    io: Any = "hold"
    hold_cap: float = 5.0
    max_jumps: int | None = 250_000
    autojump: bool = True

    def make(self) -> VirtualClock:
        """Make the clock.

        Raises:
            TypeError: A setting is of the wrong kind.
            ValueError: A setting has a wrong value.
        """
        named = self._asdict()
        del named["mode"]
        return VirtualClock(**named)


def read_settings(config: pytest.Config, *, on: bool) -> Settings:
    """Read what the command line and the ini file say, the former first.

    Args:
        config: The configuration of the session.
        on: Whether `--tta` is on.

    Raises:
        pytest.UsageError: A value is not allowed, or two plugins are to own time.
    """
    if on and config.getoption("looptime", default=False):
        msg = f"--tta and --looptime: {_TWO_OWNERS}"
        raise pytest.UsageError(msg)
    seed = config.getoption("tta_seed")
    return Settings(
        on=on,
        seed=_ini_seed(config) if seed is None else seed,
        clock=_ini_clock(config),
        hosts=AllowedHosts(_ini_hosts(config)),
        record=config.getoption("tta_record"),
        record_errors=bool(config.getoption("tta_record_errors")),
        ignore=tuple(config.getini("tta_tape_ignore")),
        runs=_runs(config),
    )


def _runs(config: pytest.Config) -> str:
    files = (config.getoption(f"tta_{name}") for name in ("html", "json"))
    is_written = any(file is not None for file in files)
    return str(config.getoption("tta_runs")) if is_written else ""


def _ini_seed(config: pytest.Config) -> int:
    written = config.getini("tta_seed")
    try:
        return int(written or 0)
    except (TypeError, ValueError):
        msg = f"tta_seed = {written!r} must be a whole number"
        raise pytest.UsageError(msg) from None


def _ini_clock(config: pytest.Config) -> str:
    written = str(config.getini("tta_clock") or "virtual")
    if written not in CLOCKS:
        msg = f"tta_clock = {written!r} must be 'virtual' or 'real'"
        raise pytest.UsageError(msg)
    return written


def _ini_hosts(config: pytest.Config) -> list[HostRule]:
    try:
        return [parse_rule(host) for host in config.getini("tta_allow_hosts")]
    except (TypeError, ValueError) as error:
        msg = f"tta_allow_hosts: {error}"
        raise pytest.UsageError(msg) from None


def clock_of(item: pytest.Item, usual: str) -> tuple[str, VirtualClock]:
    """Return the mode and the clock that the markers of a test ask for.

    Args:
        item: The test.
        usual: The mode of a test that has no marker.

    Raises:
        pytest.fail.Exception: A marker has a wrong argument.
    """
    settings = ClockSettings(mode=usual)
    for mark in reversed(list(item.iter_markers("tta_clock"))):
        settings = settings._replace(**_clock_arguments(item, mark))
    if settings.mode == "virtual" and _has_looptime(item):
        _refuse(item, "looptime", f"beside pytest_tta's clock: {_TWO_OWNERS}")
    try:
        clock = settings.make()
    except (TypeError, ValueError) as error:
        _refuse(item, "tta_clock", str(error))
    return settings.mode, clock


def _has_looptime(item: pytest.Item) -> bool:
    """Tell whether looptime, if it is loaded, changes the time of a test."""
    option = item.config.getoption("looptime", default=False)
    is_marked = item.get_closest_marker("looptime") is not None
    return option or (option is None and is_marked)


def _clock_arguments(item: pytest.Item, mark: pytest.Mark) -> dict[str, Any]:
    modes = [
        *mark.args,
        *(mark.kwargs[name] for name in ("mode",) if name in mark.kwargs),
    ]
    if len(modes) > 1:
        _refuse(item, "tta_clock", f"takes one mode, got {', '.join(map(repr, modes))}")
    _check_names(item, mark, list(ClockSettings._fields))
    mode = modes[0] if modes else "virtual"
    if mode not in CLOCKS:
        _refuse(item, "tta_clock", f"mode={mode!r} is not 'virtual' or 'real'")
    return {**mark.kwargs, "mode": mode}


def seed_of(item: pytest.Item, usual: int) -> int:
    """Return the seed that the closest marker `tta` of a test sets, else the usual."""
    mark = item.get_closest_marker("tta")
    if mark is None:
        return usual
    if mark.args:
        _refuse(item, "tta", f"takes only keyword arguments, got {mark.args!r}")
    _check_names(item, mark, ["seed"])
    seed = mark.kwargs.get("seed", usual)
    if isinstance(seed, bool) or not isinstance(seed, int):
        _refuse(item, "tta", f"seed={seed!r} is not a whole number")
    return int(seed)


def hosts_of(item: pytest.Item, usual: AllowedHosts) -> AllowedHosts:
    """Return what a test may connect to: the usual, and what all its markers name.

    Args:
        item: The test.
        usual: What every test may connect to.

    Raises:
        pytest.fail.Exception: A marker has a wrong argument.
    """
    marks = list(item.iter_markers("tta_allow_hosts"))
    if not marks:
        return usual
    return AllowedHosts(
        [*usual.rules, *(rule for mark in marks for rule in _rules(item, mark))]
    )


def _rules(item: pytest.Item, mark: pytest.Mark) -> list[HostRule]:
    if mark.kwargs or not mark.args:
        _refuse(item, mark.name, 'takes hosts, such as "api.example.com", "10.0.0.0/8"')
    try:
        return [parse_rule(host) for host in mark.args]
    except (TypeError, ValueError) as error:
        _refuse(item, mark.name, str(error))


def tape_of(item: pytest.Item, settings: Settings, permit: Permit) -> Tape:
    """Return the tape of a test, as its closest marker `tta_tape` sets it.

    The command line says whether to record; else the marker does, but not on a machine
    that runs tests for others: there nothing is recorded unasked.

    Args:
        item: The test.
        settings: The settings of the session.
        permit: Lets the network guard pass one host.

    Raises:
        pytest.fail.Exception: The marker has a wrong argument, or the file cannot be
            read.
    """
    from pytest_tta.tape.names import tape_path
    from pytest_tta.tape.tape import MODES, Tape

    marked = _tape_arguments(item)
    mode = marked.get("mode")
    if mode is not None and mode not in MODES:
        _refuse(item, "tta_tape", f"mode={mode!r} is not one of {', '.join(MODES)}")
    if settings.record is not None or os.environ.get("CI"):
        mode = settings.record
    names = [node.name for node in item.listchain() if isinstance(node, pytest.Class)]
    try:
        path = tape_path(item.path, [*names, item.name], marked.get("name"))
        return Tape(
            path,
            mode=cast("RecordMode", mode or "none"),
            keep_errors=settings.record_errors,
            ignore=settings.ignore,
            permit=permit,
        )
    except (OSError, TypeError, ValueError) as error:
        text = f"{item.nodeid}: {error}"
        raise pytest.fail.Exception(text, pytrace=False) from None


def _tape_arguments(item: pytest.Item) -> dict[str, Any]:
    mark = item.get_closest_marker("tta_tape")
    if mark is None:
        return {}
    if len(mark.args) > 1 or (mark.args and "name" in mark.kwargs):
        _refuse(item, "tta_tape", f"takes one name, got {mark.args!r}")
    _check_names(item, mark, ["name", "mode"])
    return {**mark.kwargs, **({"name": mark.args[0]} if mark.args else {})}


def _check_names(item: pytest.Item, mark: pytest.Mark, known: list[str]) -> None:
    for name in _unknown(mark, known):
        _refuse(item, mark.name, f"does not know {name!r}; it takes {', '.join(known)}")


def _unknown(mark: pytest.Mark, known: list[str]) -> Iterator[str]:
    return (name for name in mark.kwargs if name not in known)


def _refuse(item: pytest.Item, marker: str, why: str) -> NoReturn:
    text = f"{item.nodeid}: mark.{marker} {why}"
    raise pytest.fail.Exception(text, pytrace=False) from None
