"""The user's own lines that led to what exploring found."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

import pytest

from pytest_tta.clock.places import is_library
from pytest_tta.session import hide_our_frames

if TYPE_CHECKING:
    from pytest_tta.explore.outcome import Verdict

__all__ = ["traceback_section"]

# Where the user's own lines have raised what is told.
_RAISED = frozenset({"assertion", "error", "invariant", "unhandled error"})


def traceback_section(item: pytest.Item, verdict: Verdict) -> list[tuple[str, str]]:
    """Return the section with the user's lines that led to what broke; [] if none did.

    Args:
        item: The test.
        verdict: What broke.
    """
    error = verdict.error
    if error is None or error.__traceback__ is None or verdict.kind not in _RAISED:
        return []
    hide_our_frames()
    if not item.config.getoption("full_trace", default=False):
        _cut_to_own_frames(error)
    info = pytest.ExceptionInfo.from_exception(error)
    return [("tta traceback", str(item.repr_failure(info)))]


def _cut_to_own_frames(error: BaseException | None) -> None:
    """Leave out the frames of libraries, of an error and of those before it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        own = _own_frames(error.__traceback__)
        if own is not None:
            error.__traceback__ = own
        error = error.__cause__ or error.__context__


def _own_frames(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback of the user's own frames; None if there is none."""
    if trace is None:
        return None
    rest = _own_frames(trace.tb_next)
    if is_library(trace.tb_frame.f_code.co_filename):
        return rest
    return TracebackType(rest, trace.tb_frame, trace.tb_lasti, trace.tb_lineno)
