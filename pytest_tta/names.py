"""The names of our fixtures; imports nothing, so that anybody may ask."""

from __future__ import annotations

__all__ = ["FIXTURES"]

FIXTURES = frozenset(
    {
        "tta",
        "tta_clock",
        "tta_faults",
        "tta_llm",
        "tta_tape",
        "tta_trace",
        "tta_wire",
    }
)
