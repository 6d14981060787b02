"""The snippets of the guide for backend developers, run with only the package renamed.

Each is quoted word for word. What it takes for granted (`your_llm_primitive`,
`session`, a Redis server) is handed to it as a name; what needs another package's
server (FastAPI, Celery, RQ) is quoted without the lines that need it.
"""

from __future__ import annotations

import asyncio
import signal
from textwrap import dedent
from uuid import uuid4

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from redis.asyncio import Redis

from pytest_tta import MockPrimitive, S
from pytest_tta.faults import first, nth
from tests.services import require_service
from tta_primitives import WorkflowContext, WorkflowPrimitive, step
from tta_primitives.errors import FallbackExhaustedError, TimeoutExceededError
from tta_primitives.recovery import attempts_of


def guide(snippet: str, **given: object) -> dict:
    """Run a snippet of the guide in which only the package's name is changed."""
    source = dedent(snippet).replace("tta_dev_primitives", "tta_primitives")
    names = {"__name__": "guide", **given}
    exec(compile(source, "guide", "exec", dont_inherit=True), names)
    return names


QUICK_START = """
from tta_dev_primitives import SequentialPrimitive, WorkflowContext
from tta_dev_primitives.performance import CachePrimitive
from tta_dev_primitives.recovery import RetryPrimitive

# Production-ready LLM endpoint
llm_endpoint = (
    CachePrimitive(ttl=3600) >>
    RetryPrimitive(your_llm_primitive, max_retries=3) >>
    format_response
)

# Use in API handler
async def handle_request(request_data: dict) -> dict:
    context = WorkflowContext(correlation_id=request_data["request_id"])
    return await llm_endpoint.execute(request_data, context)
"""


@pytest.fixture
def llm() -> MockPrimitive:
    return MockPrimitive("llm", side_effect=lambda request: request["text"].upper())


@pytest.fixture
def quick_start(llm) -> dict:
    formatted = MockPrimitive("format", side_effect=lambda text: {"answer": text})
    return guide(QUICK_START, your_llm_primitive=llm, format_response=formatted)


async def test_cache_wraps_the_retry_and_nothing_more(quick_start) -> None:
    """Section "Build Your First Workflow": an open wrapper takes the next operand."""
    tree = quick_start["llm_endpoint"].describe()
    cache, format_response = tree["children"]
    assert [tree["type"], cache["type"]] == [
        "SequentialPrimitive",
        "CachePrimitive",
    ]
    assert cache["options"] == {"ttl": 3600}
    assert [child["type"] for child in cache["children"]] == ["RetryPrimitive"]
    assert format_response["name"] == "format"


async def test_answer_is_formatted(quick_start) -> None:
    """A handler gets the model's answer in its own format."""
    request = {"request_id": "r1", "text": "hi"}
    assert await quick_start["handle_request"](request) == {"answer": "HI"}


async def test_answer_is_kept_for_an_hour(quick_start, llm, tta) -> None:
    """The same request is answered from the cache for 3600 s, and then anew."""
    request = {"request_id": "r1", "text": "hi"}
    for moment, calls in ((0, 1), (3599, 1), (3600, 2)):
        await asyncio.sleep(moment - tta.elapsed)
        await quick_start["handle_request"](request)
        assert llm.call_count == calls


async def test_failures_are_retried_three_times(quick_start, llm, tta) -> None:
    """Three failures are ridden out; the fourth reaches the handler."""
    tta.faults.at("llm").fail(ConnectionError("reset"), when=first(7))
    request = {"request_id": "r1", "text": "hi"}
    with pytest.raises(ConnectionError, match="reset") as caught:
        await quick_start["handle_request"](request)
    assert len(attempts_of(caught.value)) == 4
    assert await quick_start["handle_request"](request) == {"answer": "HI"}
    assert [root.status for root in tta.trace.roots] == ["failed", "ok"]


async def test_context_is_the_request(quick_start, llm) -> None:
    """The correlation id of the request travels with the call."""
    await quick_start["handle_request"]({"request_id": "r1", "text": "hi"})
    assert llm.last_call.correlation_id == "r1"


API_WORKFLOW = """
from tta_dev_primitives import SequentialPrimitive, WorkflowContext

workflow = step1 >> step2 >> step3

async def process(data: dict):
    context = WorkflowContext(correlation_id=data.get("id"))
    result = await workflow.execute(data, context)
    return result
"""

FLASK_BODY = """
import asyncio

def process(data):
    context = WorkflowContext()

    # Run async workflow in sync context
    result = asyncio.run(workflow.execute(data, context))
    return result
"""

BATCH_JOB = """
from tta_dev_primitives import SequentialPrimitive

workflow = data_pipeline >> ml_model >> store_results

async def process_batch(batch_id: str):
    context = WorkflowContext(correlation_id=batch_id)
    return await workflow.execute({"batch_id": batch_id}, context)
"""

QUEUED_JOB = """
async def background_workflow(job_data):
    context = WorkflowContext()
    return await workflow.execute(job_data, context)
"""


@step
async def step1(data: dict) -> dict:
    return {**data, "steps": [1]}


async def step2(data: dict) -> dict:
    await asyncio.sleep(60)
    return {**data, "steps": [*data["steps"], 2]}


def step3(data: dict, context: WorkflowContext) -> dict:
    return {**data, "steps": [*data["steps"], 3], "by": context.correlation_id}


STEPS = {"step1": step1, "step2": step2, "step3": step3}


async def test_fastapi_handler_runs_the_workflow(tta_trace) -> None:
    """Section "FastAPI Integration", without the route's decorator."""
    process = guide(API_WORKFLOW, **STEPS)["process"]
    assert await process({"id": "a7"}) == {"id": "a7", "steps": [1, 2, 3], "by": "a7"}
    assert tta_trace == S(
        "sequential", S("step1"), S("step2", duration=60.0), S("step3")
    )


def test_flask_handler_runs_the_workflow(tta) -> None:
    """Section "Flask Integration": asyncio.run in a sync view, in virtual time."""
    workflow = guide(API_WORKFLOW, **STEPS)["workflow"]
    names = guide(FLASK_BODY, workflow=workflow, WorkflowContext=WorkflowContext)
    assert names["process"]({})["steps"] == [1, 2, 3]
    assert tta.elapsed == 60.0


async def test_celery_task_runs_the_workflow() -> None:
    """Section "Celery Integration", without the task's decorator."""
    names = guide(
        BATCH_JOB,
        WorkflowContext=WorkflowContext,
        data_pipeline=step(lambda job: [job["batch_id"], "row"]),
        ml_model=lambda rows: {row: len(row) for row in rows},
        store_results=lambda scores, context: (context.correlation_id, scores),
    )
    stored = await names["process_batch"]("b12")
    assert stored == ("b12", {"b12": 3, "row": 3})


async def test_queued_job_runs_the_workflow(tta_clock) -> None:
    """Section "Redis Queue Integration", without the queue."""
    workflow = guide(API_WORKFLOW, **STEPS)["workflow"]
    names = guide(QUEUED_JOB, workflow=workflow, WorkflowContext=WorkflowContext)
    result = await names["background_workflow"]({"id": "j1"})
    assert result["steps"] == [1, 2, 3]
    assert tta_clock.elapsed == 60.0


SQLALCHEMY = """
from tta_dev_primitives import SequentialPrimitive

async def db_workflow(session: AsyncSession, data: dict):
    workflow = (
        validate_data >>
        query_database(session) >>
        transform_results >>
        update_database(session)
    )

    context = WorkflowContext()
    return await workflow.execute(data, context)
"""


class AsyncSession:
    """Stands in for SQLAlchemy's: it has rows, and remembers what was written."""

    def __init__(self) -> None:
        self.rows = {"ada": 3, "bob": 5}
        self.written: list[int] = []

    async def get(self, name: str) -> int:
        await asyncio.sleep(0.01)
        return self.rows[name]


@step
async def query_database(data: dict, session: AsyncSession) -> int:
    return await session.get(data["name"])


@step
async def update_database(
    value: int, context: WorkflowContext, session: AsyncSession
) -> str:
    session.written.append(value)
    return f"{context.path} wrote {value}"


async def test_database_steps_are_bound_to_the_session(tta_clock) -> None:
    """Section "With SQLAlchemy": calling a step with extras binds them."""
    names = guide(
        SQLALCHEMY,
        AsyncSession=AsyncSession,
        WorkflowContext=WorkflowContext,
        validate_data=dict,
        query_database=query_database,
        transform_results=lambda count: count * 10,
        update_database=update_database,
    )
    ada, bob = AsyncSession(), AsyncSession()
    results = await asyncio.gather(
        names["db_workflow"](ada, {"name": "ada"}),
        names["db_workflow"](bob, {"name": "bob"}),
    )
    assert results == [
        "sequential/update_database wrote 30",
        "sequential/update_database wrote 50",
    ]
    assert (ada.written, bob.written) == ([30], [50])
    assert tta_clock.elapsed == 0.01


CACHED = """
from redis.asyncio import Redis
from tta_dev_primitives.performance import CachePrimitive

redis = Redis()

cached_workflow = CachePrimitive(
    primitive=expensive_operation,
    ttl=3600,
    storage=redis  # Use Redis as cache backend
)
"""


def alone(function):
    """Name a function as no other is, so that its entries in Redis are its own."""
    function.__qualname__ = f"{function.__name__}_{uuid4().hex}"
    return function


async def test_cached_workflow_is_shared_over_redis(tta_clock) -> None:
    """Section "With Redis", on a real server: two workers share one cache."""
    host, port = require_service("redis")
    snippet = CACHED.replace("Redis()", f"Redis(host={host!r}, port={port})")

    async def expensive_operation(number: int) -> int:
        await asyncio.sleep(30)
        return number * number

    alone(expensive_operation)
    workers = [
        guide(snippet, expensive_operation=expensive_operation) for _ in range(2)
    ]
    try:
        results = [
            await worker["cached_workflow"].execute(12, WorkflowContext())
            for worker in workers
        ]
        assert results == [144, 144]
        assert round(tta_clock.elapsed, 3) == 30.0
    finally:
        await workers[0]["cached_workflow"].clear()
        for worker in workers:
            await worker["redis"].aclose()


PRODUCTION = """
from tta_dev_primitives.recovery import RetryPrimitive, FallbackPrimitive

# Robust production workflow
production_workflow = (
    validate_input >>
    RetryPrimitive(
        primary_service,
        max_retries=3,
        backoff_strategy="exponential"
    ) >>
    FallbackPrimitive(
        primary=primary_processor,
        fallbacks=[backup_processor, cached_response]
    )
)
"""


@pytest.fixture
def production() -> WorkflowPrimitive:
    names = guide(
        PRODUCTION,
        validate_input=lambda text: text.strip(),
        primary_service=MockPrimitive("service", side_effect=lambda text: text),
        primary_processor=MockPrimitive("primary", return_value="primary"),
        backup_processor=MockPrimitive("backup", return_value="backup"),
        cached_response=MockPrimitive("cached", return_value="cached"),
    )
    return names["production_workflow"]


async def test_all_goes_well(production, tta_trace) -> None:
    """Section "Error Handling": without failures the primary processor answers."""
    assert await production.execute(" hi ", WorkflowContext()) == "primary"
    [span] = tta_trace.spans_at("primary")
    assert span.input == "hi"


async def test_service_is_retried_with_growing_delays(production, tta) -> None:
    """Two failures are waited out, each time for up to twice as long."""
    tta.faults.at("retry/service").fail(ConnectionError("reset"), when=first(2))
    assert await production.execute("hi", WorkflowContext()) == "primary"
    short, long = tta.clock.sleeps.delays
    assert 0 <= short <= 0.5
    assert 0 <= long <= 1.0
    assert tta.elapsed == pytest.approx(short + long)


@pytest.mark.parametrize(
    ("broken", "answer"),
    [(["primary"], "backup"), (["primary", "backup"], "cached")],
    ids=["backup", "cached"],
)
async def test_processors_replace_each_other_in_order(
    production, tta, broken, answer
) -> None:
    """The first processor that works answers, and the context says which."""
    for name in broken:
        tta.faults.at(f"fallback/{name}").fail(OSError("down"))
    context = WorkflowContext()
    assert await production.execute("hi", context) == answer
    outcome = context.outcomes["sequential/fallback"]
    assert (outcome.index, outcome.name) == (len(broken), answer)


async def test_all_processors_fail(production, tta) -> None:
    """The errors of all of them are raised together, in order."""
    for name in ("primary", "backup", "cached"):
        tta.faults.at(name).fail(OSError(name))
    with pytest.raises(FallbackExhaustedError, match="sequential/fallback") as caught:
        await production.execute("hi", WorkflowContext())
    assert [str(one) for one in caught.value.exceptions] == [
        "primary",
        "backup",
        "cached",
    ]


LIMITED = """
from tta_dev_primitives.recovery import TimeoutPrimitive

rate_limited_api = (
    check_rate_limit >>
    TimeoutPrimitive(
        external_api_call,
        timeout_seconds=30
    ) >>
    process_response
)
"""


def limited(delay: float) -> WorkflowPrimitive:
    api = MockPrimitive("external_api_call", side_effect=str.upper, delay=delay)
    return guide(
        LIMITED,
        check_rate_limit=lambda request: request,
        external_api_call=api,
        process_response=lambda response: {"response": response},
    )["rate_limited_api"]


async def test_api_call_within_its_limit(tta_clock) -> None:
    """Section "Rate Limiting": a call that takes 29.999 s is waited for."""
    result = await limited(29.999).execute("hi", WorkflowContext())
    assert result == {"response": "HI"}
    assert tta_clock.elapsed == 29.999


async def test_api_call_beyond_its_limit(tta_clock) -> None:
    """A call that takes longer is given up after 30 s."""
    with pytest.raises(TimeoutExceededError, match="took longer than 30 s"):
        await limited(30.001).execute("hi", WorkflowContext())
    assert tta_clock.elapsed == 30.0


HEALTH = """
async def health_check():
    # Test workflow is operational
    test_context = WorkflowContext()
    try:
        await health_workflow.execute({}, test_context)
        return {"status": "healthy"}
    except Exception as e:
        return {"status": "unhealthy", "error": str(e)}, 500
"""


async def test_health_check_tells_how_the_workflow_does(tta_faults) -> None:
    """Section "Health Checks", without the route's decorator."""
    ping = MockPrimitive("ping", return_value="pong")
    names = guide(HEALTH, WorkflowContext=WorkflowContext, health_workflow=ping)
    tta_faults.at("ping").fail(OSError("no route to host"), when=nth(2))
    assert await names["health_check"]() == {"status": "healthy"}
    assert await names["health_check"]() == (
        {"status": "unhealthy", "error": "no route to host"},
        500,
    )


SHUTDOWN = """
import signal
import asyncio

async def shutdown(signal, loop):
    \"\"\"Cleanup tasks on shutdown.\"\"\"
    # Cancel running workflows
    tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
    [task.cancel() for task in tasks]
    await asyncio.gather(*tasks, return_exceptions=True)
    loop.stop()
"""


def test_shutdown_ends_running_workflows(tta) -> None:
    """Section "Graceful Shutdown": a workflow in the middle of a wait is cancelled."""
    shutdown = guide(SHUTDOWN)["shutdown"]
    slow = guide(API_WORKFLOW, **STEPS)["workflow"]
    loop = tta.clock.new_loop()
    with tta.clock:
        run = loop.create_task(slow.execute({}, WorkflowContext()))
        handler = shutdown(signal.SIGTERM, loop)
        loop.call_later(7, lambda: loop.create_task(handler))
        loop.run_forever()
        loop.close()
    assert run.cancelled()
    assert tta.elapsed == 7.0
    assert tta.trace == S("sequential", ..., S("step2"), status="cancelled")


LAYERS = """
from tta_dev_primitives.performance import CachePrimitive

# Multi-layer caching
workflow = (
    CachePrimitive(ttl=300, max_size=1000) >>  # Fast in-memory
    expensive_llm_call >>
    CachePrimitive(ttl=3600, storage=redis)    # Persistent cache
)
"""


async def expensive_llm_call(question: str) -> str:
    await asyncio.sleep(20)
    return question.upper()


@pytest.fixture(params=["double", "server"])
async def redis(request):
    """A client of fakeredis, and one of a real server."""
    if request.param == "double":
        client = FakeAsyncRedis(server=FakeServer())
    else:
        host, port = require_service("redis")
        client = Redis(host=host, port=port)
    async with client:
        yield client


async def test_second_layer_answers_when_the_first_has_forgotten(tta, redis) -> None:
    """Section "Caching Strategy": after 300 s the outer cache asks the inner one."""

    async def call(question: str) -> str:
        return await expensive_llm_call(question)

    call.__name__ = "expensive_llm_call"
    call.__module__ = "guide"
    workflow = guide(LAYERS, expensive_llm_call=alone(call), redis=redis)["workflow"]
    try:
        for pause in (0, 299, 1, 3300):
            await asyncio.sleep(pause)
            assert await workflow.execute("hi", WorkflowContext()) == "HI"
    finally:
        [below] = workflow.children()
        await below.clear()
    asked = [[span.path, *span.event_names] for span in tta.trace.spans_at("cache")]
    assert asked == [
        ["cache", "cache.miss"],
        ["cache/cache", "cache.miss"],
        ["cache", "cache.hit"],
        ["cache", "cache.miss"],
        ["cache/cache", "cache.hit"],
        ["cache", "cache.miss"],
        ["cache/cache", "cache.miss"],
    ]
    calls = tta.trace.spans_at("expensive_llm_call")
    assert [round(call.started_at, 3) for call in calls] == [0.0, 3620.0]


async def test_first_layer_keeps_nothing_longer_than_the_second(tta) -> None:
    """Section "Caching Strategy": what is found with 100 s left is kept for 100 s."""
    redis = FakeAsyncRedis(server=FakeServer())
    workers = [
        guide(LAYERS, expensive_llm_call=expensive_llm_call, redis=redis)["workflow"]
        for _ in range(2)
    ]
    await workers[0].execute("hi", WorkflowContext())
    await asyncio.sleep(3500)
    for pause in (0, 99, 1):
        await asyncio.sleep(pause)
        await workers[1].execute("hi", WorkflowContext())
    calls = tta.trace.spans_at("expensive_llm_call")
    assert [call.started_at for call in calls] == [0.0, 3620.0]


async def test_layers_are_one_inside_the_other() -> None:
    """A trailing open wrapper stands inside the one that was bound before it."""
    redis = FakeAsyncRedis(server=FakeServer())
    workflow = guide(LAYERS, expensive_llm_call=expensive_llm_call, redis=redis)[
        "workflow"
    ]
    outer = workflow.describe()
    [inner] = outer["children"]
    assert [outer["options"]["ttl"], inner["options"]["ttl"]] == [300, 3600]
    assert inner["children"][0]["name"] == "expensive_llm_call"


POOLED = """
class APICallPrimitive(WorkflowPrimitive):
    def __init__(self):
        self.client = http_client  # Reuse connection pool
"""


async def test_own_primitive_shares_a_client() -> None:
    """Section "Connection Pooling": a subclass with `execute` composes like any."""
    names = guide(POOLED, WorkflowPrimitive=WorkflowPrimitive, http_client={"/a": 1})

    class Get(names["APICallPrimitive"]):
        async def execute(self, input_data, context):
            return self.client[input_data]

    workflow = str.lower >> Get() >> str
    assert await workflow.execute("/A", WorkflowContext()) == "1"


async def test_own_primitive_without_execute_is_told_what_to_write() -> None:
    """The guide's class as it stands cannot run, and says what it misses."""
    names = guide(POOLED, WorkflowPrimitive=WorkflowPrimitive, http_client=None)
    with pytest.raises(NotImplementedError, match="APICallPrimitive must define async"):
        await names["APICallPrimitive"]().execute("/a", WorkflowContext())


VALIDATED = """
from pydantic import BaseModel, validator

class WorkflowInput(BaseModel):
    text: str
    max_length: int

    @validator("max_length")
    def check_max_length(cls, v):
        if v > 10000:
            raise ValueError("max_length too large")
        return v

async def run(request_data, context):
    # Validate before workflow
    validated_input = WorkflowInput(**request_data)
    result = await workflow.execute(validated_input.dict(), context)
    return result
"""


@pytest.mark.filterwarnings("ignore:.*deprecated")
async def test_validated_input_is_the_workflows_input() -> None:
    """Section "Input Validation": what pydantic lets through goes in as a dict."""
    pytest.importorskip("pydantic", reason="pydantic is not installed")
    cut = step(lambda data: data["text"][: data["max_length"]])
    run = guide(VALIDATED, workflow=cut)["run"]
    context = WorkflowContext()
    assert await run({"text": "hello", "max_length": "4"}, context) == "hell"
    with pytest.raises(ValueError, match="max_length too large"):
        await run({"text": "hello", "max_length": 20_000}, context)
