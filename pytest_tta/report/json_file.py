"""A session as JSON: for dashboards, for scripts, and for whoever comes later."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tta.writing import write_whole

if TYPE_CHECKING:
    from pytest_tta.report.record import SessionRecord

__all__ = ["schema_text", "text", "write"]


def text(record: SessionRecord) -> str:
    """Return what a session came to as JSON, valid against the published schema.

    Args:
        record: What it came to.
    """
    return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write(record: SessionRecord, path: Path) -> None:
    """Write what a session came to, as a whole or not at all.

    Args:
        record: What it came to.
        path: The file.

    Raises:
        OSError: It cannot be written.
    """
    write_whole(path, text(record))


def schema_text() -> str:
    """Return the JSON schema (draft 2020-12) of the file."""
    return Path(__file__).with_name("schema.json").read_text(encoding="utf-8")
