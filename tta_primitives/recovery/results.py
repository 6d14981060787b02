"""What becomes of a result that nobody gets."""

from __future__ import annotations

from tta_primitives.door import log_once

__all__ = ["discard"]


async def discard(result: object) -> None:
    """Close a result that is thrown away, if it has `aclose()`, so that nothing leaks.

    What closing raises is logged once and dropped: the run goes on with another result.

    Args:
        result: For instance a streamed HTTP response.
    """
    aclose = getattr(result, "aclose", None)
    if aclose is None:
        return
    try:
        await aclose()
    except Exception as error:  # noqa: BLE001 - the result is of no interest any more
        log_once(aclose, error)
