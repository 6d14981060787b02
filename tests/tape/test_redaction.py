"""Keys are on no tape, in no message, and in nothing that a test shows."""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import quote

import httpx2
import pytest

from pytest_tta.harness import Harness, HarnessError
from pytest_tta.tape import Tape, TapeError
from pytest_tta.tape.redaction import Redactor, kept_headers
from pytest_tta.wire.exchange import REDACTED, WireAnswer
from tests.tape.clients import KEY, chat, chat_stream
from tests.tape.server import always, says, serving
from tta_primitives import step

NOWHERE = "https://llm.example"
# No prefix gives it away: it is known because it was sent.
PLAIN = "Zx9/quiet+key=42 é"
OTHER = "gsk_" + "A1b2" * 6


def redactor(*keys):
    """Return a redactor that knows keys of requests."""
    made = Redactor({})
    headers = [(b"x-api-key", key.encode("latin-1")) for key in keys]
    made.learn(headers, "https://llm.example/")
    return made


def test_a_key_is_taken_out_however_it_is_written() -> None:
    """As it is, as JSON, in a URL, in base64."""
    known = redactor(PLAIN)
    for spelling in (
        PLAIN,
        json.dumps(PLAIN)[1:-1],
        quote(PLAIN, safe=""),
        base64.b64encode(PLAIN.encode()).decode().rstrip("="),
    ):
        assert known.text(f"<{spelling}>") == f"<{REDACTED}>"


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("authorization", f"Bearer {PLAIN}", PLAIN),
        ("authorization", f"Custom-Scheme {PLAIN}", PLAIN),
        ("authorization", PLAIN.replace(" ", ""), PLAIN.replace(" ", "")),
        (
            "authorization",
            "Basic " + base64.b64encode(b"user:pass-word-1").decode(),
            "pass-word-1",
        ),
        ("proxy-authorization", f"Bearer {PLAIN}", PLAIN),
        ("x-api-key", PLAIN, PLAIN),
        ("api-key", PLAIN, PLAIN),
        ("X-Goog-Api-Key", PLAIN, PLAIN),
        ("cookie", f"a=b; session={PLAIN}", PLAIN),
    ],
)
def test_what_lets_a_request_in_is_a_key(name, value, secret) -> None:
    """Whichever header it is in."""
    made = Redactor({})
    made.learn([(name.encode(), value.encode("latin-1"))], "https://llm.example/")
    assert made.text(f"it is {secret}!") == f"it is {REDACTED}!"


def test_what_a_url_lets_in_with_is_a_key() -> None:
    """User and password, and all of a query but what is known to be none."""
    url = "https://me:s3cret-word@h.example/v1?key=Abcdef-12345&api-version=2024-06-01"
    made = Redactor({})
    made.learn([], url)
    assert made.url(url) == (
        "https://h.example/v1?key=<redacted>&api-version=2024-06-01"
    )
    assert made.text("s3cret-word, Abcdef-12345, 2024-06-01") == (
        f"{REDACTED}, {REDACTED}, 2024-06-01"
    )


def test_keys_of_the_environment_are_keys() -> None:
    """By the names of the variables; what is short is a word."""
    made = Redactor(
        {"MY_API_KEY": "aB3-longer-one", "A_TOKEN": "short", "HOME": "/home-of-mine"}
    )
    text = "aB3-longer-one short /home-of-mine"
    assert made.text(text) == f"{REDACTED} short /home-of-mine"


@pytest.mark.parametrize("key", ["key", "anything", "not-needed", "<redacted>"])
def test_what_stands_in_for_a_key_is_none(key) -> None:
    """Servers of one's own ask for none, and a word is in many a text."""
    assert redactor(key).text(f"not {key} at all") == f"not {key} at all"


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcDEF123456_x",
        "sk-ant-api03-abcDEF123456",
        OTHER,
        "hf_abcdefghijklmnop",
        "ghp_abcdefghij0123456789",
        "AIza" + "S" * 35,
        "AKIA0123456789ABCDEF",
        "eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSMeK",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_what_looks_like_a_key_is_taken_for_one(secret) -> None:
    """Also where nobody has sent it; and what was taken out stays as it is."""
    made = Redactor({})
    once = made.text(f"use {secret} please")
    assert once == f"use {REDACTED} please"
    assert made.text(once) == once


def test_a_bearer_token_in_a_text_is_taken_out_once() -> None:
    """The word before it stays, so that the result is the same the second time."""
    made = Redactor({})
    once = made.text("curl -H 'Authorization: Bearer abc123def456'")
    assert once == f"curl -H 'Authorization: Bearer {REDACTED}'"
    assert made.text(once) == once


@pytest.mark.parametrize(
    "text", ["task-management-of-teams", "disk-", "the sk- prefix", "max_tokens"]
)
def test_words_are_no_keys(text) -> None:
    """Though they look a little like some."""
    assert Redactor({}).text(text) == text


def test_fields_tell_of_secrets_by_their_names() -> None:
    """A text in them is replaced, numbers and what is below are looked through."""
    value = {
        "api_key": "x",
        "password": "hunter2",
        "access_token": "abc",
        "tokens": "three",
        "token": {"id": 7, "text": OTHER},
        "max_tokens": 99,
    }
    assert Redactor({}).value(value) == {
        "api_key": REDACTED,
        "password": REDACTED,
        "access_token": REDACTED,
        "tokens": "three",
        "token": {"id": 7, "text": REDACTED},
        "max_tokens": 99,
    }


def test_a_key_that_a_stream_spells_out_is_taken_out() -> None:
    """No piece of it is left, and everything else is; places are not mixed."""
    pieces = ["The key is Ab", "c-12", "3", "45-xyz, keep", " it. Abc", "-12345-xyz"]
    other = ["Ab", "c-1", "2", "", "45-xyz", ""]
    values = [
        {"choices": [{"text": piece}], "other": more}
        for piece, more in zip(pieces, other, strict=True)
    ]
    cleaned = redactor("Abc-12345-xyz").values(values)
    assert [one["choices"][0]["text"] for one in cleaned] == [
        f"The key is {REDACTED}",
        "",
        "",
        ", keep",
        f" it. {REDACTED}",
        "",
    ]
    assert [one["other"] for one in cleaned] == other
    assert values[0]["choices"][0]["text"] == pieces[0]


def test_only_headers_that_are_known_are_kept() -> None:
    """What tells when to come back, and what it is; ids without their value."""
    headers = [
        ("content-type", "application/json"),
        ("retry-after", "2"),
        ("retry-after-ms", "1500"),
        ("x-ratelimit-reset-tokens", "6m0s"),
        ("anthropic-ratelimit-tokens-reset", "2026-01-01T00:00:00Z"),
        ("x-request-id", "req_123"),
        ("request-id", "req_456"),
        ("set-cookie", "session=1"),
        ("openai-organization", "acme"),
        ("x-anything", "else"),
        ("content-length", "12"),
        ("content-encoding", "gzip"),
    ]
    assert kept_headers(headers) == {
        **dict(headers[:5]),
        "x-request-id": REDACTED,
        "request-id": REDACTED,
    }


# --- through a whole recording ----------------------------------------------------

LEAKY = f"Your key is {KEY}, the other is {OTHER}."


def _asked(url, key=KEY):
    """Return a step that puts keys wherever a client can."""

    @step
    async def llm(_):
        async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
            response = await client.post(
                f"{url}/v1/chat/completions?key={quote(key)}&api-version=2024-06-01",
                headers={"authorization": f"Bearer {key}", "cookie": "id=c00kie-value"},
                json={"messages": [{"role": "user", "content": f"My key: {key}"}]},
            )
            return response.json()

    return llm


def test_no_key_is_on_a_tape(run, path) -> None:
    """Neither of the request, nor of its query, nor in what was answered."""
    answer = WireAnswer.of_json(
        {"said": LEAKY, "cookie": "c00kie-value"},
        headers=[("x-request-id", KEY), ("set-cookie", KEY)],
    )
    with serving(always(answer)) as server:
        recorded = run(_asked(server.url), mode="once")
    text = path.read_text("utf-8")
    for secret in (KEY, OTHER, "c00kie-value", "cookie: id", "authorization"):
        assert secret not in text
    assert text.count(REDACTED) == 6
    # The recording run sees what the replay will, which has another key.
    assert recorded["said"] == f"Your key is {REDACTED}, the other is {REDACTED}."
    assert run(_asked(NOWHERE, "another-key-0815")) == recorded


def test_no_key_is_in_what_a_miss_says(run) -> None:
    """Nor in the repr of the tape and its requests, nor in a trace of the error."""
    with serving(always(WireAnswer.of_json({"said": LEAKY}))) as server:
        run(_asked(server.url), mode="once")

    async def other(_):
        question = [{"role": "user", "content": f"Is it {KEY}?"}]
        return await chat(NOWHERE, question)

    tapes = []
    with pytest.raises(HarnessError, match=f"now 'Is it {REDACTED}") as caught:
        run(other, before=tapes.append)
    shown = [str(caught.value), str(caught.getrepr()), repr(tapes[0])]
    shown += map(repr, [*tapes[0].requests, *tapes[0].recordings])
    assert KEY not in "".join(shown)


def test_a_stream_that_spells_a_key_out_is_recorded_without(run, path) -> None:
    """As models do: in pieces, each of which is none."""
    pieces = [KEY[at : at + 7] for at in range(0, len(KEY), 7)]
    timeline = tuple((0.0, one) for one in ["It is ", *pieces, ", I think."])
    with serving(says("", timeline=timeline)) as server:
        run(lambda _: chat_stream(server.url), mode="once")
    chunks = run(lambda _: chat_stream(NOWHERE))
    said = "".join(one["choices"][0]["delta"]["content"] or "" for one in chunks[1:])
    assert said == f"It is {REDACTED}, I think."
    assert KEY[3:10] not in path.read_text("utf-8")


def test_a_users_redactors_take_out_more(run, path) -> None:
    """Regular expressions, and functions; of requests and answers alike."""

    def redact(tape) -> None:
        tape.redact(r"customer \d+")
        tape.redact(re.compile("Ada", re.IGNORECASE))
        tape.redact(lambda text: text.replace("Berlin", "<city>"))

    def ask(url, customer):
        question = f"Where does ada, customer {customer}, live?"
        return lambda _: chat(url, [{"role": "user", "content": question}])

    with serving(says("Customer 17 is customer 17 of Berlin.")) as server:
        run(ask(server.url, 17), mode="once", before=redact)
    text = path.read_text("utf-8")
    assert "Where does <redacted>, <redacted>, live?" in text
    assert "Customer 17 is <redacted> of <city>." in text
    # Another customer is the same request now.
    run(ask(NOWHERE, 18), before=redact)


def test_a_redactor_must_be_one(path) -> None:
    """A number is none."""
    with pytest.raises(TypeError, match="7 must be a regular expression, or"):
        Tape(path).redact(7)


def test_a_tape_that_has_a_key_is_not_written(run, path) -> None:
    """The error names the place, and not the key."""

    def put_back(tape) -> None:
        tape.redact(lambda text: text.replace("the word", KEY))

    question = [{"role": "user", "content": "Say the word!"}]
    with (
        serving(says("hi")) as server,
        pytest.raises(TapeError, match="is not written") as caught,
    ):
        run(lambda _: chat(server.url, question), mode="once", before=put_back)
    assert str(caught.value) == (
        f"{path} is not written, because a key that was sent is still in it, at "
        "calls[0].request.body.messages[0].content; take it out with tape.redact(...)"
    )
    assert not path.exists()
    assert list(path.parent.glob("*")) == []


def test_a_key_within_bytes_is_refused(run, path) -> None:
    """What is no text cannot be mended."""
    answer = WireAnswer.of_bytes(b"\xff\xfe" + KEY.encode(), "audio/mpeg")
    with (
        serving(always(answer)) as server,
        pytest.raises(HarnessError, match=r"request 1 .* cannot be recorded: a key is"),
    ):
        run(_asked(server.url), mode="once")
    assert not path.exists()


def test_a_key_in_the_name_of_the_file_is_refused(tmp_path) -> None:
    """Parameters of a test become part of it."""
    with (
        serving(says("hi")) as server,
        pytest.raises(TapeError, match="its file's name has a key in it"),
        Harness(tape=Tape(tmp_path / f"{KEY}.yaml", mode="once")) as tta,
    ):
        tta.run(lambda _: chat(server.url), None)
    assert list(tmp_path.glob("*")) == []
