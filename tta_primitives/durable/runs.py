"""Run a workflow on a journal, so that another execution can go on where it ended."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tta_primitives.context import WorkflowContext
from tta_primitives.door import listening
from tta_primitives.durable.errors import Halted
from tta_primitives.durable.journal import MemoryJournal
from tta_primitives.durable.recorder import Recorder
from tta_primitives.primitive import In, Out, Wrapper, as_operand

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from tta_primitives.durable.journal import Journal
    from tta_primitives.primitive import WorkflowPrimitive

__all__ = ["OneStep", "Resumption", "Run", "resume_everywhere", "run_durably"]


class OneStep(Wrapper[In, Out]):
    """Makes a durable run record a whole workflow as one step.

    For what only makes sense together, above all a database transaction: its steps are
    rolled back together when the process dies, so none of them may count as done.

    Args:
        primitive: The workflow; without one the wrapper is open.
    """

    runs_as_one_step = True

    def __init__(
        self, primitive: WorkflowPrimitive[In, Out] | Callable[..., Any] | None = None
    ) -> None:
        if primitive is not None:
            self._wrap(as_operand(primitive))

    async def execute(self, input_data: In, context: WorkflowContext, /) -> Out:
        """Execute the workflow."""
        one, label = self._wrapped(), self._child_label
        view = context if label is None else context.below(self, one, label)
        return await one.execute(input_data, view)  # type: ignore[no-any-return]


class Run:
    """One execution of a run: from its beginning, or from where another one ended.

    Args:
        workflow: What is run; the same one in all executions.
        input_data: Its input.
        context: The context of the run. Its idempotency key, or else its `run_id`, must
            be the same in all executions.
        journal: Where its steps are recorded.
    """

    def __init__(
        self,
        workflow: WorkflowPrimitive[Any, Any],
        input_data: Any,  # noqa: ANN401 - any primitive's input
        context: WorkflowContext,
        journal: Journal,
    ) -> None:
        self._workflow = workflow
        self._input = input_data
        self._context = context
        self._journal = journal
        self._recorder: Recorder | None = None
        self._task: _RunTask | None = None
        self._halted: Halted | None = None

    @property
    def replayed(self) -> int:
        """How many recorded outcomes were taken instead of an execution."""
        return 0 if self._recorder is None else self._recorder.replayed

    def halt(self, why: str) -> None:
        """End this execution as if the process had died: another one can go on.

        Nothing is compensated, retried or recorded. `execute` raises `Halted`.

        Args:
            why: What the `Halted` says.
        """
        self._note(why)
        if self._task is not None:
            self._task.cancel()

    def _note(self, why: str) -> None:
        if self._halted is None:
            self._halted = Halted(why)
        if self._recorder is not None:
            self._recorder.halt(self._halted)

    async def execute(self) -> Any:  # noqa: ANN401 - any primitive's output
        """Execute what is not recorded yet, and return the output.

        To cancel this is to halt the run: it can be resumed.

        Raises:
            Halted: The journal, or `halt`, has ended this execution.
        """
        self._task = _RunTask(self, self._execute())
        try:
            await asyncio.wait((self._task,))
        except asyncio.CancelledError:
            self.halt("the task that executed the run was cancelled")
            await asyncio.wait((self._task,))
            if not self._task.cancelled():
                self._task.exception()
            raise
        finally:
            task, self._task = self._task, None
        return self._outcome(task)

    def _outcome(self, task: asyncio.Task[Any]) -> Any:  # noqa: ANN401 - as above
        halted = self._halted
        if halted is None and self._recorder is not None:
            halted = self._recorder.halted
        if halted is not None:
            if not task.cancelled():
                task.exception()
            raise halted
        return task.result()

    async def _execute(self) -> Any:  # noqa: ANN401 - as above
        _inside.set(self)
        records = await self._journal.read()
        context = self._context
        if context._key is None:
            context._key = context.run_id
        root_key = str(context.idempotency_key)
        self._recorder = Recorder(self._journal, records, root_key=root_key)
        if self._halted is not None:
            raise self._halted
        with listening(interceptors=(self._recorder,)):
            return await self._workflow.execute(self._input, context)


_inside: ContextVar[Run | None] = ContextVar("tta_durable_run", default=None)


class _RunTask(asyncio.Task[Any]):
    """The task of an execution: who cancels it from outside halts the run.

    A shutdown must not look like a cancellation to the workflow, whose sagas would undo
    what a later execution goes on with. Time limits and groups inside of the workflow
    cancel it as well: these do so in the context of the run.
    """

    def __init__(self, run: Run, execution: Coroutine[Any, Any, Any]) -> None:
        self._run = run
        super().__init__(execution, name="durable run")

    def cancel(self, msg: Any = None) -> bool:  # noqa: ANN401 - as of any task
        """Cancel it; from outside of the run, halt that first."""
        if _inside.get() is not self._run:
            self._run._note("the task that executed the run was cancelled")
        return super().cancel(msg)


async def run_durably(
    workflow: WorkflowPrimitive[In, Out] | Callable[[In], Awaitable[Out]],
    input_data: In,
    context: WorkflowContext | None = None,
    *,
    journal: Journal,
) -> Out:
    """Run a workflow, each step recorded in a journal; or go on with one that ended.

    Args:
        workflow: The same workflow in all executions of a run.
        input_data: The same input.
        context: The same idempotency key, or else the same `run_id`, and the same
            state. What steps change in `state` is recorded.
        journal: Where the steps are recorded. What it already has is not executed.

    Raises:
        Halted: The journal has ended this execution.
        JournalError: The journal holds something else than records.
    """
    run = Run(as_operand(workflow), input_data, context or WorkflowContext(), journal)
    return await run.execute()  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Resumption:
    """What came of a run that died at one moment and was resumed.

    Attributes:
        crashed_at: The moment, counted from 1 as by `MemoryJournal`.
        journal: Its journal, complete.
        output: What the resumed run returned; None if it raised.
        error: What it raised.
    """

    crashed_at: int
    journal: MemoryJournal
    output: Any
    error: Exception | None


async def resume_everywhere(
    begin: Callable[[], Callable[[MemoryJournal], Awaitable[Any]]], *, crashes: int = 1
) -> list[Resumption]:
    """Let a run die at each moment in turn, resume it, and return what came of each.

    Args:
        begin: Called once for each moment: makes a new world and returns a function
            that executes a run in it, on the journal that it is given, with the same
            input and a new context that has the same key. That is called once more for
            each resume.
        crashes: How often each run dies: each resumed execution dies at the same
            moment of its own, counted from where it goes on, until the last one.

    Returns:
        What came of each, by the moment; empty if the workflow has no step.
    """
    complete = MemoryJournal()
    await _settled(begin()(complete))
    found = []
    for moment in range(1, complete.moments + 1):
        journal, attempt = MemoryJournal(), begin()
        for _ in range(crashes):
            journal.crash_at = moment
            await _crashed(attempt(journal))
        journal.crash_at = None
        output, error = await _settled(attempt(journal))
        found.append(Resumption(moment, journal, output, error))
    return found


async def _crashed(attempt: Awaitable[Any]) -> None:
    with suppress(Halted):
        await _settled(attempt)


async def _settled(attempt: Awaitable[Any]) -> tuple[Any, Exception | None]:
    try:
        return await attempt, None
    except Exception as error:  # noqa: BLE001 - the caller judges it
        return None, error
