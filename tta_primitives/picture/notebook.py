"""What a notebook shows of a workflow."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from tta_primitives.description import cleaned, cut
from tta_primitives.picture.drawing import drawn

if TYPE_CHECKING:
    from tta_primitives.primitive import WorkflowPrimitive

__all__ = ["shown"]

_MOST = 1_000


def shown(workflow: WorkflowPrimitive[Any, Any]) -> str | None:
    """Return a workflow's picture and its `repr` below; None if that does not work.

    A notebook shows the text instead of None. An error here would hide what somebody
    wants to look at, and be none of the workflow's own.
    """
    try:
        words = escape(cut(cleaned(repr(workflow)), _MOST))
        return f"<div>{drawn(workflow.describe())}<code>{words}</code></div>"
    except Exception:  # noqa: BLE001 - as above: `describe` may be the user's own
        return None
