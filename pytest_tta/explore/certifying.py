"""The certificates of a session: what was found, as plain tests in a folder."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tta.writing import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pytest_tta.explore.outcome import Outcome

__all__ = ["Certificates"]


class Certificates:
    """Writes down what was found in tests, each in a file of its own.

    Args:
        folder: Where they are written; None to write none.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._names: Counter[str] = Counter()

    def name(self, items: Iterable[pytest.Item]) -> None:
        """Learn the names of a session's tests, which files are to be told apart by.

        Args:
            items: All tests of the session.
        """
        self._names.update(getattr(item, "originalname", "") for item in items)

    def write(self, item: Any, found: Outcome | None) -> str:  # noqa: ANN401 - pytest.Function tells no types
        """Write down what was found as a plain test, and say where, or why not.

        Args:
            item: The test.
            found: What was found; None if nothing was.
        """
        if self._folder is None or found is None:
            return ""
        from pytest_tta.explore.certificate import certificate

        classes = [
            node.name for node in item.listchain() if isinstance(node, pytest.Class)
        ]
        try:
            source = certificate(
                found,
                node_id=item.nodeid,
                test_file=str(item.path),
                test_name=".".join([*classes, item.originalname]),
            )
            path = self._folder / f"{self._name_of(item)}_certificate.py"
            write_whole(path, source)
        except (OSError, ValueError) as error:
            return str(error)
        return f"wrote {path}"

    def _name_of(self, item: Any) -> str:  # noqa: ANN401 - as above
        """Return a name that no other test of the session has for its certificate."""
        name: str = item.originalname
        if self._names[name] > 1:
            digest = hashlib.sha256(item.nodeid.encode()).hexdigest()[:6]
            return f"{name}_{digest}"
        return name
