"""What makes a workflow faster: a cache that loads once for all who ask."""

from __future__ import annotations

from tta_primitives.performance.cache import CacheOptions, CachePrimitive
from tta_primitives.performance.memory import MemoryStorage
from tta_primitives.performance.records import CacheStats, Record
from tta_primitives.performance.storage import JsonSerializer, Serializer, Storage

__all__ = [
    "CacheOptions",
    "CachePrimitive",
    "CacheStats",
    "JsonSerializer",
    "MemoryStorage",
    "Record",
    "Serializer",
    "Storage",
]
