"""Tell from a frame what its thread waits for, and whether that is over."""

from __future__ import annotations

import _thread
import dis
import enum
import linecache
import queue
import re
import sys
import threading
from functools import lru_cache
from types import MemberDescriptorType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

__all__ = ["Evidence", "Wait", "is_computing", "still_waiting", "waited_name"]

_LOCKS = (_thread.LockType, _thread.RLock)
_WAITING_METHODS = frozenset({"acquire", "get"})
_MISSING = object()


class Evidence(enum.Enum):
    """Say how much it proves that the object waited for lets nobody through."""

    FULL = "the thread is in this very wait still"
    PROMPT = "nobody has let it through since it was last seen to run"
    LATE = "it may have been let through, and show it when it runs"


class Wait(NamedTuple):
    """Ask, by calling it, whether a wait lasts.

    Attributes:
        lasts: Asks the object that is waited for.
        evidence: How much its answer proves.

    """

    lasts: Callable[[], bool]
    evidence: Evidence

    def __call__(self) -> bool:
        """Tell whether the wait lasts."""
        return self.lasts()


# These hand over what is waited for without a word to the object itself: a queue
# that is written in C since 3.13, a lock since 3.14.
_QUEUE = Evidence.LATE if sys.version_info >= (3, 13) else Evidence.PROMPT
_LOCK = Evidence.LATE if sys.version_info >= (3, 14) else Evidence.PROMPT


def still_waiting(frame: FrameType) -> Wait | None:
    """Return what tells whether the thread of this frame waits still.

    Only waits that nothing but another thread can end are recognised: without a
    time limit, on a condition, a lock, a queue or the end of a thread.

    Returns:
        What is True when called until the wait is over, or None where this innermost
        frame is in no such wait.

    """
    recognise = _known_waits().get(frame.f_code)
    if recognise is not None:
        return recognise(frame)
    if frame.f_globals.get("__name__") == "concurrent.futures.thread":
        # An idle worker of a pool; found even where call sites cannot be.
        return _on_queue(frame.f_locals.get("work_queue"))
    return _at_call_site(frame)


def is_computing(frame: FrameType) -> bool:
    """Tell whether this innermost frame stands between two calls.

    A thread that waits stands at a call. One that only waits for its turn to run
    stands as well at the end of a loop or the beginning of a function.
    """
    return _is_between_calls(frame.f_code, frame.f_lasti)


@lru_cache(maxsize=4096)
def _is_between_calls(code: CodeType, offset: int) -> bool:
    name = dis.opname[code.co_code[offset]] if offset >= 0 else "RESUME"
    return name.startswith(("FOR_ITER", "JUMP", "POP_JUMP", "RESUME"))


@lru_cache(maxsize=1)
def _known_waits() -> dict[CodeType, Callable[[FrameType], Wait | None]]:
    known: dict[CodeType, Callable[[FrameType], Wait | None]] = {
        threading.Condition.wait.__code__: _on_condition
    }
    until_3_12 = getattr(threading.Thread, "_wait_for_tstate_lock", None)
    if until_3_12 is None:
        known[threading.Thread.join.__code__] = _on_join
    else:
        known[until_3_12.__code__] = _on_state_lock
    return known


def _on_condition(frame: FrameType) -> Wait | None:
    seen = frame.f_locals
    waiter = seen.get("waiter")
    if waiter is None or seen.get("timeout") is not None:
        return None
    waiters = seen["self"]._waiters
    return Wait(lambda: waiter in waiters, Evidence.FULL)


def _on_join(frame: FrameType) -> Wait | None:
    seen = frame.f_locals
    if seen.get("timeout") is not None:
        return None
    return Wait(seen["self"].is_alive, Evidence.FULL)


def _on_state_lock(frame: FrameType) -> Wait | None:
    seen = frame.f_locals
    lock = seen.get("lock")
    timed = seen.get("timeout", -1) != -1
    return None if lock is None or timed else Wait(lock.locked, Evidence.FULL)


def _on_queue(found: object) -> Wait | None:
    return Wait(found.empty, _QUEUE) if isinstance(found, queue.SimpleQueue) else None


def _at_call_site(frame: FrameType) -> Wait | None:
    target = _waited_for(frame.f_code, frame.f_lasti)
    if target is None:
        return None
    if target[-1] in _WAITING_METHODS:
        target = target[:-1]
    found = _resolve(target, frame)
    if isinstance(found, _LOCKS):
        return Wait(_is_locked(found), _LOCK)
    return _on_queue(found)


def _is_locked(lock: object) -> Callable[[], bool]:
    locked: Callable[[], bool] | None = getattr(lock, "locked", None)
    if locked is not None:
        return locked
    # Before 3.14 an RLock tells its state to nobody but its repr.
    return lambda: repr(lock).startswith("<locked")


@lru_cache(maxsize=4096)
def _waited_for(code: CodeType, offset: int) -> tuple[str, ...] | None:
    """Return the dotted name of the object whose wait stands at `offset`."""
    return waited_name(_source_at(code, offset))


# Read with patterns: this runs in any thread, and one that parses disturbs all others
# that do. CPython counts the depth of syntax trees for all threads together, and ends a
# parse with a SystemError when the count is off.
# https://github.com/python/cpython/issues/106905
_NAME = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_WITH = rf"with\s+({_NAME})\s*(?:as\s+{_NAME}\s*)?:"
_CALL = rf"(?s)({_NAME})\s*(?:\((.*)\))?"
_ENDLESS = r"\s*(?:\w+\s*=\s*)?(?:None|True|1|-1)\s*"


def waited_name(source: str) -> tuple[str, ...] | None:
    """Read `with name:`, `name`, or a call of one of its waits without a time limit."""
    found = re.match(_WITH, source)
    if found is not None:
        return tuple(found[1].split("."))
    found = re.fullmatch(_CALL, source)
    if found is None:
        return None
    names = tuple(found[1].split("."))
    if found[2] is None:
        return names
    given = found[2].strip().removesuffix(",")
    arguments = given.split(",") if given else []
    is_endless = all(re.fullmatch(_ENDLESS, argument) for argument in arguments)
    is_wait = len(names) > 1 and names[-1] in _WAITING_METHODS
    return names if is_wait and is_endless else None


def _source_at(code: CodeType, offset: int) -> str:
    line, last_line, start, end = list(code.co_positions())[offset // 2]
    if line is None or start is None or end is None:
        return ""
    text = linecache.getline(code.co_filename, line).encode()
    if line == last_line:
        return text[start:end].decode(errors="replace")
    # Until 3.12 a lock taken by `with` stands at the whole statement.
    return text[start:].decode(errors="replace")


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
