"""Tell from a frame what its thread waits for, and whether that is over."""

from __future__ import annotations

import _thread
import ast
import linecache
import queue
import threading
from functools import lru_cache
from types import MemberDescriptorType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

__all__ = ["still_waiting"]

_LOCKS = (_thread.LockType, _thread.RLock)
_ENDLESS = (None, True, -1)
_MISSING = object()


def still_waiting(frame: FrameType) -> Callable[[], bool] | None:
    """Return a function that tells whether the thread of this frame waits still.

    Only waits that nothing but another thread can end are recognised: without a
    time limit, on a condition, a lock, a queue or the end of a thread.

    Returns:
        A function that returns True until the wait is over, or None where this
        innermost frame is in no such wait.

    """
    recognise = _known_waits().get(frame.f_code)
    if recognise is not None:
        return recognise(frame)
    if frame.f_globals.get("__name__") == "concurrent.futures.thread":
        return _queue_is_empty(frame.f_locals.get("work_queue"))
    return _at_call_site(frame)


@lru_cache(maxsize=1)
def _known_waits() -> dict[CodeType, Callable[[FrameType], Callable[[], bool] | None]]:
    known: dict[CodeType, Callable[[FrameType], Callable[[], bool] | None]] = {
        threading.Condition.wait.__code__: _on_condition
    }
    until_3_12 = getattr(threading.Thread, "_wait_for_tstate_lock", None)
    if until_3_12 is None:
        known[threading.Thread.join.__code__] = _on_join
    else:
        known[until_3_12.__code__] = _on_state_lock
    return known


def _on_condition(frame: FrameType) -> Callable[[], bool] | None:
    seen = frame.f_locals
    waiter = seen.get("waiter")
    if waiter is None or seen.get("timeout") is not None:
        return None
    waiters = seen["self"]._waiters
    return lambda: waiter in waiters


def _on_join(frame: FrameType) -> Callable[[], bool] | None:
    seen = frame.f_locals
    return None if seen.get("timeout") is not None else seen["self"].is_alive


def _on_state_lock(frame: FrameType) -> Callable[[], bool] | None:
    seen = frame.f_locals
    lock = seen.get("lock")
    timed = seen.get("timeout", -1) != -1
    return None if lock is None or timed else lock.locked


def _queue_is_empty(found: object) -> Callable[[], bool] | None:
    return found.empty if isinstance(found, queue.SimpleQueue) else None


def _at_call_site(frame: FrameType) -> Callable[[], bool] | None:
    target = _waited_for(frame.f_code, frame.f_lasti)
    if target is None:
        return None
    found = _resolve(target, frame)
    if isinstance(found, _LOCKS):
        return _is_locked(found)
    return _queue_is_empty(found)


def _is_locked(lock: object) -> Callable[[], bool]:
    locked: Callable[[], bool] | None = getattr(lock, "locked", None)
    if locked is not None:
        return locked
    # Before 3.14 an RLock tells its state to nobody but its repr.
    return lambda: repr(lock).startswith("<locked")


@lru_cache(maxsize=4096)
def _waited_for(code: CodeType, offset: int) -> tuple[str, ...] | None:
    """Return the dotted name of the object whose wait stands at `offset`."""
    try:
        node = ast.parse(_source_at(code, offset), mode="eval").body
    except SyntaxError:
        return None
    if isinstance(node, ast.Call):
        return _dotted(node.func.value) if _waits_endlessly(node) else None  # type: ignore[attr-defined]
    return _dotted(node)


def _source_at(code: CodeType, offset: int) -> str:
    positions = list(code.co_positions())[offset // 2]
    line, last_line, start, end = positions
    if line is None or line != last_line or start is None or end is None:
        return ""
    text = linecache.getline(code.co_filename, line).encode()
    return text[start:end].decode(errors="replace")


def _waits_endlessly(call: ast.Call) -> bool:
    func = call.func
    if not isinstance(func, ast.Attribute) or func.attr not in {"acquire", "get"}:
        return False
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    return all(_constant(argument) in _ENDLESS for argument in given)


def _constant(node: ast.expr) -> object:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return _MISSING


def _dotted(node: ast.expr) -> tuple[str, ...] | None:
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute):
        head = _dotted(node.value)
        return None if head is None else (*head, node.attr)
    return None


def _resolve(names: tuple[str, ...], frame: FrameType) -> object:
    found: object = frame.f_locals.get(names[0], _MISSING)
    if found is _MISSING:
        found = frame.f_globals.get(names[0], _MISSING)
    for name in names[1:]:
        found = _attribute(found, name)
    return found


def _attribute(owner: object, name: str) -> object:
    """Read an attribute without running code of the owner's class."""
    try:
        own = object.__getattribute__(owner, "__dict__")
    except AttributeError:
        own = {}
    if name in own:
        return own[name]
    for base in type(owner).__mro__:
        slot = vars(base).get(name, _MISSING)
        if isinstance(slot, MemberDescriptorType):
            return getattr(owner, name, _MISSING)
        if slot is not _MISSING:
            return slot
    return _MISSING
