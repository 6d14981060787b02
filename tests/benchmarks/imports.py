"""What an import costs beyond that of asyncio, in fresh interpreters."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from tests.benchmarks.children import answers, lowest
from tests.benchmarks.table import Figures, Rows, measured

if TYPE_CHECKING:
    from tests.benchmarks.children import Answer
    from tests.benchmarks.measure import Pace

__all__ = ["ROWS"]

ROWS = Rows("Import, over `import asyncio`")

_CODE = """
import json, sys, time
begin = time.perf_counter()
import asyncio
base = time.perf_counter() - begin
def peak():
    try:
        with open("/proc/self/status") as status:
            lines = dict(line.split(":", 1) for line in status)
        return int(lines["VmHWM"].split()[0]) / 1024
    except OSError:
        return 0.0
before, memory = set(sys.modules), peak()
begin = time.perf_counter()
{statement}
took = time.perf_counter() - begin
names = {{name.split(".")[0] for name in set(sys.modules) - before}}
foreign = names - sys.stdlib_module_names - {{"tta_primitives"}}
print(json.dumps({{"ms": took * 1000, "asyncio": base * 1000,
    "MiB": peak() - memory, "foreign": len(foreign)}}))
"""
_STATEMENTS = {
    "ours": "import tta_primitives",
    "with recovery and performance": (
        "import tta_primitives, tta_primitives.recovery, tta_primitives.performance"
    ),
    "hyx": "import hyx.retry, hyx.timeout, hyx.fallback",
    "tenacity": "import tenacity",
    "stamina": "import stamina",
    "backoff": "import backoff",
    "async_lru": "import async_lru",
    "aiocache": "import aiocache",
    "cashews": "import cashews",
    "langchain": "from langchain_core.runnables import RunnableLambda",
}


@cache
def _imported(pace: Pace) -> dict[str, list[Answer | None]]:
    codes = {name: _CODE.format(statement=line) for name, line in _STATEMENTS.items()}
    return answers(codes, pace)


def _lowest(figure: str, pace: Pace) -> Figures:
    found = _imported(pace)
    figures = {name: lowest(each, figure) for name, each in found.items()}
    base = measured(lowest(found["ours"], "asyncio"), "import asyncio")
    note = f"import asyncio itself: {base:.1f} ms" if figure == "ms" else ""
    return Figures(measured(figures.pop("ours"), "our import"), figures, note)


@ROWS.row(
    "import-time",
    "import of tta_primitives: time",
    "ms",
    8,
    because=(
        "It takes 28 million instructions, where `import asyncio` takes 200 "
        "million. That is stated beside: where it took 40 to 44 ms, this came to "
        "7.6 to 8.8."
    ),
)
def import_time(pace: Pace) -> Figures:
    """Take the best of several fresh interpreters."""
    return _lowest("ms", pace)


@ROWS.row("import-memory", "import of tta_primitives: memory", "MiB", 2)
def import_memory(pace: Pace) -> Figures:
    """Read by how much the peak of the resident memory rose."""
    return _lowest("MiB", pace)


@ROWS.row(
    "import-modules", "import of tta_primitives: third-party modules", "modules", 0
)
def import_modules(pace: Pace) -> Figures:
    """Count the packages that are loaded and not Python's own."""
    return _lowest("foreign", pace)
