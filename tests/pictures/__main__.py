"""Draw all pictures anew: `python -m tests.pictures`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.pictures import layouts, scenes, workflows

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FOLDER", "PICTURES", "main"]

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"

PICTURES: dict[str, Callable[[], str]] = {
    "answer": workflows.answer,
    "breaker": lambda: scenes.breaker().drawn(),
    "breaker-states": lambda: layouts.breaker_states().drawn(),
    "bulkhead": lambda: scenes.bulkhead().drawn(),
    "cache": lambda: scenes.cache().drawn(),
    "coverage": workflows.covered,
    "fallback": lambda: scenes.fallback().drawn(),
    "hedge": lambda: scenes.hedge().drawn(),
    "parallel": lambda: scenes.parallel().drawn(),
    "rate-limit": lambda: scenes.rate_limit().drawn(),
    "resilient": lambda: layouts.order().drawn(),
    "retry": lambda: scenes.retry().drawn(),
    "saga": lambda: scenes.saga().drawn(),
    "single-flight": lambda: scenes.single_flight().drawn(),
    "support": workflows.support,
    "timeout": lambda: scenes.timeout().drawn(),
}


def main() -> int:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        (FOLDER / f"{name}.svg").write_text(draw(), "utf-8")
    sys.stdout.write(f"{len(PICTURES)} pictures are drawn.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
