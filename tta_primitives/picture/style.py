"""The one style of all pictures of workflows, and the frame around each."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Literal, TypeAlias

from tta_primitives.picture.shapes import box, group, number

if TYPE_CHECKING:
    from tta_primitives.picture.shapes import Block

__all__ = ["CODE", "DARK", "LIGHT", "SANS", "SMALL", "STYLE", "Theme", "framed"]

Theme: TypeAlias = Literal["auto", "light", "dark"]

CODE, SMALL, SANS = 12.5, 11.0, 11.0

_LIGHT = {
    "paper": "#ffffff",
    "edge": "#d6d9de",
    "ink": "#1f2430",
    "soft": "#5b6472",
    "line": "#7a8391",
    "on": "#ffffff",
    "good": "#1d7a53",
    "late": "#9a5b00",
    "gone": "#5f6876",
    "calm": "#2f5d9e",
    "keep": "#7a4aa5",
    "bad": "#b3261e",
}
_DARK = {
    "paper": "#1b1f27",
    "edge": "#39404d",
    "ink": "#e8eaee",
    "soft": "#a5adbb",
    "line": "#7b8494",
    "on": "#12151b",
    "good": "#5cc798",
    "late": "#eeb65c",
    "gone": "#a3abb9",
    "calm": "#8fb8f2",
    "keep": "#c9a2f0",
    "bad": "#ff8f84",
}
TONES = ("good", "late", "gone", "calm", "keep", "bad")
# How much of its tone is in the ground of a frame, and in that of a leaf.
_TINT, _WASH = 0.06, 0.12


def _palette(colours: dict[str, str]) -> dict[str, str]:
    """Return all colours of a theme: with each tone its two grounds.

    They are no tone that can be seen through: frames in frames would grow darker.
    """
    grounds = {}
    for tone in TONES:
        for name, share in (("tint", _TINT), ("wash", _WASH)):
            grounds[f"{tone}-{name}"] = _mixed(colours[tone], colours["paper"], share)
    return colours | grounds


def _mixed(one: str, other: str, share: float) -> str:
    pairs = [(int(one[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a * share + b * (1 - share)):02x}" for a, b in pairs)


def _variables(colours: dict[str, str]) -> str:
    return ";".join(f"--{key}:{value}" for key, value in _palette(colours).items())


LIGHT, DARK = _palette(_LIGHT), _palette(_DARK)

# Pictures share a page: all names are of this class, and none has an id.
_RULES = f"""\
*{{direction:ltr}}
text{{fill:var(--ink)}}
.name{{font:600 {CODE}px ui-monospace,SFMono-Regular,Menlo,Consolas,\
"DejaVu Sans Mono",monospace}}
.option{{font:{SMALL:g}px ui-monospace,SFMono-Regular,Menlo,Consolas,\
"DejaVu Sans Mono",monospace;fill:var(--soft)}}
.soft{{fill:var(--soft)}}
.paper{{fill:var(--paper);stroke:var(--edge)}}
.frame{{fill:var(--tint);stroke:var(--tone);stroke-opacity:.8}}
.leaf{{fill:var(--wash);stroke:var(--tone);stroke-width:1.3}}
.rest{{fill:none;stroke:var(--line);stroke-dasharray:4 3}}
.card{{fill:var(--tint);stroke:var(--tone);stroke-opacity:.6}}
.flow{{fill:none;stroke:var(--line);stroke-width:1.4}}
.dash{{stroke-dasharray:4 3}}
.head{{fill:var(--line);stroke:none}}
.full{{fill:var(--tone)}}
.pale{{fill:var(--wash);stroke:var(--tone)}}
.void{{fill:none;stroke:var(--tone);stroke-dasharray:3 2}}
.flat{{fill:none;stroke:var(--edge)}}
.on{{fill:var(--on)}}
.word{{fill:var(--tone)}}
.struck{{fill:var(--soft);text-decoration:line-through}}
.sign{{fill:none;stroke:var(--tone);stroke-width:1.8;stroke-linecap:round;\
stroke-linejoin:round}}
.sign.on{{fill:none;stroke:var(--on)}}"""

_TONE_RULES = "\n".join(
    f".tta-picture .{one}{{--tone:var(--{one});--tint:var(--{one}-tint);"
    f"--wash:var(--{one}-wash)}}"
    for one in TONES
)
STYLE = "\n".join(
    [
        (
            f".tta-picture{{{_variables(_LIGHT)};font:{SANS:g}px system-ui,"
            '-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;'
            "max-width:100%;height:auto}"
        ),
        f".tta-picture.dark{{{_variables(_DARK)}}}",
        (
            "@media(prefers-color-scheme:dark)"
            f"{{.tta-picture.auto{{{_variables(_DARK)}}}}}"
        ),
        _TONE_RULES,
        *(f".tta-picture {rule}" for rule in _RULES.splitlines()),
    ]
)

_MARGIN = 20.0


def framed(block: Block, title: str, tale: str, theme: Theme) -> str:
    """Return the whole picture.

    Args:
        block: What it shows.
        title: Its name, as clean text.
        tale: The same in words, for those who cannot see it.
        theme: Its colours; "auto" follows the reader's.
    """
    width, height = block.width + 2 * _MARGIN, block.height + 2 * _MARGIN
    size = f'width="{number(width)}" height="{number(height)}"'
    view = f'viewBox="0 0 {number(width)} {number(height)}"'
    root = f'class="tta-picture {theme}" role="img"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {root} {size} {view}>',
            f"<title>{escape(title, quote=False)}</title>",
            f"<desc>{escape(tale, quote=False)}</desc>",
            f"<style>{STYLE}</style>",
            box(0.5, 0.5, width - 1, height - 1, "paper", 8),
            group(block.svg, _MARGIN, _MARGIN),
            "</svg>\n",
        ]
    )
