"""`python -m pytest_tta`: whether the harness works here."""

from __future__ import annotations

import pytest

from pytest_tta import selfcheck
from pytest_tta.__main__ import main
from tta_primitives import recovery


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what was printed, line by line."""
    return capsys.readouterr().out.splitlines()


def test_the_report_names_pytest_and_the_plugin(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Who looks for a plugin that does nothing sees whether pytest finds it."""
    assert main([]) == 0
    lines = lines_of(capsys)
    assert lines[2] == f"pytest {pytest.__version__}"
    assert lines[3] == "plugin: found by pytest"
    assert lines[-1] == "self-check: ok"


def test_a_plugin_that_is_not_installed_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a folder on the path pytest finds nothing: the line says what to do."""
    monkeypatch.setattr(selfcheck, "entry_points", lambda **_: ())
    monkeypatch.setattr(selfcheck, "version_of", lambda _: None)
    assert main([]) == 0
    assert lines_of(capsys)[2:4] == [
        "pytest missing: pip install 'tta-dev-primitives[pytest]'",
        "plugin: not installed; name it: pytest -p pytest_tta.plugin --tta",
    ]


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        (
            {"backoff_strategy": [1, 2]},
            "3.0 s of virtual time have passed instead of 3600.0",
        ),
        ({"max_retries": 1}, "the harness has raised ConnectionError('on purpose')"),
        (
            {"retry_if_result": lambda _: True},
            "the harness has raised RetryResultError",
        ),
    ],
)
def test_what_is_wrong_is_told(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    settings: dict[str, object],
    wrong: str,
) -> None:
    """The exit status is 1, and the last line says what was seen."""
    whole = recovery.RetryPrimitive

    def other(step: object, **options: object) -> object:
        return whole(step, **{**options, **settings})

    monkeypatch.setattr(recovery, "RetryPrimitive", other)
    assert main([]) == 1
    assert lines_of(capsys)[-1].startswith(f"self-check: FAILED: {wrong}")


def test_a_wrong_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is not the step's is shown."""
    whole = recovery.RetryPrimitive

    def other(step: object, **options: object) -> object:
        return whole(step, **options) >> (lambda _: "no")

    monkeypatch.setattr(recovery, "RetryPrimitive", other)
    assert selfcheck.check() == "the workflow has answered 'no' instead of 'OK'"
