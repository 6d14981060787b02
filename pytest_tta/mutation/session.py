"""What `--tta-mutate` adds to a session of pytest."""

from __future__ import annotations

import asyncio
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tta.explore.plan import digest_of_trees
from pytest_tta.mutation.again import again, said, together
from pytest_tta.mutation.ledger import Fate, Ledger
from pytest_tta.mutation.operators import Mutant, mutations_of
from pytest_tta.mutation.oracle import Watch, is_told_apart, later_calls
from pytest_tta.mutation.rebuilding import CannotRebuild, Rebuilding
from pytest_tta.mutation.report import is_too_low, table
from pytest_tta.session import HARNESS
from tta_primitives.door import (
    add_interceptor,
    add_observer,
    remove_interceptor,
    remove_observer,
)
from tta_primitives.primitive import as_operand

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from pytest_tta.harness import Harness
    from pytest_tta.mutation.oracle import Faults, Look, Seen
    from pytest_tta.mutation.rebuilding import Primitive
    from pytest_tta.mutation.settings import MutationSettings
    from tta_primitives.door import Observer

__all__ = ["MutationSession", "shape_of"]

_KEY = "tta_mutation"
# Of one test, so that a large workflow does not take for ever.
_MOST_FAULTS = 500


class MutationSession:
    """Runs each green test that called `tta.run` again, with changed workflows.

    Args:
        settings: Which changes, and how good the tests must be.
    """

    def __init__(self, settings: MutationSettings) -> None:
        self._settings = settings
        self._ledger = Ledger()
        self._replace: Callable[[Primitive], Primitive] | None = None
        self._trees: list[Primitive] = []
        self._is_green = False
        # After how many seconds what a test has run is called again, by whom.
        self._pauses: list[float] = []
        self._runs: list[tuple[Primitive, Any, Any]] = []

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, Any, Any]:
        """Judge the mutants of the workflows that a test has run, if it is green."""
        self._trees, self._is_green = [], True
        self._replace = self._remember
        try:
            result = yield
        finally:
            self._replace = None
        session = item.session
        is_over = session.shouldstop or session.shouldfail
        if self._trees and self._is_green and not is_over:
            with together(item, nextitem), _unexplored(item):
                self._judge(item)
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that is not simply green."""
        if not report.passed or hasattr(report, "wasxfail"):
            self._is_green = False

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Let the test's harness ask which workflow it shall run."""
        entered = item.stash.get(HARNESS, None)
        if entered is not None:
            entered.harness.simulated = self._running(entered.harness)
        self._runs = []
        try:
            return (yield)
        finally:
            if self._pauses and entered is not None and entered.is_virtual:
                self._call_again(entered.harness)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Send what was found to the controller; fail if the score is too low."""
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output[_KEY] = self._ledger.to_data()
        elif is_too_low(self._ledger, self._settings.fail_under):
            any_session: Any = session
            if session.exitstatus == pytest.ExitCode.OK:
                any_session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:  # noqa: ANN401 - of pytest-xdist
        """Add what a worker has found; one that has crashed sends nothing."""
        sent = getattr(node, "workeroutput", {}).get(_KEY)
        if sent is not None:
            self._ledger.merge(sent)

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter
    ) -> None:
        """Show what became of each mutant."""
        ledger, least = self._ledger, self._settings.fail_under
        if not ledger.fates and not ledger.notes:
            return
        terminalreporter.section("tta mutation")
        for line in table(ledger, depth=self._settings.depth):
            terminalreporter.write_line(line)
        if is_too_low(ledger, least):
            text = f"the mutation score is below --tta-mutate-fail-under={least:g}"
            terminalreporter.write_line(text, red=True)

    def _running(self, harness: Harness) -> Callable[..., Any] | None:
        """Return what runs workflows instead of a harness, which are then others."""
        replace = self._replace
        if replace is None:
            return None

        def run(workflow: Any, input_data: Any, context: Any) -> Any:  # noqa: ANN401 - as `Harness.run` takes them
            changed = replace(as_operand(workflow))
            self._runs.append((changed, input_data, context))
            return harness.clock.run(harness._execute(changed, input_data, context))

        return run

    def _call_again(self, harness: Harness) -> None:
        """Call what a test has run once more, at once and later, however it ends."""
        runs = {id(run[0]): run for run in self._runs}
        for pause in self._pauses:
            harness.clock.run(asyncio.sleep(pause))
            for run in runs.values():
                with suppress(Exception):
                    harness.clock.run(harness._execute(*run))

    def _remember(self, tree: Primitive) -> Primitive:
        self._trees.append(tree)
        return tree

    def _judge(self, item: pytest.Item) -> None:
        """Try the mutants that no test has noticed so far."""
        trees = {shape_of(tree): tree for tree in self._trees}
        operators = self._settings.operators
        mutants = [
            Mutant(shape, one.operator, one.path, one.what)
            for shape, tree in trees.items()
            for one in mutations_of(tree, operators)
        ]
        left = [one for one in mutants if not self._ledger.is_killed(one)]
        if not left:
            return
        # Else it would seem to notice everything.
        why_not = self._again(item, None)
        if why_not is not None:
            self._ledger.note(
                f"{item.nodeid} is not used, for it fails when it is run again with a "
                f"copy of its workflow: {said(why_not)}"
            )
            return
        survivors = [one for one in left if not self._is_noticed(item, one)]
        self._look_for_equivalents(item, survivors)

    def _is_noticed(self, item: pytest.Item, mutant: Mutant) -> bool:
        error = self._again(item, mutant)
        if isinstance(error, CannotRebuild):
            self._ledger.note(f"{mutant.workflow}: {error}")
            return True
        if error is None:
            self._ledger.add(mutant, Fate())
            return False
        self._ledger.add(mutant, Fate(item.nodeid, said(error)))
        return True

    def _look_for_equivalents(self, item: pytest.Item, survivors: list[Mutant]) -> None:
        """See which survivors do anything else than the original under faults.

        First as the test runs them, then also when they are called again later.
        """
        for pauses in ([], later_calls(self._trees)):
            left = [one for one in survivors if not self._ledger.fates[one].is_apart]
            original = self._looking(item, None, pauses)
            for mutant in left:
                if is_told_apart(
                    original,
                    self._looking(item, mutant, pauses),
                    depth=self._settings.depth,
                    limit=_MOST_FAULTS,
                ):
                    self._ledger.add(mutant, Fate(is_apart=True))

    def _looking(
        self, item: pytest.Item, mutant: Mutant | None, pauses: list[float]
    ) -> Look:
        """Return what executes a test with faults, each set of them once."""
        known: dict[Faults, Seen] = {}

        def look(faults: Faults) -> Seen:
            if faults not in known:
                watch = Watch(faults)
                add_interceptor(watch)
                self._pauses = pauses
                try:
                    self._again(item, mutant)
                finally:
                    self._pauses = []
                    remove_interceptor(watch)
                known[faults] = watch.seen
            return known[faults]

        return look

    def _again(self, item: pytest.Item, mutant: Mutant | None) -> BaseException | None:
        """Run a test again with copies of its workflows, one of them changed."""
        copies = Rebuilding()
        refused: list[CannotRebuild] = []

        def replace(tree: Primitive) -> Primitive:
            try:
                return _changed(copies, tree, mutant)
            except CannotRebuild as error:
                refused.append(error)
                raise

        self._ledger.executions += 1
        self._replace = replace
        try:
            error = again(item)
        finally:
            self._replace = None
            copies.restore()
        return refused[0] if refused else error


def _changed(copies: Rebuilding, tree: Primitive, mutant: Mutant | None) -> Primitive:
    """Return a copy of a workflow, which is the mutant if it is one of this one.

    The change is looked up in the tree that is run now: another one has other
    functions and another storage.
    """
    if mutant is not None and shape_of(tree) == mutant.workflow:
        for one in mutations_of(tree, frozenset({mutant.operator})):
            if (one.path, one.what) == (mutant.path, mutant.what):
                return copies.copy(tree, one.path, one.change)
    return copies.copy(tree)


def shape_of(tree: Primitive) -> str:
    """Return a workflow's name with a digest of its shape and options.

    Args:
        tree: The root of the workflow.
    """
    return f"{tree.name}@{digest_of_trees([tree])}"


@contextmanager
def _unexplored(item: pytest.Item) -> Iterator[None]:
    """Keep others from exploring, or counting, what a test does when run again."""
    session: Any = item.config.pluginmanager.get_plugin("tta-session")
    explorer, session.explorer = session.explorer, None
    counting = _counting()
    if counting is not None:
        remove_observer(counting)
    try:
        yield
    finally:
        session.explorer = explorer
        if counting is not None:
            add_observer(counting)


def _counting() -> Observer | None:
    """Return the observer of coverage, None if none is collected."""
    module: Any = sys.modules.get("pytest_tta.coverage.collector")
    collector = None if module is None else module.current()
    return None if collector is None else collector._observer
