"""Say where in the user's own files something happens."""

from __future__ import annotations

import asyncio.events
import os
import sys
from functools import cache, lru_cache
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import CodeType, FrameType

__all__ = ["Spot", "caller_spot", "is_library", "is_ours", "place", "user_spot"]

Spot = tuple["CodeType", int]
"""A code object and the offset of the instruction that runs in it."""

_HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - no cost
_ROOT = os.path.dirname(os.path.dirname(_HERE))  # noqa: PTH120 - no cost
_OUR_FOLDERS = (
    os.path.join(_ROOT, "tta_primitives", ""),  # noqa: PTH118 - compared as text
    os.path.join(_ROOT, "pytest_tta", ""),  # noqa: PTH118 - compared as text
)
_PYTHON = os.path.dirname(asyncio.events.__file__)  # noqa: PTH120 - compared as text
_PACKAGE_FOLDERS = ("site-packages", "dist-packages")
_TOP_OF_CALLBACK = asyncio.events.Handle._run.__code__
_known: dict[str, bool] = {}


@cache
def _library_folders() -> tuple[str, ...]:
    # Importing it takes a while, and most sessions never ask.
    import sysconfig

    paths = map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib"))
    return (*{path + os.sep for path in paths}, *_OUR_FOLDERS)


def is_library(filename: str) -> bool:
    """Tell whether a file belongs to Python, an installed package or to us."""
    known = _known.get(filename)
    if known is None:
        known = _known[filename] = _classify(filename)
    return known


def _classify(filename: str) -> bool:
    if filename.startswith("<"):
        return True
    path = os.path.abspath(filename)  # noqa: PTH100 - compared as text
    if path.startswith(_library_folders()):
        return True
    return any(f"{os.sep}{name}{os.sep}" in path for name in _PACKAGE_FOLDERS)


def is_ours(filename: str) -> bool:
    """Tell whether a file belongs to the primitives or to this plugin."""
    return filename.startswith(_OUR_FOLDERS)


def user_spot(frame: FrameType | None) -> Spot | None:
    """Find the innermost frame of the user's own code, else the innermost not Python's.

    The search ends where the event loop called: what is below started the loop
    and did not ask for anything.
    """
    innermost = frame
    is_pythons = True
    while frame is not None and frame.f_code is not _TOP_OF_CALLBACK:
        code = frame.f_code
        filename = code.co_filename
        known = _known.get(filename)
        if not (is_library(filename) if known is None else known):
            return code, frame.f_lasti
        if is_pythons and not filename.startswith(_PYTHON):
            innermost, is_pythons = frame, False
        frame = frame.f_back
    return None if innermost is None else (innermost.f_code, innermost.f_lasti)


def caller_spot(*ours: str) -> Spot | None:
    """Find the user's line that is calling into some of our modules.

    Past them, or a line typed into a REPL would be taken for one of ours.

    Args:
        ours: What the names of the modules begin with.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith(ours):
        frame = frame.f_back
    return user_spot(frame)


def place(spot: Spot | None) -> str:
    """Write a spot as `tests/test_x.py:12 in test_x`."""
    if spot is None:
        return "unknown place"
    code, offset = spot
    return f"{_short(code.co_filename)}:{_line(code, offset)} in {code.co_qualname}"


@lru_cache(maxsize=512)
def _line(code: CodeType, offset: int) -> int:
    index = max(offset, 0) // 2
    positions = next(islice(code.co_positions(), index, None), None)
    line = positions[0] if positions else None
    return code.co_firstlineno if line is None else line


def _short(filename: str) -> str:
    """Cut a path to what follows the working directory, else to its end."""
    here = os.getcwd() + os.sep  # noqa: PTH109 - compared as text
    if filename.startswith(here):
        return filename[len(here) :].replace(os.sep, "/")
    return "/".join(filename.replace(os.sep, "/").split("/")[-2:])
