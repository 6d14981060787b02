"""How a run stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["RunStatus", "status_of"]

_STATES = {
    "waiting": ["ENQUEUED", "DELAYED"],
    "running": ["PENDING"],
    "done": ["SUCCESS"],
    "failed": ["ERROR"],
    "cancelled": ["CANCELLED"],
    "given up": ["MAX_RECOVERY_ATTEMPTS_EXCEEDED"],
}
_BY_WORD = {word: state for state, words in _STATES.items() for word in words}


@dataclass(frozen=True, slots=True)
class RunStatus:
    """How a run stands.

    Attributes:
        workflow_id: Its id.
        workflow: The name of its workflow.
        state: `waiting` for a process; `running` in one, or left behind by one that
            died; `done`; `failed`; `cancelled`; or `given up` after too many
            recoveries.
        executor_id: The process that has executed it last, None if none has.
        attempts: How often its execution was begun.
    """

    workflow_id: str
    workflow: str
    state: str
    executor_id: str | None
    attempts: int

    @staticmethod
    def words(state: str) -> list[str]:
        """Return what DBOS calls a state.

        Raises:
            ValueError: There is no such state.
        """
        if state not in _STATES:
            msg = f"state={state!r} must be one of {', '.join(map(repr, _STATES))}"
            raise ValueError(msg)
        return _STATES[state]


def status_of(found: Any) -> RunStatus:  # noqa: ANN401 - DBOS's record
    """Return what DBOS tells of a workflow."""
    return RunStatus(
        found.workflow_id,
        found.name,
        _BY_WORD[str(found.status)],
        found.executor_id,
        found.recovery_attempts or 0,
    )
