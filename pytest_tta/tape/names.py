"""Where the tape of a test is: a name that every file system takes, one for each."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["checked_name", "tape_path"]

_FOLDER = "tapes"
_LONGEST = 80


def tape_path(test_file: Path, names: list[str], name: str | None = None) -> Path:
    """Return where the tape of a test is, without the end of the file's name.

    Args:
        test_file: The file of the test.
        names: Its classes, if it stands in any, and its own name with its parameters.
        name: What it is called instead.

    Raises:
        TypeError: The name is no text.
        ValueError: It is empty, or leads elsewhere.
    """
    folder = test_file.parent / _FOLDER / test_file.stem
    if name is not None:
        return folder / checked_name(name)
    function, bracket, parameters = names[-1].partition("[")
    plain = ".".join([*names[:-1], function])
    if bracket:
        plain += f"-{_safe(parameters.removesuffix(']'))}"
    return folder / plain


def checked_name(name: str) -> str:
    """Return a name that a user has given.

    Raises:
        TypeError: It is no text.
        ValueError: It is empty, or leads elsewhere.
    """
    if not isinstance(name, str):
        msg = f"name={name!r} must be a text, such as 'weather'"
        raise TypeError(msg)
    if re.fullmatch(r"[\w-][\w. -]*", name) is None:
        msg = f"name={name!r} must be a file's name without a folder, such as 'weather'"
        raise ValueError(msg)
    return re.sub(r"\.(?:yaml|json)\Z", "", name)


def _safe(parameters: str) -> str:
    """Return parameters as part of a name; with a digest if that changes them."""
    safe = re.sub(r"[^a-z0-9._-]+", "_", parameters.lower())[:_LONGEST].strip("_.")
    if safe == parameters:
        return safe
    digest = hashlib.sha256(parameters.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{safe}-{digest[:8]}".lstrip("-")
