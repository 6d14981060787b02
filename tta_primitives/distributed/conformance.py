"""What callers rely on in an engine, as checks that the tests of any engine can run.

    @pytest.mark.parametrize("check", ENGINE_CHECKS, ids=lambda check: check.__name__)
    async def test_my_engine(check, tmp_path):
        async with MyEngine() as engine:
            await check(engine, tmp_path)

The engine's workers must have `check_registry()` registered, perform several tasks at a
time, and see the folder: steps leave notes there, so that a check learns what happened
in another process. Checks wait for a few tenths of a second of the loop's time, which
may be virtual; what never happens is an `AssertionError` within a minute.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tta_primitives.chance import new_id
from tta_primitives.context import WorkflowContext
from tta_primitives.distributed.errors import (
    EngineClosedError,
    RemoteError,
    RemoteValueError,
    UnknownWorkflowError,
)
from tta_primitives.distributed.failures import register_errors
from tta_primitives.distributed.registry import Registry
from tta_primitives.distributed.remote import remote
from tta_primitives.distributed.task import RemoteTask
from tta_primitives.errors import RateLimitExceededError, TimeoutExceededError
from tta_primitives.loops import now
from tta_primitives.mapping import MapPrimitive
from tta_primitives.primitive import step
from tta_primitives.recovery.fallback import FallbackPrimitive
from tta_primitives.recovery.retry import RetryPrimitive

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tta_primitives.distributed.engine import Engine

__all__ = ["ENGINE_CHECKS", "CheckError", "check_registry"]

ErrorT = TypeVar("ErrorT", bound=BaseException)

MOMENT = 0.3
"""Seconds: long for a call, short for who waits for a test."""

PATIENCE = 20.0
"""Seconds until what has not happened is taken for something that never will."""

LONG = 10 * PATIENCE
"""Seconds of work that nobody waits for: who lets it end has left it alone."""


# What a step can ask its context for, and tell as JSON.
_TOLD = (
    *("correlation_id", "run_id", "workflow_id", "session_id", "idempotency_key"),
    *("traceparent", "tracestate", "baggage", "tags", "path"),
)


@register_errors
class CheckError(Exception):
    """An error that both sides know."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


class _StrangeError(Exception):
    """An error that no caller knows, as the name is never registered."""

    retry_after = 2.5


def _note(folder: str, text: str) -> None:
    """Leave a note in the folder: one line of a file."""
    with Path(folder, "notes").open("a", encoding="utf-8") as notes:
        notes.write(f"{text}\n")


def _notes(folder: Path, text: str) -> int:
    """Return how many such notes there are."""
    try:
        lines = (folder / "notes").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return 0
    return lines.count(text)


async def _noted(folder: Path, text: str, *, times: int = 1) -> None:
    """Wait for a note."""
    __tracebackhide__ = True
    end = now() + PATIENCE
    while _notes(folder, text) < times:
        if now() > end:
            msg = f"no step has noted {text!r} {times} times within {PATIENCE:g} s"
            raise AssertionError(msg)
        await asyncio.sleep(MOMENT / 10)


@step
async def check_echo(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return what it was given."""
    return value


@step
async def check_no_json(kind: str) -> object:
    """Return something that is no JSON."""
    return {"set": {1}, "tuple": (1,), "bytes": b"1"}[kind]


@step
async def check_raise(asked: dict[str, Any], context: WorkflowContext) -> None:
    """Raise an error of the kind that is asked for."""
    _note(asked["folder"], f"raise {context.idempotency_key}")
    errors: dict[str, Exception] = {
        "ValueError": ValueError("no good", 3),
        "KeyError": KeyError("missing"),
        "CheckError": CheckError("declined", code=7),
        "RateLimitExceededError": RateLimitExceededError("slow", retry_after=1.5),
        "strange": _StrangeError("odd"),
        "group": ExceptionGroup("two", [ValueError("a"), CheckError("b", code=1)]),
    }
    raise errors[asked["kind"]]


@step
async def check_context(_: None, context: WorkflowContext) -> dict[str, Any]:
    """Tell what has arrived of the context."""
    told = {name: getattr(context, name) for name in _TOLD}
    return {**told, "remaining": context.remaining()}


@step
async def check_state(name: str, context: WorkflowContext) -> Any:  # noqa: ANN401 - any JSON
    """Read, change and remove something in the context's state."""
    was = context.state.pop("old", None)
    context.state[name] = [was, context.state.get("kept")]
    context.outcomes["check"] = "answered"
    return was


@step
async def check_hang(asked: dict[str, Any]) -> str:
    """Wait, and note when it begins and how it ends."""
    name, folder = asked["name"], asked["folder"]
    _note(folder, f"{name} began")
    try:
        await asyncio.sleep(asked["seconds"])
    except asyncio.CancelledError:
        _note(folder, f"{name} cancelled")
        raise
    _note(folder, f"{name} ended")
    return f"{name} ended"


@step
async def check_meet(asked: dict[str, Any]) -> int:
    """Wait until so many such steps are running."""
    folder = asked["folder"]
    _note(folder, "met")
    await _noted(Path(folder), "met", times=asked["others"])
    return int(asked["number"])


@step
async def check_key(folder: str, context: WorkflowContext) -> str | None:
    """Note and return the key of this step."""
    _note(folder, f"key {context.idempotency_key}")
    return context.idempotency_key


async def _again(folder: str) -> str:
    return folder


def check_registry() -> Registry:
    """Return what workers must have registered."""
    registry = Registry(
        check_echo,
        check_no_json,
        check_raise,
        check_context,
        check_state,
        check_hang,
        check_meet,
        check_key,
    )
    registry.register(step(_again) >> check_key, name="check_chain")
    return registry


async def gives_back_what_it_was_given(engine: Engine, folder: Path) -> None:  # noqa: ARG001 - as any check
    """Check that values come back equal, and of the same types."""
    echo = remote(check_echo, engine=engine)
    values: list[Any] = [
        *(None, True, False, 0, -1, 2**70 - 1, 0.1, -0.0, 1e300, "", "a"),
        *("Grüße \U0001f600 \u2028 \x00 \ud800", [], {}, [[], {}]),
        {"": None, "ü": {"a/b": [1, 1.0, True, None, "1"]}},
    ]
    for value in values:
        _expect_same(await echo.execute(value, WorkflowContext()), value)


async def carries_big_values(engine: Engine, folder: Path) -> None:  # noqa: ARG001 - as above
    """Check that a megabyte goes out and comes back."""
    value = {"text": "x" * 500_000, "numbers": list(range(100_000))}
    echo = remote(check_echo, engine=engine)
    _expect_same(await echo.execute(value, WorkflowContext()), value)


async def refuses_what_is_no_json(engine: Engine, folder: Path) -> None:  # noqa: ARG001 - as above
    """Check that what cannot be sent is told by name, in both directions."""
    echo, answer = (
        remote(check_echo, engine=engine),
        remote(check_no_json, engine=engine),
    )
    for value in ((1,), {1}, {1: 2}, b"1", float("nan"), object()):
        await _raises(RemoteValueError, "check_echo", echo, value)
    for kind in ("set", "tuple", "bytes"):
        await _raises(RemoteValueError, "check_no_json", answer, kind)


async def raises_what_the_step_raised(engine: Engine, folder: Path) -> None:
    """Check that known errors are raised as themselves, others as `RemoteError`."""
    fail = remote(check_raise, engine=engine)

    def asked(kind: str) -> dict[str, str]:
        """Return what asks for an error of this kind."""
        return {"kind": kind, "folder": str(folder)}

    error: Any = await _raises(ValueError, "no good", fail, asked("ValueError"))
    _expect(error.args, ("no good", 3), "the arguments of a ValueError")
    await _raises(KeyError, "missing", fail, asked("KeyError"))
    error = await _raises(CheckError, "declined", fail, asked("CheckError"))
    code = getattr(error, "code", None)
    _expect(code, 7, "an attribute of a registered error")
    error = await _raises(
        RateLimitExceededError, "slow", fail, asked("RateLimitExceededError")
    )
    hint = getattr(error, "retry_after", None)
    _expect(hint, 1.5, "the retry_after of a known error")
    error = await _raises(RemoteError, "odd", fail, asked("strange"))
    _expect(error.type, f"{__name__}._StrangeError", "the type of an unknown error")
    _expect(error.path, "check_raise", "the path of an unknown error")
    _expect(error.retry_after, 2.5, "the retry_after of an unknown error")
    error = await _raises(ExceptionGroup, "two", fail, asked("group"))
    kinds = [type(one).__name__ for one in error.exceptions]
    _expect(kinds, ["ValueError", "CheckError"], "the errors of a group")


async def fails_like_a_local_step(engine: Engine, folder: Path) -> None:
    """Check that retry and fallback stand around it; attempts have one key."""
    fail = remote(check_raise, engine=engine)
    asked = {"kind": "CheckError", "folder": str(folder)}
    retried = RetryPrimitive(fail, max_retries=2, initial_delay=0.01, jitter="none")
    workflow = FallbackPrimitive(retried, fallbacks=["plan B"])
    got = await workflow.execute(asked, WorkflowContext())
    _expect(got, "plan B", "the answer of the fallback")
    notes = (folder / "notes").read_text(encoding="utf-8").splitlines()
    raised = [one for one in notes if one.startswith("raise ")]
    _expect(len(set(raised)), 1, f"the number of keys of the attempts {raised}")
    if len(raised) < 3:  # noqa: PLR2004 - more if a call was delivered twice
        msg = f"3 attempts were made, and {len(raised)} steps executed"
        raise AssertionError(msg)


async def carries_the_context(engine: Engine, folder: Path) -> None:  # noqa: ARG001 - as above
    """Check that ids, trace headers, baggage, tags and the caller's key arrive."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    context = WorkflowContext(
        "correlation-ü",
        "checkout",
        "session-1",
        traceparent=trace,
        tracestate="a=b",
        baggage={"tenant": "Grüße"},
        tags={"plan": "pro"},
        deps={"session": object()},
        idempotency_key="order-17",
    )
    got = await remote(check_context, engine=engine).execute(None, context)
    wanted = {
        "correlation_id": "correlation-ü",
        "run_id": context.run_id,
        "workflow_id": "checkout",
        "session_id": "session-1",
        "traceparent": trace,
        "tracestate": "a=b",
        "baggage": {"tenant": "Grüße"},
        "tags": {"plan": "pro"},
        "idempotency_key": "order-17",
        "remaining": None,
        "path": "check_context",
    }
    for name, value in wanted.items():
        _expect(got[name], value, f"{name} on the worker")


async def brings_the_state_back(engine: Engine, folder: Path) -> None:  # noqa: ARG001 - as above
    """Check that `state` goes along, and what was changed and removed comes back."""
    context = WorkflowContext(state={"old": 1, "kept": {"a": [2]}})
    got = await remote(check_state, engine=engine).execute("new", context)
    _expect(got, 1, "what the step found in the state")
    _expect(context.state, {"kept": {"a": [2]}, "new": [1, {"a": [2]}]}, "the state")
    _expect(context.outcomes, {"check": "answered"}, "the outcomes")
    left = remote(check_context, engine=engine, carry_state=False)
    await left.execute(None, WorkflowContext(state={"live": object()}))


async def gives_each_step_a_key(engine: Engine, folder: Path) -> None:
    """Check that each call has a key, and each step of a workflow one of its own."""
    chain = remote("check_chain", engine=engine)
    leaf = remote("check_chain/check_key", engine=engine)
    keys = [
        await chain.execute(str(folder), WorkflowContext()),
        await chain.execute(str(folder), WorkflowContext()),
        await leaf.execute(str(folder), WorkflowContext()),
    ]
    if None in keys or len(set(keys)) != len(keys):
        msg = f"three calls must have three keys, not {keys!r}"
        raise AssertionError(msg)


async def carries_the_deadline(engine: Engine, folder: Path) -> None:
    """Check that a worker knows how much time is left, and stops when it is over."""
    context = WorkflowContext(deadline=now() + 50)
    got = await remote(check_context, engine=engine).execute(None, context)
    left = got["remaining"]
    if left is None or not 30 < left <= 50:  # noqa: PLR2004 - as given
        msg = f"of 50 s, {left!r} s were left on the worker"
        raise AssertionError(msg)
    hang = remote(check_hang, engine=engine, timeout_seconds=3 * MOMENT)
    asked = {"name": "late", "folder": str(folder), "seconds": LONG}
    await _raises(TimeoutExceededError, "check_hang", hang, asked)
    if _notes(folder, "late began"):
        await _noted(folder, "late cancelled")


async def carries_a_cancellation(engine: Engine, folder: Path) -> None:
    """Check that the step is cancelled on the worker when its caller is."""
    hang = remote(check_hang, engine=engine)
    asked = {"name": "left", "folder": str(folder), "seconds": LONG}
    call = asyncio.ensure_future(hang.execute(asked, WorkflowContext()))
    await _noted(folder, "left began")
    call.cancel()
    with suppress(asyncio.CancelledError):
        await call
    _expect(call.cancelled(), wanted=True, what="whether the caller was cancelled")
    await _noted(folder, "left cancelled")
    echo = remote(check_echo, engine=engine)
    _expect(await echo.execute(1, WorkflowContext()), 1, "a call after that")


async def runs_many_at_once(engine: Engine, folder: Path) -> None:
    """Check that calls run at the same time, and answers find their callers."""
    meet = MapPrimitive(remote(check_meet, engine=engine), max_concurrency=4)
    items = [
        {"number": number, "others": 4, "folder": str(folder)} for number in range(4)
    ]
    try:
        outputs = await meet.execute(items, WorkflowContext())
    except Exception as error:
        msg = f"four calls that wait for each other raised {error!r:.200}"
        raise AssertionError(msg) from error
    _expect(outputs, [0, 1, 2, 3], "outputs")
    many = MapPrimitive(remote(check_echo, engine=engine), max_concurrency=50)
    numbers = list(range(200))
    _expect(await many.execute(numbers, WorkflowContext()), numbers, "200 outputs")


async def answers_each_delivery(engine: Engine, folder: Path) -> None:
    """Check that a call which is made twice is answered twice, in the same way."""
    task = RemoteTask(
        call_id=new_id(),
        workflow="check_hang",
        path="check_hang",
        value={"name": "twice", "folder": str(folder), "seconds": MOMENT},
    )
    replies = await asyncio.gather(engine.call(task), engine.call(task))
    got = [(reply.call_id, reply.status, reply.value) for reply in replies]
    _expect(got, [(task.call_id, "ok", "twice ended")] * 2, "two replies to one call")


async def tells_what_is_unknown(engine: Engine, folder: Path) -> None:  # noqa: ARG001 - as above
    """Check that a name or a path which no worker has is told with the nearest."""
    name = remote("chek_echo", engine=engine)
    await _raises(UnknownWorkflowError, "did you mean 'check_echo'", name, 1)
    path = remote("check_chain/check_kay", engine=engine)
    wanted = "did you mean 'check_chain/check_key'"
    await _raises(UnknownWorkflowError, wanted, path, 1)


async def ends_when_it_is_closed(engine: Engine, folder: Path) -> None:
    """Check that waiting calls fail, later ones are refused, and it opens again."""
    asked = {"name": "open", "folder": str(folder), "seconds": LONG}
    hang, echo = remote(check_hang, engine=engine), remote(check_echo, engine=engine)
    waiting = asyncio.ensure_future(hang.execute(asked, WorkflowContext()))
    await _noted(folder, "open began")
    await engine.close()
    await engine.close()
    done, _ = await asyncio.wait((waiting,), timeout=PATIENCE)
    _expect(len(done), 1, "calls that ended when the engine was closed")
    ended = await asyncio.gather(waiting, return_exceptions=True)
    _expect(type(ended[0]), EngineClosedError, "what a waiting call raised")
    await _raises(EngineClosedError, "closed", echo, 1)
    await engine.open()
    await engine.open()
    _expect(await echo.execute(1, WorkflowContext()), 1, "a call after reopening")


def _bounded(
    check: Callable[[Any, Path], Awaitable[None]],
) -> Callable[[Any, Path], Awaitable[None]]:
    """Return a check that fails where an engine never answers."""

    @wraps(check)
    async def bounded(engine: Engine, folder: Path) -> None:
        try:
            async with asyncio.timeout(2 * PATIENCE):
                await check(engine, folder)
        except TimeoutError:
            msg = f"{check.__name__} has had no answer for {2 * PATIENCE:g} s"
            raise AssertionError(msg) from None

    return bounded


_CHECKS: Sequence[Callable[[Any, Path], Awaitable[None]]] = (
    gives_back_what_it_was_given,
    carries_big_values,
    refuses_what_is_no_json,
    raises_what_the_step_raised,
    fails_like_a_local_step,
    carries_the_context,
    brings_the_state_back,
    gives_each_step_a_key,
    carries_the_deadline,
    carries_a_cancellation,
    runs_many_at_once,
    answers_each_delivery,
    tells_what_is_unknown,
    ends_when_it_is_closed,
)

ENGINE_CHECKS: Sequence[Callable[[Any, Path], Awaitable[None]]] = tuple(
    map(_bounded, _CHECKS)
)
"""What every engine must do; the last one closes and reopens it."""


async def _raises(
    kind: type[ErrorT],
    text: str,
    called: Any,  # noqa: ANN401 - a remote primitive of any types
    value: object,
) -> ErrorT:
    """Call, and return the error of exactly this type that is raised."""
    __tracebackhide__ = True
    try:
        got = await called.execute(value, WorkflowContext())
    except Exception as error:
        if type(error) is kind and text in str(error):
            return error
        msg = f"{called!r} raised {error!r} instead of {kind.__name__} about {text!r}"
        raise AssertionError(msg) from error
    msg = f"{called!r} returned {got!r:.200} instead of raising {kind.__name__}"
    raise AssertionError(msg)


def _expect_same(got: object, wanted: object) -> None:
    """Compare with types: 1, 1.0 and True are not the same."""
    __tracebackhide__ = True
    _expect(repr(got), repr(wanted), "a value that went to a worker and back")


def _expect(got: object, wanted: object, what: str) -> None:
    __tracebackhide__ = True
    if got != wanted:
        msg = f"{what}: got {got!r:.200} instead of {wanted!r:.200}"
        raise AssertionError(msg)
