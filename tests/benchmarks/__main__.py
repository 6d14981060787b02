"""Print every target beside what is measured: `python -m tests.benchmarks`."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks import (
    exploring,
    harness,
    imports,
    on_asgi,
    on_redis,
    on_wsgi,
    runtime,
    sessions,
    weight,
)
from tests.benchmarks.measure import FULL, QUICK
from tests.benchmarks.table import (
    NoReferenceError,
    Outcome,
    as_json,
    missed,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.benchmarks.measure import Pace
    from tests.benchmarks.table import Row

__all__ = ["SECTIONS", "main"]

SECTIONS = (
    runtime.ROWS,
    on_redis.ROWS,
    on_asgi.ROWS,
    on_wsgi.ROWS,
    weight.ROWS,
    imports.ROWS,
    harness.ROWS,
    exploring.ROWS,
    sessions.ROWS,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and return the exit status.

    Args:
        arguments: Those of the command line unless given.
    """
    options = _parser().parse_args(arguments)
    pace = QUICK if options.quick else FULL
    outcomes = list(_outcomes(options.only, pace))
    print(written(outcomes))
    if options.json is not None:
        options.json.write_text(as_json(outcomes), "utf-8")
    lines = missed(outcomes)
    if lines:
        print("Missed:", *lines, sep="\n  ")
    return 1 if options.check and lines else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 if a row misses")
    parser.add_argument("--quick", action="store_true", help="few rounds: a rough look")
    parser.add_argument(
        "--json", type=Path, metavar="PATH", help="write it there as well"
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="ROW", help="rows that begin like this"
    )
    return parser


def _outcomes(only: list[str], pace: Pace) -> Iterator[Outcome]:
    for rows in SECTIONS:
        for row in rows:
            if not only or row.key.startswith(tuple(only)):
                print(f"{row.key} ...", file=sys.stderr, flush=True)
                yield _outcome(rows.title, row, pace)


def _outcome(section: str, row: Row, pace: Pace) -> Outcome:
    if row.measure is None:
        return Outcome(section, row)
    try:
        with warnings.catch_warnings():
            # Of what they use, peers are warned, and it is not ours to hear.
            warnings.simplefilter("ignore", DeprecationWarning)
            return Outcome(section, row, row.measure(pace))
    except ModuleNotFoundError as error:
        return Outcome(section, row, absent=f"{error.name} not installed")
    except NoReferenceError as error:
        return Outcome(section, row, absent=str(error))
    except Exception as error:  # One that breaks must not hide the others.
        return Outcome(section, row, problem=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    sys.exit(main())
