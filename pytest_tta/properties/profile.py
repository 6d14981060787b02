"""Settings of Hypothesis that suit virtual time."""

from __future__ import annotations

from pytest_tta.properties.needed import needed_hypothesis

__all__ = ["load_profile", "register_profile"]


def register_profile(name: str = "tta") -> None:
    """Let Hypothesis know a profile for workflows, without switching to it.

    It differs from the profile in force by having no deadline, which would count
    seconds of the room while the workflow lives in virtual time, and by printing what
    reproduces a failure on another machine. Everything else, such as the fixed examples
    of CI, stays.

    Args:
        name: What to call it in `--hypothesis-profile=` and `settings.load_profile`.

    Raises:
        ImportError: Hypothesis is not installed.
    """
    settings = needed_hypothesis().settings
    settings.register_profile(name, parent=settings(), deadline=None, print_blob=True)


def load_profile(name: str = "tta") -> None:
    """Register the profile and switch to it, for instance in a `conftest.py`.

    Args:
        name: As for `register_profile`.
    """
    register_profile(name)
    needed_hypothesis().settings.load_profile(name)
