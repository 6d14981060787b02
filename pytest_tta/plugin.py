"""Options, markers and fixtures of `pytest --tta`; imports pytest and nothing more.

What they need is imported when a test asks for it, so that a session that does not use
the plugin does not pay for it. This module is the entry point, and has no lazy names:
pytest walks over them all.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pytest_tta.names import CAMPAIGN, FIXTURES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_tta.clock.clock import VirtualClock
    from pytest_tta.doubles.llm import LLMDouble
    from pytest_tta.faults.injector import FaultInjector
    from pytest_tta.fleet.fleet import SimulatedFleet
    from pytest_tta.harness import Harness
    from pytest_tta.session import Session
    from pytest_tta.tape.tape import Tape
    from pytest_tta.trace.spans import Trace
    from pytest_tta.wire.wire import Wire

SESSION = "tta-session"
COVERAGE = "tta-coverage"
EXPLORATION = "tta-exploration"
MUTATION = "tta-mutation"
REPORT = "tta-report"

_MARKERS = (
    "tta(*, seed=0): seed the chance and the ids of this test.",
    (
        'tta_clock(mode="virtual", *, start=None, io="hold", hold_cap=5.0, '
        "max_jumps=250_000, autojump=True): set the clock of this test; "
        'tta_clock("real") gives it real time.'
    ),
    "tta_allow_hosts(*hosts): let this test connect to these hosts as well.",
    (
        "tta_tape(name=None, *, mode=None): play what providers answered from a tape "
        "of this name; mode: none, once, new or all."
    ),
    (
        "tta_sweep(depth=1, *, faults=None, sites=None, strict=False, budget=None, "
        "max_calls=30): "
        "execute this test again for each fault at each of its calls; depth: how many "
        "faults at once."
    ),
    (
        'tta_schedules(count=200, *, mode="op", exhaustive=False, early=1, pure=None): '
        "execute this test again with other orders of events, and with cancellations."
    ),
    "tta_no_explore: never execute this test again to find what breaks it.",
)

# What a test with this marker holds, whether it names the fixture or not.
_HELD = {"tta_tape": "tta_tape", "tta_sweep": "tta", "tta_schedules": "tta"}
_EXPLORING = frozenset({"tta_sweep", "tta_schedules"})
_is_marked = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options and the ini settings."""
    group = parser.getgroup("tta", "tta: deterministic tests of resilient workflows")
    group.addoption(
        "--tta",
        action="store_const",
        const=True,
        default=None,
        dest="tta",
        help="Give every async test virtual time and record every workflow.",
    )
    group.addoption(
        "--no-tta",
        action="store_const",
        const=False,
        dest="tta",
        help="Switch --tta off, also if the ini file switches it on.",
    )
    group.addoption(
        "--tta-seed",
        type=int,
        default=None,
        dest="tta_seed",
        metavar="N",
        help="Seed chance and ids of every test with this whole number (default: 0).",
    )
    _add_taping(group, parser)
    _add_exploring(group, parser)
    _add_mutating(group, parser)
    _add_coverage(group, parser)
    _add_reports(group, parser)
    parser.addini("tta", "Switch --tta on.", type="bool", default=False)
    parser.addini("tta_seed", "As --tta-seed: a whole number.", default="0")
    parser.addini(
        "tta_clock",
        "The time of async tests under --tta: virtual or real.",
        default="virtual",
    )
    parser.addini(
        "tta_allow_hosts",
        "Hosts that tests may connect to: names, patterns, addresses, networks.",
        type="args",
        default=[],
    )


def _add_taping(group: pytest.OptionGroup, parser: pytest.Parser) -> None:
    """Add what puts the answers of providers on tape."""
    group.addoption(
        "--tta-record",
        choices=["none", "once", "new", "all"],
        default=None,
        dest="tta_record",
        help="Send real requests, and put the answers on tape: once, where there is no "
        "tape; new, what is missing; all, everything anew (default: none).",
    )
    group.addoption(
        "--tta-record-errors",
        action="store_true",
        default=False,
        dest="tta_record_errors",
        help="Put answers that are no success on tape as well.",
    )
    parser.addini(
        "tta_tape_ignore",
        "Fields of requests that need not be as on tape: user, messages[*].name.",
        type="args",
        default=[],
    )


def _add_exploring(group: pytest.OptionGroup, parser: pytest.Parser) -> None:
    """Add what has tests executed again and again to find what breaks them."""
    group.addoption(
        "--tta-explore",
        action="store_const",
        const=True,
        default=None,
        dest="tta_explore",
        help="Search each test that calls tta.run(...) for the fault, the order of "
        "events or the cancellation that breaks it.",
    )
    group.addoption(
        "--no-tta-explore",
        action="store_const",
        const=False,
        dest="tta_explore",
        help="Explore no test, not even one that has a marker for it.",
    )
    for name, metavar, text in (
        ("replay", "LINE", "Execute one plan again, by the line of a report."),
        (
            "failures",
            "DIR",
            "Keep failures here, to be tried first; none for nowhere (.tta/failures).",
        ),
        (
            "budget",
            "TIME",
            "Explore, and go on for this long, all tests together: 90, 10m, 1h30m.",
        ),
        ("shard", "I/N", "Explore, as machine I of N that share the work."),
        (
            "out",
            "FILE",
            "Explore, and write a line of JSON here for each explored test.",
        ),
        (
            "certificate",
            "DIR",
            "Explore, and write what is found here, as plain tests of asyncio.",
        ),
    ):
        group.addoption(
            f"--tta-{name}",
            default=None,
            dest=f"tta_{name}",
            metavar=metavar,
            help=text,
        )
    parser.addini("tta_explore", "Switch --tta-explore on.", type="bool", default=False)
    parser.addini(
        "tta_max_calls",
        "How often one fault may make a site called before it is a retry storm.",
        default="30",
    )
    parser.addini(
        "tta_failures",
        "Where failures that were found are kept, below the root; none for nowhere.",
        default=".tta/failures",
    )


def _add_mutating(group: pytest.OptionGroup, parser: pytest.Parser) -> None:
    """Add what has workflows changed, to see whether a test notices."""
    group.addoption(
        "--tta-mutate",
        nargs="?",
        const="all",
        default=None,
        dest="tta_mutate",
        metavar="OPERATORS",
        help="Run each green test that calls tta.run(...) again with changed workflows "
        "and list the changes that no test notices; =retry,timeout-limit for some.",
    )
    for name, metavar, text in (
        ("fail-under", "N", "Fail if less than N percent of the changes are noticed."),
        (
            "depth",
            "N",
            "Combine N faults to find changes that make no difference (default: 1).",
        ),
    ):
        group.addoption(
            f"--tta-mutate-{name}",
            default=None,
            dest=f"tta_mutate_{name.replace('-', '_')}",
            metavar=metavar,
            help=text,
        )
    parser.addini("tta_mutate", "As --tta-mutate: all, or some operators.", default="")
    parser.addini("tta_mutate_fail_under", "As --tta-mutate-fail-under.", default="")
    parser.addini("tta_mutate_depth", "As --tta-mutate-depth.", default="1")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Replay a plan in a child process if it needs other hashes than there are here."""
    if config.getoption("tta_replay") is None:
        return None
    from pytest_tta.explore.replay import replay_elsewhere

    return replay_elsewhere(config)


def _add_coverage(group: pytest.OptionGroup, parser: pytest.Parser) -> None:
    """Add what tells which outcomes of each primitive the tests have reached."""
    group.addoption(
        "--tta-cov",
        action="store_true",
        default=False,
        dest="tta_cov",
        help="Count which outcomes of each primitive the tests reach.",
    )
    group.addoption(
        "--tta-cov-report",
        action="append",
        default=[],
        dest="tta_cov_report",
        metavar="KIND",
        help="Print it, term-missing, or write it, json:PATH; may be given several "
        "times (default: term-missing).",
    )
    group.addoption(
        "--tta-cov-via",
        default=None,
        dest="tta_cov_via",
        metavar="tests|all",
        help="Whether what only a sweep has reached counts as well (default: all).",
    )
    group.addoption(
        "--tta-fail-under",
        default=None,
        dest="tta_fail_under",
        metavar="PERCENT",
        help="Fail the session if fewer of the outcomes were reached.",
    )
    group.addoption(
        "--tta-suggest",
        action="store_true",
        default=False,
        dest="tta_suggest",
        help="Print a test to paste for each outcome that was not reached.",
    )
    parser.addini("tta_cov", "Switch --tta-cov on.", type="bool", default=False)
    parser.addini("tta_cov_report", "As --tta-cov-report, one a line.", type="linelist")
    parser.addini("tta_cov_via", "As --tta-cov-via: tests or all.", default="all")
    parser.addini("tta_fail_under", "As --tta-fail-under.", default="")
    parser.addini(
        "tta_cov_exclude",
        "What does not count: a path, or 'path: outcome, outcome'; * for anything.",
        type="linelist",
    )


def _add_reports(group: pytest.OptionGroup, parser: pytest.Parser) -> None:
    """Add what writes down what tests did, for people and for machines."""
    for name, what in (("html", "one page for browsers"), ("json", "JSON")):
        group.addoption(
            f"--tta-{name}",
            default=None,
            dest=f"tta_{name}",
            metavar="PATH",
            help=f"Write what the tests that use the plugin did to this file: {what}.",
        )
    group.addoption(
        "--tta-runs",
        choices=["failed", "all"],
        default="failed",
        dest="tta_runs",
        help="Of which tests these files show every call: of those that failed, or of "
        "all (default: failed).",
    )
    parser.addini(
        "tta_github",
        "Annotate failures, and add to the job's summary, where GitHub Actions runs.",
        type="bool",
        default=True,
    )


def _asks_for_coverage(config: pytest.Config) -> bool:
    """Tell whether an option or the ini file asks for coverage."""
    asked = (config.getoption(f"tta_{name}") for name in ("cov", "suggest"))
    under = config.getoption("tta_fail_under") is not None
    return under or any(asked) or bool(config.getini("tta_cov"))


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, and the session if --tta is on."""
    if config.getoption("--hypothesis-profile", default=None) == "tta":
        # Hypothesis loads it in its own pytest_configure, which comes next.
        from pytest_tta.properties import register_profile

        register_profile()
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    if _asks_for_coverage(config):
        from pytest_tta.coverage.session import CoverageSession

        config.pluginmanager.register(CoverageSession(config), COVERAGE)
    _check_options(config)
    if _is_on(config):
        _session(config)
    if _is_exploring(config):
        _exploration(config)
    if config.getoption("tta_mutate") or config.getini("tta_mutate"):
        _mutation(config)
    if _is_reporting(config):
        from pytest_tta.report.session import ReportSession

        config.pluginmanager.register(ReportSession(config), REPORT)


def _check_options(config: pytest.Config) -> None:
    """Refuse wrong values also where what they belong to is off."""
    if _are_given(config, *CAMPAIGN, "tta_failures", tta_max_calls="30"):
        from pytest_tta.explore.options import read_explore_settings

        read_explore_settings(config)
    usual: dict[str, object] = {
        "tta_cov_report": [],
        "tta_cov_via": "all",
        "tta_fail_under": "",
    }
    if _are_given(config, *usual, **usual):
        from pytest_tta.coverage.settings import read_coverage_settings

        read_coverage_settings(config)
    usual = {"tta_mutate_depth": "1", "tta_mutate_fail_under": ""}
    if _are_given(config, *usual, **usual):
        from pytest_tta.mutation.settings import read_mutation_settings

        read_mutation_settings(config)


def _are_given(config: pytest.Config, *options: str, **usual: object) -> bool:
    """Tell whether an option is given, or a setting is not what it usually is."""
    asked = any(config.getoption(name) not in (None, []) for name in options)
    return asked or any(config.getini(name) != value for name, value in usual.items())


def _is_reporting(config: pytest.Config) -> bool:
    """Tell whether something is to be made of all reports, which come together here."""
    if hasattr(config, "workerinput"):
        return False
    files = (config.getoption(f"tta_{name}") for name in ("html", "json"))
    if any(file is not None for file in files):
        return True
    on_github = os.environ.get("GITHUB_ACTIONS") == "true"
    return on_github and _ini_switch(config, "tta_github")


def _is_exploring(config: pytest.Config) -> bool:
    """Tell whether the command line or the ini file asks for exploring."""
    if config.getoption("tta_replay") is not None:
        return True
    asked: bool | None = config.getoption("tta_explore")
    if asked is not None:
        return asked
    usual = _ini_switch(config, "tta_explore")
    return usual or any(config.getoption(name) is not None for name in CAMPAIGN)


def _is_on(config: pytest.Config) -> bool:
    """Tell whether the command line or else the ini file switches --tta on."""
    asked: bool | None = config.getoption("tta")
    if asked is not None:
        return asked
    return _ini_switch(config, "tta")


def _ini_switch(config: pytest.Config, name: str) -> bool:
    """Tell whether the ini file switches something on."""
    try:
        return bool(config.getini(name))
    except (TypeError, ValueError, pytest.UsageError) as error:
        msg = f"{name} must be true or false: {error}"
        raise pytest.UsageError(msg) from None


def _session(config: pytest.Config) -> Session:
    """Return what serves tests that use the plugin, registered once."""
    registered: Session | None = config.pluginmanager.get_plugin(SESSION)
    if registered is not None:
        return registered
    from pytest_tta.session import Session
    from pytest_tta.settings import read_settings

    session = Session(read_settings(config, on=_is_on(config)))
    config.pluginmanager.register(session, SESSION)
    return session


def _exploration(config: pytest.Config) -> None:
    """Register what executes tests again, once."""
    if config.pluginmanager.has_plugin(EXPLORATION):
        return
    from pytest_tta.explore.options import read_explore_settings
    from pytest_tta.explore.session import Exploration

    exploration = Exploration(read_explore_settings(config))
    _session(config).explorer = exploration
    config.pluginmanager.register(exploration, EXPLORATION)


def _mutation(config: pytest.Config) -> None:
    """Register what changes the workflows of tests."""
    _session(config)
    from pytest_tta.mutation.session import MutationSession
    from pytest_tta.mutation.settings import read_mutation_settings

    mutation = MutationSession(read_mutation_settings(config))
    config.pluginmanager.register(mutation, MUTATION)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give a test what only its markers ask for."""
    names = getattr(item, "fixturenames", None)
    if not isinstance(names, list):
        return
    for mark in item.iter_markers():
        held = _HELD.get(mark.name)
        if held is None:
            continue
        if held not in names:
            names.append(held)
        if mark.name in _EXPLORING:
            item.config.stash[_is_marked] = True


def pytest_collection_modifyitems(
    config: pytest.Config, items: Sequence[pytest.Item]
) -> None:
    """Begin a session if any test asks for one of the fixtures."""
    if any(
        not FIXTURES.isdisjoint(getattr(item, "fixturenames", ())) for item in items
    ):
        _session(config)
    is_marked = config.stash.get(_is_marked, False)
    if is_marked and config.getoption("tta_explore") is not False:
        _exploration(config)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what all came to; with workers, only reports know of it."""
    is_shown = config.get_verbosity() >= 0 and not terminalreporter.no_summary
    if is_shown and _is_on(config):
        _summarize(terminalreporter, config)
    is_explored = config.pluginmanager.has_plugin(EXPLORATION)
    if not is_explored and not config.pluginmanager.has_plugin("dsession"):
        return
    reports = [one for some in terminalreporter.stats.values() for one in some]
    explored = {
        report.nodeid: report.tta["exploration"]
        for report in reports
        if "exploration" in getattr(report, "tta", ())
    }
    unexplored = {
        report.nodeid: report.tta_unexplored
        for report in reports
        if hasattr(report, "tta_unexplored")
    }
    if (explored or unexplored) and config.get_verbosity() >= 0:
        from pytest_tta.explore.summary import summary_lines

        terminalreporter.section("tta exploration")
        for line in summary_lines(explored, unexplored):
            terminalreporter.line(line)


def _summarize(reporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table of all workflows."""
    from pytest_tta.report.summary import lines_for, ratios_of

    lines = lines_for(
        (report for reports in reporter.stats.values() for report in reports),
        ratios_of(config.pluginmanager.get_plugin(COVERAGE)),
        width=reporter._tw.fullwidth,
        shows_all=config.get_verbosity() > 0,
    )
    for number, line in enumerate(lines):
        if not number:
            reporter.write_sep("=", "tta")
        reporter.write_line(line.text, **line.markup)


def _harness(request: pytest.FixtureRequest) -> Harness:
    from pytest_tta.session import harness_of

    return harness_of(request)


@pytest.fixture
def tta(request: pytest.FixtureRequest) -> Harness:
    """Everything a test of a workflow holds: clock, faults, LLM double, trace.

    def test_two_failures_are_ridden_out(tta):
        tta.faults.at("ask").fail(OSError("down"), when=first(2))
        assert tta.run(workflow, "6 * 7?") == "42"
        assert tta.elapsed == 0.5 + 1.0
    """
    return _harness(request)


@pytest.fixture
def tta_clock(request: pytest.FixtureRequest) -> VirtualClock:
    """The virtual clock of this test: `elapsed`, `advance(seconds)`, `sleeps`.

    async def test_an_hour(tta_clock):
        await asyncio.sleep(3600)
        assert tta_clock.elapsed == 3600
    """
    return _harness(request).clock


@pytest.fixture
def tta_faults(request: pytest.FixtureRequest) -> FaultInjector:
    """Faults for the primitives of this test's workflows, by path.

    async def test_a_step_that_hangs(tta_faults):
        tta_faults.at("retry/ask").hang()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await workflow.execute("6 * 7?", WorkflowContext())
    """
    return _harness(request).faults


@pytest.fixture
def tta_fleet(request: pytest.FixtureRequest) -> SimulatedFleet:
    """Workers on a bad network: an engine, and any step as a remote one.

    def test_a_worker_that_dies(tta, tta_fleet):
        tta_fleet.at("ask").crash_at("ask", "before")
        assert tta.run(workflow, "6 * 7?") == "42"
    """
    return _harness(request).fleet


@pytest.fixture
def tta_llm(request: pytest.FixtureRequest) -> LLMDouble:
    """A scripted double of a language model, in the place of a step.

    async def test_a_model_that_is_busy(tta_llm):
        tta_llm.at("ask").raises(ConnectionError("busy"))
        tta_llm.at("ask").reply("42", delay=2.5)
        assert await workflow.execute("6 * 7?", WorkflowContext()) == "42"
    """
    return _harness(request).llm


@pytest.fixture
def tta_wire(request: pytest.FixtureRequest) -> Wire:
    """Fake LLM providers under the real SDKs of OpenAI, Anthropic and others.

    async def test_a_limit_is_waited_for(tta_wire):
        tta_wire.openai.fails(rate_limit(after=30))
        tta_wire.openai.reply("42")
        asked = await client.responses.create(model="gpt-5", input="6 * 7?")
        assert asked.output_text == "42"
    """
    return _harness(request).wire


@pytest.fixture
def tta_tape(request: pytest.FixtureRequest) -> Tape:
    """What providers answered, recorded by --tta-record and played ever after.

    async def test_answer(tta_tape):
        asked = await client.responses.create(model="gpt-5", input="6 * 7?")
        assert asked.output_text == "42"
    """
    return _harness(request).tape


@pytest.fixture
def tta_trace(request: pytest.FixtureRequest) -> Trace:
    """What the workflows of this test did, to be compared with `S(...)` patterns.

    async def test_way_of_a_question(tta_trace):
        await workflow.execute("6 * 7?", WorkflowContext())
        assert tta_trace == S("retry", S("ask", output="42"), attempts=1)
    """
    return _harness(request).trace
