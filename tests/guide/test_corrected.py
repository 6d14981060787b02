"""The blocks of the guide in the form that works, from the page that explains them.

The code is that of `docs/reference/guide.md`, which the tests of the documentation run
as well. Here each section meets the real thing as far as that fits into one process:
clients, workers, servers, databases.
"""

from __future__ import annotations

import ast
import asyncio
import json
import logging
import re
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.metadata import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from celery import _state as celery_state
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from rq import Queue, SimpleWorker
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import create_async_engine

from pytest_tta.faults import first
from tests.docs.pages import read_page
from tests.repository.source import ROOT
from tests.services import require_service
from tta_primitives import WorkflowContext, WorkflowPrimitive
from tta_primitives.chance import new_id
from tta_primitives.integrations.crypto import KeyRing, WrongKeyError, generate_key
from tta_primitives.integrations.pydantic import InputValidationError
from tta_primitives.integrations.settings import SettingsError
from tta_primitives.integrations.sqlalchemy import (
    ConcurrentSessionError,
    workflow_sessions,
)

PAGE = ROOT / "docs" / "reference" / "guide.md"
SECTIONS = (
    "Install TTA.dev",
    "Build Your First Workflow",
    "FastAPI Integration",
    "Flask Integration",
    "Celery Integration",
    "Redis Queue Integration",
    "With SQLAlchemy",
    "With Redis",
    "Error Handling",
    "Monitoring & Observability",
    "Rate Limiting",
    "Environment Configuration",
    "Health Checks",
    "Graceful Shutdown",
    "Caching Strategy",
    "Connection Pooling",
    "API Key Management",
    "Input Validation",
)
NAME = "guide_page"

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def guide(monkeypatch) -> types.ModuleType:
    """The code of the page as a module, made anew for each test."""
    module = types.ModuleType(NAME)
    # Jobs and steps are found by the name of their module.
    monkeypatch.setitem(sys.modules, NAME, module)
    # Each Celery app gets the tasks of all others of this process.
    known = set(celery_state._on_app_finalizers)
    monkeypatch.setattr(celery_state, "_on_app_finalizers", known)
    code = compile(read_page(PAGE).module(), str(PAGE), "exec", dont_inherit=True)
    exec(code, vars(module))
    return module


def parts() -> dict[str, str]:
    """Return what stands below each heading of the page."""
    found = re.split(r"^## (.+)$", PAGE.read_text("utf-8"), flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


def test_every_block_of_the_guide_has_a_section() -> None:
    """In the guide's order, each with its code and with what was changed and why."""
    found = parts()
    assert tuple(found) == SECTIONS
    assert [name for name, part in found.items() if "```" not in part] == []
    incomplete = [n for n, p in found.items() if "| changed | why |" not in p]
    assert incomplete == []


def test_every_section_has_a_test_that_names_it() -> None:
    """Whoever changes a section finds its tests."""
    tree = ast.parse(Path(__file__).read_text("utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    told = " ".join(
        ast.get_docstring(n) or "" for n in tree.body if isinstance(n, kinds)
    )
    assert [name for name in SECTIONS if f'Section "{name}"' not in told] == []


def test_extras_that_the_page_names_exist() -> None:
    """Section "Install TTA.dev": what is in brackets can be installed."""
    named = set(re.findall(r"\[([a-z,]+)\]", parts()["Install TTA.dev"]))
    extras = {extra for names in named for extra in names.split(",")}
    assert extras == {"all", "fastapi", "redis"}
    assert extras <= set(metadata("tta-dev-primitives").get_all("Provides-Extra"))


async def test_cache_finds_what_another_request_has_asked(guide, tta) -> None:
    """Section "Build Your First Workflow": the request's id is no part of the key."""
    asked = [{"request_id": f"r{n}", "text": "hi"} for n in range(50)]
    answers = await asyncio.gather(*map(guide.handle_request, asked))
    assert answers == [{"answer": "HI"}] * 50
    assert len(tta.trace.spans_at("your_llm_primitive")) == 1
    assert tta.elapsed == 2.0


async def test_failures_of_the_model_are_waited_out(guide, tta) -> None:
    """Section "Build Your First Workflow": the fourth failure reaches the handler."""
    tta.faults.at("your_llm_primitive").fail(ConnectionError("reset"), when=first(4))
    with pytest.raises(ConnectionError, match="reset"):
        await guide.handle_request({"request_id": "r1", "text": "hi"})
    assert len(tta.trace.spans_at("your_llm_primitive")) == 4


async def test_requests_of_fastapi_keep_their_ids(guide) -> None:
    """Section "FastAPI Integration": two hundred at once, and none is mixed up."""
    async with guide.client_of(guide.api) as client:
        replies = await asyncio.gather(
            *(
                client.post(
                    "/api/process",
                    json={"id": n},
                    headers={"x-correlation-id": f"c{n}"},
                )
                for n in range(200)
            )
        )
    assert [reply.json()["by"] for reply in replies] == [f"c{n}" for n in range(200)]
    assert {reply.status_code for reply in replies} == {200}


async def test_errors_of_fastapi_say_nothing_of_the_inside(guide, tta) -> None:
    """Section "FastAPI Integration": the text of an error stays in the log."""
    tta.faults.at("step1").fail(TimeoutError("postgres://u:secret@db"))
    transport = httpx.ASGITransport(guide.api, raise_app_exceptions=False)
    async with (
        guide.api.router.lifespan_context(guide.api),
        httpx.AsyncClient(transport=transport, base_url="http://api") as client,
    ):
        reply = await client.post("/api/process", json={})
    assert reply.status_code == 500
    assert "secret" not in reply.text
    assert reply.json()["correlation_id"]


def test_requests_of_flask_share_one_loop(guide) -> None:
    """Section "Flask Integration": sixteen threads, and a client that lives on."""
    loops = set()

    async def remember(data: dict) -> dict:
        """Note on which loop the step runs."""
        loops.add(asyncio.get_running_loop())
        await asyncio.sleep(0)
        return data

    guide.workflow = guide.step1 >> remember >> guide.step2 >> guide.step3

    def post(number: int) -> str:
        reply = guide.site.test_client().post(
            "/api/process", json={}, headers={"x-correlation-id": f"c{number}"}
        )
        return reply.get_json()["by"]

    with ThreadPoolExecutor(16) as threads:
        ids = list(threads.map(post, range(200)))
    assert ids == [f"c{n}" for n in range(200)]
    assert len(loops) == 1


@pytest.fixture
def usual_logging() -> Iterator[None]:
    """Put back what a worker in this process makes of the root logger."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.mark.usefixtures("usual_logging")
def test_celery_runs_the_task_in_a_worker(guide) -> None:
    """Section "Celery Integration": a worker thread on the broker in memory."""
    from celery.contrib.testing.worker import start_worker

    from tta_primitives.integrations.celery import message_headers

    jobs = guide.jobs
    jobs.conf.broker_transport_options = {"polling_interval": 0.01}
    with start_worker(jobs, pool="solo", perform_ping_check=False, shutdown_timeout=30):
        results = [
            guide.process_batch.apply_async(
                (f"b{n}",), headers=message_headers(WorkflowContext(f"c{n}"))
            )
            for n in range(20)
        ]
        stored = [result.get(timeout=30, interval=0.01) for result in results]
    assert [one["batch_id"] for one in stored] == [f"b{n}" for n in range(20)]
    assert [one["by"] for one in stored] == [f"c{n}" for n in range(20)]


def test_rq_runs_the_job_in_a_worker(guide) -> None:
    """Section "Redis Queue Integration": a worker on a real Redis, twenty jobs."""
    host, port = require_service("redis")
    with SyncRedis(host=host, port=port) as redis:
        queue = Queue(f"guide-{new_id()}", connection=redis)
        try:
            jobs = [
                guide.enqueue_job(queue, {"id": n}, WorkflowContext(f"c{n}"))
                for n in range(20)
            ]
            SimpleWorker([queue], connection=redis).work(burst=True, max_jobs=20)
            ids = [job.return_value()["by"] for job in jobs]
        finally:
            queue.delete(delete_jobs=True)
            for job in jobs:
                job.delete()
    assert ids == [f"c{n}" for n in range(20)]


@pytest.fixture
async def sessions(guide, tmp_path):
    """Sessions on a database with one account."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'bank.db'}")
    async with engine.begin() as connection:
        await connection.run_sync(guide.Base.metadata.create_all)
        await connection.execute(text("INSERT INTO accounts VALUES ('ada', 21)"))
    yield workflow_sessions(engine)
    await engine.dispose()


async def balance(guide, sessions) -> int:
    async with sessions() as session:
        return await session.scalar(select(guide.Account.balance))


async def test_chain_of_bound_steps_is_one_transaction(guide, sessions, tta) -> None:
    """Section "With SQLAlchemy": after a failure nothing of it is left."""
    tta.faults.at("update_database").lost_ack(ConnectionError("lost"), when=first(1))
    with pytest.raises(ConnectionError, match="lost"):
        await guide.in_one_transaction(sessions, {"name": "ada"})
    assert await balance(guide, sessions) == 21
    assert await guide.in_one_transaction(sessions, {"name": "ada"}) == 42
    assert await balance(guide, sessions) == 42


async def test_without_a_transaction_the_update_is_lost(guide, sessions) -> None:
    """Section "With SQLAlchemy": what the guide's block does as it stands."""
    async with sessions() as session:
        assert await guide.db_workflow(session, {"name": "ada"}) == 42
    assert await balance(guide, sessions) == 21


async def test_one_session_in_two_branches_is_told(guide, sessions) -> None:
    """Section "With SQLAlchemy": instead of SQLAlchemy's own words."""
    async with sessions() as session:
        bound = guide.query_database(session)
        with pytest.raises(ConcurrentSessionError, match="one branch at a time"):
            await (bound | bound.named("other")).execute("ada", WorkflowContext())


async def test_cache_is_shared_on_a_real_redis(guide, tta) -> None:
    """Section "With Redis": two processes would share what one has loaded."""
    host, port = require_service("redis")
    guide.expensive_operation.__qualname__ = f"operation_{new_id()}"
    clients = [Redis(host=host, port=port) for _ in range(2)]
    workflows = [guide.cached_workflow(client) for client in clients]
    try:
        for workflow in workflows:
            assert await workflow.execute(12, WorkflowContext()) == 144
        assert len(tta.trace.spans_at("expensive_operation")) == 1
    finally:
        await workflows[0].clear()
        for client in clients:
            await client.aclose()


async def test_last_fallback_is_a_plain_value(guide, tta) -> None:
    """Section "Error Handling": when nobody can answer, a sentence does."""
    for name in ("primary_processor", "backup_processor"):
        tta.faults.at(name).fail(OSError("down"))
    workflow: WorkflowPrimitive = guide.production_workflow
    assert await workflow.execute("hi", WorkflowContext()) == "try again later"


OBSERVED = """
import asyncio, json, sys, urllib.request
from tta_primitives import WorkflowContext, step
from tta_primitives.observability import initialize_observability

{block}

port = int(sys.argv[1])
handle = start_observing(port=port)
asyncio.run(step(abs, name="step1").execute(-1, WorkflowContext("c7")))
with urllib.request.urlopen(f"http://127.0.0.1:{{port}}/metrics") as reply:
    body = reply.read().decode()
stop_observing(handle)
print(json.dumps([line for line in body.splitlines() if "step1" in line]))
"""


def test_metrics_are_served(unused_tcp_port) -> None:
    """Section "Monitoring & Observability": a real scrape, in a process of its own."""
    _, block, _ = re.split(
        r"```(?:python)?\n", parts()["Monitoring & Observability"], maxsplit=2
    )
    done = subprocess.run(
        [sys.executable, "-c", OBSERVED.format(block=block), str(unused_tcp_port)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])


async def test_calls_wait_for_their_turn(guide, tta) -> None:
    """Section "Rate Limiting": ten calls at two a minute, each within its limit."""
    limited = guide.rate_limited_api
    calls = [limited.execute("hi", WorkflowContext()) for _ in range(10)]
    assert await asyncio.gather(*calls) == [{"response": "HI"}] * 10
    assert tta.elapsed == 9 * 30.0 + 1.0


def test_missing_key_ends_the_start(guide, monkeypatch, tmp_path) -> None:
    """Section "Environment Configuration": with the name of the variable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(SettingsError, match="OPENAI_API_KEY: not set"):
        guide.Settings()


async def test_check_that_hangs_is_a_check_that_fails(guide, tta) -> None:
    """Section "Health Checks": after its two seconds, and liveness is untouched."""
    tta.faults.at("step1").hang()
    async with guide.client_of(guide.checked) as client:
        assert (await client.get("/readyz")).status_code == 503
        assert tta.elapsed == 2.0
        assert (await client.get("/livez")).status_code == 200


async def test_running_requests_are_not_lost(guide, tta) -> None:
    """Section "Graceful Shutdown": two hundred run, all of them are answered."""
    async with guide.client_of(guide.served) as client:
        running = [asyncio.create_task(client.post("/slow")) for _ in range(200)]
        await asyncio.sleep(5)
        guide.life.begin_drain()
        assert (await client.get("/readyz")).status_code == 503
        replies = await asyncio.gather(*running)
    assert [reply.status_code for reply in replies] == [200] * 200
    assert guide.life.state == "stopped"


async def test_layers_share_on_a_real_redis(guide, tta) -> None:
    """Section "Caching Strategy": the memory of one, and Redis for the other."""
    host, port = require_service("redis")
    guide.expensive_llm_call.__qualname__ = f"call_{new_id()}"
    async with Redis(host=host, port=port) as redis:
        workers = [guide.layered(redis) for _ in range(2)]
        try:
            for worker in workers:
                for _ in range(2):
                    assert await worker.execute("hi", WorkflowContext()) == "HI"
        finally:
            [below] = workers[0].children()
            await below.clear()
    assert len(tta.trace.spans_at("expensive_llm_call")) == 1


@asynccontextmanager
async def counting_server():
    """A server that answers after a second, and counts its connections."""
    connections: list[asyncio.StreamWriter] = []

    async def serve(reader, writer) -> None:
        """Answer until the client goes away."""
        connections.append(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(1)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n42")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"http://{host}:{port}", connections
    finally:
        server.close()
        for writer in connections:
            writer.close()
            await writer.wait_closed()


async def test_calls_share_the_connections_of_a_client(guide, tta) -> None:
    """Section "Connection Pooling": a hundred calls in tens, over ten connections."""
    async with counting_server() as (url, connections):
        async with guide.make_http_client() as client:
            call = guide.APICallPrimitive(client)
            for _ in range(10):
                runs = [call.execute(url, WorkflowContext()) for _ in range(10)]
                assert await asyncio.gather(*runs) == ["42"] * 10
        assert len(connections) == 10
        assert client.is_closed
    assert tta.elapsed == 10.0


def test_key_is_replaced_without_losing_anything() -> None:
    """Section "API Key Management": rotated, and then the old key may go."""
    old, new = generate_key(), generate_key()
    stored = KeyRing([old]).encrypt("sk-live-1234")
    rotated = KeyRing([new, old]).rotate(stored)
    assert KeyRing([new]).decrypt(rotated) == "sk-live-1234"
    with pytest.raises(WrongKeyError, match="none of the 1 keys"):
        KeyRing([new]).decrypt(stored)


async def test_bad_input_reaches_no_step(guide, tta) -> None:
    """Section "Input Validation": all that is wrong is told, and nothing is run."""
    with pytest.raises(InputValidationError, match="text: Field required") as caught:
        await guide.validated.execute({"max_length": 20_000}, WorkflowContext())
    assert [one.field for one in caught.value.problems] == ["text", "max_length"]
    assert "shorten" not in tta.trace.outline()
