"""Log lines say where they were written, hold no secrets and break nothing."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider

from pytest_tta.faults import first
from tests.processes import ROOT
from tta_primitives import WorkflowContext, step
from tta_primitives.door import is_listening
from tta_primitives.observability import logs
from tta_primitives.observability.redaction import Redactor
from tta_primitives.observability.whereabouts import ContextFilter, ContextProcessor
from tta_primitives.recovery import (
    CircuitBreakerPrimitive,
    FallbackPrimitive,
    RetryPrimitive,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "sk-planted-0123456789abcdef"
log = logging.getLogger("shop.orders")


class Lines:
    """What was written, as data."""

    def __init__(self, log_format: str = "json", **options: Any) -> None:
        self.stream = io.StringIO()
        self.part = logs.start(
            "shop",
            log_format=log_format,
            stream=self.stream,
            level=logging.INFO,
            **options,
        )

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    @property
    def one(self) -> dict[str, Any]:
        (found,) = self.all
        return found


@pytest.fixture
def lines() -> Iterator[Lines]:
    found = Lines()
    yield found
    found.part.shutdown()


def context(**options: Any) -> WorkflowContext:
    return WorkflowContext("request-7", "checkout", **options)


def test_a_line_is_json_with_the_usual_fields(lines) -> None:
    """Time in UTC, level, logger, message, service, and what the caller added."""
    log.info("%d paid", 3, extra={"order": 17, "tags": {"a": (1, 2)}})
    line = lines.one
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "shop.orders",
        "message": "3 paid",
        "service": "shop",
        "order": 17,
        "tags": {"a": [1, 2]},
    }


async def test_a_line_in_a_step_says_in_which_run_and_where(lines) -> None:
    """The ids of the context and the path, also in threads and in other tasks."""

    @step
    async def pay(_: object) -> None:
        log.info("in the step")
        await asyncio.to_thread(log.info, "in a thread")
        await asyncio.create_task(logged("in a task"))

    async def logged(text: str) -> None:
        log.info(text)

    await (pay >> pay.named("again")).execute(1, context())
    log.info("outside")
    assert [line["message"] for line in lines.all][-1] == "outside"
    assert "path" not in lines.all[-1]
    assert "correlation_id" not in lines.all[-1]
    where = {
        (line["correlation_id"], line["workflow_id"], line["path"])
        for line in lines.all[:-1]
    }
    assert where == {
        ("request-7", "checkout", "sequential/pay"),
        ("request-7", "checkout", "sequential/again"),
    }


async def test_parallel_branches_say_where_each_is(lines) -> None:
    """Branches are tasks of their own, and wait in between."""

    def branch(name: str) -> Any:
        async def run(_: object) -> None:
            await asyncio.sleep(0)
            log.info(name)

        return step(run, name=name)

    await (branch("a") | branch("b")).execute(1, context())
    assert {(line["message"], line["path"]) for line in lines.all} == {
        ("a", "parallel/a"),
        ("b", "parallel/b"),
    }


async def test_a_stream_does_not_leak_into_its_consumer(lines) -> None:
    """Between two chunks the consumer's code runs, which is outside."""

    @step
    async def tokens(_: object):
        log.info("inside")
        yield 1
        yield 2

    async for _ in tokens.stream(1, context()):
        log.info("outside")
    paths = [line.get("path") for line in lines.all]
    assert paths == ["tokens", None, None]


async def test_the_callers_trace_is_told_without_opentelemetry(lines) -> None:
    """It is the one of the request's headers."""
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"

    @step
    async def pay(_: object) -> None:
        log.info("paid")

    await pay.execute(1, context(traceparent=traceparent))
    assert lines.one["trace_id"] == "a" * 32
    assert lines.one["span_id"] == "b" * 16


def test_the_current_span_is_told(lines) -> None:
    """The one of OpenTelemetry, if there is one."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("request") as span:
        log.info("in it")
    found = span.get_span_context()
    assert lines.one["trace_id"] == f"{found.trace_id:032x}"
    assert lines.one["span_id"] == f"{found.span_id:016x}"


def test_an_error_is_structured(lines) -> None:
    """Type, message and traceback; line breaks stay inside of the line."""
    try:
        raise ConnectionError("reset")
    except ConnectionError:
        log.exception("failed")
    exception = lines.one["exception"]
    assert exception["type"] == "ConnectionError"
    assert exception["message"] == "reset"
    assert exception["traceback"].startswith("Traceback (most recent call last):\n")


async def test_a_failed_run_is_one_line_with_the_path(tta, lines) -> None:
    """Not one for each level that the error passes, and not for what was handled."""

    @step
    async def llm(_: object) -> str:
        return "yes"

    tta.faults.at("sequential/retry/llm").fail(ConnectionError("reset"))
    workflow = RetryPrimitive(llm, max_retries=1, jitter="none") >> llm.named("after")
    with pytest.raises(ConnectionError, match="reset"):
        await workflow.execute(1, context())
    errors = [line for line in lines.all if line["level"] == "error"]
    (line,) = errors
    assert line["message"] == (
        "sequential failed at sequential/retry/llm: ConnectionError: reset"
    )
    assert line["path"] == "sequential/retry/llm"
    assert line["workflow"] == "sequential"
    assert line["correlation_id"] == "request-7"
    assert line["exception"]["type"] == "ConnectionError"


async def test_a_failure_that_was_handled_is_no_error(tta, lines) -> None:
    """A fallback is a warning, with what it stands in for."""
    tta.faults.at("fallback/llm").fail(ConnectionError(f"key {SECRET}"))
    llm = step(lambda _: "yes", name="llm")
    await FallbackPrimitive(llm, [lambda _: "plan b"]).execute(1, context())
    (line,) = lines.all
    assert (line["level"], line["happened"]) == ("warning", "fallback.used")
    assert line["error"] == "ConnectionError: key [redacted]"


async def test_a_run_inside_of_a_run_is_told_once(lines) -> None:
    """A step that executes another workflow passes its error on: one line."""

    @step
    async def inner(_: object) -> None:
        raise ConnectionError("reset")

    @step
    async def outer(_: object) -> None:
        await inner.execute(1, WorkflowContext())

    with pytest.raises(ConnectionError, match="reset"):
        await outer.execute(1, context())
    assert lines.one["message"] == "outer failed at inner: ConnectionError: reset"


async def test_what_repeats_is_told_once_in_a_while(tta, lines) -> None:
    """A dependency that is down does not fill the disk: the rest is counted."""
    llm = step(lambda _: "yes", name="llm")
    fallback = FallbackPrimitive(llm, [lambda _: "plan b"])
    tta.faults.at("fallback/llm").fail(ConnectionError("reset"))
    for _ in range(50):
        await fallback.execute(1, context())
    await tta.clock.advance(5)
    await fallback.execute(1, context())
    assert [line.get("not_told") for line in lines.all] == [None, 49]


async def test_a_rejection_is_a_warning(tta, lines) -> None:
    """An open circuit does its work; it is not one more error for each request."""
    llm = step(lambda _: "yes", name="llm")
    breaker = CircuitBreakerPrimitive(llm, failure_threshold=1)
    tta.faults.at("circuit_breaker/llm").fail(ConnectionError("reset"), when=first(1))
    for _ in range(2):
        with pytest.raises(Exception, match=r"reset|open"):
            await breaker.execute(1, context())
    told = [(line["level"], line.get("happened")) for line in lines.all]
    assert told == [
        ("warning", "breaker.opened"),
        ("error", None),
        ("warning", None),
    ]
    assert "was rejected: " in lines.all[-1]["message"]


async def test_secrets_are_in_no_line(lines) -> None:
    """Not in messages, arguments, extras, errors, headers or names of either."""

    @step
    async def leaks(value: dict) -> None:
        log.info("input %s", value, extra={"headers": {"authorization": "opaque"}})
        log.warning("calling https://user:%s@host", "opaque2")
        structlog.get_logger("s").info("said", api_key="opaque3", text=SECRET)
        raise ConnectionError(f"refused {value['key']}")

    headers = {"x-correlation-id": SECRET}
    with pytest.raises(ConnectionError, match="refused"):
        await leaks.execute({"key": SECRET}, WorkflowContext.from_headers(headers))
    assert len(lines.all) == 4
    for secret in (SECRET, "opaque"):
        assert secret not in lines.text


def test_loggers_of_structlog_write_the_same_lines(lines) -> None:
    """Their fields are fields, and their errors are structured."""
    logger = structlog.get_logger("shop.stock").bind(item=3)
    try:
        raise ValueError("none left")
    except ValueError:
        logger.exception("sold %s", "out", level=9)
    line = lines.one
    assert line["message"] == "sold out"
    assert line["logger"] == "shop.stock"
    assert line["level"] == "error"
    assert line["item"] == 3
    assert line["exception"]["type"] == "ValueError"


class Broken:
    def __str__(self) -> str:
        raise ValueError("no")

    __repr__ = __str__


class BrokenError(Exception):
    __str__ = __repr__ = Broken.__str__


@pytest.mark.parametrize(
    "write",
    [
        lambda: log.info("x %s", Broken()),
        lambda: log.info("%d", "no number"),
        lambda: log.info(Broken()),
        lambda: log.info("x", extra={"broken": Broken(), "bytes": b"\xff"}),
        lambda: log.info("x", extra={"nan": float("nan"), "in": [float("inf")]}),
        lambda: log.info("\ud800", extra={"\ud800": "\ud800"}),
        lambda: log.info("x", extra={"number": 10**5000}),
        lambda: log.info("x", exc_info=BrokenError()),
        lambda: structlog.get_logger("x").info(Broken(), broken=Broken()),
    ],
    ids=[
        *("arguments", "format", "message", "extra", "nan", "surrogate", "huge"),
        *("exc_info", "structlog"),
    ],
)
def test_whatever_is_logged_makes_a_line(lines, write, monkeypatch) -> None:
    """Values that can not be printed, or that JSON does not have, break nothing."""
    root = logging.getLogger()
    # That of pytest raises.
    monkeypatch.setattr(root, "handlers", [lines.part._handler])
    write()
    assert lines.one["logger"] in {"shop.orders", "x"}


def test_a_closed_stream_breaks_nothing(lines, capsys) -> None:
    """Nothing is raised, and nothing is written elsewhere about it."""
    lines.stream.close()
    log.error("lost")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("colors", [False, True])
def test_lines_for_people_say_the_same(colors, monkeypatch) -> None:
    """One line in colours where a terminal has some, with the traceback below."""
    monkeypatch.delenv("NO_COLOR", raising=False)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return colors

    monkeypatch.setattr(io, "StringIO", Terminal)
    lines = Lines("console")
    try:
        log.info("paid", extra={"order": 17, "password": "opaque"})
        try:
            raise ConnectionError("reset")
        except ConnectionError:
            log.exception("failed")
    finally:
        lines.part.shutdown()
    first_line = lines.text.splitlines()[0]
    assert ("\x1b[" in first_line) is colors
    assert "paid" in first_line
    assert "17" in first_line
    assert "opaque" not in lines.text
    assert "ConnectionError: reset" in lines.text


def test_handlers_on_the_terminal_give_way_and_come_back() -> None:
    """No line is written twice, and all other handlers stay."""
    root = logging.getLogger()
    terminal, other = logging.StreamHandler(sys.stderr), logging.NullHandler()
    root.addHandler(terminal)
    root.addHandler(other)
    level = root.level
    lines = Lines()
    try:
        assert terminal not in root.handlers
        assert other in root.handlers
        again = Lines()
        log.info("once")
        assert (lines.text, again.one["message"]) == ("", "once")
        again.part.shutdown()
        again.part.shutdown()
        assert terminal in root.handlers
        assert root.level == level
        assert not structlog.is_configured()
    finally:
        root.removeHandler(terminal)
        root.removeHandler(other)
        lines.part.shutdown()


def test_what_a_logger_writes_itself_is_not_written_again(lines) -> None:
    """A library with a terminal handler of its own has written the record already."""
    own = logging.StreamHandler(sys.stderr)
    log.addHandler(own)
    try:
        log.info("once")
    finally:
        log.removeHandler(own)
    assert lines.all == []


def test_a_configured_structlog_is_left_alone() -> None:
    """Whoever has set it up gets its lines as before."""
    with structlog.testing.capture_logs():
        structlog.configure(processors=[structlog.processors.JSONRenderer()])
        lines = Lines()
        lines.part.shutdown()
        assert structlog.is_configured()
    structlog.reset_defaults()


async def test_a_filter_gives_records_the_ids() -> None:
    """For those who format lines themselves."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(ContextFilter())
    form = "%(correlation_id)s %(path)s %(trace_id)s %(message)s"
    handler.setFormatter(logging.Formatter(form))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        await step(lambda _: log.info("in"), name="pay").execute(1, context())
        log.info("out")
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)
    assert stream.getvalue() == "request-7 pay - in\n- - - out\n"


def test_nobody_listens_when_the_last_filter_is_gone() -> None:
    """Runs keep their context only for as long as somebody asks for it."""
    assert not is_listening()
    first, second = ContextFilter(), ContextProcessor()
    assert is_listening()
    del first
    assert is_listening()
    del second
    assert not is_listening()


async def test_a_processor_gives_events_the_ids() -> None:
    """For a configuration of structlog of one's own; what was bound is kept."""
    processor, found = ContextProcessor(), []

    def write(_: object) -> None:
        found.append(processor(None, "info", {"event": "in", "path": "mine"}))

    await step(write, name="pay").execute(1, context())
    assert found == [
        {
            "event": "in",
            "path": "mine",
            "correlation_id": "request-7",
            "workflow_id": "checkout",
        }
    ]


def test_the_users_redactor_is_used() -> None:
    """What only the user knows to be secret is in no line."""
    lines = Lines(redact=Redactor(values=["correct horse"], names=["iban"]))
    try:
        log.info("correct horse battery", extra={"iban": "DE1"})
    finally:
        lines.part.shutdown()
    assert lines.one["message"] == "[redacted] battery"
    assert lines.one["iban"] == "[redacted]"


def test_another_format_is_refused() -> None:
    """It says which there are."""
    with pytest.raises(ValueError, match="log_format='xml'"):
        logs.start("shop", log_format="xml")


def test_without_structlog_there_is_json(tmp_path) -> None:
    """Lines for people need it, and say so; an app without set-up shows INFO."""
    code = """
import sys
sys.modules["structlog"] = None
import logging
from tta_primitives.door import is_listening
from tta_primitives.observability import logs
part = logs.start("shop", log_format="json")
logging.getLogger("x").info("shown")
part.shutdown()
print(logging.getLogger().level, logging.getLogger().handlers)
try:
    logs.start("shop", log_format="console")
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stderr)["message"] == "shown"
    assert done.stdout == (
        "30 []\n"
        'log_format="console" needs structlog: '
        "pip install 'tta-dev-primitives[structlog]'\n"
    )
