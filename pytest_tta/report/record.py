"""What reports are made of: the record of a test, and that of a session.

Everything is builtins: `report.tta` crosses from the workers of pytest-xdist to the
controller, and goes into files as it is. Names and meaning are a format with a version,
`schema.json` beside this file; a key may be added to it, and none changes its meaning.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NotRequired, TypeAlias, TypedDict

from pytest_tta.report.facts import VERSION

__all__ = [
    "SCHEMA",
    "VERSION",
    "CoverageRecord",
    "CoveredNode",
    "CoveredOutcome",
    "CoveredWorkflow",
    "ErrorRecord",
    "EventRecord",
    "ExplorationRecord",
    "ExploredVerdict",
    "ItemRecord",
    "MessageRecord",
    "Outcome",
    "RunRecord",
    "SessionRecord",
    "SleepRecord",
    "SpanRecord",
    "Status",
    "StoredFailure",
    "TotalRecord",
    "WrittenTest",
]

SCHEMA: Final = "tta-report-1"
"""The name of the format in files."""

Status: TypeAlias = Literal["ok", "failed", "timed_out", "cancelled", "unfinished"]
Outcome: TypeAlias = Literal["passed", "failed", "skipped", "error"]


class TotalRecord(TypedDict):
    """What came of all runs of one workflow in one test, of those under its name.

    Attributes:
        workflow: The path of its root.
        runs: How often it was executed from outside.
        failed: How many of these runs failed, timed out, or did not end.
        calls: How many executions of primitives there were, its own included.
        retries: How often something was tried again.
        faults: How many injected faults struck.
        virtual_seconds: How long the runs took, together.
    """

    workflow: str
    runs: int
    failed: int
    calls: int
    retries: int
    faults: int
    virtual_seconds: float


class ErrorRecord(TypedDict):
    """What a call raised.

    Attributes:
        type: The name of its class.
        message: Its text, without secrets, cut.
    """

    type: str
    message: str


class EventRecord(TypedDict):
    """Something that happened inside a call.

    Attributes:
        at: Virtual seconds since the recording began.
        name: For instance `retry.scheduled`.
        detail: What belongs to it, as texts.
    """

    at: float
    name: str
    detail: dict[str, str]


class MessageRecord(TypedDict):
    """What was said to a language model, or by it.

    Attributes:
        role: For instance `system`, `user`, `assistant`, `tool`.
        text: What was said, without secrets, cut.
    """

    role: str
    text: str


class SpanRecord(TypedDict):
    """One execution of a primitive.

    Attributes:
        id: Its position in the list of spans.
        parent: The `id` of the execution that it was a part of; None for a run.
        path: Of its position in the workflow, `answer/retry/llm`.
        name: Of the primitive.
        label: Its name among its siblings, `llm#2`.
        kind: The class of the primitive, `RetryPrimitive`.
        task: The name of the task that it began in.
        execution: The k of `path@k`.
        status: How it ended.
        started_at: Virtual seconds since the recording began.
        ended_at: The same; None if it did not end.
        input: What was given, as text, without secrets, cut; empty if None.
        output: What it returned, likewise.
        error: What it raised; None if it did not.
        fault: The injected fault that struck this call; empty if none did.
        events: What happened inside of it, in order.
        messages: Of a call of a language model, what was said and what came back.
    """

    id: int
    parent: int | None
    path: str
    name: str
    label: str
    kind: str
    task: str
    execution: int
    status: Status
    started_at: float
    ended_at: float | None
    input: str
    output: str
    error: ErrorRecord | None
    fault: str
    events: list[EventRecord]
    messages: list[MessageRecord]


class SleepRecord(TypedDict):
    """Something that waited for virtual time.

    Attributes:
        at: Virtual seconds since the clock began.
        seconds: How long it meant to wait.
        where: The file and the line that waited.
        task: The name of the task that waited.
    """

    at: float
    seconds: float
    where: str
    task: str


class RunRecord(TypedDict):
    """Everything that one execution of a test did.

    Attributes:
        of: Which execution it was: the test's ordinary one, or the smallest one that
            exploring found to fail.
        spans: Parents before their children, in order of beginning.
        sleeps: What waited for virtual time, in order.
        problems: What went wrong beside the test's own body.
        left_out: How many spans there were beyond those that are listed.
    """

    of: Literal["the test", "what exploring found"]
    spans: list[SpanRecord]
    sleeps: list[SleepRecord]
    problems: list[str]
    left_out: int


class ExploredVerdict(TypedDict):
    """What broke while a test was explored: its kind, its text and its place."""

    kind: str
    text: str
    where: str


class StoredFailure(TypedDict):
    """A failure that was kept before: its line, its state, and its file."""

    state: str
    path: str
    line: str


class ExplorationRecord(TypedDict):
    """What exploring a test came to.

    Attributes:
        executions: How often the test was executed.
        rounds: How often a portfolio of orders was gone through.
        all_orders: Whether all orders of events were tried; None if nobody asked.
        reached: What was struck, as `site:kind`.
        unreached: What could not be.
        not_judged: In how many executions the test's own assertions had no say.
        never: What `tta.sometimes` has named and no execution has reached.
        failures: Those that were kept before, and what became of them.
        replay: What came of replaying a line; empty without one.
        verdict: What broke; None if nothing did.
        line: Of the plan that breaks it; None if nothing did.
        deeper: How many faults at once would reach what was not; None if none would.
        idle: Why the sweep had nothing to strike; empty if it had.
        certificate: Where it was written down as a plain test, or why not.
    """

    executions: int
    rounds: int
    all_orders: bool | None
    reached: list[str]
    unreached: list[str]
    not_judged: int
    never: list[str]
    failures: list[StoredFailure]
    replay: str
    verdict: ExploredVerdict | None
    line: str | None
    deeper: NotRequired[int | None]
    idle: NotRequired[str]
    certificate: NotRequired[str]


class ItemRecord(TypedDict):
    """What is known of one test: `report.tta`.

    Attributes:
        version: Of the format.
        seed: Of chance and ids.
        virtual_seconds: How much virtual time passed.
        workflows: The paths of the roots of all runs, in order.
        totals: One for each different root.
        exploration: What exploring it came to, only if it was explored.
        run: Everything that it did, only if a file asks for it: for tests that failed,
            or for all with `--tta-runs=all`.
    """

    version: int
    seed: int
    virtual_seconds: float
    workflows: list[str]
    totals: list[TotalRecord]
    exploration: NotRequired[ExplorationRecord]
    run: NotRequired[RunRecord]


class CoveredOutcome(TypedDict):
    """One outcome of a primitive: reached by `tests`, by a `sweep` only, or not."""

    name: str
    by: Literal["tests", "sweep", ""]
    excluded: bool


class CoveredNode(TypedDict):
    """One position in a workflow: the class of the primitive, and its outcomes."""

    primitive: str
    outcomes: list[CoveredOutcome]


class CoveredWorkflow(TypedDict):
    """One workflow: its name, what `describe()` says of it, and its positions."""

    name: str
    tree: dict[str, Any]
    nodes: dict[str, CoveredNode]


class CoverageRecord(TypedDict):
    """How many outcomes of primitives were reached, with `--tta-cov`."""

    covered: int
    total: int
    percent: float
    workflows: list[CoveredWorkflow]


class WrittenTest(TypedDict):
    """One test in a file.

    Attributes:
        node_id: Of the test.
        outcome: What came of it; an `error` is one outside of its body.
        real_seconds: Set-up, body and tear-down.
        file: Below the root of the tests.
        line: From 1; 0 if it is not known.
        failure: The text of the failure, cut; empty if there is none.
        replay: The command that brings the failure back; empty if there is none.
        tta: What is known of it; None if it did not use the plugin.
        attempt: From 1, counting those that plugins have run again.
    """

    node_id: str
    outcome: Outcome
    real_seconds: float
    file: str
    line: int
    failure: str
    replay: str
    tta: ItemRecord | None
    attempt: int


class SessionRecord(TypedDict):
    """What a file says of a session.

    Attributes:
        version: Of the format.
        schema: Its name.
        created_at: When the file was written, ISO 8601 in UTC.
        python: The version of the interpreter.
        pytest: The version of pytest.
        tta: The version of this distribution.
        seed: Of tests that have none of their own.
        clock: The time of tests that have none of their own.
        real_seconds: How long the session took.
        tests: What was collected, in order of completion.
        coverage: Of outcomes, with `--tta-cov`.
    """

    version: int
    schema: str
    created_at: str
    python: str
    pytest: str
    tta: str
    seed: int
    clock: str
    real_seconds: float
    tests: list[WrittenTest]
    coverage: CoverageRecord | None
