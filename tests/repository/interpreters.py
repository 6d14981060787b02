"""Every CPython of this machine that the project supports, one for each version.

Run as a script it prints those that differ in version from the one that runs it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

OLDEST = (3, 11)
EXECUTABLE = re.compile(r"python3\.(\d+)(\.exe)?")
PROBE = """
import ensurepip, sys, venv
if sys.implementation.name == "cpython" and sys.version_info[3] == "final":
    print(*sys.version_info[:2])
"""

Version = tuple[int, int]


def interpreters(
    environment: Mapping[str, str] = os.environ, home: Path | None = None
) -> dict[Version, Path]:
    """Return the interpreters that were found, by version, oldest first.

    The running interpreter stands for its own version. Others come from `PATH`,
    from pyenv and from uv; one counts only if it starts, is a released CPython of
    at least `OLDEST` and can create virtual environments.
    """
    found = {sys.version_info[:2]: Path(sys.executable)}
    for path in candidates(folders(environment, home or Path.home())):
        if claimed(path) not in found and (version := probed(path)):
            found.setdefault(version, path)
    return dict(sorted(found.items()))


def folders(environment: Mapping[str, str], home: Path) -> Iterator[Path]:
    """Yield the folders in which interpreters are looked for, nearest first."""
    yield from map(Path, filter(None, environment.get("PATH", "").split(os.pathsep)))
    pyenv = Path(environment.get("PYENV_ROOT") or home / ".pyenv")
    yield from sorted(pyenv.glob("versions/*/bin"), reverse=True)
    shared = Path(environment.get("XDG_DATA_HOME") or home / ".local/share")
    uv = Path(environment.get("UV_PYTHON_INSTALL_DIR") or shared / "uv/python")
    yield from sorted(uv.glob("*/bin"), reverse=True)


def candidates(places: Iterable[Path]) -> Iterator[Path]:
    """Yield the files in `places` whose names claim a supported version."""
    for place in places:
        for path in sorted(place.glob("python3.*")):
            version = claimed(path)
            if version is not None and version >= OLDEST:
                yield path


def claimed(path: Path) -> Version | None:
    """Return the version in the file's name, None for `python3.13-config`."""
    match = EXECUTABLE.fullmatch(path.name)
    return (3, int(match[1])) if match else None


def probed(path: Path) -> Version | None:
    """Return the version that the interpreter at `path` says it has, if it runs."""
    try:
        answer = subprocess.run(
            [path, "-I", "-c", PROBE],
            capture_output=True,
            check=True,
            text=True,
            timeout=20,
        )
        major, minor = map(int, answer.stdout.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return (major, minor) if (major, minor) >= OLDEST else None


if __name__ == "__main__":
    paths = interpreters()
    del paths[sys.version_info[:2]]
    sys.stdout.writelines(f"{path}\n" for path in paths.values())
