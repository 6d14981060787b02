"""What belongs to a request, and what differs from run to run and does not matter."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from pytest_tta.tape.matching import Ignored, body_of, differences, normal
from pytest_tta.tape.names import tape_path
from pytest_tta.tape.redaction import Redactor
from tests.wire.provider_tools import json_values

LONG = list(range(50))
PART = f"...'{'x' * 30}{{}}{'y' * 27}'..."
ALLOWED = set("abcdefghijklmnopqrstuvwxyz0123456789._-")
UUIDS = (
    "0b6f0f8e-7a53-4f0c-9f39-0d5d1e9f6c11",
    "1C6F0F8E-7A53-4F0C-9F39-0D5D1E9F6C12",
    "2d6f0f8e-7a53-4f0c-9f39-0d5d1e9f6c13",
)


def found(recorded, now, *ignored):
    """Return the differences of two bodies as they are shown."""
    both = [body_of(json.dumps(one).encode(), Redactor({})) for one in (recorded, now)]
    return [str(one) for one in differences(*both, Ignored(ignored))]


def test_the_order_of_keys_does_not_matter() -> None:
    """Nor how a number is written."""
    assert found({"a": 1, "b": [0.0]}, {"b": [0], "a": 1}) == []


def test_ids_and_times_do_not_matter() -> None:
    """But which of them are the same does."""
    one, two, three = UUIDS

    def asked(first, second, third, at):
        return {
            "user": first,
            "metadata": {"run": second, "at": at},
            "messages": [{"content": f"{third} {first.upper()} call_abcDEF0123456789"}],
        }

    early, late = "2026-01-01T10:00:00Z", "2027-02-03 11:12:13.456+01:00"
    assert found(asked(one, two, three, early), asked(three, one, two, late)) == []
    assert found(asked(one, two, three, early), asked(one, one, three, early)) == [
        "metadata.run: recorded '<uuid 4>' / now '<uuid 2>'"
    ]


@pytest.mark.parametrize("text", ["2026-01-01", "10:30", "call_me", "item-3", "v1.2.3"])
def test_words_and_dates_matter(text) -> None:
    """A date without a time of day is one that somebody asked about."""
    assert normal(text) == text


@given(value=json_values)
def test_what_is_normal_stays_so(value) -> None:
    """A tape is read with the eyes with which it was written."""
    assert normal(normal(value)) == normal(value)


def test_pictures_are_told_by_their_digest() -> None:
    """So that a tape can be read; another picture is another request."""
    one, other = "A" * 4000, "A" * 3999 + "B"
    shown = body_of(json.dumps({"image": one}).encode(), Redactor({}))["image"]
    assert shown.startswith("<4000 bytes, sha256 ")
    assert found({"image": one}, {"image": one}) == []
    assert len(found({"image": one}, {"image": other})) == 1
    assert normal("word " * 1000) == "word " * 1000


def test_what_is_no_json_is_compared_as_it_is() -> None:
    """Text, bytes, and nothing."""
    assert body_of(b"", Redactor({})) is None
    assert body_of(b"a=1&b", Redactor({})) == "a=1&b"
    assert body_of(b"\xff\xfe", Redactor({})).startswith("<2 bytes, sha256 ")


@pytest.mark.parametrize(
    ("recorded", "now", "shown"),
    [
        ({"a": 1}, {"a": 2}, ["a: recorded 1 / now 2"]),
        ({"a": 1}, {"a": True}, ["a: recorded 1 / now true"]),
        ({"a": None}, {}, ["a: recorded null / now nothing"]),
        ({}, {"a": {"b": 1}}, ['a: recorded nothing / now {"b": 1}']),
        ({"a": [1, 2]}, {"a": [1]}, ["a[1]: recorded 2 / now nothing"]),
        ({"a": [1]}, {"a": {"0": 1}}, ['a: recorded [1] / now {"0": 1}']),
        ([1], "text", ["the body: recorded [1] / now 'text'"]),
        (
            {"messages": [{"content": "a"}, {"content": "b"}]},
            {"messages": [{"content": "a"}, {"content": "c"}]},
            ["messages[1].content: recorded 'b' / now 'c'"],
        ),
        (
            {"a": "x" * 100 + "old" + "y" * 100},
            {"a": "x" * 100 + "new" + "y" * 100},
            [f"a: recorded {PART.format('old')} / now {PART.format('new')}"],
        ),
        (
            {"a": list(range(50))},
            {},
            [f"a: recorded {str([*range(50)])[:60]}... / now nothing"],
        ),
    ],
)
def test_differences_are_shown_by_their_paths(recorded, now, shown) -> None:
    """With what there is on both sides; of long texts where they part."""
    assert found(recorded, now) == shown


@pytest.mark.parametrize(
    ("pattern", "path", "is_meant"),
    [
        ("user", "user", True),
        ("user", "users", False),
        ("user", "messages[0].user", False),
        ("metadata", "metadata.a[3].b", True),
        ("metadata", "metadata[0]", True),
        ("messages[*].name", "messages[12].name", True),
        ("messages[*].name", "messages[1].names", False),
        ("messages[*]", "messages[1].content", True),
        ("*.name", "a.name", True),
        ("*.name", "a.b.name", False),
        ("a.b", "axb", False),
    ],
)
def test_fields_are_ignored_by_pattern(pattern, path, is_meant) -> None:
    """A star stands for any one name or number."""
    assert (path in Ignored([pattern])) is is_meant


def test_ignored_fields_do_not_matter() -> None:
    """Neither what is in them, nor whether they are there."""
    assert found({"user": "a"}, {"user": "b"}, "user") == []
    assert found({}, {"user": {"id": 1}}, "user") == []
    assert len(found({"a": 1}, {"a": 2}, "user")) == 1


# --- where a tape is ------------------------------------------------------------------


def name_of(tmp_path, *names, name=None):
    """Return the name of a tape, below the folder of its module."""
    path = tape_path(tmp_path / "test_chat.py", list(names), name)
    assert path.parent == tmp_path / "tapes" / "test_chat"
    return path.name


def test_a_tape_is_called_like_its_test(tmp_path) -> None:
    """With its class, and its parameters as far as a file can be called so."""
    assert name_of(tmp_path, "test_it") == "test_it"
    assert name_of(tmp_path, "TestChat", "test_it") == "TestChat.test_it"
    assert name_of(tmp_path, "test_it[gpt-5-3]") == "test_it-gpt-5-3"
    assert name_of(tmp_path, "test_it", name="weather") == "weather"
    assert name_of(tmp_path, "test_it", name="weather.yaml") == "weather"


def test_parameters_that_change_are_told_apart(tmp_path) -> None:
    """By a digest: case, signs and length make no two tests share a tape."""
    parameters = ["a/b", "a_b", "A_b", "a:b", "a b", "é", "", "...", "x" * 300, "con"]
    names = [name_of(tmp_path, f"test_it[{one}]") for one in parameters]
    assert len({name.lower() for name in names}) == len(parameters)
    assert all(len(name) < 120 for name in names)
    assert all(set(name) <= ALLOWED for name in names)
    assert names[0].startswith("test_it-a_b-")


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a\\b", ".hidden", "a\0b"])
def test_a_name_that_leads_elsewhere_is_refused(name, tmp_path) -> None:
    """It is the name of a file."""
    with pytest.raises(ValueError, match="must be a file's name without a folder"):
        name_of(tmp_path, "test_it", name=name)


def test_a_name_must_be_text(tmp_path) -> None:
    """A number is none."""
    with pytest.raises(TypeError, match="name=7 must be a text"):
        name_of(tmp_path, "test_it", name=7)
