"""The picture of a workflow with what was reached of it, and what was not."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from tta_primitives.picture.drawing import WIDTH, Remark, drawn
from tta_primitives.picture.tokens import Chip

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_tta.report.record import CoveredNode, CoveredOutcome, CoveredWorkflow
    from tta_primitives.description import Description
    from tta_primitives.picture.style import Theme

__all__ = ["coverage_svg"]

_LEGEND = {
    "tests": Chip("reached by tests", "good", "full", "tick"),
    "sweep": Chip("reached by sweeps only", "calm", "pale", "ring"),
    "": Chip("not reached", "bad", "void", "cross"),
    "excluded": Chip("does not count", "gone", "flat", "bar"),
}


def coverage_svg(
    workflow: CoveredWorkflow, *, theme: Theme = "auto", width: int = WIDTH
) -> str:
    """Return a picture of a workflow, each primitive with a chip for each outcome.

    Which outcome was reached, and by what, is told by a sign as well as by a colour.

    Args:
        workflow: One of the workflows of a `CoverageRecord`.
        theme: "light", "dark", or "auto" for the reader's choice.
        width: How wide the picture should be at most, in pixels.

    Raises:
        ValueError: The theme is unknown, or the width is no whole number above 0.
    """
    nodes = workflow["nodes"]
    return drawn(
        cast("Description", workflow["tree"]),
        title=f"Coverage of {workflow['name']}",
        theme=theme,
        width=width,
        remarks={path: _remark(node) for path, node in nodes.items()},
        legend=_legend(nodes.values()),
        tale=" ".join(_tale(workflow)),
    )


def _state(outcome: CoveredOutcome) -> str:
    return "excluded" if outcome["excluded"] else outcome["by"]


def _remark(node: CoveredNode) -> Remark:
    counted = _counted(node)
    reached = sum(bool(outcome["by"]) for outcome in counted)
    chips = []
    for outcome in node["outcomes"]:
        like = _LEGEND[_state(outcome)]
        tip = f"{outcome['name']}: {like.words}"
        chips.append(Chip(outcome["name"], like.tone, like.look, like.sign, tip))
    return Remark(f"{reached}/{len(counted)}" if counted else "", chips)


def _counted(node: CoveredNode) -> list[CoveredOutcome]:
    return [outcome for outcome in node["outcomes"] if not outcome["excluded"]]


def _legend(nodes: Iterable[CoveredNode]) -> list[Chip]:
    """Return what the chips in a picture mean, and no more than that."""
    found = {_state(outcome) for node in nodes for outcome in node["outcomes"]}
    return [chip for state, chip in _LEGEND.items() if state in found]


def _tale(workflow: CoveredWorkflow) -> Iterator[str]:
    nodes = workflow["nodes"]
    counted = [outcome for node in nodes.values() for outcome in _counted(node)]
    reached = sum(bool(outcome["by"]) for outcome in counted)
    yield f"{reached} of {len(counted)} outcomes are reached."
    for path, node in nodes.items():
        missing = [one["name"] for one in _counted(node) if not one["by"]]
        if missing:
            yield f"Not reached of {path}: {', '.join(missing)}."
