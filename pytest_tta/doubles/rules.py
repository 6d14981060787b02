"""Rules of the LLM double: where each applies, how often, and why it did not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_tta.doubles.unexpected import UnexpectedCall
from pytest_tta.trace.snapshot import shorten
from tta_primitives.arguments import check_count

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from pytest_tta.doubles.calls import LLMCall
    from pytest_tta.doubles.replies import Reply
    from pytest_tta.doubles.sites import Site
    from tta_primitives.primitive import WorkflowPrimitive

__all__ = ["Contains", "Holds", "InputIs", "Rule", "RuleBook", "Scope"]

_SHOWN_RULES = 3


@dataclass(frozen=True, slots=True)
class Contains:
    """Hold where the text of a request contains another."""

    text: str

    def mismatch(self, call: LLMCall) -> str | None:
        """Return why the condition does not hold, None if it does."""
        if self.text in call.text:
            return None
        return f"the text does not contain {self.text!r}"

    def __repr__(self) -> str:
        return f"contains={self.text!r}"


@dataclass(frozen=True, slots=True)
class InputIs:
    """Hold where the input equals a value."""

    value: object

    def mismatch(self, call: LLMCall) -> str | None:
        """Return why the condition does not hold, None if it does."""
        if self.value == call.input:
            return None
        return f"the input is not {shorten(self.value)}"

    def __repr__(self) -> str:
        return f"input={self.value!r}"


@dataclass(frozen=True, slots=True)
class Holds:
    """Hold where a function of the call says so."""

    function: Callable[[LLMCall], object]

    def mismatch(self, call: LLMCall) -> str | None:
        """Return why the condition does not hold, None if it does."""
        try:
            holds = self.function(call)
        except Exception as error:
            msg = f"the condition {self!r} raised {error!r} for {call}"
            raise UnexpectedCall(msg) from error
        return None if holds else f"{self!r} says no"

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", None) or repr(self.function)
        return "lambda" if name == "<lambda>" else name


@dataclass(frozen=True, slots=True)
class Scope:
    """The calls that a rule is for.

    Attributes:
        site: The place, None for every place that the double answers.
        conditions: What must hold there.
        speaker: What answers, as a test writes it.
        unasked: What happened if it was asked nothing at all.
    """

    site: Site | None = None
    conditions: tuple[Contains | InputIs | Holds, ...] = ()
    speaker: str = "llm"
    unasked: str = "no workflow was run while the double was listening"

    def rank(
        self, path: str, primitive: WorkflowPrimitive[Any, Any] | None
    ) -> tuple[int, ...] | None:
        """Return how specific this is at a position, None where it does not apply."""
        where = (0, 0) if self.site is None else self.site.rank(path, primitive)
        return (*where, len(self.conditions)) if where else None

    def mismatches(self, call: LLMCall) -> list[str]:
        """Return why the conditions do not hold for a call."""
        reasons = (condition.mismatch(call) for condition in self.conditions)
        return [reason for reason in reasons if reason is not None]

    def __repr__(self) -> str:
        shown = self.speaker
        if self.site is not None:
            shown += f".at({self.site!r})"
        if self.conditions:
            shown += f".when({', '.join(map(repr, self.conditions))})"
        return shown


class Rule:
    """One scripted reply; it answers once unless told otherwise.

    Args:
        scope: The calls that it is for.
        reply: What it answers.
        shown: The reply as it was written.
        scripted_at: The file and line that wrote it.
    """

    def __init__(
        self, scope: Scope, reply: Reply, shown: str, scripted_at: str
    ) -> None:
        self.scope = scope
        self.reply = reply
        self.scripted_at = scripted_at
        self.used = 0
        self._shown = shown
        self._limit: int | None = 1
        self._is_optional = False
        self._last_reasons: list[str] = []

    def times(self, count: int) -> Self:
        """Answer so many calls, and expect as many.

        Args:
            count: At least 1.

        Raises:
            ValueError: It is no whole number of at least 1.
        """
        self._limit = check_count("count", count, minimum=1)
        return self

    def always(self) -> Self:
        """Answer any number of calls, and expect at least one."""
        self._limit = None
        return self

    def optional(self) -> Self:
        """Let it be no failure when this is used less often than it could be."""
        self._is_optional = True
        return self

    def mismatches(self, call: LLMCall) -> list[str]:
        """Return why this does not answer a call at its place; nothing if it does."""
        reasons = self.scope.mismatches(call)
        if self._limit is not None and self.used >= self._limit:
            reasons.append(f"it was used up by {_times(self.used)}")
        self._last_reasons = reasons
        return reasons

    def complaint(self, seen: list[str]) -> str | None:
        """Return what is wrong with how often it was used, None if nothing is.

        Args:
            seen: The paths of all calls of the run.
        """
        wanted = 1 if self._limit is None else self._limit
        if self._is_optional or self.used >= wanted:
            return None
        how_often = "was never used"
        if self.used:
            how_often = f"answered {self.used} of {wanted} calls"
        return f"{self} {how_often}: {self._why_unused(seen)}"

    def _why_unused(self, seen: list[str]) -> str:
        site = self.scope.site
        if not seen:
            return self.scope.unasked
        if self._last_reasons:
            return " and ".join(self._last_reasons)
        if site is not None and not site.is_among(seen):
            return f"no call came there; {site.hint(seen)}"
        return "no call was left for it"

    def __repr__(self) -> str:
        often = "" if self._limit == 1 else f".times({self._limit})"
        often = ".always()" if self._limit is None else often
        optional = ".optional()" if self._is_optional else ""
        return f"{self.scope!r}{self._shown}{often}{optional}"

    def __str__(self) -> str:
        return f"{self.scripted_at}: {self!r}"


class RuleBook:
    """The rules of one double, and the calls that none of them answered.

    Args:
        speaker: The double, as a test writes it.
    """

    def __init__(self, speaker: str) -> None:
        self.rules: list[Rule] = []
        self.problems: list[UnexpectedCall] = []
        self._speaker = speaker

    def names(self, path: str, primitive: WorkflowPrimitive[Any, Any]) -> bool:
        """Tell whether a rule is for this place, rather than for any."""
        sites = (rule.scope.site for rule in self.rules)
        return any(
            site is not None and bool(site.rank(path, primitive)) for site in sites
        )

    def take(
        self, call: LLMCall, primitive: WorkflowPrimitive[Any, Any] | None
    ) -> Rule:
        """Use the most specific rule that answers a call, the first of equals.

        Args:
            call: The call.
            primitive: What was called, None if that is no primitive.

        Raises:
            UnexpectedCall: There is none; it is kept as a problem, too.
        """
        __tracebackhide__ = True
        missed: list[tuple[Rule, list[str]]] = []
        rule = self.find(call, primitive, missed)
        if rule is not None:
            rule.used += 1
            return rule
        problem = UnexpectedCall(self._complaint(call, missed))
        self.problems.append(problem)
        raise problem

    def find(
        self,
        call: LLMCall,
        primitive: WorkflowPrimitive[Any, Any] | None,
        missed: list[tuple[Rule, list[str]]] | None = None,
    ) -> Rule | None:
        """Return the rule that `take` would use, None if there is none.

        Args:
            call: The call.
            primitive: What was called, None if that is no primitive.
            missed: Where to put the rules of that place that do not answer it, each
                with the reasons.
        """
        ranked = ((rule.scope.rank(call.path, primitive), rule) for rule in self.rules)
        here = [(rank, rule) for rank, rule in ranked if rank is not None]
        here.sort(key=lambda one: one[0], reverse=True)
        for _, rule in here:
            reasons = rule.mismatches(call)
            if not reasons:
                return rule
            if missed is not None:
                missed.append((rule, reasons))
        return None

    def verify(self, seen: list[str]) -> list[str]:
        """Return the calls that nobody expected, and the rules used too seldom.

        Args:
            seen: The paths of all calls of the run.
        """
        unused = (rule.complaint(seen) for rule in self.rules)
        return [*map(str, self.problems), *(one for one in unused if one is not None)]

    def _complaint(self, call: LLMCall, missed: list[tuple[Rule, list[str]]]) -> str:
        lines = [
            f"{call.title} was not scripted (at {call.at:g} s on the loop's clock)",
            f"  input: {call.shown}",
        ]
        missed.sort(key=lambda one: len(one[1]))
        for rule, reasons in missed[:_SHOWN_RULES]:
            lines += [f"  near: {rule}", f"        but {' and '.join(reasons)}"]
        if not missed:
            lines.append(self._elsewhere())
        return "\n".join(lines)

    def _elsewhere(self) -> str:
        if not self.rules:
            example = f"{self._speaker}.reply('Hello')"
            return f"  nothing is scripted; write for instance {example}"
        shown = [f"    {rule}" for rule in self.rules[:_SHOWN_RULES]]
        return "\n".join(["  no rule names this place; there are rules for:", *shown])


def _times(count: int) -> str:
    return "1 call" if count == 1 else f"{count} calls"
