"""A session with --tta lets no test leave the machine, whatever swallows the error."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

# What a session in this process imports is forgotten, so it is imported before.
import anthropic  # noqa: F401
import httpx  # noqa: F401
import httpx2  # noqa: F401
import openai  # noqa: F401
import pytest
import uvloop  # noqa: F401

import pytest_tta.session  # noqa: F401
import tta_primitives.recovery  # noqa: F401
from pytest_tta.clock import trampolines

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]

trampolines.install()

_PLUGINS = ("-p", "pytest_asyncio.plugin", "-p", "pytest_tta.plugin")
_OPTIONS = (
    *("-p", "no:cacheprovider", "-o", "asyncio_mode=auto"),
    *("-o", "asyncio_default_fixture_loop_scope=function"),
)
NAME = "api.example"
BLOCKED = "{} is not on this machine, and nothing is mocked there"


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run pytest in this process on the files that the test made."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    # There pytest repeats whole messages in its summary.
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("BUILD_NUMBER", raising=False)

    def run_pytest(*args: str) -> pytest.RunResult:
        return pytester.runpytest_inprocess(*_PLUGINS, *_OPTIONS, *args)

    return run_pytest


@pytest.fixture
def run_apart(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run pytest in a process of its own."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    # There pytest repeats whole messages in its summary.
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("BUILD_NUMBER", raising=False)

    def run_pytest(*args: str) -> pytest.RunResult:
        return pytester.runpytest_subprocess(*_PLUGINS, *_OPTIONS, *args)

    return run_pytest


def count(result: pytest.RunResult, text: str) -> int:
    """Return how many lines of the output contain a text."""
    return sum(text in line for line in result.outlines)


def test_unmocked_call_fails_by_name(pytester: pytest.Pytester, run: Run) -> None:
    """The failure names host, port and line, says what to do, and is told once."""
    pytester.makepyfile(
        test_it="""
        import urllib.request

        KEY = "hid" + "den"

        def fetch():
            return urllib.request.urlopen("https://api.example/v1?key=" + KEY)

        def test_fetches():
            fetch()
        """
    )
    result = run("--tta")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            f"*NetworkBlocked: {BLOCKED.format('api.example:443')}",
            "*  at: test_it.py:6 in fetch",
            "*script its answers *tta_allow_hosts = api.example in the ini file*",
        ]
    )
    assert count(result, "is not on this machine") == 1
    result.stdout.no_fnmatch_line("*hidden*")


SDKS = {
    "openai": """
        client = openai.{}(api_key="sk-hid" "den", base_url="https://api.example/v1")
        ask = lambda: client.chat.completions.create(
            model="m", messages=[dict(role="user", content="x")]
        )
    """,
    "anthropic": """
        client = anthropic.{}(api_key="sk-hid" "den", base_url="https://api.example")
        ask = lambda: client.messages.create(
            model="m", max_tokens=9, messages=[dict(role="user", content="x")]
        )
    """,
}


@pytest.mark.parametrize(
    ("sdk", "client", "is_async"),
    [
        ("openai", "OpenAI", False),
        ("openai", "AsyncOpenAI", True),
        ("anthropic", "Anthropic", False),
        ("anthropic", "AsyncAnthropic", True),
    ],
)
def test_sdks_do_not_swallow_it(
    pytester: pytest.Pytester, run: Run, sdk: str, client: str, is_async: bool
) -> None:
    """Nor do a retry, a fallback and the user's own `except Exception` around them."""
    made = SDKS[sdk].format(client)
    answer = "await ask()" if is_async else "ask()"
    pytester.makepyfile(
        f"""
        import {sdk}
        from tta_primitives import step
        from tta_primitives.recovery import FallbackPrimitive, RetryPrimitive

        TRIED = []
        {made}
        @step
        async def llm(text):
            TRIED.append(text)
            try:
                return {answer}
            except Exception:
                return "swallowed"

        workflow = FallbackPrimitive(RetryPrimitive(llm, max_retries=3), ["sorry"])

        def test_it(tta):
            tta.run(workflow, "x")

        def test_once():
            assert TRIED == ["x"]
        """
    )
    result = run("-p", "no:randomly")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            f"*NetworkBlocked: {BLOCKED.format('api.example:443')}",
            "*  by: fallback/retry/llm",
            "*  at: test_sdks_do_not_swallow_it.py:*",
        ]
    )
    result.stdout.no_fnmatch_line("*hidden*")


SWALLOWS = {
    "bare": """
        def test_it():
            try:
                socket.create_connection(("api.example", 443))
            except BaseException:
                pass
    """,
    "gather": """
        async def test_it():
            await asyncio.gather(
                asyncio.open_connection("api.example", 443), return_exceptions=True
            )
    """,
    "gathered tasks": """
        async def ask():
            await asyncio.open_connection("api.example", 443)

        async def test_it():
            await asyncio.gather(ask(), ask(), return_exceptions=True)
    """,
    "a task that nobody awaits": """
        async def test_it():
            async def ask():
                await asyncio.open_connection("api.example", 443)
            task = asyncio.create_task(ask())
            await asyncio.wait([task])
            task.exception()
    """,
    "a thread": """
        def work():
            try:
                socket.create_connection(("api.example", 443))
            except BaseException:
                pass

        def test_it():
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
    """,
    "set-up": """
        @pytest.fixture
        def client():
            try:
                socket.create_connection(("api.example", 443))
            except BaseException:
                pass

        def test_it(client):
            pass
    """,
}


@pytest.mark.parametrize("source", SWALLOWS.values(), ids=SWALLOWS)
def test_what_is_swallowed_fails_at_the_end(
    pytester: pytest.Pytester, run: Run, source: str
) -> None:
    """Whatever became of the error, the test has tried to leave the machine."""
    head = "import asyncio, socket, threading, pytest\n"
    pytester.makepyfile(head + dedent(source))
    result = run("--tta")
    result.assert_outcomes(failed=1)
    assert count(result, BLOCKED.format("api.example:443")) == 1


def test_what_is_swallowed_is_told_beside_another_failure(
    pytester: pytest.Pytester, run: Run
) -> None:
    """The report explains why the answer was wrong."""
    pytester.makepyfile("""
        import socket

        def test_it():
            try:
                answer = socket.create_connection(("api.example", 443))
            except BaseException:
                answer = None
            assert answer == "hello"
    """)
    result = run("--tta")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*assert None == 'hello'*", "*tta problems*", "api.example:443 is not on *"]
    )
    assert count(result, "is not on this machine") == 1


def test_set_up_and_tear_down_are_guarded(pytester: pytest.Pytester, run: Run) -> None:
    """What a fixture asks for is an error of the test that uses it, told once."""
    pytester.makepyfile("""
        import socket
        import pytest

        @pytest.fixture
        def early():
            socket.create_connection(("early.example", 443))

        @pytest.fixture
        def late():
            yield
            socket.create_connection(("late.example", 443))

        @pytest.fixture
        def silent():
            yield
            try:
                socket.create_connection(("silent.example", 443))
            except BaseException:
                pass

        def test_early(early): pass
        def test_late(late): pass
        def test_silent(silent): pass
        def test_next(): pass
    """)
    result = run("--tta", "-p", "no:randomly")
    result.assert_outcomes(passed=3, errors=3)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at setup of test_early*",
            "*NetworkBlocked: early.example:443 is not *",
            "*ERROR at teardown of test_late*",
            "*NetworkBlocked: late.example:443 is not *",
            "*ERROR at teardown of test_silent*",
            "silent.example:443 is not on this machine*",
        ]
    )
    assert count(result, "is not on this machine") == 3


ASKS = """
    import socket
    import pytest

    def test_fixture(tta_clock):
        socket.create_connection(("api.example", 443))

    def test_plain():
        with pytest.raises(ConnectionRefusedError, match="a double"):
            socket.create_connection(("api.example", 443))
"""


def test_asking_for_a_fixture_is_enough(
    pytester: pytest.Pytester, run: Run, below: list[object]
) -> None:
    """Without --tta its test is guarded, and the others are left alone."""
    pytester.makepyfile(ASKS)
    result = run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*NetworkBlocked: api.example:443 *"])


def test_no_guard_is_loaded_for_nobody(
    pytester: pytest.Pytester, run_apart: Run
) -> None:
    """A session that does not use the plugin has not even imported the guard."""
    pytester.makepyfile("""
        import socket, sys

        def test_it():
            assert "connect" not in vars(socket.socket)
            assert socket.getaddrinfo.__module__ == "socket"
            assert "pytest_tta.wire" not in sys.modules
            assert "asyncio" not in sys.modules or (
                sys.modules["asyncio"].BaseEventLoop.getaddrinfo.__code__.co_filename
                == sys.modules["asyncio"].base_events.__file__
            )
    """)
    run_apart().assert_outcomes(passed=1)


@pytest.mark.parametrize(
    "setting",
    [
        "api.example",
        "other.example api.example:443",
        "\n    other.example\n    *.example",
        "*",
    ],
)
def test_ini_setting_allows_hosts(
    pytester: pytest.Pytester, run: Run, below: list[object], setting: str
) -> None:
    """One word or several, in one line or in several."""
    pytester.makeini(f"[pytest]\ntta_allow_hosts = {setting}\n")
    pytester.makepyfile("""
        import asyncio, socket
        import pytest

        def test_allowed():
            with pytest.raises(ConnectionRefusedError, match="a double"):
                socket.create_connection(("api.example", 443))

        async def test_in_a_loop():
            with pytest.raises(ConnectionRefusedError, match="a double"):
                await asyncio.open_connection("api.example", 443)
    """)
    run("--tta").assert_outcomes(passed=2)
    assert below == ["api.example", ("192.0.2.7", 443)] * 2


def test_setting_in_pyproject_is_a_list(
    pytester: pytest.Pytester, run: Run, below: list[object]
) -> None:
    """TOML has lists of its own."""
    pytester.makepyprojecttoml("""
        [tool.pytest.ini_options]
        tta_allow_hosts = ["db.example", "192.0.2.0/24:5432"]
    """)
    pytester.makepyfile("""
        import socket
        import pytest

        def test_allowed():
            with pytest.raises(ConnectionRefusedError, match="a double"):
                socket.create_connection(("192.0.2.1", 5432))

        def test_refused():
            socket.create_connection(("192.0.2.1", 5433))
    """)
    result = run("--tta")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*NetworkBlocked: 192.0.2.1:5433 is not *"])


def test_markers_add_to_each_other(
    pytester: pytest.Pytester, run: Run, below: list[object]
) -> None:
    """Those of module, class and test, and the setting, hold together."""
    pytester.makeini("[pytest]\ntta_allow_hosts = a.example\n")
    pytester.makepyfile("""
        import socket
        import pytest

        pytestmark = pytest.mark.tta_allow_hosts("b.example")

        def ask(host):
            with pytest.raises(ConnectionRefusedError, match="a double"):
                socket.create_connection((host, 443))

        @pytest.mark.tta_allow_hosts("c.example", "d.example:443")
        @pytest.mark.parametrize("host", "abcd")
        def test_all(host):
            ask(host + ".example")

        def test_fewer():
            ask("b.example")
            ask("c.example")
    """)
    result = run("--tta", "--strict-markers")
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(["*NetworkBlocked: c.example:443 is not *"])


@pytest.mark.parametrize("setting", ["https://api.example/v1", "api.example:x"])
def test_wrong_setting_is_a_usage_error(
    pytester: pytest.Pytester, run: Run, setting: str
) -> None:
    """Before any test has run."""
    pytester.makeini(f"[pytest]\ntta_allow_hosts = {setting}\n")
    result = run("--tta")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: tta_allow_hosts: host '{setting}'*must be *"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "takes hosts, such as "),
        ("host='api.example'", "takes hosts, such as "),
        ("443", "host 443 must be a string"),
        ("'https://api.example'", "host 'https://api.example' must be a host, not"),
    ],
)
def test_wrong_marker_is_told_with_the_test(
    pytester: pytest.Pytester, run: Run, arguments: str, said: str
) -> None:
    """In a sentence, without a traceback."""
    pytester.makepyfile(
        test_it=f"""
        import pytest

        @pytest.mark.tta_allow_hosts({arguments})
        def test_it(): pass
        """
    )
    result = run("--tta")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"test_it.py::test_it: mark.tta_allow_hosts {said}*"])


def test_the_marker_is_registered(pytester: pytest.Pytester, run: Run) -> None:
    """`pytest --markers` shows it, and --strict-markers knows it without --tta."""
    pytester.makepyfile("""
        import pytest

        @pytest.mark.tta_allow_hosts("api.example")
        def test_it(): pass
    """)
    run("--strict-markers").assert_outcomes(passed=1)
    run("--markers").stdout.fnmatch_lines(["@pytest.mark.tta_allow_hosts(*hosts): *"])


def test_mocks_and_local_servers_are_free(pytester: pytest.Pytester, run: Run) -> None:
    """What never reaches a socket, and what stays on the machine, is nobody's call."""
    pytester.makepyfile("""
        import asyncio
        import httpx, openai, pytest, respx

        @respx.mock
        async def test_respx():
            respx.get("https://api.example/").mock(httpx.Response(200, text="mocked"))
            async with httpx.AsyncClient() as client:
                assert (await client.get("https://api.example/")).text == "mocked"

        async def test_server():
            async def answer(reader, writer):
                await reader.readuntil(b"\\r\\n\\r\\n")
                writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nhi")
                writer.close()

            async with await asyncio.start_server(answer, "localhost", 0) as server:
                port = server.sockets[0].getsockname()[1]
                async with httpx.AsyncClient() as client:
                    response = await client.get(f"http://localhost:{port}/")
                assert response.text == "hi"
    """)
    run("--tta").assert_outcomes(passed=2)


def test_workers_of_xdist_are_guarded(
    pytester: pytest.Pytester, run_apart: Run
) -> None:
    """They talk to the controller as ever, and their tests to nobody else."""
    pytester.makepyfile("""
        import socket
        import pytest

        @pytest.mark.parametrize("number", range(4))
        def test_it(number):
            if number % 2:
                socket.create_connection((f"api{number}.example", 443))
    """)
    result = run_apart("--tta", "-p", "xdist", "-n", "2")
    result.assert_outcomes(passed=2, failed=2)
    assert count(result, "is not on this machine") >= 2


def test_trio_tests_are_guarded(pytester: pytest.Pytester, run: Run) -> None:
    """They keep their own time, and the guard."""
    pytester.makepyfile("""
        import anyio, pytest

        @pytest.fixture
        def anyio_backend():
            return "trio"

        @pytest.mark.anyio
        async def test_it():
            await anyio.connect_tcp("api.example", 443)
    """)
    result = run("--tta", "-p", "anyio", "-o", "asyncio_mode=strict")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*NetworkBlocked: api.example:443 is not *"])


def test_our_own_suite_is_guarded(request: pytest.FixtureRequest) -> None:
    """A test of ours that asks for nothing cannot leave the machine either."""
    guard = request.getfixturevalue("outermost_guard")
    assert guard.is_on
    assert guard.blocked == []


def test_what_our_own_suite_swallows_fails_too(
    outermost_guard: object, pytester: pytest.Pytester, run: Run
) -> None:
    """The hook of our conftest tells it at the end of the test."""
    import inspect

    from tests import conftest

    pytester.makeconftest(inspect.getsource(conftest))
    pytester.makepyfile("""
        import socket

        def test_it():
            try:
                socket.create_connection(("api.example", 443))
            except BaseException:
                pass
    """)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*api.example:443 is not on this machine*"])


def test_between_tests_the_network_is_nobodys(
    run_apart: Run, pytester: pytest.Pytester
) -> None:
    """What refuses stays for the session; it asks only while a test runs."""
    pytester.makeconftest(
        """
        import socket
        import pytest

        stock = vars(socket)["gethostbyname"]

        @pytest.hookimpl(trylast=True)
        def pytest_unconfigure(config):
            config.add_cleanup(say)

        def say():
            print("back" if vars(socket)["gethostbyname"] is stock else "left")

        def pytest_runtest_logfinish(nodeid):
            # No name that a server would be asked for.
            try:
                socket.gethostbyname("")
                socket.gethostbyname("a..b")
            except (OSError, UnicodeError):
                print("asked", vars(socket)["gethostbyname"] is stock)
        """
    )
    pytester.makepyfile("def test_one(): pass")
    result = run_apart("--tta", "-s", "-q")
    result.stdout.fnmatch_lines(["*asked False*", "back"])
    result = run_apart("-s", "-q")
    result.stdout.fnmatch_lines(["*asked True*", "back"])
