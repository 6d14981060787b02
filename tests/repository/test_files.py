"""What lies in the repository, and what its project file promises."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.repository.source import PACKAGES, ROOT, files

TOP = {
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "docs",
    "examples",
    "pyproject.toml",
    "pytest_tta",
    "tests",
    "tta_primitives",
}
HOSTS = re.compile(
    "|".join(
        ("pypi" + r"\.org", "python" + "hosted", "npm" + r"js\.", "debian" + r"\.org")
    )
)
MACHINE = re.compile(r"(?<![\w.])/(work|farm|root|home/\w+|tmp/v3\d+)/")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
OF_THE_REPOSITORY = {"all", "bench", "dev", "examples"}
ENVIRONMENT = "python3 -m venv .venv && .venv/bin/python"
EXAMPLES = (
    '-m pip install -e ".[examples]" && .venv/bin/python -m pytest --tta examples'
)
TESTS = '-m pip install -e ".[dev]" && .venv/bin/python -m pytest -n 2'
COMMANDS = [f"{ENVIRONMENT} {EXAMPLES}", f"{ENVIRONMENT} {TESTS}"]


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    """Return `path:line` of each line of text in which `pattern` is found."""
    return [
        f"{path.relative_to(ROOT).as_posix()}:{number}"
        for path in files()
        for number, line in enumerate(
            path.read_text("utf-8", errors="replace").splitlines(), start=1
        )
        if pattern.search(line)
    ]


def unfolded(text: str) -> str:
    """Return `text` with continued lines joined and blanks made single."""
    return " ".join(text.replace("\\\n", " ").split())


def test_the_top_holds_only_what_belongs_there() -> None:
    """Whoever opens the repository sees the whole of it at a glance."""
    top = {path.relative_to(ROOT).parts[0] for path in files()}
    assert {name for name in top if not name.startswith(".")} - TOP == set()


@pytest.mark.parametrize("pattern", [HOSTS, MACHINE], ids=["hosts", "paths"])
def test_no_file_names_a_registry_or_a_machine(pattern: re.Pattern[str]) -> None:
    """What works only where it was written does not belong in a file."""
    assert lines_with(pattern) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_typed(package: str) -> None:
    """Type checkers read a package only if it says that it is typed."""
    assert (ROOT / package / "py.typed").read_bytes() == b""


def test_installing_brings_nothing_else() -> None:
    """The runtime has no dependency; everything else is an extra."""
    assert PROJECT["dependencies"] == []


def test_pytest_finds_the_plugin_by_its_module() -> None:
    """The entry point is a plain module: pytest reads all names of a plugin."""
    assert PROJECT["entry-points"] == {"pytest11": {"tta": "pytest_tta.plugin"}}


def test_every_interpreter_is_named_that_the_project_supports() -> None:
    """The floor of `requires-python` and the classifiers say the same."""
    prefix = "Programming Language :: Python :: 3."
    named = [c for c in PROJECT["classifiers"] if c.startswith(prefix)]
    assert PROJECT["requires-python"] == ">=3.11"
    assert named == [f"{prefix}{minor}" for minor in (11, 12, 13, 14)]


def test_the_extra_all_is_every_optional_part() -> None:
    """An extra that is added for users is part of `all`."""
    parts = {
        name
        for requirement in EXTRAS["all"]
        for name in re.split(r"[\[\],]", requirement)[1:-1]
    }
    assert parts == set(EXTRAS) - OF_THE_REPOSITORY


@pytest.mark.parametrize("command", COMMANDS, ids=["examples", "tests"])
@pytest.mark.parametrize("name", ["README.md", ".ci/run"])
def test_the_two_commands_are_the_same_everywhere(name: str, command: str) -> None:
    """What a reader is told to run is what runs before every change."""
    path = ROOT / name
    if not path.exists():
        pytest.skip(f"{name} is not written yet")
    assert command in unfolded(path.read_text("utf-8"))


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        (HOSTS, "see https://" + "pypi" + ".org/project/x"),
        (HOSTS, "from files." + "python" + "hosted.example"),
        (MACHINE, "cd " + "/work" + "/main"),
        (MACHINE, '"' + "/home" + '/ada/project"'),
    ],
)
def test_such_names_would_be_found(pattern: re.Pattern[str], line: str) -> None:
    """The search itself works."""
    assert pattern.search(line)
