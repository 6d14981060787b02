"""Workflows as jobs of RQ: on one loop per worker, with the context of who enqueued.

@async_job
async def answer(question: str) -> str:
    return await workflow.execute(question, job_context())

enqueue(queue, answer, "Why?", job_timeout=60)
"""

from __future__ import annotations

import inspect
from datetime import UTC, datetime
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from tta_primitives.context import Enforced, WorkflowContext, earlier
from tta_primitives.door import current, current_context
from tta_primitives.extras import needs
from tta_primitives.loops import moment
from tta_primitives.runtime.loop_thread import LoopThread, loop_thread

with needs("rq", __name__):
    from rq import get_current_job

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from rq import Queue
    from rq.job import Job

    from tta_primitives.primitive import WorkflowPrimitive

__all__ = ["async_job", "enqueue", "job_context", "job_meta", "run_workflow"]

P = ParamSpec("P")
T = TypeVar("T")
In = TypeVar("In")
Out = TypeVar("Out")

# Where the meta data of a job has its context, and where a job itself keeps it.
_META = "tta"
_KEPT, _GRACE = "_tta_context", "_tta_grace"
# RQ raises when the time of a job is up. Where it cannot, as in threads and on Windows,
# the work is cancelled so much later.
_GRACE_SECONDS = 1.0

# For jobs that are executed where they are enqueued, inside of the loop's own thread.
_nested = LoopThread(name="tta-rq-loop")


def enqueue(
    queue: Queue,
    function: Any,  # noqa: ANN401 - whatever RQ can find again
    /,
    *arguments: Any,  # noqa: ANN401 - the function's
    context: WorkflowContext | None = None,
    meta: Mapping[str, Any] | None = None,
    **options: Any,  # noqa: ANN401 - RQ's and the function's
) -> Job:
    """Enqueue a job that goes on in the run of the caller.

    Args:
        queue: Where to.
        function: What to call, as for `Queue.enqueue`.
        arguments: Its arguments.
        context: The run that the job belongs to. Unless given it is that of the request
            or job that the caller is in, if there is one.
        meta: More meta data of the job.
        options: Those of `Queue.enqueue`, such as `job_timeout` and `retry`, and named
            arguments of the function.
    """
    carried = {**(meta or {}), **job_meta(context)}
    return queue.enqueue(function, *arguments, meta=carried, **options)


def job_meta(context: WorkflowContext | None = None) -> dict[str, Any]:
    """Return the meta data by which a job gets a context, empty if there is none.

    For the other ways to enqueue: `queue.enqueue_in(delay, f, meta=job_meta())`.

    Args:
        context: As for `enqueue`.
    """
    if context is None:
        job = get_current_job()
        context = current_context() if job is None else _context_of(job)
    if context is None:
        return {}
    # The deadline is on the clock of a loop, which need not run in this thread.
    view = context.child()
    view.deadline = None
    data = view.to_dict()
    del data["remaining_seconds"]
    if context.deadline is not None:
        # It goes on while the job is in the queue, and when it is executed again.
        data["expires_at"] = _wall_time() + context.deadline - _now()
    return {_META: data}


def async_job(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make an async function a job: any worker of RQ can execute it.

    It runs on the loop of the worker's process, so that clients live from job to job.
    When the time of the job is up it is cancelled, and its cleanup has five seconds.
    A worker waits for work that it submits to the loop thread, for `drain_seconds`. The
    function itself is `__wrapped__`, for tests that await it.

    Raises:
        TypeError: It is not an `async def` function.
    """
    if not inspect.iscoroutinefunction(function):
        msg = f"async_job needs an `async def` function, not {function!r}"
        raise TypeError(msg)

    @wraps(function)
    def job_function(*arguments: P.args, **named: P.kwargs) -> T:
        return _run(function(*arguments, **named))

    return job_function


def run_workflow(workflow: WorkflowPrimitive[In, Out], data: In) -> Out:
    """Execute a workflow in a job that is a plain function, with the job's context."""
    return _run(_executed(workflow, data, job_context()), workflow.name)


def job_context() -> WorkflowContext:
    """Return the context of the job that is executed; a new one outside of jobs.

    The idempotency key is the id of the job, and so is the correlation id if nobody has
    given one: they are the same when RQ executes it once more. The deadline is that of
    the caller, which went on while the job was in the queue, or the job's own time.
    """
    job = get_current_job()
    return WorkflowContext() if job is None else _context_of(job)


def _context_of(job: Job) -> WorkflowContext:
    context: WorkflowContext | None = getattr(job, _KEPT, None)
    if context is None:
        data = dict(job.get_meta(refresh=False).get(_META) or {})
        expires_at = data.pop("expires_at", None)
        data["correlation_id"] = data.get("correlation_id") or job.id
        # Not the caller's, who may enqueue several jobs.
        data["idempotency_key"] = job.id
        context = WorkflowContext.from_dict(data)
        left = None if expires_at is None else expires_at - _wall_time()
        own = _limit_of(job)
        left = earlier(left, own)
        context.deadline = None if left is None else Enforced(_now() + left)
        # RQ itself ends what has used up the time of the job, where it can.
        grace = _GRACE_SECONDS if left == own else 0.0
        setattr(job, _KEPT, context)
        setattr(job, _GRACE, grace)
    return context


def _wall_time() -> float:
    """Return the time that processes have in common."""
    return datetime.now(UTC).timestamp()


def _limit_of(job: Job) -> float | None:
    """Return the seconds that RQ gives a job, None without a limit."""
    limit = job.timeout
    return float(limit) if limit is not None and float(limit) > 0 else None


def _now() -> float:
    """Return the time of the loop, in whatever thread."""
    present = moment()
    return loop_thread().time() if present is None else present


def _run(coroutine: Coroutine[Any, Any, T], name: str | None = None) -> T:
    """Run the work of a job on the loop, and wait for what it has submitted."""
    loop = _nested if loop_thread().is_here else loop_thread()
    context = job_context()
    timeout = None
    if context.deadline is not None:
        timeout = max(0.0, context.deadline - _now())
        timeout += timeout and getattr(get_current_job(), _GRACE, 0.0)
    token = current.set(context)
    try:
        return loop.run(coroutine, timeout=timeout, name=name)
    finally:
        current.reset(token)
        if _is_in_worker():
            # One that forks ends hard after each job.
            loop.settle(loop.drain_seconds)


def _is_in_worker() -> bool:
    """Tell whether a worker executes the job, rather than who has enqueued it."""
    job = get_current_job()
    return job is not None and job.worker_name not in {None, "sync"}


async def _executed(
    workflow: WorkflowPrimitive[In, Out], data: In, context: WorkflowContext
) -> Out:
    return await workflow.execute(data, context)
