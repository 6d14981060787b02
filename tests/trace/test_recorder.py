"""What a recorder keeps of a run."""

from __future__ import annotations

import asyncio
import gc
import weakref
from dataclasses import dataclass

import pytest

from pytest_tta.clock.clock import VirtualClock
from pytest_tta.trace import SpanNotFoundError, TraceRecorder
from tta_primitives import (
    ParallelPrimitive,
    SequentialPrimitive,
    StepPrimitive,
    WorkflowContext,
    WorkflowPrimitive,
)
from tta_primitives.door import emit, listening


class Again(WorkflowPrimitive):
    """Executes what it is given until it succeeds, three times at most."""

    def __init__(self, inner):
        self.inner = inner

    async def execute(self, input_data, context):
        for _ in range(2):
            try:
                return await self._once(input_data, context)
            except Exception as error:
                emit(context, "again.scheduled", error=error, delay=1.5)
                await asyncio.sleep(1.5)
        return await self._once(input_data, context)

    def _once(self, input_data, context):
        below = context.below(self, self.inner, self.inner.name)
        return self.inner.execute(input_data, below)


def record(workflow, input_data=None):
    """Return the trace of one run in virtual time, and the error that it ended with."""
    recorder = TraceRecorder()

    async def main():
        with listening(observers=(recorder,)):
            return await workflow.execute(input_data, WorkflowContext())

    try:
        VirtualClock().run(main())
    except Exception as error:
        return recorder.trace, error
    return recorder.trace, None


def failing(times, error=ValueError):
    """Return a step that fails so often before it answers."""
    left = [times]

    async def llm(text):
        await asyncio.sleep(0.5)
        left[0] -= 1
        if left[0] >= 0:
            raise error(text)
        return text.upper()

    return StepPrimitive(llm)


def test_h37_durations_are_virtual_and_exact():
    """Half a second and a second and a half are three attempts and two waits."""
    trace, _ = record(Again(failing(2)).named("answer"), "q")
    assert trace.find("answer").duration == 4.5
    assert [s.started_at for s in trace.spans_at("llm")] == [0.0, 2.0, 4.0]
    assert [s.ended_at for s in trace.spans_at("llm")] == [0.5, 2.5, 4.5]
    assert [s.duration for s in trace.spans_at("llm")] == [0.5, 0.5, 0.5]


def test_a_span_tells_what_ran():
    """Name, path, execution, class, input, output and error are all there."""
    trace, _ = record(Again(failing(1)).named("answer"), "q")
    first, second = trace.spans_at("answer/llm")
    assert (first.name, first.label, first.path) == ("llm", "llm", "answer/llm")
    assert (first.execution, second.execution) == (1, 2)
    assert (first.kind, first.parent.kind) == ("StepPrimitive", "Again")
    assert (first.input, second.output) == ("q", "Q")
    assert (type(first.error), first.error.args) == (ValueError, ("q",))
    assert (first.output, second.error) == (None, None)
    assert first.is_stream is False
    assert first.task == "Task-1"


def test_events_stand_at_the_span_in_which_they_happened():
    """An event has its time, its name and a copy of its detail."""
    trace, _ = record(Again(failing(1)).named("answer"), "q")
    (event,) = trace.find("answer").events
    assert (event.at, event.name, event.detail["delay"]) == (
        0.5,
        "again.scheduled",
        1.5,
    )
    assert isinstance(event.detail["error"], ValueError)
    assert trace.spans_at("llm")[0].events == []


def test_h38_failed_timed_out_cancelled_and_unfinished_are_four_statuses():
    """None of the four ways not to succeed looks like another, or like success."""
    recorder = TraceRecorder()

    async def wait(text):
        await asyncio.sleep(10)

    async def broken(text):
        raise ValueError(text)

    async def main():
        context = WorkflowContext()
        with listening(observers=(recorder,)):
            await StepPrimitive(str, name="good").execute("x", context)
            for step in (
                StepPrimitive(broken),
                StepPrimitive(wait, name="limited", timeout_seconds=1),
            ):
                with pytest.raises((ValueError, TimeoutError), match=r"x|took longer"):
                    await step.execute("x", context)
            task = asyncio.create_task(
                StepPrimitive(wait, name="stopped").execute("x", context)
            )
            await asyncio.sleep(1)
            task.cancel()
            still = asyncio.create_task(
                StepPrimitive(wait, name="running").execute("x", context)
            )
            await asyncio.sleep(1)
            statuses = {span.name: span.status for span in recorder.trace.spans}
            still.cancel()
            return statuses

    assert VirtualClock().run(main()) == {
        "good": "ok",
        "broken": "failed",
        "limited": "timed_out",
        "stopped": "cancelled",
        "running": "unfinished",
    }


def test_an_unfinished_span_has_no_duration():
    """What did not end has neither end nor duration, and says so in the outline."""
    recorder = TraceRecorder()

    async def main():
        with listening(observers=(recorder,)):
            step = StepPrimitive(asyncio.sleep, name="nap")
            task = asyncio.create_task(step.execute(9, WorkflowContext()))
            await asyncio.sleep(1)
            span = recorder.trace.find("nap")
            seen = (span.ended_at, span.duration, recorder.trace.outline())
            await task
            return seen, span.duration, span.status

    seen, duration, status = VirtualClock().run(main())
    assert seen == (None, None, "nap unfinished")
    assert (duration, status) == (9.0, "ok")


@dataclass
class Question:
    """A mutable input."""

    text: str
    tags: list


def test_h40_recorded_inputs_and_outputs_survive_mutation():
    """What a workflow changes after the fact stays in the record as it was."""

    def spoil(question):
        answer = {"tags": question.tags}
        question.text = "spoilt"
        question.tags.append("late")
        return answer

    def spoil_more(answer):
        answer["tags"].append("later")
        return answer

    question = Question("q", ["new"])
    workflow = StepPrimitive(spoil) >> StepPrimitive(spoil_more)
    trace, _ = record(workflow.named("answer"), question)
    assert trace.find("answer").input == Question("q", ["new"])
    assert trace.find("spoil").input == Question("q", ["new"])
    assert trace.find("spoil").output == {"tags": ["new", "late"]}
    assert trace.find("spoil_more").input == {"tags": ["new", "late"]}
    assert trace.find("spoil_more").output == {"tags": ["new", "late", "later"]}
    assert question == Question("spoilt", ["new", "late", "later"])


def test_an_input_that_cannot_be_copied_does_not_fail_the_run():
    """A lock, a generator, a hostile object: the run goes on, the record stands in."""

    class Hostile:
        def __deepcopy__(self, memo):
            raise RuntimeError("no copies")

        def __repr__(self):
            raise RuntimeError("no repr")

    hostile = Hostile()
    trace, error = record(StepPrimitive(lambda x: 1, name="eat"), hostile)
    assert error is None
    assert trace.find("eat").output == 1
    assert "Hostile whose repr raised RuntimeError" in repr(trace.find("eat").input)
    assert trace.find("eat").input == hostile


def test_a_record_keeps_no_frames_alive():
    """What a workflow held when it failed is gone although its trace is kept."""

    class Held:
        pass

    seen = []

    async def broken(text):
        held = Held()
        seen.append(weakref.ref(held))
        raise ValueError(text)

    trace, error = record(StepPrimitive(broken), "q")
    assert error.args == ("q",)
    del error
    gc.collect()
    assert seen[0]() is None
    assert trace.find("broken").error.args == ("q",)


def test_streams_are_recorded_with_their_chunks():
    """A stream's output is the list of what it yielded before it ended."""
    recorder = TraceRecorder()

    async def tokens(text):
        yield text
        await asyncio.sleep(2)
        yield text.upper()

    async def main():
        step = StepPrimitive(tokens)
        with listening(observers=(recorder,)):
            return [chunk async for chunk in step.stream("a", WorkflowContext())]

    assert VirtualClock().run(main()) == ["a", "A"]
    span = recorder.trace.find("tokens")
    assert (span.output, span.duration, span.is_stream) == (["a", "A"], 2.0, True)
    assert recorder.trace.outline() == "tokens stream 2s"


def branch(name, delay):
    """Return a step that takes so long."""

    async def run(text):
        await asyncio.sleep(delay)
        return name

    return StepPrimitive(run, name=name)


@pytest.mark.parametrize("delays", [(1, 2, 3), (3, 2, 1), (2, 3, 1)])
def test_h39_the_outline_does_not_depend_on_which_branch_is_done_first(delays):
    """Branches stand in operand order, whatever the order of completion."""
    workflow = ParallelPrimitive(*map(branch, "abc", delays)).named("all")
    trace, _ = record(workflow)
    assert trace.outline(durations=False) == "all\n  a\n  b\n  c"


def test_h39_the_outline_does_not_depend_on_the_order_of_the_start():
    """Branches of a parallel that begins with its last one stand in operand order."""

    class Backwards(ParallelPrimitive):
        async def execute(self, input_data, context):
            for one, name in zip(self.branches[::-1], ["b", "a#2", "a"], strict=True):
                await one.execute(input_data, context.below(self, one, name))

    workflow = Backwards(branch("a", 0), branch("a", 0), branch("b", 0)).named("all")
    trace, _ = record(workflow)
    assert [span.label for span in trace.spans] == ["all", "b", "a#2", "a"]
    assert trace.outline(durations=False) == "all\n  a\n  a#2\n  b"


@pytest.mark.parametrize("slow", ["a", "b"])
def test_h39_the_outline_does_not_depend_on_which_branch_goes_first(slow):
    """Branches that start something late are not told in the order of the start."""

    class Late(WorkflowPrimitive):
        def __init__(self, inner):
            self.inner = inner

        async def execute(self, input_data, context):
            await asyncio.sleep(1 if self.inner.name == slow else 0)
            return await self.inner.execute(
                input_data, context.below(self, self.inner, self.inner.name)
            )

    branches = (Late(branch(name, 0)).named(f"late_{name}") for name in "ab")
    trace, _ = record(ParallelPrimitive(*branches).named("all"))
    assert trace.outline(durations=False) == "all\n  late_a\n    a\n  late_b\n    b"


def test_the_outline_shows_what_was_not_usual():
    """Executions are numbered, durations exact, failures named."""
    trace, _ = record(Again(failing(3)).named("answer"), "q")
    assert (
        trace.outline() == "answer 4.5s failed: ValueError\n"
        "  llm 0.5s failed: ValueError\n"
        "  llm@2 0.5s failed: ValueError\n"
        "  llm@3 0.5s failed: ValueError"
    )


@pytest.mark.parametrize("kind", ["requests", None])
def test_the_outline_names_the_class_of_an_error_that_has_a_type_of_its_own(kind):
    """As those of the vendors' SDKs have, a word of the provider or None."""

    class LimitError(Exception):
        def __init__(self):
            super().__init__("busy")
            self.type = kind

    def limited(_):
        raise LimitError

    trace, _ = record(StepPrimitive(limited), "q")
    assert trace.outline(durations=False) == "limited failed: LimitError"


def test_the_outline_can_show_events():
    """An event stands below the span in which it happened."""
    trace, _ = record(Again(failing(1)).named("answer"), "q")
    outline = trace.outline(durations=False, events=True)
    assert (
        outline.splitlines()[1] == "  ! again.scheduled error=ValueError('q') delay=1.5"
    )


def test_find_takes_paths_ends_of_paths_patterns_and_numbers():
    """A span is named by as much of its path as tells it apart."""
    trace, _ = record(Again(failing(1)).named("answer"), "q")
    assert trace.find("answer/llm@2").output == "Q"
    assert trace.find("llm@1").status == "failed"
    assert trace.find("*/ll?@2").execution == 2
    assert trace.find("/answer").path == "answer"
    assert [span.path for span in trace.spans_at("**")] == [
        "answer",
        "answer/llm",
        "answer/llm",
    ]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("answer/lmm", r"nothing ran at 'answer/lmm'; nearest: 'answer/llm'"),
        ("zzz", r"nothing ran at 'zzz'; there are 'answer', 'answer/llm'"),
        ("llm", r"several .* pick one of 'answer/llm@1', 'answer/llm@2'"),
        ("llm@3", r"no such execution .* 'answer/llm@1', 'answer/llm@2'"),
    ],
)
def test_what_is_not_there_fails_with_the_nearest_names(path, message):
    """Looking for a span never gives another one, and never nothing."""
    trace, _ = record(Again(failing(1)).named("answer"), "q")
    with pytest.raises(SpanNotFoundError, match=message):
        trace.find(path)


@pytest.mark.parametrize("path", ["", "a//b", "llm@x", "llm@0"])
def test_a_path_that_is_none_is_refused(path):
    """Empty labels and executions that are no numbers are errors, not misses."""
    trace, _ = record(failing(0), "q")
    with pytest.raises(ValueError, match=r"path='.*' must"):
        trace.find(path)


def test_spans_at_an_unknown_path_fails():
    """That nothing ran is asserted with no(...), not with an empty list."""
    with pytest.raises(SpanNotFoundError, match="no workflow has run"):
        TraceRecorder().trace.spans_at("llm")


def test_two_recorders_do_not_see_each_other():
    """Each records its own scope, and inner scopes belong to outer ones."""
    outer, inner = TraceRecorder(), TraceRecorder()

    async def main():
        step = failing(0)
        with listening(observers=(outer,)):
            await step.execute("a", WorkflowContext())
            with listening(observers=(inner,)):
                await step.execute("b", WorkflowContext())

    VirtualClock().run(main())
    assert [span.input for span in outer.trace.spans] == ["a", "b"]
    assert [span.input for span in inner.trace.spans] == ["b"]


def test_known_paths_are_those_of_all_positions():
    """Positions that were not reached are known beside those that were."""
    recorder = TraceRecorder()

    async def main():
        workflow = SequentialPrimitive(failing(1), branch("after", 0)).named("answer")
        with (
            listening(observers=(recorder,)),
            pytest.raises(ValueError, match="q"),
        ):
            await workflow.execute("q", WorkflowContext())

    VirtualClock().run(main())
    assert recorder.known_paths() == ["answer", "answer/llm", "answer/after"]


def test_a_cleared_recorder_begins_again():
    """What was recorded before is gone, and traces handed out keep it."""
    recorder = TraceRecorder()

    async def main():
        with listening(observers=(recorder,)):
            await failing(0).execute("a", WorkflowContext())
            before = recorder.trace
            recorder.clear()
            assert recorder.trace.spans == []
            await failing(0).execute("b", WorkflowContext())
            return before

    before = VirtualClock().run(main())
    assert [span.input for span in before.spans] == ["a"]
    assert [span.input for span in recorder.trace.spans] == ["b"]


def test_time_counts_from_the_beginning_that_was_given():
    """A harness counts from the start of its clock, not from the first call."""
    recorder = TraceRecorder(began=0.0)

    async def main():
        await asyncio.sleep(7)
        with listening(observers=(recorder,)):
            await failing(0).execute("a", WorkflowContext())

    VirtualClock().run(main())
    assert recorder.trace.find("llm").started_at == 7.0
