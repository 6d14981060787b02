"""Numbers in files are those that would have been in memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.multiprocess import MultiProcessCollector

from tta_primitives.observability.families import Family
from tta_primitives.observability.group import Group
from tta_primitives.observability.sheets import FileSheet, MemorySheet, entries_of

if TYPE_CHECKING:
    from pathlib import Path

    from tta_primitives.observability.sheets import Sheet

BOUNDS = (0.1, 1.0, 10.0)
COUNTER = Family("orders_total", "counter", "Orders.", ("shop",))
GAUGE = Family("running", "gauge", "What runs.", ("shop",))
SECONDS = Family("work_seconds", "histogram", "Work.", ("shop",))

shops = st.text(max_size=40)
changes = st.lists(
    st.one_of(
        st.tuples(st.just(COUNTER), shops, st.floats(0, 1e6)),
        st.tuples(st.just(GAUGE), shops, st.floats(-1e6, 1e6)),
        st.tuples(st.just(SECONDS), shops, st.floats(0, 100)),
    ),
    max_size=12,
)


def changed(sheet: Sheet, change: tuple[Family, str, float]) -> None:
    family, shop, amount = change
    if family.kind == "histogram":
        found = sheet.histogram(family, [shop])
        at = sum(1 for bound in BOUNDS if bound < amount)
        found.values[found.buckets[at]] += 1
        found.values[found.total] += amount
    else:
        sheet.cell(family, [shop]).add(amount)


def series(metrics: Any) -> dict[tuple, float]:
    return {
        (metric.name, metric.type, sample.name, *sorted(sample.labels.items())): (
            sample.value
        )
        for metric in metrics
        for sample in metric.samples
    }


def in_files(folder: Path) -> dict[tuple, float]:
    files = sorted(map(str, folder.glob("*.db")))
    return series(MultiProcessCollector.merge(files))


@settings(max_examples=30)
@given(made=changes)
def test_files_say_what_memory_would(made, tmp_path_factory) -> None:
    """Whoever reads prometheus_client's files gets the same series and numbers."""
    folder = tmp_path_factory.mktemp("sheet")
    memory, files = MemorySheet(BOUNDS), FileSheet(folder, "1-a", BOUNDS)
    for change in made:
        changed(memory, change)
        changed(files, change)
    assert in_files(folder) == series(memory.metrics())


@settings(max_examples=30)
@given(made=changes, more=changes)
def test_what_is_inherited_is_added(made, more, tmp_path_factory) -> None:
    """The counts of a dead process become those of a living one, its gauges do not."""
    folder = tmp_path_factory.mktemp("sheet")
    group = Group(folder, is_ours=True)
    dead = FileSheet(folder, "1-a", BOUNDS)
    for change in made:
        changed(dead, change)
    before = in_files(folder)
    (folder / "tta-1-a.lock").touch()
    sheet = FileSheet(folder, "2-b", BOUNDS)
    for change in more:
        changed(sheet, change)
    both = in_files(folder)
    group.sweep(sheet)
    after = in_files(folder)
    counts = {key: value for key, value in both.items() if key[1] != "gauge"}
    found = {key: after.get(key, 0.0) for key in counts}
    assert found == pytest.approx(counts)
    assert not list(folder.glob("*1-a*"))
    gauges = {key for key in after if key[1] == "gauge"}
    assert gauges == {
        ("running", "gauge", "running", ("shop", c[1])) for c in more if c[0] is GAUGE
    }
    assert before.keys() <= both.keys()


def test_numbers_stay_when_a_file_grows(tmp_path: Path) -> None:
    """A cell that was handed out before is still the one that is exported."""
    sheet = FileSheet(tmp_path, "1-a", BOUNDS)
    first = sheet.cell(COUNTER, ["first"])
    for number in range(3000):
        sheet.cell(COUNTER, [f"{number} {'x' * 60}"]).add(number)
    first.add(7)
    assert sheet.cell(COUNTER, ["first"]).values is not first.values
    sheet.cell(COUNTER, ["first"]).add(1)
    found = in_files(tmp_path)
    assert found["orders", "counter", "orders_total", ("shop", "first")] == 8
    assert math.fsum(found.values()) == 8 + sum(range(3000))


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"\xff" * 64, b"\x40\x00\x00\x00" + b"\xff" * 60],
    ids=["empty", "short", "long", "values"],
)
def test_a_broken_file_is_passed_over(tmp_path: Path, content: bytes) -> None:
    """What a process left behind that died while it wrote breaks no scrape."""
    file = tmp_path / "counter_tta-1-a.db"
    file.write_bytes(content)
    assert list(entries_of(file)) == []
