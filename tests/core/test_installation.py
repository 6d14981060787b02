"""`python -m tta_primitives`: what is installed, and whether it works."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.repository.source import ROOT
from tta_primitives import __main__ as program
from tta_primitives import installation
from tta_primitives.installation import Extra, Library, describe, installed_extras

if TYPE_CHECKING:
    from collections.abc import Callable

REQUIREMENTS = [
    "anthropic>=1.0; extra == 'all'",
    "pytest>=8.4; extra == 'dev'",
    "redis>=6.0; extra == 'redis'",
    "dbos<4,>=3.4; extra == 'dbos'",
    "opentelemetry-api>=1.33; extra == 'otel'",
    "opentelemetry-sdk>=1.33; extra == 'otel'",
    "fakeredis[lua]>=2.30; extra == 'pytest'",
    "gunicorn>=23.0; (sys_platform != 'win32') and extra == 'web'",
    "tta-dev-primitives[redis]; extra == 'both'",
]
VERSIONS = {
    "tta-dev-primitives": "1.2.3",
    "redis": "5.0.1",
    "dbos": "3.10",
    "opentelemetry-api": "1.33",
    "gunicorn": "23.0.0",
}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few libraries be installed, one of them too old."""
    monkeypatch.setattr(installation, "requires", lambda _: REQUIREMENTS)
    monkeypatch.setattr(installation, "version_of", VERSIONS.get)


@pytest.mark.usefixtures("installed")
def test_extras_are_told_with_what_is_wrong() -> None:
    """Missing and old libraries come with the command that mends it."""
    assert [f"{extra.name}: {extra}" for extra in installed_extras()] == [
        "dbos: dbos 3.10",
        (
            "otel: opentelemetry-api 1.33, opentelemetry-sdk is missing: "
            "pip install 'tta-dev-primitives[otel]'"
        ),
        "pytest: -",
        (
            "redis: redis 5.0.1 (too old: 6.0 is needed): "
            "pip install 'tta-dev-primitives[redis]'"
        ),
        "web: gunicorn 23.0.0",
    ]


@pytest.mark.usefixtures("installed")
def test_report_is_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of extras stand in one column, what is installed in another."""
    monkeypatch.setattr(installation.platform, "python_version", lambda: "3.12.1")
    monkeypatch.setattr(
        installation.platform, "python_implementation", lambda: "CPython"
    )
    monkeypatch.setattr(installation.sys, "platform", "linux")
    assert describe()[:4] == [
        "tta-dev-primitives 1.2.3",
        "CPython 3.12.1 on linux",
        "extras:",
        "  dbos    dbos 3.10",
    ]


@pytest.mark.parametrize(
    ("least", "found", "is_too_old"),
    [
        ("1.33", "1.4.0", True),
        ("1.33", "1.33", False),
        ("3.4", "3.10.1", False),
        ("2.0", "2.0rc1", False),
        ("", "0.1", False),
        ("1.0", None, False),
    ],
)
def test_versions_are_compared_by_number(
    least: str, found: str | None, *, is_too_old: bool
) -> None:
    """3.10 is newer than 3.4, and what is missing is not old."""
    assert Library("a", least, found).is_too_old == is_too_old


def test_an_extra_is_installed_if_all_of_it_is() -> None:
    """Half an extra is begun, and not installed."""
    whole, missing = Library("a", "", "1"), Library("b", "", None)
    assert Extra("x", (whole,)).is_installed
    assert not Extra("x", (whole, missing)).is_installed
    assert Extra("x", (whole, missing)).is_begun
    assert not Extra("x", (missing,)).is_begun


def test_a_folder_that_was_not_installed_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without metadata there are no extras to list, and that is no error."""

    def nothing(name: str) -> str:
        raise installation.PackageNotFoundError(name)

    monkeypatch.setattr(installation, "requires", nothing)
    monkeypatch.setattr(installation, "version", nothing)
    assert installed_extras() == []
    first, *others = describe()
    assert first == "tta-dev-primitives (run from its folder, not installed)"
    assert len(others) == 1


@pytest.mark.parametrize("package", ["tta_primitives", "pytest_tta"])
def test_command_ends_well(package: str) -> None:
    """Both commands say what is there, and that it works."""
    command = [sys.executable, "-m", package]
    done = subprocess.run(
        command, cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("tta-dev-primitives 0.1")
    assert done.stdout.endswith("self-check: ok\n")


def executes(answer: str, calls: int) -> Callable[..., object]:
    """Return a retry that answers wrongly, or calls its step more than once."""

    class Wrong:
        def __init__(self, step: object, **_: object) -> None:
            self.step = step

        async def execute(self, question: str, context: object) -> str:
            for _ in range(calls):
                try:
                    await self.step.execute(question, context)
                except ConnectionError:
                    continue
            return answer

    return Wrong


@pytest.mark.parametrize(
    ("answer", "calls", "wrong"),
    [
        ("no", 3, "two executions have answered ['no', 'no'] instead of ['OK', 'OK']"),
        ("OK", 5, "the step was called 10 times instead of 3"),
    ],
)
def test_a_workflow_that_misbehaves_is_told(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    calls: int,
    wrong: str,
) -> None:
    """The exit status is 1, and the last line says what was seen."""
    monkeypatch.setattr(program, "RetryPrimitive", executes(answer, calls))
    monkeypatch.setattr(program, "FallbackPrimitive", lambda first, **_: first)
    monkeypatch.setattr(program, "CachePrimitive", lambda first, **_: first)
    assert program.main([]) == 1
    assert capsys.readouterr().out.endswith(f"self-check: FAILED: {wrong}\n")


def test_a_workflow_that_raises_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of whatever kind is the answer, and no traceback."""

    def broken(*_: object, **__: object) -> None:
        raise ImportError("no such file")

    monkeypatch.setattr(program, "RetryPrimitive", broken)
    assert program.check() == "the workflow has raised ImportError('no such file')"
