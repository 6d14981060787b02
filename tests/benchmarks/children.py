"""Start fresh interpreters, and measure what happens in them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.benchmarks.measure import Pace

__all__ = ["ROOT", "answers", "lowest", "middle"]

ROOT = Path(__file__).parents[2]

Answer = dict[str, Any]


def answers(
    codes: Mapping[str, str], pace: Pace, *, cwd: Path = ROOT
) -> dict[str, list[Answer | None]]:
    """Run each code so often, by turns; each prints one JSON object.

    Args:
        codes: Python source by name. One that fails to import answers None.
        pace: How often.
        cwd: Where.
    """
    for code in codes.values():
        _answer(code, cwd)  # The first run compiles, and fills the disk's cache.
    rounds = range(pace.processes)
    found: dict[str, list[Answer | None]] = {name: [] for name in codes}
    for _ in rounds:
        for name, code in codes.items():
            found[name].append(_answer(code, cwd))
    return found


def _answer(code: str, cwd: Path) -> Answer | None:
    # Compiled files are kept, as they are everywhere but in some containers: else each
    # child would compile all that it imports.
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_ADDOPTS": "",
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode and "ModuleNotFoundError" in done.stderr:
        return None
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        msg = f"a child process failed: {said[-1] if said else done.returncode}"
        raise RuntimeError(msg)
    answer: Answer = json.loads(done.stdout.splitlines()[-1])
    return answer


def _figures(found: list[Answer | None], name: str) -> list[float]:
    return [answer[name] for answer in found if answer is not None]


def lowest(found: list[Answer | None], name: str) -> float | None:
    """Return the lowest figure: what it costs when nobody else uses the machine."""
    return min(_figures(found, name), default=None)


def middle(found: list[Answer | None], name: str) -> float | None:
    """Return the median of a figure, None if the child could not run."""
    figures = _figures(found, name)
    return median(figures) if figures else None
