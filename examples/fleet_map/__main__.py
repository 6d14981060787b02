"""The command: `python -m examples.fleet_map 500` sends letters to so many."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

from examples.fleet_map.fleet import engine
from examples.fleet_map.newsletter import build_newsletter
from tta_primitives import WorkflowContext

if TYPE_CHECKING:
    from collections.abc import Sequence

    from examples.fleet_map.newsletter import Subscriber

TOPICS = ("retries", "caches", "fleets")


def main(arguments: Sequence[str] | None = None) -> int:
    """Send the newsletter to made-up subscribers; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.fleet_map",
        description="Send a newsletter from a fleet of workers.",
        epilog="With FLEET_REDIS_URL set, the workers of that Redis send it.",
    )
    parser.add_argument("count", nargs="?", type=int, default=200, help="subscribers")
    count = parser.parse_args(arguments).count
    print(json.dumps(asyncio.run(_send(subscribers(count)))))
    return 0


def subscribers(count: int) -> list[Subscriber]:
    """Return so many made-up subscribers."""
    return [
        {
            "name": f"Reader {number}",
            "address": f"reader-{number}@example.org",
            "topics": [TOPICS[number % len(TOPICS)]],
        }
        for number in range(count)
    ]


async def _send(to: list[Subscriber]) -> dict[str, Any]:
    async with engine:
        return await build_newsletter(engine).execute(to, WorkflowContext())


if __name__ == "__main__":
    sys.exit(main())
