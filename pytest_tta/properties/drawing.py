"""How rules and options are drawn: quickly, and so that they shrink to few."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_tta.properties.needed import needed_hypothesis

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hypothesis.strategies import DrawFn, SearchStrategy

__all__ = ["dictionaries", "packed", "triples"]

# How many values a byte has; for more it takes several of them.
_BYTE = 256


def packed(most: int, counts: tuple[int, int, int]) -> SearchStrategy[bytes]:
    """Generate what `triples` reads, all of it in one draw.

    A draw costs a sixth of an empty example. Bytes shrink one by one, as numbers would.

    Args:
        most: So many triples there are at most.
        counts: How many values each number of a triple has.
    """
    st = needed_hypothesis().strategies
    found: SearchStrategy[bytes] = st.binary(max_size=most * 3 * _width(counts))
    return found


def triples(drawn: bytes, counts: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """Read triples of numbers, each from 0 and less than how many values it has.

    Where the first is as if it were -1 there is no triple: what does not matter becomes
    zeros, while taking three bytes away is no step that shrinks.

    Args:
        drawn: What `packed` has generated for these counts.
        counts: How many values each number has.
    """
    first, second, third = counts
    width = _width(counts)
    numbers: bytes | list[int] = drawn
    if width > 1:
        numbers = [
            int.from_bytes(drawn[at : at + width], "big")
            for at in range(0, len(drawn) - width + 1, width)
        ]
    return [
        (chosen - 1, numbers[at + 1] % second, numbers[at + 2] % third)
        for at in range(0, len(numbers) - 2, 3)
        if (chosen := numbers[at] % (first + 1))
    ]


def _width(counts: tuple[int, int, int]) -> int:
    """Return how many bytes a number takes."""
    return 1 if max(counts) < _BYTE else 4


def dictionaries(
    required: Mapping[str, SearchStrategy[Any]],
    optional: Mapping[str, SearchStrategy[Any]],
) -> SearchStrategy[dict[str, Any]]:
    """Generate dictionaries; those with none of the optional keys are the plainest.

    `fixed_dictionaries` draws which key is next among those left, so that to leave one
    out changes all that come after it; some examples keep keys that do not matter.

    Args:
        required: Strategies of the values of keys that are always there.
        optional: Those of keys that may be.
    """
    st = needed_hypothesis().strategies
    is_there = st.booleans()

    def drawn(draw: DrawFn) -> dict[str, Any]:
        found = {key: draw(values) for key, values in required.items()}
        for key, values in optional.items():
            if draw(is_there):
                found[key] = draw(values)
        return found

    found: SearchStrategy[dict[str, Any]] = st.composite(drawn)()
    return found
