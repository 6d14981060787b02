"""A tape is read as it was written, and says clearly what somebody broke in it."""

from __future__ import annotations

import gzip
import json
import math
import re
import sys
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_tta.tape import Tape, TapeError, files
from pytest_tta.tape.form import answer_of, response_of
from pytest_tta.tape.recording import FORMAT, sdk_of
from pytest_tta.tape.redaction import Redactor
from pytest_tta.wire.exchange import WireAnswer
from pytest_tta.wire.forwarding import Caught
from tests.wire.provider_tools import json_values

SSE = ("content-type", "text/event-stream")
JSON = ("content-type", "application/json")


def caught(*parts, headers=(JSON,), status=200, head_after=0.25, error=None):
    """Return what came back from a server."""
    return Caught(
        status=status, headers=headers, head_after=head_after, parts=parts, error=error
    )


def written(*parts, **more):
    """Return it as it is written down."""
    return response_of(caught(*parts, **more), Redactor({}))


def through(response, path):
    """Return the answer of a tape on which a response was written, and read again."""
    request = {"method": "POST", "url": "https://llm.example/v1"}
    call = {"request": request, "response": response}
    data = {"tta_tape": FORMAT, "sdk": {}, "calls": [call]}
    files.write(path, files.text_of(data, path))
    return Tape(path).recordings[0].answer


both_formats = pytest.mark.parametrize("suffix", ["yaml", "json"])


def test_events_are_lines_with_their_times() -> None:
    """Whole events, however their bytes came, each when it was whole."""
    parts = [
        (0.1, b'data: {"a": "\xc3'),
        (0.2, b'\xa9"}\n\ndata: [DO'),
        (0.3004, b"NE]\n\nevent: ping\ndata: {}\n\n: keep-alive\n\n"),
        (0.4, b"data: 1\r\n\r\ndata:\xff\n\n"),
        (0.5, b"data: cut o"),
    ]
    response = written(*parts, headers=(SSE,))
    assert response["after"] == 0.25
    assert response["events"] == [
        {"at": 0.2, "data": {"a": "é"}},
        {"at": 0.3, "text": "[DONE]"},
        {"at": 0.3, "event": "ping", "data": {}},
        {"at": 0.3, "raw": ": keep-alive\n\n"},
        {"at": 0.4, "data": 1},
        {"at": 0.4, "base64": "ZGF0YTr/Cgo="},
        {"at": 0.5, "raw": "data: cut o"},
    ]
    assert (
        answer_of(response).data
        == (
            'data: {"a":"é"}\n\ndata: [DONE]\n\nevent: ping\ndata: {}\n\n'
            ": keep-alive\n\ndata: 1\n\n"
        ).encode()
        + b"data:\xff\n\ndata: cut o"
    )


@both_formats
@settings(max_examples=25, deadline=None)
@given(values=st.lists(json_values, min_size=1, max_size=4))
def test_any_json_comes_back(values, suffix, tmp_path_factory) -> None:
    """In a body, and in events; numbers, texts and all."""
    path = tmp_path_factory.getbasetemp() / f"any.{suffix}"
    data = json.dumps(values).encode()
    answer = through(written((0.0, data)), path)
    assert json.loads(answer.data) == values
    assert answer.length == len(answer.data)
    events = [(0.0, b"data: " + json.dumps(one).encode() + b"\n\n") for one in values]
    answer = through(written(*events, headers=(SSE,)), path)
    texts = [part[6:].decode() for _, part in answer.body]
    assert [json.loads(text) for text in texts] == values


@both_formats
@pytest.mark.parametrize("end", ["\r", "\r\n", "\x85", "\u2028", "\u2029", "\ufeff"])
def test_every_end_of_a_line_comes_back(end, suffix, tmp_path) -> None:
    """Also those that YAML knows and nobody else."""
    raw = f"<a{end}b{end}\n{end}".encode()
    answer = through(written((0.0, raw), headers=()), tmp_path / f"ends.{suffix}")
    assert answer.data == raw


@both_formats
@settings(max_examples=25, deadline=None)
@given(data=st.text() | st.binary())
def test_any_bytes_come_back(data, suffix, tmp_path_factory) -> None:
    """As text where they are text; events of any form, too."""
    path = tmp_path_factory.getbasetemp() / f"bytes.{suffix}"
    raw = data.encode("utf-8", "replace") if isinstance(data, str) else data
    answer = through(written((0.0, b"<" + raw), headers=()), path)
    assert answer.data == b"<" + raw
    # Line ends and the blanks around fields are the form of an event, not its content.
    answer = through(written((0.0, b": " + raw), headers=(SSE,)), path)
    assert _normal(answer.data) == _normal(b": " + raw)


def _normal(data):
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return [line.replace(b": ", b":") for line in lines]


@both_formats
def test_halves_of_surrogate_pairs_come_back(suffix, tmp_path) -> None:
    """JSON can say them by escapes, and models do."""
    path = tmp_path / f"half.{suffix}"
    body = rb'{"text": "\ud83d"}'
    assert through(written((0.0, body)), path).data == body
    event = b"data: " + body + b"\n\n"
    assert through(written((0.0, event), headers=(SSE,)), path).data == event


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_what_is_packed_is_unpacked(encoding, pack) -> None:
    """A server may compress though it was asked not to; a reviewer reads text."""
    packed = pack(b'{"a": 1}')
    headers = JSON, ("content-encoding", encoding)
    response = written((0.0, packed[:5]), (0.1, packed[5:]), headers=headers)
    assert response["json"] == {"a": 1}
    assert response["headers"] == dict([JSON])
    assert response["body_after"] == 0.1


def test_what_cannot_be_unpacked_is_refused() -> None:
    """By the name of its packing."""
    with pytest.raises(TapeError, match="content-encoding 'br' cannot be put"):
        written((0.0, b"?"), headers=(JSON, ("content-encoding", "br")))


def test_an_error_of_nobody_is_raised() -> None:
    """A mistake in a transport is no answer of a server."""
    with pytest.raises(LookupError, match="a mistake"):
        written(status=None, error=LookupError("a mistake"))


@both_formats
def test_both_formats_say_the_same(suffix, tmp_path) -> None:
    """And one event is one line of the file."""
    parts = [(0.1, b'data: {"a": [1, {"b": null}]}\n\n'), (0.2, b"data: [DONE]\n\n")]
    path = tmp_path / f"t.{suffix}"
    answer = through(written(*parts, headers=(SSE,)), path)
    assert answer == WireAnswer(
        headers=(SSE,),
        head_after=0.25,
        body=((0.1, b'data: {"a":[1,{"b":null}]}\n\n'), (0.2, b"data: [DONE]\n\n")),
    )
    lines = [line.strip(" -,") for line in path.read_text("utf-8").splitlines()]
    assert {
        "yaml": "{at: 0.1, data: {a: [1, {b: null}]}}",
        "json": '{"at": 0.1, "data": {"a": [1, {"b": null}]}}',
    }[suffix] in lines


# --- what somebody has edited -------------------------------------------------------

GOOD = """\
tta_tape: 1
sdk: {openai: 3.57.0}
calls:
- asked_by: answer/llm
  request:
    method: POST
    url: https://api.openai.com/v1/chat/completions
    body:
      model: gpt-5
      temperature: 0
  response:
    status: 200
    after: 0.5
    headers:
      content-type: text/event-stream
    events:
    - {at: 0.1, data: {n: 1}}
    - {at: 0.2, text: '[DONE]'}
"""

BROKEN = {
    "tta_tape: 1": {
        "tape: 1": "line 1: it is no tape: the key tta_tape is missing",
        "tta_tape: 2": (
            "line 1: tta_tape: format 2 is newer than this pytest_tta, which reads up "
            "to 1; update it, or record anew"
        ),
        "tta_tape: one": "line 1: tta_tape: 'one' must be 1",
        "tta_tape: 1\nmore: 2": "unknown key; known are tta_tape, sdk, calls",
        "tta_tape: [1": "line 2 is no YAML: ",
    },
    "sdk: {openai: 3.57.0}": {
        "sdk: 3": "line 2: sdk: 3 must be a mapping of names to versions"
    },
    "- asked_by: answer/llm": {
        "- asked_by: 7": "line 4: calls[0].asked_by: 7 must be a text",
        "- nonsense: 7": "line 4: calls[0].nonsense: unknown key; known are asked_by",
        "- repeat: 0": "calls[0].repeat: 0 must be a number from 1, or 'always'",
        "- repeat: often": "calls[0].repeat: 'often' must be a number from 1",
        "- optional: no": "calls[0].optional: 'no' must be true or false",
    },
    "    method: POST": {
        "    method: 1": "line 6: calls[0].request.method: 1 must be a text",
        "    verb: POST": "line 6: calls[0].request.verb: unknown key",
    },
    "    url: https://api.openai.com/v1/chat/completions": {
        "    url: v1/chat": "line 7: calls[0].request.url: 'v1/chat' must be a URL such"
    },
    "    status: 200": {
        "    status: ok": "line 12: calls[0].response.status: 'ok' must be a status",
        "    status: 99": "response.status: 99 must be a status from 200 to 599",
        "    status: true": "calls[0].response.status: True must be a status",
        "    stats: 200": "line 12: calls[0].response.stats: unknown key; known are",
        "    ended: closed\n    connect: maybe": (
            "calls[0].response.connect: 'maybe' must be one of refused, unresolved"
        ),
        "    ended: well": "'well' must be one of complete, closed, reset, silent",
        "    json: 1\n    status: 200": (
            "calls[0].response: it has json and events; only one of them can be"
        ),
    },
    "    after: 0.5": {
        "    after: soon": "line 13: calls[0].response.after: 'soon' must be seconds",
        "    after: -1": "line 13: calls[0].response.after: -1 must be seconds, 0 or",
        "    after: .nan": "after: nan must be seconds",
        "    after: 1:30": "after: '1:30' must be seconds",
    },
    "      content-type: text/event-stream": {
        "      - content-type": "must be a mapping of names to texts",
        "      content-type: {a: 1}": "headers.content-type: {'a': 1} must be a text",
    },
    "    - {at: 0.1, data: {n: 1}}": {
        "    - {at: 0.3, data: {n: 1}}": (
            "line 18: calls[0].response.events[1].at: 0.2 is before the event above "
            "it, at 0.3"
        ),
        "    - {at: 0.1}": (
            "line 17: calls[0].response.events[0]: it has none of data, text, raw"
        ),
        "    - {at: 0.1, data: 1, raw: 'x'}": "events[0]: it has data and raw; only",
        "    - {at: 0.1, text: 5}": "events[0].text: int 5 must be a text; put it in",
        "    - {at: 0.1, base64: '='}": "events[0].base64: it is no base64",
        "    - {at: 0.1, event: 3, data: 1}": "events[0].event: 3 must be a text",
        "    - soon": "events[0]: str 'soon' must be a mapping of at, event, data",
        "    - {at: 0.1, data: {n: !!binary aa==}}": (
            "events[0].data: it is nothing that JSON can say"
        ),
    },
}
EDITS = [
    (old, new, told) for old, edits in BROKEN.items() for new, told in edits.items()
]


@pytest.mark.parametrize(("old", "new", "told"), EDITS, ids=[e[1] for e in EDITS])
def test_what_is_broken_is_named(old, new, told, path) -> None:
    """File, line, place and what it must be."""
    assert old in GOOD
    path.parent.mkdir()
    path.write_text(GOOD.replace(old, new), "utf-8")
    with pytest.raises(TapeError, match=re.escape(told)) as error:
        Tape(path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("missing", ["request", "response"])
def test_what_is_missing_is_named(missing, path) -> None:
    """A call without one of its halves."""
    data = {"tta_tape": 1, "calls": [{"request": {}, "response": {}}]}
    del data["calls"][0][missing]
    files.write(path, files.text_of(data, path))
    with pytest.raises(TapeError, match=rf"line 3: calls\[0\]: {missing} is missing"):
        Tape(path)


def test_what_is_no_answer_at_all_is_named(path) -> None:
    """Neither a status, nor why there is none."""
    path.parent.mkdir()
    text = GOOD.replace("    status: 200\n", "")
    path.write_text(text, "utf-8")
    with pytest.raises(TapeError, match="neither status, nor connect or ended"):
        Tape(path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"tta_tape": 1,', r"t\.json is no JSON: Expecting .* line 1"),
        ('{"tta_tape": 1, "calls": 3}', r"t\.json: calls: 3 must be a list"),
        ("[]", r"t\.json: it is no tape"),
    ],
)
def test_broken_json_is_named(text, told, tmp_path) -> None:
    """Without a line where JSON has none."""
    path = tmp_path / "t.json"
    path.write_text(text, "utf-8")
    with pytest.raises(TapeError, match=told):
        Tape(path)


def test_words_of_yaml_are_words(path) -> None:
    """`no` is no boolean, a date no date, and a time of day no number."""
    path.parent.mkdir()
    edited = GOOD.replace("{n: 1}", "{a: no, b: 2026-01-01, c: 12:30, d: 0x1f, e: 1.5}")
    path.write_text(edited, "utf-8")
    part = Tape(path).recordings[0].answer.body[0][1]
    value = json.loads(part[6:])
    assert value == {"a": "no", "b": "2026-01-01", "c": "12:30", "d": "0x1f", "e": 1.5}


def test_an_edited_tape_is_played_as_edited(path) -> None:
    """Numbers as JSON has them; what is left out has a default."""
    path.parent.mkdir()
    edited = GOOD.replace("    after: 0.5\n", "    ended: reset\n").replace(
        "at: 0.1", "at: 0"
    )
    path.write_text(edited, "utf-8")
    (recording,) = Tape(path).recordings
    assert (recording.asked_by, recording.host) == ("answer/llm", "api.openai.com")
    assert recording.body == {"model": "gpt-5", "temperature": 0}
    assert recording.answer == WireAnswer(
        headers=(SSE,),
        body=((0.0, b'data: {"n":1}\n\n'), (0.2, b"data: [DONE]\n\n")),
        ending="reset",
    )
    assert math.isclose(recording.answer.head_after, 0)


def test_two_files_for_one_tape_are_refused(tmp_path) -> None:
    """Nobody could tell which one counts."""
    for suffix in ("yaml", "json"):
        (tmp_path / f"t.{suffix}").write_text("{}", "utf-8")
    with pytest.raises(TapeError, match=r"t\.yaml and t\.json are both there; delete"):
        Tape(tmp_path / "t")


def test_without_pyyaml_tapes_are_json(tmp_path, monkeypatch) -> None:
    """And one that is YAML says what to install."""
    monkeypatch.setattr(files, "has_yaml", lambda: False)
    assert Tape(tmp_path / "t").path == tmp_path / "t.json"
    (tmp_path / "t.yaml").write_text(GOOD, "utf-8")
    with pytest.raises(TapeError, match=r'pip install "tta-dev-primitives\[tape\]"'):
        Tape(tmp_path / "t")
    monkeypatch.undo()
    assert files.has_yaml()
    assert Tape(tmp_path / "t").path == tmp_path / "t.yaml"


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch) -> None:
    """What was there stays if the writing fails."""
    path = tmp_path / "t.yaml"
    files.write(path, "old\n")
    mode = path.stat().st_mode
    (tmp_path / "usual").write_text("", "utf-8")
    if sys.platform != "win32":
        assert mode == (tmp_path / "usual").stat().st_mode

    def fail(self, target):
        raise OSError("the disk is full")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="the disk is full"):
        files.write(path, "new\n")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["t.yaml", "usual"]
    assert path.read_text("utf-8") == "old\n"


@pytest.mark.parametrize(
    ("agent", "found"),
    [
        ("AsyncOpenAI/Python 3.57.0", {"openai": "3.57.0"}),
        ("OpenAI/Python 3.57.0", {"openai": "3.57.0"}),
        ("AsyncAnthropic/Python 2.14.0", {"anthropic": "2.14.0"}),
        ("python-httpx/0.28.1", {"httpx": "0.28.1"}),
        ("python-httpx2/2.16.2", {"httpx2": "2.16.2"}),
        ("litellm/1.109.1", {"litellm": "1.109.1"}),
        ("Mozilla", {}),
        ("", {}),
    ],
)
def test_clients_tell_their_versions(agent, found) -> None:
    """In the header in which they introduce themselves."""
    assert sdk_of(agent) == found
