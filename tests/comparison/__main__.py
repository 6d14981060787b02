"""Probe all libraries and write the page: `python -m tests.comparison`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.comparison import page, running
from tests.comparison.breaker import BREAKER
from tests.comparison.bulkhead import BULKHEAD
from tests.comparison.cache import CACHE
from tests.comparison.fallback import FALLBACK
from tests.comparison.hedge import HEDGE
from tests.comparison.parallel import PARALLEL
from tests.comparison.rate_limit import RATE_LIMIT
from tests.comparison.retry import RETRY
from tests.comparison.saga import SAGA
from tests.comparison.timeout import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["AREAS", "PATH", "main", "text"]

AREAS = (
    RETRY,
    TIMEOUT,
    BREAKER,
    FALLBACK,
    CACHE,
    BULKHEAD,
    RATE_LIMIT,
    HEDGE,
    PARALLEL,
    SAGA,
)
PATH = Path(__file__).parents[2] / "docs" / "reference" / "comparison.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or probe one library as a process of its own.

    Args:
        arguments: Those of the command line unless given.
    """
    options = _parser().parse_args(arguments)
    if options.probe is not None:
        running.probe_all(AREAS, options.probe, options.begin)
        return 0
    options.output.write_text(text(), "utf-8")
    sys.stdout.write(f"{options.output} is written.\n")
    return 0


def text() -> str:
    """Run all probes, and return the page."""
    return page.written(AREAS, running.findings(AREAS), page.versions(AREAS))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.comparison", description=__doc__)
    parser.add_argument(
        "--output", type=Path, default=PATH, metavar="PATH", help="write it there"
    )
    parser.add_argument("--probe", metavar="NAME", help=argparse.SUPPRESS)
    parser.add_argument(
        "--from", dest="begin", type=int, default=0, help=argparse.SUPPRESS
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
