"""Put the page together: the template, its style and scripts, and the record."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from pytest_tta.report.html.plain import body, title

if TYPE_CHECKING:
    from pytest_tta.report.record import ItemRecord, SessionRecord

__all__ = ["page"]

# In the order in which they stand in the page.
_SCRIPTS: Final = (
    *("dom", "words", "scale", "run", "stretch", "axis", "rows", "gestures"),
    *("timeline", "details", "list", "article", "paper", "main"),
)
_PLACE: Final = re.compile(r"\{\{(\w+)\}\}")
# Scripts have no other numbers than 64-bit floats.
_MOST_EXACT: Final = 2**53
_HALF: Final = re.compile("[\ud800-\udfff]")
# What could end the element that the record is in, or a line of a script.
_ESCAPES: Final = {ord(one): f"\\u{ord(one):04x}" for one in "<>&\u2028\u2029"}


def page(record: SessionRecord) -> str:
    """Return a page about a session, as HTML.

    Args:
        record: What is told of the session.
    """
    style, script = _style(), _script()
    parts = {
        "plain": body(record),
        "policy": _policy(style, script),
        "record": _embedded(record),
        "script": script,
        "style": style,
        "title": title(record),
    }
    text = _PLACE.sub(lambda found: parts[found[1]], _read("page.html"))
    return _HALF.sub("\ufffd", text)


def _policy(style: str, script: str) -> str:
    """Return what a browser may do: run this script, apply this style, no more."""
    return "; ".join(
        (
            "default-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "img-src data:",
            f"script-src {_hashed(script)}",
            f"style-src {_hashed(style)}",
        )
    )


def _hashed(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _embedded(record: SessionRecord) -> str:
    told = _with_exact_seeds(record)
    try:
        text = _as_json(told)
    except ValueError:
        # JSON knows no infinity, which somebody may well have waited for.
        text = _as_json(_finite(told))
    return text.translate(_ESCAPES)


def _with_exact_seeds(record: SessionRecord) -> dict[str, Any]:
    """Return a record with seeds that a script would round written as text."""
    tests = [{**test, "tta": _with_exact_seed(test["tta"])} for test in record["tests"]]
    return {**record, "seed": _exact(record["seed"]), "tests": tests}


def _with_exact_seed(told: ItemRecord | None) -> dict[str, Any] | None:
    return None if told is None else {**told, "seed": _exact(told["seed"])}


def _exact(number: int) -> int | str:
    return number if abs(number) <= _MOST_EXACT else str(number)


def _as_json(data: object) -> str:
    separators = (",", ":")
    return json.dumps(data, allow_nan=False, ensure_ascii=False, separators=separators)


def _finite(data: Any) -> Any:  # noqa: ANN401 - nested data
    """Return nested data with numbers that are none written as text."""
    if isinstance(data, float) and not math.isfinite(data):
        return str(data)
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_finite(value) for value in data]
    return data


@cache
def _style() -> str:
    return _read("page.css")


@cache
def _script() -> str:
    parts = "\n".join(_read(f"script/{name}.js") for name in _SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def _read(name: str) -> str:
    return resources.files("pytest_tta.report.html").joinpath(name).read_text("utf-8")
