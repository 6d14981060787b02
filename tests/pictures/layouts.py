"""The pictures that no run draws: states, and what wraps what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.pictures.nesting import Layer, Nesting
from tests.pictures.states import State, States, Step
from tta_primitives.resilient import resilient

if TYPE_CHECKING:
    from typing import Any

__all__ = ["breaker_states", "call", "order"]


def breaker_states() -> States:
    """The states of a circuit breaker."""
    return States(
        "The states of a circuit breaker, and what leads from one to another",
        (
            State("closed", "calls run", 115, 160, "good"),
            State("open", "calls are rejected", 590, 160, "bad", "hatch"),
            State("half_open", "a few calls probe", 360, 262, "late", edge="dash"),
            State("isolated", "calls are rejected", 360, 52, "gone", "hatch", "dot"),
        ),
        (
            Step(
                ((190, 160), (515, 160)),
                ("failures reach the threshold,", "or slow calls do"),
                (352, 151),
                "From closed to open when failures, or slow calls, reach the threshold",
                leading=24,
            ),
            Step(
                ((600, 187), (580, 285), (435, 272)),
                ("recovery_timeout is", "over, and a call comes"),
                (588, 246),
                "From open to half_open by the first call after recovery_timeout",
                anchor="",
            ),
            Step(
                ((425, 238), (505, 225), (560, 187)),
                ("a probe fails",),
                (452, 216),
                "From half_open to open when a probe fails",
            ),
            Step(
                ((285, 262), (130, 275), (110, 187)),
                ("success_threshold", "probes succeed"),
                (142, 222),
                "From half_open to closed when success_threshold probes succeed",
                anchor="",
            ),
            Step(
                ((500, 52), (435, 52)),
                ("isolate(), from any state",),
                (508, 56),
                "From any state to isolated by isolate()",
                anchor="",
                kind="dash",
            ),
            Step(
                ((285, 52), (130, 50), (112, 133)),
                ("close()",),
                (160, 62),
                "From any state to closed by close()",
                anchor="end",
                kind="dash",
            ),
        ),
        height=320,
    )


# What each does at its place in the stack; those that act once for a call, and those
# that act for each attempt, have a tone in common.
_PLACES = {
    "fallback": ("answers, even when the time is up", "calm"),
    "total_timeout": ("bounds all below, with its waits", "calm"),
    "cache": ("a hit costs nothing of what is below", "calm"),
    "retry": ("begins again below, after a pause", "late"),
    "circuit_breaker": ("hears of every attempt", "gone"),
    "rate_limit": ("each attempt takes a token", "gone"),
    "bulkhead": ("a slot is held only while it runs", "gone"),
    "attempt_timeout": ("begins when the slot is there", "gone"),
    "call": ("what you wrote", "good"),
}


async def call(value: object) -> object:
    """Stand for what the stack is put around."""
    return value


def order() -> Nesting:
    """The stack that `resilient` builds."""
    made = resilient(
        call,
        fallbacks=["another"],
        total_timeout=60,
        cache=300,
        retry=3,
        circuit_breaker=True,
        rate_limit=50,
        bulkhead=10,
        attempt_timeout=20,
    )
    names = []
    one: dict[str, Any] = {"children": [made.describe()]}
    while one["children"]:
        one = one["children"][0]
        names.append(one["name"])
    return Nesting(
        "What resilient() puts around a call, from the outside to the inside",
        "resilient(call, ...)",
        tuple(Layer(name, *_PLACES[name]) for name in names),
    )
