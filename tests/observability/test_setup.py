"""One call turns observability on: what it takes, refuses, and does when repeated."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from tests.processes import ROOT
from tta_primitives import WorkflowContext, step
from tta_primitives.observability import (
    Redactor,
    SpanCounts,
    initialize_observability,
)

VARIABLES = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SDK_DISABLED",
    "OTEL_SERVICE_NAME",
    "OTEL_TRACES_EXPORTER",
    "OTEL_TRACES_SAMPLER",
)
UNMETERED = {"enable_prometheus": False}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Leave out what this machine says of collectors."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@step
async def load(value):
    return value


async def run() -> None:
    await load.execute(1, WorkflowContext("order-7"))


async def test_spans_are_sent_under_the_name_of_the_service(receiver):
    """With the argument, whatever the environment calls it."""
    with initialize_observability(
        "shop", otlp_endpoint=receiver.url, resource_attributes={"a": "b"}, **UNMETERED
    ) as observability:
        await run()
        assert observability.flush(30.0)
        assert observability.spans == SpanCounts(exported=1)
    span = receiver.named("load")
    assert (span.service, span.scope) == ("shop", "tta_primitives")
    assert span.attributes["tta.correlation_id"] == "order-7"


async def test_environment_says_what_is_left_open(receiver, monkeypatch):
    """Name, resource, endpoint, headers and sampler are the standard variables."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-environment")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=t1")
    with initialize_observability(**UNMETERED) as observability:
        await run()
        assert observability.flush(30.0)
    assert receiver.named("load").service == "from-environment"
    assert receiver.headers["x-tenant"] == "t1"


async def test_argument_outweighs_the_environment(receiver, monkeypatch):
    """Also for the endpoint, and headers are sent."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "other")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    with initialize_observability(
        "mine", otlp_endpoint=receiver.url, otlp_headers={"x-key": "k"}, **UNMETERED
    ) as observability:
        await run()
        assert observability.flush(30.0)
    assert receiver.named("load").service == "mine"
    assert receiver.headers["x-key"] == "k"


async def test_traces_endpoint_is_taken_as_it_is(receiver, monkeypatch):
    """No path is added to the one that is for traces alone."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{receiver.url}/custom/path"
    )
    with initialize_observability("a", **UNMETERED) as observability:
        await run()
        assert observability.flush(30.0)
    assert receiver.named("load").service == "a"


async def test_name_among_the_resource_attributes_is_a_name(monkeypatch):
    """The SDK reads it there, too."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "a=b,service.name=my%20shop")
    with initialize_observability(**UNMETERED) as observability:
        assert observability.service_name == "my shop"


async def test_sampler_of_the_environment_is_used(receiver, monkeypatch):
    """As the SDK reads it."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    with initialize_observability(
        "a", otlp_endpoint=receiver.url, **UNMETERED
    ) as observability:
        await run()
        assert observability.flush(30.0)
    assert receiver.requests == 0


async def test_sample_ratio_is_of_traces_that_begin_here(receiver):
    """None of them at 0; those of callers who sample are kept."""
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with initialize_observability(
        "a", otlp_endpoint=receiver.url, sample_ratio=0, **UNMETERED
    ) as observability:
        await run()
        await load.execute(1, WorkflowContext(traceparent=parent))
        assert observability.flush(30.0)
    assert [span.parent_id for span in receiver.spans] == ["b7ad6b7169203331"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")],
)
async def test_environment_can_turn_sending_off(receiver, monkeypatch, name, value):
    """Then nothing is sent to the endpoint of the environment."""
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    with initialize_observability("a", **UNMETERED) as observability:
        await run()
        assert observability.flush(30.0)
        assert observability.spans == SpanCounts()
    assert receiver.requests == 0


async def test_same_call_again_returns_the_same_handle():
    """Modules that are imported in any order may all call it."""
    first = initialize_observability("a", **UNMETERED)
    try:
        assert initialize_observability("a", **UNMETERED) is first
    finally:
        first.shutdown()


async def test_other_arguments_are_refused_until_shutdown():
    """The error says what differs, and no secret of it."""
    first = initialize_observability(
        "a", otlp_headers={"authorization": "hunter2"}, **UNMETERED
    )
    try:
        with pytest.raises(RuntimeError, match="with other arguments") as caught:
            initialize_observability(
                "b",
                enable_prometheus=False,
                otlp_headers={"authorization": "hunter3"},
                otlp_endpoint="http://user:hunter4@127.0.0.1:1",
            )
    finally:
        first.shutdown()
    message = str(caught.value)
    assert "service_name='b', not 'a'" in message
    assert "otlp_endpoint='http://127.0.0.1:1', not None" in message
    assert "otlp_headers" in message
    assert "hunter" not in message
    second = initialize_observability("b", **UNMETERED)
    second.shutdown()
    assert second is not first


async def test_after_shutdown_another_service_may_begin(receiver):
    """Spans of tracers that were made before follow the new one."""
    from opentelemetry import trace

    for name in ("one", "two"):
        with initialize_observability(
            name, otlp_endpoint=receiver.url, **UNMETERED
        ) as observability:
            if name == "one":
                tracer = trace.get_tracer("user")
            with tracer.start_as_current_span("request"):
                await run()
            assert observability.flush(30.0)
    with tracer.start_as_current_span("nobody listens"):
        await run()
    assert not tracer.start_span("nobody listens").is_recording()
    services = [(span.service, span.name) for span in receiver.spans]
    assert sorted(services) == [
        ("one", "load"),
        ("one", "request"),
        ("two", "load"),
        ("two", "request"),
    ]
    assert receiver.tree() == ["request", "  load"] * 2


async def test_shutdown_leaves_no_thread_and_may_be_repeated(receiver):
    """What waits is sent before."""
    before = threading.active_count()
    observability = initialize_observability(
        "a", prometheus_port=0, otlp_endpoint=receiver.url
    )
    await run()
    await observability.aclose(30.0)
    observability.shutdown()
    assert not observability.is_running
    assert repr(observability) == "<Observability 'a' shut down>"
    assert receiver.named("load")
    receiver.stop()
    assert threading.active_count() <= before


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"service_name": ""}, "service_name='' must not be empty"),
        ({"service_name": None}, "needs the environment variable OTEL_SERVICE_NAME"),
        ({"otlp_endpoint": "collector:4318"}, "otlp_endpoint='collector:4318' must be"),
        ({"otlp_endpoint": "http://u:pw@:x"}, "otlp_endpoint='http://:x' must be"),
        ({"prometheus_port": 70_000}, "prometheus_port=70000 must be at most"),
        ({"prometheus_port": -1}, "prometheus_port=-1"),
        ({"sample_ratio": 1.5}, "sample_ratio=1.5 must be from 0 to 1"),
        ({"otlp_timeout": 0}, "otlp_timeout=0 must be"),
        ({"span_queue_size": 0}, "span_queue_size=0"),
        ({"content_length": 0}, "content_length=0"),
        ({"log_format": "xml"}, "log_format='xml' must be one of"),
        (
            {"enable_tracing": False, "otlp_endpoint": "http://a"},
            "enable_tracing=False sends no spans",
        ),
    ],
)
def test_wrong_values_are_refused_at_the_call(wrong, message):
    """They are named, with their value and what is right."""
    with pytest.raises(ValueError, match=r"must|needs|sends") as caught:
        initialize_observability(**{"service_name": "a", **UNMETERED, **wrong})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"service_name": 7},
        {"otlp_endpoint": 4318},
        {"enable_prometheus": "yes"},
        {"capture_content": 1},
        {"sample_ratio": "all"},
        {"otlp_headers": {"authorization": 7}},
        {"otlp_headers": "authorization=7"},
        {"span_queue": 100},
        {"redact": str},
    ],
)
def test_wrong_types_are_refused_at_the_call(wrong):
    """Before anything was begun."""
    with pytest.raises(TypeError, match=next(iter(wrong))):
        initialize_observability(**{"service_name": "a", **UNMETERED, **wrong})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0"),
    ],
)
def test_wrong_variables_are_refused_at_the_call(monkeypatch, name, value):
    """They are named like arguments."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"{name}='{value}'"):
        initialize_observability("a", **UNMETERED)


async def test_what_fails_to_start_leaves_nothing_behind(monkeypatch, receiver):
    """The parts that were begun before are ended, and it may be called again."""
    from tta_primitives.observability import metrics

    def refuse(*args: object, **options: object) -> None:
        raise ValueError("metrics refuse")

    before = threading.active_count()
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "start", refuse)
        with pytest.raises(ValueError, match="metrics refuse"):
            initialize_observability("a", otlp_endpoint=receiver.url)
    await run()
    assert receiver.requests == 0
    assert threading.active_count() == before
    initialize_observability("b", **UNMETERED).shutdown()


async def test_redactor_of_the_user_is_used(receiver):
    """It knows more secrets."""
    with initialize_observability(
        "a",
        otlp_endpoint=receiver.url,
        redact=Redactor(values=["order-7"]),
        **UNMETERED,
    ) as observability:
        await run()
        assert observability.flush(30.0)
    assert receiver.named("load").attributes["tta.correlation_id"] == "[redacted]"


async def test_text_that_cannot_be_encoded_loses_no_span(receiver):
    """An error may quote input with half a character; its batch is sent anyway."""

    @step
    async def quote(value):
        raise ValueError(value)

    with initialize_observability(
        "a", otlp_endpoint=receiver.url, **UNMETERED
    ) as observability:
        with suppress(ValueError):
            await quote.execute("a\ud800b", WorkflowContext())
        await run()
        assert observability.flush(30.0)
        assert observability.spans.exported == 2
    assert receiver.named("load")


async def test_spans_that_other_code_makes_have_no_secrets_either(receiver):
    """An instrumentation writes down what it sees; it is cleaned before it is sent."""
    from opentelemetry import trace

    secret = "sk-proj-0123456789abcdefghij"
    tracer = trace.get_tracer("httpx")
    with initialize_observability(
        "a", otlp_endpoint=receiver.url, **UNMETERED
    ) as observability:
        with suppress(ValueError), tracer.start_as_current_span("GET") as span:
            link = trace.Link(span.get_span_context(), {"api_key": secret})
            span.add_link(link.context, link.attributes)
            span.set_attribute("http.request.header.authorization", secret)
            span.set_attribute("url.full", "https://u:hunter2@example.com/?a=1")
            span.set_attribute("http.response.status_code", 200)
            span.add_event("sent", {"password": "hunter2", "bytes": 17})
            raise ValueError(f"refused: {secret}")
        assert observability.flush(30.0)
    found = receiver.named("GET")
    assert found.attributes["http.response.status_code"] == 200
    assert found.attributes["url.full"].endswith("example.com/?a=1")
    assert [name for name, _ in found.events] == ["sent", "exception"]
    assert found.events[0][1]["bytes"] == 17
    assert found.description == "ValueError: refused: [redacted]"
    for hidden in (secret, "hunter2"):
        assert hidden not in found.text


def in_new_process(code: str, *options: str, **settings: str) -> list:
    """Return the JSON that a fresh interpreter prints at last."""
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        cwd=ROOT,
        env={"PATH": "/usr/bin", "PYTHONPATH": str(ROOT), **settings},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


APP = """
import asyncio, json
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tta_primitives import WorkflowContext, step
from tta_primitives.observability import initialize_observability

memory = InMemorySpanExporter()
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(SimpleSpanProcessor(memory))

def run():
    asyncio.run(step(lambda v: v).named("load").execute(1, WorkflowContext()))

def names():
    return [span.name for span in memory.get_finished_spans()]
"""


def test_provider_of_the_app_gets_the_spans_and_is_never_replaced():
    """Also if the environment names a collector: that is the provider's affair."""
    code = f"""{APP}
trace.set_tracer_provider(provider)
observability = initialize_observability("a", enable_prometheus=False)
run()
observability.shutdown()
run()
print(json.dumps([trace.get_tracer_provider() is provider, names()]))
"""
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    assert in_new_process(code, **settings) == [True, ["load"]]


def test_provider_that_the_app_sets_later_gets_the_spans():
    """If nothing is sent from here, the place is left to the app."""
    code = f"""{APP}
observability = initialize_observability("a", enable_prometheus=False)
run()
trace.set_tracer_provider(provider)
run()
print(json.dumps(names()))
"""
    assert in_new_process(code) == ["load"]


def test_endpoint_beside_a_provider_of_the_app_is_refused():
    """It would have no effect, and nobody would know."""
    code = f"""{APP}
trace.set_tracer_provider(provider)
try:
    initialize_observability(
        "a", enable_prometheus=False, otlp_endpoint="http://127.0.0.1:1"
    )
except ValueError as error:
    print(json.dumps(str(error)))
"""
    assert "the app has set a TracerProvider of its own" in in_new_process(code)


def test_missing_library_is_told_with_its_extra():
    """Where spans are to be sent; where nobody asked for any, there are none."""
    code = """
import asyncio, json, sys
sys.path = [p for p in sys.path if "packages" not in p]
from tta_primitives import WorkflowContext, step
from tta_primitives.observability import initialize_observability
said = []
for options in ({"enable_tracing": True}, {"otlp_endpoint": "http://127.0.0.1:1"}):
    try:
        initialize_observability("a", enable_prometheus=False, **options)
    except ModuleNotFoundError as error:
        said.append(str(error))
try:
    initialize_observability("a")
except ModuleNotFoundError as error:
    said.append(str(error))
initialize_observability("a", enable_prometheus=False)
asyncio.run(step(lambda v: v).execute(1, WorkflowContext()))
print(json.dumps(said))
"""
    tracing, sending, counting = in_new_process(code, "-S")
    assert "pip install 'tta-dev-primitives[otel]'" in tracing
    assert "pip install 'tta-dev-primitives[otel]'" in sending
    assert "pip install 'tta-dev-primitives[prometheus]'" in counting


def test_face_imports_no_library():
    """Importing it costs those nothing who do not call it."""
    code = """
import json, sys
import tta_primitives.observability
found = {name.partition(".")[0] for name in sys.modules}
print(json.dumps(sorted(found & {"opentelemetry", "prometheus_client", "structlog"})))
"""
    assert in_new_process(code) == []
