"""Hold the one clock that is active in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_tta.clock.clock import VirtualClock

__all__ = ["activate", "clock", "deactivate"]

clock: VirtualClock | None = None
"""The active clock; read as `active.clock`, never imported by value."""


def activate(entered: VirtualClock) -> None:
    """Make `entered` the active clock.

    Raises:
        RuntimeError: another clock is active; time has one owner.

    """
    global clock  # noqa: PLW0603 - one process has one time
    if clock is not None:
        msg = (
            f"cannot enter {entered!r}: {clock!r} is already active in this "
            "process; leave it first, or use that one"
        )
        raise RuntimeError(msg)
    clock = entered


def deactivate(left: VirtualClock) -> None:
    """Forget `left`; a clock that is not the active one is left alone."""
    global clock  # noqa: PLW0603 - one process has one time
    if clock is left:
        clock = None
