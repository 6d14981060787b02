"""What the SDKs made of the rows when they were last asked, by SDK and major version.

Beside another major of an SDK, `python -m tests.wire.record FILE` plays all rows to it,
in both ways, and writes what it has seen.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import anthropic
import openai

from tests.wire.outcomes import Outcome
from tests.wire.playing import on_sockets, without_sockets
from tests.wire.rows import ROWS, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "INSTALLED",
    "PATH",
    "Recorded",
    "installed_record",
    "merged",
    "outcome_of",
    "read",
    "sdk_of",
    "seen",
    "unlike",
    "write",
]

PATH = Path(__file__).with_name("recorded_outcomes.json")
INSTALLED = {"openai": openai.__version__, "anthropic": anthropic.__version__}
# What an error says is for people, and an SDK may say it otherwise at any time.
_FIELDS = [one for one in fields(Outcome) if one.name != "message"]


class Recorded(NamedTuple):
    """What one version of an SDK makes of its rows.

    Attributes:
        sdk: Its name.
        version: Such as "3.57.0".
        rows: By the name of a row: what is not empty of its outcome.
    """

    sdk: str
    version: str
    rows: dict[str, dict[str, object]]

    @property
    def major(self) -> int:
        """The first number of the version."""
        return int(self.version.partition(".")[0])

    def __str__(self) -> str:
        return f"{self.sdk} {self.version}"


def sdk_of(row: Row) -> str:
    """Return the name of the SDK that a row is played to."""
    return row.api.partition(".")[0]


def seen(outcome: Outcome) -> dict[str, object]:
    """Return what is not empty of an outcome, without its message, as JSON has it."""
    values = {one.name: getattr(outcome, one.name) for one in _FIELDS}
    return json.loads(json.dumps({k: value for k, value in values.items() if value}))


def outcome_of(values: Mapping[str, object]) -> Outcome:
    """Return an outcome without its message, from what is recorded of it."""
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return Outcome(**plain)


def installed_record(found: Mapping[Row, Outcome]) -> dict[str, Recorded]:
    """Return the outcomes of the installed SDKs, by SDK."""
    made = {sdk: Recorded(sdk, version, {}) for sdk, version in INSTALLED.items()}
    for row in (row for row in ROWS if row in found):
        made[sdk_of(row)].rows[str(row)] = seen(found[row])
    return made


def read(path: Path = PATH) -> dict[str, list[Recorded]]:
    """Return what is recorded of each SDK, the newest major first."""
    kept: dict[str, list[Recorded]] = {}
    for sdk, versions in json.loads(path.read_text("utf-8")).items():
        newest: dict = {}
        for version, rows in versions.items():
            # Of older ones the file has what they do otherwise.
            newest = newest or rows
            kept.setdefault(sdk, []).append(Recorded(sdk, version, {**newest, **rows}))
    return kept


def write(recorded: Mapping[str, Iterable[Recorded]], path: Path = PATH) -> None:
    """Keep what is recorded, with one line for each row."""
    sdks = []
    for sdk, (newest, *older) in recorded.items():
        versions = [_version(newest.version, newest.rows)]
        for one in older:
            rows = {
                name: one.rows[name]
                for name, values in newest.rows.items()
                if one.rows.get(name, values) != values
            }
            versions.append(_version(one.version, rows))
        sdks.append(f'"{sdk}": {{\n{_joined(versions)}\n}}')
    path.write_text(f"{{\n{_joined(sdks)}\n}}\n", "utf-8")


def _version(version: str, rows: Mapping[str, object]) -> str:
    lines = [f"{_json(name)}: {_json(values)}" for name, values in rows.items()]
    return f'"{version}": {{\n{_joined(lines)}\n}}'


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _joined(members: Iterable[str]) -> str:
    return ",\n".join(members)


def merged(
    kept: Mapping[str, list[Recorded]], made: Mapping[str, Recorded]
) -> dict[str, list[Recorded]]:
    """Return what is recorded, with new records in place of those of their majors."""
    return {
        sdk: sorted(
            [one, *(other for other in kept.get(sdk, ()) if other.major != one.major)],
            key=lambda one: one.major,
            reverse=True,
        )
        for sdk, one in made.items()
    }


def unlike(played: Mapping[Row, Outcome]) -> dict[Row, tuple[Outcome, Outcome]]:
    """Play rows on sockets, and return those whose outcomes were others before.

    Names are not looked up on the loopback, and rows that need one are left out. What a
    busy machine may have spoilt is sent once more.

    Args:
        played: The outcomes without sockets.
    """
    rows = list(played)
    for _ in range(2):
        truth = asyncio.run(on_sockets(rows))
        rows = [row for row, outcome in truth.items() if outcome != played[row]]
    return {row: (played[row], truth[row]) for row in rows}


def main(path: str) -> int:
    """Play all rows to the installed SDKs, and write what they make of them."""
    played = without_sockets(ROWS)
    differing = unlike(played)
    for row, (without, on) in differing.items():
        sys.stderr.write(f"{row}\nwithout sockets: {without}\non sockets: {on}\n")
    made = {sdk: [one] for sdk, one in installed_record(played).items()}
    write(made, Path(path))
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
