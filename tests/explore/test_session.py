"""A session in which tests are explored, from options and markers to its summary."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pytest_tta.__main__ import main

if TYPE_CHECKING:
    from tests.plugin.conftest import Run

HEAD = """
    import asyncio, logging, os, pytest
    from pytest_tta import op
    from tta_primitives import step
    from tta_primitives.performance import CachePrimitive
    from tta_primitives.recovery import RetryPrimitive, TimeoutPrimitive

    class Bank:
        def __init__(self):
            self.charges = []

        async def charge(self, order):
            async with op("bank.charge"):
                self.charges.append(order)
            return "paid"
"""

# Passes, and charges twice once an answer is lost.
PAYS = """
    def test_pays(tta):
        bank = Bank()

        @step
        async def pay(order):
            return await bank.charge(order)

        limited = TimeoutPrimitive(pay, timeout_seconds=5)
        assert tta.run(RetryPrimitive(limited, max_retries=2), "o-1") == "paid"
        assert len(bank.charges) == 1, "paid twice"
"""

LOADS = """
    def test_loads(tta):
        @step
        async def load(key):
            return key

        assert tta.run(load, 1) == 1
"""

OTHERS = """
    calls = []

    async def nothing(x):
        return x

    def test_plain():
        calls.append("plain")

    def test_holds(tta):
        calls.append("holds")

    async def test_async(tta):
        calls.append("async")

    @pytest.mark.tta_no_explore
    def test_left_out(tta):
        calls.append("left out")
        tta.run(nothing, 1)

    def test_were_called_once():
        assert calls == ["plain", "holds", "async", "left out"]
"""

EXPLORE = ("--tta", "--tta-explore", "--tta-failures=none")


@pytest.fixture(autouse=True)
def _auto_mode(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester.makeini("[pytest]\nasyncio_mode = auto\n")
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)


def out_of(result: pytest.RunResult) -> str:
    """Return what a session has printed."""
    return result.stdout.str()


def test_a_green_test_is_searched_for_what_breaks_it(
    pytester: pytest.Pytester, run: Run
) -> None:
    """The report has the verdict, what it takes, the calls and the line."""
    pytester.makepyfile(test_pay=HEAD + PAYS)
    run("--tta").assert_outcomes(passed=1)
    result = run(*EXPLORE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "found while exploring: assertion: paid twice (test_pay.py:*)",
            "what it takes:",
            "  call 1 of bank.charge has its effect, and then raises Connection*",
            '    at test_pay.py:12 in Bank.charge: async with op("bank.charge"):',
            "    called at test_pay.py:21 in pay: return await bank.charge(order)",
            "what happened, in * virtual seconds:",
            "  * 0 s  bank.charge <- struck: lost-ack  test_pay.py:12 in *",
            "where all goes well, * is not called",
            "if that is right after such a fault, let the test accept it, as in *",
            "found in * executions",
            "to reproduce it:",
            "pytest test_pay.py::test_pays --tta-replay='tta1 f=bank.charge#1:lost*",
            "run it again after the fix: it should pass; after larger changes *",
            "*- tta traceback -*",
            "> *assert len(bank.charges) == 1*",
            "*- tta trace -*",
            "*  pay* failed: ConnectionError*injected*",
            "*= tta exploration =*",
            "1 test explored in * executions",
            "FAILED test_pay.py::test_pays - Failed: found while exploring: assertion*",
        ]
    )
    assert "pytest_tta/" not in out_of(result)


def test_the_line_brings_it_back(pytester: pytest.Pytester, run: Run) -> None:
    """One plan is executed, and needs no other option."""
    pytester.makepyfile(test_pay=HEAD + PAYS)
    found = out_of(run(*EXPLORE)).partition("--tta-replay='")[2].partition("'")[0]
    result = run("test_pay.py::test_pays", f"--tta-replay={found}")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["1 test explored in 2 executions", "*: still fails"])


def test_what_holds_is_counted_and_said_nothing_of(
    pytester: pytest.Pytester, run: Run
) -> None:
    """The summary has one line, and none at -q."""
    pytester.makepyfile(test_load=HEAD + LOADS)
    result = run(*EXPLORE)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*= tta exploration =*", "1 test explored in *"])
    quiet = run(*EXPLORE, "-q")
    quiet.stdout.no_fnmatch_line("*explor*")


def test_only_tests_that_call_us_are_explored(
    pytester: pytest.Pytester, run: Run
) -> None:
    """Others pass as they did: without tta.run, async, or with a marker against it."""
    pytester.makepyfile(test_others=HEAD + OTHERS)
    result = run(*EXPLORE)
    result.assert_outcomes(passed=5)
    result.stdout.no_fnmatch_line("*explored in*")


def test_markers_explore_without_any_option(
    pytester: pytest.Pytester, run: Run
) -> None:
    """Also an async test, and one that names no fixture."""
    pytester.makepyfile(
        test_marked=HEAD
        + """
    rows = []

    @pytest.mark.tta_schedules(20)
    async def test_race():
        order = []

        async def note(name):
            await op(name)
            order.append(name)

        await asyncio.gather(note("first"), note("second"))
        assert order == ["first", "second"], "overtaken"

    @pytest.mark.tta_sweep(faults="error")
    async def test_swept():
        rows.append(1)
        await op("load")
    """
    )
    result = run()
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(
        [
            "found while exploring: assertion: overtaken*",
            "  second completes before first",
            "where all goes well, first completes first, and not second",
            "2 tests explored in *",
        ]
    )
    run("--no-tta-explore").assert_outcomes(passed=2)


def test_ini_switches_it_on_and_the_command_line_off(
    pytester: pytest.Pytester, run: Run
) -> None:
    """`tta_explore = true` is overruled by --no-tta-explore."""
    pytester.makeini("[pytest]\ntta_explore = true\ntta_failures = none\n")
    pytester.makepyfile(test_pay=HEAD + PAYS)
    run().assert_outcomes(failed=1)
    run("--no-tta-explore").assert_outcomes(passed=1)
    assert not (pytester.path / ".tta").exists()


def test_a_failure_is_kept_and_tried_first(pytester: pytest.Pytester, run: Run) -> None:
    """The next run executes it alone; two green runs later it is forgotten."""
    test = pytester.makepyfile(test_pay=HEAD + PAYS)
    run("--tta-explore").assert_outcomes(failed=1)
    kept = list((pytester.path / ".tta" / "failures").rglob("*.json"))
    assert len(kept) == 1
    again = run("--tta-explore")
    again.stdout.fnmatch_lines(
        ["found in an earlier run, and tried first", "*: still failing: tta1 f=bank*"]
    )
    test.write_text(test.read_text().replace("max_retries=2", "max_retries=0"))
    for left in (1, 0):
        fixed = run("--tta-explore")
        fixed.assert_outcomes(passed=1)
        fixed.stdout.fnmatch_lines(["*: fixed: tta1 f=bank.charge#1:lost-ack*"])
        assert len(list((pytester.path / ".tta").rglob("*.json"))) == left


def test_failures_are_kept_where_the_option_says(
    pytester: pytest.Pytester, run: Run
) -> None:
    """A folder of the command line is where it was called."""
    pytester.makepyfile(test_pay=HEAD + PAYS)
    run("--tta-explore", "--tta-failures=kept").assert_outcomes(failed=1)
    assert len(list((pytester.path / "kept").rglob("*.json"))) == 1
    assert not (pytester.path / ".tta").exists()


def test_fixtures_have_the_state_that_they_began_with(
    pytester: pytest.Pytester, run: Run
) -> None:
    """What an execution has done to an object of the test's is undone for the next."""
    pytester.makepyfile(
        test_state=HEAD
        + """
    @pytest.fixture
    def bank():
        return Bank()

    def test_state(tta, bank):
        @step
        async def pay(order):
            return await bank.charge(order)

        tta.run(TimeoutPrimitive(pay, timeout_seconds=5), "o-1")
        assert bank.charges == ["o-1"]
    """
    )
    result = run(*EXPLORE)
    result.assert_outcomes(passed=1)


def test_what_survives_is_an_error_that_shows_the_factory(
    pytester: pytest.Pytester, run: Run
) -> None:
    """A cache that is made once for the module answers from an earlier execution."""
    pytester.makepyfile(
        test_cached=HEAD
        + """
    @step
    async def load(key):
        return key

    cached = CachePrimitive(load, ttl=60)

    def test_cached(tta):
        assert tta.run(cached, 1) == 1
    """
    )
    result = run(*EXPLORE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*test_cached.py::test_cached*", "*def make_*"])
    result.stdout.no_fnmatch_line("found while exploring*")


REFUSED = {
    "given": (
        """
    from hypothesis import given, strategies as st

    @pytest.mark.tta_sweep
    @given(st.integers())
    def test_refused(number): pass
    """,
        "*::test_refused: cannot be explored: a test with @given makes its own *",
    ),
    "unittest": (
        """
    import unittest

    class TestCase(unittest.TestCase):
        @pytest.mark.tta_sweep
        def test_refused(self): pass
    """,
        "*::test_refused: cannot be explored: a method of a TestCase *",
    ),
    "real time": (
        """
    @pytest.mark.tta_sweep
    @pytest.mark.tta_clock("real")
    def test_refused(tta): pass
    """,
        "*::test_refused: cannot be explored: its time is not virtual*",
    ),
    "async fixture": (
        """
    @pytest.fixture
    async def client():
        return 1

    @pytest.fixture
    def wrapped(client):
        return client

    @pytest.mark.tta_sweep
    async def test_refused(wrapped): pass
    """,
        "*::test_refused: cannot be explored: the async fixture client was made *",
    ),
    "argument": (
        """
    @pytest.mark.tta_sweep(faults="slow")
    def test_refused(tta): pass
    """,
        "*::test_refused: mark.tta_sweep faults='slow' has no fault 'slow'; *",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_explored_is_refused_in_a_sentence(
    pytester: pytest.Pytester, run: Run, case: str
) -> None:
    """The sentence names the test, and says why or what to write instead."""
    source, sentence = REFUSED[case]
    pytester.makepyfile(test_refuse=HEAD + source)
    result = run()
    outcomes = result.parseoutcomes()
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) == 1
    result.stdout.fnmatch_lines([sentence])
    assert "pytest_tta/" not in out_of(result)


def test_hypothesis_keeps_its_tests(pytester: pytest.Pytester, run: Run) -> None:
    """Under --tta-explore a @given test is as it was."""
    pytester.makepyfile(
        test_given=HEAD
        + """
    from hypothesis import given, settings, strategies as st
    from pytest_tta import Harness

    async def nothing(x):
        return x

    @given(st.integers())
    @settings(max_examples=5, database=None)
    def test_given(number):
        with Harness() as tta:
            assert tta.run(nothing, number) == number
    """
    )
    result = run(*EXPLORE)
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*explored in*")


NOISE = """
    async def speak(word):
        print("said", word)
        logging.getLogger("noise").warning("logged %s", word)

    @pytest.fixture
    def broken():
        yield
        raise RuntimeError("so that all that was captured is shown")

    def test_noise(tta, broken):
        tta.run(speak, "hello")

    def test_seen(tta, capsys, caplog):
        tta.run(speak, "once")
        assert capsys.readouterr().out == "said once\\n"
        assert len(caplog.records) == 1

    def test_patches(tta, monkeypatch):
        before = speak

        async def twice(word):
            await before(word + word)

        monkeypatch.setitem(globals(), "speak", twice)
        tta.run(speak, "x")
        assert before.__name__ == "speak"
"""


def test_executions_print_and_log_nothing(pytester: pytest.Pytester, run: Run) -> None:
    """What the ordinary run printed is shown once; tests that look at it still can.

    What a test patches in its body is patched once, too.
    """
    pytester.makepyfile(test_noise=HEAD + NOISE)
    result = run(*EXPLORE)
    result.assert_outcomes(passed=3, errors=1)
    assert out_of(result).count("said hello") == 1
    assert out_of(result).count("logged hello") == 1
    result.stdout.fnmatch_lines(["3 tests explored in *"])


def test_records_are_written_for_each_explored_test(
    pytester: pytest.Pytester, run: Run
) -> None:
    """They name what was done and found, without the text of an assertion."""
    pytester.makepyfile(test_pay=HEAD + PAYS + LOADS)
    run(*EXPLORE, "--tta-out=out/a.jsonl").assert_outcomes(passed=1, failed=1)
    lines = (pytester.path / "out" / "a.jsonl").read_text("utf-8").splitlines()
    pays, loads = map(json.loads, lines)
    assert pays["test"] == "test_pay.py::test_pays"
    assert pays["verdict"] == {"kind": "assertion", "where": "test_pay.py:25"}
    assert pays["line"].startswith("tta1 f=bank.charge#1:lost-ack")
    assert loads["verdict"] is None
    assert loads["executions"] > 2


def test_a_budget_goes_on_until_it_is_over(pytester: pytest.Pytester, run: Run) -> None:
    """Rounds follow the defaults; a test that is not explored has no share."""
    pytester.makepyfile(test_load=HEAD + LOADS)
    run(*EXPLORE, "--tta-budget=1", "--tta-out=a.jsonl").assert_outcomes(passed=1)
    found = json.loads((pytester.path / "a.jsonl").read_text("utf-8"))
    assert found["rounds"] >= 1


def test_shards_together_do_all(
    pytester: pytest.Pytester, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two machines strike different calls, and merged they have struck all."""
    once = PAYS.replace("max_retries=2", "max_retries=0")
    pytester.makepyfile(test_pay=HEAD + once)
    reached = []
    for shard in ("1/2", "2/2", "1/1"):
        name = f"--tta-out={shard[::2]}.jsonl"
        run(*EXPLORE, f"--tta-shard={shard}", name).assert_outcomes(passed=1)
        text = (pytester.path / f"{shard[::2]}.jsonl").read_text("utf-8")
        told = json.loads(text)["reached"]
        reached.append({one for one in told if one.startswith("bank.charge:")})
    first, second, alone = reached
    assert first | second == alone
    assert first & second == set()
    capsys.readouterr()
    assert main(["merge", "12.jsonl", "22.jsonl"]) == 0
    merged = capsys.readouterr().out.splitlines()
    assert merged[0].startswith("1 test explored, ")
    assert merged[-1] == "nothing was found"


def test_workers_find_the_same(pytester: pytest.Pytester, run_apart: Run) -> None:
    """With two processes the executions and findings are those of one."""
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    marked = PAYS.replace("    def test", "    @pytest.mark.tta_sweep\n    def test", 1)
    pytester.makepyfile(test_pay=HEAD + marked, test_load=HEAD + LOADS)
    told = []
    for workers in ("-n0", "-n2"):
        options = (*EXPLORE, "-p", "xdist", workers, "--tta-out=a.jsonl")
        result = run_apart(*options)
        result.assert_outcomes(passed=1, failed=1)
        result.stdout.fnmatch_lines(["2 tests explored in *"])
        lines = (pytester.path / "a.jsonl").read_text("utf-8").splitlines()
        told.append(sorted(lines))
    assert told[0] == told[1]


def test_markers_alone_are_summed_up_with_workers(
    pytester: pytest.Pytester, run_apart: Run
) -> None:
    """The process that reports has collected nothing, and knows from reports."""
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    marked = PAYS.replace("    def test", "    @pytest.mark.tta_sweep\n    def test", 1)
    pytester.makepyfile(test_pay=HEAD + marked)
    result = run_apart("-p", "xdist", "-n1", "--tta-failures=none")
    result.stdout.fnmatch_lines(["*= tta exploration =*", "1 test explored in *"])


RACES = """
    def test_race(tta):
        order = []

        async def note(name):
            order.append(await limited(name))

        async def limited(name):
            async with asyncio.timeout(5):
                await op(name)
            return name

        async def both(_):
            async with asyncio.TaskGroup() as group:
                group.create_task(note("first"))
                group.create_task(note("second"))

        tta.run(both, None)
        assert order == ["first", "second"], "overtaken"
"""


def test_a_finding_is_written_down_as_a_plain_test(
    pytester: pytest.Pytester, run: Run
) -> None:
    """It fails without the plugin as well, in real time."""
    pytester.makepyfile(test_race=HEAD + RACES)
    result = run(*EXPLORE, "--tta-certificate=.")
    result.stdout.fnmatch_lines(["*: wrote *test_race_certificate.py"])
    plain = pytester.runpytest_subprocess(
        "-p", "no:tta", "-p", "no:pytest_tta.plugin", "test_race_certificate.py"
    )
    plain.assert_outcomes(failed=1)
    plain.stdout.fnmatch_lines(["*overtaken*"])


def test_a_certificate_is_replaced_as_a_whole(
    pytester: pytest.Pytester, run: Run
) -> None:
    """Whoever runs the earlier one meanwhile never sees half of another."""
    pytester.makepyfile(test_race=HEAD + RACES)
    path, held = (pytester.path / name for name in ("test_race_certificate.py", "held"))
    path.write_text("# before\n", "utf-8")
    held.hardlink_to(path)
    run(*EXPLORE, "--tta-certificate=.")
    assert held.read_text("utf-8") == "# before\n"
    assert "overtaken" in path.read_text("utf-8")


def test_what_no_plain_test_sees_is_said(pytester: pytest.Pytester, run: Run) -> None:
    """A cancellation from outside comes at no latency."""
    pytester.makepyfile(
        test_swallow=HEAD
        + """
    async def swallow(_):
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            pass

    def test_swallows(tta):
        tta.run(swallow, None)
    """
    )
    result = run(*EXPLORE, "--tta-certificate=.")
    result.stdout.fnmatch_lines(
        [
            "found while exploring: swallowed cancellation*",
            "  what the test runs is cancelled from outside while it waits at *",
            "pytest * --tta-replay='tta1 c=main@0*",
            "*: no certificate: *",
        ]
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--tta-budget=soon",), "--tta-budget=soon: must be a length of time, such"),
        (("--tta-shard=9/4",), "--tta-shard=9/4: must be one of several, counted"),
        (("--tta-replay=x",), "--tta-replay: 'x' is no line to replay: it must begin"),
        (("--tta-replay=tta1",), "executes one test, and 2 are selected: name it"),
        (("--tta-out=.",), "--tta-out="),
        (("-o", "tta_explore=maybe"), "tta_explore must be true or false: "),
    ],
    ids=str,
)
def test_wrong_options_are_refused_in_a_sentence(
    pytester: pytest.Pytester, run: Run, options: tuple[str, ...], sentence: str
) -> None:
    """A wrong value of the command line or ini file is named with what is allowed."""
    pytester.makepyfile("def test_a(): pass\ndef test_b(): pass")
    result = run(*options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    told = result.stderr.str() + out_of(result)
    assert sentence in told
    assert "Traceback" not in told
