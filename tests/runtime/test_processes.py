"""The helper for processes of tests: it waits by conditions and leaves nothing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.processes import HOST, ask, free_port

SERVER = f"""
import http.server, sys
handler = http.server.SimpleHTTPRequestHandler
server = http.server.HTTPServer(({HOST!r}, int(sys.argv[1])), handler)
print("up", flush=True)
server.serve_forever()
"""
PARENT = """
import os, sys, time
child = os.fork()
if not child:
    time.sleep(600)
print(f"child={child}.", flush=True)
time.sleep(600)
"""
pytestmark = pytest.mark.skipif(os.name != "posix", reason="groups of processes")


def test_server_is_waited_for_by_what_it_answers(processes) -> None:
    """Nobody sleeps: it is ready when it answers, and ended by its number."""
    port = free_port()
    server = processes.python("-c", SERVER, str(port))
    server.wait_for_answer(port)
    server.wait_for("up")
    assert ask(port, "/none").status == 404
    assert server.stop() == -signal.SIGTERM
    assert ask(port) is None


def test_process_that_ends_too_early_fails_the_test_with_its_output(processes) -> None:
    """What it printed is in the failure, as there is nothing else to look at."""
    process = processes.python("-c", "print('no such file'); raise SystemExit(3)")
    with pytest.raises(pytest.fail.Exception, match="no such file"):
        process.wait_for("ready")
    assert process.returncode == 3


def test_children_end_with_their_parent(processes) -> None:
    """The whole group is killed, also what the process has forked."""
    process = processes.python("-c", PARENT)
    process.wait_for("child=")
    process.wait_for(".")
    child = int(process.output.strip().removeprefix("child=").removesuffix("."))
    os.kill(child, 0)
    process.kill()
    assert process.returncode == -signal.SIGKILL
    # The kernel ends the others in its own time.
    assert any(not is_running(child) for _ in range(100_000))


def is_running(pid: int) -> bool:
    """Tell whether a process lives; one that was killed may wait for its parent."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8")
        return text.rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
