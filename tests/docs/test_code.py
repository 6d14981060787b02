"""Everything that the documentation shows is run, and does what is said."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
import shutil
import sys
import tomllib
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.docs.pages import pages
from tests.repository.source import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.docs.conftest import Results, Shell
    from tests.docs.pages import Block, Page

PAGES = pages()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def documents(text: str) -> list[object]:
    """Return the documents of a YAML file."""
    return list(yaml.safe_load_all(text))


DATA = {"json": json.loads, "toml": tomllib.loads, "yaml": documents}
KNOWN_LANGUAGES = {"console", "ini", "mermaid", "python", "sh", "text", *DATA}
PROGRAMS = {"git", "pip", "pytest", "python", "python3"}
HOSTS = {"celery", "gunicorn", "rq", "taskiq", "uvicorn"}


def with_blocks(*languages: str) -> list[object]:
    """Return a parameter for each page that has code in one of these languages."""
    found = [page for page in PAGES if page.of(*languages)]
    return [pytest.param(page, id=page.name) for page in found]


def dialogues(block: Block) -> Iterator[tuple[str, str]]:
    """Yield each command of a console block with what it prints."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


def prints(output: str, shown: str) -> bool:
    """Tell whether an output has the lines shown; `...` stands for any text."""
    wanted = f"...\n{shown.strip()}\n..."
    seen = f"before\n{output.strip()}\nafter\n"
    options = ELLIPSIS | NORMALIZE_WHITESPACE
    return OutputChecker().check_output(wanted, seen, options)


@pytest.mark.parametrize("page", with_blocks("python"))
def test_python_of_a_page_runs(page: Page, results: Results) -> None:
    """The blocks of a page are one module from top to bottom, tests included."""
    nodes = ast.parse(page.module()).body
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    names = [node.name for node in nodes if isinstance(node, kinds)]
    written = {name for name in names if name.startswith("test_")}
    assert len(names) == len(set(names))
    ended = results.get(page.module_name, {})
    assert [text for text in ended.values() if text] == []
    assert set(ended) == written


@pytest.mark.parametrize("page", with_blocks("console"))
def test_outputs_are_what_the_commands_print(
    page: Page, tmp_path: Path, shell: Shell
) -> None:
    """A console block shows a real output, shortened by dots at most."""
    for name, text in page.files().items():
        (tmp_path / name).write_text(text, "utf-8")
    for block in page.of("console"):
        for command, shown in dialogues(block):
            output = shell(command)
            assert prints(output, shown), f"{command}\n{output}"


@pytest.mark.parametrize("page", with_blocks("sh"))
def test_commands_of_a_page_exist(page: Page) -> None:
    """Programs, modules and extras that a reader is told to use are there."""
    for block in page.of("sh"):
        for command in re.split(r"&&|\n", block.text.replace("\\\n", " ")):
            if command.strip():
                check_command(shlex.split(command, comments=True))


def check_command(words: list[str]) -> None:
    """Check what a command line names, as far as that can be known here."""
    program, *arguments = words
    name = program.rpartition("/")[2]
    assert name in PROGRAMS | HOSTS
    beside = str(Path(sys.executable).parent)
    known = shutil.which(name) or shutil.which(name, path=beside)
    assert name in {"python", "pip"} or known, program
    if arguments[:1] == ["-m"]:
        assert importlib.util.find_spec(arguments[1]), arguments
    for argument in arguments:
        extras = re.fullmatch(r"(\.|tta-dev-primitives)\[([\w,-]+)\]", argument)
        if extras:
            known = set(PROJECT["optional-dependencies"])
            assert set(extras[2].split(",")) <= known


@pytest.mark.parametrize("page", with_blocks(*DATA))
def test_data_of_a_page_can_be_read(page: Page) -> None:
    """What a reader is to copy into a configuration is well formed."""
    for block in page.of(*DATA):
        assert DATA[block.language](block.text)


@pytest.mark.parametrize("page", [pytest.param(p, id=p.name) for p in PAGES])
def test_every_block_is_in_a_language_that_is_checked(page: Page) -> None:
    """No code slips through because its fence says something unknown."""
    assert {block.language for block in page.blocks} <= KNOWN_LANGUAGES


@pytest.mark.parametrize("page", with_blocks("python"))
def test_code_is_no_wider_than_the_page(page: Page) -> None:
    """Nobody scrolls to read a line."""
    lines = [line for block in page.of("python") for line in block.text.splitlines()]
    assert [line for line in lines if len(line) > 85] == []


def test_links_of_the_readme_lead_somewhere() -> None:
    """Sphinx checks the links between pages, and nobody those of the README."""
    linked = re.findall(r"\]\((?!https?:)([^)#]+)", PAGES[0].path.read_text("utf-8"))
    assert linked
    assert [path for path in linked if not (ROOT / path).exists()] == []


def test_readme_begins_with_an_example_of_twenty_lines() -> None:
    """Who has half a minute sees a workflow and its test."""
    example = PAGES[0].of("python")[0].text.splitlines()
    assert len([line for line in example if line.strip()]) <= 24


def test_difference_in_an_output_would_be_found() -> None:
    """The comparison itself works: dots stand for text, and for nothing else."""
    assert prints("a\n1 passed in 0.02s\nb", "1 passed in ...s")
    assert not prints("a\n2 passed in 0.02s\nb", "1 passed in ...s")
