"""Run the probes, each library in a process of its own, so that none can hang us."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import queue
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tests.comparison.cases import Finding, LacksError, NoServerError
from tests.comparison.steps import NotedLoop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.comparison.cases import Area, Case, Library

    # By the title of an area, the name of a library and the key of a case.
    Findings = dict[tuple[str, str, str], Finding]

__all__ = ["LIMIT", "find", "findings", "probe_all"]

ROOT = Path(__file__).parents[2]

LIMIT = 8.0
"""Seconds that one probe may take before its process is ended."""

_WORKERS = 2


def findings(areas: Sequence[Area]) -> Findings:
    """Return what the probes of all areas find out, library by library."""
    names = list(dict.fromkeys(one.name for area in areas for one in area.libraries))
    with ThreadPoolExecutor(_WORKERS) as pool:
        found = pool.map(lambda name: _of_library(areas, name), names)
    return {key: finding for each in found for key, finding in each.items()}


def _of_library(areas: Sequence[Area], name: str) -> Findings:
    keys = [(area.title, name, case.key) for area in areas for _, case in area.of(name)]
    found: list[Finding] = []
    while len(found) < len(keys):
        found += _in_process(name, len(found))
    return dict(zip(keys, found, strict=True))


def _in_process(name: str, begin: int) -> list[Finding]:
    """Return the findings of one process; the last one may be that it hangs."""
    command = ["-W", "ignore", "-m", "tests.comparison", "--probe", name]
    process = subprocess.Popen(
        [sys.executable, *command, "--from", str(begin)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    lines: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
    reader.start()
    try:
        return _gathered(lines)
    finally:
        process.kill()
        process.wait()
        reader.join()


def _read(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    assert process.stdout is not None
    with process.stdout as output:
        for line in output:
            lines.put(line)
    lines.put("")


def _gathered(lines: queue.Queue[str]) -> list[Finding]:
    found: list[Finding] = []
    while True:
        try:
            # Each is probed twice at most; the first one waits for the imports.
            line = lines.get(timeout=2 * LIMIT + (0 if found else 30))
        except queue.Empty:
            return [*found, Finding("breaks", f"does not return within {LIMIT:.0f} s")]
        if line == "end\n":
            return found
        if not line:
            return [*found, Finding("could not run", "its process has ended")]
        if line.startswith("{"):
            found.append(Finding(**json.loads(line)))


def probe_all(areas: Sequence[Area], name: str, begin: int) -> None:
    """Probe one library, and print a line of JSON for each finding.

    Args:
        areas: All of them.
        name: The library.
        begin: How many of its cases to leave out.
    """
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    cases = [pair for area in areas for pair in area.of(name)]
    for library, case in cases[begin:]:
        finding = find(library, case)
        line = json.dumps({"verdict": finding.verdict, "seen": finding.seen})
        _say(line)
    _say("end")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def find(library: type[Library], case: Case) -> Finding:
    """Return what one probe finds out; what does not hold must fail to hold twice."""
    if library.installed() is None:
        return Finding("absent")
    finding = _once(library, case)
    if finding.verdict in {"breaks", "could not run"}:
        finding = _once(library, case)
    return finding


def _once(library: type[Library], case: Case) -> Finding:
    try:
        with asyncio.Runner(loop_factory=NotedLoop) as runner:
            return runner.run(_within_limit(library, case))
    except LacksError:
        return Finding("lacks")
    except NoServerError:
        return Finding("no server")
    except Exception as error:
        return Finding("could not run", f"{type(error).__name__}: {error}")


async def _within_limit(library: type[Library], case: Case) -> Finding:
    # In a task of its own, so that nothing the probe leaves there stays.
    task = asyncio.ensure_future(case.probe(library))
    await asyncio.wait([task], timeout=LIMIT)
    if not task.done():
        task.cancel()
        return Finding("breaks", f"does not return within {LIMIT:.0f} s")
    return task.result()
