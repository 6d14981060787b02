"""Command lines that run one test again, to be copied into a shell."""

from __future__ import annotations

import shlex

__all__ = ["replay_command", "run_command"]


def replay_command(node_id: str, line: str) -> str:
    """Return the line for a shell that executes a plan again.

    Args:
        node_id: The test.
        line: The plan, whose text is safe between single quotes.
    """
    return run_command(node_id, f"--tta-replay='{line}'")


def run_command(node_id: str, *options: str) -> str:
    """Return the line for a shell that runs a test again.

    Args:
        node_id: The test.
        options: What else stands on the line, as a shell reads it.
    """
    return " ".join(["pytest", shlex.quote(node_id), *options])
