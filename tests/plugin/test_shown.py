"""What `pytest --fixtures`, `--markers` and `--help` say, and that it is so."""

from __future__ import annotations

import inspect
import re
import textwrap
from typing import TYPE_CHECKING

import pytest

from pytest_tta import plugin
from pytest_tta.names import FIXTURES

if TYPE_CHECKING:
    from tests.plugin.conftest import Run

PREAMBLE = """
import asyncio

import openai
import pytest

from pytest_tta import S
from pytest_tta.faults import first, rate_limit
from tta_primitives import WorkflowContext, step
from tta_primitives.recovery import RetryPrimitive

@step
async def ask(question):
    return "42"

workflow = RetryPrimitive(ask, max_retries=3, jitter="none")
client = openai.AsyncOpenAI(api_key="sk-test")
"""


def shown(name: str) -> str:
    """Return what `pytest --fixtures` prints below the name of a fixture."""
    return inspect.getdoc(getattr(plugin, name)) or ""


@pytest.mark.parametrize("name", sorted(FIXTURES))
def test_a_fixture_is_shown_with_an_example(name: str) -> None:
    """The first line says what it is, and what follows is a test that holds it."""
    first, empty, *example = shown(name).splitlines()
    assert first.endswith(".")
    assert empty == ""
    assert re.match(rf"(async )?def test_\w+\(.*\b{name}\)", example[0])


@pytest.mark.parametrize("name", sorted(FIXTURES - {"tta_tape"}))
def test_examples_of_fixtures_pass(
    name: str, pytester: pytest.Pytester, run: Run
) -> None:
    """What is shown works as it stands; only a tape needs a file."""
    example = textwrap.dedent("\n".join(shown(name).splitlines()[2:]))
    pytester.makeini("[pytest]\nasyncio_mode = auto\n")
    pytester.makepyfile(f"{PREAMBLE}\n\n{example}\n")
    run().assert_outcomes(passed=1)


def test_markers_are_shown_with_what_they_do(run: Run) -> None:
    """Each marker of ours stands in `pytest --markers`, with a sentence."""
    lines = run("--markers").outlines
    ours = [line for line in lines if line.startswith("@pytest.mark.tta")]
    assert len(ours) == len(plugin._MARKERS)
    assert [line for line in ours if not re.search(r": \w.+[^:]$", line)] == []


class Texts(list):
    """Stands for pytest's parser, and keeps what is said of each option."""

    def getgroup(self, *_: str) -> Texts:
        return self

    def addoption(self, *_: str, help: str, **__: object) -> None:  # noqa: A002
        self.append(help)

    def addini(self, _: str, help: str, **__: object) -> None:  # noqa: A002
        self.append(help)


def test_every_option_and_setting_says_what_it_does() -> None:
    """Each has a sentence in `pytest --help`."""
    texts = Texts()
    plugin.pytest_addoption(texts)
    assert len(texts) > 40
    assert [text for text in texts if not re.fullmatch(r"[A-Z-].*[.)]", text)] == []
