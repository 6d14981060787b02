"""Print the dashboard for Grafana or the alert rules for Prometheus.

python -m tta_primitives.observability dashboard > workflows.json
python -m tta_primitives.observability alerts > alerts.yml
"""

from __future__ import annotations

import argparse
import sys
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_FILES = {"dashboard": "workflows.json", "alerts": "alerts.yml"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what is asked for, and return the exit code.

    Args:
        arguments: Those of the command line unless given.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tta_primitives.observability",
        description="Print the dashboard for Grafana or the alerts for Prometheus.",
    )
    parser.add_argument("what", choices=sorted(_FILES))
    what = parser.parse_args(arguments).what
    folder = files("tta_primitives.observability") / "dashboards"
    sys.stdout.write((folder / _FILES[what]).read_text("utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
