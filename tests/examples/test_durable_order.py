"""The durable order as a user runs it: one process dies, another one finishes it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.services import require_sqlite_of_dbos

ROOT = Path(__file__).resolve().parents[2]
DIED = "the first process died of signal 9; done: reserve charge"
RESULT = "{'mail': 'mail 17', 'invoice': 'invoice 17'}"


def test_the_second_process_finishes_what_the_first_began():
    """Everything is done, and each thing once."""
    require_sqlite_of_dbos()
    command = [sys.executable, "-W", "error", "-m", "examples.durable_order"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    *lines, last = done.stdout.splitlines()
    assert lines == [DIED, f"the second process finished the order: {RESULT}"]
    told, _, names = last.partition(": ")
    assert told == "done, each once"
    assert names.split()[:3] == ["reserve", "charge", "ship"]
    assert sorted(names.split()[3:]) == ["invoice", "mail"]
    assert done.stderr == ""
