"""Strategies for the plans that an exploration executes: faults, and schedules.

The plainest schedule is first come, first served; the plainest plan is that, without a
fault. Both are plain data that prints as code, and that a replay line can be made of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from pytest_tta.explore.plan import Cancellation, FaultAt, Mode, Plan, Schedule
from pytest_tta.properties.drawing import packed, triples
from pytest_tta.properties.needed import needed_hypothesis
from pytest_tta.properties.strategies import checked_places
from tta_primitives.arguments import check_choice, check_count, check_flag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypothesis.strategies import DrawFn, SearchStrategy

    from tta_primitives.primitive import WorkflowPrimitive

__all__ = ["FaultKind", "plans", "schedules"]

FaultKind: TypeAlias = Literal["error", "lost-ack", "hang", "late", "fatal", "outage"]

_KINDS: tuple[FaultKind, ...] = get_args(FaultKind)
# Half of what Hypothesis gives to one example.
_MOST_CHOICES = 4096
_POINTS = 8
# Which index a byte stands for. There are mostly two or three to choose from, and an
# index that is not there deviates from nothing. Bytes shrink to the first of each.
_INDICES = bytes(range(8)) + bytes((1, 0, 1, 2, 0, 1, 2, 3)) * 31


def schedules(
    *, max_choices: int = 64, mode: Mode = "op", early: int = 0
) -> SearchStrategy[Schedule]:
    """Generate which event comes first, each time that there is a choice.

    All of it is one draw of bytes: byte i decides choice i, counted from the one that
    lets go on what went on last, so that few bytes other than 0 are few switches.

    Args:
        max_choices: So many choices are decided; all later ones as if there were none.
        mode: What may be chosen: completions when everything waits ("op"), also while
            something is ready ("burst"), or any callback ("harsh").
        early: So many limits may at most run out although what they limit could
            complete.

    Raises:
        ValueError: `max_choices` is no count or above 4096, `early` is no count, or the
            mode is unknown.
    """
    _check_choices(max_choices)
    check_choice("mode", mode, get_args(Mode))
    check_count("early", early)
    st = needed_hypothesis().strategies
    indices, limits = st.binary(max_size=max_choices), st.integers(0, early)

    # Not `map` or `builds`: an example would be printed as the call that made it.
    def schedule(draw: DrawFn) -> Schedule:
        taken = draw(indices).translate(_INDICES)
        deviations = tuple((at, index) for at, index in enumerate(taken) if index)
        return Schedule(mode, "sticky", deviations, draw(limits) if early else 0)

    found: SearchStrategy[Schedule] = st.composite(schedule)()
    return found


def plans(
    where: WorkflowPrimitive[Any, Any] | Sequence[str],
    *,
    faults: int = 2,
    kinds: Sequence[FaultKind] = _KINDS,
    calls: int = 3,
    cancel: bool = False,
    max_choices: int = 64,
    early: int = 0,
) -> SearchStrategy[Plan]:
    """Generate plans: what goes wrong, and which events come first.

    A plan is for `run_plan`, in an example of Hypothesis as in a search. Its faults are
    those of a sweep: each strikes one call at one site.

    Args:
        where: A workflow, for all of its leaves, or the sites by name: paths of
            positions, labels of `op(...)`.
        faults: No plan has more.
        kinds: What may go wrong, the plainest first: `error` (not executed),
            `lost-ack` (executed, an error), `hang`, `late` (executed, then no answer),
            `fatal` (an error that no retry helps) and `outage` (this call and all later
            ones fail).
        calls: A fault strikes one of the first so many calls at its site.
        cancel: Whether the run may be cancelled from outside as well, while it waits.
        max_choices: As for `schedules`.
        early: As for `schedules`.

    Raises:
        TypeError: `where` is neither a workflow nor a list of texts.
        ValueError: There is no site or no kind, a kind is unknown, or a number is no
            count.
    """
    check_count("faults", faults)
    check_count("calls", calls, minimum=1)
    check_flag("cancel", cancel)
    places = checked_places(
        "where",
        where,
        wanted="a workflow or a list of sites, such as ['llm']",
        one_of_them="site",
    )
    names = _checked_kinds(kinds)
    every = [
        [
            [FaultAt(place, number, kind) for number in range(1, calls + 1)]
            for kind in names
        ]
        for place in places
    ]
    orders = schedules(max_choices=max_choices, early=early)
    return _plans(every, orders, faults, _POINTS if cancel else 0)


def _plans(
    every: list[list[list[FaultAt]]],
    orders: SearchStrategy[Schedule],
    most: int,
    points: int,
) -> SearchStrategy[Plan]:
    st = needed_hypothesis().strategies
    moments = st.integers(0, points)
    counts = len(every), len(every[0]), len(every[0][0])
    choices = packed(most, counts)

    def drawn(draw: DrawFn) -> Plan:
        chosen = triples(draw(choices), counts)
        struck = [every[place][kind][number] for place, kind, number in chosen]
        # One call fails in one way.
        faults = {(fault.site, fault.number): fault for fault in struck}
        moment = draw(moments) if points else 0
        cancelled = Cancellation("main", moment - 1) if moment else None
        return Plan(tuple(faults.values()), cancelled, draw(orders))

    found: SearchStrategy[Plan] = st.composite(drawn)()
    return found


def _checked_kinds(kinds: Sequence[FaultKind]) -> tuple[FaultKind, ...]:
    if not kinds or isinstance(kinds, str):
        msg = f"kinds={kinds!r} must be a list of kinds of faults, such as ['error']"
        raise ValueError(msg)
    for kind in kinds:
        check_choice("kinds", kind, _KINDS)
    return tuple(kinds)


def _check_choices(max_choices: int) -> None:
    check_count("max_choices", max_choices)
    if max_choices > _MOST_CHOICES:
        msg = (
            f"max_choices={max_choices!r} must be at most {_MOST_CHOICES}: Hypothesis "
            "gives up on examples that are larger"
        )
        raise ValueError(msg)
