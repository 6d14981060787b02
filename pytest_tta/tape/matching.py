"""Which recording answers a request, and in what it differs from one that does not."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_tta.tape.redaction import Redactor

__all__ = ["Difference", "Ignored", "body_of", "differences", "normal"]

_LONGEST_BLOB = 1000
_SHOWN = 60

_UUID = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
_ID = r"(?:call|chatcmpl|fc|item|msg|req|resp|rs|run|toolu)[_-][A-Za-z0-9]{12,}"
_NAMES = re.compile(rf"\b(?:(?P<uuid>{_UUID})|(?P<id>{_ID}))\b")
_TIME = re.compile(
    r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?"
)
_MISSING: Any = object()


class Difference(NamedTuple):
    """One place in which a request is not as it was recorded."""

    path: str
    recorded: object
    now: object

    def __str__(self) -> str:
        recorded, now = _apart(self.recorded, self.now)
        return f"{self.path or 'the body'}: recorded {recorded} / now {now}"


class Ignored:
    """Fields that do not matter.

    Args:
        patterns: Such as `user` or `messages[*].name`; what is below is meant, too.

    Raises:
        TypeError: One is no text.
        ValueError: One is empty.
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._patterns = [_pattern(one) for one in patterns]

    def __contains__(self, path: str) -> bool:
        return any(pattern.match(path) for pattern in self._patterns)


def _pattern(text: str) -> re.Pattern[str]:
    if not isinstance(text, str):
        msg = f"ignored field {text!r} must be text, such as 'messages[*].name'"
        raise TypeError(msg)
    if not text:
        msg = "an ignored field must have a name, such as 'messages[*].name'"
        raise ValueError(msg)
    inner = r"[^.\[\]]*".join(re.escape(part) for part in text.split("*"))
    return re.compile(rf"{inner}(?=[.\[]|\Z)")


def body_of(data: bytes, redactor: Redactor) -> Any:  # noqa: ANN401 - anything that JSON can say
    """Return a request's body as it is written down: JSON as data, the rest as text.

    Args:
        data: What was sent.
        redactor: Takes out what is secret.
    """
    if not data:
        return None
    try:
        value = json.loads(data)
    except ValueError:
        try:
            value = data.decode()
        except UnicodeDecodeError:
            return _digest(data)
    return normal(redactor.value(value))


def normal(value: Any) -> Any:  # noqa: ANN401 - as above
    """Return data without what differs from run to run.

    UUIDs and the ids of providers become numbers, in the order in which they come, so
    that what belongs together still does. Dates with a time of day become a word, and
    what is long and no text becomes its digest.
    """
    seen: dict[str, str] = {}

    def numbered(found: re.Match[str]) -> str:
        kind = "uuid" if found["uuid"] else "id"
        name = found[0].lower() if found["uuid"] else found[0]
        return seen.setdefault(name, f"<{kind} {len(seen) + 1}>")

    def text(text: str) -> str:
        if len(text) > _LONGEST_BLOB and re.search(r"\s", text) is None:
            return _digest(text.encode("utf-8", "surrogatepass"))
        return _TIME.sub("<time>", _NAMES.sub(numbered, text))

    def walk(value: Any) -> Any:  # noqa: ANN401 - as above
        if isinstance(value, str):
            return text(value)
        if isinstance(value, list):
            return [walk(one) for one in value]
        if isinstance(value, dict):
            # Numbers must not depend on the order of keys, and the order is kept.
            walked = {name: walk(value[name]) for name in sorted(value)}
            return {name: walked[name] for name in value}
        return value

    return walk(value)


def _digest(data: bytes) -> str:
    return f"<{len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()[:16]}>"


def differences(
    recorded: Any,  # noqa: ANN401 - as above
    now: Any,  # noqa: ANN401 - as above
    ignored: Ignored,
    path: str = "",
) -> Iterator[Difference]:
    """Yield where two bodies differ, and what there is on each side.

    Args:
        recorded: The one on the tape.
        now: The one that was sent.
        ignored: What does not matter.
        path: Where they stand.
    """
    if path and path in ignored:
        return
    if isinstance(recorded, dict) and isinstance(now, dict):
        for name in dict.fromkeys((*recorded, *now)):
            both = recorded.get(name, _MISSING), now.get(name, _MISSING)
            yield from differences(*both, ignored, f"{path}.{name}".lstrip("."))
    elif isinstance(recorded, list) and isinstance(now, list):
        for number in range(max(len(recorded), len(now))):
            both = _at(recorded, number), _at(now, number)
            yield from differences(*both, ignored, f"{path}[{number}]")
    elif not _is_same(recorded, now):
        yield Difference(path, recorded, now)


def _at(values: list[Any], number: int) -> Any:  # noqa: ANN401 - as above
    return values[number] if number < len(values) else _MISSING


def _is_same(one: object, other: object) -> bool:
    # True is 1 to Python, and not to a provider.
    return isinstance(one, bool) is isinstance(other, bool) and one == other


def _apart(one: object, other: object) -> tuple[str, str]:
    """Show two values, of long texts the part in which they differ."""
    if not (isinstance(one, str) and isinstance(other, str)):
        return _shown(one), _shown(other)
    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    start = max(0, same - _SHOWN // 2)
    return _cut(one, start), _cut(other, start)


def _cut(text: str, start: int) -> str:
    end = start + _SHOWN
    before, after = "..." if start else "", "..." if end < len(text) else ""
    return f"{before}{text[start:end]!r}{after}"


def _shown(value: object) -> str:
    if value is _MISSING:
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, str):
        return _cut(text, 0)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
