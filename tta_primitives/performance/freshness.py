"""How a cache learns from the one below how fresh a value still is.

A value that has ten seconds left below must not begin a new life of an hour above. The
upper cache leaves a slip where the lower one finds it, in a context variable, because
there may be retries, timeouts and breakers between them, and tasks of a hedge.
"""

from __future__ import annotations

from contextvars import ContextVar

__all__ = ["SLIP", "Slip", "slip_for"]


class Slip:
    """What an upper cache asks of the cache below.

    Attributes:
        asked: The cache that is to fill it in.
        value: What that cache answered with.
        fresh_for: Seconds until that is stale; not above 0 if it already is, or must
            not be kept.
        tags: What it can be invalidated by below, and so must be above.
    """

    __slots__ = ("asked", "fresh_for", "is_filled", "tags", "value")

    def __init__(self, asked: object) -> None:
        self.asked: object = asked
        self.is_filled: bool = False
        self.value: object = None
        self.fresh_for: float = 0.0
        self.tags: tuple[str, ...] = ()

    def fill(self, value: object, fresh_for: float, tags: tuple[str, ...]) -> None:
        """Tell how long a value may be kept."""
        self.value = value
        self.fresh_for = fresh_for
        self.tags = tags
        self.is_filled = True

    def tells_of(self, value: object) -> bool:
        """Tell whether it is about this very value.

        It is not if a fallback answered in place of the cache below, or if what lies
        between the two has made something else of the answer.
        """
        return self.is_filled and self.value is value


SLIP: ContextVar[Slip | None] = ContextVar("tta_cache_slip", default=None)
"""What a cache around the present call asks."""


def slip_for(cache: object) -> Slip | None:
    """Return the slip that this cache is to fill in, if there is one."""
    slip = SLIP.get()
    return slip if slip is not None and slip.asked is cache else None
