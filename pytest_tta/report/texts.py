"""Texts fit for any report: without secrets, without control characters, not too long.

What a test was given, what a model answered and what an error says may be anything: an
escape sequence that clears the terminal, a key, ten megabytes.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, overload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["clean", "hiding", "redacted", "safe", "shortened"]

# Patterns are compiled when they are first used: most sessions print nothing strange.

# What changes a terminal, the direction of a line or nothing that can be seen, and what
# no file takes; newlines and tabs are no part of it.
_STRANGE = (
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 and C1, with ESC and the carriage return.
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e"  # Seen by nobody.
    "\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"  # Lines, directions, joiners.
    "\ufeff\ufff9-\ufffb\ufffe\uffff"  # Marks of files, and no characters.
    "\ud800-\udfff"  # Halves of characters.
    "\U000e0000-\U000e007f]"  # Tags: text within text that only a model reads.
)
# The end of an escape that `repr` writes, or of a sequence for terminals, where it
# would seem to belong to a word: a key that stands after it is found all the same.
_ESCAPE_BEFORE_WORD = (
    r"((?:\x1b|\\x1b)\[[\d;?]*[A-Za-z]"
    r"|\\(?:[abfnrtv]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}))(?=\w)"
)
_APART = "\x00\x01\x00"
# A secret may begin before the cut and end behind it: so much more is looked at.
_OVERLAP: Final = 8192
_HEAD: Final = 3 / 4


def clean(text: str) -> str:
    r"""Return a text with control characters and the like written as escapes.

    Escape sequences, lone surrogates, bidirectional controls and what cannot be seen
    become `\x1b`, `\ud800`, `\u202e`; newlines and tabs stay.

    Args:
        text: Any text.
    """
    return text if text.isprintable() else re.sub(_STRANGE, _escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x100:  # noqa: PLR2004 - what two digits can say
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - four digits


def shortened(text: str, most: int, *, unseen: int = 0) -> str:
    """Return a text with its middle cut out if it is too long, saying how much.

    Args:
        text: Any text.
        most: How many characters it may have, beside the words that say what is left
            out.
        unseen: How many characters were cut out of its middle before.
    """
    if len(text) <= most:
        return text
    head = int(most * _HEAD)
    tail = most - head
    left_out = len(text) - most + unseen
    end = text[len(text) - tail :]
    return f"{text[:head]}... [{left_out:,} characters left out] ...{end}"


def safe(text: str, most: int, *, hide: Callable[[object], Any] | None = None) -> str:
    """Return a text fit for any report: without secrets, clean and cut.

    Of a very long text only the beginning and the end are looked at.

    Args:
        text: Any text.
        most: How many characters it may have.
        hide: What `hiding` gave; as things are now unless given.
    """
    looked_at = most + _OVERLAP
    unseen = max(len(text) - 2 * looked_at, 0)
    if unseen:
        text = text[:looked_at] + text[-looked_at:]
    seen: str = (hide or hiding())(text)
    return shortened(clean(seen), most, unseen=unseen)


@overload
def redacted(value: str) -> str: ...
@overload
def redacted(value: Mapping[str, Any]) -> dict[str, Any]: ...
@overload
def redacted(value: object) -> Any: ...  # noqa: ANN401 - as what is given
def redacted(value: object) -> Any:
    """Return a text or nested data without secrets.

    Keys, passwords and tokens are known by their names and by their looks, and by
    standing in the environment of this process.

    Args:
        value: A text; or a mapping, a list, anything: what is under the name of a
            secret is hidden, other objects become texts.
    """
    return hiding()(value)


def hiding() -> Callable[[object], Any]:
    """Return what `redacted` does now, for whoever has many texts.

    To look the environment through takes longer than to look at a short text.
    """
    secrets = (value for name, value in os.environ.items() if _is_named_as_secret(name))
    return _hiding(tuple(secrets))


@lru_cache(maxsize=1024)
def _is_named_as_secret(name: str) -> bool:
    from pytest_tta.tape.redaction import names_secret

    return names_secret(name)


@lru_cache(maxsize=4)
def _hiding(secrets: tuple[str, ...]) -> Callable[[object], Any]:
    """Return what hides these values, and whatever looks like a secret."""
    from pytest_tta.tape import redaction as of_tapes
    from tta_primitives.observability.redaction import Redactor

    known = of_tapes.Redactor({f"SECRET_{i}": one for i, one in enumerate(secrets)})
    looking = Redactor(max_length=1 << 31, max_items=1 << 31, max_depth=100)
    looking_in = looking.text

    def hidden(value: object) -> Any:  # noqa: ANN401 - as what is given
        if isinstance(value, str):
            apart = re.sub(_ESCAPE_BEFORE_WORD, rf"\1{_APART}", value)
            return looking_in(known.text(apart)).replace(_APART, "")
        return known.value(looking(value))

    return hidden
