"""Look at an installed wheel; run by the interpreter of an environment without more."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import distribution, distributions
from pathlib import Path

PACKAGES = {"tta_primitives", "pytest_tta"}
NEEDED = {
    "pytest_tta/py.typed",
    "pytest_tta/report/html/page.css",
    "pytest_tta/report/html/page.html",
    "pytest_tta/report/html/script/main.js",
    "tta_primitives/py.typed",
}
"""What is no Python, and must have come along."""
BESIDE = {"pip", "setuptools", "wheel"}
"""What a new virtual environment may hold by itself."""


def problems() -> list[str]:
    """Return what is wrong with the installation, one sentence each."""
    wheel = distribution("tta-dev-primitives")
    held = {str(path) for path in wheel.files or ()}
    others = {other.metadata["Name"].lower() for other in distributions()}
    others -= {wheel.metadata["Name"].lower(), *BESIDE}
    top = {name.split("/")[0] for name in held if ".dist-info" not in name}
    runtime = importlib.import_module("tta_primitives")
    return [
        *(f"it brought {name} with it" for name in sorted(others)),
        *(f"{name} is not a package of ours" for name in top - PACKAGES),
        *(f"{name} is missing" for name in sorted(NEEDED - held)),
        *([] if installed(runtime.__file__) else ["it was imported from elsewhere"]),
        *(["its entry point is missing"] if "tta" not in entry_points() else []),
    ]


def entry_points() -> set[str]:
    """Return the names under which pytest finds the plugin."""
    found = distribution("tta-dev-primitives").entry_points.select(group="pytest11")
    return {point.name for point in found}


def installed(path: str | None) -> bool:
    """Return whether the file at `path` lies in this environment."""
    return path is not None and Path(path).is_relative_to(sys.prefix)


if __name__ == "__main__":
    sys.exit("\n".join(problems()) or None)
