"""What never leaves the process in a log line or a span: keys, passwords, cookies.

A secret is known by the name that it stands under, by its looks, or because the user
has said what it is. Cost and length are bounded, and nothing here ever raises: what
cannot be read is replaced as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, overload

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["REDACTED", "Redactor", "printed"]

REDACTED: Final = "[redacted]"
_UNREADABLE: Final = "[redacted: unreadable]"
_CUT: Final = "...[cut]"

# What is under a name with one of these words in it is secret.
_WORDS = frozenset(
    {
        "apikey", "auth", "authentication", "authorization", "cookie", "cookies",
        "credential", "credentials", "dsn", "jwt", "passphrase", "passwd", "password",
        "passwords", "pwd", "secret", "secrets",
    }
)  # fmt: skip
# Names that end so. `max_tokens` and `token_count` are no secrets, `key` may be any.
_ENDINGS = (
    "token", "apikey", "apikeys", "accesskey", "accesskeyid", "accountkey",
    "privatekey", "secretkey", "encryptionkey", "signingkey", "fernetkey",
    "sessionid", "sessionkey", "connectionstring", "databaseurl", "redisurl",
    "brokerurl", "webhookurl",
)  # fmt: skip
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

# In a text: `name=value`, `name: value`, `"name": "value"`; and signatures in URLs,
# which OpenTelemetry's conventions name, too.
_NAMED = re.compile(
    r"(?P<name>(?:(?<=[?&])(?:x-(?:amz|goog)-)?sig(?:nature)?"
    r"|authorization|set-cookie|cookie|pass(?:word|wd|phrase)|pwd|secret"
    r"|credentials?|dsn|jwt|session[-_]?id|token"
    r"|(?:api|access|account|private|secret|signing)[-_ ]?key)"
    r"(?:[-_](?:id|hash|key|value))?)"
    r"(?P<between>\\{0,3}[\"']?\s{0,4}(?:[:=]|=>)\s{0,4}(?:[rb](?=[\"']))?)"
    r"(?:(?P<quote>[\"'])(?:\\.|(?!(?P=quote))[^\\]){1,4096}(?:(?P=quote)|\Z)"
    r"|(?P<escaped>\\{1,3}[\"'])(?:(?!(?P=escaped)).){1,4096}(?:(?P=escaped)|\Z)"
    r"|(?:(?:bearer|basic|digest|token|negotiate|apikey)[ \t]{1,4})?"
    r"[^\s\"'\\&<>]{1,4096})",
    re.IGNORECASE | re.DOTALL,
)
# In a command line: `--name value`, also as a list of words.
_OPTION = re.compile(
    r"(?<!-)--(?P<name>(?!-)[a-z0-9_-]{0,30}"
    r"(?:pass(?:word|wd|phrase)|pwd|secret|credentials?|token"
    r"|(?:api|access|account|private|secret|signing)[-_]?key))"
    r"(?P<between>[\"']?,?\s{1,4}[\"']?)(?!-)[^\s\"']{1,4096}",
    re.IGNORECASE,
)
# All that stands in a header of cookies, up to the end of the line or the quote.
_COOKIES = re.compile(
    r"(?P<name>\b(?:set-)?cookie\\{0,3}[\"']?\s{0,4}:\s{0,4}\\{0,3}[\"']?)"
    r"[^\r\n\"']{1,8192}",
    re.IGNORECASE,
)
# Credentials in a URL: user:password@host, :password@host, token@host; also a password
# with a slash or an at sign that should have been quoted.
_IN_URL = re.compile(
    r"(?P<scheme>\b[a-z][a-z0-9+.-]{1,30}://)(?:"
    r"[^\s/:@\"'<>]{0,256}:(?!\d{1,5}[/?#])[^\s\"'<>]{1,1024}|[^\s/?#\"'<>@]{1,1024})@",
    re.IGNORECASE,
)
_LOOKS_SECRET = re.compile(
    r"\b(?:sk|rk|pk)[-_][\w-]{8,}"  # OpenAI, Anthropic, OpenRouter, Stripe, ...
    r"|\b(?:gsk|hf|xai|pplx|r8|ghp|gho|ghs|ghu|ghr|glpat|npm|xox[abeprs])[-_][\w-]{10,}"
    r"|\bgithub_pat_\w{12,}"
    r"|\bAIza[\w-]{30,}"
    r"|\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b"
    # JSON web tokens. It is asked once for each word whether a dot follows: to ask
    # behind each dash would take a second for a text that was made for it.
    r"|(?<![\w-])(?=[\w-]{9,}+\.[\w-]{6})(?:[\w-]*-)?eyJ[\w-]{6,}\.[\w-]{6,}\.?[\w-]*"
    r"|(?i:(?<=\bbearer )|(?<=\bbasic ))[\w.~+/:-]{6,}={0,3}"
    r"|-----BEGIN [A-Z0-9 ]{1,40}-----.*?(?:-----END [A-Z0-9 ]{1,40}-----|\Z)",
    re.DOTALL,
)
# Without one of these a text needs no search: most lines have none.
_NAME_HINTS = (
    "auth", "cookie", "cred", "dsn", "jwt", "key", "pass", "pwd", "secret", "session",
    "sig", "token",
)  # fmt: skip
_LOOK_HINTS = (
    "sk-", "sk_", "rk-", "rk_", "pk-", "pk_", "gsk", "hf", "xai", "pplx", "r8", "gh",
    "github", "glpat", "npm", "xox", "aiza", "akia", "asia", "abia", "acca", "eyj",
    "bearer", "basic", "-----begin",
)  # fmt: skip
# A secret may begin before the cut and end behind it: so much more is looked at.
_OVERLAP = 8192
_SHORTEST_VALUE = 4
_PLAIN = frozenset({bool, int, float, type(None)})
# Of the answers that are remembered.
_MOST_KNOWN = 1024
_SHORT = 128


class Redactor:
    """Takes secrets out of texts and out of nested data.

    By name it knows headers, fields and variables such as `authorization`,
    `x-api-key`, `OPENAI_API_KEY`, `access_token`, `password`, `set-cookie`, `dsn`,
    inside of texts also as `name=value` and in JSON. By its looks it knows the keys of
    the usual providers, bearer and basic credentials, credentials in URLs, JSON web
    tokens, keys of AWS and PEM blocks.

    Args:
        names: More names whose values are secret, in any spelling: `customer-iban`
            also finds `customerIban` and `CUSTOMER_IBAN`.
        patterns: More regular expressions of what is secret in a text. Their cost is
            the user's.
        values: Secrets themselves, for instance of the settings.
        keep: Names that are not secret although they look so.
        max_length: Of one text in characters; the rest is cut off.
        max_items: Of one container; the rest is left out.
        max_depth: Of nested data; what is deeper is left out.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: A pattern is none, a value is too short, a limit is not positive.
    """

    def __init__(
        self,
        *,
        names: Iterable[str] = (),
        patterns: Iterable[str | re.Pattern[str]] = (),
        values: Iterable[str] = (),
        keep: Iterable[str] = (),
        max_length: int = 16_384,
        max_items: int = 200,
        max_depth: int = 8,
    ) -> None:
        self._names = frozenset(map(_joined, _texts("names", names)))
        self._keep = frozenset(map(_joined, _texts("keep", keep)))
        self._patterns = tuple(_compiled(one) for one in _many("patterns", patterns))
        # The longest first: one may be part of another.
        self._values = sorted(
            map(_long_enough, _texts("values", values)), key=len, reverse=True
        )
        self._max_length = _positive("max_length", max_length)
        self._max_items = _positive("max_items", max_items)
        self._max_depth = _positive("max_depth", max_depth)
        self._known: dict[str, bool] = {}
        self._clean: set[str] = set()

    @overload
    def __call__(self, value: str, /) -> str: ...
    @overload
    def __call__(self, value: Mapping[Any, Any], /) -> dict[str, Any]: ...
    @overload
    def __call__(self, value: object, /) -> Any: ...  # noqa: ANN401 - as what is given
    def __call__(self, value: object, /) -> Any:
        """Return a text, a mapping or other data without secrets.

        Mappings become dicts with texts as keys, other containers lists; numbers,
        booleans and None stay; of anything else there is what `str` says of it.
        """
        try:
            return self._value(value, self._max_depth)
        except Exception:  # noqa: BLE001 - whatever a value does, a secret stays inside
            return _UNREADABLE

    def text(self, text: str) -> str:
        """Return a text without secrets, cut at `max_length`."""
        try:
            return self._text(text)
        except Exception:  # noqa: BLE001 - as above
            return _UNREADABLE

    def is_secret(self, name: str) -> bool:
        """Tell whether what stands under this name is secret."""
        known = self._known.get(name)
        if known is None:
            known = self._judged(name)
            if len(self._known) < _MOST_KNOWN and len(name) <= _SHORT:
                self._known[name] = known
        return known

    def __repr__(self) -> str:
        """Say how much it knows, and nothing of what."""
        more = (
            f"names={len(self._names)} patterns={len(self._patterns)} "
            f"values={len(self._values)}"
        )
        return f"<{type(self).__name__} {more}>"

    def _judged(self, name: str) -> bool:
        words = [word.lower() for word in _WORD.findall(name[:256])]
        joined = "".join(words)
        if joined in self._keep:
            return False
        if joined in self._names or joined.endswith(_ENDINGS):
            return True
        return not _WORDS.isdisjoint(words)

    def _value(self, value: Any, depth: int) -> Any:  # noqa: ANN401 - any data
        if isinstance(value, str):
            return self._text(value)
        if value is None or isinstance(value, (bool, int, float)):
            return _number(value)
        if isinstance(value, (bytes, bytearray)):
            start = bytes(value[: self._max_length + _OVERLAP])
            return self._text(start.decode("utf-8", "replace"))
        # To ask about a dict first is quick, and to ask about any mapping is not.
        if isinstance(value, (dict, Mapping)):
            return self._mapping(value, depth - 1) if depth > 0 else _CUT
        if isinstance(value, (list, tuple, set, frozenset)):
            return self._list(value, depth - 1) if depth > 0 else _CUT
        return self._text(printed(value))

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for number, (key, one) in enumerate(value.items()):
            if number == self._max_items:
                found[_CUT] = len(value) - number
                break
            name = key if isinstance(key, str) else printed(key)
            if self.is_secret(name) and one is not None and not _is_empty(one):
                one = REDACTED  # noqa: PLW2901 - the secret is not used any more
            found[self._text(name)] = self._value(one, depth)
        return found

    def _list(self, value: Iterable[Any], depth: int) -> list[Any]:
        found: list[Any] = []
        name = None
        for number, one in enumerate(value):
            if number == self._max_items:
                found.append(_CUT)
                break
            # Raw headers are pairs: (b"authorization", b"Bearer ...").
            if number == 1 and name is not None and self.is_secret(name):
                found.append(REDACTED)
            else:
                found.append(self._value(one, depth))
            if number == 0 and isinstance(value, (list, tuple)) and len(value) == 2:  # noqa: PLR2004 - a pair
                name = _name_of(one)
        return found

    def _text(self, text: str) -> str:
        if text in self._clean:
            return text
        found = self._searched(text)
        if found == text and len(text) <= _SHORT:
            # Names, paths and messages come again; what is secret is not kept.
            if len(self._clean) >= _MOST_KNOWN:
                self._clean.clear()
            self._clean.add(text)
        return found

    def _searched(self, text: str) -> str:
        is_long = len(text) > self._max_length
        if is_long:
            text = text[: self._max_length + _OVERLAP]
        for value in self._values:
            text = text.replace(value, REDACTED)
        for pattern in self._patterns:
            text = pattern.sub(REDACTED, text)
        lower = text.lower()
        if any(hint in lower for hint in _NAME_HINTS):
            if ":" in text or "=" in text:
                text = _COOKIES.sub(rf"\g<name>{REDACTED}", text)
                text = _NAMED.sub(self._named, text)
            if "--" in text:
                text = _OPTION.sub(self._option, text)
        if "://" in text and "@" in text:
            text = _IN_URL.sub(rf"\g<scheme>{REDACTED}@", text)
        if any(hint in lower for hint in _LOOK_HINTS):
            text = _LOOKS_SECRET.sub(REDACTED, text)
        if not text.isascii():
            # JSON may hold half a character, which no collector and no file takes.
            text = text.encode("utf-8", "backslashreplace").decode("utf-8")
        return text[: self._max_length] + _CUT if is_long else text

    def _named(self, found: re.Match[str]) -> str:
        if self._keeps(found["name"]):
            return found[0]
        quote = found["quote"] or found["escaped"] or ""
        return f"{found['name']}{found['between']}{quote}{REDACTED}{quote}"

    def _option(self, found: re.Match[str]) -> str:
        if self._keeps(found["name"]):
            return found[0]
        return f"--{found['name']}{found['between']}{REDACTED}"

    def _keeps(self, name: str) -> bool:
        return bool(self._keep) and _joined(name) in self._keep


def printed(value: object) -> str:
    """Return what `str` says of anything, its type where that fails."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a broken __str__ must not break its log line
        return f"<unprintable {type(value).__name__}>"


def _is_empty(value: object) -> bool:
    return isinstance(value, str) and not value


def _number(value: Any) -> Any:  # noqa: ANN401 - a number, a boolean or None
    """Return plain numbers: a subclass may print anything."""
    if type(value) in _PLAIN:
        return value
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return value if type(value) is kind else kind(value)
    return value


def _name_of(value: object) -> str | None:
    if isinstance(value, bytes):
        value = value[:256].decode("latin-1")
    return value if isinstance(value, str) else None


def _joined(name: str) -> str:
    return "".join(_WORD.findall(name)).lower()


def _many(name: str, given: Iterable[Any]) -> list[Any]:
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        msg = f"{name}={type(given).__name__} must be a list of them"
        raise TypeError(msg)
    return list(given)


def _texts(name: str, given: Iterable[str]) -> list[str]:
    texts = _many(name, given)
    for one in texts:
        if not isinstance(one, str):
            # Not shown: it may be one of the secrets.
            msg = f"{name}= holds a {type(one).__name__}, all must be texts"
            raise TypeError(msg)
    return texts


def _compiled(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    try:
        compile_: Callable[..., re.Pattern[str]] = re.compile
        found = compile_(pattern)
    except re.error as error:
        msg = f"patterns= holds {pattern!r}, which is no regular expression: {error}"
        raise ValueError(msg) from None
    if not isinstance(found.pattern, str):
        msg = f"patterns= holds {pattern!r}, which is for bytes and not for texts"
        raise TypeError(msg)
    return found


def _long_enough(value: str) -> str:
    if len(value) < _SHORTEST_VALUE:
        msg = (
            f"values= holds a text of {len(value)} characters; "
            f"with less than {_SHORTEST_VALUE} it would be found in every word"
        )
        raise ValueError(msg)
    return value


def _positive(name: str, value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        msg = f"{name}={value!r} must be a positive whole number"
        raise ValueError(msg)
    return value
