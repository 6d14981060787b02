"""What the plugin costs a pytest session, in fresh interpreters."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tests.benchmarks.children import answers, middle
from tests.benchmarks.table import Figures, Rows, measured

if TYPE_CHECKING:
    from tests.benchmarks.children import Answer
    from tests.benchmarks.measure import Pace

__all__ = ["ROWS"]

ROWS = Rows("Harness, whole sessions")

_TESTS = 300
_PLAIN = "async def test_{number}():\n    pass\n\n\n"
_CLOCKED = "async def test_{number}(tta_clock):\n    pass\n\n\n"
_FROZEN = """import freezegun, pytest

@pytest.fixture(autouse=True)
def frozen():
    with freezegun.freeze_time("2000-01-01"):
        yield


"""
_FILES = {
    "nothing.py": "",
    "test_one.py": "def test_one():\n    pass\n",
    "test_plain.py": "".join(_PLAIN.format(number=n) for n in range(_TESTS)),
    "test_clocked.py": "".join(_CLOCKED.format(number=n) for n in range(_TESTS)),
    "test_frozen.py": _FROZEN + "".join(_PLAIN.format(number=n) for n in range(_TESTS)),
}

# Processor time, as in the races. The session runs with the terminal reporter, as
# users' sessions do, and writes into nothing.
_CODE = """
import contextlib, io, json, sys, time
import pytest

class Watch:
    first = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self):
        begin = time.process_time()
        result = yield
        Watch.loop = time.process_time() - begin - Watch.first
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self):
        begin = time.process_time()
        result = yield
        # It imports what the others find imported.
        Watch.first = Watch.first or time.process_time() - begin
        return result

loaded = set(sys.modules)
begin = time.process_time()
with contextlib.redirect_stdout(io.StringIO()) as said:
    status = pytest.main({arguments!r}, plugins=[Watch()])
took = time.process_time() - begin
if status:
    raise SystemExit(said.getvalue())
print(json.dumps({{"main": took * 1000, "loop": Watch.loop * 1000,
    "first": Watch.first * 1000, "modules": sorted(set(sys.modules) - loaded)}}))
"""
_NOTHING = ("-p", "nothing")
_ASYNCIO = ("-p", "asyncio", "-o", "asyncio_mode=auto")
_TTA = ("-p", "pytest_tta.plugin")
_LOOPTIME = ("-p", "looptime_plugin")

# What a scan has to walk over: a session's own modules and, if it is installed, one of
# the large packages around language models.
_SCAN = """
import json, time
import pytest, pytest_asyncio, pytest_tta.plugin, pytest_tta.session
{large}
from pytest_tta.clock import trampolines
begin = time.process_time()
trampolines.install()
print(json.dumps({{"ms": (time.process_time() - begin) * 1000,
    "modules": len(__import__("sys").modules)}}))
"""
_LARGE = "from langchain_core.runnables import RunnableLambda"


def _session(path: str, *arguments: str) -> str:
    given = ["-q", "-p", "no:cacheprovider", *arguments, path]
    return _CODE.format(arguments=given)


def _sessions(codes: dict[str, str], pace: Pace) -> dict[str, list[Answer | None]]:
    with TemporaryDirectory() as name:
        for file, text in _FILES.items():
            Path(name, file).write_text(text, "utf-8")
        Path(name, "pytest.ini").write_text("[pytest]\n", "utf-8")
        return answers(codes, pace, cwd=Path(name))


@cache
def _short_sessions(pace: Pace) -> dict[str, list[Answer | None]]:
    codes = {
        # As many options -p everywhere: pytest looks for each among all distributions.
        "bare": _session("test_one.py", *_NOTHING),
        "loaded": _session("test_one.py", *_TTA),
        "asyncio alone": _session("test_one.py", *_ASYNCIO),
        "hypothesis": _session("test_one.py", "-p", "hypothesispytest"),
        "asyncio": _session("test_one.py", *_ASYNCIO, *_NOTHING),
        "on": _session("test_one.py", *_ASYNCIO, *_TTA, "--tta"),
        "looptime": _session("test_one.py", *_ASYNCIO, *_LOOPTIME),
    }
    return _sessions(codes, pace)


@cache
def _scans(pace: Pace) -> dict[str, list[Answer | None]]:
    codes = {"small": _SCAN.format(large=""), "large": _SCAN.format(large=_LARGE)}
    return answers(codes, pace)


def _beyond(
    found: dict[str, list[Answer | None]], name: str, base: str, figure: str
) -> float | None:
    """Return what sessions take beyond others of the same round, in ms."""
    pairs = zip(found[name], found[base], strict=True)
    extras = [{"ms": a[figure] - b[figure]} for a, b in pairs if a and b]
    return middle(extras, "ms")


@ROWS.row("plugin-off", "plugin loaded, no --tta", "ms", 5)
def plugin_off(pace: Pace) -> Figures:
    """Compare sessions of one test with and without the plugin."""
    found = _short_sessions(pace)
    theirs = {
        "pytest-asyncio": _beyond(found, "asyncio alone", "bare", "main"),
        "hypothesis": _beyond(found, "hypothesis", "bare", "main"),
        "looptime beside pytest-asyncio": _beyond(found, "looptime", "asyncio", "main"),
    }
    ours = _beyond(found, "loaded", "bare", "main")
    return Figures(measured(ours, "a session with the plugin"), theirs)


@ROWS.row(
    "plugin-modules", "plugin loaded, no --tta: modules beyond its own", "modules", 0
)
def plugin_modules(pace: Pace) -> Figures:
    """Name what the plugin made Python load."""
    found = _short_sessions(pace)
    bare, loaded = found["bare"][0], found["loaded"][0]
    if bare is None or loaded is None:
        msg = "pytest did not start"
        raise RuntimeError(msg)
    more = {*loaded["modules"]} - {*bare["modules"]}
    more -= {"pytest_tta", "pytest_tta.plugin", "pytest_tta.names"}
    return Figures(len(more), note=", ".join(sorted(more)))


@ROWS.row(
    "plugin-on",
    "--tta on, beside pytest-asyncio, without the scan",
    "ms",
    15,
    because=(
        "76 modules are imported: clock, harness, trace, guard and report. That "
        "takes 94 million instructions, where pytest and pytest-asyncio take 424 "
        "million, and 27 to 35 ms of a processor on which a session of one test "
        "without it took 120 to 190. What is left is the scan, and hooks that are "
        "looked for in one plugin more."
    ),
)
def plugin_on(pace: Pace) -> Figures:
    """Compare sessions of one test beside pytest-asyncio."""
    found = _short_sessions(pace)
    whole = measured(_beyond(found, "on", "asyncio", "main"), "a session with --tta")
    scan = measured(middle(_scans(pace)["small"], "ms"), "the scan")
    return Figures(whole - scan, note=f"{whole:.1f} ms with the scan")


@ROWS.row("scan", "once per session, at start: the scan", "ms", 25)
def scan(pace: Pace) -> Figures:
    """Take the time of the scan beside the largest package that is installed."""
    found = _scans(pace)
    which = "large" if found["large"][0] else "small"
    answer = found[which][0] or {}
    note = f"over {answer.get('modules')} modules"
    return Figures(measured(middle(found[which], "ms"), "the scan"), note=note)


@cache
def _long_sessions(pace: Pace) -> dict[str, list[Answer | None]]:
    codes = {
        "bare": _session("test_plain.py", *_ASYNCIO),
        "--tta": _session("test_plain.py", *_ASYNCIO, *_TTA, "--tta"),
        "loaded": _session("test_plain.py", *_ASYNCIO, *_TTA),
        "tta_clock": _session("test_clocked.py", *_ASYNCIO, *_TTA, "--tta"),
        "looptime": _session("test_plain.py", *_ASYNCIO, *_LOOPTIME, "--looptime"),
        "freezegun": _session("test_frozen.py", *_ASYNCIO),
    }
    return _sessions(codes, pace)


@ROWS.row(
    "test",
    "a test's own cost, everything on",
    "x bare pytest-asyncio test",
    1.4,
    because=(
        "A bare test is 2,620 calls of Python in pytest and pytest-asyncio, and "
        "one with everything on 630 more: a clock, the wall of time-machine, a "
        "loop in its time, a recorder and a guard are made, entered and left. In "
        "runs of its own the row came to 1.28 and 1.43."
    ),
)
def cost_of_a_test(pace: Pace) -> Figures:
    """Compare sessions of many tests that do nothing, without the first of each."""
    found = _long_sessions(pace)
    ratios = {name: _times(found, name) for name in found if name != "bare"}
    bare = measured(middle(found["bare"], "loop"), "a bare test") / (_TESTS - 1)
    once = measured(_beyond(found, "--tta", "bare", "first"), "the first test")
    note = f"a bare test takes {bare:.2f} ms; the first one {once:.0f} ms more, once"
    ours = measured(ratios.pop("--tta"), "a test with everything on")
    return Figures(ours, ratios, note)


def _times(found: dict[str, list[Answer | None]], name: str) -> float | None:
    pairs = zip(found[name], found["bare"], strict=True)
    return middle([{"x": a["loop"] / b["loop"]} for a, b in pairs if a and b], "x")
