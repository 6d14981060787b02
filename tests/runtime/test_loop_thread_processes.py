"""A loop thread in processes that fork and that end."""

from __future__ import annotations

import signal
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it has no fork")


def run(processes, program, **settings):
    """Return what a program prints, line by line, once it has ended well."""
    process = processes.python("-m", "tests.runtime.loop_programs", program, **settings)
    assert process.wait() == 0, process.output
    return process.output.splitlines()


def test_a_fork_begins_a_loop_of_its_own(processes):
    """The child never runs on its parent's loop, and the parent's goes on."""
    lines = run(processes, "fork")
    words = [line.partition(" pid=")[0] for line in lines]
    assert words == [
        "child: here=True",
        "fresh: True",
        "here=True",
        "again: 0",
        "exit: 0",
        "parent: here=True",
        "same: True",
    ]
    pids = {line.partition(" pid=")[2] for line in lines} - {""}
    assert len(pids) == 3


def test_forks_while_the_loop_is_busy(processes):
    """No lock that somebody held at that moment keeps a child waiting."""
    assert run(processes, "fork_in_the_middle") == [str([0] * 20)]


@pytest.mark.skipif(
    sys.version_info[:2] == (3, 12), reason="3.12 starts no thread at its end"
)
def test_submitted_work_is_done_when_the_program_ends(processes):
    """Also what needs a thread of the pool, which `atexit` comes too late for."""
    assert run(processes, "exit_normally") == ["done"]


@pytest.mark.skipif(
    sys.version_info[:2] == (3, 12), reason="3.12 starts no thread at its end"
)
def test_submitted_work_is_done_when_a_signal_ends_the_program(processes):
    """SIGTERM loses nothing that was accepted."""
    process = processes.python("-m", "tests.runtime.loop_programs", "exit_by_signal")
    process.wait_for("ready")
    assert process.stop(signal.SIGTERM) == 0
    assert process.output.splitlines() == ["ready", "done"]


def test_submitted_work_is_done_when_a_child_of_multiprocessing_ends(processes):
    """Such a child ends hard, without the functions of `atexit`."""
    assert run(processes, "exit_of_a_child") == ["done", "code: 0"]


def test_the_end_waits_no_longer_than_the_time_to_drain(processes):
    """What is left is cancelled and cleans up; the future says so in the log."""
    lines = run(processes, "exit_beside_a_hang")
    assert lines[0] == "cleaned"
    assert "the event loop of 'tta-loop' was closed" in "".join(lines)


@pytest.mark.skipif(
    sys.version_info[:2] == (3, 12), reason="3.12 starts no thread at its end"
)
def test_asyncio_debug_and_warnings_find_nothing(processes):
    """Nothing is left unclosed or unawaited."""
    lines = run(processes, "exit_normally", PYTHONDEVMODE="1", PYTHONWARNINGS="error")
    assert lines == ["done"]
