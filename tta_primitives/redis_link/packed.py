"""A list that a script returns as one text: the client reads one answer, not hundreds.

Redis has a packer for its scripts, and a client's parser in Python takes ten times as
long for a list of texts as for one text of that length.
"""

from __future__ import annotations

__all__ = ["PACKED", "unpacked"]

PACKED = """
local function packed(answers)
  local has_packer, packer = pcall(function() return cmsgpack end)
  return has_packer and packer and packer.pack(answers) or answers
end
"""
"""Lua that makes a text of a list, where there is a packer; some doubles have none."""

_LIST_16, _LIST_32 = 0xDC, 0xDD
_FALSE = 0xC2
_SHORT_LIST = range(0x90, 0xA0)
_SHORT_TEXT = range(0xA0, 0xC0)
# The bytes that follow say how long a text is; so many of them.
_TEXT_LENGTHS = {0xD9: 1, 0xDA: 2, 0xDB: 4}


def unpacked(data: bytes) -> list[bytes | int | None]:
    """Return a list of texts, small negative numbers, and None for false.

    Args:
        data: What `packed` made of it.

    Raises:
        ValueError: It was made of something else.
    """
    count, at = _list_head(data)
    items: list[bytes | int | None] = []
    while at < len(data):
        kind = data[at]
        at += 1
        width = _TEXT_LENGTHS.get(kind)
        if width is not None:
            begin = at + width
            at = begin + int.from_bytes(data[at:begin])
            items.append(data[begin:at])
        elif kind in _SHORT_TEXT:
            begin, at = at, at + (kind & 0x1F)
            items.append(data[begin:at])
        elif kind == _FALSE:
            items.append(None)
        else:
            items.append(kind - 256)
    if len(items) != count or at != len(data):
        msg = f"{len(items)} items in a list of {count}"
        raise ValueError(msg)
    return items


def _list_head(data: bytes) -> tuple[int, int]:
    """Return the length of the list and where it begins."""
    kind = data[0] if data else 0
    if kind in _SHORT_LIST:
        return kind & 0x0F, 1
    if kind == _LIST_16:
        return int.from_bytes(data[1:3]), 3
    if kind == _LIST_32:
        return int.from_bytes(data[1:5]), 5
    msg = "this is no packed list"
    raise ValueError(msg)
