"""What came of one execution: what search, shrinker and report read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias

from pytest_tta.clock.choices import Choice

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_tta.clock.choices import Chooser
    from pytest_tta.explore.plan import Plan

__all__ = ["CallSeen", "Choice", "Execute", "Outcome", "Verdict", "VerdictKind"]

VerdictKind: TypeAlias = Literal[
    "assertion",
    "error",
    "invariant",
    "deadlock",
    "livelock",
    "unbounded wait",
    "retry storm",
    "left running",
    "permit not returned",
    "swallowed cancellation",
    "unhandled error",
    "double or wire",
    "not deterministic",
]


class Verdict(NamedTuple):
    """What an execution has broken.

    Attributes:
        kind: What sort of thing.
        text: In a sentence, or the text of the failed assertion.
        where: The user's line, "file.py:12"; empty if there is none.
        error: The exception, if one says it.
    """

    kind: VerdictKind
    text: str
    where: str = ""
    error: BaseException | None = None

    @property
    def group(self) -> str:
        """What two executions that fail for the same reason have in common."""
        what = type(self.error).__name__ if self.error is not None else ""
        return f"{self.kind}|{what}|{self.where}"


class CallSeen(NamedTuple):
    """A call at a site that faults can strike.

    Attributes:
        site: The path, or the label of an operation.
        number: Which call at this site, from 1.
        kinds: The faults that make sense here.
        is_struck: Whether the plan's fault struck it.
    """

    site: str
    number: int
    kinds: tuple[str, ...]
    is_struck: bool


class Outcome(NamedTuple):
    """What came of one execution.

    Attributes:
        plan: What was asked for.
        verdict: What broke; None if all held.
        calls: The calls at sites, in the order in which they began.
        choices: The choices, in their order.
        rests: At each moment of rest, the names of the tasks that could be cancelled
            there; "main" is the first.
        ended: How the test's own call ended: "returned", "told" (an error of a fault
            reached the caller, who knows), "cancelled" or "broken".
        is_judged: Whether the assertions of the test's body had a say.
        trail: Digests what was recorded, when somebody asks for it.
        steps: How many rounds the loop took.
        seconds: How much virtual time passed.
        early: How many limits ran out early.
    """

    plan: Plan
    verdict: Verdict | None
    calls: tuple[CallSeen, ...] = ()
    choices: tuple[Choice, ...] = ()
    rests: tuple[tuple[str, ...], ...] = ()
    ended: str = "returned"
    is_judged: bool = True
    trail: Callable[[], str] = str
    steps: int = 0
    seconds: float = 0.0
    early: int = 0

    @property
    def digest(self) -> str:
        """Of what was recorded: two executions of one plan have the same."""
        return self.trail()


class Execute(Protocol):
    """Executes one plan; everything that searches is given one of these."""

    def __call__(self, plan: Plan, choose: Chooser | None = None) -> Outcome:
        """Execute a plan.

        Args:
            plan: What goes wrong, and which events come first.
            choose: Decides instead of the plan's schedule, whose mode and budget of
                early limits still hold.
        """
        ...
