"""Lists that a script of Redis returns as one text, read without a library."""

from __future__ import annotations

import msgpack
import pytest

from tta_primitives.redis_link.packed import unpacked

ITEMS = {
    "nothing": [],
    "short texts": [b"", b"a", b"x" * 31],
    "a text with a length of one byte": [b"x" * 32, b"y" * 255],
    "a text with a length of two bytes": [b"x" * 256, b"y" * 65_535, b"z"],
    "a text with a length of four bytes": [b"x" * 65_536, b"z"],
    "false, and small negative numbers": [None, -1, -32, b"a"],
    "as many as a short list holds": [b"a"] * 15,
    "one more": [b"a"] * 16,
    "more than two bytes can count": [b"a"] * 65_536,
}


@pytest.mark.parametrize("items", ITEMS.values(), ids=ITEMS.keys())
def test_what_the_packer_of_redis_writes_is_read_back(items):
    """Every length of texts and lists has its own head, which both sides know."""
    # Lua has one kind of text, and false for nothing.
    in_lua = [
        item.decode() if isinstance(item, bytes) else item or False for item in items
    ]
    assert unpacked(msgpack.packb(in_lua)) == items


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "this is no packed list"),
        (b"\xc0", "this is no packed list"),
        (b"+OK", "this is no packed list"),
        (b"\x92\xa1a", "1 items in a list of 2"),
        (b"\x91\xa1a\xa1b", "2 items in a list of 1"),
        (b"\x91\xa5a", "in a list of 1"),
    ],
)
def test_what_is_no_packed_list_is_refused(data, said):
    """Half of an answer, or another answer, is never taken for a shorter list."""
    with pytest.raises(ValueError, match=said):
        unpacked(data)
