"""Draw a workflow: frames around what they wrap, and arrows between what runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tta_primitives.arguments import check_choice, check_count
from tta_primitives.description import cleaned, cut
from tta_primitives.picture.arrange import (
    Leg,
    lanes,
    margin,
    pile,
    sequence,
    turns,
    undone,
)
from tta_primitives.picture.shapes import Block, box, line, placed, tip
from tta_primitives.picture.style import framed
from tta_primitives.picture.tale import told
from tta_primitives.picture.tokens import chip, flow, names, option, soft
from tta_primitives.picture.tree import tree_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tta_primitives.description import Description
    from tta_primitives.picture.style import Theme
    from tta_primitives.picture.tokens import Chip, Token
    from tta_primitives.picture.tree import Node

__all__ = ["WIDTH", "Remark", "drawn"]

WIDTH = 736
_MARGIN = 40
_NARROWEST = 144.0
# No line of words is longer, so that a box is not as wide as its longest option.
_LINE = 216.0
_PAD, _DEEP_PAD, _DEEP = 12.0, 5.0, 8
_MOST_OPTIONS = 6
_STACK = 8.0
_MOST_TALE = 4_000


@dataclass(frozen=True, slots=True)
class Remark:
    """What is told of one primitive beside its name and its options.

    Attributes:
        summary: In short, beside the name.
        chips: Below the options.
    """

    summary: str
    chips: Sequence[Chip]


def drawn(
    description: Description,
    *,
    title: str = "",
    theme: Theme = "auto",
    width: int = WIDTH,
    remarks: Mapping[str, Remark] | None = None,
    legend: Sequence[Chip] = (),
    tale: str = "",
) -> str:
    """Return a picture of a workflow as SVG.

    Args:
        description: What `describe()` says of it.
        title: What the picture shows; the workflow's name unless given.
        theme: "light", "dark", or "auto" for the reader's choice.
        width: How wide it should be at most, in pixels; what does not fit beside each
            other stands below each other.
        remarks: What is told of the primitives, by their paths.
        legend: What the chips mean.
        tale: What is told beside the workflow to those who cannot see it.

    Raises:
        ValueError: The theme is unknown, or the width is no whole number above 0.
    """
    check_choice("theme", theme, ("auto", "light", "dark"))
    check_count("width", width, minimum=1)
    root = tree_of(description)
    room = max(width - _MARGIN, _NARROWEST)
    block = _Drawing(remarks or {}).block(root, room, 0)
    if legend:
        block = _with_legend(block, legend, room)
    title = title or f"Workflow {root.name}"
    words = " ".join(one for one in (told(root), cut(cleaned(tale), _MOST_TALE)) if one)
    return framed(block, cut(cleaned(title), 200), words, theme)


def _with_legend(block: Block, legend: Sequence[Chip], room: float) -> Block:
    below = flow([chip(one, room) for one in legend], max(block.width, 216))
    top = block.height + 16
    svg = block.svg + below.drawn(0, top)
    width = max(block.width, below.width)
    return Block(width, top + below.height, 0, 0, width, svg)


class _Drawing:
    """Draws the primitives of one workflow.

    Args:
        remarks: What is told of them, by their paths.
    """

    def __init__(self, remarks: Mapping[str, Remark]) -> None:
        self._remarks = remarks
        self._bodies: dict[str, Callable[[Node, float, int], Block]] = {
            "lanes": self._lanes,
            "turns": self._turns,
            "undone": self._undone,
            "saga": self._saga,
            "items": self._items,
            "around": self._around,
            "pile": self._pile,
            "sequence": self._sequence,
        }

    def block(self, node: Node, room: float, depth: int) -> Block:
        """Return a primitive with everything below it.

        Args:
            node: The primitive.
            room: How wide it should be at most.
            depth: How many frames are around it.
        """
        if node.form in {"leaf", "rest"}:
            return self._leaf(node, room)
        if self._is_bare(node):
            return self._sequence(node, room, depth)
        is_turning = any(one.form == "sequence" for one in (node, *node.children))
        pad = _PAD if depth < _DEEP or is_turning else _DEEP_PAD
        inner = max(room - 2 * pad, _NARROWEST)
        body = self._bodies[node.form](node, inner, depth + 1)
        is_led = node.form in {"lanes", "turns"}
        return self._frame(node, body if is_led else margin(body, pad), room, pad)

    def _is_bare(self, node: Node) -> bool:
        """Tell whether it is a chain of which there is nothing to be said."""
        is_chain = node.form == "sequence" and node.is_plain and not node.options
        return is_chain and node.path not in self._remarks

    def _leaf(self, node: Node, room: float) -> Block:
        limit = max(min(room - 2 * _PAD, _LINE), _NARROWEST - 2 * _PAD)
        words = flow(self._tokens(node, limit), limit)
        width, height = max(words.width + 2 * _PAD, 56.0), words.height + 14
        kind = "rest" if node.form == "rest" else f"leaf {node.tone}"
        drawn = box(0, 0, width, height, kind, 6) + words.drawn(0, 7, middle=width / 2)
        svg = _node_group(node, drawn)
        return Block(width, height, height / 2, height / 2, width, svg)

    def _frame(self, node: Node, body: Block, room: float, pad: float) -> Block:
        """Put a frame around what is below a primitive, with its name above it."""
        limit = max(body.width - 2 * pad, min(room - 2 * pad, _LINE), _NARROWEST)
        words = flow(self._tokens(node, limit), limit)
        width = max(body.width, words.width + 2 * pad)
        top = words.height + 15
        height = top + body.height + max(pad, 8)
        left = (width - body.width) / 2
        at = top + body.enter
        parts = [
            box(0, 0, width, height, f"frame {node.tone}", 8),
            words.drawn(pad, 6),
            placed(body, left, top),
        ]
        leave = at
        if node.form in {"lanes", "turns"}:
            leave = top + body.leave
            parts += _to_the_edges(body, left, width, at, leave)
        svg = _node_group(node, "".join(parts))
        return Block(width, height, at, leave, width, svg)

    def _tokens(self, node: Node, room: float) -> Iterator[Token]:
        yield from names(node.name, room)
        if node.form != "rest" and node.kind != "Step" and not node.is_plain:
            yield soft(node.kind)
        remark = self._remarks.get(node.path)
        if remark is not None and remark.summary:
            yield soft(remark.summary)
        yield from (option(one, room) for one in node.options[:_MOST_OPTIONS])
        if len(node.options) > _MOST_OPTIONS:
            yield soft(f"+ {len(node.options) - _MOST_OPTIONS} options")
        for number, one in enumerate(remark.chips if remark else ()):
            yield chip(one, room, breaks=number == 0)

    def _below(self, node: Node, room: float, depth: int) -> list[Block]:
        return [self.block(child, room, depth) for child in node.children]

    def _sequence(self, node: Node, room: float, depth: int) -> Block:
        return sequence(self._below(node, room, depth), room)

    def _around(self, node: Node, room: float, depth: int) -> Block:
        return self.block(node.children[0], room, depth)

    def _pile(self, node: Node, room: float, depth: int) -> Block:
        return pile(self._below(node, room, depth))

    def _items(self, node: Node, room: float, depth: int) -> Block:
        """Draw it as a stack of cards: one for each item."""
        child = node.children[0]
        edge = _PAD if self._is_bare(child) else 0.0
        one = self.block(child, room - _STACK - 2 * edge, depth)
        width, height = one.width + 2 * edge, one.height + 2 * edge
        cards = "".join(
            box(far, far, width, height, f"card {node.tone}", 6)
            for far in (_STACK, _STACK / 2, 0)
        )
        at = edge + one.enter
        svg = cards + placed(one, edge, edge)
        return Block(width + _STACK, height + _STACK, at, at, width + _STACK, svg)

    def _lanes(self, node: Node, room: float, depth: int) -> Block:
        # Rails, arrows, and the labels.
        longest = max(map(len, node.leads), default=0)
        inner = room - 60 - min(longest, 20) * 6
        blocks = self._below(node, max(inner, _NARROWEST), depth)
        leads = [*node.leads, *[""] * len(blocks)]
        legs = [Leg(one, lead) for one, lead in zip(blocks, leads, strict=False)]
        if node.kind == "Conditional" and len(blocks) == 1:
            legs.append(Leg(_passing(blocks[0].width), "else", head=False))
        return lanes(legs, room)

    def _turns(self, node: Node, room: float, depth: int) -> Block:
        blocks = self._below(node, max(room - 60, _NARROWEST), depth)
        return turns(blocks, node.leads[1:])

    def _undone(self, node: Node, room: float, depth: int) -> Block:
        step, undo = self._below(node, room, depth)
        return undone(step, undo, node.leads[1])

    def _saga(self, node: Node, room: float, depth: int) -> Block:
        """Draw each step with what undoes it below."""
        blocks = self._below(node, room, depth)
        undoing = {i for i in node.undone_by.values() if i < len(blocks)}
        cells = []
        for index, block in enumerate(blocks):
            undo = node.undone_by.get(index, len(blocks))
            if index not in undoing:
                has_undo = undo < len(blocks)
                cells.append(undone(block, blocks[undo], "undo") if has_undo else block)
        return sequence(cells, room)


def _node_group(node: Node, svg: str) -> str:
    return f'<g class="node">{tip(node.title)}{svg}</g>'


def _to_the_edges(
    body: Block, left: float, width: float, at: float, leave: float
) -> Iterator[str]:
    """Yield the lines from a frame's edges to a body that is narrower."""
    if left > 0:
        yield line([(0, at), (left, at)])
        yield line([(left + body.ends, leave), (width, leave)])


def _passing(width: float) -> Block:
    """Return a way on which nothing is done."""
    svg = line([(0, 11), (width, 11)], "flow dash")
    return Block(width, 22, 11, 11, width, svg)
