"""The search for interpreters, and what must hold on each one that it finds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.repository.interpreters import Version, interpreters
from tests.repository.source import ROOT, modules
from tests.repository.story import tell

FOUND = interpreters()

posix = pytest.mark.skipif(sys.platform == "win32", reason="the doubles are scripts")


def install(folder: Path, name: str, script: str) -> Path:
    """Put an executable shell script where an interpreter could be."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def others(environment: dict[str, str], home: Path) -> dict[Version, Path]:
    """Return what is found besides the interpreter that runs this test."""
    found = interpreters(environment, home)
    assert found.pop(sys.version_info[:2]) == Path(sys.executable)
    return found


@pytest.mark.parametrize("version", FOUND, ids=lambda v: f"{v[0]}.{v[1]}")
def test_the_runtime_loads_on_every_interpreter(version: Version) -> None:
    """No supported version fails at import, whichever one runs the tests."""
    lines = [
        # What needs a library cannot be loaded by an interpreter that has none.
        f"compile(Path({str(m.path)!r}).read_bytes(), {m.name!r}, 'exec')"
        if m.name.startswith("tta_primitives.integrations.")
        else f"import {m.name}"
        for m in modules("tta_primitives")
    ]
    head = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path"
    code = "\n".join([head, *lines])
    command: list[str | Path] = [
        FOUND[version],
        "-I",
        "-B",
        "-S",
        "-W",
        "error",
        "-c",
        code,
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("version", FOUND, ids=lambda v: f"{v[0]}.{v[1]}")
def test_rule_1_a_clocked_run_repeats_on_every_interpreter(version: Version) -> None:
    """One seed gives one trace, whatever the version and the seed of hashes."""
    code = (
        f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); "
        f"runpy.run_path({str(ROOT / 'tests/repository/story.py')!r}, "
        "run_name='__main__')"
    )
    command: list[str | Path] = [
        FOUND[version],
        "-I",
        "-B",
        "-S",
        "-W",
        "error",
        "-c",
        code,
    ]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=ROOT
    )
    assert (done.stdout, done.stderr) == (tell(seed=7), "")


def test_another_seed_gives_another_run() -> None:
    """The story has something in it that a seed can change."""
    assert tell(seed=7) == tell(seed=7) != tell(seed=9)


def test_versions_are_in_order() -> None:
    """The oldest interpreter is first, and none is older than we support."""
    assert list(FOUND) == sorted(FOUND)
    assert min(FOUND) >= (3, 11)


@posix
@pytest.mark.parametrize(
    ("variable", "below"),
    [
        ("PATH", "."),
        ("PYENV_ROOT", "versions/3.99.1/bin"),
        ("UV_PYTHON_INSTALL_DIR", "cpython-3.99.1/bin"),
        ("XDG_DATA_HOME", "uv/python/cpython-3.99.1/bin"),
    ],
)
def test_interpreters_are_found_where_tools_put_them(
    tmp_path: Path, variable: str, below: str
) -> None:
    """`PATH`, pyenv and uv are searched, wherever their variables point."""
    path = install(tmp_path / "there" / below, "python3.99", "echo 3 99")
    environment = {variable: str(tmp_path / "there")}
    assert others(environment, tmp_path) == {(3, 99): path}


@posix
def test_the_homes_of_pyenv_and_uv_are_searched(tmp_path: Path) -> None:
    """Without any variable the usual folders below the home are looked at."""
    pyenv = tmp_path / ".pyenv/versions/3.98.0/bin"
    uv = tmp_path / ".local/share/uv/python/cpython-3.99/bin"
    assert others({}, tmp_path) == {} == others({"PATH": ""}, tmp_path)
    expected = {
        (3, 98): install(pyenv, "python3.98", "echo 3 98"),
        (3, 99): install(uv, "python3.99", "echo 3 99"),
    }
    assert others({}, tmp_path) == expected


@posix
@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("python3.99", "exit 1"),
        ("python3.99", "true"),
        ("python3.99", "echo 3 10"),
        ("python3.99", "echo something else"),
        ("python3.10", "echo 3 99"),
        ("python3.99-config", "echo 3 99"),
        ("python3.99t", "echo 3 99"),
    ],
)
def test_what_is_no_usable_interpreter_is_passed_over(
    tmp_path: Path, name: str, script: str
) -> None:
    """Shims that fail, other makes, old versions and other tools do not count."""
    install(tmp_path, name, script)
    assert others({"PATH": str(tmp_path)}, tmp_path) == {}


@posix
def test_the_first_of_a_version_is_taken(tmp_path: Path) -> None:
    """A broken shim hides nothing, and a second one of a version is not asked."""
    install(tmp_path / "a", "python3.99", "exit 1")
    good = install(tmp_path / "b", "python3.99", "echo 3 99")
    install(tmp_path / "c", "python3.99", f"touch {tmp_path}/asked; echo 3 99")
    path = ":".join(str(tmp_path / letter) for letter in "abc")
    assert others({"PATH": path}, tmp_path) == {(3, 99): good}
    assert not (tmp_path / "asked").exists()
