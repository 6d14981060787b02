"""The lines that workflows write themselves: how runs fail, and what is unusual."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from tta_primitives.errors import ExecutionRejectedError
from tta_primitives.loops import moment
from tta_primitives.observability.whereabouts import (
    Places,
    Root,
    current_place,
    current_span,
    span_fields,
)

if TYPE_CHECKING:
    from tta_primitives.door import Call
    from tta_primitives.observability.redaction import Redactor

__all__ = ["RunLog"]

logger: logging.Logger = logging.getLogger("tta_primitives.runs")

_FAILED: Final = frozenset({"failed", "timed_out"})
# What is worth a line although the run may go on well.
_LEVELS: Final = {
    "breaker.opened": logging.WARNING,
    "breaker.isolated": logging.WARNING,
    "breaker.half_opened": logging.INFO,
    "breaker.closed": logging.INFO,
    "breaker.storage_failed": logging.WARNING,
    "cache.corrupt": logging.WARNING,
    "cache.error": logging.WARNING,
    "cache.refresh_failed": logging.WARNING,
    "fallback.used": logging.WARNING,
    "rate_limit.penalized": logging.WARNING,
    "rate_limit.storage_failed": logging.WARNING,
    "retry.budget_exhausted": logging.WARNING,
    "retry.scheduled": logging.INFO,
    "saga.compensation_failed": logging.ERROR,
    "timeout.ignored": logging.WARNING,
}
# One line of a kind and place in so many seconds: a dead Redis is told by every call.
_PAUSE = 1.0
_MOST_PLACES = 1024
_LONGEST = 500


class RunLog(Places):
    """Writes one line for each run that fails, and for what is unusual in one.

    A failure is told at the root of its run, with the path at which it arose, and not
    once more at every level that it passes.

    Args:
        redact: Takes secrets out of messages of errors.
    """

    def __init__(self, redact: Redactor) -> None:
        self._redact = redact
        self._told: dict[tuple[str, str], tuple[float, int]] = {}

    def finished(self, call: Call, /) -> None:
        """Note where an error arose, and write it down when it leaves the run."""
        # To ask for the error of a call that has none takes longer than all this.
        if call.status in _FAILED:
            error = call.error
            if error is not None:
                self._note(call, error)
        super().finished(call)

    def event(self, call: Call, name: str, detail: dict[str, Any], /) -> None:
        """Write down what is unusual."""
        level = _LEVELS.get(name)
        if level is None or not logger.isEnabledFor(level):
            return
        path = call.path
        missed = self._missed(path, name)
        if missed is None:
            return
        extra = {key: self._shown(value) for key, value in detail.items()}
        extra |= {"happened": name, "path": path}
        if missed:
            extra["not_told"] = missed
        logger.log(level, "%s: %s", path, name, extra=_safe(extra))

    def _missed(self, path: str, name: str) -> int | None:
        """Return how often this was not told since it was; None if it is not now."""
        present = moment() or 0.0
        last, missed = self._told.get((path, name), (present - _PAUSE, 0))
        if 0 <= present - last < _PAUSE:
            self._told[path, name] = last, missed + 1
            return None
        if len(self._told) >= _MOST_PLACES:
            self._told.clear()
        self._told[path, name] = present, 0
        return missed

    def _note(self, call: Call, error: BaseException) -> None:
        place = current_place()
        root = Root() if place is None or place.root is None else place.root
        path = call.path
        last = root.failure
        if last is not None and last[0] == id(error) and last[2] is call:
            path = last[1]
        above = call.parent_call
        outer = None if place is None else place.outer
        if above is None and outer is not None and outer.root is root:
            # A run inside of another one's step.
            above = outer.call
        root.failure = None if above is None else (id(error), path, above)
        if above is None:
            self._write(call, error, path, root)

    def _write(self, call: Call, error: BaseException, path: str, root: Root) -> None:
        is_rejection = isinstance(error, ExecutionRejectedError)
        level = logging.WARNING if is_rejection else logging.ERROR
        if not logger.isEnabledFor(level):
            return
        context = call.context
        extra: dict[str, Any] = {
            "path": path,
            "workflow": call.path,
            "status": call.status,
            "correlation_id": context.correlation_id,
            "exception": described(error, self._redact),
            **span_fields(root.span or current_span()),
        }
        if context.workflow_id is not None:
            extra["workflow_id"] = context.workflow_id
        verb = "was rejected" if is_rejection else "failed"
        what = f"{call.path} {verb}"
        if path != call.path:
            what += f" at {path}"
        what = self._redact.text(what)
        kind, message = extra["exception"]["type"], extra["exception"]["message"]
        logger.log(level, "%s: %s: %s", what, kind, message, extra=_safe(extra))

    def _shown(self, value: object) -> Any:  # noqa: ANN401 - plain data
        if isinstance(value, BaseException):
            return f"{type(value).__name__}: {self._redact(value)[:_LONGEST]}"
        return self._redact(value)


def described(error: BaseException, redact: Redactor) -> dict[str, str]:
    """Return an error as log lines tell it: type, message and traceback."""
    import traceback

    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in {"builtins", "__main__"}:
        name = f"{kind.__module__}.{name}"
    try:
        lines = traceback.format_exception(error)
        text = redact.text("".join(lines).rstrip())
    except Exception:  # noqa: BLE001 - its __str__ may raise, and its line is written
        text = ""
    message = redact(error)[:_LONGEST]
    return {"type": name, "message": message, "traceback": text}


def _safe(extra: dict[str, Any]) -> dict[str, Any]:
    """Return fields under names that a log record does not use itself."""
    taken = _RECORD.keys() | {"message", "asctime"}
    return {f"{k}_" if k in taken else k: v for k, v in extra.items()}


_RECORD = logging.makeLogRecord({}).__dict__
