"""Options, markers and fixtures of `pytest --tta`; imports pytest and nothing more.

What they need is imported when a test asks for it, so that a session that does not use
the plugin does not pay for it. This module is the entry point, and has no lazy names:
pytest walks over them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_tta.names import FIXTURES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_tta.clock.clock import VirtualClock
    from pytest_tta.doubles.llm import LLMDouble
    from pytest_tta.faults.injector import FaultInjector
    from pytest_tta.harness import Harness
    from pytest_tta.tape.tape import Tape
    from pytest_tta.trace.spans import Trace
    from pytest_tta.wire.wire import Wire

SESSION = "tta-session"

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
)


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
    parser.addini("tta", "Switch --tta on.", type="bool", default=False)
    parser.addini("tta_seed", "The seed of every test, a whole number.", default="0")
    parser.addini(
        "tta_clock",
        "The time of async tests under --tta: virtual or real.",
        default="virtual",
    )
    parser.addini(
        "tta_tape_ignore",
        "Fields of requests that need not be as on tape: user, messages[*].name.",
        type="args",
        default=[],
    )
    parser.addini(
        "tta_allow_hosts",
        "Hosts that tests may connect to: names, patterns, addresses, networks.",
        type="args",
        default=[],
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, and the session if --tta is on."""
    if config.getoption("--hypothesis-profile", default=None) == "tta":
        # Hypothesis loads it in its own pytest_configure, which comes next.
        from pytest_tta.properties import register_profile

        register_profile()
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    if _is_on(config):
        _session(config)


def _is_on(config: pytest.Config) -> bool:
    """Tell whether the command line or else the ini file switches --tta on."""
    asked: bool | None = config.getoption("tta")
    if asked is not None:
        return asked
    try:
        return bool(config.getini("tta"))
    except (TypeError, ValueError, pytest.UsageError) as error:
        msg = f"tta must be true or false: {error}"
        raise pytest.UsageError(msg) from None


def _session(config: pytest.Config) -> None:
    """Register what serves tests that use the plugin, once."""
    if config.pluginmanager.has_plugin(SESSION):
        return
    from pytest_tta.session import Session
    from pytest_tta.settings import read_settings

    settings = read_settings(config, on=_is_on(config))
    config.pluginmanager.register(Session(settings), SESSION)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give the tape to a test that only has the marker."""
    names = getattr(item, "fixturenames", None)
    if (
        isinstance(names, list)
        and "tta_tape" not in names
        and item.get_closest_marker("tta_tape") is not None
    ):
        names.append("tta_tape")


def pytest_collection_modifyitems(
    config: pytest.Config, items: Sequence[pytest.Item]
) -> None:
    """Begin a session if any test asks for one of the fixtures."""
    if any(
        not FIXTURES.isdisjoint(getattr(item, "fixturenames", ())) for item in items
    ):
        _session(config)


def _harness(request: pytest.FixtureRequest) -> Harness:
    from pytest_tta.session import harness_of

    return harness_of(request)


@pytest.fixture
def tta(request: pytest.FixtureRequest) -> Harness:
    """Everything a test of a workflow holds: clock, faults, LLM double, trace."""
    return _harness(request)


@pytest.fixture
def tta_clock(request: pytest.FixtureRequest) -> VirtualClock:
    """The virtual clock of this test: `elapsed`, `advance(seconds)`, `sleeps`."""
    return _harness(request).clock


@pytest.fixture
def tta_faults(request: pytest.FixtureRequest) -> FaultInjector:
    """Faults for the primitives of this test's workflows, by path."""
    return _harness(request).faults


@pytest.fixture
def tta_llm(request: pytest.FixtureRequest) -> LLMDouble:
    """A scripted double of a language model."""
    return _harness(request).llm


@pytest.fixture
def tta_wire(request: pytest.FixtureRequest) -> Wire:
    """Fake LLM providers under the real SDKs: `tta_wire.openai.reply("Hello")`."""
    return _harness(request).wire


@pytest.fixture
def tta_tape(request: pytest.FixtureRequest) -> Tape:
    """What providers answered, recorded by --tta-record and played ever after."""
    return _harness(request).tape


@pytest.fixture
def tta_trace(request: pytest.FixtureRequest) -> Trace:
    """What the workflows of this test did, to be compared with `S(...)` patterns."""
    return _harness(request).trace
