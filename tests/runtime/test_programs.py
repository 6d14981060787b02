"""A program of its own, in a process of its own: it ends as it should, and in time."""

from __future__ import annotations

import os
import signal

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals to processes")


@pytest.fixture
def program(processes):
    """Start one of the programs."""
    return lambda name: processes.python("-m", "tests.runtime.programs", name)


@pytest.mark.parametrize("name", ["plain", "windows"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_program_ends_its_runs_before_it_ends(program, name, number) -> None:
    """All 20 end, then the main coroutine, then what is closed; the exit code is 0."""
    running = program(name)
    running.wait_for("up")
    assert running.stop(number) == 0
    lines = running.output.splitlines()
    assert lines[1:21] == [f"ended {number}" for number in range(20)]
    assert lines[21:] == [
        "main ended with 0 running",
        "closed",
        f"stopped by {int(number)}",
    ]


def test_job_that_was_begun_is_finished(program) -> None:
    """The main coroutine ends between two jobs, never inside of one."""
    running = program("consumer")
    running.wait_for("end 3.")
    assert running.stop() == 0
    lines = running.output.splitlines()
    begun = [line for line in lines if line.startswith("begin")]
    ended = [line for line in lines if line.startswith("end ")]
    assert len(begun) == len(ended)
    assert lines[-1] == "over"


def test_program_that_returns_waits_for_its_background(program) -> None:
    """Its value is that of `run`, once everything has ended."""
    running = program("returning")
    assert running.wait() == 0
    assert running.output.splitlines() == ["background ended", "returned 42"]


def test_error_of_the_program_is_raised(program) -> None:
    """What was opened is closed before."""
    running = program("failing")
    assert running.wait() == 1
    assert running.output.startswith("closed\nTraceback")
    assert "ValueError: wrong" in running.output


def test_program_that_does_not_end_is_ended(program) -> None:
    """Neither a task that swallows cancellation nor a thread can keep it alive."""
    running = program("hanging")
    running.wait_for("up")
    assert running.stop() == 128 + signal.SIGTERM
    assert "CRITICAL:tta_primitives:still running 2.5 s after signal 15" in (
        running.output
    )


def test_signal_that_nobody_handles_ends_the_process_after_the_drain(program) -> None:
    """Supervisors see that it was the signal; the run has ended before."""
    running = program("default")
    running.wait_for("up")
    assert running.stop() == -signal.SIGTERM
    assert running.output.splitlines() == ["up", "ended", "closed"]
