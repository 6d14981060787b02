"""A workflow in words, for those who cannot see its picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tta_primitives.description import cleaned, cut

if TYPE_CHECKING:
    from tta_primitives.picture.tree import Node

__all__ = ["told"]

_MOST = 2_000


def told(node: Node) -> str:
    """Return what a workflow does, in words."""
    return cut(cleaned(f"{_told(node)}."), _MOST)


def _told(node: Node) -> str:
    below = [_inner(child) for child in node.children]
    if not below:
        return _named(node)
    if node.form == "sequence":
        words = ", then ".join(below)
        return words if node.is_plain else f"{node.name}: {words}"
    if node.form == "lanes":
        ways = [f"{lead}: {one}" if lead else one for lead, one in _led(node, below)]
        between = "; " if any(node.leads) else " and "
        return f"{_named(node)} of {between.join(ways)}"
    if node.form in {"around", "items"}:
        return f"{_named(node)} around {below[0]}"
    ways = [f"{lead}, {one}" if lead else one for lead, one in _led(node, below)]
    return f"{_named(node)} around {'; '.join(ways)}"


def _inner(node: Node) -> str:
    words = _told(node)
    is_alone = node.form in {"leaf", "rest", "around", "items"}
    return words if is_alone or not node.children else f"({words})"


def _led(node: Node, below: list[str]) -> list[tuple[str, str]]:
    leads = [*node.leads, *[""] * len(below)]
    return list(zip(leads, below, strict=False))


def _named(node: Node) -> str:
    shown = node.options
    return f"{node.name} [{', '.join(shown)}]" if shown else node.name
