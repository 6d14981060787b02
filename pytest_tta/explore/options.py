"""What the command line, the ini file and the markers say about exploring."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, cast, get_args

import pytest

from pytest_tta.explore.plan import Mode
from pytest_tta.names import CAMPAIGN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "EXPLORED",
    "KINDS",
    "ExploreSettings",
    "SchedulesAsked",
    "SweepAsked",
    "Wanted",
    "parse_budget",
    "parse_shard",
    "read_explore_settings",
    "wanted_of",
]

KINDS = (
    *("error", "lost-ack", "hang", "late", "fatal", "outage"),
    *("drop", "drop-answer", "duplicate", "reorder"),
    *("crash-before", "crash-after", "crash-unacknowledged"),
)
"""The faults that a sweep knows, in the order in which it tries them."""

EXPLORED = ("tta_sweep", "tta_schedules")
"""The markers that have a test explored."""

MODES: tuple[str, ...] = get_args(Mode)

_USUAL = 200
_MANY_CALLS = 30
_MOST_EXHAUSTIVE = 10_000

_LENGTH = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")
_SHARD = re.compile(r"(\d+)/(\d+)")


class ExploreSettings(NamedTuple):
    """How a session explores its tests.

    Attributes:
        on: Whether tests without a marker are explored too.
        replay: The line of a plan that is executed instead of searching.
        failures: Where failures are kept; None for nowhere.
        budget: Real seconds for exploring the whole session; None for the defaults and
            nothing more.
        shard: Which part of the work is this machine's, from 0, of how many.
        out: Where a record of each explored test is written; None for nowhere.
        certificate: Where plain tests of what is found are written; None for nowhere.
        max_calls: So many calls of one site because of one fault are no storm.
    """

    on: bool = False
    replay: str | None = None
    failures: Path | None = None
    budget: float | None = None
    shard: tuple[int, int] = (0, 1)
    out: Path | None = None
    certificate: Path | None = None
    max_calls: int = _MANY_CALLS


class SweepAsked(NamedTuple):
    """What `tta_sweep` asks for.

    Attributes:
        depth: How many faults strike in one execution, at most; 0 for no sweep.
        faults: The kinds of faults; None for all that make sense at a site.
        sites: Patterns of the sites that are struck; None for all.
        strict: Whether the test's own assertions are judged also where a fallback or
            what a cache had kept has answered.
        budget: How many executions, at most; None for as many as there are.
        max_calls: So many calls of one site because of one fault are no storm; None for
            as many as the session says.
    """

    depth: int = 1
    faults: tuple[str, ...] | None = None
    sites: tuple[str, ...] | None = None
    strict: bool = False
    budget: int | None = None
    max_calls: int | None = None


@dataclass(frozen=True, slots=True)
class SchedulesAsked:
    """What `tta_schedules` asks for.

    Attributes:
        count: How many schedules are tried; 0 for none, None for as many as are usual.
        mode: What may be chosen: "op", "burst" or "harsh".
        exhaustive: Whether all schedules are tried, as far as the workflows allow it.
        early: How many limits may run out although what they limit could complete.
        pure: Patterns of sites whose calls touch nothing that another call could see;
            None for none. Orders of these alone are the same to `exhaustive`.
    """

    count: int | None = None
    mode: Mode = "op"
    exhaustive: bool = False
    early: int = 1
    pure: tuple[str, ...] | None = None

    @property
    def executions(self) -> int:
        """How many executions there are at most."""
        if self.count is not None:
            return self.count
        return _MOST_EXHAUSTIVE if self.exhaustive else _USUAL


class Wanted(NamedTuple):
    """How one test is explored.

    Attributes:
        is_marked: Whether a marker of the test asks for it.
        sweep: The sweep; None for no sweep.
        schedules: The schedules, and the cancellations beside them; None for none.
    """

    is_marked: bool
    sweep: SweepAsked | None
    schedules: SchedulesAsked | None

    @property
    def strict(self) -> bool:
        """Whether the test's own assertions are judged also after a fallback."""
        return self.sweep is not None and self.sweep.strict


def read_explore_settings(config: pytest.Config) -> ExploreSettings:
    """Read what the command line and the ini file say, the former first.

    Args:
        config: The configuration of the session.

    Raises:
        pytest.UsageError: A value is not allowed.
    """
    read = partial(_read, config)
    budget = read("tta_budget", parse_budget)
    asked: bool | None = config.getoption("tta_explore")
    if asked is None:
        is_campaign = any(config.getoption(name) is not None for name in CAMPAIGN)
        asked = is_campaign or bool(config.getini("tta_explore"))
    return ExploreSettings(
        on=asked,
        replay=config.getoption("tta_replay"),
        failures=_failures(config),
        budget=budget,
        shard=read("tta_shard", parse_shard) or (0, 1),
        out=_path(config, "tta_out"),
        certificate=_folder(config, "tta_certificate"),
        max_calls=_max_calls(config),
    )


def _max_calls(config: pytest.Config) -> int:
    written = str(config.getini("tta_max_calls") or _MANY_CALLS)
    if not written.isdecimal() or not int(written):
        msg = f"tta_max_calls = {written!r} must be a whole number from 1"
        raise pytest.UsageError(msg)
    return int(written)


def _path(config: pytest.Config, name: str) -> Path | None:
    """Return the place that an option names, seen from where pytest was called."""
    asked: str | None = config.getoption(name)
    return None if asked is None else config.invocation_params.dir / asked


def _folder(config: pytest.Config, name: str) -> Path | None:
    """Return the folder that an option names, if it can be made and written into."""
    folder = _path(config, name)
    if folder is None:
        return None
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not (there.is_dir() and os.access(there, os.W_OK)):
        msg = (
            f"--{name.replace('_', '-')}={str(config.getoption(name))!r} must be a "
            f"folder that can be written into, and {str(there)!r} is none"
        )
        raise pytest.UsageError(msg)
    return folder


def _failures(config: pytest.Config) -> Path | None:
    """Return the folder of failures; the command line's is where it was called."""
    asked: str | None = config.getoption("tta_failures")
    if asked is not None:
        return None if asked == "none" else _folder(config, "tta_failures")
    asked = str(config.getini("tta_failures") or "none")
    return None if asked == "none" else Path(config.rootpath / asked)


def _read(config: pytest.Config, name: str, parse: Callable[[str], Any]) -> Any:  # noqa: ANN401 - what the parser makes
    written: str | None = config.getoption(name)
    try:
        return None if written is None else parse(written)
    except ValueError as error:
        msg = f"--{name.replace('_', '-')}={written}: {error}"
        raise pytest.UsageError(msg) from None


def parse_budget(text: str) -> float:
    """Return the seconds of a length of time, such as "90", "10m" or "1h30m".

    Args:
        text: Hours, minutes and seconds, in this order; a bare number is seconds.

    Raises:
        ValueError: It is none, or no time at all.
    """
    match = _LENGTH.fullmatch(text)
    parts = [int(part or 0) for part in match.groups()] if match else [0, 0, 0]
    length = 3600 * parts[0] + 60 * parts[1] + parts[2]
    if not length:
        msg = "must be a length of time, such as 90, 45s, 10m or 1h30m"
        raise ValueError(msg)
    return float(length)


def parse_shard(text: str) -> tuple[int, int]:
    """Return the part, from 0, and the number of parts that "2/8" names: (1, 8).

    Args:
        text: Which one, from 1, and how many there are.

    Raises:
        ValueError: It names none.
    """
    match = _SHARD.fullmatch(text)
    number, count = (int(n) for n in match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        msg = "must be one of several, counted from 1, such as 2/8"
        raise ValueError(msg)
    return number - 1, count


def wanted_of(item: pytest.Item, settings: ExploreSettings) -> Wanted | None:
    """Return how a test is explored, None if it is not.

    On a class or module a marker holds for all its tests; the closest one wins,
    argument by argument.

    Args:
        item: The test.
        settings: The settings of the session.

    Raises:
        pytest.fail.Exception: A marker has a wrong argument.
    """
    for mark in item.iter_markers("tta_no_explore"):
        if mark.args or mark.kwargs:
            _refuse(item, mark.name, "takes no arguments")
        return None
    sweep = _arguments(item, "tta_sweep", _SWEEP)
    schedules = _arguments(item, "tta_schedules", _SCHEDULES)
    is_marked = sweep is not None or schedules is not None
    if settings.on:
        sweep, schedules = sweep or {}, schedules or {}
    wanted = Wanted(
        is_marked,
        None if sweep is None else SweepAsked(**sweep),
        None if schedules is None else SchedulesAsked(**schedules),
    )
    if wanted.sweep is not None and not wanted.sweep.depth:
        wanted = wanted._replace(sweep=None)
    if wanted.schedules is not None and not wanted.schedules.executions:
        wanted = wanted._replace(schedules=None)
    return wanted if wanted.sweep or wanted.schedules else None


def _arguments(
    item: pytest.Item, marker: str, known: Mapping[str, Callable[[Any], Any]]
) -> dict[str, Any] | None:
    """Return the arguments of all markers of a name, None if there is none."""
    found: dict[str, Any] | None = None
    for mark in reversed(list(item.iter_markers(marker))):
        found = (found or {}) | _checked(item, mark, known)
    return found


def _checked(
    item: pytest.Item, mark: pytest.Mark, known: Mapping[str, Callable[[Any], Any]]
) -> dict[str, Any]:
    first = next(iter(known))
    if len(mark.args) > 1:
        _refuse(item, mark.name, f"takes one argument without a name, got {mark.args}")
    if mark.args and first in mark.kwargs:
        _refuse(item, mark.name, f"got {first} twice")
    given = {**dict(zip([first], mark.args, strict=False)), **mark.kwargs}
    for name, value in given.items():
        if name not in known:
            names = ", ".join(known)
            _refuse(item, mark.name, f"does not know {name!r}; it takes {names}")
        try:
            given[name] = known[name](value)
        except ValueError as error:
            _refuse(item, mark.name, f"{name}={value!r} {error}")
    return given


def _whole(lowest: int, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        msg = f"must be a whole number from {lowest}"
        raise ValueError(msg)
    return value


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        msg = "must be True or False"
        raise ValueError(msg)  # noqa: TRY004 - one kind of error for all arguments
    return value


def _budget(value: object) -> int | None:
    return None if value is None else _whole(1, value)


def _texts(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    texts = value.split() if isinstance(value, str) else value
    if isinstance(texts, set | frozenset):
        texts = sorted(texts, key=str)
    if isinstance(texts, list | tuple) and texts:
        found = tuple(text for text in texts if isinstance(text, str) and text)
        if len(found) == len(texts):
            return found
    msg = "must be a text, or several in a list"
    raise ValueError(msg)


def _kinds(value: object) -> tuple[str, ...] | None:
    texts = _texts(value)
    for kind in texts or ():
        if kind not in KINDS:
            msg = f"has no fault {kind!r}; there are {', '.join(KINDS)}"
            raise ValueError(msg)
    return texts


def _sites(value: object) -> tuple[str, ...] | None:
    # A label may contain blanks, so one text is one pattern.
    return (value,) if isinstance(value, str) and value else _texts(value)


def _mode(value: object) -> Mode:
    if value not in MODES:
        msg = f"must be one of {', '.join(MODES)}"
        raise ValueError(msg)
    return cast("Mode", value)


# The first of each may be given without its name.
_SWEEP: Mapping[str, Callable[[Any], Any]] = {
    "depth": partial(_whole, 0),
    "faults": _kinds,
    "sites": _sites,
    "strict": _truth,
    "budget": _budget,
    "max_calls": partial(_whole, 1),
}
_SCHEDULES: Mapping[str, Callable[[Any], Any]] = {
    "count": partial(_whole, 0),
    "mode": _mode,
    "exhaustive": _truth,
    "early": partial(_whole, 0),
    "pure": _sites,
}


def _refuse(item: pytest.Item, marker: str, why: str) -> NoReturn:
    text = f"{item.nodeid}: mark.{marker} {why}"
    raise pytest.fail.Exception(text, pytrace=False) from None
