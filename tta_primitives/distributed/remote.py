"""A step that is executed by a worker: `remote(step, engine=fleet)`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast, overload

from tta_primitives.arguments import check_flag, seconds
from tta_primitives.chance import new_id
from tta_primitives.context import Enforced
from tta_primitives.deadline import within
from tta_primitives.distributed.carried import bring_back, pack
from tta_primitives.distributed.engine import sending
from tta_primitives.distributed.failures import error_from
from tta_primitives.distributed.task import RemoteTask
from tta_primitives.distributed.values import check_json
from tta_primitives.door import emit
from tta_primitives.loops import now
from tta_primitives.primitive import WorkflowPrimitive, as_operand

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from typing import Required, Unpack

    from tta_primitives.context import WorkflowContext
    from tta_primitives.distributed.codec import Codec
    from tta_primitives.distributed.engine import Engine
    from tta_primitives.distributed.task import RemoteReply
    from tta_primitives.operands import AsyncOperand, SyncOperand
    from tta_primitives.primitive import AnyPrimitive

__all__ = ["RemoteOptions", "RemotePrimitive", "remote"]

A = TypeVar("A")
B = TypeVar("B")
In = TypeVar("In", contravariant=True)  # noqa: PLC0105 - users read these names
Out = TypeVar("Out", covariant=True)  # noqa: PLC0105 - as above


class RemoteOptions(TypedDict, total=False):
    """The keyword arguments of `remote`, which documents them."""

    engine: Required[Engine]
    name: str | None
    timeout_seconds: float | timedelta | None
    codec: Codec | None
    carry_state: bool


class RemotePrimitive(WorkflowPrimitive[In, Out]):
    """A step or a workflow that a worker executes; `remote` makes it.

    Args:
        target: What is executed there, or only the name of it.
        engine: What brings calls to workers.
        name: The name under which workers have it, or a path below that name.
        timeout_seconds: A limit for the whole call; None for that of the context.
        codec: What makes its types of JSON.
        carry_state: Whether the context's `state` goes along and its changes come back.
    """

    # For durable runs: nothing that is below it is seen there.
    runs_elsewhere = True

    def __init__(
        self,
        target: WorkflowPrimitive[Any, Any] | Callable[..., Any] | str,
        *,
        engine: Engine,
        name: str | None = None,
        timeout_seconds: float | timedelta | None = None,
        codec: Codec | None = None,
        carry_state: bool = True,
    ) -> None:
        if not callable(getattr(engine, "call", None)):
            msg = f"engine={engine!r} must be an Engine, for instance InlineEngine(...)"
            raise TypeError(msg)
        # Not `primitive`: it is not executed here, and its path is not below this.
        self.target: AnyPrimitive | None = None
        own = target
        if not isinstance(target, str):
            self.target = inner = as_operand(target)
            self.idempotent: bool = inner.idempotent
            own = inner.name
        self._path = _checked_path(own if name is None else name)
        own = own if self.target else self._path.rpartition("/")[2]
        self._name = str(own).replace("#", "-")
        self._engine = engine
        self._timeout = None
        if timeout_seconds is not None:
            self._timeout = seconds("timeout_seconds", timeout_seconds)
        self._codec = codec
        self._carry_state = check_flag("carry_state", carry_state)

    @property
    def engine(self) -> Engine:
        """What brings its calls to workers."""
        return self._engine

    def children(self) -> tuple[WorkflowPrimitive[Any, Any], ...]:
        """Return what is executed on the worker, if it is known here."""
        return () if self.target is None else (self.target,)

    def options(self) -> dict[str, Any]:
        """Return where it is executed."""
        shown: dict[str, Any] = {"on": type(self._engine).__name__, "path": self._path}
        if self._timeout is not None:
            shown["timeout_seconds"] = self._timeout
        return shown

    async def execute(self, input_data: In, context: WorkflowContext, /) -> Out:
        """Let a worker execute it; return the output, or raise what it raised.

        Raises:
            TimeoutExceededError: The time was up; the work was cancelled.
            RemoteError: The step raised an error whose type is unknown here.
            RemoteValueError: The input is no JSON.
            EngineError: The call could not be sent, or its reply was lost.
        """
        limit = self._timeout
        if limit is not None:
            context = context.child(deadline=Enforced(now() + limit))
        elif context.deadline is None or type(context.deadline) is Enforced:
            return await self._call(input_data, context)
        # A fleet that is away answers nothing: the deadline is kept here as well.
        running = self._call(input_data, context)
        return await within(running, limit or math.inf, self, context)

    async def _call(self, input_data: In, context: WorkflowContext) -> Out:
        task = self._task(input_data, context)
        emit(context, "remote.sent", call_id=task.call_id, path=task.path)
        token = sending.set(context)
        try:
            reply = await self._engine.call(task)
        finally:
            sending.reset(token)
        emit(context, "remote.replied", call_id=task.call_id, status=reply.status)
        bring_back(context, reply.state or {}, reply.outcomes)
        return self._output(reply)

    def _task(self, input_data: In, context: WorkflowContext) -> RemoteTask:
        value: Any = input_data
        if self._codec is not None:
            value = self._codec.encode_input(value)
        check_json(value, f"the input of {self._path!r}")
        call_id = new_id()
        return RemoteTask(
            call_id=call_id,
            workflow=self._path.partition("/")[0],
            path=self._path,
            value=value,
            context=pack(context, call_id, carry_state=self._carry_state),
        )

    def _output(self, reply: RemoteReply) -> Out:
        if reply.status == "ok":
            value = reply.value
            if self._codec is not None:
                value = self._codec.decode_output(value)
            return cast("Out", value)
        raise error_from(reply.error or {})


def _checked_path(path: object) -> str:
    if not isinstance(path, str) or not all(path.split("/")) or "@" in path:
        msg = (
            f"name={path!r} must be the name of a registered workflow, or a path in "
            "one, for instance 'support/retry/llm'"
        )
        raise ValueError(msg)
    return path


@overload
def remote(
    target: AsyncOperand[A, B], **options: Unpack[RemoteOptions]
) -> RemotePrimitive[A, B]: ...
@overload
def remote(
    target: SyncOperand[A, B], **options: Unpack[RemoteOptions]
) -> RemotePrimitive[A, B]: ...
@overload
def remote(
    target: str, **options: Unpack[RemoteOptions]
) -> RemotePrimitive[Any, Any]: ...
def remote(
    target: Any,
    *,
    engine: Engine,
    name: str | None = None,
    timeout_seconds: float | timedelta | None = None,
    codec: Codec | None = None,
    carry_state: bool = True,
) -> RemotePrimitive[Any, Any]:
    """Return a primitive that lets a worker execute a step or a workflow.

    It fails as the step itself would, so that retry, fallback and breaker stand around
    it as around a local one. When its caller is cancelled, the work is cancelled too.

    Args:
        target: A primitive or a function that workers have registered as well; or only
            its name, where the code is not at hand.
        engine: What brings calls to workers, for instance `InlineEngine(...)`.
        name: The name under which workers have registered it, or the path of a position
            in a registered workflow: `support/retry/llm`. Its own name unless given.
        timeout_seconds: A limit for the whole call, with the waiting in a queue. The
            context's deadline counts as well.
        codec: What makes JSON of its types; the registry's must be the same.
        carry_state: Whether the context's `state` goes along, which must be JSON then,
            and what the step changes in it comes back.

    Raises:
        TypeError: `target` or `engine` is of the wrong kind.
        ValueError: `name` is no name or path.
    """
    return RemotePrimitive(
        target,
        engine=engine,
        name=name,
        timeout_seconds=timeout_seconds,
        codec=codec,
        carry_state=carry_state,
    )
