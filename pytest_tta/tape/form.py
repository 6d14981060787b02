"""An answer as it is written down, and back: readable, and the same to every client."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import zlib
from typing import TYPE_CHECKING, Any

from pytest_tta.tape.errors import TapeError
from pytest_tta.tape.redaction import kept_headers
from pytest_tta.wire.exchange import WireAnswer
from pytest_tta.wire.providers.encoding import json_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_tta.tape.redaction import Redactor
    from pytest_tta.wire.exchange import Connect, Ending, Part
    from pytest_tta.wire.forwarding import Caught

__all__ = ["Broken", "Line", "answer_of", "check_keys", "number", "response_of"]

Plain = dict[str, Any]

_STREAM = "text/event-stream"
_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_BODIES = ("json", "text", "base64", "events")
_EVENTS = ("data", "text", "raw", "base64")
_RESPONSE = ("status", "after", "headers", "body_after", *_BODIES, "ended", "connect")
# What a client's library calls it, and what the server did then.
_ENDINGS: dict[str, Ending] = {
    "ReadError": "reset",
    "ReadTimeout": "silent",
    "RemoteProtocolError": "closed",
}
_LOWEST_STATUS, _HIGHEST_STATUS = 200, 599


class Line(dict[str, Any]):
    """Data that is written on one line of its own."""


class Broken(TapeError):
    """Report what is wrong at one place of a tape.

    Args:
        path: The place, as keys and numbers.
        why: What is wrong.
    """

    def __init__(self, path: tuple[str | int, ...], why: str) -> None:
        super().__init__(why)
        self.path = path


def response_of(caught: Caught, redactor: Redactor) -> Plain:
    """Return what came back as it is written down, without secrets.

    Args:
        caught: What came back.
        redactor: Takes out what is secret.

    Raises:
        TapeError: It is packed in a way that cannot be undone.
        Exception: What was raised while it came, if no server can have done that.
    """
    ended = _ended(caught)
    if caught.status is None:
        return {"after": _rounded(caught.head_after), **ended}
    headers = kept_headers(caught.headers)
    parts = _unpacked(caught)
    response = {
        "status": caught.status,
        "after": _rounded(caught.head_after),
        "headers": redactor.value(headers),
    }
    if headers.get("content-type", "").startswith(_STREAM):
        return {**response, "events": _events_of(parts, redactor), **ended}
    data = b"".join(part for _, part in parts)
    late = _rounded(parts[-1][0]) if parts else 0.0
    body_after = {"body_after": late} if late else {}
    return {**response, **body_after, **_body_of(data, redactor), **ended}


def _ended(caught: Caught) -> Plain:
    error = caught.error
    if error is None:
        return {}
    name = type(error).__name__
    if name in _ENDINGS:
        return {"ended": _ENDINGS[name]}
    if caught.status is None and name == "ConnectTimeout":
        return {"connect": "silent"}
    if caught.status is None and name == "ConnectError":
        is_unknown = re.search(r"name|node|getaddrinfo", str(error), re.IGNORECASE)
        return {"connect": "unresolved" if is_unknown else "refused"}
    raise error


def _unpacked(caught: Caught) -> list[Part]:
    """Return the parts of a body, decompressed if a server insists on compressing."""
    packed = dict(caught.headers).get("content-encoding", "identity")
    if packed == "identity":
        return list(caught.parts)
    if packed not in {"gzip", "deflate"}:
        msg = f"an answer with content-encoding {packed!r} cannot be put on a tape"
        raise TapeError(msg)
    unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    return [(at, unpack.decompress(part)) for at, part in caught.parts]


def _rounded(seconds: float) -> float:
    return round(seconds, 3)


def _body_of(data: bytes, redactor: Redactor) -> Plain:
    if not data:
        return {}
    try:
        value = json.loads(data)
        json_text(value).encode()
    except ValueError:
        return _text_of(data, redactor)
    return {"json": redactor.value(value)}


def _text_of(data: bytes, redactor: Redactor, name: str = "text") -> Plain:
    try:
        return {name: redactor.text(data.decode())}
    except UnicodeDecodeError:
        if redactor.leaks(data):
            msg = "a key is within bytes that are no text, and cannot be taken out"
            raise TapeError(msg) from None
        return {"base64": base64.b64encode(data).decode()}


def _events_of(parts: Iterable[Part], redactor: Redactor) -> list[Line]:
    """Return events with the times at which each was whole."""
    lines: list[Plain] = []
    held, at = b"", 0.0
    for at, part in parts:
        held += part
        while (end := _EVENT_END.search(held)) is not None:
            lines.append({"at": _rounded(at), **_event_of(held[: end.end()])})
            held = held[end.end() :]
    if held:
        lines.append({"at": _rounded(at), **_text_or_bytes(held)})
    said = [line.get("data") for line in lines]
    cleaned = redactor.values(said)
    return [
        Line(line | {"data": data} if "data" in line else _cleaned(line, redactor))
        for line, data in zip(lines, cleaned, strict=True)
    ]


def _cleaned(line: Plain, redactor: Redactor) -> Plain:
    return {
        name: one if name == "base64" else redactor.value(one)
        for name, one in line.items()
    }


def _event_of(data: bytes) -> Plain:
    """Return one event; as it is, if it is not of the usual form."""
    lines = re.split(rb"\r\n|\n|\r", data.rstrip(b"\r\n"))
    fields = [line.partition(b":") for line in lines]
    names = [name for name, _, _ in fields]
    if names not in ([b"data"], [b"event", b"data"]):
        return _text_or_bytes(data)
    try:
        *name, text = [value.removeprefix(b" ").decode() for _, _, value in fields]
    except UnicodeDecodeError:
        return _text_or_bytes(data)
    named = {"event": name[0]} if name else {}
    try:
        value = json.loads(text)
        json_text(value).encode()
    except ValueError:
        return {**named, "text": text}
    return {**named, "data": value}


def _text_or_bytes(data: bytes) -> Plain:
    try:
        return {"raw": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


# --- and back ----------------------------------------------------------------


def answer_of(response: object, path: tuple[str | int, ...] = ()) -> WireAnswer:
    """Return the answer that is written down.

    Args:
        response: As `response_of` returns it, or as somebody has edited it.
        path: Where it stands, for the message of an error.

    Raises:
        Broken: Something is wrong with it.
    """
    told = check_keys(response, _RESPONSE, path)
    after = number(told.get("after", 0.0), (*path, "after"))
    ended = _ending(told.get("ended", "complete"), (*path, "ended"))
    if "status" not in told:
        return _no_head(told, after, ended, path)
    status = told["status"]
    if type(status) is not int or not _LOWEST_STATUS <= status <= _HIGHEST_STATUS:
        why = f"{status!r} must be a status from {_LOWEST_STATUS} to {_HIGHEST_STATUS}"
        raise Broken((*path, "status"), why)
    headers = _headers(told.get("headers", {}), (*path, "headers"))
    body = _parts(told, path)
    if "events" not in told and ended == "complete":
        size = sum(len(part) for _, part in body)
        headers = (*headers, ("content-length", str(size)))
    return WireAnswer(
        status=status, headers=headers, body=body, head_after=after, ending=ended
    )


def _no_head(
    told: Mapping[str, Any], after: float, ended: Ending, path: tuple[str | int, ...]
) -> WireAnswer:
    """Return what a server does that gives no answer at all."""
    if "connect" not in told and ended == "complete":
        why = "it has neither status, nor connect or ended, which tell why not"
        raise Broken(path, why)
    kinds: tuple[Connect, ...] = ("refused", "unresolved", "silent")
    connect = told.get("connect", "open")
    if "connect" in told and connect not in kinds:
        why = f"{connect!r} must be one of {', '.join(kinds)}"
        raise Broken((*path, "connect"), why)
    ending: Ending = "closed" if ended == "complete" else ended
    return WireAnswer(has_head=False, ending=ending, connect=connect, head_after=after)


def _ending(value: object, path: tuple[str | int, ...]) -> Ending:
    endings: tuple[Ending, ...] = ("complete", "closed", "reset", "silent")
    for ending in endings:
        if value == ending:
            return ending
    raise Broken(path, f"{value!r} must be one of {', '.join(endings)}")


def _headers(value: object, path: tuple[str | int, ...]) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise Broken(path, f"{_kind(value)} must be a mapping of names to texts")
    for name, one in value.items():
        if not isinstance(name, str) or not isinstance(one, str | int | float):
            raise Broken((*path, name), f"{one!r} must be a text")
    return tuple((name.lower(), str(one)) for name, one in value.items())


def _parts(told: Mapping[str, Any], path: tuple[str | int, ...]) -> tuple[Part, ...]:
    kind = _one_of(told, _BODIES, path)
    if kind is None:
        return ()
    if kind == "events":
        return _events(told[kind], (*path, "events"))
    at = number(told.get("body_after", 0.0), (*path, "body_after"))
    data = _bytes_of(told, kind, path)
    return ((at, data),) if data else ()


def _events(value: object, path: tuple[str | int, ...]) -> tuple[Part, ...]:
    if not isinstance(value, list):
        raise Broken(path, f"{_kind(value)} must be a list of events")
    parts: list[Part] = []
    for index, one in enumerate(value):
        here = (*path, index)
        line = check_keys(one, ("at", "event", *_EVENTS), here)
        at = number(line.get("at", 0.0), (*here, "at"))
        if parts and at < parts[-1][0]:
            why = f"{at:g} is before the event above it, at {parts[-1][0]:g}"
            raise Broken((*here, "at"), why)
        parts.append((at, _event(line, here)))
    return tuple(parts)


def _event(line: Mapping[str, Any], path: tuple[str | int, ...]) -> bytes:
    kind = _one_of(line, _EVENTS, path)
    if kind is None:
        raise Broken(path, f"it has none of {', '.join(_EVENTS)}")
    name = line.get("event")
    if name is not None and not isinstance(name, str):
        raise Broken((*path, "event"), f"{name!r} must be a text")
    data = _bytes_of(line, kind, path)
    if kind in {"raw", "base64"}:
        return data
    head = b"" if name is None else b"event: %b\n" % name.encode()
    return b"%bdata: %b\n\n" % (head, data)


def _bytes_of(told: Mapping[str, Any], kind: str, path: tuple[str | int, ...]) -> bytes:
    value, here = told[kind], (*path, kind)
    if kind in {"json", "data"}:
        try:
            return json_text(value).encode()
        except (TypeError, ValueError) as error:
            raise Broken(here, f"it is nothing that JSON can say: {error}") from None
    if not isinstance(value, str):
        raise Broken(here, f"{_kind(value)} must be a text; put it in quotes")
    if kind != "base64":
        return value.encode()
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise Broken(here, f"it is no base64: {error}") from None


def _one_of(
    told: Mapping[str, Any], names: tuple[str, ...], path: tuple[str | int, ...]
) -> str | None:
    found = [name for name in names if name in told]
    if len(found) > 1:
        raise Broken(path, f"it has {' and '.join(found)}; only one of them can be")
    return found[0] if found else None


def check_keys(
    value: object, known: tuple[str, ...], path: tuple[str | int, ...]
) -> Mapping[str, Any]:
    """Return a mapping whose keys are known.

    Raises:
        Broken: It is none, or has another key.
    """
    if not isinstance(value, dict):
        raise Broken(path, f"{_kind(value)} must be a mapping of {', '.join(known)}")
    for name in value:
        if name not in known:
            raise Broken((*path, name), f"unknown key; known are {', '.join(known)}")
    return value


def number(value: object, path: tuple[str | int, ...]) -> float:
    """Return seconds.

    Raises:
        Broken: It is no number of at least 0.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= float(str(value)) < math.inf:
        raise Broken(path, f"{value!r} must be seconds, 0 or more")
    return float(str(value))


def _kind(value: object) -> str:
    return f"{type(value).__name__} {value!r}" if value is not None else "nothing"
