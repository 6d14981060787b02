"""The catalogue of primitives is complete."""

from __future__ import annotations

import importlib
import re

from tests.repository.source import ROOT, modules
from tta_primitives import WorkflowPrimitive

CATALOGUE = ROOT / "docs" / "reference" / "catalogue.md"
LINK = re.compile(r"\{py:class\}`~([\w.]+)\.(\w+)`")


def exported() -> set[type]:
    """Return every primitive that the runtime and its integrations export."""
    found = set()
    for module in modules("tta_primitives"):
        if module.is_face or ".integrations." in module.name:
            face = importlib.import_module(module.name)
            found |= {getattr(face, name) for name in getattr(face, "__all__", ())}
    kinds = {one for one in found if isinstance(one, type)}
    return {one for one in kinds if issubclass(one, WorkflowPrimitive)}


def test_every_primitive_is_in_the_catalogue() -> None:
    """A primitive that is exported has a row, by a name that can be imported."""
    page = CATALOGUE.read_text("utf-8")
    listed = {
        getattr(importlib.import_module(module), name)
        for module, name in LINK.findall(page)
    }
    assert exported() - listed == set()
    assert listed - exported() == set()
