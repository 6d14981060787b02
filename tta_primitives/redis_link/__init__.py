"""How primitives talk to a Redis that they share: `link_to` a client is all they know.

Behind it, what is asked in one iteration of the loop is gathered (`batches`), sent
over the client's connections (`wire`) within a time limit (`watch`), and unpacked
(`packed`).
"""

from __future__ import annotations

from tta_primitives.redis_link.batches import (
    COMMAND_SECONDS,
    LinkDownError,
    Lookup,
    Script,
)
from tta_primitives.redis_link.link import COOL_DOWN_SECONDS, is_redis, link_to
from tta_primitives.redis_link.packed import PACKED

__all__ = [
    "COMMAND_SECONDS",
    "COOL_DOWN_SECONDS",
    "PACKED",
    "LinkDownError",
    "Lookup",
    "Script",
    "is_redis",
    "link_to",
]
