"""Secrets are taken out of texts and data, whatever these look like."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tta_primitives.observability.redaction import REDACTED, Redactor

SECRET = "s3cr3tvalue-0123456789"
# Stand under a name that tells of a secret, in the spellings that are met.
NAMES = [
    "authorization", "Authorization", "proxy-authorization", "x-api-key", "api_key",
    "apiKey", "OPENAI_API_KEY", "token", "access_token", "refreshToken", "password",
    "DB_PASSWORD", "passwd", "secret", "client_secret", "cookie", "Set-Cookie",
    "SENTRY_DSN", "credentials", "private_key", "AWS_SECRET_ACCESS_KEY", "sessionid",
    "DATABASE_URL",
]  # fmt: skip
HARMLESS = [
    "max_tokens", "input_tokens", "token_count", "key", "path", "author", "monkey",
    "keyboard", "status", "gen_ai.usage.output_tokens",
]  # fmt: skip
LOOKS = [
    "sk-proj-abcdefghijkl012345",
    "sk-ant-api03-abcdefghijkl",
    "sk_live_abcdefghijkl",
    "ghp_abcdefghijklmnop0123456789",
    "github_pat_11ABCDEFG0123456789",
    "xoxb-123456789012-abcdef",
    "AKIAIOSFODNN7EXAMPLE",
    "AIza" + "B" * 35,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nAAAA\n-----END RSA PRIVATE KEY-----",
]
redactor = Redactor()


@pytest.mark.parametrize("name", NAMES)
def test_what_stands_under_a_telling_name_is_taken_out(name: str) -> None:
    """The name is kept, so that a reader sees that there was something."""
    assert redactor({name: SECRET}) == {name: REDACTED}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_stands_under_another_name_is_kept(name: str) -> None:
    """Tokens of a model are counted, and no secret."""
    assert redactor({name: 17}) == {name: 17}


@pytest.mark.parametrize("looks", LOOKS, ids=lambda text: text[:12])
def test_what_looks_like_a_key_is_taken_out(looks: str) -> None:
    """It needs no name: an error says keys in the middle of a sentence."""
    assert redactor(f"refused {looks} there") == f"refused {REDACTED} there"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"Authorization: Bearer {SECRET}", "Authorization: [redacted]"),
        (f"got 'Bearer {SECRET}' there", "got 'Bearer [redacted]' there"),
        ("Basic dXNlcjpwYXNz", "Basic [redacted]"),
        (f"password={SECRET}&page=2", "password=[redacted]&page=2"),
        (f"?api_key={SECRET} 404", "?api_key=[redacted] 404"),
        (f'{{"token": "{SECRET} x", "n": 1}}', '{"token": "[redacted]", "n": 1}'),
        (f"{{'password': b'{SECRET}'}}", "{'password': b'[redacted]'}"),
        ('{"password": "a\\"b c"}', '{"password": "[redacted]"}'),
        ('{\\"secret\\": \\"a b\\"}', '{\\"secret\\": \\"[redacted]\\"}'),
        ("Cookie: a=b; c=d\nnext", "Cookie: [redacted]\nnext"),
        ("postgresql://me:p@ss/w@db:5432/x", "postgresql://[redacted]@db:5432/x"),
        ("redis://:pw@cache:6379/0", "redis://[redacted]@cache:6379/0"),
        ("https://token@host/x", "https://[redacted]@host/x"),
        (f"/x?sig={SECRET}&se=2", "/x?sig=[redacted]&se=2"),
        (f"/x?Signature={SECRET}&e=2", "/x?Signature=[redacted]&e=2"),
        (f"/x?a=1&X-Amz-Signature={SECRET}", "/x?a=1&X-Amz-Signature=[redacted]"),
        (f"/x?X-Goog-Signature={SECRET}", "/x?X-Goog-Signature=[redacted]"),
        ("AccountName=a;AccountKey=b0==", "AccountName=a;AccountKey=[redacted]"),
        ("run --password hunter2 -v", "run --password [redacted] -v"),
        ("['x', '--db-token', 'a1']", "['x', '--db-token', '[redacted]']"),
    ],
)
def test_texts_are_cleaned_in_place(text: str, clean: str) -> None:
    """What stands around a secret is left for the reader."""
    assert redactor(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens=100 of 4096",
        "http://host:80/a@b",
        "https://example.org/@somebody",
        "write to me@example.org",
        "asked for 3 tasks and 2 risk-takers",
        "run --max-tokens 100 --token-file /x --password --verbose",
        "run --cache-key answer",
        "design=new&sigma=3",
    ],
)
def test_ordinary_texts_stay_as_they_are(text: str) -> None:
    """A line that has no secret can be read as it was written."""
    assert redactor(text) == text


def test_users_say_what_else_is_secret() -> None:
    """By name in any spelling, by pattern, and by the value itself."""
    mine = Redactor(
        names=["customer-iban"], patterns=[r"\bDE\d{20}\b"], values=["correct horse"]
    )
    assert mine({"customerIban": "x", "text": "DE" + "1" * 20, "n": "a correct horse"})
    assert mine({"CUSTOMER_IBAN": "x"}) == {"CUSTOMER_IBAN": REDACTED}
    assert mine("pay DE" + "1" * 20) == f"pay {REDACTED}"
    assert mine("it is correct horse.") == f"it is {REDACTED}."


def test_users_keep_names_that_only_look_secret() -> None:
    """An exception is said once, and holds for data and for texts."""
    mine = Redactor(keep=["session-id"])
    assert mine({"session_id": "abc"}) == {"session_id": "abc"}
    assert mine("session_id=abc") == "session_id=abc"
    assert Redactor(keep=["db-token"])("--db-token abc") == "--db-token abc"


def test_raw_headers_are_read_as_pairs() -> None:
    """ASGI gives headers as a list of pairs of bytes."""
    headers = [(b"authorization", b"opaque"), (b"accept", b"*/*")]
    assert redactor(headers) == [["authorization", REDACTED], ["accept", "*/*"]]


def test_a_secret_across_the_cut_is_found() -> None:
    """A text is cut after it was cleaned, so that no half of a key is left."""
    text = Redactor(max_length=20)("x" * 15 + " sk-" + "a" * 40)
    assert text == "x" * 15 + " [red" + "...[cut]"


def test_no_text_takes_long() -> None:
    """What repeats the beginning of a token is searched once, not from each of them."""
    text = "eyJ-" * 40_000
    began = time.monotonic()
    assert Redactor(max_length=len(text)).text(text) == text
    # It is milliseconds; from each beginning it would be a minute.
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("before", ["", "jwt ", "x-", "a.b.", "my-long-name-"])
def test_tokens_are_found_within_words(before: str) -> None:
    """Whatever is put in front of them with a dash or a dot."""
    for token in ("eyJhbGciOi.eyJzdWIiOi.c2lnbmF0", "eyJhbGciOi.eyJzdWIiOi"):
        found = redactor(f"{before}{token} after")
        assert "eyJ" not in found
        assert found.endswith("[redacted] after")


def test_nested_data_has_bounds() -> None:
    """A circle and a million entries cost no more than the bounds allow."""
    circle: dict = {}
    circle["again"] = circle
    assert json.dumps(Redactor(max_depth=3)(circle)).count("again") == 3
    assert redactor(list(range(10**6)))[-1] == "...[cut]"
    assert len(redactor({n: n for n in range(10**4)})) == 201


class Broken:
    def __str__(self) -> str:
        raise ValueError(SECRET)


class BrokenDict(dict):
    def items(self):
        raise ValueError(SECRET)


def test_what_cannot_be_read_is_replaced() -> None:
    """An object may raise whatever it likes: its line is written nevertheless."""
    assert redactor(Broken()) == "<unprintable Broken>"
    assert redactor(BrokenDict(a=1)) == "[redacted: unreadable]"
    assert redactor({"a": Broken(), 1: b"\xff"}) == {
        "a": "<unprintable Broken>",
        "1": "\N{REPLACEMENT CHARACTER}",
    }


def test_texts_can_be_encoded() -> None:
    """Half a character, as JSON may hold it, would spoil all that is sent with it."""
    name = json.loads('"a\\ud800b"')
    assert redactor(name) == "a\\ud800b"
    assert redactor({name: [f"ü {name}"]}) == {"a\\ud800b": ["ü a\\ud800b"]}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"names": "token"}, TypeError, "names=str must be a list"),
        ({"values": [b"abcdef"]}, TypeError, "values= holds a bytes"),
        ({"values": ["abc"]}, ValueError, "a text of 3 characters"),
        ({"patterns": ["("]}, ValueError, "which is no regular expression"),
        ({"patterns": [rb"a"]}, TypeError, "for bytes and not for texts"),
        ({"max_length": 0}, ValueError, "max_length=0 must be a positive"),
    ],
)
def test_bad_arguments_are_named(options: dict, error: type, message: str) -> None:
    """What is wrong is said at construction, without showing a secret."""
    import re

    with pytest.raises(error, match=re.escape(message)):
        Redactor(**options)


def test_its_repr_shows_no_secret() -> None:
    """Settings are printed and logged with everything in them."""
    assert repr(Redactor(values=[SECRET])) == "<Redactor names=0 patterns=0 values=1>"


secrets = st.text(
    st.characters(codec="ascii", categories=("L", "N"), include_characters="-_.+/"),
    min_size=8,
    max_size=60,
)
plain_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)
carriers = st.sampled_from(
    [
        "{name}={secret}",
        "{name}: {secret}",
        "{name} = '{secret}'",
        '{{"{name}": "{secret}"}}',
        "{{'{name}': '{secret}', 'n': 1}}",
        "GET /x?{name}={secret}&n=1",
        "postgres://user:{secret}@host/db",
        "Authorization: Bearer {secret}",
    ]
)
text_names = st.sampled_from(
    ["password", "api_key", "X-Api-Key", "access_token", "client_secret", "TOKEN"]
)


@given(data=plain_data, name=st.sampled_from(NAMES), secret=secrets)
def test_no_secret_survives_in_nested_data(data, name, secret) -> None:
    """Wherever a named secret lies, it is not in what comes out."""
    marked = f"<{secret}>"
    nested = {
        "a": [data, {name: marked}],
        name: {"deep": marked},
        "b": [(name, marked)],
    }
    assert marked not in json.dumps(redactor(nested))


@given(before=st.text(max_size=30), carrier=carriers, name=text_names, secret=secrets)
def test_no_secret_survives_in_a_text(before, carrier, name, secret) -> None:
    """However a text carries it, and whatever stands before."""
    mark = f"{secret}Zz9"
    text = f"{before} {carrier.format(name=name, secret=mark)}"
    assert mark not in redactor(text)


@given(value=st.text(min_size=4, max_size=30), before=st.text(), after=st.text())
def test_a_known_secret_survives_nowhere(value, before, after) -> None:
    """A value that was named is taken out of any text."""
    mine = Redactor(values=[value])
    clean = mine(before + value + after)
    assert value not in clean.replace(REDACTED, "\0")


@given(data=plain_data | st.binary() | st.sets(st.text()))
def test_anything_can_be_given_and_then_written_as_json(data) -> None:
    """It never raises, and what comes out is plain."""
    json.dumps(redactor(data))


@given(text=st.text(max_size=200))
def test_what_is_clean_stays_as_it_is(text) -> None:
    """To clean twice is to clean once: logs pass several processors."""
    once = redactor(text)
    assert redactor(once) == once
