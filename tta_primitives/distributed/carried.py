"""What travels with a call: the context on its way out, and what comes back of it.

Out go the ids, the W3C trace headers, baggage, tags, the seconds to the deadline, the
idempotency key and `state`. `deps` and `metadata` stay at home: a worker has live
objects of its own. Back come the changes of `state`, key by key, and `outcomes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tta_primitives.context import WorkflowContext
from tta_primitives.distributed.values import check_json, is_json, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tta_primitives.context import Position

__all__ = ["arrive", "bring_back", "changes", "outcomes", "pack"]


def pack(
    context: WorkflowContext, call_id: str, *, carry_state: bool
) -> dict[str, Any]:
    """Return the data of a context for a task.

    A call that has no idempotency key gets its own id for one: that is the same however
    often the call is delivered.

    Args:
        context: The view of the remote primitive.
        call_id: The id of the call.
        carry_state: Whether `state` goes along.

    Raises:
        RemoteValueError: Something in `state` is no JSON.
    """
    key, state = context.idempotency_key, {}
    if carry_state and context.state:
        what = "context.state (live objects belong into context.deps)"
        check_json(context.state, what)
        state = dict(context.state)
    return {
        "correlation_id": context.correlation_id,
        "run_id": context.run_id,
        "workflow_id": context.workflow_id,
        "session_id": context.session_id,
        "traceparent": context.traceparent,
        "tracestate": context.tracestate,
        "baggage": dict(context.baggage),
        "tags": dict(context.tags),
        "state": state,
        "remaining_seconds": context.remaining(),
        "idempotency_key": call_id if key is None else key,
        # The caller's own key is one for all steps, as in a local run.
        "key_is_shared": isinstance(context._key, str),
    }


def arrive(
    data: Mapping[str, Any], position: Position, deps: Mapping[str, Any]
) -> WorkflowContext:
    """Return the context of a call on a worker.

    Args:
        data: What `pack` returned.
        position: Where in its workflow the step stands.
        deps: The worker's live objects.
    """
    context = WorkflowContext.from_dict(data)
    context.deps = dict(deps)
    view = context.at(position)
    if position.primitive.children() and not data.get("key_is_shared"):
        # Each step of a workflow needs a key of its own, the same at each delivery.
        view.open_key_scope(position.primitive)
    return view


def changes(before: Mapping[str, Any], context: WorkflowContext) -> dict[str, Any]:
    """Return what has changed in a worker's `state`, nothing if nothing has.

    Raises:
        RemoteValueError: Something in it is no JSON.
    """
    after = context.state
    check_json(after, "context.state, as the step has left it,")
    changed = {
        name: value
        for name, value in after.items()
        if name not in before or write_json(before[name]) != write_json(value)
    }
    removed = [name for name in before if name not in after]
    return {"set": changed, "removed": removed} if changed or removed else {}


def outcomes(context: WorkflowContext) -> dict[str, Any]:
    """Return who answered on the worker, what is no JSON by its text."""
    return {
        path: outcome if is_json(outcome) else str(outcome)
        for path, outcome in context.outcomes.items()
    }


def bring_back(
    context: WorkflowContext, state: Mapping[str, Any], outcomes: Mapping[str, Any]
) -> None:
    """Put into the caller's context what came back; the last to come back wins."""
    for name, value in (state.get("set") or {}).items():
        context.state[name] = value
    for name in state.get("removed") or ():
        context.state.pop(name, None)
    if outcomes:
        context.outcomes.update(outcomes)
