"""What was found, as a plain test of asyncio that needs no plugin.

A finding is reproduced on asyncio's own loop with its real clock: each call of the
outside is answered after a latency, which puts the answers in the order of the
schedule, and the faults of the plan strike at their calls.
"""

from __future__ import annotations

import re
from pathlib import Path
from pprint import pformat
from typing import TYPE_CHECKING

from pytest_tta.explore.judge import PROGRAMMING_ERRORS
from pytest_tta.explore.latencies import answers, sites_of

if TYPE_CHECKING:
    from pytest_tta.explore.outcome import Outcome
    from pytest_tta.explore.plan import Plan

__all__ = ["certificate"]

# What a plain test can see for itself.
_CERTIFIABLE = frozenset(
    {
        "assertion",
        "error",
        "invariant",
        "deadlock",
        "unbounded wait",
        "left running",
    }
)
# In a deadlock nobody waits for time; a corrected test may have limits of its own.
_PATIENCE = 15.0
_SHORT_PATIENCE = 1.0
_PREFIXES = ("httpx:", "redis:", "thread:")


def certificate(
    outcome: Outcome, *, node_id: str, test_file: str, test_name: str
) -> str:
    """Return the source of a plain test module that reproduces a finding.

    It stands beside the file of the test, whose function it calls. Of `tta` that has
    `run`, `always` and `sometimes`.

    Args:
        outcome: The execution that failed, shrunk.
        node_id: The test's, for the text on top.
        test_file: The file of the test.
        test_name: The name of its function; `TestCart.test_pay` for a method.

    Raises:
        ValueError: Latencies alone cannot say it: the schedule is none of "op" mode, a
            task was cancelled from outside, or a plain test would not see what broke.
    """
    _check(outcome)
    sites = sites_of(outcome)
    parts = [
        _top(outcome, node_id, test_file),
        _IMPORTS.format(module=_module_of(Path(test_file)), **_extra_imports(sites)),
        _tables(outcome, sites),
        _OUTSIDE,
        _LEAVES if any(map(_may_be_path, sites)) else "",
        _patching(sites),
        _TTA.format(left=_LEFT if _kind(outcome) == "left running" else ""),
        _judging(outcome.plan),
        _TEST.format(name=_collected_name(test_name), path=test_name),
    ]
    return "\n\n".join(part.strip("\n") + "\n" for part in parts if part)


def _kind(outcome: Outcome) -> str:
    return outcome.verdict.kind if outcome.verdict is not None else ""


def _check(outcome: Outcome) -> None:
    plan, kind = outcome.plan, _kind(outcome)
    if not kind:
        msg = f"{plan!r} broke nothing: a certificate is of a failure"
    elif plan.cancellation is not None:
        msg = (
            f"no certificate: {plan.cancellation!r} comes from outside, and no latency "
            "says when"
        )
    elif any(fault.site.startswith("fleet:") for fault in plan.faults):
        msg = "no certificate: a plain test has no fleet whose messages go wrong"
    elif plan.schedule.mode != "op":
        msg = (
            f"no certificate: schedules in mode {plan.schedule.mode!r} are no matter "
            "of latencies alone; those of 'op' are"
        )
    elif kind not in _CERTIFIABLE:
        msg = f"no certificate: a plain test does not see {kind!r} by itself"
    else:
        return
    raise ValueError(msg)


def _judging(plan: Plan) -> str:
    if not (plan.faults or plan.schedule.early):
        return _JUDGING
    mistakes = ",\n    ".join(map(_written, PROGRAMMING_ERRORS))
    return _JUDGING_FAULTS.format(mistakes=mistakes)


def _written(error: type[Exception]) -> str:
    package = error.__module__.partition(".")[0]
    return error.__name__ if package == "builtins" else f"{package}.{error.__name__}"


def _may_be_path(site: str) -> bool:
    return "/" in site and not site.startswith(_PREFIXES)


def _module_of(file: Path) -> str:
    """Return the name by which the test's module is imported: its package's, if any."""
    parts = [file.stem]
    folder = file.parent
    while (folder / "__init__.py").is_file():
        parts.append(folder.name)
        folder = folder.parent
    return ".".join(reversed(parts))


def _collected_name(test_name: str) -> str:
    """Return a name by which pytest finds a function."""
    name = test_name.rpartition(".")[2]
    return name if name.startswith("test") else f"test_{name}"


def _top(outcome: Outcome, node_id: str, test_file: str) -> str:
    text = outcome.verdict.text if outcome.verdict is not None else ""
    said = [re.sub(r'["\\]', "'", line).rstrip() for line in text.splitlines()[:8]]
    return _TOP.format(
        node_id=node_id,
        kind=_kind(outcome),
        said="\n".join(said),
        file=Path(test_file).name,
        seconds=f"{outcome.seconds + 0.1:.3g}",
    )


def _tables(outcome: Outcome, sites: list[str]) -> str:
    """Return the data of the plan: when calls are answered, and what goes wrong."""
    table = {key: tuple(answer) for key, answer in answers(outcome).items()}
    faults = {(one.site, one.number): one.kind for one in outcome.plan.faults}
    patience = _SHORT_PATIENCE if _kind(outcome) == "deadlock" else _PATIENCE
    return _TABLES.format(
        answers=_shown(table),
        faults=_shown(faults),
        sites=_shown(sites),
        patience=round(outcome.seconds + patience, 3),
    )


def _shown(value: object) -> str:
    return pformat(value, width=80, sort_dicts=False)


def _extra_imports(sites: list[str]) -> dict[str, str]:
    lines = {"httpx": "import httpx\n", "redis": "import redis\nimport redis.asyncio\n"}
    return {
        f"{name}_import": line if _has(sites, name) else ""
        for name, line in lines.items()
    }


def _has(sites: list[str], library: str) -> bool:
    return any(site.startswith(f"{library}:") for site in sites)


def _patching(sites: list[str]) -> str:
    """Return what puts the outside between the test and those that it asks."""
    used = [name for name in _PATCHES if _has(sites, name)]
    lines = [_PATCHES[name][1] for name in used]
    if any(map(_may_be_path, sites)):
        lines.append("add_interceptor(leaves := Leaves(outside))")
        lines.append("put_back.callback(remove_interceptor, leaves)")
    body = "".join(f"    {line}\n" for line in [*lines, "replace_op(outside, patch)"])
    functions = [_PATCHES[name][0].strip("\n") for name in used]
    return "\n\n\n".join([_OP.strip("\n"), *functions, _ENTER + body])


_TOP = '''
"""A plain test of what was found in {node_id}.

{kind}: {said}

It runs on asyncio's own loop, with real time and without the plugin: each call of the
outside is answered when ANSWERS says. Keep it beside {file}; it takes about
{seconds} s. Add -p no:tta to see that it needs no plugin.
"""
'''

_IMPORTS = """
from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import inspect
import sys
from collections import Counter

{httpx_import}import pytest
{redis_import}
from tta_primitives import WorkflowContext
from tta_primitives.door import Interceptor, add_interceptor, remove_interceptor
from tta_primitives.primitive import as_operand

original = importlib.import_module("{module}")
"""

_TABLES = """
# When a call is answered: in seconds since the first run, and since the call itself;
# the later of the two counts. All other calls are answered at once.
ANSWERS = {answers}

# What goes wrong, at which call of which site.
FAULTS = {faults}

SITES = {sites}

# Seconds after which a run counts as one that never ends.
PATIENCE = {patience}
"""

_OUTSIDE = '''
class PermanentFailure(Exception):
    """An answer that will be the same next time."""

    status_code = 400


class Outside:
    """Answers each call when it is its turn."""

    def __init__(self):
        self.began = None
        self.counts = Counter()

    @contextlib.asynccontextmanager
    async def call(self, site, make_error=ConnectionError):
        """Wait for the answer; the effect is in the block."""
        self.counts[site] += 1
        number = self.counts[site]
        kind = FAULTS.get((site, number))
        for (other, since), other_kind in FAULTS.items():
            if (other, other_kind) == (site, "outage") and since <= number:
                kind = "outage"
        if kind == "hang":
            await asyncio.get_running_loop().create_future()
        await self.answer(site, number)
        if kind == "fatal":
            raise PermanentFailure(f"injected at {site}, call {number}")
        if kind in ("error", "outage"):
            raise make_error(f"injected at {site}, call {number}")
        yield
        if kind == "lost-ack":
            raise make_error(f"injected at {site}, call {number}")
        if kind == "late":
            await asyncio.get_running_loop().create_future()

    async def answer(self, site, number):
        """Wait as long as the schedule says."""
        if (site, number) in ANSWERS:
            at, after = ANSWERS[site, number]
            passed = asyncio.get_running_loop().time() - self.began
            await asyncio.sleep(max(at - passed, after))
        elif site in SITES:
            # Whoever is ready goes first.
            for _ in range(10):
                await asyncio.sleep(0)
'''

_LEAVES = '''
def error_for(call):
    """Return the class of error that the nearest retry expects."""
    position = call
    while position is not None:
        expected = getattr(position.primitive, "retry_on", None)
        if isinstance(expected, tuple) and not issubclass(ConnectionError, expected):
            return expected[0]
        position = position.parent
    return ConnectionError


class Leaves(Interceptor):
    """Puts the outside before the steps of workflows."""

    def __init__(self, outside):
        self.outside = outside

    async def execute(self, call, proceed):
        if call.parent is None or call.path not in SITES:
            return await proceed()
        async with self.outside.call(call.path, error_for(call)):
            return await proceed()
'''

_OP = '''
def replace_op(outside, patch):
    """Put the outside where doubles of the test await `op(...)`."""

    class Op:
        def __init__(self, label="op"):
            self.call = outside.call(label)

        def __await__(self):
            return self.wait().__await__()

        async def wait(self):
            async with self.call:
                pass

        async def __aenter__(self):
            await self.call.__aenter__()

        async def __aexit__(self, *raised):
            return await self.call.__aexit__(*raised)

    for module in list(sys.modules.values()):
        held = getattr(module, "__dict__", {}).get("op")
        if getattr(held, "__module__", "") == "pytest_tta.operation":
            patch.setattr(module, "op", Op)
'''

_THREAD = '''
def thread_site(function, args):
    """Return the site of a call in a thread."""
    if isinstance(function, functools.partial):
        return thread_site(function.func, (*function.args, *args))
    if type(getattr(function, "__self__", None)).__name__ == "Context" and args:
        return thread_site(args[0], args[1:])
    return f"thread:{getattr(function, '__qualname__', type(function).__qualname__)}"


def in_threads(outside):
    def run_in_executor(loop, executor, function, *args):
        async def work():
            async with outside.call(thread_site(function, args)):
                return function(*args)

        return loop.create_task(work())

    return run_in_executor
'''

_HTTPX = """
def in_httpx(outside, patch):
    send = httpx.AsyncClient._send_single_request

    async def answered(client, request):
        site = f"httpx:{request.method} {request.url.host}{request.url.path}"
        error = functools.partial(httpx.ConnectError, request=request)
        async with outside.call(site, error):
            return await send(client, request)

    patch.setattr(httpx.AsyncClient, "_send_single_request", answered)
"""

_REDIS = """
def in_redis(outside, patch):
    client = redis.asyncio.client
    for owner, method, label in (
        (client.Redis, "_send_command_parse_response", None),
        (client.Pipeline, "_execute_transaction", "MULTI"),
        (client.Pipeline, "_execute_pipeline", "PIPELINE"),
    ):
        patch.setattr(owner, method, in_command(outside, getattr(owner, method), label))


def in_command(outside, send, label):
    async def answered(client, connection, *args, **options):
        site = f"redis:{label or str(args[0]).upper()}"
        async with outside.call(site, redis.exceptions.ConnectionError):
            return await send(client, connection, *args, **options)

    return answered
"""

_PATCHES = {
    "thread": (
        _THREAD,
        'patch.setattr(asyncio.BaseEventLoop, "run_in_executor", in_threads(outside))',
    ),
    "httpx": (_HTTPX, "in_httpx(outside, patch)"),
    "redis": (_REDIS, "in_redis(outside, patch)"),
}

_ENTER = '''
def enter(outside, patch, put_back):
    """Put the outside everywhere where the test asks for something."""
'''.lstrip("\n")

_TTA = '''
class Tta:
    """As much of `tta` as a plain test has."""

    def __init__(self, outside, runner):
        self.outside = outside
        self.runner = runner
        self.promises = []
        self.left = []

    def run(self, workflow, input_data, context=None):
        operand = as_operand(workflow)
        return self.finish(operand.execute(input_data, context or WorkflowContext()))

    def finish(self, running):
        loop = self.runner.get_loop()
        if self.outside.began is None:
            self.outside.began = loop.time()
        try:
            return self.runner.run(self.limited(running))
        finally:
            self.left = [str(task.get_coro()) for task in asyncio.all_tasks(loop)]

    async def limited(self, running):
        limit = asyncio.timeout(PATIENCE)
        try:
            async with limit:
                return await running
        except TimeoutError:
            assert not limit.expired(), f"still waiting after {{PATIENCE}} s"
            raise

    def always(self, check, sentence):
        self.promises.append((check, sentence))

    def sometimes(self, name, condition=True):
        pass

    def check(self):
        for check, sentence in self.promises:
            held = check()
            assert held is None or held, f"invariant does not hold: {{sentence}}"
{left}

@pytest.fixture
def certificate():
    outside = Outside()
    with (
        contextlib.ExitStack() as put_back,
        pytest.MonkeyPatch.context() as patch,
        asyncio.Runner() as runner,
    ):
        enter(outside, patch, put_back)
        yield Tta(outside, runner)


@pytest.fixture
def tta(certificate):
    return certificate
'''

_LEFT = """        assert not self.left, f"left running: {self.left}"
"""

_JUDGING = '''
def judged(body):
    """Run the body; whatever it raises is a failure."""
    body()
'''

_JUDGING_FAULTS = '''
PROGRAMMING_ERRORS = (
    {mistakes},
)


def judged(body):
    """Run the body; an error that tells the caller what went wrong is a fair end."""
    try:
        body()
    except PROGRAMMING_ERRORS:
        raise
    except Exception as error:
        print("the caller was told:", repr(error))
'''

_TEST = '''
def certified(path):
    """Return the test with this name, to be run as above."""
    holder, _, name = path.rpartition(".")
    home = getattr(original, holder)() if holder else original
    test = getattr(home, name)
    signature = inspect.signature(test)
    extra = inspect.Parameter("certificate", inspect.Parameter.KEYWORD_ONLY)

    def run(*, certificate, **funcargs):
        def body():
            made = test(**funcargs)
            if inspect.iscoroutine(made):
                certificate.finish(made)

        judged(body)
        certificate.check()

    run.__signature__ = signature.replace(
        parameters=[*signature.parameters.values(), extra]
    )
    marks = [*getattr(home, "pytestmark", []), *getattr(test, "pytestmark", [])]
    run.pytestmark = [mark for mark in marks if not mark.name.startswith("tta")]
    return run


for _name, _value in vars(original).items():
    # The fixtures of the test, and nothing that pytest would collect.
    if _name not in globals() and not _name.lower().startswith(("test", "pytest")):
        globals()[_name] = _value

{name} = certified("{path}")
'''
