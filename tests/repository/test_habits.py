"""What a visitor of the repository is told: files below `.github`."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.repository.api import COMMAND
from tests.repository.source import ROOT

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = ROOT / ".github"
PAGES = sorted(FOLDER.glob("*.md"))
FORMS = [p for p in sorted(FOLDER.glob("ISSUE_TEMPLATE/*.yml")) if p.stem != "config"]


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    """A page below `.github` links to files that are there."""
    linked = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8"))
    assert [path for path in linked if not (FOLDER / path).exists()] == []


@pytest.mark.parametrize("form", FORMS, ids=[form.stem for form in FORMS])
def test_forms_are_as_they_must_be(form: Path) -> None:
    """A form has a name, a description, and fields with labels of their own."""
    read = yaml.safe_load(form.read_text("utf-8"))
    assert set(read) == {"name", "description", "labels", "body"}
    ids = [field["id"] for field in read["body"]]
    assert len(ids) == len(set(ids))
    assert all(field["attributes"]["label"] for field in read["body"])


def test_citation_has_the_version_of_the_project() -> None:
    """Whoever cites names what was released."""
    cited = yaml.safe_load((FOLDER / "CITATION.cff").read_text("utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert cited["version"] == project["version"]
    assert cited["license"] == project["license"]
    assert cited["authors"] == project["authors"]


def test_contributors_are_told_how_to_write_the_api() -> None:
    """The command that a failing test names stands in the page as well."""
    assert COMMAND in (FOLDER / "CONTRIBUTING.md").read_text("utf-8")


def test_nothing_is_pickled() -> None:
    """The page about security says that the packages never unpickle."""
    found = [
        path.name
        for package in ("tta_primitives", "pytest_tta")
        for path in (ROOT / package).rglob("*.py")
        if re.search(
            r"^\s*(import|from) (c?[pP]ickle|shelve|dill)\b|marshal\.load",
            path.read_text("utf-8"),
            re.MULTILINE,
        )
    ]
    assert found == []
