"""The hooks of a session in which tests are explored."""

from __future__ import annotations

import inspect
import os
import sys
import time
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tta.backends import is_trio
from pytest_tta.clock.fences import SimulationFence
from pytest_tta.explore.campaign import Allowance, Records, seed_for
from pytest_tta.explore.certifying import Certificates
from pytest_tta.explore.execution import ExplorationError, Subject
from pytest_tta.explore.failures import FailureStore
from pytest_tta.explore.hunt import Hunt
from pytest_tta.explore.inquiry import Inquiry
from pytest_tta.explore.needed import needed_orders
from pytest_tta.explore.options import Wanted, wanted_of
from pytest_tta.explore.quiet import Patched, patched_before, quietly
from pytest_tta.explore.refusing import (
    UNEXPLORED,
    async_fixtures,
    fail,
    refuse,
    why_not,
    why_not_with,
)
from pytest_tta.explore.replay import plan_to_replay
from pytest_tta.explore.summary import UNMARKED
from pytest_tta.explore.tracebacks import traceback_section
from pytest_tta.explore.witness import witnessed
from pytest_tta.report.facts import facts
from pytest_tta.report.progress import progress_on, watching
from pytest_tta.report.sections import trace_text
from pytest_tta.session import asks, is_async

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from pytest_tta.explore.options import ExploreSettings
    from pytest_tta.explore.outcome import Outcome
    from pytest_tta.explore.witness import Witness
    from pytest_tta.harness import Harness
    from pytest_tta.report.progress import Progress
    from pytest_tta.report.record import RunRecord
    from pytest_tta.session import ItemHarness

__all__ = ["Exploration"]

_WANTED = pytest.StashKey[Wanted]()
_MARK = pytest.StashKey[Any]()
_PATCHED = pytest.StashKey[Patched | None]()
_ASYNC = pytest.StashKey[list[str]]()
_NOTHING = Wanted(is_marked=False, sweep=None, schedules=None)


class Exploration:
    """Explores tests that have passed, and fails them for what it finds.

    Args:
        settings: What the command line and the ini file say.

    Raises:
        pytest.UsageError: The line to replay is none.
    """

    def __init__(self, settings: ExploreSettings) -> None:
        self._settings = settings
        line = settings.replay
        self._plan = None if line is None else plan_to_replay(line)
        self._allowance: Allowance | None = None
        self._refusal = ""
        self._records: Records | None = None
        self._progress: Progress | None = None
        self._certificates = Certificates(settings.certificate)

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Begin the file of records, where the reports of all workers arrive."""
        out = self._settings.out
        if out is None or hasattr(session.config, "workerinput"):
            return
        try:
            self._records = Records(out)
        except OSError as error:
            msg = f"--tta-out={out}: {error}"
            raise pytest.UsageError(msg) from None

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Split the time over the tests; refuse to replay a plan for several."""
        self._certificates.name(session.items)
        if self._plan is not None and len(session.items) > 1:
            msg = (
                f"--tta-replay executes one test, and {len(session.items)} are "
                "selected: name it, as the report does"
            )
            if not hasattr(session.config, "workerinput"):
                raise pytest.UsageError(msg)
            # A worker that ends here takes the whole session with it.
            self._refusal = msg
        self._progress = progress_on(session.config)
        if self._settings.budget is not None:
            self._allowance = Allowance(
                self._settings.budget,
                tests=sum(map(self._may_be_explored, session.items)),
                workers=int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")),
                now=time.perf_counter,
            )

    def _may_be_explored(self, item: pytest.Item) -> bool:
        """Tell whether a test will be explored, as far as can be known before."""
        try:
            wanted = wanted_of(item, self._settings)
        except pytest.fail.Exception:
            return False
        if wanted is None:
            return False
        return wanted.is_marked or (asks(item) and not is_async(item))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Refuse a test with a marker that makes no sense before anything is made."""
        if self._refusal:
            pytest.fail(self._refusal, pytrace=False)
        wanted = wanted_of(item, self._settings)
        if self._plan is not None:
            wanted = (wanted or _NOTHING)._replace(is_marked=True)
        if wanted is None:
            return
        why = why_not(item)
        if not why:
            item.stash[_WANTED] = wanted
            # Now: while it is made, pytest-asyncio has a fixture look like a sync one.
            item.stash[_ASYNC] = sorted(async_fixtures(item))
        elif wanted.is_marked:
            fail(item, why)

    def begin(self, item: pytest.Item, entered: ItemHarness) -> None:
        """Remember what a test holds before its body begins, if it may be explored.

        Args:
            item: The test.
            entered: Its harness.
        """
        if _WANTED in item.stash:
            made: dict[str, Any] = getattr(item, "funcargs", {})
            # What `setup_method` has made is an attribute of the instance.
            kept = [*made.values(), getattr(item, "instance", None)]
            item.stash[_MARK] = entered.harness.mark(kept)
            item.stash[_PATCHED] = patched_before(item)

    def explore(self, item: pytest.Item, entered: ItemHarness) -> None:
        """Explore a test that has passed, if it is to be.

        Args:
            item: The test.
            entered: Its harness.

        Raises:
            pytest.fail.Exception: Something was found, or the test cannot be explored.
        """
        wanted = item.stash.get(_WANTED, None)
        if wanted is None:
            return
        if not wanted.is_marked:
            if is_async(item):
                item.stash[UNEXPLORED] = UNMARKED
            if is_async(item) or not entered.harness.runs:
                return
        if is_trio(item) or not entered.is_virtual:
            if wanted.is_marked:
                fail(item, "its time is not virtual: tta_clock('real'), or trio's")
            return
        if item.stash[_ASYNC]:
            why = why_not_with(item.stash[_ASYNC])
            refuse(item, why, is_marked=wanted.is_marked)
            return
        inquiry = self._inquiry(item, entered, wanted)
        if inquiry is None:
            return
        self._tell(item, entered, inquiry)

    def _inquiry(
        self, item: pytest.Item, entered: ItemHarness, wanted: Wanted
    ) -> Inquiry | None:
        """Explore a test; return None if it turns out that it cannot be."""
        entered.told = facts(entered.harness)
        error: ExplorationError | None = None
        with (
            _counted_apart(item.nodeid),
            quietly(item, item.stash[_PATCHED]) as forget,
        ):
            try:
                return self._explored(item, entered, wanted, forget)
            except ExplorationError as raised:
                error = raised
        if not isinstance(error.__cause__, SimulationFence):
            # State that survives would survive from test to test as well.
            pytest.fail(str(error), pytrace=False)
        refuse(item, str(error), is_marked=wanted.is_marked)
        return None

    def _tell(self, item: pytest.Item, entered: ItemHarness, inquiry: Inquiry) -> None:
        """Put into the report what was found, and fail the test for it."""
        found = inquiry.found
        told = inquiry.facts()
        told["certificate"] = self._certificates.write(item, found)
        if entered.told is not None:
            entered.told["exploration"] = told
        if found is not None and found.verdict is not None:
            trace = entered.sections or []
            entered.sections = [*traceback_section(item, found.verdict), *trace]
            pytest.fail(inquiry.text(), pytrace=False)
        idle = inquiry.hunt.idle
        if idle and _is_swept_by_own_marker(item):
            pytest.fail(f"{item.nodeid}: {idle}", pytrace=False)

    def _explored(
        self,
        item: pytest.Item,
        entered: ItemHarness,
        wanted: Wanted,
        forget: Callable[[], None],
    ) -> Inquiry:
        body = _body(item, forget)
        asked = None if wanted.sweep is None else wanted.sweep.max_calls
        max_calls = asked or self._settings.max_calls
        with (
            _subject(item, entered, body, wanted, max_calls) as subject,
            watching(
                self._progress, item.nodeid, subject, stage=lambda: self._stage(hunt)
            ) as execute,
        ):
            seed_of = partial(seed_for, item.nodeid, entered.harness.seed)
            hunt = Hunt(
                execute,
                wanted,
                seed_of=seed_of,
                shard=self._settings.shard,
                trees=lambda: subject.trees,
            )
            kept = self._settings.failures
            inquiry = Inquiry(
                hunt,
                None if kept is None else FailureStore(kept, item.nodeid),
                node_id=item.nodeid,
                tree_of=lambda: subject.tree,
                seed=entered.harness.seed,
                reached=subject.reached,
            )
            allowance = self._allowance
            if self._plan is not None:
                inquiry.replay(self._plan)
            elif allowance is None:
                inquiry.search()
            else:
                allowance.begin()
                inquiry.search(lambda: allowance.is_left)
                allowance.end()
            inquiry.witness = self._show(entered, subject, hunt.found)
        return inquiry

    def _stage(self, hunt: Hunt) -> str:
        """Say what is tried now, and how much time is left for it."""
        if self._allowance is None or self._plan is not None:
            return hunt.stage
        return f"{hunt.stage}, {self._allowance.seconds_left:.0f} s left"

    def _show(
        self, entered: ItemHarness, subject: Subject, found: Outcome | None
    ) -> Witness | None:
        """Execute once more what was found, to show what the workflows did in it."""
        if found is None:
            return None
        outlines: list[str] = []
        harness = entered.harness
        needed = needed_orders(subject, found)

        def note(outcome: Outcome) -> None:
            said = "" if outcome.verdict is None else outcome.verdict.text
            outlines.append(trace_text(harness.trace, entered.difference, said))
            if entered.shows_run(failed=True):
                entered.run = _run_found(harness, subject)

        subject.on_execution = note
        witness = witnessed(subject, found.plan)
        witness.needed = needed
        # A single line is the test that runs something, which is no news.
        is_news = "\n" in outlines[0]
        entered.sections = [("tta trace", outlines[0])] if is_news else []
        return witness

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Put into the report of a test why it was not explored."""
        report = yield
        why = item.stash.get(UNEXPLORED, "")
        if why and call.when == "call":
            report.tta_unexplored = why  # type: ignore[attr-defined]  # read at the end
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write down what came of a test, where all reports arrive."""
        explored = getattr(report, "tta", {}).get("exploration")
        if explored is None or self._records is None:
            return
        verdict = explored["verdict"]
        if verdict is not None:
            # Its text may quote what the test was given, and files travel.
            verdict = {name: verdict[name] for name in ("kind", "where")}
        self._records.write(report.nodeid, {**explored, "verdict": verdict})


def _run_found(harness: Harness, subject: Subject) -> RunRecord:
    """Return everything that the execution did that is being looked at."""
    from pytest_tta.report.runs import run_record

    struck = {
        seen.call: f"{seen.kind} at {seen}"
        for seen in subject.sites.calls
        if seen.kind is not None and seen.call is not None
    }
    return run_record(harness, of="what exploring found", struck=struck)


def _counted_apart(node_id: str) -> AbstractContextManager[object]:
    """Let coverage, if it is collected, tell what a search reaches from the test."""
    collecting = sys.modules.get("pytest_tta.coverage.collector")
    collector = None if collecting is None else collecting.current()
    return nullcontext() if collector is None else collector.observing(node_id, "sweep")


def _body(item: Any, forget: Callable[[], None]) -> Callable[[], Any]:  # noqa: ANN401 - pytest.Function tells no types
    """Return the test's own function, with what its fixtures have made already."""
    names = item._fixtureinfo.argnames
    arguments = {name: item.funcargs[name] for name in names}
    function = item.obj

    if is_async(item):

        async def body() -> Any:  # noqa: ANN401 - what the test returns
            forget()
            return await function(**arguments)

        return body

    def sync_body() -> Any:  # noqa: ANN401 - what the test returns
        forget()
        return function(**arguments)

    return sync_body


@contextmanager
def _subject(
    item: Any,  # noqa: ANN401 - pytest.Function tells no types
    entered: ItemHarness,
    body: Callable[[], Any],
    wanted: Wanted,
    max_calls: int,
) -> Iterator[Subject]:
    """Return what executes a test.

    Raises:
        ExplorationError: The test cannot be explored as it is written.
    """
    file = getattr(inspect.unwrap(item.function), "__code__", None)
    with Subject(
        entered.harness,
        body,
        mark=item.stash[_MARK],
        strict=wanted.strict,
        test_file=str(item.path) if file is None else file.co_filename,
        test_name=item.nodeid,
    ) as subject:
        subject.sites.max_calls = max_calls
        yield subject


def _is_swept_by_own_marker(item: pytest.Item) -> bool:
    """Tell whether `tta_sweep` stands at this very test, not at its class or file."""
    return any(mark.name == "tta_sweep" for mark in item.own_markers)
