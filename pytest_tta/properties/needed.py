"""Hypothesis, imported when a strategy is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["needed_hypothesis"]


def needed_hypothesis() -> ModuleType:
    """Return the module `hypothesis`.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import hypothesis
    except ImportError as error:
        msg = (
            "the strategies of pytest_tta.properties need Hypothesis; run "
            "pip install 'tta-dev-primitives[pytest]'"
        )
        raise ImportError(msg, name="hypothesis") from error
    return hypothesis
