"""Write what the SDKs make of each fault: `python -m tests.wire.catalogue_page`.

All rows are played to the installed SDKs. What is recorded of their other majors stays;
beside those in an environment, the same command brings their part up to date.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.wire import record
from tests.wire.outcomes import APIS
from tests.wire.playing import without_sockets
from tests.wire.record import outcome_of
from tests.wire.rows import ROWS, SECTIONS, TEXT, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pytest_tta.faults import LLMFault
    from pytest_tta.wire.exchange import WireAnswer
    from tests.wire.outcomes import Outcome
    from tests.wire.record import Recorded

__all__ = ["BODY", "PATH", "text"]

PATH = Path(__file__).parents[2] / "docs" / "reference" / "llm-faults.md"
_HEAD = """\
# What goes wrong with language models

<!-- Made by `python -m tests.wire.catalogue_page`: change the catalogue, not this page.
-->

All names below are functions of `pytest_tta.faults`. Each makes one fault for all
heights: `tta.faults.at("llm").inject(rate_limit(after=30))` at a primitive,
`tta.wire.openai.fails(rate_limit(after=30))` under a vendor's SDK. On the wire a fault
is bytes and moments. Which error that becomes is for the SDK to say, and these tables
show what it says, asked with `max_retries=1`. In a clone,
`python -m tests.wire.catalogue_page` asks anew and writes this page.

Every row was played twice: by a raw server on the loopback, and by what stands in for
the network in a test. Both had the same outcome in each. Only `dns()` was not sent, as
names are not looked up on the loopback.

| words | meaning |
| --- | --- |
| wire | what is sent; where vendors differ, what OpenAI's chat completions send |
| correct | what a correct client may do: retry (from when on), give up, or take it |
| retries after 30 s | the SDK itself tries again, and wants to wait that long before |
| its own pause | about half a second, which the SDK chooses by itself |
| **silent** | nothing is raised, and what is returned is not the whole, sound answer |
| whole | nothing is raised, and the answer is the whole one |
| after "Paris is" | the text that had come by then |
| † | an older major does otherwise: see [Older majors](#older-majors) |
"""
_OLDER = """\
## Older majors

SDKs of these majors send with httpx, those of today with httpx2. All rows were played
to them, too, in both ways. What is not here is the same.
"""
_CHANGED = " †"
_TOLD = ("retry-after", "retry-after-ms", "x-should-retry", "content-encoding")
_ENDINGS = {
    "closed": "closed early",
    "reset": "reset",
    "silent": "then silence",
}
_CONNECTS = {
    "refused": "connection refused",
    "unresolved": "name without address",
    "silent": "connection not accepted",
}
_LONGEST = 40
_SOUND = {"stop", "completed", "end_turn"}


def text(recorded: Mapping[str, Sequence[Recorded]]) -> str:
    """Return the page.

    Args:
        recorded: What each SDK makes of all rows, the newest major first.
    """
    shown = _shown_of(recorded)
    parts = [_HEAD]
    for title, faults in SECTIONS.items():
        parts.append(f"## {title}\n")
        for how, rows in _grouped(faults, shown).items():
            if rows:
                parts += [f"{how}:\n", *_table(rows), ""]
    parts.append(_OLDER)
    for newest, *older in recorded.values():
        for one in older:
            parts += [*_otherwise(one, newest), ""]
    return "\n".join([*parts, "## Versions\n", *_versions(recorded)]) + "\n"


def _shown_of(recorded: Mapping[str, Sequence[Recorded]]) -> dict[Row, str]:
    """Return the cells: what the newest majors do, and whether older ones differ."""
    shown: dict[Row, str] = {}
    for newest, *older in recorded.values():
        for name, row in _BY_NAME.items():
            if name in newest.rows:
                mark = (
                    _CHANGED if any(_differ(one, newest, name) for one in older) else ""
                )
                shown[row] = _outcome(outcome_of(newest.rows[name])) + mark
    return shown


_BY_NAME = {str(row): row for row in ROWS}


def _differ(one: Recorded, other: Recorded, name: str) -> bool:
    return one.rows[name] != other.rows[name]


def _otherwise(older: Recorded, newest: Recorded) -> Iterator[str]:
    """Yield the table of what an older major does otherwise."""
    yield f"| fault | asked | {older} | {newest} |"
    yield "| --- | --- | --- | --- |"
    asked: dict[tuple[str, str, str], list[Row]] = {}
    for name, row in _BY_NAME.items():
        if name in newest.rows and _differ(older, newest, name):
            pair = [_outcome(outcome_of(one.rows[name])) for one in (older, newest)]
            asked.setdefault((f"`{row.fault!r}`", *pair), []).append(row)
    for (fault, before, now), rows in asked.items():
        yield f"| {fault} | {_asked(rows)} | {before} | {now} |"


def _asked(rows: Sequence[Row]) -> str:
    """Return on which APIs, and whether streamed."""
    apis = ", ".join(dict.fromkeys(row.api for row in rows))
    ways = {row.stream for row in rows}
    return apis if len(ways) > 1 else f"{apis}, {_WAYS[ways.pop()]}"


_WAYS = {True: "streamed", False: "not streamed"}


def _versions(recorded: Mapping[str, Sequence[Recorded]]) -> Iterator[str]:
    yield "| SDK | today | older |"
    yield "| --- | --- | --- |"
    for sdk, (newest, *older) in recorded.items():
        before = ", ".join(one.version for one in older)
        yield f"| {sdk} | {newest.version} | {before} |"


def _grouped(
    faults: Iterable[LLMFault], shown: Mapping[Row, str]
) -> dict[str, list[list[str]]]:
    """Return the rows of tables: what is the same in both ways stands there once."""
    either, whole, stream = [], [], []
    for fault in faults:
        unlike, alike = (
            _cells(fault, shown, stream=False),
            _cells(fault, shown, stream=True),
        )
        if unlike[3:] == alike[3:]:
            either.append(unlike)
        else:
            whole += [unlike] if any(unlike[3:]) else []
            stream += [alike] if any(alike[3:]) else []
    return {"Streamed or not": either, "Not streamed": whole, "Streamed": stream}


def _cells(fault: LLMFault, shown: Mapping[Row, str], *, stream: bool) -> list[str]:
    rows = [Row(fault, api, stream) for api in APIS]
    outcomes = [shown.get(row, "") for row in rows]
    sent = [row.answer({**BODY, "stream": stream}) for row in rows if row in shown]
    wire = _wire(sent[0]) if sent else ""
    return [f"`{fault!r}`", wire, _correct(fault), *outcomes]


def _table(rows: list[list[str]]) -> Iterator[str]:
    yield f"| fault | wire | correct | {' | '.join(APIS)} |"
    yield f"| --- | --- | --- |{' --- |' * len(APIS)}"
    for cells in rows:
        yield f"| {' | '.join(cells)} |"


BODY = {
    "model": "m",
    "max_tokens": 9,
    "messages": [{"role": "user", "content": "?"}],
    "input": "?",
}


def _wire(answer: WireAnswer) -> str:
    if answer.connect != "open":
        return _CONNECTS[answer.connect]
    if not answer.reads_request:
        return "request not read"
    if not answer.has_head:
        return {"closed": "closed", "reset": "reset"}.get(answer.ending, "silence")
    if answer.raw_head is not None:
        return f"`{answer.raw_head.decode().strip()}`"
    kind = (answer.header("content-type") or "").partition(";")[0]
    told = [f"`{key}: {value}`" for key, value in answer.headers if key in _TOLD]
    if any("GMT" in one for one in told):
        told = ["`retry-after:` a date in 30 s"]
    last = answer.body[-1][0] if answer.body else 0.0
    late = f"after {answer.head_after + last:g} s" if answer.head_after + last else ""
    ending = _ENDINGS.get(answer.ending, "")
    status = f"{answer.status} {_word(answer)}".strip()
    return ", ".join(one for one in (status, kind, *told, late, ending) if one)


def _word(answer: WireAnswer) -> str:
    """Return the code or the type of an error, "" for what is none."""
    if answer.header("content-type") != "application/json" or answer.status == 200:
        return ""
    error = json.loads(answer.body[0][1])["error"]
    return f"`{error['code'] or error['type']}`"


def _correct(fault: LLMFault) -> str:
    expect = fault.expect
    if expect.may_retry and expect.not_before is not None:
        return f"retry from {expect.not_before:g} s on"
    words = [
        *(["take it"] if expect.may_accept else []),
        *(["retry"] if expect.may_retry else []),
    ]
    return " or ".join(words) or "give up"


def _outcome(outcome: Outcome) -> str:
    if outcome.errors:
        return _failure(outcome)
    said = [f"`{_escaped(one)}`" for one in outcome.more]
    is_whole = outcome.text == TEXT and outcome.ending in _SOUND and not said
    if is_whole:
        return "whole"
    kind = "" if outcome.kind in _KINDS else f"`{outcome.kind}`"
    shown = _shown(outcome.text) if outcome.text else "no text"
    ending = f"`{outcome.ending}`" if outcome.ending else ""
    return "**silent**: " + ", ".join(x for x in (kind, shown, ending, *said) if x)


_KINDS = {"ChatCompletion", "Response", "Message", "stream"}


def _failure(outcome: Outcome) -> str:
    chain = " from ".join(f"`{name}`" for name in outcome.errors)
    status = f" {outcome.status}" if outcome.status is not None else ""
    words = [f"{chain}{status}"]
    words += [f"retries after {_pause(pause)}" for pause in outcome.pauses]
    if outcome.text:
        words.append(f"after {_shown(outcome.text)}")
    return ", ".join(words)


def _pause(pause: object) -> str:
    return "its own pause" if pause == "own" else f"{pause:g} s"


def _shown(said: str) -> str:
    """Return what came, in quotation marks unless it is all of it."""
    short = " ".join(said.split())
    if len(short) > _LONGEST:
        short = short[:_LONGEST].strip() + "..."
    return "the whole text" if said == TEXT else f'"{_escaped(short)}"'


def _escaped(said: str) -> str:
    return re.sub(r"([|<>])", r"\\\1", said)


def main() -> int:
    """Play all rows to the installed SDKs, and write record and page."""
    made = record.installed_record(without_sockets(ROWS))
    recorded = record.merged(record.read(), made)
    record.write(recorded)
    PATH.write_text(text(recorded), "utf-8")
    sys.stdout.write(f"{PATH} is written.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
