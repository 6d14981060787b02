"""A certificate fails on asyncio's own loop as the search found, and only then."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tta import Harness
from pytest_tta.clock.choices import Choice, Unit
from pytest_tta.explore.certificate import certificate
from pytest_tta.explore.execution import Subject
from pytest_tta.explore.latencies import STEP, Answer, answers
from pytest_tta.explore.outcome import Outcome, Verdict
from pytest_tta.explore.plan import Cancellation, FaultAt, Plan, Schedule
from pytest_tta.explore.schedules import search_schedules
from pytest_tta.explore.shrink import shrink
from pytest_tta.explore.sweep import sweep

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]

TOP = """
import asyncio
from pytest_tta import op
from tta_primitives import WorkflowContext, step
from tta_primitives.recovery import RetryPrimitive, TimeoutPrimitive, FallbackPrimitive
"""

LOST_UPDATE = (
    TOP
    + """
async def deposit(rows, amount):
    await op("db.read")
    balance = rows["balance"]
    await op("db.write")
    rows["balance"] = balance + amount

async def standing_order(rows):
    await op("mandate.read")
    await deposit(rows, 5)

def test_it(tta):
    rows = {"balance": 100}

    async def serve(_):
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(deposit(rows, 10))
            group.create_task(standing_order(rows))

    tta.run(serve, None)
    assert rows["balance"] == 115
"""
)

BACKOFF = (
    TOP
    + """
@step
async def load(text):
    return text

@step
async def stale(text):
    await asyncio.sleep(0.3)
    return text + "?"

def test_it(tta):
    shown = []

    @step
    async def show(text):
        shown.append(text)

    flow = (load >> show) | (stale >> show)
    tta.run(flow, "x")
    assert shown[-1] == "x?"
"""
)

LOST_ACK = (
    TOP
    + """
charges = []

@step
async def charge(amount):
    charges.append(amount)
    return amount

@step
async def receipt(amount):
    return f"paid {amount}"

def test_it(tta):
    charges.clear()
    tta.always(lambda: len(charges) <= 1, "charged once")
    pay = RetryPrimitive(charge, max_retries=1, initial_delay=0.01)
    assert tta.run(pay >> receipt, 7) == "paid 7"
"""
)

UNBOUNDED = (
    TOP
    + """
async def ask(_):
    await op("bank.ask")
    return 1

def test_it(tta):
    assert tta.run(ask, None) == 1
"""
)

EARLY = (
    TOP
    + """
async def read(cache):
    await op("cache.read")
    return cache["x"]

def test_it(tta):
    async def serve(_):
        cache = {}
        async def fill():
            async with op("db.load"):
                cache["x"] = 1
        filling = asyncio.create_task(fill())
        try:
            async with asyncio.timeout(0.2):
                await asyncio.shield(filling)
        except TimeoutError:
            pass
        found = cache.get("x")
        await filling
        return found

    assert tta.run(serve, None) == 1
"""
)

THREAD = (
    TOP
    + """
numbers = []

def save(number):
    numbers.append(number)

def test_it(tta):
    numbers.clear()

    async def serve(_):
        await asyncio.gather(asyncio.to_thread(save, 1), other())

    async def other():
        await op("queue.get")
        await op("queue.ack")
        await asyncio.to_thread(save, 2)

    tta.run(serve, None)
    assert numbers == [1, 2]
"""
)

FIXTURES = (
    TOP
    + """
import pytest

@pytest.fixture
def rows():
    return {"balance": 100}

@pytest.mark.parametrize("amount", [5])
class TestDeposits:
    async def add(self, rows, amount):
        await op("db.read")
        balance = rows["balance"]
        await op("db.write")
        rows["balance"] = balance + amount

    def test_it(self, tta, rows, amount):
        async def serve(_):
            await asyncio.gather(self.add(rows, amount), self.add(rows, amount))

        tta.run(serve, None)
        assert rows["balance"] == 110
"""
)


def loaded(path: Path) -> Any:
    """Return a module of a file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def found(
    body: Callable[[Harness], Any], file: Path, search: Callable[[Subject], Outcome]
) -> Outcome:
    """Return the smallest failure of a test's body."""
    with Harness() as tta, Subject(tta, lambda: body(tta), test_file=str(file)) as one:
        outcome = search(one)
        return shrink(one, outcome)


def by_schedules(subject: Subject) -> Outcome:
    """Search the orders of events."""
    failure = search_schedules(subject, 300).failure
    assert failure is not None
    return failure


def by_faults(subject: Subject) -> Outcome:
    """Search the faults."""
    failure = sweep(subject).failure
    assert failure is not None
    return failure


def run_plainly(folder: Path, file: str) -> subprocess.CompletedProcess[str]:
    """Run pytest without the plugin, on asyncio's own loop."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:tta"]
    command += ["-p", "no:cacheprovider", "-c", os.devnull, "--rootdir=.", file]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment |= {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def run_until_it_fails(folder: Path, file: str) -> subprocess.CompletedProcess[str]:
    """Run it plainly, again if it passes: its latencies are real, 20 ms apart.

    A machine that stands still for that long may let two answers change places.
    """
    for _ in range(5):
        done = run_plainly(folder, file)
        if done.returncode:
            break
    return done


CASES = {
    "lost update": (
        LOST_UPDATE,
        by_schedules,
        " == 115",
        (
            '    rows["balance"] = balance + amount',
            '    rows["balance"] += amount',
        ),
    ),
    "step and timer": (
        BACKOFF,
        by_schedules,
        "'x?'",
        (
            "    flow = (load >> show) |",
            "    flow = load >> show >> (lambda _: 'x') >>",
        ),
    ),
    "lost ack": (
        LOST_ACK,
        by_faults,
        "charged once",
        ("max_retries=1", "max_retries=0"),
    ),
    "unbounded wait": (
        UNBOUNDED,
        by_faults,
        "still waiting",
        (
            '    await op("bank.ask")',
            '    async with asyncio.timeout(0.1):\n        await op("bank.ask")',
        ),
    ),
    "early limit": (
        EARLY,
        by_schedules,
        "assert None == 1",
        (
            "        found = cache.get",
            "        await filling\n        found = cache.get",
        ),
    ),
    "thread": (
        THREAD,
        by_schedules,
        "[2, 1]",
        ("    assert numbers == [1, 2]", "    assert sorted(numbers) == [1, 2]"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_certificate_fails_as_the_search_found(name: str, tmp_path: Path) -> None:
    """Without the plugin, and no more once the code is corrected."""
    source, search, said, (wrong, right) = CASES[name]
    file = tmp_path / "test_shop.py"
    file.write_text(source, encoding="utf-8")
    outcome = found(loaded(file).test_it, file, search)
    text = certificate(
        outcome,
        node_id="test_shop.py::test_it",
        test_file=str(file),
        test_name="test_it",
    )
    text = re.sub("PATIENCE = .*", "PATIENCE = 1.0", text)
    (tmp_path / "test_certificate.py").write_text(text, encoding="utf-8")
    failed = run_until_it_fails(tmp_path, "test_certificate.py")
    assert failed.returncode == 1, failed.stdout + failed.stderr + text
    assert said in failed.stdout
    assert wrong in source
    file.write_text(source.replace(wrong, right), encoding="utf-8")
    passed = run_plainly(tmp_path, "test_certificate.py")
    assert passed.returncode == 0, passed.stdout + passed.stderr


def test_a_method_with_fixtures_is_certified_too(tmp_path: Path) -> None:
    """The fixtures of its module and its parameters are found."""
    file = tmp_path / "test_shop.py"
    file.write_text(FIXTURES, encoding="utf-8")
    method = loaded(file).TestDeposits().test_it
    outcome = found(lambda tta: method(tta, {"balance": 100}, 5), file, by_schedules)
    text = certificate(
        outcome,
        node_id="test_shop.py::TestDeposits::test_it[5]",
        test_file=str(file),
        test_name="TestDeposits.test_it",
    )
    (tmp_path / "test_certificate.py").write_text(text, encoding="utf-8")
    done = run_plainly(tmp_path, "test_certificate.py")
    assert "assert 105 == 110" in done.stdout, done.stdout + done.stderr


READ = Unit("op", 1, "db.read", 1, 1)
WRITE = Unit("op", 2, "db.write", 1, 2)
LATER = Unit("op", 2, "db.write", 2, 3)
TIMER = Unit("timer", 3, "sleep", 0, 4)
BROKEN = Verdict("assertion", "assert \"a\" == 'b'")


def test_what_is_chosen_later_takes_longer() -> None:
    """One step of time for each choice."""
    choices = (Choice((READ, WRITE), 1, -1), Choice((READ, LATER), 1, 2))
    assert answers(Outcome(Plan(), BROKEN, choices=choices)) == {
        ("db.read", 1): Answer(3 * STEP, 3 * STEP),
        ("db.write", 1): Answer(STEP, STEP),
        ("db.write", 2): Answer(2 * STEP, STEP),
    }


def test_what_a_timer_overtakes_takes_longer_than_the_timer() -> None:
    """Time has gone on when the call is answered."""
    timer = Choice((READ, TIMER), 1, -1, 0.0, 2.5)
    choices = (timer, Choice((READ, WRITE), 0, 3, 2.5, 2.5))
    made = answers(Outcome(Plan(), BROKEN, choices=choices, seconds=2.5))
    assert made["db.read", 1] == Answer(2.5 + 2 * STEP, 2.5 + 2 * STEP)
    assert made["db.write", 1] == Answer(2.5 + 3 * STEP, 2 * STEP)


def test_what_comes_alone_comes_at_once() -> None:
    """Nobody chose it, for there was nothing else, however long the test goes on."""
    choices = (Choice((READ, WRITE), 1, -1, 1.0, 1.0),)
    made = answers(Outcome(Plan(), BROKEN, choices=choices, seconds=30.0))
    assert made["db.read", 1] == Answer(1 + 2 * STEP, 2 * STEP)


def test_calls_that_hang_are_counted() -> None:
    """They are calls, though nothing ever answers them."""
    plan = Plan(faults=(FaultAt("db.read", 1, "hang"),))
    choices = (Choice((READ, WRITE), 0, -1),)
    made = answers(Outcome(plan, BROKEN, choices=choices))
    assert set(made) == {("db.read", 2), ("db.write", 1)}


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Outcome(Plan(), None), "broke nothing"),
        (
            Outcome(Plan(cancellation=Cancellation("main", 1)), BROKEN),
            "Cancellation.* comes from outside",
        ),
        (
            Outcome(Plan((FaultAt("fleet:pay", 1, "drop"),)), BROKEN),
            "a plain test has no fleet",
        ),
        (
            Outcome(Plan(schedule=Schedule("harsh")), BROKEN),
            "mode 'harsh' are no matter of latencies",
        ),
        (
            Outcome(Plan(), Verdict("permit not returned", "a lock is held")),
            "does not see 'permit not returned'",
        ),
    ],
)
def test_what_latencies_cannot_say_is_refused(outcome: Outcome, said: str) -> None:
    """With the reason."""
    with pytest.raises(ValueError, match=said):
        certificate(outcome, node_id="x", test_file="x.py", test_name="x")


def test_the_source_is_that_of_a_module() -> None:
    """Whatever the failure says, and with nothing in it that is not used."""
    text = certificate(
        Outcome(Plan(), BROKEN), node_id="x.py::f", test_file="x.py", test_name="f"
    )
    compile(text, "x", "exec")
    assert "assertion: assert 'a' == 'b'" in text
    assert "httpx" not in text
    assert "redis" not in text
