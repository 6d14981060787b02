"""Execute the plan of a line, with the hashes of the interpreter that found it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_tta.explore.line import from_line
from pytest_tta.explore.options import KINDS

if TYPE_CHECKING:
    from pytest_tta.explore.plan import Plan

__all__ = ["hash_seed_here", "plan_to_replay", "replay_elsewhere", "tree_note"]


def hash_seed_here() -> int | None:
    """Return the seed of this interpreter's hashes, None if it was left to chance."""
    if not sys.flags.hash_randomization:
        return 0
    text = os.environ.get("PYTHONHASHSEED", "")
    is_known = text.isdecimal() and not sys.flags.ignore_environment
    return int(text) if is_known else None


def plan_to_replay(line: str) -> Plan:
    """Return the plan that `--tta-replay` was given.

    Args:
        line: The line.

    Raises:
        pytest.UsageError: It is none.
    """
    try:
        plan = from_line(line)
    except ValueError as error:
        msg = f"--tta-replay: {error}"
        raise pytest.UsageError(msg) from None
    for fault in plan.faults:
        if fault.kind not in KINDS:
            known = ", ".join(KINDS)
            msg = f"--tta-replay: there is no fault {fault.kind!r}; there are {known}"
            raise pytest.UsageError(msg)
    return plan


def replay_elsewhere(config: pytest.Config) -> int | None:
    """Run the session in a child process if the plan needs other hashes.

    The order of a set of texts depends on the seed of hashes, and that is fixed when an
    interpreter starts.

    Args:
        config: The configuration of the session.

    Returns:
        The exit status of the child; None if the session may go on here.

    Raises:
        pytest.UsageError: The line to replay is none.
    """
    wanted = plan_to_replay(str(config.getoption("tta_replay"))).hash_seed
    if wanted is None or wanted == hash_seed_here():
        return None
    asked = config.invocation_params
    return subprocess.run(  # noqa: S603 - the command line of this very session
        [sys.executable, "-m", "pytest", *map(str, asked.args)],
        cwd=asked.dir,
        env={**os.environ, "PYTHONHASHSEED": str(wanted)},
        check=False,
    ).returncode


def tree_note(plan: Plan, tree: str) -> str:
    """Say that the workflows are not those that a plan was found with.

    Args:
        plan: The plan.
        tree: The digest of the workflows that there are.

    Returns:
        A sentence; empty if they are the same, or one is not known.
    """
    if not plan.tree or not tree or plan.tree == tree:
        return ""
    return (
        f"the workflows have changed since (tree {plan.tree}, and now {tree}), so the "
        "plan may strike elsewhere"
    )
