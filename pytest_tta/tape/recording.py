"""One exchange on a tape, and all of them as a file has them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pytest_tta.tape.form import Broken, answer_of, check_keys
from pytest_tta.tape.matching import normal

if TYPE_CHECKING:
    from pytest_tta.wire.exchange import WireAnswer

__all__ = ["FORMAT", "Recording", "file_of", "recordings_of", "sdk_of"]

FORMAT = 1
"""The version of the format; a file that has a higher one is refused."""

# "AsyncOpenAI/Python 3.57.0", "python-httpx/0.28.1"
_AGENT = re.compile(
    r"(?:Async|python-)?(?P<name>\w+)/(?:Python )?(?P<version>\d[\w.]*)", re.ASCII
)
_CALL = ("asked_by", "request", "response", "repeat", "optional")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One exchange.

    Attributes:
        asked_by: The path of the primitive that asked; "" if none did.
        method: `POST`, for instance.
        url: Where to, without secrets.
        body: What was sent, as `body_of` returns it.
        response: What was answered, as it is written down.
        answer: The same, as it is played.
        repeat: How often it answers; None for any number of times.
        is_optional: Whether it need not be asked for.
    """

    asked_by: str
    method: str
    url: str
    body: Any
    response: dict[str, Any]
    answer: WireAnswer
    repeat: int | None = 1
    is_optional: bool = False

    @property
    def host(self) -> str:
        """Host and port, in lower case."""
        return urlsplit(self.url).netloc.lower()

    @property
    def path(self) -> str:
        """The path of the URL, without the query."""
        return urlsplit(self.url).path

    def __str__(self) -> str:
        return f"{self.method} {self.url}"

    def written(self) -> dict[str, Any]:
        """Return it as it is written down."""
        request = {"method": self.method, "url": self.url}
        sent = {} if self.body is None else {"body": self.body}
        call: dict[str, Any] = {"asked_by": self.asked_by} if self.asked_by else {}
        call |= {"request": {**request, **sent}, "response": self.response}
        if self.repeat != 1:
            call["repeat"] = "always" if self.repeat is None else self.repeat
        return {**call, "optional": True} if self.is_optional else call


def sdk_of(user_agent: str) -> dict[str, str]:
    """Return the version of what sends a request, as it calls itself.

    Args:
        user_agent: The header of that name.
    """
    found = _AGENT.match(user_agent)
    return {} if found is None else {found["name"].lower(): found["version"]}


def file_of(recordings: list[Recording], sdk: dict[str, str]) -> dict[str, Any]:
    """Return what a file says.

    Args:
        recordings: In the order in which they were asked for.
        sdk: The versions of what asked.
    """
    calls = [one.written() for one in recordings]
    return {"tta_tape": FORMAT, "sdk": sdk, "calls": calls}


def recordings_of(data: object) -> tuple[list[Recording], dict[str, str]]:
    """Return what a file says: its recordings, and the versions of what asked.

    Args:
        data: What is in the file.

    Raises:
        Broken: Something in it is wrong.
    """
    if not isinstance(data, dict) or "tta_tape" not in data:
        raise Broken((), "it is no tape: the key tta_tape is missing")
    number = data["tta_tape"]
    if type(number) is not int or number < 1:
        raise Broken(("tta_tape",), f"{number!r} must be {FORMAT}")
    if number > FORMAT:
        why = (
            f"format {number} is newer than this pytest_tta, which reads up to "
            f"{FORMAT}; update it, or record anew"
        )
        raise Broken(("tta_tape",), why)
    told = check_keys(data, ("tta_tape", "sdk", "calls"), ())
    sdk = told.get("sdk") or {}
    if not isinstance(sdk, dict):
        raise Broken(("sdk",), f"{sdk!r} must be a mapping of names to versions")
    calls = told.get("calls") or []
    if not isinstance(calls, list):
        raise Broken(("calls",), f"{calls!r} must be a list")
    read = [_recording(one, ("calls", place)) for place, one in enumerate(calls)]
    return read, {str(name): str(one) for name, one in sdk.items()}


def _recording(call: object, path: tuple[str | int, ...]) -> Recording:
    told = check_keys(call, _CALL, path)
    for name in ("request", "response"):
        if name not in told:
            raise Broken(path, f"{name} is missing")
    where = (*path, "request")
    request = check_keys(told["request"], ("method", "url", "body"), where)
    asked_by = _text(told.get("asked_by", ""), (*path, "asked_by"))
    return Recording(
        asked_by=asked_by,
        method=_text(request.get("method"), (*where, "method")).upper(),
        url=_url(request.get("url"), (*where, "url")),
        body=normal(request.get("body")),
        response=told["response"],
        answer=answer_of(told["response"], (*path, "response")),
        repeat=_repeat(told.get("repeat", 1), (*path, "repeat")),
        is_optional=_flag(told.get("optional", False), (*path, "optional")),
    )


def _text(value: object, path: tuple[str | int, ...]) -> str:
    if not isinstance(value, str):
        raise Broken(path, f"{value!r} must be a text")
    return value


def _url(value: object, path: tuple[str | int, ...]) -> str:
    url = _text(value, path)
    if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).netloc:
        raise Broken(path, f"{url!r} must be a URL such as 'https://llm.example/v1'")
    return url


def _repeat(value: object, path: tuple[str | int, ...]) -> int | None:
    if value == "always":
        return None
    if type(value) is int and value >= 1:
        return value
    raise Broken(path, f"{value!r} must be a number from 1, or 'always'")


def _flag(value: object, path: tuple[str | int, ...]) -> bool:
    if not isinstance(value, bool):
        raise Broken(path, f"{value!r} must be true or false")
    return value
