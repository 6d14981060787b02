"""Suggested tests can be pasted, pass, and reach what they were suggested for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.coverage.conftest import Run

SHOP = Path(__file__).with_name("shop.py")
HAPPY = """
import pytest
import shop
from shop import *

NAMES = [name for name in dir(shop) if name.startswith("make_")]

@pytest.mark.parametrize("name", NAMES)
def test_happy(tta, name):
    given = ["tea"] if name == "make_map" else "tea"
    tta.run(getattr(shop, name)(), given)
"""


def suggested(result: pytest.RunResult) -> list[str]:
    """Return the lines that were suggested."""
    begin = next(
        i for i, line in enumerate(result.outlines) if "tta suggested tests" in line
    )
    end = next(i for i, line in enumerate(result.outlines) if " passed" in line)
    return result.outlines[begin + 1 : end]


def missing(path: Path) -> set[str]:
    """Return what a report says was not reached."""
    plain: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return {
        f"{node['path']}: {outcome}"
        for workflow in plain["workflows"]
        for node in workflow["nodes"]
        for outcome, ways in node["outcomes"].items()
        if not ways
    }


def test_suggested_tests_reach_every_outcome(
    pytester: pytest.Pytester, run: Run
) -> None:
    """All that no input has to lead to is reached by pasting what was printed."""
    pytester.makepyfile(test_happy=HAPPY, shop=SHOP.read_text("utf-8"))
    lines = suggested(run("--tta-suggest"))
    excused = {
        line.removeprefix("# ").partition(": needs ")[0]
        for line in lines
        if ": needs " in line
    }
    pytester.makepyfile(test_pasted="\n".join(lines))
    result = run("--tta-cov", "--tta-cov-report=json:found.json")
    outcomes = result.parseoutcomes()
    assert "failed" not in outcomes
    assert outcomes["passed"] > 250
    assert missing(pytester.path / "found.json") == excused
    assert {one.partition("/")[0].partition(":")[0] for one in excused} == {
        "conditional",
        "router",
        "stack",
    }
    assert len([one for one in excused if one.startswith("stack")]) == 4


ONE = """
from tta_primitives import step
from tta_primitives.recovery import RetryPrimitive

@step
async def pay(order):
    return order

{made}
"""
RETRY = 'RetryPrimitive(pay, max_retries=1).named("checkout")'

FIXTURE = """
import pytest, shop

@pytest.fixture
def till():
    return shop.made()

def test_it(tta, till):
    tta.run(till, 1)
"""


@pytest.mark.parametrize(
    ("made", "test", "line"),
    [
        (
            f"checkout = {RETRY}",
            "from shop import checkout\ndef test_it(tta):\n    tta.run(checkout, 1)",
            "from shop import checkout",
        ),
        (
            f"def make():\n    return {RETRY}",
            "import shop\ndef test_it(tta):\n    tta.run(shop.make(), 1)",
            "    checkout = make()",
        ),
        (
            f"def made(): return {RETRY}",
            FIXTURE,
            "def test_checkout_ok_2(tta, till):",
        ),
        (
            f"def make(name):\n    return {RETRY}",
            "import shop\ndef test_it(tta):\n    tta.run(shop.make('x'), 1)",
            (
                "# checkout: exhausted: needs a function without arguments that makes "
                "the workflow, in a module"
            ),
        ),
    ],
    ids=["variable", "factory", "fixture", "neither"],
)
def test_suggestion_names_the_workflow_as_a_test_would(
    pytester: pytest.Pytester, run: Run, made: str, test: str, line: str
) -> None:
    """It is imported, made or asked for; where nobody can tell, a comment says so."""
    pytester.makepyfile(shop=ONE.format(made=made), test_shop=test)
    lines = suggested(run("--tta-suggest"))
    assert line in lines
    pytester.makepyfile(test_pasted="\n".join(lines))
    pasted = run("test_pasted.py").parseoutcomes()
    assert pasted == ({"passed": 8} if "def test_" in "\n".join(lines) else {})


INPUTS = """
from dataclasses import dataclass
from shop import checkout

@dataclass
class Order:
    number: int
    items: list

class Basket:
    pass

def test_it(tta):
    tta.run(checkout, {given})
"""


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("{'a': [1, (2, -3)]}", "    tta.run(checkout, {'a': [1, (2, -3)]})"),
        ("Order(7, ['tea'])", "    tta.run(checkout, Order(number=7, items=['tea']))"),
        (
            "Basket()",
            (
                "# checkout: ok@2: needs an input as code, which the Basket of test_it "
                "is not"
            ),
        ),
    ],
)
def test_suggestion_has_the_input_of_the_test(
    pytester: pytest.Pytester, run: Run, given: str, line: str
) -> None:
    """Literals, and what a class writes of its objects; else a comment says so."""
    made = f"checkout = {RETRY}"
    test = INPUTS.replace("{given}", given)
    pytester.makepyfile(shop=ONE.format(made=made), test_shop=test)
    lines = suggested(run("--tta-suggest"))
    assert line in lines
    assert not [one for one in lines if "..." in one]
    assert ("from test_shop import Order" in lines) == given.startswith("Order")


def test_suggestion_as_printed(pytester: pytest.Pytester, run: Run) -> None:
    """It is a plain test that says what it reaches and asserts it."""
    made = f"checkout = {RETRY}"
    test = "from shop import checkout\ndef test_it(tta):\n    tta.run(checkout, 1)"
    pytester.makepyfile(shop=ONE.format(made=made), test_shop=test)
    text = "\n".join(suggested(run("--tta-suggest")))
    assert text.startswith(
        "# checkout (shop.py:8): a file of its own, beside your tests\nimport asyncio\n"
    )
    assert (
        '''
def test_checkout_exhausted(tta):
    """checkout: exhausted."""
    tta.faults.at("/checkout/pay").fail(ConnectionError("down"))
    with suppress(Exception):  # say here what the caller is told
        tta.run(checkout, 1)
    spans = tta.trace.spans_at("/checkout")
    assert any("retry.exhausted" in span.event_names for span in spans)
'''
        in text
    )
