"""The workflow in virtual time, and the tasks without a broker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from examples.celery_worker.app import app, process_all, process_batch
from examples.celery_worker.batches import process
from pytest_tta.faults import first
from tta_primitives import WorkflowContext
from tta_primitives.integrations.celery import carrying

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_tta import Harness

READINGS = {"m-1": 20.1, "m-2": 19.8, "m-3": 20.4, "m-4": 98.7, "m-5": 20.0}
REPORT = {"batch_id": "monday", "meters": 5, "odd": ["m-4"]}


@pytest.fixture
def batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one batch."""
    monkeypatch.setenv("BATCHES", str(tmp_path))
    (tmp_path / "monday.json").write_text(json.dumps(READINGS), "utf-8")
    return tmp_path


@pytest.fixture
def eager() -> Iterator[None]:
    """Execute tasks where they are called."""
    app.conf.update(task_always_eager=True, task_eager_propagates=True)
    yield
    app.conf.update(task_always_eager=False, task_eager_propagates=False)


@pytest.mark.usefixtures("tta")
async def test_a_batch_is_checked_and_its_report_stored(batches: Path) -> None:
    """The workflow itself: no Celery is needed to test it."""
    report = await process.execute("monday", WorkflowContext())
    assert report == REPORT
    stored = json.loads((batches / "monday.report.json").read_text("utf-8"))
    assert stored == REPORT


@pytest.mark.usefixtures("batches")
async def test_storage_that_is_away_is_asked_again(tta: Harness) -> None:
    """Seconds of waiting take no time under `--tta`."""
    tta.faults.at("load").fail(OSError("the share is away"), when=first(2))
    report = await process.execute("monday", WorkflowContext())
    assert report == REPORT


@pytest.mark.usefixtures("tta", "batches")
async def test_the_body_of_a_task_is_awaited_with_a_context() -> None:
    """`call` is the task without the message."""
    context = WorkflowContext("request-1", idempotency_key="task-1")
    assert await process_batch.call(context, "monday") == REPORT


@pytest.mark.usefixtures("eager")
def test_a_batch_that_comes_twice_leaves_one_report(batches: Path) -> None:
    """What a redelivered message does: the same task id, and so the same key."""
    for _ in range(2):
        process_batch.apply_async(("monday",), task_id="task-1")
    left = sorted(path.name for path in batches.iterdir())
    assert left == ["monday.json", "monday.report.json"]


@pytest.mark.usefixtures("eager", "batches")
def test_a_task_runs_where_it_is_called_if_eager() -> None:
    """The whole way through Celery, with the id of the request."""
    with carrying(WorkflowContext("request-1")):
        assert process_batch.delay("monday").get() == REPORT


@pytest.mark.usefixtures("eager", "batches")
def test_one_task_publishes_many() -> None:
    """From async code with `send`."""
    ids = process_all.delay(["monday", "monday"]).get()
    assert len(set(ids)) == 2


@pytest.mark.usefixtures("eager", "batches")
def test_a_batch_that_is_not_there_fails_at_once() -> None:
    """There is no use in asking again."""
    with pytest.raises(FileNotFoundError, match=r"tuesday\.json"):
        process_batch.delay("tuesday").get()


def test_a_killed_worker_loses_no_batch() -> None:
    """The options that see to it."""
    assert process_batch.acks_late
    assert process_batch.reject_on_worker_lost
