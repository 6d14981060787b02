"""Trees of spans as lines for a person: marked, and cut where nothing is to be seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pytest_tta.trace.snapshot import RecordedError
from pytest_tta.trace.spans import outline_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_tta.trace.spans import Span

__all__ = ["Line", "cut", "few", "lines_below", "span_line"]

# Bigger trees are cut where all is as expected, so that the rest is seen.
_WHOLE = 60
# And what is not as expected is cut here.
_MOST = 300
_LONGEST = 500
_INDENT = "  "


class Line(NamedTuple):
    """One line of a tree.

    Attributes:
        depth: How far below the root.
        text: What is said, without the indentation.
        mark: The sign that it begins with; a blank in trees without signs.
        matters: Whether it must be seen.
        spans: How many spans it stands for.
    """

    depth: int
    text: str
    mark: str = " "
    matters: bool = False
    spans: int = 1


def lines_below(spans: Iterable[Span], depth: int, mark: str = " ") -> Iterator[Line]:
    """Yield the lines of spans and of all that is below them.

    Args:
        spans: Siblings.
        depth: How far below the root they are.
        mark: The sign before each.
    """
    for span in spans:
        matters = span.status != "ok" or "fault.injected" in span.event_names
        yield Line(depth, span_line(span), mark, matters)
        yield from lines_below(span.in_order(), depth + 1, mark)


def span_line(span: Span) -> str:
    """Return one span as text, with what its error says.

    Args:
        span: The span.
    """
    plain = outline_line(span)
    line = plain.removesuffix(" injected")
    message = _message(span)
    # Errors that were made up to be injected say so themselves.
    is_told = line == plain or message.startswith(": injected")
    return f"{line}{message}{'' if is_told else f' ({_struck(span)})'}"


def _struck(span: Span) -> str:
    """Say whether a span was struck itself, or what it asked of the outside."""
    faults = [one.detail for one in span.events if one.name == "fault.injected"]
    if not all("site" in one for one in faults):
        return "injected"
    sites = dict.fromkeys(one["site"] for one in faults)
    return f"a fault struck {' and '.join(sites)} within"


def _message(span: Span) -> str:
    """Return what the error of a span says, in its first line."""
    error = span.error
    if error is None or span.status == "cancelled":
        return ""
    said = str(error).strip().partition("\n")[0]
    if isinstance(error, RecordedError):
        said = said.removeprefix(f"{error.type.__name__}: ")
    return f": {said}" if said else ""


def few(
    lines: Sequence[Line],
    usual: str,
    unusual: str,
    *,
    is_marked: bool = False,
    whole: bool = False,
) -> Iterator[str]:
    """Yield lines as text; of a big tree what matters, and what stands around it.

    Args:
        lines: Of a tree, each above what is below it.
        usual: What is said of spans that are left out: `as expected`.
        unusual: What is said of what matters, where there is too much: `differ`.
        is_marked: Whether each line begins with its mark.
        whole: Leave nothing out.
    """
    is_big = len(lines) > _WHOLE and not whole
    kept = _kept(lines) if is_big else [True] * len(lines)
    left_out: list[Line] = []
    for line, is_kept in zip(lines, kept, strict=True):
        if not is_kept:
            left_out.append(line)
            continue
        yield from _gap(left_out, usual, unusual, is_marked=is_marked)
        left_out.clear()
        yield _written(line, is_marked=is_marked)
    yield from _gap(left_out, usual, unusual, is_marked=is_marked)


def _kept(lines: Sequence[Line]) -> list[bool]:
    """Tell which lines are seen: what matters, its neighbours, and what is above."""
    above = _parents(lines)
    kept = [False] * len(lines)
    seen = [i for i, line in enumerate(lines) if line.matters][:_MOST]
    for i in seen or range(_WHOLE // 2):
        for place in range(max(i - 1, 0), min(i + 2, len(lines))):
            higher = place
            while higher >= 0 and not kept[higher]:
                kept[higher] = True
                higher = above[higher]
    return kept


def _parents(lines: Sequence[Line]) -> list[int]:
    """Return the place of the line above each line, -1 for none."""
    above: list[int] = []
    way: list[int] = []
    for i, line in enumerate(lines):
        while way and lines[way[-1]].depth >= line.depth:
            way.pop()
        above.append(way[-1] if way else -1)
        way.append(i)
    return above


def _gap(
    lines: Sequence[Line], usual: str, unusual: str, *, is_marked: bool
) -> Iterator[str]:
    if not lines:
        return
    count = sum(line.spans for line in lines)
    hidden = sum(line.matters for line in lines)
    text = f"... {count:,} {'span' if count == 1 else 'spans'} {usual}"
    if hidden:
        text = f"... {len(lines):,} more lines, of which {hidden:,} {unusual}"
    depth = min(line.depth for line in lines)
    yield _written(Line(depth, text), is_marked=is_marked)


def _written(line: Line, *, is_marked: bool) -> str:
    mark = f"{line.mark} " if is_marked else ""
    return f"{mark}{_INDENT * line.depth}{cut(line.text, _LONGEST)}".rstrip()


def cut(text: str, most: int) -> str:
    """Return a text whose middle is left out if it has too many characters.

    Args:
        text: One line.
        most: How many characters stay.
    """
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}... [{len(text) - 2 * half:,} characters] ...{text[-half:]}"
