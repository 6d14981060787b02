"""The fake network under httpx and httpx2, beside a raw server with the same bytes."""

from __future__ import annotations

import asyncio
import gc
import importlib
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest

from pytest_tta.clock import trampolines
from pytest_tta.clock.clock import VirtualClock
from pytest_tta.clock.errors import ClockDeadlock
from pytest_tta.harness import Harness
from pytest_tta.wire import families, transport
from pytest_tta.wire.exchange import WireAnswer
from tests.garbage import only_new_garbage
from tests.wire.loopback import loopback

FAMILIES = ("httpx", "httpx2")
HOST = "https://api.example"


class Served:
    """A router with one answer for one host, which keeps what it is told."""

    def __init__(self, answer) -> None:
        self._answer = answer
        self.asked = []
        self.endings = []
        self.is_closed = []

    def serves(self, url) -> bool:
        """Serve one host."""
        return url.host == "api.example"

    def begin(self, asking):
        """Take every request."""
        self.asked.append(asking)
        return self

    def answer(self):
        """Answer as told."""
        return self._answer

    def ended(self, how) -> None:
        """Keep how it ended."""
        self.endings.append(how)

    def began(self) -> None:
        """Be told of the head."""

    def closed(self, at) -> None:
        """Keep that it was closed."""
        self.is_closed.append(at)


@contextmanager
def serving(answer):
    """Answer every request to the host."""
    served = Served(answer)
    with transport.answering(served):
        yield served


def module_of(name):
    """Return httpx or httpx2."""
    return importlib.import_module(name)


def outcome_of(error):
    """Return what a client saw of an error."""
    return type(error).__name__, str(error)


async def asked(module, url, *, timeout=5.0, body=b"{}"):
    """Return what an async client sees of an answer, streamed."""
    got = []
    try:
        async with (
            module.AsyncClient(timeout=timeout, trust_env=False) as client,
            client.stream("POST", url, content=body) as response,
        ):
            head = response.status_code, response.reason_phrase
            got.append((*head, response.headers.get("content-type")))
            got.append(b"")
            async for part in response.aiter_raw():
                got[-1] += part
    except Exception as error:
        return (*got, outcome_of(error))
    return tuple(got)


def asked_in_thread(module, url, *, timeout=5.0, body=b"{}"):
    """Return what a blocking client sees of an answer, streamed."""
    got = []
    try:
        with (
            module.Client(timeout=timeout, trust_env=False) as client,
            client.stream("POST", url, content=body) as response,
        ):
            head = response.status_code, response.reason_phrase
            got.append((*head, response.headers.get("content-type")))
            got.append(b"")
            for part in response.iter_raw():
                got[-1] += part
    except Exception as error:
        return (*got, outcome_of(error))
    return tuple(got)


EVENTS = WireAnswer.of_events([(0.0, b"data: 1\n\n"), (0.0, b"data: 2\n\n")])
JSON = WireAnswer.of_json({"a": 1})
ANSWERS = {
    "json": JSON,
    "events": EVENTS,
    "empty": WireAnswer(status=204),
    "overloaded": WireAnswer.of_json({}, status=529, headers=[("retry-after", "2")]),
    "not found": WireAnswer.of_bytes(b"no", "text/plain", status=404),
    "closed before the head": WireAnswer(has_head=False, ending="closed"),
    "reset before the head": WireAnswer(has_head=False, ending="reset"),
    "garbage": WireAnswer(raw_head=b"HTTQ/9 what\r\n\r\n"),
    "bad header": WireAnswer(raw_head=b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"),
    "short body": WireAnswer.of_json({"a": 1}).with_headers(("content-length", "99")),
    "closed in chunks": EVENTS.cut(1, "closed"),
    "closed after the head": EVENTS.cut(0, "closed"),
    "reset in chunks": EVENTS.cut(1, "reset"),
    "clean cut": EVENTS.cut(1, "complete"),
}


@pytest.mark.parametrize("family", FAMILIES)
async def test_an_answer_is_what_it_is_on_a_real_socket(family) -> None:
    """Status, headers, bytes, and the error with its message; in a task."""
    module = module_of(family)
    async with loopback(lambda number, _: list(ANSWERS.values())[number - 1]) as server:
        real = {name: await asked(module, server.url) for name in ANSWERS}
    fake = {}
    for name, answer in ANSWERS.items():
        with serving(answer):
            fake[name] = await asked(module, HOST)
    assert fake == real


@pytest.mark.parametrize("family", FAMILIES)
async def test_an_answer_in_a_thread_is_what_it_is_on_a_real_socket(family) -> None:
    """The words of the operating system differ there."""
    module = module_of(family)
    async with loopback(lambda number, _: list(ANSWERS.values())[number - 1]) as server:
        real = {
            name: await asyncio.to_thread(asked_in_thread, module, server.url)
            for name in ANSWERS
        }
    fake = {}
    for name, answer in ANSWERS.items():
        with serving(answer):
            fake[name] = asked_in_thread(module, HOST)
    assert fake == real


# --- time -----------------------------------------------------------------------------


async def timed(module, timeout):
    """Return what is seen, and when it was over."""
    loop = asyncio.get_running_loop()
    begin = loop.time()
    return await asked(module, HOST, timeout=timeout), loop.time() - begin


SILENT = WireAnswer(has_head=False, ending="silent")
TIMED = {
    "connect": (WireAnswer(connect="silent"), "ConnectTimeout", 3),
    "write": (WireAnswer(reads_request=False), "WriteTimeout", 7),
    "read": (SILENT, "ReadTimeout", 30),
    "a late head": (JSON.delayed(45), "ReadTimeout", 30),
    "a late token": (
        replace(EVENTS, body=((0.0, b"data: 1\n\n"), (31.0, b"data: 2\n\n"))),
        "ReadTimeout",
        30,
    ),
    "silence after a token": (EVENTS.cut(1, "silent"), "ReadTimeout", 30),
    "silence after a late token": (
        replace(EVENTS.cut(1, "silent"), body=((29.0, b"data: 1\n\n"),)),
        "ReadTimeout",
        59,
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", TIMED)
def test_the_clients_limits_are_kept_to_the_second(family, name) -> None:
    """Each limit ends just what it is for, at its exact time."""
    module = module_of(family)
    answer, error, seconds = TIMED[name]
    limits = module.Timeout(connect=3, read=30, write=7, pool=11)
    with serving(answer) as served:
        seen, took = VirtualClock().run(timed(module, limits))
    assert (seen[-1], took) == ((error, ""), seconds)
    assert served.is_closed
    assert error in served.endings[-1]


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_come_at_their_times(family) -> None:
    """A reader who is slow finds them waiting, and loses no time."""
    module = module_of(family)
    parts = tuple((float(at), b"%d" % at) for at in (0, 1, 2, 10))
    answer = replace(EVENTS, body=parts, head_after=5.0)

    async def read():
        loop, seen = asyncio.get_running_loop(), []
        async with module.AsyncClient() as client, client.stream("GET", HOST) as got:
            seen.append(("head", loop.time()))
            async for part in got.aiter_raw():
                seen.append((part, loop.time()))
                await asyncio.sleep(4)
        return seen

    with serving(answer):
        seen = VirtualClock().run(read())
    times = [("head", 5), (b"0", 5), (b"1", 9), (b"2", 13), (b"10", 17)]
    assert [(what, at - seen[0][1] + 5) for what, at in seen] == times


@pytest.mark.parametrize("family", FAMILIES)
def test_a_client_without_limits_waits_for_ever(family) -> None:
    """The clock says so, and nothing hangs."""
    module = module_of(family)
    with serving(SILENT), pytest.raises(ClockDeadlock, match="nothing is left"):
        VirtualClock().run(asked(module, HOST, timeout=None))
    with (
        serving(SILENT),
        module.Client(timeout=None) as client,
        pytest.raises(ClockDeadlock, match="has no timeout"),
    ):
        client.get(HOST)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_blocking_client_lives_in_virtual_time_too(family) -> None:
    """`time.sleep` follows the clock."""
    module = module_of(family)
    with serving(JSON.delayed(45)):
        trampolines.install()
        with Harness() as tta:
            seen = asked_in_thread(module, HOST, timeout=30)
            assert tta.clock.elapsed == 30
            assert seen == (("ReadTimeout", "timed out"),)
            assert asked_in_thread(module, HOST, timeout=60)[1] == JSON.data
            assert tta.clock.elapsed == 75


# --- the pool -------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pool_has_no_more_places_than_it_is_given(family) -> None:
    """Others wait in turn, for as long as their limit says."""
    module = module_of(family)

    async def get(client, loop):
        try:
            await client.get(HOST)
        except module.PoolTimeout as error:
            return type(error).__name__, loop.time()
        return "ok", loop.time()

    async def run():
        loop = asyncio.get_running_loop()
        begin = loop.time()
        limits = module.Limits(max_connections=2)
        timeout = module.Timeout(60, pool=15)
        async with module.AsyncClient(limits=limits, timeout=timeout) as client:
            seen = await asyncio.gather(*(get(client, loop) for _ in range(6)))
        return [(what, at - begin) for what, at in seen]

    with serving(JSON.delayed(10)):
        seen = VirtualClock().run(run())
    late = [("PoolTimeout", 15)] * 2
    assert sorted(seen) == sorted([*late, *[("ok", 10)] * 2, *[("ok", 20)] * 2])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_place_comes_back_however_its_request_ends(family) -> None:
    """Cancelled while waiting, while being answered, or closed half-read."""
    module = module_of(family)

    async def run():
        limits = module.Limits(max_connections=1)
        async with module.AsyncClient(limits=limits, timeout=60) as client:
            tasks = [asyncio.create_task(client.get(HOST)) for _ in range(3)]
            await asyncio.sleep(1)
            tasks[1].cancel()
            tasks[0].cancel()
            await asyncio.wait(tasks[:2])
            assert (await tasks[2]).status_code == 200
            async with client.stream("GET", HOST):
                pass
            assert (await client.get(HOST)).status_code == 200

    with serving(JSON.delayed(10)) as served:
        VirtualClock().run(run())
    assert len(served.is_closed) == len(served.asked)


@pytest.mark.parametrize("family", FAMILIES)
def test_threads_wait_for_a_place_too(family) -> None:
    """One connection, two threads: one after the other."""
    module = module_of(family)
    limits = module.Limits(max_connections=1)
    with serving(JSON), module.Client(limits=limits, timeout=0.01) as client:
        with client.stream("GET", HOST):
            failed = []

            def get():
                try:
                    client.get(HOST)
                except module.PoolTimeout:
                    failed.append(True)

            thread = threading.Thread(target=get)
            thread.start()
            thread.join()
            assert failed
        assert client.get(HOST).status_code == 200


# --- who is met -----------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
async def test_clients_of_any_age_and_transport_are_met(family) -> None:
    """Made before, with a transport of their own, or with a proxy."""
    module = module_of(family)
    old = module.AsyncClient(trust_env=False)
    own = module.AsyncClient(transport=module.AsyncHTTPTransport())
    blocking = module.Client(proxy="http://127.0.0.1:9")
    with serving(JSON) as served:
        assert (await old.get(HOST)).json() == {"a": 1}
        assert (await own.get(HOST)).json() == {"a": 1}
        assert blocking.get(HOST).json() == {"a": 1}
    assert len(served.asked) == 3
    for client in (old, own):
        await client.aclose()
    blocking.close()


@pytest.mark.parametrize("family", FAMILIES)
async def test_other_hosts_go_where_they_would_have_gone(family) -> None:
    """To a real server, or to a mock of the user's own."""
    module = module_of(family)
    mock = module.MockTransport(lambda _: module.Response(418))
    async with loopback(lambda *_: WireAnswer(status=204)) as server:
        with serving(JSON):
            async with module.AsyncClient(trust_env=False) as client:
                assert (await client.get(server.url)).status_code == 204
            async with module.AsyncClient(transport=mock) as client:
                assert (await client.get("https://other.example")).status_code == 418


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_left_behind(family) -> None:
    """The libraries are as they were."""
    module = module_of(family)
    before = module.Client._transport_for_url, module.AsyncClient._transport_for_url
    with serving(JSON):
        assert module.Client._transport_for_url is not before[0]
    assert before == (
        module.Client._transport_for_url,
        module.AsyncClient._transport_for_url,
    )


def test_libraries_that_are_imported_later_are_met() -> None:
    """In a process that has neither at first."""
    code = """
import sys
from pytest_tta.wire import transport
from pytest_tta.wire.exchange import WireAnswer
class Served:
    def serves(self, url): return True
    def begin(self, asking): return self
    def answer(self): return WireAnswer.of_json("fake")
    def ended(self, how): pass
    def began(self): pass
    def closed(self, at): pass
assert "httpx" not in sys.modules and "httpx2" not in sys.modules
with transport.answering(Served()):
    import httpx, httpx2
    print(httpx.get("https://a.example").json(), httpx2.get("https://a.example").json())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["fake", "fake"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_body_is_read_once(family) -> None:
    """As it comes from a socket: who reads again finds it consumed."""
    module = module_of(family)
    with serving(JSON), module.Client() as client, client.stream("GET", HOST) as got:
        assert b"".join(got.iter_raw()) == JSON.data
        with pytest.raises(module.StreamConsumed, match="already"):
            next(got.iter_raw())


@pytest.mark.parametrize("family", FAMILIES)
async def test_requests_leave_no_more_cyclic_garbage_than_the_library(family) -> None:
    """Httpx itself leaves some where a body fails."""
    module = module_of(family)

    class Broken(module.AsyncByteStream):
        async def __aiter__(self):
            yield b"x"
            raise module.ReadError("")

    async def get(client):
        try:
            await client.get(HOST)
        except module.ReadError as error:
            del error

    async def garbage(client):
        await get(client)
        with only_new_garbage():
            await get(client)
            return gc.collect()

    class Good(Broken):
        async def __aiter__(self):
            yield b"x"

    for body, answers in ((Good, (JSON, EVENTS)), (Broken, [EVENTS.cut(1, "reset")])):
        mock = module.MockTransport(lambda _, b=body: module.Response(200, stream=b()))
        async with module.AsyncClient(transport=mock) as client:
            theirs = await garbage(client)
        async with module.AsyncClient() as client:
            for answer in answers:
                with serving(answer):
                    # The bytes of a real answer have headers, that of the mock none.
                    assert await garbage(client) <= theirs + 4


# --- the self-check -------------------------------------------------------------------


def refused(why):
    """See that nobody can be served."""
    with pytest.raises(families.WireError, match=why), serving(JSON):
        pass


@pytest.mark.parametrize("family", FAMILIES)
def test_a_library_that_sends_otherwise_is_refused_by_name(family, monkeypatch) -> None:
    """Rather than let a request out."""
    module = module_of(family)
    with monkeypatch.context() as patch:
        patch.delattr(module.Client, "_transport_for_url")
        refused(rf"{family} .* no _transport_for")

    def send(self, request):
        return module.Response(204)

    def named(self, request):
        # It mentions the method, and does not call it.
        return self._transport_for_url and module.Response(204, request=request)

    for function, why in ((send, "no _transport"), (named, "was sent past it")):
        with monkeypatch.context() as patch:
            patch.setattr(module.Client, "_send_single_request", function)
            refused(why)
    with serving(JSON):
        assert module.get(HOST).status_code == 200
