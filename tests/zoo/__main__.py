"""Print what the default search finds in the zoo: `python -m tests.zoo [NAME ...]`.

`python -m tests.zoo --outputs` writes what sessions say of some of them.
"""

from __future__ import annotations

import sys

from tests.zoo.catalogue import ZOO
from tests.zoo.documents import write_all
from tests.zoo.visit import visit

_ROW = "{:22} {:13} {:23} {:>5} {:>5} {:>7} {:26} {}\n".format


def main(names: list[str]) -> None:
    """Print a row for each bug.

    Args:
        names: Which bugs; none for all. Or `--outputs`.
    """
    if names == ["--outputs"]:
        write_all()
        return
    out = sys.stdout.write
    out(_ROW("bug", "found by", "verdict", "first", "all", "CPU ms", "size", "line"))
    for bug in ZOO:
        if names and bug.name not in names:
            continue
        seen = visit(bug, bug.buggy)
        kind = seen.found.verdict.kind if seen.found is not None else "NOT FOUND"
        if seen.found is not None and kind not in bug.kinds:
            kind += " (!)"
        milliseconds = f"{seen.seconds * 1000:.0f}"
        counts = seen.first, seen.executions, milliseconds
        out(_ROW(bug.name, seen.via, kind, *counts, seen.size, seen.line))


if __name__ == "__main__":
    main(sys.argv[1:])
