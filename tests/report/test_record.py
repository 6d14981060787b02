"""What is written down of a test: facts for every report, and whole runs for files."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import openai
import pytest

from pytest_tta.faults import first, nth, rate_limit
from pytest_tta.harness import Harness
from pytest_tta.report import runs
from pytest_tta.report.facts import facts, properties
from pytest_tta.report.messages import _sent
from pytest_tta.report.runs import run_record
from tta_primitives import MapPrimitive, WorkflowContext, step
from tta_primitives.door import emit
from tta_primitives.llm import LLMRequest, LLMResponse, Message, ToolCall
from tta_primitives.recovery import FallbackPrimitive, RetryPrimitive, TimeoutPrimitive

KEY = "sk-" + "proj-0123456789abcdef"


@step
async def llm(question: Any) -> Any:
    """Answer after a second."""
    await asyncio.sleep(1)
    return "42"


@step
async def broken(_: Any) -> Any:
    """Fail with a hostile text."""
    raise ValueError(f"\x1b[2J<script>\u202e {KEY}")


def make() -> Any:
    """Return a workflow with a retry."""
    retry = RetryPrimitive(llm, max_retries=2, initial_delay=1, jitter="none")
    return retry.named("answer")


def test_facts_add_up_what_the_runs_of_a_workflow_did() -> None:
    """Runs, failures, calls, retries, faults and virtual time, workflow by workflow."""
    with Harness(seed=3) as tta:
        tta.faults.at("answer/llm").fail(TimeoutError(), when=first(4))
        with suppress(TimeoutError):
            tta.run(make(), "q")
        tta.run(make(), "q")
        tta.run(llm, "q")
        assert facts(tta) == {
            "version": 1,
            "seed": 3,
            "virtual_seconds": 6.0,
            "workflows": ["answer", "answer", "llm"],
            "totals": [
                {
                    "workflow": "answer",
                    "runs": 2,
                    "failed": 1,
                    "calls": 7,
                    "retries": 3,
                    "faults": 4,
                    "virtual_seconds": 5.0,
                },
                {
                    "workflow": "llm",
                    "runs": 1,
                    "failed": 0,
                    "calls": 1,
                    "retries": 0,
                    "faults": 0,
                    "virtual_seconds": 1.0,
                },
            ],
        }


def test_a_run_is_written_with_faults_events_and_waits() -> None:
    """Each call with its parent, its times, what struck it, and what it waited for."""
    with Harness() as tta:
        tta.faults.at("llm").fail(TimeoutError("late"), when=first(1))
        tta.run(make(), "q")
        record = run_record(tta)
    assert record["of"] == "the test"
    assert record["left_out"] == 0
    told = [
        (one["id"], one["parent"], one["path"], one["execution"], one["status"])
        for one in record["spans"]
    ]
    assert told == [
        (0, None, "answer", 1, "ok"),
        (1, 0, "answer/llm", 1, "failed"),
        (2, 0, "answer/llm", 2, "ok"),
    ]
    root, struck, good = record["spans"]
    assert (root["started_at"], root["ended_at"]) == (0.0, 2.0)
    assert (root["input"], root["output"]) == ("'q'", "'42'")
    assert root["kind"] == "RetryPrimitive"
    names = [event["name"] for event in root["events"]]
    assert names == ["retry.attempt", "retry.scheduled", "retry.attempt"]
    assert root["events"][1]["detail"]["delay"] == "1.0"
    assert struck["error"] == {"type": "TimeoutError", "message": "late"}
    assert struck["fault"].startswith("fail(TimeoutError('late')) at tests/report/")
    assert (good["fault"], good["error"]) == ("", None)
    waits = [(one["at"], one["seconds"]) for one in record["sleeps"]]
    assert waits == [(0.0, 1.0), (1.0, 1.0)]


def test_calls_that_end_otherwise_say_how() -> None:
    """Timed out, cancelled and unfinished calls have these words as their status."""
    slow = step(lambda _: asyncio.sleep(60)).named("slow")
    limited = TimeoutPrimitive(slow, timeout_seconds=5)
    with Harness() as tta:
        tta.run(FallbackPrimitive(limited, fallbacks=["sorry"]).named("timed"), 1)
        ended = {one["name"]: one for one in run_record(tta)["spans"]}
    assert ended["timeout"]["status"] == "timed_out"
    assert ended["slow"]["status"] == "cancelled"
    assert ended["timed"]["status"] == "ok"


async def test_a_call_that_goes_on_has_no_end(tta: Harness) -> None:
    """A record may be taken at any time; what has not ended says so."""
    task = asyncio.ensure_future(llm.execute("q", WorkflowContext()))
    await asyncio.sleep(0.5)
    (span,) = run_record(tta)["spans"]
    await task
    assert (span["status"], span["ended_at"], span["output"]) == (
        "unfinished",
        None,
        "",
    )


class Unshown:
    """Something whose repr raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


@dataclass
class Login:
    """Something with a secret in a field."""

    user: str
    password: str


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (7, "7"),
        ({"q": "a\nb"}, "{'q': 'a\\nb'}"),
        ("\x1b[2J\u202e\ud800", "'\\x1b[2J\\u202e\\ud800'"),
        (KEY, "'<redacted>'"),
        ({"api_key": "abc", "n": 1}, "{'api_key': '[redacted]', 'n': 1}"),
        (Login("ada", "lovelace"), "Login(user='ada', password='[redacted]')"),
        (b"\x00\xff", "b'\\x00\\xff'"),
    ],
    ids=["none", "int", "lines", "hostile", "key", "field", "dataclass", "bytes"],
)
def test_values_are_written_as_they_print_without_secrets(
    value: object, shown: str
) -> None:
    """The text of a value is its repr, clean and without what is secret."""
    echo = step(lambda given: asyncio.sleep(0, given)).named("echo")
    with Harness() as tta:
        tta.run(echo, value)
        (span,) = run_record(tta)["spans"]
    assert span["input"] == shown
    assert span["output"] == shown


def test_what_cannot_be_shown_is_named() -> None:
    """An object whose repr fails does not make the report fail."""
    echo = step(lambda given: asyncio.sleep(0, given)).named("echo")
    with Harness() as tta:
        tta.run(echo, [Unshown()])
        (span,) = run_record(tta)["spans"]
    assert "Unshown whose repr raised RuntimeError" in span["input"]


def test_ten_megabytes_are_cut_and_counted() -> None:
    """A huge input takes no more than its share of the report."""
    echo = step(lambda given: asyncio.sleep(0, len(given))).named("echo")
    with Harness() as tta:
        tta.run(echo, "x" * 10_000_000)
        (span,) = run_record(tta)["spans"]
    assert "[9,998,002 characters left out]" in span["input"]
    assert len(span["input"]) < 2_100


def test_all_values_together_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """When there is too much of them, later values only say so."""
    monkeypatch.setattr(runs, "_MOST_WRITTEN", 10)
    echo = step(lambda given: asyncio.sleep(0, given)).named("echo")
    with Harness() as tta:
        tta.run(echo, "twelve chars")
        (span,) = run_record(tta)["spans"]
    assert span["input"] == "'twelve chars'"
    assert span["output"] == "'twelve chars'"
    with Harness() as tta:
        tta.run(echo, ["first one", "and more"])
        tta.run(echo, ["second"])
        last = run_record(tta)["spans"][-1]
    assert last["input"] == "<not shown: there is too much in this run>"


def test_spans_beyond_the_limit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of too many calls is written as far as it fits."""
    monkeypatch.setattr(runs, "MOST_SPANS", 4)
    with Harness() as tta:
        tta.run(MapPrimitive(llm), list(range(9)))
        record = run_record(tta)
    assert len(record["spans"]) == 4
    assert record["left_out"] == 6
    assert len(record["sleeps"]) == 4


def test_errors_are_written_clean() -> None:
    """What an error says is cleaned as well as any value."""
    with Harness() as tta:
        with suppress(ValueError):
            tta.run(broken, 1)
        (span,) = run_record(tta)["spans"]
    assert span["error"] == {
        "type": "ValueError",
        "message": "\\x1b[2J<script>\\u202e <redacted>",
    }


def test_a_wait_without_end_is_a_number_in_json() -> None:
    """Seconds are finite, because JSON has no infinity."""

    async def forever(_: Any) -> str:
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(float("inf")), 3)
        return "done"

    with Harness() as tta:
        tta.run(step(forever).named("forever"), 1)
        record = run_record(tta)
    assert 1e12 in [one["seconds"] for one in record["sleeps"]]
    json.dumps(record, allow_nan=False)


def test_a_record_is_of_builtins_only() -> None:
    """Whatever workflows are given, a record crosses processes and is JSON."""

    def kinds(value: Any) -> set[type]:
        inner = value.values() if isinstance(value, dict) else value
        is_container = isinstance(value, (dict, list))
        below = (kinds(one) for one in inner) if is_container else ()
        return {type(value)}.union(*below)

    with Harness() as tta:
        tta.run(make(), {"when": object(), 3: {4}})
        record = {**facts(tta), "run": run_record(tta)}
    assert kinds(record) <= {dict, list, str, int, float, bool, type(None)}
    assert json.loads(json.dumps(record)) == record


def said(value: Any, output: Any) -> list[tuple[str, str]]:
    """Return the messages of a call that the LLM double answers."""
    with Harness() as tta:
        tta.llm.at("llm").returns(output).always()
        tta.run(make(), value)
        retry, call = run_record(tta)["spans"]
    assert retry["messages"] == []
    return [(one["role"], one["text"]) for one in call["messages"]]


TOOL = ToolCall("search", {"q": "tea"}, id="call_1")


@pytest.mark.parametrize(
    ("value", "output", "messages"),
    [
        ("Hi?", "Hello", [("user", "Hi?"), ("assistant", "Hello")]),
        (
            LLMRequest((Message("system", "Be kind"), Message("user", "Hi?"))),
            LLMResponse("Hello"),
            [("system", "Be kind"), ("user", "Hi?"), ("assistant", "Hello")],
        ),
        (
            [{"role": "user", "content": [{"type": "text", "text": "Hi?"}]}],
            LLMResponse("", (TOOL,), "tool_calls"),
            [("user", "Hi?"), ("assistant", "calls search({'q': 'tea'})")],
        ),
        (
            {"system": "Be kind", "messages": [{"role": "user", "content": "Hi?"}]},
            {"choices": [{"message": {"role": "assistant", "content": "Hello"}}]},
            [("system", "Be kind"), ("user", "Hi?"), ("assistant", "Hello")],
        ),
        ("Hi?", ["Hel", "lo"], [("user", "Hi?"), ("assistant", "Hello")]),
        (
            f"\x1b[2J my key is {KEY}",
            "ok",
            [("user", "\\x1b[2J my key is <redacted>"), ("assistant", "ok")],
        ),
    ],
    ids=["texts", "request", "parts-and-tools", "vendor", "stream", "hostile"],
)
def test_what_was_said_to_a_model_is_written_as_messages(
    value: Any, output: Any, messages: list[tuple[str, str]]
) -> None:
    """Conversations of any shape, at the call of the model and not around it."""
    assert said(value, output) == messages


def test_of_a_long_conversation_the_ends_are_written() -> None:
    """The middle of very many messages is left out, and counted."""
    turns = [{"role": "user", "content": str(n)} for n in range(250)]
    written = said(turns, "ok")
    assert len(written) == 101
    assert written[50] == ("", "... 151 messages left out ...")
    assert written[-1] == ("assistant", "ok")


async def ask(question: str) -> str:
    """Ask a provider through its own SDK, as a user's step does."""
    client = openai.AsyncOpenAI(api_key=KEY, max_retries=0)
    said = await client.chat.completions.create(
        model="gpt-5", messages=[{"role": "user", "content": question}]
    )
    return said.choices[0].message.content or ""


def test_what_a_step_said_on_the_wire_is_written_as_messages() -> None:
    """Requests of the real SDK and their answers are read, also those that fail."""
    with Harness() as tta:
        tta.wire.openai.reply("Hello")
        tta.wire.openai.inject(rate_limit(), when=nth(2))
        tta.run(step(ask), "Hi?")
        with suppress(openai.RateLimitError):
            tta.run(step(ask), "And now?")
        good, bad = run_record(tta)["spans"]
    assert good["messages"] == [
        {"role": "user", "text": "Hi?"},
        {"role": "assistant", "text": "Hello"},
    ]
    asked, answered = bad["messages"]
    assert asked == {"role": "user", "text": "And now?"}
    assert answered["text"].startswith('HTTP 429: {"error":')


def test_an_answer_that_no_parser_takes_is_written_as_it_came() -> None:
    """JSON that is nested too deep for Python breaks no report."""
    body = "[" * 100_000
    assert _sent(200, body.encode()) == f"HTTP 200: {body}"


def test_a_step_that_asks_no_model_has_no_messages() -> None:
    """Only calls of models have messages, whatever others are given."""
    with Harness() as tta:
        tta.run(make(), "q")
        assert [one["messages"] for one in run_record(tta)["spans"]] == [[], []]


def test_faults_of_an_exploration_are_those_of_the_calls_they_struck() -> None:
    """What exploring let strike is told by the call, in its own words."""
    with Harness() as tta:
        tta.run(make(), "q")
        call = tta.trace.find("answer/llm")._call
        of = "what exploring found"
        record = run_record(tta, of=of, struck={call: "lost-ack at call 1"})
    assert record["of"] == of
    assert [one["fault"] for one in record["spans"]] == ["", "lost-ack at call 1"]


def test_events_of_the_users_own_may_have_our_names() -> None:
    """What a primitive tells of itself has the details that its author chose."""

    @step
    async def own(value, context):
        emit(context, "retry.attempt", number=2)
        emit(context, "fault.injected", why="a drill")
        return value

    with Harness() as tta:
        tta.run(own, 1)
        (total,) = facts(tta)["totals"]
        (call,) = run_record(tta)["spans"]
    assert (total["retries"], total["faults"], call["fault"]) == (0, 1, "")


def test_properties_are_texts_of_one_line() -> None:
    """What JUnit is told: numbers as texts, names without control characters."""
    with Harness(seed=7) as tta:
        tta.faults.at("llm").fail(TimeoutError(), when=first(1))
        tta.run(make().named("an\x1bswer"), "q")
        assert dict(properties("test_it", facts(tta))) == {
            "tta_seed": "7",
            "tta_virtual_seconds": "2",
            "tta_workflows": "an\\x1bswer",
            "tta_calls": "3",
            "tta_retries": "1",
            "tta_faults": "1",
        }


def test_properties_have_no_secrets() -> None:
    """A name made of what a test was given is no place to read a key in."""
    key = "sk-" + "proj-0123456789abcdef"
    with Harness() as tta:
        tta.run(make().named(f"ask {key}"), "q")
        told = dict(properties("test_it", facts(tta)))
    assert told["tta_workflows"] == "ask <redacted>"


def test_facts_import_nothing_for_what_nobody_asks() -> None:
    """What every test pays for does not load what only files need."""
    code = (
        "import sys; import pytest_tta.report.facts; "
        "print(sorted(n for n in sys.modules if n.startswith('pytest_tta.report.')))"
    )
    import subprocess

    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == (
        "['pytest_tta.report.facts', 'pytest_tta.report.texts']"
    )
