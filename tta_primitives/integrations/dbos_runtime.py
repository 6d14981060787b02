"""The durable runtime of a process: starts runs, recovers them, and ends in order."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tta_primitives.arguments import check_count, seconds
from tta_primitives.context import WorkflowContext
from tta_primitives.durable.errors import (
    DurableError,
    Halted,
    JournalError,
    RunCancelledError,
    UnknownRunError,
    WorkflowChangedError,
)
from tta_primitives.durable.runs import Run
from tta_primitives.durable.values import to_json
from tta_primitives.extras import needs
from tta_primitives.loops import now

with needs("dbos", __name__):
    from dbos import DBOS, SetWorkflowID
    from dbos._core import WorkflowHandleFuture
    from sqlalchemy.exc import DBAPIError

from tta_primitives.integrations.dbos_engine import EngineSettings, engine
from tta_primitives.integrations.dbos_journal import DbosJournal
from tta_primitives.integrations.dbos_status import RunStatus, status_of
from tta_primitives.integrations.dbos_workflows import DurableWorkflow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import timedelta
    from typing import Self

    from tta_primitives.primitive import In, Out

__all__ = ["DurableRuntime", "RunHandle", "durable_runtime"]

T = TypeVar("T")
OutputT = TypeVar("OutputT", covariant=True)  # noqa: PLC0105 - a handle gives it

logger: logging.Logger = logging.getLogger("tta_primitives.durable")

_THREADS = 8
# What is left of the budget for DBOS's own threads, in seconds.
_LEAST_FOR_ENGINE = 2.0
_PAUSE_SECONDS = 1.0
_IS_CLOSING = "the durable runtime is closing"
_FIRST_POLL, _LAST_POLL = 0.005, 0.5


class RunHandle(Generic[OutputT]):
    """A run, wherever it is executed: in this process or in another one.

    Attributes:
        workflow_id: The id of the run.
    """

    __slots__ = ("_runtime", "workflow_id")

    def __init__(self, runtime: DurableRuntime, workflow_id: str) -> None:
        self._runtime = runtime
        self.workflow_id: str = workflow_id

    async def status(self) -> RunStatus:
        """Return how the run stands."""
        return await self._runtime.status(self.workflow_id)

    async def result(self) -> OutputT:
        """Wait until the run is over, and return its output.

        To cancel this does not touch the run.

        Raises:
            Exception: What the run has raised, of its own type if that is known.
            RunCancelledError: It was cancelled.
            WorkflowChangedError: It waits for a process with another version.
        """
        return await self._runtime._result(self.workflow_id)  # type: ignore[no-any-return]

    async def cancel(self) -> None:
        """Let the run stop before its next step; see `DurableRuntime.cancel`."""
        await self._runtime.cancel(self.workflow_id)

    async def resume(self) -> None:
        """Let a cancelled run go on."""
        await self._runtime.resume(self.workflow_id)

    def __repr__(self) -> str:
        return f"<RunHandle {self.workflow_id!r}>"


class DurableRuntime:
    """What `durable_runtime` makes; use it as an async context manager."""

    def __init__(
        self,
        settings: EngineSettings,
        workflows: dict[str, DurableWorkflow[Any, Any]],
        drain_seconds: float,
    ) -> None:
        self._settings = settings
        self._workflows = workflows
        self._drain_seconds = drain_seconds
        self._functions: dict[str, Callable[..., Any]] = {}
        self._stack = ExitStack()
        self._pool: ThreadPoolExecutor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context = Context()
        # The runs that this process executes, by their ids.
        self._runs: dict[str, tuple[Run, asyncio.Task[Any]]] = {}
        self._given: dict[str, tuple[Context, WorkflowContext]] = {}
        # What stands in the way of runs that wait for another process.
        self._refused: dict[str, Exception] = {}
        self._closing = threading.Event()

    async def __aenter__(self) -> Self:
        """Launch; runs that this process has left behind go on in a moment.

        Raises:
            DurableError: It is open already, or the database cannot be used.
        """
        if self._pool is not None:
            msg = f"{self!r} is open already"
            raise DurableError(msg)
        self._loop, self._context = asyncio.get_running_loop(), copy_context()
        self._closing.clear()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="tta-durable")
        opening = self._pool.submit(self._open)
        try:
            await asyncio.wrap_future(opening)
        except BaseException:
            # Who is cancelled does not wait for a server: the thread closes what it
            # has opened.
            self._closing.set()
            if opening.done():
                self._stack.close()
            self._close_pool(wait=opening.done())
            raise
        logger.info("durable runs are kept in %s", self._settings.shown)
        return self

    def _open(self) -> None:
        self._stack.enter_context(engine(self._settings, self._register))
        if self._closing.is_set():
            self._stack.close()

    async def __aexit__(self, *raised: object) -> None:
        """Close within the budget."""
        await self.close()

    async def close(self) -> None:
        """Let runs end, leave the others to the next process, and end DBOS.

        Runs have `drain_seconds`. What is still at work then ends as if the process had
        died: nothing is compensated, and whoever recovers it goes on.
        """
        if self._pool is None:
            return
        budget = now() + self._drain_seconds
        self._closing.set()
        tasks = [task for _, task in self._runs.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=self._drain_seconds)
        for run, _ in tuple(self._runs.values()):
            run.halt(_IS_CLOSING)
        tasks = [task for _, task in self._runs.values()]
        if tasks:
            await asyncio.wait(tasks)
        is_ended = await self._close_engine(max(budget - now(), _LEAST_FOR_ENGINE))
        self._close_pool(wait=is_ended)

    async def _close_engine(self, budget: float) -> bool:
        """End DBOS in a thread that a process may leave behind if a server hangs."""
        ended: Future[None] = Future()

        def end() -> None:
            try:
                self._stack.close()
                ended.set_result(None)
            except BaseException as error:  # noqa: BLE001 - for who waits
                ended.set_exception(error)

        thread = threading.Thread(target=end, name="tta-durable-close", daemon=True)
        thread.start()
        waiting = asyncio.wrap_future(ended)
        done, _ = await asyncio.wait((waiting,), timeout=budget)
        if done:
            thread.join()  # There is nothing that it has left to do.
            waiting.result()
            return True
        logger.warning(
            "the durable runtime's database does not answer: its threads are left to "
            "the end of the process"
        )
        return False

    def _close_pool(self, *, wait: bool) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=wait, cancel_futures=True)

    async def start(
        self,
        workflow: DurableWorkflow[In, Out],
        input_data: In,
        context: WorkflowContext | None = None,
        *,
        workflow_id: str,
    ) -> RunHandle[Out]:
        """Begin a run; with an id that is taken, return the run that has it.

        Args:
            workflow: One of those that the runtime was made with.
            input_data: JSON data, and what else a journal keeps.
            context: Ids, baggage, tags, metadata and `state` are recorded and come back
                after a resume. Its deadline counts anew in each execution. `deps` are
                for this process alone.
            workflow_id: Names the run, for instance the number of an order. It is the
                idempotency key of the run unless the context has one. Where there is
                a run of this id its input stays what it was.

        Raises:
            DurableError: The runtime is closed, or does not have this workflow.
            TypeError: The input, or something in the context, cannot be recorded.
        """
        function = self._function(workflow)
        given = WorkflowContext() if context is None else context
        payload = _payload(workflow, input_data, given, workflow_id)
        mine = copy_context(), given
        self._given.setdefault(workflow_id, mine)
        is_ours = False
        try:
            begin = partial(_start, function, payload, workflow_id)
            name, is_ours = await self._call(begin)
        finally:
            if not is_ours and self._given.get(workflow_id) is mine:
                del self._given[workflow_id]
        if name != workflow.name:
            msg = f"run {workflow_id!r} is one of {name!r}, not of {workflow.name!r}"
            raise DurableError(msg)
        return RunHandle(self, workflow_id)

    async def run(
        self,
        workflow: DurableWorkflow[In, Out],
        input_data: In,
        context: WorkflowContext | None = None,
        *,
        workflow_id: str,
    ) -> Out:
        """Begin a run and wait for its output; the same as `start` and `result`."""
        handle = await self.start(
            workflow, input_data, context, workflow_id=workflow_id
        )
        return await handle.result()

    def handle(self, workflow_id: str) -> RunHandle[Any]:
        """Return the handle of a run that was begun earlier, or elsewhere."""
        return RunHandle(self, workflow_id)

    async def status(self, workflow_id: str) -> RunStatus:
        """Return how a run stands.

        Raises:
            UnknownRunError: There is none with this id.
        """
        return status_of(await self._read(workflow_id))

    async def runs(
        self,
        *,
        workflow: DurableWorkflow[Any, Any] | None = None,
        state: str | None = None,
        limit: int = 100,
    ) -> list[RunStatus]:
        """Return how runs stand, the oldest first.

        Args:
            workflow: Only runs of this one.
            state: Only those in this state, see `RunStatus`.
            limit: At most so many.
        """
        asked = partial(
            DBOS.list_workflows,
            name=None if workflow is None else workflow.name,
            status=None if state is None else RunStatus.words(state),
            limit=check_count("limit", limit, minimum=1),
            load_input=False,
            load_output=False,
        )
        return [status_of(found) for found in await self._call(asked)]

    async def cancel(self, workflow_id: str) -> None:
        """Let a run stop before its next step, in whatever process it is at work.

        Nothing is compensated: it stands where it is, and `resume` lets it go on.
        To undo an order, let the workflow fail.

        Raises:
            UnknownRunError: There is none with this id.
        """
        await self._read(workflow_id)
        await self._call(partial(DBOS.cancel_workflow, workflow_id))
        if workflow_id in self._runs:
            self._runs[workflow_id][0].halt("the run was cancelled")

    async def resume(self, workflow_id: str) -> None:
        """Let a run go on that was cancelled, or given up after too many recoveries.

        Raises:
            UnknownRunError: There is none with this id.
        """
        await self._read(workflow_id)
        await self._call(partial(DBOS.resume_workflow, workflow_id))

    async def recover(self, executor_ids: Iterable[str]) -> list[str]:
        """Take over the runs of processes that will not come back.

        A process recovers its own when it starts. Call this for others only when they
        are dead: what they are still at would be executed twice.

        Args:
            executor_ids: Their names.

        Returns:
            The ids of the runs, which go on in one of the processes that are alive.
        """
        if isinstance(executor_ids, str):
            msg = f"executor_ids={executor_ids!r} must be a collection of names"
            raise TypeError(msg)
        names = list(executor_ids)
        found = await self._call(partial(DBOS._recover_pending_workflows, names))
        return [handle.get_workflow_id() for handle in found]

    async def check(self) -> None:
        """Ask the database for an answer: for a readiness check.

        Raises:
            Exception: There is none.
        """
        await self._call(partial(DBOS.list_workflows, limit=1, load_input=False))

    def _register(self) -> None:
        for name, workflow in self._workflows.items():
            register = DBOS.workflow(
                name=name, max_recovery_attempts=self._settings.max_recoveries
            )
            self._functions[name] = register(_plain_function(self._perform, workflow))

    def _function(self, workflow: DurableWorkflow[Any, Any]) -> Callable[..., Any]:
        if self._pool is None or self._closing.is_set():
            msg = f"{self!r} is closed: use it inside `async with durable_runtime(...)`"
            raise DurableError(msg)
        if self._workflows.get(workflow.name) is not workflow:
            msg = f"{workflow!r} is not one that {self!r} was made with"
            raise DurableError(msg)
        return self._functions[workflow.name]

    async def _call(self, function: Callable[[], T]) -> T:
        """Call what blocks in a thread, outside of whatever run this is."""
        if self._pool is None:
            msg = f"{self!r} is closed: use it inside `async with durable_runtime(...)`"
            raise DurableError(msg)
        return await asyncio.wrap_future(self._pool.submit(function))

    def _perform(self, workflow: DurableWorkflow[Any, Any], payload: Any) -> Any:  # noqa: ANN401 - JSON in, any output
        """Execute a run: DBOS calls this in a thread of its own."""
        run_id = str(DBOS.workflow_id)
        self._check_payload(workflow, payload, run_id)
        journal = self._journal(run_id)
        done: Future[Any] = Future()
        begin = partial(self._begin, workflow, payload, run_id, journal, done)
        if self._closing.is_set() or self._loop is None or self._loop.is_closed():
            raise Halted(_IS_CLOSING)
        self._loop.call_soon_threadsafe(begin, context=Context())
        # What cannot be read DBOS hands out as a text, which must not look like this.
        return {"output": done.result()}

    def _journal(self, run_id: str) -> DbosJournal:
        """Read the journal of a run; while the database is away, wait for it."""
        while True:
            try:
                return DbosJournal(run_id, self._call)
            except DBAPIError as error:
                kind = type(error).__name__
                logger.warning("run %r cannot be read, trying again: %s", run_id, kind)
            if self._closing.wait(_PAUSE_SECONDS):
                raise Halted(_IS_CLOSING)

    def _check_payload(
        self,
        workflow: DurableWorkflow[Any, Any],
        payload: object,
        run_id: str,
    ) -> None:
        if not isinstance(payload, dict) or payload.keys() != _PAYLOAD:
            msg = f"the input of run {run_id!r} was not written by a durable runtime"
            raise JournalError(msg)
        version = payload["version"]
        if workflow.can_resume(version):
            return
        error = WorkflowChangedError(
            f"run {run_id!r} was begun by version {version!r} of {workflow.name!r}, "
            f"and this process has version {workflow.version!r}. It waits for a "
            "process with that version; or, if its steps mean the same, for "
            f"durable(..., compatible_with=[{version!r}])"
        )
        self._refused[run_id] = error
        logger.error("%s", error)
        msg = "the run waits for another version"
        raise Halted(msg)

    def _begin(
        self,
        workflow: DurableWorkflow[Any, Any],
        payload: dict[str, Any],
        run_id: str,
        journal: DbosJournal,
        done: Future[Any],
    ) -> None:
        """Begin an execution on the loop, in the context of who started the run."""
        where, given = self._given.pop(run_id, (self._context.copy(), None))
        context = WorkflowContext.from_dict(payload["context"])
        try:
            context.deps = workflow.deps() | ({} if given is None else given.deps)
        except Exception as error:
            # No failure of the run: another process may have what is missing here.
            self._refused[run_id] = error
            logger.exception("run %r waits: its deps cannot be made", run_id)
            done.set_exception(Halted("its deps cannot be made"))
            return
        self._refused.pop(run_id, None)
        run = Run(workflow.workflow, payload["input"], context, journal)
        execution = self._executed(run, run_id, done)
        task = asyncio.get_running_loop().create_task(execution, context=where)
        self._runs[run_id] = run, task
        if self._closing.is_set():
            run.halt(_IS_CLOSING)

    async def _executed(self, run: Run, run_id: str, done: Future[Any]) -> None:
        try:
            done.set_result(await run.execute())
        except BaseException as error:  # noqa: BLE001 - for the thread that waits
            done.set_exception(
                Halted("cancelled")
                if isinstance(error, asyncio.CancelledError)
                else error
            )
        finally:
            self._runs.pop(run_id, None)

    async def _read(self, workflow_id: str) -> Any:  # noqa: ANN401 - DBOS's record
        found = await self._call(partial(DBOS.get_workflow_status, workflow_id))
        if found is None:
            msg = f"there is no run with the id {workflow_id!r}"
            raise UnknownRunError(msg)
        return found

    async def _result(self, workflow_id: str) -> Any:  # noqa: ANN401 - any output
        pause = _FIRST_POLL
        while True:
            found = await self._read(workflow_id)
            status = status_of(found)
            if status.state == "done":
                return _output_of(found)
            if status.state == "failed":
                raise _error_of(found)
            if status.state in {"cancelled", "given up"}:
                msg = f"run {workflow_id!r} is {status.state}; resume it to go on"
                raise RunCancelledError(msg)
            if workflow_id in self._refused:
                raise self._refused[workflow_id]
            local = self._runs.get(workflow_id)
            if local is not None:
                # Its outcome is written a moment after it has ended.
                await asyncio.wait((local[1],))
                pause = _FIRST_POLL
                continue
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LAST_POLL)

    def __repr__(self) -> str:
        state = "closed" if self._pool is None else "open"
        return f"<DurableRuntime {self._settings.shown!r} {state}>"


_PAYLOAD = {"input", "context", "version"}


def _plain_function(
    perform: Callable[..., Any], workflow: DurableWorkflow[Any, Any]
) -> Callable[[Any], Any]:
    """Return a plain function, which is what DBOS registers."""

    def durable_workflow(payload: Any) -> Any:  # noqa: ANN401 - JSON in, any output
        return perform(workflow, payload)

    durable_workflow.__qualname__ = durable_workflow.__name__ = workflow.name
    return durable_workflow


def _payload(
    workflow: DurableWorkflow[Any, Any],
    input_data: Any,  # noqa: ANN401 - any input
    context: WorkflowContext,
    workflow_id: str,
) -> dict[str, Any]:
    plain = context.to_dict()
    if plain["idempotency_key"] is None:
        plain["idempotency_key"] = workflow_id
    payload = {"input": input_data, "context": plain, "version": workflow.version}
    to_json(payload, f"the input or context of run {workflow_id!r}")
    return payload


def _start(
    function: Callable[..., Any], payload: object, workflow_id: str
) -> tuple[str, bool]:
    """Begin a run unless there is one of this id.

    Returns:
        The name of the workflow that has the id, and whether the run begins here.
    """
    with SetWorkflowID(workflow_id):
        handle = DBOS.start_workflow(function, payload)
    is_ours = isinstance(handle, WorkflowHandleFuture)
    return str(handle.get_status().name), is_ours


def _output_of(found: Any) -> Any:  # noqa: ANN401 - DBOS's record in, any output
    if isinstance(found.output, dict) and found.output.keys() == {"output"}:
        return found.output["output"]
    msg = f"the output of run {found.workflow_id!r} cannot be read: it is not ours"
    raise JournalError(msg)


def _error_of(found: Any) -> Exception:  # noqa: ANN401 - DBOS's record
    if isinstance(found.error, Exception):
        return found.error
    msg = f"run {found.workflow_id!r} has failed, and its error cannot be read"
    return JournalError(msg)


def durable_runtime(
    *workflows: DurableWorkflow[Any, Any],
    database_url: str = "sqlite:///tta_durable.sqlite",
    executor_id: str | None = None,
    application: str = "tta",
    drain_seconds: float | timedelta = 10.0,
    max_recoveries: int = 100,
    poll_seconds: float | timedelta = 1.0,
) -> DurableRuntime:
    """Return the durable runtime of this process, to be entered with `async with`.

    It has no connection but that to the database: no conductor, no telemetry.

    Args:
        workflows: All workflows whose runs may be started or recovered here.
        database_url: Where runs are kept: a SQLite file, which one process at a time
            may use, or `postgresql://...`, which a fleet shares.
        executor_id: Who this process is in the fleet; see `recover`. It must be given
            with PostgreSQL.
        application: Processes with the same name execute each other's runs, so they
            must have the same workflows.
        drain_seconds: How long runs may take to end when the runtime closes.
        max_recoveries: How often a run is recovered: one that kills its process each
            time would otherwise do so for ever.
        poll_seconds: How often the database is asked for runs to take over.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of range, or two workflows have one name.
    """
    named: dict[str, DurableWorkflow[Any, Any]] = {}
    for one in workflows:
        if not isinstance(one, DurableWorkflow):
            msg = f"{one!r} is no durable workflow: make one with durable(..., name=)"
            raise TypeError(msg)
        if one.name in named:
            msg = f"two workflows have the name {one.name!r}"
            raise ValueError(msg)
        named[one.name] = one
    settings = EngineSettings(
        database_url,
        executor_id=executor_id,
        application=application,
        max_recoveries=check_count("max_recoveries", max_recoveries),
        poll_seconds=seconds("poll_seconds", poll_seconds),
    )
    return DurableRuntime(settings, named, seconds("drain_seconds", drain_seconds))
