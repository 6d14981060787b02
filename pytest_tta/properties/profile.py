"""Settings of Hypothesis that suit virtual time."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_tta.properties.needed import needed_hypothesis

__all__ = ["load_profile", "register_profile"]

_MANY = 10_000


def register_profile(name: str = "tta") -> None:
    """Let Hypothesis know two profiles for workflows, without switching to one.

    The first differs from the profile in force by having no deadline, which would count
    seconds of the room while the workflow lives in virtual time, and by printing what
    reproduces a failure on another machine. Everything else, such as the fixed examples
    of CI, stays.

    The second, `tta-campaign`, is for looking for a long time: 10,000 examples that are
    new each time, and those that failed are kept in `.hypothesis/examples`; also in CI,
    where Hypothesis would try the same hundred again and keep nothing.

    Args:
        name: What to call the first in `--hypothesis-profile=` and
            `settings.load_profile`; the other one has `-campaign` behind it.

    Raises:
        ImportError: Hypothesis is not installed.
    """
    hypothesis = needed_hypothesis()
    register, present = hypothesis.settings.register_profile, hypothesis.settings()
    register(name, parent=present, deadline=None, print_blob=True)
    home = os.environ.get("HYPOTHESIS_STORAGE_DIRECTORY", ".hypothesis")
    register(
        f"{name}-campaign",
        parent=present,
        deadline=None,
        print_blob=True,
        derandomize=False,
        max_examples=_MANY,
        database=hypothesis.database.DirectoryBasedExampleDatabase(
            Path(home) / "examples"
        ),
    )


def load_profile(name: str = "tta") -> None:
    """Register the profiles and switch to the first, for instance in a `conftest.py`.

    Args:
        name: As for `register_profile`.
    """
    register_profile(name)
    needed_hypothesis().settings.load_profile(name)
