"""What pytest shows of an error that a function of ours has raised on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

__all__ = ["shown_name"]


def shown_name(caught: pytest.ExceptionInfo[BaseException]) -> str:
    """Return the function with whose line ends what pytest shows of an error.

    A session in which a test has failed hides all our modules: only what each function
    says of itself is looked at.
    """
    frames = [entry.frame for entry in caught.traceback]
    shown = [frame for frame in frames if "__tracebackhide__" not in frame.f_locals]
    return shown[-1].code.name
