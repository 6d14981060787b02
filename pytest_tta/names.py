"""The names of our fixtures; imports nothing, so that anybody may ask."""

from __future__ import annotations

__all__ = ["CAMPAIGN", "FIXTURES", "HTTP_LIBRARIES"]

FIXTURES = frozenset(
    {
        "tta",
        "tta_clock",
        "tta_faults",
        "tta_fleet",
        "tta_llm",
        "tta_tape",
        "tta_trace",
        "tta_wire",
    }
)

HTTP_LIBRARIES = frozenset({"httpx", "httpx2"})
"""What the SDKs send their requests with; the wire stands in below both."""

CAMPAIGN = ("tta_budget", "tta_shard", "tta_out", "tta_certificate")
"""The options of which each has tests explored: nobody asks for one otherwise."""
