"""A plan on one line: what a report prints and `--tta-replay` takes.

    tta1 f=load/1:Retry#2:lost-ack c=main@3 s=op.sticky:0>1,5>1 r=7 h=0 t=3fa9c1d2

What is as by default is left out. No part contains a blank, a quote or anything that a
shell takes for itself between single quotes, where the line is meant to be pasted.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, get_args
from urllib.parse import quote, unquote

from pytest_tta.explore.plan import (
    VERSION,
    Cancellation,
    FaultAt,
    Mode,
    Order,
    Plan,
    Schedule,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["from_line", "to_line"]

LONGEST = (
    120  # Characters of deviations that are written so that a human can read them.
)
MOST_BYTES = 1 << 20  # Of what a packed list may unpack to: 300,000 deviations or so.
# Besides letters, digits and "_.-~". A comma, a percent sign and an equals sign mean
# something to us, quotes, backslash, dollar and backtick to shells.
_PLAIN = "/:#@[]()+*<>|^{}?;&"
_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_EXAMPLE = "tta1 f=load#1:lost-ack s=op.sticky:0>1"

T = TypeVar("T")


def to_line(plan: Plan) -> str:
    """Write a plan on one line, to be pasted behind `--tta-replay=` in single quotes.

    Args:
        plan: The plan.

    Raises:
        ValueError: It is of another version than this one.
    """
    if plan.version != VERSION:
        msg = f"a plan of version {plan.version!r} cannot be written as {VERSION}"
        raise ValueError(msg)
    cancelled = plan.cancellation
    parts = {
        "f": ",".join(
            f"{_text(f.site)}#{f.number}:{_name(f.kind)}" for f in plan.faults
        ),
        "c": f"{_text(cancelled.task)}@{cancelled.point}" if cancelled else "",
        "s": _schedule(plan.schedule),
        "r": str(plan.seed) if plan.seed else "",
        "x": _text(plan.input),
        "h": "" if plan.hash_seed is None else str(plan.hash_seed),
        "t": _text(plan.tree),
    }
    return " ".join(
        [f"tta{VERSION}", *(f"{key}={value}" for key, value in parts.items() if value)]
    )


def _text(text: str) -> str:
    return quote(text, safe=_PLAIN, errors="surrogatepass")


def _name(kind: str) -> str:
    """Write a text that ends at no colon of its own."""
    return _text(kind).replace(":", "%3A")


def _schedule(schedule: Schedule) -> str:
    if schedule == Schedule():
        return ""
    head = f"{schedule.mode}.{schedule.order}"
    if schedule.early:
        head += f".e{schedule.early}"
    if not schedule.deviations:
        return head
    shown = ",".join(f"{point}>{index}" for point, index in schedule.deviations)
    if len(shown) > LONGEST:
        packed = _packed(schedule.deviations)
        if len(packed) < len(shown):
            return f"{head}~{packed}"
    return f"{head}:{shown}"


def _packed(deviations: tuple[tuple[int, int], ...]) -> str:
    """Press deviations: distances and indexes, seven bits to a byte, then zlib."""
    plain = bytearray()
    before = 0
    for point, index in deviations:
        # Zigzag, so that points out of order survive too.
        gap = point - before
        for number in ((gap << 1) if gap >= 0 else (-gap << 1) - 1, index):
            rest = number
            while rest > 0x7F:  # noqa: PLR2004 - seven bits
                plain.append(rest & 0x7F | 0x80)
                rest >>= 7
            plain.append(rest)
        before = point
    return base64.urlsafe_b64encode(zlib.compress(plain, 9)).rstrip(b"=").decode()


def from_line(text: str) -> Plan:
    """Read a plan from the line that a report has printed.

    Args:
        text: The line; quotes and blanks around it do no harm.

    Raises:
        ValueError: It is no such line, or one of another version; the message shows
            which part is wrong.
    """
    first, *parts = text.strip().strip("'\"").split() or [""]
    version = re.fullmatch("tta([0-9]{1,9})", first)
    if version is None:
        _fail(text, f"it must begin with 'tta{VERSION}', as in {_EXAMPLE!r}")
    if int(version[1]) != VERSION:
        _fail(text, f"{first!r} was written by another release; this one reads tta1")
    fields: dict[str, Any] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if key not in _READERS or not equals:
            _fail(text, f"there is no part {part!r}, only {', '.join(_READERS)}")
        name, read = _READERS[key]
        if name in fields:
            _fail(text, f"the part {key}= stands there twice")
        try:
            fields[name] = read(value)
        except ValueError as error:
            _fail(text, f"{part!r}: {error}")
    return Plan(**fields)


def _fail(text: str, why: str) -> NoReturn:
    msg = f"{text!r} is no line to replay: {why}"
    raise ValueError(msg) from None


def _read_text(text: str) -> str:
    bad = _BAD_ESCAPE.search(text)
    if bad is not None:
        msg = f"{text[bad.start() :][:3]!r} is no escape such as %20"
        raise ValueError(msg)
    try:
        return unquote(text, errors="surrogatepass")
    except UnicodeDecodeError:
        msg = f"{text!r} is not UTF-8 after its escapes"
        raise ValueError(msg) from None


def _read_number(text: str, what: str, least: int = 0) -> int:
    if re.fullmatch("[0-9]{1,18}", text) is None or int(text) < least:
        msg = f"{what} must be a number from {least}, not {text!r}"
        raise ValueError(msg)
    return int(text)


def _read_seed(text: str) -> int:
    if re.fullmatch("-?[0-9]{1,1000}", text) is None:
        msg = f"a seed must be a whole number, not {text!r}"
        raise ValueError(msg)
    return int(text)


def _read_hash_seed(text: str) -> int:
    return _read_number(text, "the seed of hashes")


def _read_faults(text: str) -> tuple[FaultAt, ...]:
    return tuple(_read_fault(item) for item in text.split(","))


def _read_fault(item: str) -> FaultAt:
    call, colon, kind = item.rpartition(":")
    site, hash_sign, number = call.rpartition("#")
    if not (colon and hash_sign and site and kind):
        msg = f"a fault is <site>#<call>:<kind>, not {item!r}"
        raise ValueError(msg)
    return FaultAt(
        _read_text(site), _read_number(number, "the call", 1), _read_text(kind)
    )


def _read_cancellation(text: str) -> Cancellation:
    task, at, point = text.rpartition("@")
    if not (at and task):
        msg = f"a cancellation is <task>@<moment of rest>, not {text!r}"
        raise ValueError(msg)
    return Cancellation(_read_text(task), _read_number(point, "the moment of rest"))


def _read_schedule(text: str) -> Schedule:
    head, mark, tail = re.fullmatch("([^:~]*)([:~]?)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    mode, _, rest = head.partition(".")
    order, dot, early = rest.partition(".")
    return Schedule(
        _one_of(mode, get_args(Mode), "the mode"),
        _one_of(order, get_args(Order), "the order"),
        tuple(_checked(_unpacked(tail) if mark == "~" else _read_pairs(tail)))
        if mark
        else (),
        _read_early(early) if dot else 0,
    )


def _one_of(text: str, known: tuple[T, ...], what: str) -> T:
    for one in known:
        if one == text:
            return one
    msg = f"{what} is one of {', '.join(map(str, known))}, not {text!r}"
    raise ValueError(msg)


def _read_early(text: str) -> int:
    if not text.startswith("e"):
        msg = f"behind the order stands e and a number, not {text!r}"
        raise ValueError(msg)
    return _read_number(text[1:], "the number of early limits")


def _read_pairs(text: str) -> Iterator[tuple[int, int]]:
    for item in text.split(","):
        point, sign, index = item.partition(">")
        if not sign:
            msg = f"a deviation is <choice>><index>, not {item!r}"
            raise ValueError(msg)
        yield _read_number(point, "a choice"), _read_number(index, "an index", 1)


def _unpacked(text: str) -> Iterator[tuple[int, int]]:
    """Read back what `_packed` wrote."""
    numbers = _numbers(_inflated(text))
    point = 0
    for gap in numbers:
        point += gap >> 1 if not gap & 1 else -((gap + 1) >> 1)
        index = next(numbers, 0)
        if point < 0 or index < 1:
            _broken(text)
        yield point, index


def _broken(text: str) -> NoReturn:
    msg = f"the packed deviations {text!r} are damaged; were they copied wholly?"
    raise ValueError(msg) from None


def _inflated(text: str) -> bytes:
    press = zlib.decompressobj()
    try:
        padded = (text + "=" * (-len(text) % 4)).encode("ascii")
        plain = press.decompress(
            base64.b64decode(padded, altchars=b"-_", validate=True), MOST_BYTES
        )
    except (ValueError, binascii.Error, zlib.error):
        _broken(text)
    if not press.eof or press.unused_data:
        _broken(text)
    return plain


def _numbers(plain: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in plain:
        number |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            yield number
            number = shift = 0


def _checked(deviations: Iterator[tuple[int, int]]) -> list[tuple[int, int]]:
    found = list(deviations)
    points = [point for point, _ in found]
    if len(set(points)) < len(points):
        twice = next(point for point in points if points.count(point) > 1)
        msg = f"choice {twice} deviates twice"
        raise ValueError(msg)
    return found


_READERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "f": ("faults", _read_faults),
    "c": ("cancellation", _read_cancellation),
    "s": ("schedule", _read_schedule),
    "r": ("seed", _read_seed),
    "x": ("input", _read_text),
    "h": ("hash_seed", _read_hash_seed),
    "t": ("tree", _read_text),
}
