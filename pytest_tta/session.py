"""What `--tta` switches on, and what serves a test that holds one of our fixtures."""

from __future__ import annotations

import asyncio
import inspect
import sys
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from pytest_tta.backends import anyio_loop, is_trio, is_trio_backend
from pytest_tta.clock import trampolines
from pytest_tta.clock.errors import ClockError
from pytest_tta.clock.loop import VirtualLoop
from pytest_tta.harness import Harness
from pytest_tta.loops import LoopSource, foreign_loop_message
from pytest_tta.names import FIXTURES, HTTP_LIBRARIES
from pytest_tta.report.facts import facts, properties
from pytest_tta.report.sections import fit, header, sections
from pytest_tta.settings import Settings, clock_of, hosts_of, seed_of, tape_of
from pytest_tta.trace.diff import Difference, difference_of
from pytest_tta.wire.guard import Guard, NetworkBlocked, standing

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from pytest_tta.report.record import ItemRecord, RunRecord
    from pytest_tta.tape.tape import Tape

__all__ = ["Session", "harness_of", "hide_our_frames", "is_async"]

_OUR_PACKAGES = frozenset({"pytest_tta", "tta_primitives"})
# From which on pytest does not cut what explains an assertion.
_WHOLE_TREE = 2
_RUNNERS = frozenset(
    f"_{scope}_scoped_runner"
    for scope in ("function", "class", "module", "package", "session")
)


class ItemHarness:
    """The harness of one test, from the start of its set-up to the end of tear-down."""

    def __init__(
        self, item: pytest.Item, settings: Settings, source: LoopSource
    ) -> None:
        usual = "virtual" if asks(item) else settings.clock
        mode, clock = clock_of(item, usual)
        self.is_async: bool = is_async(item)
        self.is_asked_for: bool = asks(item)
        wants = self.is_asked_for or (self.is_async and not is_trio(item))
        self.is_virtual: bool = mode == "virtual" and wants
        self.harness: Harness = Harness(
            seed=seed_of(item, settings.seed),
            clock=clock,
            tape=partial(self._tape, item, settings),
        )
        hosts = hosts_of(item, settings.hosts)
        self.guard: Guard = Guard(hosts, problems=self.harness.problems)
        self.shows_run: Callable[..., bool] = settings.shows_run
        # What an exploration says, in place of what the ordinary run would have said.
        self.told: ItemRecord | None = None
        self.run: RunRecord | None = None
        # Of the execution that was found, not of the ordinary run; None without one.
        self.sections: list[tuple[str, str]] | None = None
        # What the last comparison of a trace that failed has found.
        self.difference: Difference | None = None
        self._source = source
        self._stack = ExitStack()

    def _tape(self, item: pytest.Item, settings: Settings) -> Tape:
        return tape_of(item, settings, self.guard.permitting)

    def enter(self) -> None:
        """Take over the door, and time if this test has virtual time."""
        with ExitStack() as stack:
            stack.enter_context(self.guard)
            # Without them there is no request to name, and much to import.
            if not HTTP_LIBRARIES.isdisjoint(sys.modules):
                from pytest_tta.wire.transport import naming

                stack.enter_context(naming())
            if self.is_virtual:
                in_time = self._source.in_virtual_time(self.harness.clock)
                stack.enter_context(in_time)
            else:
                stack.enter_context(self._source.in_real_time())
            stack.enter_context(self.harness.watching(whole_process=True))
            self._stack = stack.pop_all()

    def keep_real_time(self) -> None:
        """Give back virtual time that nobody asked for: trio has a time of its own."""
        if self.is_virtual and not self.is_asked_for:
            self.leave()
            self.is_virtual = False
            self.enter()

    def leave(self) -> None:
        """Give everything back."""
        self._stack.close()

    def run_shown(self, *, failed: bool) -> RunRecord | None:
        """Return everything that the test did, None if no report shows it.

        Args:
            failed: Whether the test has failed.
        """
        if self.run is None and self.shows_run(failed=failed):
            from pytest_tta.report.runs import run_record

            self.run = run_record(self.harness)
        return self.run


HARNESS = pytest.StashKey[ItemHarness]()


class Explorer(Protocol):
    """Executes tests again that have passed."""

    def begin(self, item: pytest.Item, entered: ItemHarness, /) -> None:
        """Remember what there is before a test's body begins."""

    def explore(self, item: pytest.Item, entered: ItemHarness, /) -> None:
        """Explore a test that has passed, and fail it for what is found."""


class Session:
    """The hooks of a session in which the plugin is used."""

    def __init__(self, settings: Settings) -> None:
        self.explorer: Explorer | None = None
        self._settings = settings
        self._source = LoopSource()
        # Loops by the name of the fixture whose runner has them.
        self._loops: dict[str, asyncio.AbstractEventLoop] = {}
        self._entered: ItemHarness | None = None
        self._stack = ExitStack()
        if settings.on:
            self._stack.enter_context(standing())
        trampolines.install()

    def pytest_report_header(self, config: pytest.Config) -> str | None:
        """Tell what is on, and with which seed it can be repeated."""
        return header(self._settings, config) if self._settings.on else None

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Enter the test's harness before any of its fixtures is made."""
        if self._settings.on or asks(item):
            entered = ItemHarness(item, self._settings, self._source)
            entered.enter()
            item.stash[HARNESS] = self._entered = entered
            try:
                with _stuck_is_said_plainly():
                    return (yield)
            except NetworkBlocked:
                entered.guard.untold()
                raise
        elif _may_share_a_loop(item):
            with self._source.in_real_time():
                return (yield)
        return (yield)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Run the test; fail it for what was scripted and did not happen."""
        entered = item.stash.get(HARNESS, None)
        if entered is None:
            return (yield)
        if is_trio(item):
            entered.keep_real_time()
        if entered.is_virtual:
            self._refuse_foreign_loop(item)
        if self.explorer is not None:
            self.explorer.begin(item, entered)
        before = self._shared_tasks()
        try:
            with _stuck_is_said_plainly():
                result = yield
        finally:
            # Among the problems, which the report shows whatever else went wrong.
            entered.guard.untold()
        entered.harness.note_left_running(self._shared_tasks() - before)
        problems = entered.harness.verify()
        if problems:
            pytest.fail("\n".join(problems), pytrace=False)
        try:
            entered.harness.keep()
        except (OSError, ValueError) as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        if self.explorer is not None:
            self.explorer.explore(item, entered)
        return result

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Leave the harness after all fixtures are gone."""
        entered = item.stash.get(HARNESS, None)
        if entered is None:
            return (yield)
        try:
            with _stuck_is_said_plainly():
                result = yield
        finally:
            self._leave()
        # What came after the test's own body, and was swallowed.
        problems = entered.guard.untold()
        if problems:
            pytest.fail("\n".join(problems), pytrace=False)
        return result

    def pytest_unconfigure(self) -> None:
        """Leave the harness of a test that was interrupted, and then the session."""
        self._leave()
        self._stack.close()

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, Any, Any]:
        """Look at the loop of pytest-asyncio's runners when they begin and end."""
        runner = yield
        name = fixturedef.argname
        if name == "anyio_backend" and self._entered and is_trio_backend(runner):
            self._entered.keep_real_time()
        if name in _RUNNERS and isinstance(runner, asyncio.Runner):
            loop = self._loops[name] = runner.get_loop()
            if name == "_function_scoped_runner":
                look = partial(_fail_for_tasks, request.node, loop)
                fixturedef.addfinalizer(look)
        return runner

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Put into the report what explains the test."""
        entered = item.stash.get(HARNESS, None)
        said = ""
        if entered is not None and call.excinfo is not None:
            hide_our_frames()
            said = str(call.excinfo.value)
        report = yield
        if entered is not None and report.when == "call":
            _tell(item, report, entered)
            if report.failed:
                ordinary = sections(
                    entered.harness,
                    said,
                    is_virtual=entered.is_virtual,
                    difference=entered.difference,
                )
                found = entered.sections
                report.sections.extend(ordinary if found is None else found)
        elif entered is not None and report.when == "teardown" and report.failed:
            report.tta_run = entered.run_shown(failed=True)  # type: ignore[attr-defined]  # for files
        return report

    def pytest_assertrepr_compare(
        self, config: pytest.Config, op: str, left: object, right: object
    ) -> list[str] | None:
        """Say where a trace and a pattern differ; the report has the whole tree."""
        difference = difference_of(left, right) if op in {"==", "!="} else None
        if difference is None:
            return None
        if op == "!=":
            return fit([difference.equal_line()]).splitlines()
        if self._entered is not None:
            self._entered.difference = difference
        lines = difference.few_lines()
        if config.get_verbosity(pytest.Config.VERBOSITY_ASSERTIONS) >= _WHOLE_TREE:
            lines += difference.tree()
        return fit(lines).splitlines()

    def _refuse_foreign_loop(self, item: pytest.Item) -> None:
        kind = anyio_loop(item)
        scope = getattr(item, "_loop_scope", None)
        loop = self._loops.get(f"_{scope}_scoped_runner")
        if loop is not None and not isinstance(loop, VirtualLoop):
            kind = f"{type(loop).__module__}.{type(loop).__qualname__}"
        if kind:
            pytest.fail(foreign_loop_message(kind), pytrace=False)

    def _leave(self) -> None:
        entered, self._entered = self._entered, None
        if entered is not None:
            entered.leave()

    def _shared_tasks(self) -> set[asyncio.Task[Any]]:
        """Return the tasks of loops that outlive the test, so that nobody ends them."""
        own = self._loops.get("_function_scoped_runner")
        shared = (loop for loop in self._source.living() if loop is not own)
        return {task for loop in shared for task in asyncio.all_tasks(loop)}


@contextmanager
def _stuck_is_said_plainly() -> Iterator[None]:
    """Fail a test for which time cannot go on, without asyncio's traceback."""
    try:
        yield
    except ClockError as error:
        # Where asyncio stood is no news; the text says who waits, and where.
        stuck = f"{type(error).__name__}: {error}"
        raise pytest.fail.Exception(stuck, pytrace=False) from None


def _tell(item: pytest.Item, report: pytest.TestReport, entered: ItemHarness) -> None:
    """Put into a report, as plain data, what other plugins and files tell of it."""
    told = entered.told or facts(entered.harness)
    run = entered.run_shown(failed=report.failed)
    if run is not None:
        told["run"] = run
    report.tta = told  # type: ignore[attr-defined]  # for others
    if entered.is_asked_for or told["workflows"]:
        # JUnit takes those of the last report, which is made of the item.
        others = [one for one in item.user_properties if one[0][:4] != "tta_"]
        item.user_properties[:] = [*others, *properties(item.nodeid, told)]
        report.user_properties = list(item.user_properties)


def asks(item: pytest.Item) -> bool:
    """Tell whether a test holds one of our fixtures."""
    return not FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))


def is_async(item: pytest.Item) -> bool:
    """Tell whether a test is a coroutine function, also inside `@given`."""
    function = getattr(item, "function", None)
    inner = getattr(getattr(function, "hypothesis", None), "inner_test", None)
    return inspect.iscoroutinefunction(inner or function)


def _may_share_a_loop(item: pytest.Item) -> bool:
    """Tell whether a test may make the loop in which a later test has virtual time."""
    is_anyio = "anyio_backend" in getattr(item, "fixturenames", ())
    return is_async(item) and (
        is_anyio or getattr(item, "_loop_scope", "function") != "function"
    )


def hide_our_frames() -> None:
    """Let pytest leave our lines out of tracebacks; --full-trace shows them."""
    for name, module in list(sys.modules.items()):
        # What this module raises has no traceback, and pytest would miss it.
        if name.partition(".")[0] in _OUR_PACKAGES and name != __name__:
            module.__dict__.setdefault("__tracebackhide__", True)


def _fail_for_tasks(item: pytest.Item, loop: asyncio.AbstractEventLoop) -> None:
    """Fail a test for tasks that nobody ended before its loop is closed."""
    entered = item.stash.get(HARNESS, None)
    if entered is None or loop.is_closed():
        return
    harness = entered.harness
    harness.problems.clear()
    harness.note_left_running(asyncio.all_tasks(loop))
    if harness.problems:
        pytest.fail("\n".join(harness.problems), pytrace=False)


def harness_of(request: pytest.FixtureRequest) -> Harness:
    """Return the harness of the test that a fixture is made for.

    Raises:
        pytest.fail.Exception: The test has none: it asked for the fixture too late.
    """
    entered = request.node.stash.get(HARNESS, None)
    if entered is None or not asks(request.node):
        pytest.fail(
            f"{request.node.nodeid}: name {request.fixturename!r} among the arguments "
            "of the test or of one of its fixtures; getfixturevalue() comes too late, "
            "the test's event loop and clock exist already",
            pytrace=False,
        )
    harness: Harness = entered.harness
    return harness
