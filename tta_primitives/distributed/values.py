"""What may cross between processes: JSON that comes back exactly as it was."""

from __future__ import annotations

import json
import math
from typing import Any

from tta_primitives.distributed.errors import RemoteValueError

__all__ = ["check_json", "is_json", "read_json", "write_json"]

_EXACT = frozenset({type(None), bool, int, str})


def check_json(value: object, what: str) -> None:
    """Check that a value is JSON, and would come back equal and of the same types.

    A tuple would come back as a list, and a key 1 as "1": these are refused as well.

    Args:
        value: What is to be sent.
        what: What it is, for the message: `the input of 'charge'`.

    Raises:
        RemoteValueError: It is not; the message tells where, and of which type.
    """
    try:
        found = _flaw(value)
    except RecursionError:
        found = "", "is nested too deeply, or holds itself"
    if found is None:
        return
    where, reason = found
    msg = (
        f"{what} cannot be sent to another process: value{where} {reason}. Send None, "
        "bool, int, float, str, list and dict with str keys, or give a codec, for "
        "instance codec=TypeCodec(Order, Receipt)"
    )
    raise RemoteValueError(msg)


def is_json(value: object) -> bool:
    """Tell whether a value is JSON, and would come back equal and of the same types."""
    try:
        return _flaw(value) is None
    except RecursionError:
        return False


def _flaw(value: object) -> tuple[str, str] | None:
    """Return where a value is no JSON, and what is wrong there; None if it is."""
    kind = type(value)
    if kind in _EXACT:
        return None
    if kind is float:
        is_finite = math.isfinite(value)  # type: ignore[arg-type]
        return None if is_finite else ("", f"is {value!r}, which JSON does not have")
    if kind is list:
        return _flaw_below(enumerate(value))  # type: ignore[arg-type]
    if kind is dict:
        for key in value:  # type: ignore[attr-defined]
            if type(key) is not str:
                return "", f"has a key of type {type(key).__name__}"
        return _flaw_below(value.items())  # type: ignore[attr-defined]
    shown = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    return "", f"is of type {shown}"


def _flaw_below(members: Any) -> tuple[str, str] | None:  # noqa: ANN401 - pairs of any kind
    for key, member in members:
        if type(member) not in _EXACT:
            found = _flaw(member)
            if found is not None:
                where, reason = found
                return f"[{key!r}]{where}", reason
    return None


def write_json(value: object) -> str:
    """Return checked data as JSON text, in ASCII: lone surrogates survive as well."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def read_json(text: str | bytes) -> Any:  # noqa: ANN401 - whatever was written
    """Return what JSON text holds.

    Raises:
        ValueError: It is no JSON.
    """
    return json.loads(text)
