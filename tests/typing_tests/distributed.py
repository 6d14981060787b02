"""The types of remote steps: those of the step that a worker executes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_type

from tta_primitives import MapPrimitive, WorkflowContext, WorkflowPrimitive, step
from tta_primitives.distributed import (
    Engine,
    InlineEngine,
    RemotePrimitive,
    TypeCodec,
    remote,
)
from tta_primitives.recovery import RetryPrimitive

if TYPE_CHECKING:
    from tta_primitives.integrations.taskiq import TaskiqEngine


@step
async def words(page: str) -> int:
    return len(page.split())


async def plain(page: str) -> bytes:
    return page.encode()


def local(page: str, context: WorkflowContext) -> float:
    return len(page) / len(context.correlation_id)


engine: Engine = InlineEngine(words)


def another(fleet: TaskiqEngine) -> Engine:
    return fleet


assert_type(remote(words, engine=engine), RemotePrimitive[str, int])
assert_type(remote(plain, engine=engine), RemotePrimitive[str, bytes])
assert_type(remote(local, engine=engine), RemotePrimitive[str, float])
assert_type(remote("words", engine=engine), RemotePrimitive[Any, Any])
assert_type(
    MapPrimitive(RetryPrimitive(remote(words, engine=engine))), MapPrimitive[str, int]
)

codec = TypeCodec(str, int)
assert_type(codec.decode_output(3), int)
both: WorkflowPrimitive[str, int] = remote(words, engine=engine, codec=codec)
