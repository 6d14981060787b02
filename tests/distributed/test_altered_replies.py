"""The checks of engines fail where a task or a reply does not arrive as it was sent."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest

from tests.distributed.broken_engines import (
    ToyEngine,
    expect_failure,
    with_context,
    with_error,
    with_reply,
    with_value,
)
from tests.performance.tools import virtual

GIVES = "gives_back_what_it_was_given"
BIG = "carries_big_values"
JSON = "refuses_what_is_no_json"
RAISES = "raises_what_the_step_raised"
LOCAL = "fails_like_a_local_step"
CONTEXT = "carries_the_context"
STATE = "brings_the_state_back"
KEYS = "gives_each_step_a_key"
DEADLINE = "carries_the_deadline"
MANY = "runs_many_at_once"
DELIVERY = "answers_each_delivery"
UNKNOWN = "tells_what_is_unknown"


# What may become of a value.


def bools_as_numbers(value):
    return int(value) if isinstance(value, bool) else value


def zeros_alike(value):
    return value + 0.0 if isinstance(value, float) else value


def integers_as_floats(value):
    return int(float(value)) if type(value) is int else value


def unsigned(value):
    return abs(value) if type(value) is int else value


def zero_as_none(value):
    return None if type(value) is int and value == 0 else value


def false_as_none(value):
    return None if value is False else value


def empty_as_none(value):
    return None if value == "" else value


def as_good_text(value):
    if not isinstance(value, str):
        return value
    return value.encode(errors="replace").decode()


def text_cut(value):
    return {**value, "text": value["text"][:65536]}


def list_cut(value):
    return {**value, "numbers": value["numbers"][:65536]}


def one_wrong(value):
    return 0 if value == 150 else value


BACK = "a value that went to a worker and back: got "

VALUES = [
    (bools_as_numbers, GIVES, f"{BACK}'1' instead of 'True'"),
    (zeros_alike, GIVES, f"{BACK}'0.0' instead of '-0.0'"),
    (integers_as_floats, GIVES, f"{BACK}'1180591620717411303424' instead of '11805"),
    (unsigned, GIVES, f"{BACK}'1' instead of '-1'"),
    (zero_as_none, GIVES, f"{BACK}'None' instead of '0'"),
    (false_as_none, GIVES, f"{BACK}'None' instead of 'False'"),
    (empty_as_none, GIVES, f"{BACK}'None' instead of \"''\""),
    (as_good_text, GIVES, f"{BACK}\"'Grüße"),
    (text_cut, BIG, f"{BACK}\"{{'text': 'xxx"),
    (list_cut, BIG, f"{BACK}\"{{'text': 'xxx"),
    (one_wrong, MANY, "200 outputs: got [0, 1, 2,"),
]


@pytest.mark.parametrize(("alter", "name", "message"), VALUES)
@virtual
async def test_an_altered_value_is_told(alter, name, message, tmp_path) -> None:
    """A value that comes back as another is shown beside what it was."""
    await expect_failure(name, ToyEngine(answer=with_value(alter)), tmp_path, message)


# What may become of an error.

ERRORS = [
    ("ValueError", {"type": "Other"}, "<RemotePrimitive 'check_raise'"),
    (
        "ValueError",
        {"args": None},
        "the arguments of a ValueError: got (\"('no good', ",
    ),
    ("KeyError", {"args": ["gone"]}, "<RemotePrimitive 'check_raise'"),
    ("CheckError", {"type": "CheckError"}, "<RemotePrimitive 'check_raise'"),
    ("CheckError", {"attributes": {}}, "an attribute of a registered error: got None"),
    (
        "RateLimitExceededError",
        {"attributes": {}},
        "the retry_after of a known error: got None instead of 1.5",
    ),
    ("_StrangeError", {"message": ""}, "<RemotePrimitive 'check_raise'"),
    ("_StrangeError", {"type": "Strange"}, "the type of an unknown error: got 'Strang"),
    ("_StrangeError", {"path": "there"}, "the path of an unknown error: got 'there'"),
    (
        "_StrangeError",
        {"retry_after": None},
        "the retry_after of an unknown error: got None instead of 2.5",
    ),
    ("ExceptionGroup", {"type": "Exception"}, "<RemotePrimitive 'check_raise'"),
    (
        "ExceptionGroup",
        {"exceptions": [{"type": "ValueError"}]},
        "the errors of a group: got ['ValueError'] instead of ['ValueError', 'CheckE",
    ),
]


@pytest.mark.parametrize(("kind", "changes", "message"), ERRORS)
@virtual
async def test_an_altered_error_is_told(kind, changes, message, tmp_path) -> None:
    """Whatever of an error is lost on its way, the check says what."""
    engine = ToyEngine(answer=with_error(kind, **changes))
    await expect_failure(RAISES, engine, tmp_path, message)


# What may become of the context.

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

ARRIVED = [
    ({"correlation_id": "other"}, "correlation_id on the worker: got 'other' instead"),
    ({"run_id": "other"}, "run_id on the worker: got 'other' instead of '"),
    ({"workflow_id": None}, "workflow_id on the worker: got "),
    ({"session_id": None}, "session_id on the worker: got None instead of 'session-1'"),
    ({"traceparent": None}, f"traceparent on the worker: got None instead of '{TRACE}"),
    ({"tracestate": None}, "tracestate on the worker: got None instead of 'a=b'"),
    ({"baggage": {}}, "baggage on the worker: got {} instead of {'tenant': 'Grüße'}"),
    ({"tags": {}}, "tags on the worker: got {} instead of {'plan': 'pro'}"),
    ({"idempotency_key": "k"}, "idempotency_key on the worker: got 'k' instead of 'o"),
    ({"remaining_seconds": 60}, "remaining on the worker: got "),
]


@pytest.mark.parametrize(("changes", "message"), ARRIVED)
@virtual
async def test_an_altered_context_is_told(changes, message, tmp_path) -> None:
    """Whatever does not arrive on the worker is named."""
    engine = ToyEngine(ask=with_context(**changes))
    await expect_failure(CONTEXT, engine, tmp_path, message)


def performed_elsewhere(value):
    return {**value, "path": "elsewhere"}


def only(part):
    """Return an `answer` that brings one part of the changed state back."""

    def answer(reply, task):
        empty = {"set": {}, "removed": []}
        return replace(reply, state={**empty, part: reply.state[part]})

    return answer


def one_without_key():
    """Return an `answer` whose first output is lost."""
    numbers = count()
    return with_value(lambda value: value if next(numbers) else None)


def with_hint_for(path):
    """Return an `answer` that has lost the hint, for what was asked for in vain."""
    lost = with_error("UnknownWorkflowError", args=["unknown"])
    return lambda reply, task: lost(reply, task) if task.path == path else reply


FAILED = {"type": "RuntimeError", "path": "there", "message": "broken", "args": ["it"]}

ALTERED = [
    (None, with_value(performed_elsewhere), CONTEXT, "path on the worker: got 'elsew"),
    (
        with_context(state={"old": 2, "kept": {"a": [2]}}),
        None,
        STATE,
        "what the step found in the state: got 2 instead of 1",
    ),
    (
        with_context(state={}),
        None,
        STATE,
        "what the step found in the state: got None instead of 1",
    ),
    (None, with_reply(state=None), STATE, "the state: got {'old': 1, 'kept': {'a': [2"),
    (None, only("set"), STATE, "the state: got {'old': 1, 'kept': {'a': [2]}, 'new'"),
    (None, only("removed"), STATE, "the state: got {'kept': {'a': [2]}} instead of {"),
    (None, with_reply(outcomes={}), STATE, "the outcomes: got {} instead of {'check'"),
    (
        with_context(idempotency_key="one"),
        None,
        KEYS,
        "three calls must have three keys, not ['",
    ),
    (None, one_without_key(), KEYS, "three calls must have three keys, not [None, '"),
    (
        with_context(remaining_seconds=None),
        None,
        DEADLINE,
        "of 50 s, None s were left on the worker",
    ),
    (
        with_context(remaining_seconds=29),
        None,
        DEADLINE,
        "of 50 s, 29.0 s were left on the worker",
    ),
    (
        with_context(remaining_seconds=51),
        None,
        DEADLINE,
        "of 50 s, 51.0 s were left on the worker",
    ),
    (None, with_reply(call_id="other"), DELIVERY, "two replies to one call: got [('ot"),
    (None, with_reply(value=None), DELIVERY, "two replies to one call: got [('"),
    (
        None,
        with_reply(status="failed", error=FAILED),
        DELIVERY,
        "two replies to one call: got [('",
    ),
    (
        None,
        with_reply(status="failed", error=FAILED),
        UNKNOWN,
        "<RemotePrimitive 'chek_echo' on='ToyEngine' path='chek_echo'> raised Runtime",
    ),
    (
        None,
        with_hint_for("chek_echo"),
        UNKNOWN,
        "<RemotePrimitive 'chek_echo' on='ToyEngine' path='chek_echo'> raised Unknown",
    ),
    (
        None,
        with_hint_for("check_chain/check_kay"),
        UNKNOWN,
        "<RemotePrimitive 'check_kay' on='ToyEngine' path='check_chain/check_kay'> r",
    ),
    (
        None,
        with_reply(status="ok", value=[1]),
        JSON,
        "<RemotePrimitive 'check_no_json' on='ToyEngine' path='check_no_json'> return",
    ),
    (
        None,
        with_error("RemoteValueError", args=["it is no JSON"]),
        JSON,
        "<RemotePrimitive 'check_no_json' on='ToyEngine' path='check_no_json'> raised",
    ),
    (
        None,
        with_reply(status="ok"),
        LOCAL,
        "the answer of the fallback: got None instead of 'plan B'",
    ),
    (None, with_reply(value=0), MANY, "outputs: got [0, 0, 0, 0] instead of [0, 1, 2"),
]


@pytest.mark.parametrize(("ask", "answer", "name", "message"), ALTERED)
@virtual
async def test_an_altered_call_is_told(ask, answer, name, message, tmp_path) -> None:
    """Each check fails where it should, with a sentence that says what it saw."""
    await expect_failure(name, ToyEngine(ask, answer), tmp_path, message)
