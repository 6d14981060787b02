"""What never gets onto a tape: keys, whatever looks like one, and most headers."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from pytest_tta.wire.exchange import REDACTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Cleaner", "Redactor", "kept_headers", "names_secret"]


Cleaner: TypeAlias = Callable[[str], str]

_KEPT = re.compile(
    r"content-type|retry-after(?:-ms)?|x-should-retry|x-ratelimit-[\w-]+"
    r"|anthropic-ratelimit-[\w-]+"
)
_REPLACED = frozenset({"request-id", "x-request-id"})
# Of a query; whatever else is asked may be a key.
_KEPT_QUERY = frozenset({"alt", "api-version", "beta", "version"})

_KEY_HEADERS = frozenset(
    {"api-key", "authorization", "proxy-authorization", "x-api-key", "x-goog-api-key"}
)
_SHORTEST_KEY = 8
# The values of the environment are words more often than those of such headers.
_SHORTEST_VARIABLE = 12
# What stands in for a key at a server that asks for none: "anything", "not-needed".
_WORDS = re.compile(r"<redacted>|[a-z-]{1,15}")
_KEY_VARIABLE = re.compile(r"API_?KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_KEY_FIELD = re.compile(
    r"api[-_]?key|authorization|(?:access|refresh|auth|bearer)[-_]?token|token"
    r"|password|(?:client[-_]?)?secret|private[-_]?key",
    re.IGNORECASE,
)
_LOOKS_LIKE_A_KEY = re.compile(
    r"\b(?:sk|rk|pk)-[\w-]{12,}"  # OpenAI, Anthropic, OpenRouter, ...
    r"|\b(?:gsk|hf|xai|pplx|r8|ghp|gho|ghs|glpat|xox[abp])[-_][\w-]{12,}"
    r"|\bgithub_pat_\w{12,}"
    r"|\bAIza[\w-]{30,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}"  # JSON web tokens
    r"|(?<=\bBearer )[\w.~+/-]{8,}=*"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)

Path: TypeAlias = tuple[str | int, ...]
Span: TypeAlias = tuple[int, int]


def names_secret(variable: str) -> bool:
    """Tell whether the value of a variable of the environment is a secret.

    Args:
        variable: Its name, such as `OPENAI_API_KEY`.
    """
    return _KEY_VARIABLE.search(variable) is not None


def kept_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the headers of an answer that may be on a tape.

    Args:
        headers: Names in lower case, and values.
    """
    kept = {name: value for name, value in headers if _KEPT.fullmatch(name)}
    replaced = {name: REDACTED for name, _ in headers if name in _REPLACED}
    return kept | replaced


class Redactor:
    """Takes secrets out of texts and data.

    It knows the keys that requests were sent with, and those of the environment; by
    their looks it knows the keys of the usual providers.

    Args:
        environment: Where else keys may be, `os.environ` unless given.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._keys: dict[str, None] = {}
        self._cleaners: list[Cleaner] = []
        known = os.environ if environment is None else environment
        for name, value in known.items():
            if names_secret(name) and len(value) >= _SHORTEST_VARIABLE:
                self._learn(value)

    def add(self, what: str | re.Pattern[str] | Cleaner) -> None:
        """Take out something else.

        Args:
            what: A regular expression, or a function from text to text.

        Raises:
            TypeError: It is neither.
        """
        if isinstance(what, str | re.Pattern):
            pattern = re.compile(what)
            self._cleaners.append(lambda text: pattern.sub(REDACTED, text))
        elif callable(what):
            self._cleaners.append(what)
        else:
            msg = f"{what!r} must be a regular expression, or a function of a text"
            raise TypeError(msg)

    def learn(self, headers: Iterable[tuple[bytes, bytes]], url: str) -> None:
        """Know the keys that a request was sent with.

        Args:
            headers: The request's.
            url: Where it went, with all that was asked.
        """
        for name, value in headers:
            text = value.decode("latin-1")
            if name.lower() == b"cookie":
                for pair in text.split(";"):
                    self._learn(pair.partition("=")[2].strip())
            elif name.decode("latin-1").lower() in _KEY_HEADERS:
                has_scheme = name.lower().endswith(b"authorization")
                self._learn(*(_credentials(text) if has_scheme else [text]))
        parts = urlsplit(url)
        self._learn(*(unquote(one) for one in (parts.username, parts.password) if one))
        for asked, said in parse_qsl(parts.query):
            if asked.lower() not in _KEPT_QUERY:
                self._learn(said)

    def _learn(self, *keys: str) -> None:
        for key in keys:
            if len(key) >= _SHORTEST_KEY and _WORDS.fullmatch(key) is None:
                self._keys.update(dict.fromkeys(_spellings(key)))

    def url(self, url: str) -> str:
        """Return a URL without user and password, and with few values of its query."""
        parts = urlsplit(url)
        pairs = [
            (name, value if name.lower() in _KEPT_QUERY else REDACTED)
            for name, value in parse_qsl(parts.query, keep_blank_values=True)
        ]
        netloc = parts.netloc.rpartition("@")[2]
        query = urlencode(pairs, safe="<>")
        plain = parts._replace(netloc=netloc, query=query, fragment="")
        return self.text(plain.geturl())

    def text(self, text: str) -> str:
        """Return a text without secrets."""
        for start, end in reversed(self._spans(text)):
            text = text[:start] + REDACTED + text[end:]
        for clean in self._cleaners:
            text = clean(text)
        return text

    def value(self, value: Any) -> Any:  # noqa: ANN401 - anything that JSON can say
        """Return data without secrets; names of fields tell of some."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(one) for one in value]
        if isinstance(value, dict):
            return {
                self.text(name): REDACTED
                if isinstance(one, str) and one and _KEY_FIELD.fullmatch(name)
                else self.value(one)
                for name, one in value.items()
            }
        return value

    def values(self, values: list[Any]) -> list[Any]:
        """Return the data of a stream without secrets, also those that it spells out.

        A model says a key in pieces, each of which is none.
        """
        cleaned = [self.value(one) for one in values]
        pieces: dict[Path, list[tuple[int, str]]] = {}
        for number, one in enumerate(cleaned):
            for path, text in _texts(one):
                pieces.setdefault(path, []).append((number, text))
        for path, said in pieces.items():
            self._mend(cleaned, path, said)
        return cleaned

    def _mend(self, values: list[Any], path: Path, said: list[tuple[int, str]]) -> None:
        """Take out what texts at one place spell out together."""
        spans = self._spans("".join(text for _, text in said))
        begin = 0
        for number, text in said if spans else ():
            mended, end = text, begin + len(text)
            for first, last in reversed(spans):
                if first < end and last > begin:
                    mark = REDACTED if first >= begin else ""
                    cut = slice(max(first - begin, 0), last - begin)
                    mended = mended[: cut.start] + mark + mended[cut.stop :]
            if mended != text:
                values[number] = _with(values[number], path, mended)
            begin = end

    def _spans(self, text: str) -> list[Span]:
        """Return where secrets are, in order; those that overlap as one."""
        found = [one.span() for one in _LOOKS_LIKE_A_KEY.finditer(text)]
        for key in self._keys:
            start = text.find(key)
            while start >= 0:
                found.append((start, start + len(key)))
                start = text.find(key, start + 1)
        joined: list[Span] = []
        for start, end in sorted(found):
            if joined and start <= joined[-1][1]:
                joined[-1] = joined[-1][0], max(end, joined[-1][1])
            else:
                joined.append((start, end))
        return joined

    def leaks(self, text: str | bytes) -> bool:
        """Tell whether a key that was used is in a text, or in bytes."""
        if isinstance(text, bytes):
            return any(key.encode() in text for key in self._keys)
        return any(key in text for key in self._keys)

    def leak_in(self, value: Any, path: str = "") -> str | None:  # noqa: ANN401 - as above
        """Return the place of a key in data, None if there is none."""
        if isinstance(value, str):
            return path if self.leaks(value) else None
        if isinstance(value, list):
            parts = [(f"{path}[{number}]", one) for number, one in enumerate(value)]
        elif isinstance(value, dict):
            if any(self.leaks(str(name)) for name in value):
                return f"{path} (a name in it)"
            parts = [(f"{path}.{name}".lstrip("."), one) for name, one in value.items()]
        else:
            return None
        found = (self.leak_in(one, below) for below, one in parts)
        return next((one for one in found if one is not None), None)


def _credentials(value: str) -> Iterator[str]:
    """Yield what a header lets in with, without the scheme's name (RFC 9110, 11.4)."""
    scheme, _, rest = value.partition(" ")
    yield rest.strip() if rest else value
    if scheme.lower() == "basic":
        try:
            plain = base64.b64decode(rest, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return
        yield plain
        yield plain.partition(":")[2]


def _spellings(key: str) -> Iterator[str]:
    """Yield a key as it is, and as others write it."""
    yield key
    yield json.dumps(key)[1:-1]
    yield json.dumps(key, ensure_ascii=False)[1:-1]
    yield quote(key, safe="")
    yield base64.b64encode(key.encode()).decode().rstrip("=")


def _texts(value: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:  # noqa: ANN401 - as above
    """Yield all texts in data with their places."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _texts(one, (*path, number))
    elif isinstance(value, dict):
        for name, one in value.items():
            yield from _texts(one, (*path, name))


def _with(value: Any, path: Path, text: str) -> Any:  # noqa: ANN401 - as above
    """Return data with another text at a place."""
    if not path:
        return text
    copied = value.copy()
    copied[path[0]] = _with(value[path[0]], path[1:], text)
    return copied
