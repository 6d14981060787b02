"""A test's body that can be executed again and again, each time under another plan."""

# ruff: noqa: ANN401 - workflows, their inputs and outputs

from __future__ import annotations

import gc
import hashlib
import inspect
from array import array
from contextlib import ExitStack
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from pytest_tta.clock.errors import ClockError
from pytest_tta.clock.simulation import SimulationFence, SimulationLoop
from pytest_tta.clock.timeline import Timeline
from pytest_tta.explore import adapters
from pytest_tta.explore.chances import Chances
from pytest_tta.explore.choosers import replaying
from pytest_tta.explore.judge import Ending, Situation, judge
from pytest_tta.explore.oracles import KeptState, Permits, left_running, unhandled
from pytest_tta.explore.outcome import Outcome, Verdict
from pytest_tta.explore.plan import digest_of_trees
from pytest_tta.explore.sites import Sites
from pytest_tta.forgotten import is_forgotten
from pytest_tta.rewinding import Mark
from tta_primitives.context import WorkflowContext
from tta_primitives.primitive import as_operand

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Self

    from pytest_tta.clock.choices import Choice, Chooser
    from pytest_tta.explore.plan import Cancellation, Plan
    from pytest_tta.explore.sites import Seen
    from pytest_tta.harness import Harness, HarnessMark

__all__ = ["ExplorationError", "Subject"]

_MAIN = ("main",)
_DEGRADED = frozenset({"fallback.used", "cache.stale"})
# So many objects more than the last collection has left, be they garbage or not.
_MOST_GARBAGE = 20_000
_RETURNED = Ending("returned")


class ExplorationError(Exception):
    """A test cannot be explored as it is written; the text says how it can."""


class Subject:
    """A test's body, to be executed under plans.

    It is an `Execute`, and is entered around its executions. All `tta.run` of one
    execution run on one simulated loop. Before each of them the harness is what it was
    when the body began.

        with Harness() as tta:
            with Subject(tta, lambda: body(tta)) as subject:
                outcome = subject(Plan())

    Args:
        harness: Of the test; entered.
        body: Calls the test's function; what it returns is run if it is a coroutine.
        mark: What `harness.mark()` gave when the body began; the present unless given.
        keep: Objects of the test, such as what its fixtures have made: they are given
            back their state before each execution, if no mark is given.
        strict: Whether the body's assertions hold whatever goes wrong.
        test_file: The file of the test: the tasks that its own code makes may be
            cancelled. The file of the body unless given.
        test_name: What it is called in messages.

    Attributes:
        executions: How many there were.
        reached: The names that `tta.sometimes` was told, and whether one execution has
            reached what they stand for.
        on_execution: Called with each outcome while all that happened can be seen.
    """

    _loop: SimulationLoop
    _sites: Sites
    _begin_libraries: Callable[[], None]

    def __init__(
        self,
        harness: Harness,
        body: Callable[[], Any],
        *,
        mark: HarnessMark | None = None,
        keep: Iterable[object] = (),
        strict: bool = False,
        test_file: str = "",
        test_name: str = "",
    ) -> None:
        self._harness = harness
        self._body = body
        self._mark = harness.mark(keep) if mark is None else mark
        self._is_strict = strict
        code = getattr(body, "__code__", None)
        self._file = test_file or ("" if code is None else code.co_filename)
        self._name = test_name
        self._state = KeptState()
        self._permits = Permits()
        self._chances = Chances()
        self._stack: ExitStack | None = None
        self._roots: list[Any] = []
        self.executions: int = 0
        self.reached: dict[str, bool] = {}
        self.on_execution: Callable[[Outcome], None] | None = None
        self._begin(None)

    def _begin(self, cancellation: Cancellation | None) -> None:
        self._cancellation = cancellation
        self._cancelled = ""
        self._is_swallowed = False
        self._begin_tasks(0)
        self._left: Verdict | None = None
        self._rests: list[tuple[str, ...]] = []

    def __repr__(self) -> str:
        return f"<Subject {self._name or self._body!r} executions={self.executions}>"

    # --- for as long as plans are executed --------------------------------------

    def __enter__(self) -> Self:
        """Take over chance, locks and libraries; collect garbage by hand only."""
        harness = self._harness
        loop = self._loop = SimulationLoop(harness.clock, mark=self._mark.clock)
        self._sites = Sites(loop, self._state.note)
        with ExitStack() as stack:
            back = harness.mark()
            time = Mark([harness.clock.timeline], lambda kind: kind is Timeline)
            stack.callback(time.restore)
            stack.callback(harness.rewind, back)
            stack.callback(loop.close)
            _collect_by_hand(stack)
            self._chances.enter(stack)
            self._permits.enter(stack)
            self._begin_libraries = adapters.enter(stack, self._sites)
            stack.callback(setattr, harness, "site", harness.site)
            stack.callback(setattr, harness, "simulated", harness.simulated)
            harness.site, harness.simulated = self._sites, self._simulated
            harness.begin_acting()
            loop.site, loop.on_rest = self._sites.site, self._at_rest
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised: object) -> None:
        """Give everything back; the harness is what it was when this was entered."""
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.close()

    @property
    def tree(self) -> str:
        """The digest of the workflows that an ordinary execution runs.

        After a fault there may be fewer of them. Empty before the first one.
        """
        return digest_of_trees(self._roots) if self._roots else ""

    @property
    def trees(self) -> tuple[Any, ...]:
        """The workflows that the first ordinary execution ran; none before it."""
        return tuple(self._roots)

    @property
    def sites(self) -> Sites:
        """The call sites, as the execution before has left them."""
        return self._sites

    @property
    def loop(self) -> SimulationLoop:
        """The loop on which everything runs."""
        return self._loop

    # --- one execution ------------------------------------------------------------

    def __call__(self, plan: Plan, choose: Chooser | None = None) -> Outcome:
        """Execute the body under a plan, on a loop that has just begun.

        Args:
            plan: What goes wrong, and which events come first.
            choose: Decides instead of the plan's schedule, whose mode and budget of
                early limits still hold.

        Raises:
            ExplorationError: The body keeps state from one execution to the next, or
                wants something real.
            RuntimeError: The subject was not entered.
        """
        if self._stack is None:
            msg = f"{self!r} is not entered; write `with {type(self).__name__}(...)`"
            raise RuntimeError(msg)
        self._rewind(plan)
        schedule = plan.schedule
        self._loop.begin(
            replaying(schedule) if choose is None else choose,
            mode=schedule.mode,
            early=schedule.early,
            suspends=plan.cancellation is not None,
        )
        error = self._run_body()
        try:
            return self._told(plan, error)
        finally:
            # Its traceback leads to this frame: the two would be cyclic garbage.
            error = None

    def _told(self, plan: Plan, error: BaseException | None) -> Outcome:
        """Say what came of an execution, to whoever listens as well."""
        outcome = self._outcome(plan, error)
        self._check(error)
        if self.on_execution is not None:
            self.on_execution(outcome)
        return outcome

    def _rewind(self, plan: Plan) -> None:
        self.executions += 1
        if gc.get_count()[0] > _MOST_GARBAGE:
            gc.collect()
        for mock in self._sites.mocks.values():
            mock.reset()
        self._harness.rewind(self._mark)
        self._permits.begin()
        self._state.begin()
        self._sites.begin(plan)
        self._begin_libraries()
        self._chances.begin(plan.seed or self._harness.seed)
        self._begin(plan.cancellation)

    def _run_body(self) -> BaseException | None:
        """Call the body; return what it raised."""
        try:
            made = self._body()
            if inspect.iscoroutine(made):
                self._run(made)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - it is what is judged
            return error
        return None

    def _simulated(
        self, workflow: Any, input_data: Any, context: WorkflowContext | None
    ) -> Any:
        """Execute what the body gives to `tta.run`."""
        return self._run(_executed(as_operand(workflow), input_data, context))

    def _run(self, coro: Any) -> Any:
        loop = self._loop
        first = len(loop.tasks)
        self._begin_tasks(first)
        self._sites.begin_run()
        try:
            output = loop.run(coro)
        except ClockError:
            # Nobody was forgotten: everybody waits.
            raise
        except BaseException:
            self._look_around(first)
            raise
        self._look_around(first)
        if self._cancelled == "main":
            self._is_swallowed = True
        return output

    def _look_around(self, first: int) -> None:
        """See whether a run has left tasks, and end them as asyncio.run does."""
        tasks = self._loop.tasks
        if len(tasks) == first + 1:
            return
        left = [task for task in tasks[first:] if not task.done()]
        if not left:
            return
        forgotten = list(filter(is_forgotten, left))
        if forgotten and self._left is None:
            self._left = left_running(forgotten)
        self._loop.clean_up()

    # --- who could be cancelled, and is ---------------------------------------------

    def _begin_tasks(self, first: int) -> None:
        """Forget the tasks of the run before; the main one of the next is `first`."""
        self._first = first
        self._looked_at = first + 1
        self._own: list[asyncio.Task[Any]] = []

    def _at_rest(self, loop: SimulationLoop) -> None:
        names: tuple[str, ...] = _MAIN
        if self._own or len(loop.tasks) > self._looked_at:
            names = (*_MAIN, *(task.get_name() for task in self._own_tasks()))
        self._rests.append(names)
        wanted = self._cancellation
        if wanted is not None and wanted.point == len(self._rests) - 1:
            self._cancel(wanted.task)

    def _cancel(self, name: str) -> None:
        main = self._loop.tasks[self._first]
        own = [main] if name == "main" else self._own_tasks()
        for task in own:
            if name in ("main", task.get_name()):
                self._cancelled = name
                task.cancel()
                return

    def _own_tasks(self) -> list[asyncio.Task[Any]]:
        """List the tasks that the test's own code has made, and that are not done."""
        tasks = self._loop.tasks
        # Whose a task is never changes, and this is asked at each moment of rest.
        self._own += filter(self._is_own, tasks[self._looked_at :])
        self._looked_at = len(tasks)
        return [task for task in self._own if not task.done()]

    def _is_own(self, task: asyncio.Task[Any]) -> bool:
        code = getattr(task.get_coro(), "cr_code", None)
        return code is not None and code.co_filename == self._file

    # --- what came of it ----------------------------------------------------------

    def _outcome(self, plan: Plan, error: BaseException | None) -> Outcome:
        loop, sites = self._loop, self._sites
        situation = self._situation()
        ending = _RETURNED if error is None else judge(error, situation)
        verdict = ending.verdict
        if verdict is None:
            verdict = next(self._broken(situation), None)
        if not self._roots and not (plan.faults or plan.cancellation):
            self._roots = self._state.roots
        for name, is_reached in self._harness.reached().items():
            self.reached[name] = is_reached or self.reached.get(name, False)
        choices = tuple(loop.choices)
        return Outcome(
            plan=plan,
            verdict=verdict,
            calls=sites.end(),
            choices=choices,
            rests=tuple(self._rests),
            ended=ending.ended,
            is_judged=ending.is_judged,
            trail=self._trail(ending.ended, choices),
            steps=loop.steps,
            seconds=self._harness.clock.elapsed,
            early=loop.early_used,
        )

    def _situation(self) -> Situation:
        loop = self._loop
        # A limit that runs out because the outside was slow is as fair as a fault.
        deviates = self._sites.struck > 0 or loop.early_used + loop.slow_limits > 0
        return Situation(
            deviates=deviates,
            cancelled=self._cancelled,
            is_degraded=deviates and (self._sites.told or self._is_degraded()),
            hanging=tuple(map(str, self._sites.hanging)),
            is_strict=self._is_strict,
        )

    def _is_degraded(self) -> bool:
        """Tell whether somebody else has answered than usually does."""
        return not self._harness.recorder.events.isdisjoint(_DEGRADED)

    def _broken(self, situation: Situation) -> Iterator[Verdict]:
        """Yield what is broken although the body has ended well."""
        loop, harness = self._loop, self._harness
        if self._left is not None:
            yield self._left
        if self._is_swallowed:
            text = (
                "what the test runs was cancelled while it waited, and returned as if "
                "nothing had been: the cancellation was swallowed; let it pass: catch, "
                "or retry, only what is expected"
            )
            yield Verdict("swallowed cancellation", text)
        unseen = unhandled(loop.tasks, loop.unhandled)
        if unseen is not None:
            yield unseen
        held = self._permits.held() or self._state.held(loop)
        if held is not None:
            yield held
        for broken in harness.broken_promises():
            where = broken.where.partition(" in ")[0]
            yield Verdict("invariant", broken.text, where, broken.error)
        problems = harness.problems[:]
        # What was scripted and is missing is explained by what went wrong.
        problems += harness.verify_script() if situation.is_plain else harness.audit()
        for problem in problems:
            yield Verdict("double or wire", problem)

    def _check(self, error: BaseException | None) -> None:
        """Refuse a test that cannot be explored."""
        complaint = self._state.complaint(self._name)
        if complaint is not None:
            raise ExplorationError(complaint) from None
        if isinstance(error, SimulationFence):
            raise ExplorationError(str(error)) from error

    def _trail(self, ended: str, choices: tuple[Choice, ...]) -> Callable[[], str]:
        """Keep what the digest is made of: nearly nobody asks for one."""
        loop, log = self._loop, self._harness.recorder.log
        counts = loop.steps, loop.time(), len(log)
        return partial(_digest, counts, ended, choices, self._sites.calls, log)


def _digest(
    counts: tuple[int, float, int],
    ended: str,
    choices: Sequence[Choice],
    calls: Sequence[Seen],
    log: Sequence[Any],
) -> str:
    """Return what two executions of one plan have in common, in 16 digits."""
    # Beside the moments of what was recorded, without what workflows work on.
    numbers = [*counts, *(choice.taken for choice in choices)]
    numbers += [one for one in islice(log, counts[-1]) if type(one) is float]
    words = [ended]
    for seen in calls:
        words += seen.site, seen.kind or ""
    words += [choice.units[choice.taken].label for choice in choices]
    text = "\n".join(words).encode(errors="backslashreplace")
    whole = array("d", numbers).tobytes() + text
    return hashlib.blake2b(whole, digest_size=8).hexdigest()


async def _executed(
    primitive: Any, input_data: Any, context: WorkflowContext | None
) -> Any:
    return await primitive.execute(input_data, context or WorkflowContext())


def _collect_by_hand(stack: ExitStack) -> None:
    """Keep the collector from running in the middle of executions.

    What exists already is set aside, so that collecting takes no time.
    """
    if gc.isenabled():
        gc.disable()
        stack.callback(gc.enable)
    if not gc.get_freeze_count():
        gc.freeze()
        stack.callback(gc.unfreeze)
