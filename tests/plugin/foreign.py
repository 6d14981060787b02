"""A project that has never heard of us, and what can be told of its test session."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

# What stands in the project's conftest: facts of each process, written at its end.
PROBE = """
    import json, os, sys, threading, time, types
    import pytest

    FACTS = {"tests": [], "reports": []}

    def kind(thing):
        return f"{type(thing).__module__}.{type(thing).__qualname__}"

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(item):
        FACTS["tests"].append([item.nodeid, sorted(getattr(item, "fixturenames", ()))])
        FACTS["functions"] = [
            isinstance(time.monotonic, types.BuiltinFunctionType),
            isinstance(time.time, types.BuiltinFunctionType),
            isinstance(time.sleep, types.BuiltinFunctionType),
            [
                sys.modules[name].new_event_loop.__module__
                for name in ("asyncio", "asyncio.events")
                if name in sys.modules
            ],
            threading.Thread.start.__module__,
            [f"{getattr(each, '__name__', kind(each))}" for each in sys.meta_path],
        ]
        return (yield)

    def pytest_runtest_logreport(report):
        FACTS["reports"].append(
            [report.nodeid, report.when, report.outcome, report.user_properties]
        )

    @pytest.fixture
    def note(record_property):
        def note_loop():
            import asyncio
            loop = asyncio.get_running_loop()
            record_property("loop", kind(loop))
        return note_loop

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(config):
        FACTS["modules"] = sorted(
            name for name in sys.modules if name.partition(".")[0] in OURS
        )
        worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
        with open(f"{os.environ['FACTS']}-{worker}.json", "w") as file:
            json.dump(FACTS, file)

    OURS = {
        "asyncio", "freezegun", "hypothesis", "pytest_tta", "random", "time_machine",
        "tta_primitives",
    }
"""

ASYNCIO = """
    import asyncio, time, unittest
    import pytest, pytest_asyncio

    @pytest.mark.asyncio
    @pytest.mark.parametrize("number", [1, 2], ids=["one", "two"])
    async def test_own_loop(note, number):
        note()
        began = time.monotonic()
        await asyncio.sleep(0.001)
        assert time.monotonic() - began < 60

    @pytest_asyncio.fixture(loop_scope="module", scope="module")
    async def shared():
        yield asyncio.get_running_loop()
        await asyncio.sleep(0)

    @pytest.mark.asyncio(loop_scope="module")
    class TestShared:
        async def test_module_loop(self, note, shared):
            note()
            assert asyncio.get_running_loop() is shared

        async def test_module_loop_again(self, note, shared):
            assert asyncio.get_running_loop() is shared

    @pytest.mark.asyncio(loop_scope="session")
    async def test_session_loop(note):
        note()

    @pytest.mark.asyncio
    @pytest.mark.xfail(strict=True, reason="known")
    async def test_known_failure():
        raise OSError

    class TestOldAsync(unittest.IsolatedAsyncioTestCase):
        async def test_method(self):
            loop = asyncio.get_running_loop()
            assert type(loop).__module__.partition(".")[0] == "asyncio"

    def test_run():
        assert asyncio.run(asyncio.sleep(0, "value")) == "value"
"""

PLAIN = """
    import unittest, pytest

    def test_passes(): pass

    @pytest.mark.parametrize("number", range(3), ids="abc".__getitem__)
    def test_numbers(number): pass

    @pytest.mark.skip(reason="later")
    def test_skipped(): pass

    class TestOld(unittest.TestCase):
        def test_method(self): pass
"""

FACTORIES = """
    import asyncio

    class OwnLoop(asyncio.SelectorEventLoop): pass
    class OtherLoop(asyncio.SelectorEventLoop): pass

    def pytest_asyncio_loop_factories(config, item):
        return {"own": OwnLoop, "other": OtherLoop}
"""

IN_A_LOOP = """
    import pytest

    @pytest.mark.asyncio
    async def test_loop(note):
        note()
"""

POLICY = """
    import asyncio, pytest, warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        class OwnPolicy(asyncio.DefaultEventLoopPolicy):
            def new_event_loop(self):
                return OwnLoop()

    class OwnLoop(asyncio.SelectorEventLoop): pass

    @pytest.fixture(scope="module")
    def event_loop_policy():
        return OwnPolicy()

    pytestmark = pytest.mark.filterwarnings("ignore")
""" + IN_A_LOOP.replace("    import pytest\n", "")

UVLOOP = """
    import pytest
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")
    pytestmark = pytest.mark.filterwarnings("ignore")

    @pytest.fixture(scope="module")
    def event_loop_policy():
        return uvloop.EventLoopPolicy()
""" + IN_A_LOOP.replace("    import pytest\n", "")

ANYIO = """
    import anyio, pytest

    @pytest.fixture(scope="module", params=["asyncio"])
    def anyio_backend(request):
        return request.param

    @pytest.fixture(scope="module")
    async def held(anyio_backend):
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0)
            yield group

    @pytest.mark.anyio
    async def test_anyio(note, held):
        note()
        with anyio.move_on_after(0.001) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught
"""


class Told(NamedTuple):
    """What one session told.

    Attributes:
        code: How pytest ended.
        output: What it printed, without what differs from run to run.
        facts: What the probe of each of its processes noted, by process.
    """

    code: int
    output: list[str]
    facts: dict[str, Any]


def compare(
    folder: Path, arguments: Iterable[str], *, unordered: bool = False
) -> tuple[Told, Told]:
    """Run pytest in `folder` without and with our plugin, side by side.

    Args:
        folder: Where the tests are.
        arguments: The command line.
        unordered: Whether the order of reports and lines is chance, as under xdist.
    """
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    without = _start(folder, "without", command)
    beside = _start(folder, "beside", [*command, "-p", "pytest_tta.plugin"])
    return (
        _finish(folder, "without", without, unordered=unordered),
        _finish(folder, "beside", beside, unordered=unordered),
    )


def _start(folder: Path, name: str, command: list[str]) -> Popen[str]:
    env = {
        **_environment(),
        "COVERAGE_FILE": str(folder / f".coverage.{name}"),
        "FACTS": str(folder / name),
    }
    return Popen(command, cwd=folder, env=env, stdout=PIPE, stderr=STDOUT, text=True)


def _environment() -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "COV_"))}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }


def _finish(folder: Path, name: str, process: Popen[str], *, unordered: bool) -> Told:
    output = process.communicate(timeout=60)[0].splitlines()
    facts = {
        file.stem.removeprefix(f"{name}-"): json.loads(file.read_text("utf-8"))
        for file in folder.glob(f"{name}-*.json")
    }
    lines = [without_chance(line) for line in output]
    if unordered:
        lines = sorted(line for line in lines if not line.endswith("%]"))
        for each in facts.values():
            each["reports"].sort(key=repr)
    return Told(process.returncode, lines, facts)


def without_chance(line: str) -> str:
    """Leave out times, addresses, descriptors and the hint which run it was."""
    line = re.sub(r"0x[0-9a-f]+", "0x", line)
    line = re.sub(r"\boldfd=\d+", "oldfd", line)
    line = re.sub(r"-(without|beside)-", "--", line)
    line = re.sub(r"\d+\.\d+ ?s(econds)?\b", "s", line)
    # A line is filled up to a width, and a run of ten seconds has a digit more.
    return re.sub(r"={3,}", "===", line)
