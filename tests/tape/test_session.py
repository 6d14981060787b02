"""The fixture, the marker and the options, as a user's session has them."""

from __future__ import annotations

from textwrap import dedent

# What a session in this process imports is forgotten, so it is imported before.
import httpx2  # noqa: F401
import openai  # noqa: F401
import pytest
import yaml

import pytest_tta.session
import pytest_tta.tape.tape  # noqa: F401
from pytest_tta.clock import trampolines
from pytest_tta.wire.exchange import WireAnswer
from pytest_tta.wire.guard import Guard, NetworkBlocked
from pytest_tta.wire.hosts import AllowedHosts, parse_rule
from tests.tape.server import always, each, echoes, says, serving

trampolines.install()

_PLUGINS = ("-p", "pytest_asyncio.plugin", "-p", "pytest_tta.plugin")
_OPTIONS = (
    *("-p", "no:cacheprovider", "-o", "asyncio_mode=auto"),
    *("-o", "asyncio_default_fixture_loop_scope=function"),
)
KEY = "sk-planted-0123456789abcdef"
OVERLOADED = WireAnswer.of_json({"error": {"message": "busy"}}, status=503)

CODE = """
import os
import httpx2
import pytest
from tta_primitives import WorkflowContext, step

@step
async def llm(question):
    headers = {"authorization": "Bearer " + os.environ["LLM_KEY_"]}
    url = os.environ["LLM_URL"] + "/v1/chat/completions"
    body = {"model": "m", "messages": [{"role": "user", "content": question}]}
    async with httpx2.AsyncClient(headers=headers, trust_env=False) as client:
        answer = await client.post(url, json=body)
    return answer.json()["choices"][0]["message"]["content"]

async def ask(question):
    return await llm.execute(question, WorkflowContext())
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Run pytest on the tests of a module, against a server or against nobody."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("LLM_KEY_", KEY)

    def run(*args, server=None, code=None, apart=False):
        url = "https://llm.example" if server is None else server.url
        monkeypatch.setenv("LLM_URL", url)
        if code is not None:
            pytester.makepyfile(test_it=CODE + dedent(code))
        start = pytester.runpytest_subprocess if apart else pytester.runpytest_inprocess
        result = start(*_PLUGINS, *_OPTIONS, *args)
        assert KEY not in result.stdout.str() + result.stderr.str()
        return result

    return run


def tapes(pytester):
    """Return the files of all tapes, with what is in them."""
    folder = pytester.path / "tapes"
    found = {
        str(path.relative_to(folder)): path.read_text("utf-8")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    assert KEY not in "".join(found.values())
    return found


def said(text):
    """Return the answers on a tape."""
    calls = yaml.safe_load(text)["calls"]
    return [
        one["response"]["json"]["choices"][0]["message"]["content"] for one in calls
    ]


ONE = """
async def test_hi(tta_tape):
    assert await ask("hi") == "1: hi"
    assert tta_tape.requests[0].path == "llm"
"""


@pytest.mark.parametrize("options", [(), ("--tta",)])
def test_a_test_is_recorded_once_and_played_ever_after(options, run, pytester) -> None:
    """With `--tta-record=once`; the second time nobody is asked."""
    with serving(echoes) as server:
        for _ in range(2):
            result = run(*options, "--tta-record=once", server=server, code=ONE)
            result.assert_outcomes(passed=1)
        assert len(server.seen) == 1
    assert [*tapes(pytester)] == ["test_it/test_hi.yaml"]
    run(*options).assert_outcomes(passed=1)


def test_without_the_option_nothing_is_sent(run, pytester) -> None:
    """Not even where there is no tape: the failure says how to make one."""
    with serving(echoes) as server:
        result = run(server=server, code=ONE)
        assert server.seen == []
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*UnexpectedCall: request 1 of 'llm', POST *, is not on the tape tapes*",
            "E * there is no such file; record it with --tta-record=once",
        ]
    )
    assert tapes(pytester) == {}


TWO = """
@pytest.mark.parametrize("question", QUESTIONS)
async def test_all(tta_tape, question):
    for one in question.split():
        assert (await ask(one)).endswith(one)
"""


def test_each_mode_records_what_it_should(run, pytester) -> None:
    """`once` nothing more, `new` what is missing, `all` everything."""
    one, two = ('QUESTIONS = ["a"]', 'QUESTIONS = pytest.param("a b", id="a"),')
    with serving(echoes) as server:
        run("--tta-record=once", server=server, code=one + TWO)
        name = "test_it/test_all-a.yaml"
        assert said(tapes(pytester)[name]) == ["1: a"]
        result = run("--tta-record=once", server=server, code=two + TWO)
        result.assert_outcomes(failed=1)
        assert len(server.seen) == 1
        result = run("--tta-record=new", server=server)
        result.assert_outcomes(passed=1)
        assert said(tapes(pytester)[name]) == ["1: a", "2: b"]
        result = run("--tta-record=all", server=server)
        result.assert_outcomes(passed=1)
        assert said(tapes(pytester)[name]) == ["3: a", "4: b"]
    run().assert_outcomes(passed=1)


def test_the_tape_of_a_test_that_fails_is_not_written(run, pytester) -> None:
    """Neither anew, nor over the old one."""
    bad = "async def test_hi(tta_tape):\n    assert await ask('hi') == 'no'\n"
    with serving(echoes) as server:
        run("--tta-record=all", server=server, code=bad).assert_outcomes(failed=1)
        assert tapes(pytester) == {}
        run("--tta-record=all", server=server, code=ONE.replace("1:", "2:"))
        before = tapes(pytester)
        assert [said(one) for one in before.values()] == [["2: hi"]]
        run("--tta-record=all", server=server, code=bad).assert_outcomes(failed=1)
    assert tapes(pytester) == before


def test_what_is_left_over_fails_the_test(run) -> None:
    """And the report names it."""
    with serving(echoes) as server:
        run("--tta-record=once", server=server, code=ONE)
    result = run(code="async def test_hi(tta_tape): pass")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*exchange 1 of the tape tapes*test_hi.yaml was not asked for: POST *llm'; *"]
    )


def test_a_miss_is_told_even_if_it_was_swallowed(run) -> None:
    """With the place in which it differs."""
    with serving(echoes) as server:
        run("--tta-record=once", server=server, code=ONE)
    code = """
    import asyncio
    async def test_hi(tta_tape):
        await asyncio.gather(ask("ho"), return_exceptions=True)
    """
    result = run(code=code)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*messages?0?.content: recorded 'hi' / now 'ho'", "*--tta-record=new*"]
    )


def test_errors_are_recorded_if_asked_for(run, pytester) -> None:
    """Otherwise the test fails, because a replay would."""
    code = """
    async def test_hi(tta_tape):
        with pytest.raises(KeyError, match="choices"):
            await ask("hi")
    """
    with serving(always(OVERLOADED)) as server:
        result = run("--tta-record=once", server=server, code=code)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["*was answered with 503*--tta-record-errors*"])
        assert tapes(pytester) == {}
        options = "--tta-record=once", "--tta-record-errors"
        run(*options, server=server).assert_outcomes(passed=1)
    run().assert_outcomes(passed=1)


def test_a_marker_is_enough_for_a_tape(run, pytester) -> None:
    """Its name is that of the file; sync tests and classes, too."""
    code = """
    import asyncio

    @pytest.mark.tta_tape("weather", mode="once")
    async def test_marked():
        assert await ask("hi") == "1: hi"

    @pytest.mark.tta_tape(mode="once")
    class TestAll:
        def test_sync(self):
            assert asyncio.run(ask("ho")) == "2: ho"

        async def test_with_fixture(self, tta):
            assert await ask("hu") == "3: hu"
            assert tta.elapsed >= 0.05
    """
    answers = each(echoes, echoes, _late)
    with serving(answers, speed=0.02) as server:
        run(server=server, code=code)
    assert [*tapes(pytester)] == [
        "test_it/TestAll.test_sync.yaml",
        "test_it/TestAll.test_with_fixture.yaml",
        "test_it/weather.yaml",
    ]
    run().assert_outcomes(passed=3)


def _late(number, seen):
    return echoes(number, seen).delayed(3.0)


def test_a_marker_does_not_record_on_ci(run, monkeypatch, pytester) -> None:
    """There a test that has no tape fails, unless the command line says otherwise."""
    code = """
    @pytest.mark.tta_tape(mode="all")
    async def test_hi():
        await ask("hi")
    """
    with serving(echoes) as server:
        monkeypatch.setenv("CI", "true")
        run(server=server, code=code).assert_outcomes(failed=1)
        assert server.seen == []
        run("--tta-record=all", server=server).assert_outcomes(passed=1)
        monkeypatch.delenv("CI")
        run("--tta-record=none", server=server).assert_outcomes(passed=1)
        assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("marker", "told"),
    [
        ("('a/b')", "name='a/b' must be a file's name without a folder"),
        ("('a', 'b')", "mark.tta_tape takes one name, got ('a', 'b')"),
        (
            "(mode='some')",
            "mark.tta_tape mode='some' is not one of none, once, new, all",
        ),
        ("(modus='all')", "mark.tta_tape does not know 'modus'; it takes name, mode"),
    ],
)
def test_a_wrong_marker_is_refused_by_name(marker, told, run) -> None:
    """Without a traceback of ours."""
    code = f"@pytest.mark.tta_tape{marker}\nasync def test_hi(): pass"
    result = run(code=code)
    result.assert_outcomes(errors=1)
    assert f"test_it.py::test_hi: {told}" in result.stdout.str()


def test_a_wrong_mode_is_refused_by_the_command_line(run) -> None:
    """As pytest refuses any other."""
    result = run("--tta-record=some", code="def test_hi(): pass", apart=True)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "invalid choice: 'some'" in result.stderr.str()


def test_a_broken_tape_is_told_without_a_traceback(run, pytester) -> None:
    """By file, line and place."""
    with serving(echoes) as server:
        run("--tta-record=once", server=server, code=ONE)
    path = pytester.path / "tapes" / "test_it" / "test_hi.yaml"
    text = path.read_text("utf-8")
    path.write_text(text.replace("status: 200", "status: two hundred"), "utf-8")
    result = run()
    result.assert_outcomes(errors=1)
    result.stdout.re_match_lines(
        [r".*test_hi\.yaml, line \d+: calls\[0\]\.response\.status: 'two hundred' must"]
    )
    assert "Traceback" not in result.stdout.str()


def test_fields_are_ignored_by_the_ini_file(run, pytester) -> None:
    """For all tests of a project."""
    with serving(echoes) as server:
        run("--tta-record=once", server=server, code=ONE)
    other = ONE.replace('ask("hi")', 'ask("ho")')
    run(code=other).assert_outcomes(failed=1)
    pytester.makeini("[pytest]\ntta_tape_ignore = messages[*].content\n")
    run().assert_outcomes(passed=1)


def test_a_key_that_would_be_written_fails_the_test(run, pytester) -> None:
    """By its place; the key is in nothing that is shown."""
    code = """
    async def test_hi(tta_tape):
        tta_tape.redact(lambda text: text.replace("hi", os.environ["LLM_KEY_"]))
        await ask("hi")
    """
    with serving(says("hello")) as server:
        result = run("--tta-record=once", server=server, code=code)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*is not written, because a key*body.messages?0?.content; take it out*"]
    )
    assert tapes(pytester) == {}


def test_no_key_is_in_the_report_of_a_failing_test(run) -> None:
    """With all local variables shown, of the tape's own frames, too."""
    code = """
    async def test_hi(tta_tape):
        await llm.execute("hi", WorkflowContext())
    """
    run("--tta", "-ra", "--tb=long", code=code).assert_outcomes(failed=1)


def test_workers_write_a_tape_each(run, pytester) -> None:
    """Under pytest-xdist, with names that parameters make."""
    code = """
    @pytest.mark.parametrize("question", ["a", "A", "a/b", "a b", "é", "x" * 200])
    async def test_all(tta_tape, question):
        assert (await ask(question)).endswith(question)
    """
    options = "-p", "xdist.plugin", "-n", "2"
    with serving(echoes) as server:
        result = run(
            *options, "--tta-record=once", server=server, code=code, apart=True
        )
    result.assert_outcomes(passed=6)
    found = tapes(pytester)
    assert len(found) == 6
    assert all(name.startswith("test_it/test_all-") for name in found)
    assert not [name for name in found if ".tmp" in name]
    run(*options, apart=True).assert_outcomes(passed=6)


def test_tapes_are_json_without_pyyaml(run, pytester, monkeypatch) -> None:
    """They say the same, and are played the same."""
    monkeypatch.setattr("pytest_tta.tape.files.has_yaml", lambda: False)
    with serving(echoes) as server:
        run("--tta-record=once", server=server, code=ONE).assert_outcomes(passed=1)
    assert [*tapes(pytester)] == ["test_it/test_hi.json"]
    run().assert_outcomes(passed=1)


def test_the_guard_lets_one_host_through_for_as_long_as_it_takes() -> None:
    """The host that is recorded, at its port, and no other one."""
    guard = Guard(AllowedHosts([parse_rule("other.example")]))
    guard.is_on = True
    with guard.permitting("llm.example", 8443), guard.permitting("2001:db8::7"):
        guard.check("llm.example", 8443)
        guard.check_lookup("llm.example")
        guard.check("2001:db8::7", 1)
        guard.check("other.example", 1)
        with pytest.raises(NetworkBlocked, match=r"llm\.example:443 is not on"):
            guard.check("llm.example", 443)
    with pytest.raises(NetworkBlocked, match=r"llm\.example:8443 is not on"):
        guard.check("llm.example", 8443)


def test_recording_passes_the_guard_and_nothing_else_does(run, monkeypatch) -> None:
    """While a request is out, its host is permitted; before and after it is not."""
    permitted = []
    original = Guard.permitting

    def permitting(self, host, port=None):
        permitted.append((host, port))
        return original(self, host, port)

    monkeypatch.setattr(Guard, "permitting", permitting)
    with serving(echoes) as server:
        run("--tta", "--tta-record=once", server=server, code=ONE)
        port = int(server.url.rpartition(":")[2])
    assert permitted == [("127.0.0.1", port)]
    run("--tta").assert_outcomes(passed=1)
    assert len(permitted) == 1
