"""Texts that match a regular expression or a format, drawn from a seeded generator."""

from __future__ import annotations

import importlib
import re
import string
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

__all__ = ["FORMATS", "matching", "words"]

# Where the standard library takes expressions apart; private since 3.11, and named so.
codes: Any = importlib.import_module("re._constants")
parser: Any = importlib.import_module("re._parser")

_WORDS = [
    "amber",
    "basil",
    "cedar",
    "delta",
    "ember",
    "fable",
    "grove",
    "heron",
    "indigo",
    "jasper",
    "kite",
    "linden",
    "maple",
    "nectar",
    "opal",
    "pearl",
    "quartz",
    "river",
    "saffron",
    "tulip",
    "umber",
    "violet",
    "willow",
    "zephyr",
]
_PRINTABLE = string.ascii_letters + string.digits + " -_.,"
_CATEGORIES = {
    codes.CATEGORY_DIGIT: string.digits,
    codes.CATEGORY_NOT_DIGIT: string.ascii_letters,
    codes.CATEGORY_WORD: string.ascii_letters + string.digits + "_",
    codes.CATEGORY_NOT_WORD: " -.,",
    codes.CATEGORY_SPACE: " ",
    codes.CATEGORY_NOT_SPACE: string.ascii_letters + string.digits,
}
_EXTRA_REPEATS = 3
_TRIES = 100
_START = datetime(2024, 1, 1, tzinfo=UTC)
_TWO_YEARS = 2 * 365 * 24 * 3600


def words(rng: random.Random, shortest: int, longest: int | None) -> str:
    """Return a few plain words of a length between two bounds, in characters."""
    text = " ".join(rng.choices(_WORDS, k=2))
    while len(text) < shortest:
        text += f" {rng.choice(_WORDS)}"
    if longest is None or len(text) <= longest:
        return text
    text = text[:longest]
    # A blank at the end would be lost where texts are stripped.
    return text[:-1] + "x" if text.endswith(" ") else text


def matching(
    pattern: str, rng: random.Random, shortest: int = 0, longest: int | None = None
) -> str:
    """Return a text in which a regular expression is found.

    Args:
        pattern: The expression, searched for and not anchored, as JSON schema has it.
        rng: Where chance comes from.
        shortest: The fewest characters.
        longest: The most characters, None for any number.

    Raises:
        ValueError: It uses what is not supported (look-around), or no text of such a
            length was found.
    """
    try:
        parsed = parser.parse(pattern)
    except re.error as error:
        msg = f"pattern {pattern!r} is no regular expression: {error}"
        raise ValueError(msg) from None
    for _ in range(_TRIES):
        text = _Writer(rng).sequence(parsed)
        fits = shortest <= len(text) and (longest is None or len(text) <= longest)
        if fits and re.search(pattern, text):
            return text
    msg = f"no text of the allowed length was found for the pattern {pattern!r}"
    raise ValueError(msg)


class _Writer:
    """Writes one text for a parsed regular expression."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._groups: dict[int, str] = {}

    def sequence(self, parsed: Any) -> str:  # noqa: ANN401 - re's private tree
        return "".join(self._node(code, argument) for code, argument in parsed)

    def _node(self, code: object, argument: Any) -> str:  # noqa: ANN401 - as above
        write = _NODES.get(code)
        if write is None:
            name = str(code).lower().replace("_", " ")
            msg = f"a pattern with {name!r} is not supported"
            raise ValueError(msg)
        return write(self, argument)

    def _repeat(self, argument: tuple[int, int, Any]) -> str:
        least, most, item = argument
        most = min(most, least + _EXTRA_REPEATS)
        return "".join(
            self.sequence(item) for _ in range(self._rng.randint(least, most))
        )

    def _group(self, argument: tuple[int | None, int, int, Any]) -> str:
        number, _, _, item = argument
        text = self.sequence(item)
        if number is not None:
            self._groups[number] = text
        return text

    def _one_of(self, members: list[tuple[object, Any]]) -> str:
        refused = members[0][0] is codes.NEGATE
        named = "".join(_characters(*member) for member in members[refused:])
        allowed = [c for c in _PRINTABLE if c not in named] if refused else named
        return self._rng.choice(allowed)

    def _other_than(self, character: int) -> str:
        return self._rng.choice([c for c in _PRINTABLE if ord(c) != character])


_NODES: dict[object, Callable[[_Writer, Any], str]] = {
    codes.LITERAL: lambda _, character: chr(character),
    codes.NOT_LITERAL: _Writer._other_than,
    codes.ANY: lambda writer, _: writer._rng.choice(string.ascii_letters),
    codes.AT: lambda _, __: "",
    codes.IN: _Writer._one_of,
    codes.BRANCH: lambda writer, branches: writer.sequence(
        writer._rng.choice(branches[1])
    ),
    codes.SUBPATTERN: _Writer._group,
    codes.ATOMIC_GROUP: _Writer.sequence,
    codes.GROUPREF: lambda writer, number: writer._groups.get(number, ""),
    codes.MAX_REPEAT: _Writer._repeat,
    codes.MIN_REPEAT: _Writer._repeat,
    codes.POSSESSIVE_REPEAT: _Writer._repeat,
}


def _characters(code: object, argument: Any) -> str:  # noqa: ANN401 - as above
    if code is codes.LITERAL:
        return chr(argument)
    if code is codes.RANGE:
        first, last = argument
        return "".join(map(chr, range(first, last + 1)))
    return _CATEGORIES[argument]


def _moment(rng: random.Random) -> datetime:
    return _START + timedelta(seconds=rng.randrange(_TWO_YEARS))


def _host(rng: random.Random) -> str:
    return f"{rng.choice(_WORDS)}.example.com"


def _ip4(rng: random.Random) -> str:
    # RFC 5737 keeps this block for documentation.
    return f"192.0.2.{rng.randrange(1, 255)}"


FORMATS: dict[str, Callable[[random.Random], str]] = {
    "date-time": lambda rng: _moment(rng).isoformat().replace("+00:00", "Z"),
    "date": lambda rng: _moment(rng).date().isoformat(),
    "time": lambda rng: f"{_moment(rng).time().isoformat()}Z",
    "duration": lambda rng: f"PT{rng.randrange(1, 60)}M",
    "email": lambda rng: f"{rng.choice(_WORDS)}@example.com",
    "hostname": _host,
    "ipv4": _ip4,
    # RFC 3849 keeps this prefix for documentation.
    "ipv6": lambda rng: f"2001:db8::{rng.randrange(1, 65536):x}",
    "uri": lambda rng: f"https://{_host(rng)}/{rng.choice(_WORDS)}",
    "uuid": lambda rng: str(uuid.UUID(int=rng.getrandbits(128), version=4)),
    "byte": lambda rng: rng.choice(("YW1iZXI=", "b3BhbA==", "a2l0ZQ==")),
}
