"""The pictures of workflows: what `to_svg` draws of the code on the pages."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pytest_tta.clock.clock import VirtualClock
from pytest_tta.coverage.collector import Collector
from pytest_tta.report.coverage_record import coverage_record
from pytest_tta.report.pictures import coverage_svg
from tests.docs.pages import read_page
from tests.repository.source import ROOT
from tta_primitives import WorkflowContext, step
from tta_primitives.recovery import FallbackPrimitive, RetryPrimitive

if TYPE_CHECKING:
    from tta_primitives import WorkflowPrimitive

__all__ = ["answer", "covered", "support"]


def answer() -> str:
    """The workflow that readers write first."""
    page = read_page(ROOT / "docs" / "getting-started.md")
    return _made(page.files()["answer.py"], "answer").to_svg()


def support() -> str:
    """One with ways and branches."""
    page = read_page(ROOT / "docs" / "howto" / "pictures.md")
    return _made(page.module(), "support").to_svg()


def _made(code: str, name: str) -> WorkflowPrimitive[Any, Any]:
    """Return a workflow that a page's code makes."""
    made: dict[str, Any] = {"__name__": "page"}
    exec(compile(code, "page", "exec"), made)
    return made[name]  # type: ignore[no-any-return]


def covered() -> str:
    """A workflow with what one test and a sweep have reached of it."""
    collector = Collector(str(ROOT))
    with collector.observing("test_answer", "test"):
        _run()
    with collector.observing("test_answer", "sweep"):
        _run(ConnectionError("down"))
    data = collector.data
    data.exclude(["*: cancelled*, hint*, not retried", "answer/greet: failed"])
    [record] = coverage_record(data)["workflows"]
    return coverage_svg(record)


def _run(*errors: Exception) -> None:
    """Answer once, the model failing with each of these errors before."""
    left = list(errors)

    @step
    def greet(question: str) -> str:
        return f"Hello. {question}"

    @step
    async def llm(question: str) -> str:
        await asyncio.sleep(1)
        if left:
            raise left.pop()
        return question

    patient = RetryPrimitive(llm, max_retries=1, jitter="none")
    made = (greet >> FallbackPrimitive(patient, ["Sorry."])).named("answer")
    with suppress(ConnectionError):
        VirtualClock().run(made.execute("6 * 7?", WorkflowContext()))
