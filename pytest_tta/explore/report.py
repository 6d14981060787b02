"""What is told of an exploration: a finding, and the lines at the end of a session."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_tta.explore.line import to_line
from pytest_tta.explore.merge import replay_command
from pytest_tta.explore.witness import call_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pytest_tta.clock.choices import Choice, Unit
    from pytest_tta.explore.outcome import CallSeen, Outcome, Verdict
    from pytest_tta.explore.plan import Cancellation, FaultAt
    from pytest_tta.explore.witness import Happened, Witness

__all__ = [
    "UNMARKED",
    "finding_lines",
    "first_difference",
    "plan_in_words",
    "recipe",
    "said_of",
    "story",
    "summary_lines",
    "without_it",
]

_NONE: Mapping[str, str] = {}
_MOST_LINES = 12
_WIDEST_CALL = 60
_STRUCK = "<- struck"
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
_DOES = {"call": "begins", "answer": "answers", "cancellation": ""}
# What the answer of a call is that a fault has struck.
_THEN = {"lost-ack": "has its effect, and fails", "late": "has its effect"}
# What a test says of behaviour that is as it should be.
_ACCEPT = "`assert answer in {'paid', 'try later'}`"
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
        yield from (f"  {line}" for line in _shortened(list(_call_lines(found.calls))))
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
            parts = [f"was created at {_short(made)}"] if made else []
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
    lines += _shortened(list(_orders_in_words(found.choices, witness)))
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
        at = "".join(f" at {_short(line.place)}" for line in seen.lines)
        yield f"{who} is cancelled from outside while it waits{at}"


def _made_by(seen: Happened) -> Iterator[str]:
    """Yield the user's lines that made a call."""
    for number, line in enumerate(seen.lines):
        yield f"  {'called ' if number else ''}at {_short(line.place)}: {line.text}"


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
        said.pop((chain, _which(oldest)), None)
        comes = f"{_comes(came, witness)} before {_named(oldest, witness)}"
        said[chain, _which(oldest)] = comes
    for came, oldest in [] if needed is None else pairs[needed:][:1]:
        if came.kind == oldest.kind == "op" and came.label == oldest.label:
            said.pop((came.chain, _which(oldest)), None)
            said[()] = _begins(came, oldest, witness)
    yield from said.values()


def _begins(came: Unit, oldest: Unit, witness: Witness | None) -> str:
    """Say of two calls of one site that neither has to be answered first."""
    later, earlier = _number(came, witness), _number(oldest, witness)
    return f"call {later} of {came.label} begins before call {earlier} has answered"


def _named(unit: Unit, witness: Witness | None = None) -> str:
    label = call_name(unit.label, max(1, _number(unit, witness)))
    return {
        "timer": f"the timer of {label}",
        "deadline": f"the time limit of {label}",
        "step": f"a step of {label}",
    }.get(unit.kind, label)


def _number(unit: Unit, witness: Witness | None) -> int:
    """Return which call of its site an operation belongs to."""
    number = unit.number
    return (
        number if witness is None else witness.numbers.get((unit.label, number), number)
    )


def _comes(unit: Unit, witness: Witness | None = None) -> str:
    does = {"op": "completes", "timer": "fires", "deadline": "runs out"}
    return f"{_named(unit, witness)} {does.get(unit.kind, 'comes')}"


# --- what happened -----------------------------------------------------------------


def story(witness: Witness) -> list[str]:
    """Return what happened, a line for each thing, with the user's line.

    A call that was answered before anything else happened has one line, any other has
    two: which answer overtook which can be read from top to bottom.

    Args:
        witness: What was seen.
    """
    rows = _kept_rows(list(_rows(witness)))
    if not rows:
        return ["no call that a fault could strike"]
    shown = [row for row in rows if row is not None]
    clock = max(len(row.clock) for row in shown)
    what = min(_WIDEST_CALL, max(len(row.what) for row in shown))
    tasks = {row.task for row in shown if row.task}
    task = max(map(len, tasks)) if len(tasks) > 1 else 0
    return ["..." if row is None else row.line(clock, what, task) for row in rows]


class _Row(NamedTuple):
    """One line of a story."""

    clock: str
    what: str
    task: str
    where: str
    is_struck: bool

    def line(self, clock: int, what: int, task: int) -> str:
        """Return it in columns of these widths; one of 0 is left out."""
        parts = [self.clock.rjust(clock), self.what.ljust(what)]
        if task:
            parts.append(self.task.ljust(task))
        return "  ".join([*parts, self.where]).rstrip()


def _rows(witness: Witness) -> Iterator[_Row]:
    log = witness.log
    answered = {one.name for one in log if one.what == "answer"}
    out: set[str] = set()
    skipped = False
    for index, one in enumerate(log):
        if skipped:
            skipped = False
            continue
        after = log[index + 1] if index + 1 < len(log) else None
        skipped = one.what == "call" and _is_answer_of(after, one)
        has_two_rows = not skipped and (not one.kind or one.name in answered)
        does = _DOES[one.what] if has_two_rows else ""
        yield _row(one, does, is_out=one.site in out)
        if one.kind == "outage":
            out.add(one.site)


def _is_answer_of(after: Happened | None, one: Happened) -> bool:
    return after is not None and (after.what, after.name) == ("answer", one.name)


def _row(one: Happened, does: str, *, is_out: bool) -> _Row:
    """Return the line of something that happened.

    Args:
        one: What happened.
        does: What is said of a call; empty if its one line is all there is.
        is_out: Whether an outage has struck its site before.
    """
    is_struck = one.what == "cancellation"
    what = f"{one.name} {does}".rstrip()
    if is_struck:
        what = f"cancelled from outside {_STRUCK}"
    elif one.kind and one.what == "answer":
        what = f"{one.name} {_THEN.get(one.kind, 'fails')} (struck above)"
    elif one.kind == "outage" and is_out:
        what += " in the outage" if does else " fails in the outage"
    elif one.kind:
        what += f" {_STRUCK}: {one.kind}"
        is_struck = True
    return _Row(f"{one.at:g} s", what, one.task, _where(one), is_struck)


def _where(one: Happened) -> str:
    """Return the user's line, and the functions that led to it."""
    if not one.lines:
        return ""
    first, *others = one.lines
    functions = [_function(line.place) for line in others]
    return " < ".join([_short(first.place), *functions])


def _short(place: str) -> str:
    """Return `test_shop.py:12 in serve` for a function that is inside another."""
    at, _, function = place.partition(" in ")
    return f"{at} in {function.rpartition('<locals>.')[2]}" if function else place


def _function(place: str) -> str:
    return place.partition(" in ")[2].rpartition("<locals>.")[2]


def _kept_rows(rows: list[_Row]) -> list[_Row | None]:
    """Leave out the middle of a long story, but not what was struck first."""
    if len(rows) <= _MOST_LINES + 1:
        return [*rows]
    half = _MOST_LINES // 2
    struck = next((n for n, row in enumerate(rows) if row.is_struck), 0)
    kept = {*range(half), *range(len(rows) - half, len(rows))}
    kept |= {*range(struck - 1, struck + 2)} & {*range(len(rows))}
    found: list[_Row | None] = []
    for number, row in enumerate(rows):
        if number in kept:
            found.append(row)
        elif found[-1] is not None:
            found.append(None)
    return found


def _held_lines(witness: Witness, verdict: Verdict | None) -> Iterator[str]:
    """Yield what is held while all wait: what the others wait for."""
    if verdict is None or verdict.kind not in _WAITING:
        return
    if not witness.holding.is_told(verdict.text.splitlines()):
        yield from (f"held until the end: {_short(held)}" for held in witness.held)


def _call_lines(calls: Sequence[CallSeen]) -> Iterator[str]:
    for call in calls:
        struck = f"  {_STRUCK}" if call.is_struck else ""
        yield f"{call_name(call.site, call.number)}{struck}"
    if not calls:
        yield "no call that a fault could strike"


def _shortened(lines: list[str]) -> list[str]:
    """Leave out the middle of a long list."""
    left_out = len(lines) - _MOST_LINES
    if left_out <= 1:
        return lines
    half = _MOST_LINES // 2
    return [*lines[:half], f"... {left_out} more ...", *lines[-half:]]


def recipe(found: Outcome) -> Iterator[str]:
    """Yield what to write if what was found is how it should be.

    Args:
        found: The execution that fails.
    """
    plan, verdict = found.plan, found.verdict
    if verdict is None or verdict.kind != "assertion":
        return
    if plan.faults:
        yield f"if that is right after such a fault, accept it: {_ACCEPT};"
        yield f"  or choose what is tried: {_CHOOSE}"
    elif plan.cancellation is not None:
        yield f"if that is right after a cancellation, accept it: {_ACCEPT}"


# --- what is different from a run in which all goes well ------------------------------


def without_it(found: Outcome, plain: Outcome) -> Iterator[str]:
    """Yield in a sentence what comes of the same test if nothing goes wrong.

    Args:
        found: The execution that fails.
        plain: The one that does not.
    """
    for one, other in zip(found.choices, plain.choices, strict=False):
        here, there = one.units[one.taken], other.units[other.taken]
        if _which(here) != _which(there):
            yield f"where all goes well, {_comes(there)} first, and not {_named(here)}"
            return
    here_calls, there_calls = _names(found.calls), _names(plain.calls)
    for number in range(max(len(here_calls), len(there_calls))):
        here_call = here_calls[number : number + 1]
        there_call = there_calls[number : number + 1]
        if here_call != there_call:
            yield _call_without_it(here_call, there_call)
            return


def _call_without_it(here: Sequence[str], there: Sequence[str]) -> str:
    if not there:
        return f"where all goes well, {here[0]} is not called"
    if not here:
        return f"where all goes well, {there[0]} is called next, and here nothing is"
    return f"where all goes well, {there[0]} is called next, and here {here[0]}"


def first_difference(found: Outcome, plain: Outcome) -> str:
    """Return the first thing that goes another way in one of two executions.

    Args:
        found: The execution that fails.
        plain: The one that does not.

    Returns:
        A sentence; empty if calls and choices are the same.
    """
    for number, (one, other) in enumerate(
        zip(found.choices, plain.choices, strict=False), start=1
    ):
        here, there = one.units[one.taken], other.units[other.taken]
        if _which(here) != _which(there):
            return f"at choice {number} {_comes(here)}, and there {_comes(there)}"
    return _different_call(found.calls, plain.calls)


def _which(unit: Unit) -> tuple[str, str, int]:
    return unit.kind, unit.label, unit.number


def _different_call(calls: Sequence[CallSeen], others: Sequence[CallSeen]) -> str:
    ends = "it ends"
    here, there = _names(calls), _names(others)
    for number in range(max(len(here), len(there))):
        one = here[number] if number < len(here) else ends
        other = there[number] if number < len(there) else ends
        if one != other:
            what = "call" if ends not in (one, other) else "after call"
            number_of = number + 1 if what == "call" else number
            return f"{what} {number_of}: {one}, and there {other}"
    return ""


def _names(calls: Sequence[CallSeen]) -> list[str]:
    return [call_name(call.site, call.number) for call in calls]


UNMARKED = "async"
"""Why an async test without a marker was not explored."""


def summary_lines(
    explored: dict[str, dict[str, Any]], unexplored: Mapping[str, str] = _NONE
) -> Iterator[str]:
    """Yield what is said at the end of a session in which tests were explored.

    Args:
        explored: What reports say of their explorations, by test.
        unexplored: Why others were not, by test.
    """
    if explored:
        yield from _explored_lines(explored)
    unmarked = sum(why == UNMARKED for why in unexplored.values())
    if unmarked:
        tests = "test was" if unmarked == 1 else "tests were"
        yield (
            f"{unmarked} async {tests} not explored: only sync tests that call "
            "tta.run(...) are, and those with @pytest.mark.tta_schedules or tta_sweep"
        )
    for test, why in unexplored.items():
        if why != UNMARKED:
            yield f"{test}: not explored: {why}"


def _explored_lines(explored: dict[str, dict[str, Any]]) -> Iterator[str]:
    executions = sum(found["executions"] for found in explored.values())
    tests = "test" if len(explored) == 1 else "tests"
    times = "execution" if executions == 1 else "executions"
    yield f"{len(explored)} {tests} explored in {executions:,} {times}"
    for test, found in explored.items():
        yield from (f"{test}: {line}" for line in _test_lines(found))


def _test_lines(found: dict[str, Any]) -> Iterator[str]:
    if found["replay"]:
        yield f"replay: {found['replay']}"
    for kept in found["failures"]:
        yield f"{kept['state']}: {kept['line'] or kept['path']}"
    if found["not_judged"] and not found["verdict"]:
        number = found["not_judged"]
        executions = "execution" if number == 1 else "executions"
        yield (
            f"its own assertions had no say in {number} {executions}, where a fallback "
            "or a kept answer stood in, or a part was cancelled"
        )
    if not found["verdict"]:
        yield from _gap_lines(found)
    if found.get("certificate"):
        yield found["certificate"]
    if found["verdict"]:
        line = found["line"]
        again = f"--tta-replay='{line}'" if line else "no line repeats it"
        yield f"{found['verdict']['kind']}: {again}"


def _gap_lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield what was not tried or reached, of a test in which nothing was found."""
    if found["all_orders"] is not None:
        tried = "all orders of events" if found["all_orders"] else "not all orders"
        yield f"{tried} were tried"
    if found["unreached"]:
        yield f"not reached: {', '.join(_shortened(found['unreached']))}"
        if found.get("deeper"):
            yield (
                f"{found['deeper']} faults at once would reach that: "
                f"@pytest.mark.tta_sweep(depth={found['deeper']})"
            )
    if found.get("idle"):
        yield found["idle"]
    if found["never"]:
        yield f"never so: {', '.join(found['never'])}"
