"""What a session says beside its findings: what was left out, and what was in vain."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pytest_tta.__main__ import main

if TYPE_CHECKING:
    from tests.plugin.conftest import Run

HEAD = """
    import asyncio, socket, sqlite3, pytest
    from pytest_tta import op
    from tta_primitives import step
    from tta_primitives.recovery import FallbackPrimitive, RetryPrimitive
"""

EXPLORE = ("--tta", "--tta-explore", "--tta-failures=none")


@pytest.fixture(autouse=True)
def _auto_mode(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester.makeini("[pytest]\nasyncio_mode = auto\n")
    monkeypatch.setenv("PYTHONHASHSEED", "0")


def explored(pytester: pytest.Pytester, run: Run, body: str) -> pytest.RunResult:
    """Explore a file of tests."""
    pytester.makepyfile(test_shop=HEAD + body)
    return run(*EXPLORE)


def test_a_status_for_an_error_is_told_how_to_be_accepted(
    pytester: pytest.Pytester, run: Run
) -> None:
    """A happy-path test is told what to write if the answer is as it should be."""
    result = explored(
        pytester,
        run,
        """
    def test_says_unavailable(tta):
        async def ask(_):
            try:
                async with asyncio.timeout(5):
                    await op("model.ask")
            except (ConnectionError, TimeoutError):
                return "unavailable"
            except Exception:
                return "refused"
            return "answer"

        assert tta.run(ask, None) == "answer"
    """,
    )
    result.stdout.fnmatch_lines(
        [
            "found while exploring: assertion: assert 'unavailable' == 'answer'*",
            (
                "if that is right after such a fault, let the test accept it, as in "
                "`assert answer in {'paid', 'try later'}`;"
            ),
            "  or choose what is tried: @pytest.mark.tta_sweep(faults=*, sites=*)",
        ]
    )


def test_what_is_accepted_is_no_finding(pytester: pytest.Pytester, run: Run) -> None:
    """The recipe works: both answers are named, and the search goes on to its end."""
    result = explored(
        pytester,
        run,
        """
    def test_says_unavailable(tta):
        async def ask(_):
            try:
                async with asyncio.timeout(5):
                    await op("model.ask")
            except (ConnectionError, TimeoutError):
                return "unavailable"
            return "answer"

        assert tta.run(ask, None) in {"answer", "unavailable"}
    """,
    )
    result.assert_outcomes(passed=1)


OLD_STATE = {
    "folder": """
    def test_old(tta, tmp_path):
        (tmp_path / "cache").mkdir()
        assert tta.run(nothing, 1) == 1
    """,
    "database": """
    @pytest.fixture
    def rows(tmp_path):
        rows = sqlite3.connect(tmp_path / "rows.db")
        rows.execute("create table orders (id integer primary key)")
        yield rows
        rows.close()

    def test_old(tta, rows):
        rows.execute("insert into orders values (7)")
        assert tta.run(nothing, 1) == 1
    """,
    "module": """
    seen = set()

    def test_old(tta):
        assert 1 not in seen
        seen.add(1)
        assert tta.run(nothing, 1) == 1
    """,
}


@pytest.mark.parametrize("case", OLD_STATE)
def test_what_the_ordinary_run_has_left_is_suspected(
    pytester: pytest.Pytester, run: Run, case: str
) -> None:
    """The first execution that is given nothing fails: files, rows, variables."""
    body = "\n    async def nothing(x):\n        return x\n" + OLD_STATE[case]
    result = explored(pytester, run, body)
    likely = "perhaps" if case == "module" else "likely"
    result.stdout.fnmatch_lines(
        [
            "what it takes:",
            "  nothing: no fault, and the oldest event comes first",
            f"the ordinary run passed, and now nothing was done to *: {likely} it *",
        ]
    )


def test_what_set_up_has_made_begins_anew(pytester: pytest.Pytester, run: Run) -> None:
    """Attributes of `setup_method` are given back their state, as fixtures are."""
    result = explored(
        pytester,
        run,
        """
    class TestShop:
        def setup_method(self):
            self.orders = []

        def test_orders(self, tta):
            async def order(x):
                self.orders.append(x)

            tta.run(order, 1)
            assert self.orders == [1]
    """,
    )
    result.assert_outcomes(passed=1)


def test_what_is_not_deterministic_has_no_line(
    pytester: pytest.Pytester, run: Run
) -> None:
    """A line would promise what nobody can keep; what differs is said instead."""
    result = explored(
        pytester,
        run,
        """
    turns = []

    def test_turns(tta):
        async def wait(_):
            turns.append(1)
            await asyncio.sleep(len(turns))

        tta.run(wait, None)
    """,
    )
    result.stdout.fnmatch_lines(
        [
            (
                "found while exploring: not deterministic: two executions of the same "
                "plan differ: the first took 2 virtual s, the other 3. Something that *"
            ),
            "*::test_turns: not deterministic: no line repeats it",
        ]
    )
    result.stdout.no_fnmatch_line("*--tta-replay=*")


def test_siblings_of_a_gather_are_told_of_task_groups(
    pytester: pytest.Pytester, run: Run
) -> None:
    """gather() lets the others run on; that is said where it is the reason."""
    result = explored(
        pytester,
        run,
        """
    def test_both(tta):
        async def one(name):
            async with asyncio.timeout(5):
                await op(name)
                await op(name)

        async def both(_):
            await asyncio.gather(one("a"), one("b"))

        tta.run(both, None)
    """,
    )
    result.stdout.fnmatch_lines(
        [
            (
                "found while exploring: left running: task Task-3 *; asyncio.gather() "
                "lets the others run on when one of them fails: an asyncio.TaskGroup "
                "cancels and awaits them"
            )
        ]
    )


UNMARKED = """
    async def test_one():
        await asyncio.sleep(1)

    async def test_two(tta):
        await asyncio.sleep(1)

    @pytest.mark.tta_no_explore
    async def test_three():
        await asyncio.sleep(1)
"""


def test_async_tests_without_a_marker_are_counted(
    pytester: pytest.Pytester, run: Run
) -> None:
    """One line, whether another test was explored or not; nothing at -q."""
    result = explored(pytester, run, UNMARKED)
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        [
            "*= tta exploration =*",
            (
                "2 async tests were not explored: only sync tests that call "
                "tta.run(...) are, and those with @pytest.mark.tta_schedules or "
                "tta_sweep"
            ),
        ]
    )
    run(*EXPLORE, "-q").stdout.no_fnmatch_line("*explored*")


def test_workers_tell_what_was_not_explored(
    pytester: pytest.Pytester, run_apart: Run
) -> None:
    """It comes with the reports."""
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    pytester.makepyfile(test_shop=HEAD + UNMARKED)
    result = run_apart(*EXPLORE, "-p", "xdist", "-n1")
    result.stdout.fnmatch_lines(["2 async tests were not explored: *"])


@pytest.mark.parametrize("is_marked", [False, True])
def test_what_cannot_be_explored_is_red_only_if_asked(
    pytester: pytest.Pytester, run: Run, *, is_marked: bool
) -> None:
    """A marker asks for it; a bare flag leaves a green test green, and says why."""
    marker = "@pytest.mark.tta_sweep" if is_marked else ""
    result = explored(
        pytester,
        run,
        f"""
    @pytest.fixture
    async def client():
        return 1

    {marker}
    def test_asks(tta, client):
        async def ask(_):
            await op("ask")

        tta.run(ask, None)
    """,
    )
    result.assert_outcomes(passed=int(not is_marked), failed=int(is_marked))
    said = "cannot be explored" if is_marked else "not explored"
    result.stdout.fnmatch_lines([f"*::test_asks: {said}: the async fixture client *"])


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (
            "sites='bank.charg'",
            (
                "tta_sweep(sites=['bank.charg']) matches no call; did you mean "
                "'bank.charge'? There are 'bank.charge', 'mail.send'"
            ),
        ),
        (
            "sites=['bank.*', 'x']",
            "tta_sweep(sites=['x']) matches no call; there are 'bank.charge', *",
        ),
        (
            "faults='crash-after'",
            "no call can have the fault crash-after; there are error, fatal, *",
        ),
    ],
)
@pytest.mark.parametrize("is_own", [True, False])
def test_a_sweep_that_strikes_nothing_says_so(
    pytester: pytest.Pytester, run: Run, arguments: str, why: str, *, is_own: bool
) -> None:
    """At the test itself it fails; a marker of a file fits not all of its tests."""
    mark = f"pytest.mark.tta_sweep({arguments})"
    own, whole = ("@" + mark, "") if is_own else ("", "pytestmark = " + mark)
    pytester.makepyfile(
        test_shop=HEAD
        + f"""
    {whole}

    {own}
    def test_pays(tta):
        async def pay(_):
            async with asyncio.timeout(5):
                await op("bank.charge")
                await op("mail.send")

        tta.run(pay, None)
    """
    )
    result = run("--tta-failures=none")
    result.assert_outcomes(passed=int(not is_own), failed=int(is_own))
    # Brackets would be patterns.
    told = why.replace("[", "?").replace("]", "?")
    result.stdout.fnmatch_lines([f"*test_shop.py::test_pays: {told}"])


@pytest.mark.parametrize("shard", ["1/9", "9/9"])
def test_a_part_of_a_sweep_does_not_miss_what_another_part_meets(
    pytester: pytest.Pytester, run: Run, shard: str
) -> None:
    """A call that only a fault leads to is made where that fault strikes."""
    pytester.makepyfile(
        test_shop=HEAD
        + """
    @pytest.mark.tta_sweep(sites=["main", "backup"], faults="error")
    def test_reads(tta):
        import contextlib

        async def read(_):
            with contextlib.suppress(Exception):
                await op("main")
                return
            with contextlib.suppress(Exception):
                await op("backup")

        tta.run(read, None)
    """
    )
    result = run("--tta-failures=none", "--tta-explore", f"--tta-shard={shard}")
    result.assert_outcomes(passed=1)


def test_a_sweep_of_a_test_without_calls_says_what_a_call_is(
    pytester: pytest.Pytester, run: Run
) -> None:
    """Nothing outside was called, so that nothing can be struck."""
    pytester.makepyfile(
        test_shop=HEAD
        + """
    @pytest.mark.tta_sweep
    def test_adds(tta):
        async def add(x):
            return x + 1

        assert tta.run(add, 1) == 2
    """
    )
    result = run("--tta-failures=none")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*::test_adds: tta_sweep has nothing to strike: *"])


def test_what_two_faults_would_reach_is_said(
    pytester: pytest.Pytester, run: Run
) -> None:
    """A call that is made only after a fault is struck by a second one."""
    result = explored(
        pytester,
        run,
        """
    def test_asks_again(tta):
        async def ask(_):
            try:
                async with asyncio.timeout(5):
                    await op("model.ask")
            except (ConnectionError, TimeoutError):
                async with asyncio.timeout(5):
                    await op("cache.read")

        tta.run(ask, None)
    """,
    )
    result.stdout.fnmatch_lines(
        [
            "*: not reached: cache.read:error, cache.read:fatal, *",
            ("*: 2 faults at once would reach that: @pytest.mark.tta_sweep(depth=2)"),
        ]
    )


def test_more_calls_are_allowed_by_marker_and_ini(
    pytester: pytest.Pytester, run: Run
) -> None:
    """A bounded poll that is faster than once a second."""
    body = """
    {marker}
    def test_polls(tta):
        async def poll(_):
            for _ in range(50):
                try:
                    async with asyncio.timeout(5):
                        return await op("job.state")
                except Exception:
                    await asyncio.sleep(0.2)

        tta.run(poll, None)
    """
    result = explored(pytester, run, body.format(marker=""))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*retry storm: job.state was called 32 times *"])
    mark = "@pytest.mark.tta_sweep(max_calls=60)"
    explored(pytester, run, body.format(marker=mark)).assert_outcomes(passed=1)
    pytester.makepyfile(test_shop=HEAD + body.format(marker=""))
    run(*EXPLORE, "-o", "tta_max_calls=60").assert_outcomes(passed=1)


PLAIN = """
    def test_holds(tta):
        async def ask(_):
            async with asyncio.timeout(5):
                await op("ask")

        tta.run(ask, None)
"""


@pytest.mark.parametrize(
    "option",
    ["--tta-budget=1", "--tta-shard=1/2", "--tta-out=a.jsonl", "--tta-certificate=."],
)
def test_each_option_of_a_campaign_explores(
    pytester: pytest.Pytester, run: Run, option: str
) -> None:
    """None of them makes sense without; --no-tta-explore is stronger."""
    pytester.makepyfile(test_shop=HEAD + PLAIN)
    result = run("--tta-failures=none", option)
    result.stdout.fnmatch_lines(["1 test explored in *"])
    off = run("--tta-failures=none", option, "--no-tta-explore")
    off.stdout.no_fnmatch_line("*explored in*")


def test_a_line_is_replayed_also_where_exploring_is_off(
    pytester: pytest.Pytester, run: Run
) -> None:
    """The ini file or the command line may say no in general; a line is one plan."""
    pytester.makepyfile(test_shop=HEAD + PLAIN)
    result = run("--no-tta-explore", "--tta-replay=tta1 f=ask#1:error")
    result.stdout.fnmatch_lines(["*: replay: holds now*"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--no-tta-explore", "--tta-budget=soon"), "--tta-budget=soon: must be a "),
        (("--tta-failures=test_shop.py",), "--tta-failures='test_shop.py' must be a "),
        (("--tta-failures=test_shop.py/a",), "must be a folder that can be written"),
        (("--tta-certificate=test_shop.py",), "--tta-certificate='test_shop.py' must"),
        (("-o", "tta_max_calls=many"), "tta_max_calls = 'many' must be a whole number"),
        (("--tta-cov-report=xml",), "--tta-cov-report='xml' must be 'term-missing' or"),
        (("--tta-cov-report=json:.",), "cannot be written"),
        (("--tta-cov", "--tta-cov-report=json:test_shop.py/a"), "cannot be written"),
        (("--tta-cov-via=sweeps",), "tta_cov_via = 'sweeps' must be 'tests' or 'all'"),
        (("-o", "tta_cov_via=sweeps"), "tta_cov_via = 'sweeps' must be 'tests' or"),
        (("-o", "tta_fail_under=most"), "tta_fail_under = 'most' must be a percentage"),
        (("--tta-mutate-depth=9",), "--tta-mutate-depth=9: must be how many faults"),
        (("-o", "tta_mutate_fail_under=x"), "tta_mutate_fail_under = x: must be a per"),
    ],
    ids=str,
)
def test_options_are_checked_whatever_is_on(
    pytester: pytest.Pytester, run: Run, options: tuple[str, ...], sentence: str
) -> None:
    """A wrong value is refused at the start, also where nothing would read it."""
    pytester.makepyfile(test_shop="def test_nothing(): pass")
    result = run(*options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    told = result.stderr.str() + result.stdout.str()
    assert sentence in told
    assert "Traceback" not in told


def test_certificates_of_one_name_have_files_of_their_own(
    pytester: pytest.Pytester, run: Run
) -> None:
    """Two classes, two parameters: none overwrites that of another."""
    pytester.makepyfile(
        test_shop=HEAD
        + """
    @pytest.mark.parametrize("number", [1, 2])
    def test_race(tta, number):
        order = []

        async def note(name):
            async with asyncio.timeout(5):
                await op(name)
            order.append(name)

        async def both(_):
            async with asyncio.TaskGroup() as group:
                group.create_task(note("first"))
                group.create_task(note("second"))

        tta.run(both, None)
        assert order == ["first", "second"]
    """
    )
    run(*EXPLORE, "--tta-certificate=made").assert_outcomes(failed=2)
    written = sorted(path.name for path in (pytester.path / "made").iterdir())
    assert len(written) == 2
    assert all(name.startswith("test_race_") for name in written)
    assert all(name.endswith("_certificate.py") for name in written)


def test_a_file_named_twice_is_merged_once(
    pytester: pytest.Pytester, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Executions would be counted twice; it is said."""
    pytester.makepyfile(test_shop=HEAD + PLAIN)
    run(*EXPLORE, "--tta-out=a.jsonl").assert_outcomes(passed=1)
    kept = json.loads((pytester.path / "a.jsonl").read_text("utf-8"))
    capsys.readouterr()
    assert main(["merge", "a.jsonl", "./a.jsonl"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "1 of the files is named twice, and counted once",
        f"1 test explored, {kept['executions']} executions",
        "nothing was found",
    ]


def test_a_replay_without_a_hash_seed_says_what_may_be_missing(
    pytester: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it holds now, the order of a set may have been another."""
    monkeypatch.setenv("PYTHONHASHSEED", "random")
    pytester.makepyfile(test_shop=HEAD + PLAIN)
    result = run("--tta-replay=tta1 f=ask#1:error")
    result.stdout.fnmatch_lines(
        [
            (
                "*: replay: holds now; if the order of a set matters, search with "
                "PYTHONHASHSEED=0, and the line has it"
            )
        ]
    )
