"""Whether the harness works here: an hour of retries in virtual time."""

from __future__ import annotations

from importlib.metadata import entry_points

from tta_primitives.installation import describe, version_of

__all__ = ["check", "report"]

_HOUR = 3600.0


def report() -> tuple[list[str], bool]:
    """Return the lines that `python -m pytest_tta` prints, and whether all is well."""
    wrong = check()
    result = f"FAILED: {wrong}" if wrong else "ok"
    pytest = version_of("pytest") or "missing: pip install 'tta-dev-primitives[pytest]'"
    ours, python, *extras = describe()
    lines = [ours, python, f"pytest {pytest}", f"plugin: {_plugin()}", *extras]
    return [*lines, f"self-check: {result}"], not wrong


def _plugin() -> str:
    """Return whether pytest finds the plugin by itself."""
    if any(point.name == "tta" for point in entry_points(group="pytest11")):
        return "found by pytest"
    return "not installed; name it: pytest -p pytest_tta.plugin --tta"


def check() -> str:
    """Let a workflow wait for an hour, in virtual time, until it is answered.

    Returns:
        What is wrong, in a sentence; empty if nothing is.
    """
    try:
        return _wait_for_an_hour()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
        return f"the harness has raised {error!r}"


def _wait_for_an_hour() -> str:
    from pytest_tta.faults import first
    from pytest_tta.harness import Harness
    from tta_primitives.primitive import step
    from tta_primitives.recovery import RetryPrimitive

    @step
    async def ask(question: str) -> str:
        return question.upper()

    patient = RetryPrimitive(
        ask, backoff_strategy=[600, 3000], max_delay=3000, jitter="none"
    )
    with Harness() as tta:
        tta.faults.at("ask").fail(ConnectionError("on purpose"), when=first(2))
        answer = tta.run(patient, "ok")
        if answer != "OK":
            return f"the workflow has answered {answer!r} instead of 'OK'"
        if tta.elapsed != _HOUR:
            return f"{tta.elapsed} s of virtual time have passed instead of {_HOUR}"
    return ""
