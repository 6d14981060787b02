"""What is told of what exploring has found."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_tta.explore.differences import without_it
from pytest_tta.explore.line import to_line
from pytest_tta.explore.merge import replay_command
from pytest_tta.explore.story import story
from pytest_tta.explore.witness import call_name
from pytest_tta.explore.words import (
    STRUCK,
    comes,
    named,
    number_of,
    short,
    shortened,
    which,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_tta.clock.choices import Choice, Unit
    from pytest_tta.explore.outcome import CallSeen, Outcome, Verdict
    from pytest_tta.explore.plan import Cancellation, FaultAt
    from pytest_tta.explore.witness import Happened, Witness

__all__ = [
    "finding_lines",
    "plan_in_words",
    "recipe",
    "said_of",
]

_WAITING = frozenset({"deadlock", "unbounded wait"})
# A task, and where it waits, as the check of tasks left running tells it.
_LEFT = re.compile(r"task (\S+)(?: in primitive '[^']*')? at (\S+ in [^\s,;]+)")
_OWN_CHECKS = frozenset(
    {"left running", "permit not returned", "swallowed cancellation"}
)
_NOT_CHECKED = "@pytest.mark.tta_no_explore leaves a test out"
_AFTERWARDS = (
    "run it again after the fix: it should pass; after larger changes explore again"
)
# What a test says of behaviour that is as it should be.
_ACCEPT = "let the test accept it, as in `assert answer in {'paid', 'try later'}`"
_CHOOSE = "@pytest.mark.tta_sweep(faults=[...], sites=[...])"

_WHAT_STRIKES = {
    "error": "{call} fails before it has any effect",
    "lost-ack": "{call} has its effect, and then fails: the answer is lost",
    "hang": "{call} never answers, and has no effect",
    "late": "{call} has its effect, and never answers",
    "fatal": "{call} is refused for good, before it has any effect",
    "outage": "every call of {site} fails, from {call} on",
    "drop": "the message of {call} is lost: no worker gets it, and nobody answers",
    "drop-answer": "{call} has its effect on a worker, and its answer is lost for good",
    "duplicate": "{call} is delivered twice: two workers have its effect",
    "reorder": "{call} is held back until a later one was done, or for long",
    "crash-before": "the worker dies before {call}, which another one gets",
    "crash-after": "the worker dies after {call} had its effect; another one gets it",
    "crash-unacknowledged": "the worker answers {call}, and another one gets it too",
}


_WHAT_RAISES = {
    "error": "{call} raises {error} before it has any effect",
    "lost-ack": "{call} has its effect, and then raises {error}: the answer is lost",
    "outage": "every call of {site} raises {error}, from {call} on",
}
"""The same of a call of which it was seen what it raises."""


def said_of(verdict: Verdict) -> str:
    """Return what broke on one line.

    Args:
        verdict: What broke.
    """
    first, *_ = verdict.text.strip().splitlines() or [""]
    said: str = verdict.kind
    if first:
        # Some texts begin with what sort of thing it is.
        said = first if first.startswith(said) else f"{said}: {first}"
    is_told = not verdict.where or verdict.where in first
    # Where all wait, the innermost line of the user's is that which runs the loop.
    run = "run from " if verdict.kind in _WAITING else ""
    return said if is_told else f"{said} ({run}{verdict.where})"


def finding_lines(
    found: Outcome,
    plain: Outcome | None,
    node_id: str,
    *,
    notes: Iterable[str] = (),
    witness: Witness | None = None,
) -> Iterator[str]:
    """Yield the report of what exploring has found.

    Args:
        found: The smallest execution that fails.
        plain: The execution without faults in which the oldest event always comes
            first; None if that is the one that fails.
        node_id: The test.
        notes: What else is to be said, before the last line.
        witness: What was seen when it was executed once more; None if it was not.
    """
    verdict = found.verdict
    if verdict is not None:
        yield f"found while exploring: {said_of(verdict)}"
        lines = verdict.text.strip().splitlines()[1:]
        # Which lock, and who holds it, only a second look tells.
        if witness is not None and verdict.kind in _WAITING:
            lines = witness.holding.told(lines)
        yield from (f"  {line}" for line in lines)
        if witness is not None:
            yield from _seen_of(verdict, witness)
        if verdict.kind in _OWN_CHECKS:
            yield f"  {_whose_check(found)}"
    yield "what it takes:"
    yield from (f"  {line}" for line in plan_in_words(found, witness))
    yield f"what happened, in {_seconds(found.seconds)}:"
    if witness is None:
        yield from (f"  {line}" for line in shortened(list(_call_lines(found.calls))))
    else:
        yield from (f"  {line}" for line in story(witness))
        yield from _held_lines(witness, verdict)
    if plain is not None:
        yield from without_it(found, plain)
    yield from recipe(found)
    yield from notes
    if verdict is None or verdict.kind != "not deterministic":
        yield "to reproduce it:"
        yield replay_command(node_id, to_line(found.plan))
        yield _AFTERWARDS


def _whose_check(found: Outcome) -> str:
    """Say of what no assertion of the test has found who has."""
    if found.ended != "returned" or not found.is_judged:
        return f"(a check of the plugin's own; {_NOT_CHECKED})"
    return f"(a check of the plugin's own: the test itself passed; {_NOT_CHECKED})"


def _seen_of(verdict: Verdict, witness: Witness) -> Iterator[str]:
    """Yield what only a second look tells of what broke."""
    if verdict.kind == "left running":
        for task, at in _LEFT.findall(verdict.text):
            made, waits = witness.created.get(task), witness.waits(task, at)
            parts = [f"was created at {short(made)}"] if made else []
            parts += [f"waits for {waits}"] if waits else []
            if parts:
                name = witness.holding.names.get(task, task)
                yield f"  {name} {', and '.join(parts)}"
    thrown = witness.thrown
    if verdict.kind == "swallowed cancellation" and thrown is not None:
        if thrown.swallowers:
            yield f"  swallowed by {', or by '.join(thrown.swallowers)}"
        yield f"  it was thrown into {' < '.join(thrown.path)}"


def _seconds(seconds: float) -> str:
    return f"{seconds:g} virtual second{'' if seconds == 1 else 's'}"


# --- what it takes -----------------------------------------------------------------


def plan_in_words(found: Outcome, witness: Witness | None = None) -> list[str]:
    """Return what an execution was given, a line for each thing.

    Args:
        found: What came of it.
        witness: What was seen of it; None if nobody looked.
    """
    plan = found.plan
    lines: list[str] = []
    for fault in plan.faults:
        lines += _fault_in_words(fault, witness)
    if plan.cancellation is not None:
        lines += _cancellation_in_words(plan.cancellation, witness)
    lines += shortened(list(_orders_in_words(found.choices, witness)))
    if plan.schedule.mode != "op":
        lines.append(f"events come in mode {plan.schedule.mode}")
    return lines or ["nothing: no fault, and the oldest event comes first"]


def _fault_in_words(fault: FaultAt, witness: Witness | None) -> Iterator[str]:
    """Yield what strikes, and the user's lines that made the call."""
    call = f"call {fault.number} of {fault.site}"
    said = _WHAT_STRIKES.get(fault.kind, f"{{call}}: {fault.kind}")
    error = ""
    if witness is not None:
        error = witness.raised.get((fault.site, fault.number), "")
    if error:
        said = _WHAT_RAISES.get(fault.kind, said)
    yield said.format(call=call, site=fault.site, error=error)
    seen = None if witness is None else witness.find(fault.site, fault.number)
    if seen is not None:
        yield from _made_by(seen)


def _cancellation_in_words(
    asked: Cancellation, witness: Witness | None
) -> Iterator[str]:
    """Yield who is cancelled, and what they were waiting for."""
    who = "what the test runs" if asked.task == "main" else f"task {asked.task}"
    seen = None if witness is None else witness.cancellation
    if seen is None:
        yield f"{who} is cancelled while everything waits for time {asked.point + 1}"
        return
    if asked.task != "main":
        who = f"task {seen.task}"
    if seen.site:
        call = f"call {seen.number} of {seen.site}"
        yield f"{who} is cancelled from outside while it waits for {call}"
        yield from _made_by(seen)
    else:
        at = "".join(f" at {short(line.place)}" for line in seen.lines)
        yield f"{who} is cancelled from outside while it waits{at}"


def _made_by(seen: Happened) -> Iterator[str]:
    """Yield the user's lines that made a call."""
    for number, line in enumerate(seen.lines):
        yield f"  {'called ' if number else ''}at {short(line.place)}: {line.text}"


def _orders_in_words(
    choices: Sequence[Choice], witness: Witness | None
) -> Iterator[str]:
    """Yield what came before what; not what follows from another of these lines."""
    pairs = [(one.units[one.taken], one.units[0]) for one in choices if one.taken]
    needed = None if witness is None else witness.needed
    said: dict[tuple[object, ...], str] = {}
    for number, (came, oldest) in enumerate(pairs[:needed]):
        # What a task does it does in turn: its last call implies those before.
        chain = came.chain if came.kind == "op" else -number - 1
        said.pop((chain, which(oldest)), None)
        order = f"{comes(came, witness)} before {named(oldest, witness)}"
        said[chain, which(oldest)] = order
    for came, oldest in [] if needed is None else pairs[needed:][:1]:
        if came.kind == oldest.kind == "op" and came.label == oldest.label:
            said.pop((came.chain, which(oldest)), None)
            said[()] = _begins(came, oldest, witness)
    yield from said.values()


def _begins(came: Unit, oldest: Unit, witness: Witness | None) -> str:
    """Say of two calls of one site that neither has to be answered first."""
    later, earlier = number_of(came, witness), number_of(oldest, witness)
    return f"call {later} of {came.label} begins before call {earlier} has answered"


def _held_lines(witness: Witness, verdict: Verdict | None) -> Iterator[str]:
    """Yield what is held while all wait: what the others wait for."""
    if verdict is None or verdict.kind not in _WAITING:
        return
    if not witness.holding.is_told(verdict.text.splitlines()):
        yield from (f"held until the end: {short(held)}" for held in witness.held)


def _call_lines(calls: Sequence[CallSeen]) -> Iterator[str]:
    for call in calls:
        struck = f"  {STRUCK}" if call.is_struck else ""
        yield f"{call_name(call.site, call.number)}{struck}"
    if not calls:
        yield "no call that a fault could strike"


def recipe(found: Outcome) -> Iterator[str]:
    """Yield what to write if what was found is how it should be.

    Args:
        found: The execution that fails.
    """
    plan, verdict = found.plan, found.verdict
    if verdict is None or verdict.kind != "assertion":
        return
    if plan.faults:
        yield f"if that is right after such a fault, {_ACCEPT};"
        yield f"  or choose what is tried: {_CHOOSE}"
    elif plan.cancellation is not None:
        yield f"if that is right after a cancellation, {_ACCEPT}"
