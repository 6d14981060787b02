"""What is seen of one execution: calls, answers, cancellations, permits."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tta import op
from pytest_tta.explore import injected
from pytest_tta.explore.execution import Subject
from pytest_tta.explore.plan import Cancellation, FaultAt, Plan, Schedule
from pytest_tta.explore.report import finding_lines, plan_in_words
from pytest_tta.explore.story import story
from pytest_tta.explore.witness import call_name, witnessed
from pytest_tta.harness import Harness
from pytest_tta.report.sections import trace_text
from tta_primitives import WorkflowContext, step
from tta_primitives.recovery import RetryPrimitive, TimeoutPrimitive

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_tta.explore.outcome import Outcome
    from pytest_tta.explore.witness import Witness

OVERTAKEN = Plan(schedule=Schedule(order="sticky", deviations=((0, 1),)))


def seen(body: Callable[[Harness], object], plan: Plan) -> tuple[Witness, Outcome]:
    """Return what was seen of a body under a plan, and what came of it."""
    with Harness() as harness:
        body(harness)
        with Subject(harness, lambda: body(harness), test_file=__file__) as subject:
            outcome = subject(plan)
            return witnessed(subject, plan), outcome


async def read(label: str) -> None:
    """Ask the outside, with a limit."""
    async with asyncio.timeout(5):
        await op(label)


def racing(tta: Harness) -> None:
    """Have two tasks ask at the same time, one of them twice."""

    async def serve(_: object) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(read("menu"), name="page")
            group.create_task(twice(), name="side")

    async def twice() -> None:
        await read("session")
        await read("menu")

    tta.run(serve, None)


def test_a_call_is_named_as_in_a_trace() -> None:
    """The first has no number, as `search` and `search@2` in outlines."""
    assert [call_name("search", number) for number in (1, 2)] == ["search", "search@2"]


def test_calls_and_answers_are_seen_in_their_order() -> None:
    """What was overtaken begins first and is answered last."""
    witness, _ = seen(racing, OVERTAKEN)
    assert [(one.what, one.name) for one in witness.log] == [
        ("call", "menu"),
        ("call", "session"),
        ("answer", "session"),
        ("call", "menu@2"),
        ("answer", "menu@2"),
        ("answer", "menu"),
    ]


def test_watching_changes_nothing() -> None:
    """The execution that is watched is the one that was found."""
    with Harness() as harness:
        racing(harness)
        with Subject(harness, lambda: racing(harness), test_file=__file__) as subject:
            before = subject(OVERTAKEN)
            witness = witnessed(subject, OVERTAKEN)
            after = subject(OVERTAKEN)
    assert len(witness.log) == 6
    assert after.digest == before.digest
    assert asyncio.Lock.acquire.__module__ == "asyncio.locks"


def test_a_story_reads_from_top_to_bottom() -> None:
    """A call that was answered at once has one line, one that was overtaken has two."""
    witness, outcome = seen(racing, OVERTAKEN)
    lines = [line.replace("tests/explore/", "") for line in story(witness)]
    assert [line.partition("  test_witness")[0].rstrip() for line in lines] == [
        "0 s  menu begins   page (read)",
        "0 s  session       side (twice)",
        "0 s  menu@2        side (twice)",
        "0 s  menu answers  page (read)",
    ]
    assert lines[2].endswith(" in read < twice")
    assert plan_in_words(outcome, witness) == [
        "menu@2 completes before menu",
    ]


def test_a_call_that_hangs_has_its_number_all_the_same() -> None:
    """The second call is the second, although the first never got to its operation."""

    def body(tta: Harness) -> None:
        async def ask(_: object) -> None:
            for label in ("menu", "menu", "other"):
                try:
                    await read(label)
                except TimeoutError:
                    continue

        tta.run(ask, None)

    witness, _ = seen(body, Plan((FaultAt("menu", 1, "hang"),)))
    assert witness.numbers == {("menu", 1): 2, ("other", 1): 1}
    assert [line.split("  ")[:2] for line in story(witness)] == [
        ["0 s", "menu <- struck: hang"],
        ["5 s", "menu@2"],
        ["5 s", "other"],
    ]


def test_the_lines_that_made_a_call_are_told() -> None:
    """The innermost first, each with its text; a step begins where it is written."""

    def body(tta: Harness) -> None:
        @step
        async def pay(order: str) -> str:
            return order

        async def serve(order: str) -> Any:
            return await (pay >> str).execute(order, WorkflowContext())

        tta.run(serve, "o-1")

    path = "sequential/pay"
    witness, outcome = seen(body, Plan((FaultAt(path, 1, "fatal"),)))
    words = plan_in_words(outcome, witness)
    assert words[0] == f"call 1 of {path} is refused for good, before it has any effect"
    definition, caller = (line.strip() for line in words[1:])
    assert definition.endswith(" in pay: async def pay(...)")
    assert caller.startswith("called at tests/explore/test_witness.py:")
    assert caller.endswith(
        " in serve: return await (pay >> str).execute(order, WorkflowContext())"
    )


def test_a_struck_call_is_marked_in_the_trace() -> None:
    """The span in which a fault struck has an event that says which."""
    spans: list[tuple[str, dict[str, Any]]] = []

    def body(tta: Harness) -> None:
        @step
        async def pay(order: str) -> str:
            await read("bank")
            return order

        tta.run(pay >> str, "o-1")

    plan = Plan((FaultAt("bank", 1, "lost-ack"),))
    with Harness() as harness:
        body(harness)
        with Subject(harness, lambda: body(harness), test_file=__file__) as subject:
            subject(plan)

            def look(_: object) -> None:
                spans.extend(
                    (span.label, dict(event.detail))
                    for span in harness.trace.spans
                    for event in span.events
                )

            subject.on_execution = look
            witnessed(subject, Plan((FaultAt("bank", 1, "error"),)))
    fault = {"fault": "error", "kind": "error", "number": 1, "site": "bank"}
    assert spans == [("pay", fault)]


def test_an_error_that_the_code_makes_of_a_fault_is_not_injected() -> None:
    """The outline says what was struck within; an injected error says so itself."""
    outlines: list[str] = []

    def body(tta: Harness) -> None:
        @step
        async def pay(order: str) -> str:
            try:
                await read("bank")
            except ConnectionError as error:
                raise KeyError(order) from error
            return order

        with contextlib.suppress(KeyError):
            tta.run(pay, "o-1")

    plan = Plan((FaultAt("bank", 1, "error"),))
    with Harness() as harness:
        body(harness)
        with Subject(harness, lambda: body(harness), test_file=__file__) as subject:
            subject.on_execution = lambda _: outlines.append(trace_text(harness.trace))
            witnessed(subject, plan)
    (outline,) = outlines
    assert outline.splitlines() == [
        "pay 0s",
        "pay@2 0s failed: KeyError: 'o-1' (a fault struck bank within)",
    ]


class Refused(Exception):
    """What a retry retries."""


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("error", "call 1 of {path} raises {error} before it has any effect"),
        (
            "lost-ack",
            (
                "call 1 of {path} has its effect, and then raises {error}: the answer "
                "is lost"
            ),
        ),
        ("outage", "every call of {path} raises {error}, from call 1 of {path} on"),
        ("hang", "call 1 of {path} never answers, and has no effect"),
    ],
)
def test_what_a_fault_raises_is_named(kind: str, words: str) -> None:
    """With the module, if it is none of Python's own errors."""

    def body(tta: Harness) -> None:
        @step
        async def pay(order: str) -> str:
            return order

        retry = RetryPrimitive(pay, max_retries=1, retry_on=(Refused,))
        with contextlib.suppress(Refused, TimeoutError):
            tta.run(TimeoutPrimitive(retry, timeout_seconds=60), "o-1")

    path = "timeout/retry/pay"
    witness, outcome = seen(body, Plan((FaultAt(path, 1, kind),)))
    said = words.format(path=path, error=f"{__name__}.Refused")
    assert plan_in_words(outcome, witness)[0] == said
    assert injected.noted is injected._nobody


def test_a_cancellation_is_told_with_the_line_that_waited() -> None:
    """Who is cancelled, and what it was waiting for, rather than at which moment."""
    plan = Plan(cancellation=Cancellation("side", 1))
    witness, outcome = seen(racing, plan)
    words, *lines = plan_in_words(outcome, witness)
    assert words == (
        "task side (twice) is cancelled from outside while it waits for call 1 of "
        "session"
    )
    assert [line.partition(" in ")[2] for line in lines] == [
        "read: await op(label)",
        'twice: await read("session")',
    ]
    assert any("cancelled from outside <- struck" in line for line in story(witness))


def found_lines(body: Callable[[Harness], object], plan: Plan) -> list[str]:
    """Return what is said below the headline of a finding, and the headline."""
    witness, outcome = seen(body, plan)
    lines = list(finding_lines(outcome, None, "test_x.py::test", witness=witness))
    return [
        re.sub(r"tests/explore/test_witness.py:\d+", "test_x.py:1", line)
        for line in lines[: lines.index("what it takes:")]
    ]


async def give_up(label: str) -> None:
    """Swallow a cancellation."""
    with contextlib.suppress(ValueError):
        try:
            await read(label)
        except asyncio.CancelledError:
            return


@pytest.mark.parametrize("goes_on", [True, False])
def test_who_swallowed_a_cancellation_is_named(*, goes_on: bool) -> None:
    """Of those it went through, who has a handler, as far as it can have got."""

    async def outer() -> None:
        try:
            await give_up("bank")
            if goes_on:
                await read("mail")
        finally:
            await asyncio.sleep(0)

    def body(tta: Harness) -> None:
        async def serve(_: object) -> None:
            try:
                await outer()
            except ValueError:
                return

        tta.run(serve, None)

    _, *told, _ = found_lines(body, Plan(cancellation=Cancellation("main", 0)))
    others = [] if goes_on else [", or by serve (test_x.py:1)"]
    assert told == [
        "  swallowed by give_up (test_x.py:1), or by outer (test_x.py:1)"
        + "".join(others),
        "  it was thrown into read < give_up < outer < serve",
    ]


def test_a_task_that_is_left_is_told_with_its_beginning() -> None:
    """Where it was made, and for which call it waits."""

    def body(tta: Harness) -> None:
        async def serve(_: object) -> None:
            left = asyncio.create_task(read("audit"), name="audit")
            await read("menu")
            await left

        tta.run(serve, None)

    headline, *told, _ = found_lines(body, Plan((FaultAt("menu", 1, "error"),)))
    assert headline.startswith("found while exploring: left running: task audit ")
    (line,) = told
    made, _, waits = line.partition(", and ")
    assert made == "  audit (read) was created at test_x.py:1 in serve"
    assert waits == "waits for call 1 of audit"


def test_who_holds_what_the_others_wait_for_is_told() -> None:
    """A permit that is held at the end has the name of its task and the line."""

    def body(tta: Harness) -> None:
        lock = asyncio.Lock()

        async def serve(_: object) -> None:
            await lock.acquire()

        tta.run(serve, None)

    witness, _ = seen(body, Plan())
    (held,) = witness.held
    assert held.startswith(
        "asyncio.Lock, taken by Task-1 (main) at tests/explore/test_"
    )


def test_a_long_story_keeps_what_was_struck() -> None:
    """The beginning, the end, and the struck call in the middle."""

    def body(tta: Harness) -> None:
        async def ask(_: object) -> None:
            for number in range(40):
                try:
                    await read(f"site-{number}")
                except ConnectionError:
                    continue

        tta.run(ask, None)

    witness, _ = seen(body, Plan((FaultAt("site-20", 1, "error"),)))
    shown = [
        line.split("  ")[1].rstrip() if "  " in line else line
        for line in story(witness)
    ]
    assert shown == [
        *(f"site-{number}" for number in range(6)),
        "...",
        "site-19",
        "site-20 <- struck: error",
        "site-21",
        "...",
        *(f"site-{number}" for number in range(34, 40)),
    ]


def test_a_call_that_is_struck_fails_once() -> None:
    """Where it begins it is struck, and where it fails that is said to be that."""

    def body(tta: Harness) -> None:
        async def ask(label: str) -> None:
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(5), op(label):
                    pass

        async def serve(_: object) -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(ask("menu"))
                group.create_task(ask("mail"))

        tta.run(serve, None)

    found = {
        kind: [
            line.partition("  ")[2].partition("  ")[0]
            for line in story(seen(body, Plan((FaultAt("menu", 1, kind),)))[0])
        ]
        for kind in ("error", "lost-ack")
    }
    assert found == {
        "error": [
            "menu begins <- struck: error",
            "mail begins",
            "menu fails (struck above)",
            "mail answers",
        ],
        "lost-ack": [
            "menu begins <- struck: lost-ack",
            "mail begins",
            "menu has its effect, and fails (struck above)",
            "mail answers",
        ],
    }


def test_an_outage_strikes_once() -> None:
    """Later calls fail in it."""

    def body(tta: Harness) -> None:
        async def ask(_: object) -> None:
            for _ in range(3):
                with contextlib.suppress(ConnectionError):
                    await read("menu")

        tta.run(ask, None)

    witness, _ = seen(body, Plan((FaultAt("menu", 2, "outage"),)))
    assert [line.split("  ")[1] for line in story(witness)] == [
        "menu",
        "menu@2 <- struck: outage",
        "menu@3 fails in the outage",
    ]


def test_a_task_of_a_workflow_has_the_name_of_it() -> None:
    """A task that was made of `execute` runs no function of the user's."""

    def body(tta: Harness) -> None:
        @step
        async def pay(order: str) -> str:
            await read("bank")
            return order

        async def serve(order: str) -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(pay.execute(order, WorkflowContext()))
                group.create_task(read("mail"))

        tta.run(serve, "o-1")

    witness, _ = seen(body, Plan())
    assert {one.task for one in witness.calls()} == {"Task-2 (pay)", "Task-3 (read)"}
