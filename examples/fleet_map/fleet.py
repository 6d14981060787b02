"""The fleet: callers import it, and workers are started with it.

Without a server it is this process. With one:

    export FLEET_REDIS_URL=redis://localhost:6379/0
    taskiq worker examples.fleet_map.fleet:broker     # on each machine
    python -m examples.fleet_map
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from examples.fleet_map.newsletter import letter
from tta_primitives.distributed import Registry
from tta_primitives.integrations.taskiq import TaskiqEngine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from examples.fleet_map.newsletter import Letter

__all__ = ["Outbox", "broker", "engine", "make_engine"]


class Outbox:
    """Keeps letters instead of sending them.

    Attributes:
        sent: The letters, by key.
        asked: How often it was asked to send one.
    """

    def __init__(self) -> None:
        self.sent: dict[str, Letter] = {}
        self.asked = 0

    async def send(self, letter: Letter, *, key: str) -> None:
        """Keep a letter, unless one with this key is kept."""
        self.asked += 1
        self.sent.setdefault(key, letter)


def make_engine(settings: Mapping[str, str], registry: Registry) -> TaskiqEngine:
    """Return the engine: on Redis if the settings name one, else in this process."""
    url = settings.get("FLEET_REDIS_URL")
    if url is None:
        return TaskiqEngine(registry)
    from tta_primitives.integrations.taskiq_redis import redis_fleet

    return redis_fleet(url, registry, queue="newsletter")


engine = make_engine(os.environ, Registry(letter, deps={"mail": Outbox()}))
broker = engine.broker
