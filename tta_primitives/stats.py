"""What the primitives of a workflow have counted, as plain data: for a health check."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from tta_primitives.description import plain
from tta_primitives.primitive import as_operand, positions

if TYPE_CHECKING:
    from tta_primitives.primitive import WorkflowPrimitive

__all__ = ["stats_of"]


def stats_of(workflow: WorkflowPrimitive[Any, Any]) -> dict[str, dict[str, Any]]:
    """Return the stats of every primitive in a workflow that has some, by its path.

    Reading them takes no lock and asks no server, so a health endpoint may do it on
    every request. The numbers are those of this process. A primitive that stands in
    several places has the same stats under each of their paths; so has a copy with
    another name.

    Primitives of your own are included if they have an attribute or a property `stats`
    that is a dataclass, a named tuple or a mapping. One whose `stats` raises is shown
    as `{"error": "ValueError"}`, by the type of what it raised.

    Args:
        workflow: The root of the tree.

    Returns:
        JSON-able data, durations in seconds; what is infinite or no number is None.

    Raises:
        OpenWrapperError: It is an open wrapper, which counts nothing.
        TypeError: It is no primitive.
    """
    found = {}
    for path, primitive in positions(as_operand(workflow)):
        stats = _stats(primitive)
        if stats is not None:
            found[path] = stats
    return found


def _stats(primitive: WorkflowPrimitive[Any, Any]) -> dict[str, Any] | None:
    """Return the stats of one primitive as plain data, None if it has none."""
    try:
        fields = _fields(primitive.stats)  # type: ignore[attr-defined]
        return None if fields is None else {k: _plain(v) for k, v in fields.items()}
    except AttributeError:
        # Either there is none, or it is a property in which an attribute is missing.
        has_stats = hasattr(type(primitive), "stats")
        return {"error": "AttributeError"} if has_stats else None
    except Exception as error:  # noqa: BLE001 - one must not hide the others
        return {"error": type(error).__name__}


def _fields(stats: object) -> dict[str, Any] | None:
    if dataclasses.is_dataclass(stats) and not isinstance(stats, type):
        names = [field.name for field in dataclasses.fields(stats)]
        return {name: getattr(stats, name) for name in names}
    as_dict = getattr(stats, "_asdict", None)
    if isinstance(stats, tuple) and as_dict is not None:
        return dict(as_dict())
    if isinstance(stats, Mapping):
        return {str(key): value for key, value in stats.items()}
    return None


def _plain(value: Any) -> Any:  # noqa: ANN401 - anything that somebody counts
    """Return a value as JSON-able data; records inside of it as well."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Enum):
        return _plain(value.value)
    fields = _fields(value)
    if fields is not None:
        return {name: _plain(inner) for name, inner in fields.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(item) for item in value), key=repr)
    return plain(value)
