"""Write SVG: elements as text, and the one style that all pictures share.

A picture brings its own background, in light and in dark, so that it can be read on any
page. What a colour means is also told by a pattern, a line or a sign.
"""

from __future__ import annotations

from html import escape
from typing import TypeAlias

__all__ = [
    "STYLE",
    "Shape",
    "box",
    "cross",
    "dot",
    "line",
    "number",
    "path",
    "picture",
    "text",
    "tick",
    "width_of",
]

Shape: TypeAlias = str

WIDTH = 736

STYLE = """\
svg{--paper:#fff;--frame:#d6d9de;--ink:#1f2430;--soft:#5b6472;--grid:#eceef1;\
--good:#1d7a53;--bad:#b3261e;--late:#9a5b00;--gone:#6b7280;--calm:#2f5d9e;--on:#fff;\
font:13px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
@media(prefers-color-scheme:dark){svg{--paper:#1b1f27;--frame:#39404d;--ink:#e8eaee;\
--soft:#a5adbb;--grid:#2a303b;--good:#5cc798;--bad:#ff8f84;--late:#eeb65c;\
--gone:#9aa3b2;--calm:#8fb8f2;--on:#12151b}}
text{fill:var(--ink)}
.soft{fill:var(--soft)}
.small{font-size:11.5px}
.code{font:12px ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.strong{font-weight:600}
.on{fill:var(--on);font-weight:600;font-size:12px}
.paper{fill:var(--paper);stroke:var(--frame)}
.grid{stroke:var(--grid);fill:none}
.axis{stroke:var(--soft);fill:none}
.good{--tone:var(--good)}.bad{--tone:var(--bad)}.late{--tone:var(--late)}
.gone{--tone:var(--gone)}.calm{--tone:var(--calm)}.plain{--tone:var(--soft)}
.curve{fill:var(--tone);fill-opacity:.14;stroke:none}
.paper-only{fill:var(--paper)}
.under{fill:var(--tone)}
.full{fill:var(--tone);stroke:var(--tone)}
.pale{fill:var(--tone);fill-opacity:.14;stroke:var(--tone)}
.heavy{stroke-width:1.6}
.faint{opacity:.55}
.veil{fill:var(--tone);fill-opacity:.09;stroke:var(--tone)}
.open{fill:none;stroke:var(--tone)}
.edge{fill:none;stroke:var(--tone);stroke-width:1.6}
.head{fill:var(--tone)}
.word{fill:var(--tone)}
.dash{stroke-dasharray:4 3}
.dot{stroke-dasharray:1.5 3}
.sign{fill:none;stroke:var(--on);stroke-width:2.2;stroke-linecap:round;\
stroke-linejoin:round}
.mark{fill:none;stroke:var(--tone);stroke-width:2.2;stroke-linecap:round;\
stroke-linejoin:round}
.hatch{fill:url(#hatch);stroke:none}
.spots{fill:url(#spots);stroke:none}
#hatch path,#spots circle{stroke:var(--paper);fill:none}
#spots circle{fill:var(--paper);stroke:none}"""

_PATTERNS = (
    '<pattern id="hatch" width="7" height="7" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><path d="M0 0v7" stroke-width="2.5" '
    'stroke-opacity=".38"/></pattern>'
    '<pattern id="spots" width="7" height="7" patternUnits="userSpaceOnUse">'
    '<circle cx="2" cy="2" r="1.2" fill-opacity=".6"/></pattern>'
)


def number(value: float) -> str:
    """Return a coordinate, to a tenth of a pixel."""
    return f"{value:.1f}".rstrip("0").rstrip(".")


def _attributes(named: dict[str, object]) -> str:
    parts = []
    for name, value in named.items():
        if value is None or value == "":
            continue
        shown = number(value) if isinstance(value, (int, float)) else str(value)
        parts.append(f' {name.strip("_").replace("_", "-")}="{escape(shown)}"')
    return "".join(parts)


def _element(tag: str, **named: object) -> Shape:
    return f"<{tag}{_attributes(named)}/>"


def box(  # noqa: PLR0917 - the place of a box, as everybody writes it
    x: float, y: float, width: float, height: float, kind: str, radius: float = 4
) -> Shape:
    """Return a rectangle with round corners."""
    place = {"x": x, "y": y, "width": width, "height": height}
    return _element("rect", **place, rx=radius, class_=kind)


def line(points: list[tuple[float, float]], kind: str) -> Shape:
    """Return a line through points."""
    (x, y), *rest = points
    steps = "".join(f"L{number(a)} {number(b)}" for a, b in rest)
    return _element("path", d=f"M{number(x)} {number(y)}{steps}", class_=kind)


def path(data: str, kind: str) -> Shape:
    """Return a path."""
    return _element("path", d=data, class_=kind)


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "") -> Shape:
    """Return a line of text.

    Args:
        x: Where it begins; or its middle or end, as `anchor` says.
        y: Its base line.
        words: The text.
        kind: Its classes.
        anchor: "middle" or "end".
    """
    place = {"x": x, "y": y, "class_": kind, "text_anchor": anchor}
    return f"<text{_attributes(place)}>{escape(words, quote=False)}</text>"


def dot(x: float, y: float, kind: str) -> Shape:
    """Return a dot around a point."""
    return _element("circle", cx=x, cy=y, r=3.5, class_=kind)


def tick(x: float, y: float, kind: str) -> Shape:
    """Return the sign of what went well, around a point."""
    return line([(x - 4, y), (x - 1, y + 3.5), (x + 4.5, y - 4)], kind)


def cross(x: float, y: float, kind: str) -> Shape:
    """Return the sign of what did not, around a point."""
    n = number
    first = f"M{n(x - 3.5)} {n(y - 3.5)}L{n(x + 3.5)} {n(y + 3.5)}"
    return path(f"{first}M{n(x + 3.5)} {n(y - 3.5)}L{n(x - 3.5)} {n(y + 3.5)}", kind)


def width_of(words: str, size: float = 13) -> float:
    """Return about how wide a text is; rather too wide than too narrow."""
    narrow = sum(character in "ijl.,:;|!'()[] tfrI1" for character in words)
    return (len(words) * 0.6 - narrow * 0.22) * size


def picture(shapes: list[Shape], height: float, title: str, tale: str) -> str:
    """Return the file.

    Args:
        shapes: What is in the picture.
        height: How high it is; all are equally wide.
        title: What it shows.
        tale: The same in words, for those who cannot see it.
    """
    named = 'role="img" aria-labelledby="title tale"'
    size = f'width="{WIDTH}" height="{number(height)}"'
    view = f'viewBox="0 0 {WIDTH} {number(height)}"'
    frame = box(0.5, 0.5, WIDTH - 1, height - 1, "paper", 8)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} {view} {named}>',
            f'<title id="title">{escape(title, quote=False)}</title>',
            f'<desc id="tale">{escape(tale, quote=False)}</desc>',
            f"<style>{STYLE}</style>",
            f"<defs>{_PATTERNS}</defs>",
            frame,
            *shapes,
            "</svg>\n",
        ]
    )
