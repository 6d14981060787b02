"""Write a file as a whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(path: Path, text: str) -> None:
    """Write a file so that nobody ever sees half of it; its folders are made.

    Args:
        path: The file; an earlier one is replaced. Of a link it is what that leads to.
        text: What is in it.

    Raises:
        OSError: It cannot be written; an earlier one is as it was.
    """
    if path.exists() and not path.is_file():
        # A pipe or a device, such as /dev/stdout, is written to and not replaced.
        path.write_text(text, encoding="utf-8", newline="\n")
        return
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tta-", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        # As other files of a project are, and not for its owner alone.
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
