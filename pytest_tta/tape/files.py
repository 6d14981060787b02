"""Tapes on disk: YAML that a reviewer can read, JSON where PyYAML is missing."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from pytest_tta.tape.errors import TapeError
from pytest_tta.tape.form import Broken, Line
from pytest_tta.writing import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = [
    "check_format",
    "explained",
    "has_yaml",
    "read",
    "tape_file",
    "text_of",
    "write",
]

YAML, JSON = ".yaml", ".json"
# What YAML takes for the end of a line, and gives back as a blank, unless it is quoted
# and escaped (YAML 1.1, section 4.2).
_BREAKS = frozenset("\r\x85\u2028\u2029")
_INSTALL = 'pip install "tta-dev-primitives[tape]"'


def has_yaml() -> bool:
    """Tell whether PyYAML is installed."""
    return importlib.util.find_spec("yaml") is not None


def _yaml() -> Any:  # noqa: ANN401 - it is optional, and so are its types
    return importlib.import_module("yaml")


def tape_file(path: Path) -> Path:
    """Return the file of a tape: the one that exists, or else the one to be made.

    Args:
        path: Where it is; without `.yaml` or `.json` at its end, either is meant.

    Raises:
        TapeError: There are both.
    """
    if path.suffix in {YAML, JSON}:
        return path
    kinds = [path.with_name(path.name + suffix) for suffix in (YAML, JSON)]
    found = [one for one in kinds if one.exists()]
    if len(found) > 1:
        msg = f"{found[0]} and {found[1].name} are both there; delete one of them"
        raise TapeError(msg)
    return found[0] if found else kinds[0 if has_yaml() else 1]


def read(path: Path) -> Any:  # noqa: ANN401 - whatever is in it
    """Return what is in a file.

    Raises:
        TapeError: It is neither YAML nor JSON, whichever it should be.
    """
    text = path.read_text("utf-8")
    if path.suffix == JSON:
        try:
            return json.loads(text)
        except ValueError as error:
            msg = f"{path} is no JSON: {error}"
            raise TapeError(msg) from None
    yaml = _yaml()
    try:
        return yaml.load(text, Loader=_loader())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f", line {mark.line + 1}"
        why = getattr(error, "problem", None) or str(error)
        msg = f"{path}{where} is no YAML: {why}"
        raise TapeError(msg) from None


def check_format(path: Path) -> None:
    """Refuse a file that cannot be read, or be written.

    Raises:
        TapeError: PyYAML is not installed.
    """
    if path.suffix != JSON and not has_yaml():
        msg = f"{path} is YAML, and PyYAML is not installed: {_INSTALL}"
        raise TapeError(msg)


def text_of(data: dict[str, Any], path: Path) -> str:
    """Return what is to be written to a file."""
    if path.suffix == JSON:
        return "\n".join(_json_lines(data)) + "\n"
    yaml = _yaml()
    text: str = yaml.dump(
        data,
        Dumper=_dumper(),
        allow_unicode=True,
        default_flow_style=False,
        sort_keys=False,
        width=float("inf"),
    )
    return text


def write(path: Path, text: str) -> None:
    """Write a file as a whole, or not at all."""
    write_whole(path, text)


def line_of(path: Path, where: Iterable[str | int]) -> int | None:
    """Return the line at which a place of a YAML file is, from 1; None for JSON."""
    if path.suffix == JSON:
        return None
    yaml = _yaml()
    node: Any = yaml.compose(path.read_text("utf-8"), Loader=_loader())
    line = 0 if node is None else node.start_mark.line
    for step in where:
        found = _below(node, step)
        if found is None:
            break
        node, line = found
    return int(line) + 1


def _below(node: Any, step: str | int) -> tuple[Any, int] | None:  # noqa: ANN401 - a node of PyYAML
    """Return what is below a node, and the line at which it begins, from 0."""
    if node.id == "sequence" and isinstance(step, int):
        below = node.value[step]
        return below, below.start_mark.line
    pairs = node.value if node.id == "mapping" else []
    named = (pair for pair in pairs if pair[0].value == str(step))
    return next(((one, name.start_mark.line) for name, one in named), None)


def explained(path: Path, error: Broken) -> TapeError:
    """Return the error that a user is shown: file, line, place and reason."""
    line = line_of(path, error.path)
    where = "" if line is None else f", line {line}"
    place = "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.path
    )
    shown = f" {place.lstrip('.')}:" if place else ""
    return TapeError(f"{path}{where}:{shown} {error}")


@cache
def _loader() -> Any:  # noqa: ANN401 - a class of PyYAML
    """Return a loader for which `no` is a word, 1:30 is one, and a date is one, too."""
    yaml = _yaml()

    known = {
        first: [one for one in pairs if one[0].rpartition(":")[2] not in _WORDS]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    kind: Any = type("Loader", (yaml.SafeLoader,), {"yaml_implicit_resolvers": known})
    for name, (pattern, first) in _WORDS.items():
        if pattern:
            read = re.compile(rf"(?:{pattern})\Z")
            kind.add_implicit_resolver(f"tag:yaml.org,2002:{name}", read, list(first))
    return kind


# What is no text, by its first letter; the order matters.
_WORDS = {
    "bool": ("true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": ("[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    "float": (
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
        "-+.0123456789",
    ),
    "timestamp": ("", ""),
}


@cache
def _dumper() -> Any:  # noqa: ANN401 - a class of PyYAML
    """Return a dumper that gives events a line each, and long texts their lines."""
    yaml = _yaml()

    def no_aliases(dumper: Any, data: object) -> bool:  # noqa: ANN401, ARG001 - PyYAML's
        return True

    def line(dumper: Any, data: Line) -> Any:  # noqa: ANN401 - PyYAML's
        tag = "tag:yaml.org,2002:map"
        return dumper.represent_mapping(tag, dict(data), flow_style=True)

    def text(dumper: Any, data: str) -> Any:  # noqa: ANN401 - PyYAML's
        style = "|" if "\n" in data else None
        if not _BREAKS.isdisjoint(data):
            style = '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    kind: Any = type("Dumper", (yaml.SafeDumper,), {"ignore_aliases": no_aliases})
    kind.add_representer(Line, line)
    kind.add_representer(str, text)
    return kind


def _json_lines(value: Any, indent: str = "", before: str = "") -> Iterator[str]:  # noqa: ANN401 - any data
    """Yield the lines of JSON, with events on a line each."""
    inner, begin, end = indent + "  ", "[", "]"
    items: list[tuple[str, Any]] = []
    if isinstance(value, dict) and not isinstance(value, Line):
        items = [(f"{_json(name)}: ", one) for name, one in value.items()]
        begin, end = "{", "}"
    elif isinstance(value, list):
        items = [("", one) for one in value]
    if not items:
        yield f"{indent}{before}{_json(value)}"
        return
    yield f"{indent}{before}{begin}"
    for place, (name, one) in enumerate(items, start=1):
        *lines, last = _json_lines(one, inner, name)
        yield from lines
        yield last + ("," if place < len(items) else "")
    yield f"{indent}{end}"


def _json(value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair has no UTF-8; an escape can carry it.
        return json.dumps(value)
    return text
