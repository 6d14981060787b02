"""The example as a user runs it: a process, real time, a real server on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from examples.answer_service.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
QUESTION = "How do I test a retry?"
SETTINGS = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY")


def start(*arguments: str, **settings: str) -> subprocess.Popen[str]:
    """Start the command of the README in a process of its own."""
    kept = {k: v for k, v in os.environ.items() if k not in {*SETTINGS, *PROXIES}}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "examples.answer_service", *arguments],
        cwd=ROOT,
        env={**kept, "PYTHONIOENCODING": "utf-8", **settings},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        preexec_fn=hear_interrupts if os.name == "posix" else None,  # noqa: PLW1509 - it takes no lock
    )


def hear_interrupts() -> None:
    """Undo what a shell does to a job in its background: it ignores Ctrl+C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def run(
    *arguments: str, given: str = "", **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    with start(*arguments, **settings) as process:
        out, err = process.communicate(given, timeout=30)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@pytest.fixture
def ask(monkeypatch, capsys, stub_model):
    """Run the command in this process, with the stub as its model."""
    for name in (*SETTINGS, *PROXIES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_BASE_URL", stub_model.base_url)

    def ask(*arguments: str) -> tuple[int, str, str]:
        exit_code = main(arguments)
        return exit_code, *capsys.readouterr()

    return ask


def test_question_is_answered_without_key_and_server() -> None:
    """The documentation is quoted, with its file and heading and why it was quoted."""
    done = run(QUESTION)
    assert (done.returncode, done.stderr) == (0, "")
    text, listed, answered_by = done.stdout.rstrip("\n").rsplit("\n\n", 2)
    assert text
    title, *sources = listed.splitlines()
    assert title == "Sources:"
    assert 1 <= len(sources) <= 3
    for source in sources:
        file, _, heading = source.strip().partition(": ")
        assert (ROOT / file).is_file()
        assert heading
    assert answered_by == (
        "Answered by: extract "
        "(no model is configured; set OPENAI_API_KEY, or OPENAI_BASE_URL)"
    )


def test_words_of_a_question_need_no_quotation_marks(ask, stub_model) -> None:
    """What a shell splits is one question."""
    stub_model.answers("In virtual time.")
    assert ask(*QUESTION.split()) == ask(QUESTION)


def test_model_in_another_process_is_asked_over_http(stub_model) -> None:
    """With an address set, the model answers; it sees key, model and passages."""
    stub_model.answers("In virtual time.")
    done = run(
        QUESTION,
        OPENAI_BASE_URL=stub_model.base_url,
        OPENAI_API_KEY="secret",
        OPENAI_MODEL="small",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("In virtual time.\n\nSources:\n")
    assert done.stdout.endswith("\nAnswered by: model\n")
    [request] = stub_model.requests
    assert request["path"] == "/v1/chat/completions"
    assert request["headers"]["Authorization"] == "Bearer secret"
    assert request["json"]["model"] == "small"
    assert QUESTION in request["json"]["messages"][-1]["content"]


def test_questions_from_input_share_one_cache(stub_model) -> None:
    """Each line is answered; the one that was asked before costs no request."""
    stub_model.answers("In virtual time.")
    lines = f"{QUESTION}\n\n  {QUESTION}\nWhat is it?\n"
    done = run("-", given=lines, OPENAI_BASE_URL=stub_model.base_url)
    assert done.stdout.count("In virtual time.") == 2
    assert len(stub_model.requests) == 1
    # The third line is no question, and does not keep others from their answers.
    assert done.returncode == 2
    assert "'What is it?' has no word to look for" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "sentence"),
    [
        ([], 2, "ask a question, such as 'How do I test a retry?'"),
        (["  "], 2, "the question is empty; ask something like"),
        (["x" * 301], 2, "the question has 301 characters; it may have at most 300"),
        (["xyzzy plugh"], 1, "the documentation says nothing about xyzzy, plugh"),
    ],
    ids=["none", "empty", "long", "unknown"],
)
def test_what_cannot_be_answered_is_told_in_one_sentence(
    ask, arguments, exit_code, sentence
) -> None:
    """One line on stderr, and an exit code that says whose fault it is."""
    returned, shown, told = ask(*arguments)
    assert (returned, shown) == (exit_code, "")
    [line] = told.splitlines()
    assert line.startswith(f"answer_service: {sentence}")


def test_address_that_is_none_is_refused(ask, monkeypatch) -> None:
    """A setting is named, with its value and what it should look like."""
    monkeypatch.setenv("OPENAI_BASE_URL", "localhost")
    sentence = "OPENAI_BASE_URL='localhost' must look like 'http://localhost:8000/v1'"
    assert ask(QUESTION) == (2, "", f"answer_service: {sentence}\n")


def test_process_ends_with_the_exit_code() -> None:
    """What the shell sees of a bad question: the sentence alone, and exit code 2."""
    done = run("How do I do it?")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "answer_service: 'How do I do it?' has no word to look for; "
        "name what the question is about\n"
    )


@pytest.mark.skipif(os.name != "posix", reason="a signal as the terminal sends it")
def test_interrupt_ends_the_wait_for_the_model(stub_model) -> None:
    """Ctrl+C while the model is thinking: exit code 130, and no traceback."""
    stub_model.hangs()
    with start(QUESTION, OPENAI_BASE_URL=stub_model.base_url) as process:
        assert stub_model.is_asked.wait(20)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 130


@pytest.mark.parametrize("deadline", ["soon", "0", "-1", "nan", ""])
def test_deadline_that_is_none_is_refused(deadline, capsys) -> None:
    """One line names the option, the value and what is allowed."""
    with pytest.raises(SystemExit, match="2"):
        main([f"--deadline={deadline}", QUESTION])
    assert f"{deadline!r} is not a number of seconds above 0" in capsys.readouterr().err


def test_workflow_is_shown(ask) -> None:
    """--show prints a flowchart with the model that would be asked, and asks nobody."""
    exit_code, shown, _ = ask("--show")
    assert exit_code == 0
    assert shown.startswith('flowchart TD\n    n0["answer<br/>Sequential"]\n')
    labels = ("reply<br/>Fallback", "deadline<br/>Timeout", "cache<br/>Cache")
    places = [shown.index(label) for label in (*labels, "model<br/>ChatModel")]
    assert places == sorted(places)


def test_rate_limit_of_an_hour_is_not_waited_for(ask, stub_model) -> None:
    """429 with `Retry-After: 3600`: one request, and a quotation at once."""
    stub_model.fails(429, Retry_After="3600")
    exit_code, shown, _ = ask(QUESTION)
    assert exit_code == 0
    assert "Answered by: extract (Client error '429 Too Many Requests'" in shown
    assert len(stub_model.requests) == 1


def test_rate_limit_of_a_moment_is_waited_for(ask, stub_model) -> None:
    """The model answers at the second request, which comes when it asked for it."""
    stub_model.fails(429, retry_after_ms="1")
    stub_model.answers("In virtual time.")
    _, shown, _ = ask(QUESTION)
    assert "Answered by: model" in shown
    keys = [request["headers"]["Idempotency-Key"] for request in stub_model.requests]
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_pause_beyond_the_deadline_is_not_begun(ask, stub_model) -> None:
    """500, and told to come back in 5 s, with 2 s left: it is over at once."""
    stub_model.fails(500, Retry_After="5")
    _, shown, _ = ask("--deadline", "2", QUESTION)
    assert "Answered by: extract (Server error '500" in shown
    assert len(stub_model.requests) == 1


def test_wrong_key_is_not_tried_again(ask, stub_model) -> None:
    """401 stays 401."""
    stub_model.fails(401)
    _, shown, _ = ask(QUESTION)
    assert "Answered by: extract (Client error '401 Unauthorized'" in shown
    assert len(stub_model.requests) == 1


def test_hanging_server_is_given_up_at_the_deadline(ask, stub_model) -> None:
    """A server that accepts the request and says nothing does not hold the answer."""
    stub_model.hangs()
    exit_code, shown, _ = ask("--deadline", "0.2", QUESTION)
    assert exit_code == 0
    assert "took longer than 0.2 s)" in shown
    assert len(stub_model.requests) == 1


def test_server_that_is_not_there_is_replaced(ask, stub_model, monkeypatch) -> None:
    """Nobody listens at the address: the documentation is quoted all the same."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    exit_code, shown, _ = ask("--deadline", "0.2", QUESTION)
    assert exit_code == 0
    assert "Answered by: extract (" in shown
    assert not stub_model.requests
