"""What makes a workflow faster: a cache that loads once for all who ask."""

from __future__ import annotations

from tta_primitives.performance.cache import CacheOptions, CachePrimitive
from tta_primitives.performance.memory import MemoryStorage
from tta_primitives.performance.records import CacheStats, Record, UnreadableRecord
from tta_primitives.performance.redis_storage import RedisStorage
from tta_primitives.performance.serializers import (
    JsonSerializer,
    MsgpackSerializer,
    Serializer,
)
from tta_primitives.performance.storage import LeaseStorage, Storage

__all__ = [
    "CacheOptions",
    "CachePrimitive",
    "CacheStats",
    "JsonSerializer",
    "LeaseStorage",
    "MemoryStorage",
    "MsgpackSerializer",
    "Record",
    "RedisStorage",
    "Serializer",
    "Storage",
    "UnreadableRecord",
]
