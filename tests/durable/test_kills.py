"""kill -9 at every point of a durable order, on SQLite and PostgreSQL.

The right result comes out; a step whose record was kept is not executed again; one that
was interrupted is executed at most once more for each kill; its effect happens once.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import pytest

from tests.processes import ROOT
from tests.services import require_sqlite_of_dbos

GOOD = {"id": "17", "address": "Main Street 1"}
BAD = {"id": "17"}
RESULT = {"result": {"mail": "mail 17", "invoice": "invoice 17"}}
STEPS = ["reserve", "charge", "ship", "mail", "invoice"]
UNDONE = ["reserve", "charge", "refund", "release"]
WHENS = ["before", "inside", "effect", "written", "after"]


class Mortals:
    """The program of `mortal.py`: one child after the other."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.durable.mortal"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, **told):
        """Let a child begin."""
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()

    def end(self):
        """Wait for the child's end, and return what came of it."""
        return json.loads(self._process.stdout.readline())

    def close(self):
        """End the program, which ends when nothing is left to be told."""
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)


@pytest.fixture(scope="module")
def mortals():
    """A program that runs orders, for the tests of this file."""
    program = Mortals()
    yield program
    program.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """The address of a new database of each kind."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_database")
    require_sqlite_of_dbos()
    return f"sqlite:///{tmp_path / 'orders.sqlite'}"


class Orders:
    """One order, run by processes that die, and what they leave behind."""

    def __init__(self, mortals, url, folder, **told):
        self._mortals = mortals
        self._told = {"url": url, "folder": str(folder), "id": "order-17", **told}
        self._folder = folder

    def run(self, die):
        """Run it until a process survives; return its answer and the kills."""
        for kills in range(len(die) + 1):
            before = self.lines("records")
            began = len(self.lines("executions"))
            self._mortals.begin(**self._told, die=die)
            answer = self._mortals.end()
            again = self.lines("executions")[began:]
            assert set(before).isdisjoint(again), "a recorded step was executed again"
            if answer != {"signal": 9}:
                return answer, kills
        raise AssertionError(answer)

    def lines(self, name):
        """Return the lines of one of the files that the processes write."""
        path = self._folder / name
        return path.read_text("utf-8").splitlines() if path.exists() else []

    def effects(self):
        """Return what was done, in order."""
        return [json.loads(line)["what"] for line in self.lines("books.jsonl")]


def check_finished(orders, die):
    """Run an order that succeeds, with kills."""
    answer, kills = orders.run(die)
    assert answer == RESULT
    # The last two are at work at the same time. A kill interrupts both; and one of them
    # may be recorded in the very moment in which the other one's point is reached.
    both = sum(point.startswith(("mail", "invoice")) for point in die)
    assert len(die) - both // 2 <= kills <= len(die)
    executions = Counter(orders.lines("executions"))
    assert max(executions.values()) <= 1 + len(die)
    assert executions.total() <= len(STEPS) + len(die) + both
    done = orders.effects()
    assert done[:3] == STEPS[:3]
    assert sorted(done) == sorted(STEPS)


def check_undone(orders, die):
    """Run an order that fails, with kills."""
    answer, kills = orders.run(die)
    assert answer == {"error": "UndeliverableError: order 17 has no address"}
    assert kills == len(die)
    assert max(Counter(orders.lines("executions")).values()) <= 1 + len(die)
    assert orders.effects() == UNDONE


def test_an_order_survives_several_kills(mortals, url, tmp_path):
    """Before, inside, after, and between effect and record, all in one run."""
    orders = Orders(mortals, url, tmp_path, order=GOOD)
    check_finished(orders, ["reserve:effect", "charge:written", "mail:inside"])


def test_an_order_is_undone_through_kills(mortals, postgres_database, tmp_path):
    """Also while it is being undone: what is undone already is not undone twice."""
    orders = Orders(mortals, postgres_database, tmp_path, order=BAD)
    check_undone(orders, ["ship:after", "refund:effect", "release:before"])


def test_a_charge_in_the_transaction_happens_once(mortals, url, tmp_path):
    """It is rolled back with its note, or both are there and it is not done again."""
    orders = Orders(mortals, url, tmp_path, order=GOOD, kind="transactional")
    answer, kills = orders.run(["charge:inside", "charge:written"])
    assert answer == {"result": ["mail 17", "invoice 17", ["paid"]]}
    assert kills == 2
    # The third process found the note of the second.
    assert orders.lines("executions").count("charge") == 2


def test_another_process_takes_over_from_a_dead_one(
    mortals, postgres_database, tmp_path
):
    """It is told who is dead, and goes on where that one was."""
    told = {"url": postgres_database, "folder": str(tmp_path), "id": "order-17"}
    mortals.begin(**told, order=GOOD, executor_id="one", die=["charge:after"])
    assert mortals.end() == {"signal": 9}
    mortals.begin(**told, recover=["one"], executor_id="two")
    assert mortals.end() == RESULT
    executions = (tmp_path / "executions").read_text("utf-8").split()
    assert sorted(executions) == sorted(STEPS)


@pytest.mark.long
@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("step", STEPS)
def test_an_order_survives_a_kill_anywhere(step, when, mortals, url, tmp_path):
    """One kill, at each point of each step."""
    check_finished(Orders(mortals, url, tmp_path, order=GOOD), [f"{step}:{when}"])


@pytest.mark.long
@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("step", UNDONE)
def test_an_order_is_undone_through_a_kill_anywhere(step, when, mortals, url, tmp_path):
    """One kill, at each point of each step and of each compensation."""
    check_undone(Orders(mortals, url, tmp_path, order=BAD), [f"{step}:{when}"])


@pytest.mark.long
@pytest.mark.parametrize("when", WHENS)
def test_an_order_survives_a_kill_in_every_step(when, mortals, url, tmp_path):
    """As many kills as there are steps, in one run."""
    orders = Orders(mortals, url, tmp_path, order=GOOD)
    check_finished(orders, [f"{step}:{when}" for step in STEPS])
