"""The door: who is told of a call, who acts around it, and what that may change."""

from __future__ import annotations

import abc
import asyncio
import contextvars
import functools
import gc
import inspect
import logging
import threading
import weakref

import pytest

from tests.core.tools import Log, Paths, Tag
from tests.garbage import only_new_garbage
from tta_primitives import (
    MapPrimitive,
    WorkflowContext,
    WorkflowPrimitive,
    door,
    step,
)
from tta_primitives.door import (
    Call,
    Interceptor,
    Observer,
    add_interceptor,
    add_observer,
    current_context,
    emit,
    is_listening,
    listening,
    remove_interceptor,
    remove_observer,
    tell,
)
from tta_primitives.errors import TimeoutExceededError


@step
async def double(number):
    return number * 2


@step
async def broken(number):
    raise ValueError(number)


class Around(Interceptor):
    """Notes when it acts, and adds to input and output."""

    def __init__(self, name, notes) -> None:
        self.name, self.notes = name, notes

    async def execute(self, call, proceed):
        self.notes.append(f"{self.name} before {call.path}")
        output = await proceed()
        self.notes.append(f"{self.name} after {call.path}")
        return output


@pytest.fixture
def unlogged(monkeypatch):
    """Forget what was logged once before."""
    monkeypatch.setattr("tta_primitives.door._logged", set())


async def run(workflow, value=1, context=None):
    return await workflow.execute(value, context or WorkflowContext())


async def test_observers_hear_calls_start_and_finish() -> None:
    """Each call is told twice, in the order in which things happen, with its path."""
    log = Log()
    with listening(observers=(log,)):
        assert await run(double >> double) == 4
    assert log.lines == [
        "> sequential",
        "> sequential/double",
        "< sequential/double ok",
        "> sequential/double#2",
        "< sequential/double#2 ok",
        "< sequential ok",
    ]


async def test_a_call_tells_what_went_in_and_out() -> None:
    """Input, output, context, parent and primitive are on the record."""
    seen: list[Call] = []

    class Keep(Observer):
        def finished(self, call):
            seen.append(call)

    context = WorkflowContext()
    chain = (double >> Paths()).named("answer")
    with listening(observers=(Keep(),)):
        await run(chain, 3, context)
    leaf, path, root = seen
    assert [call.path for call in seen] == ["answer/double", "answer/paths", "answer"]
    assert (leaf.input_data, leaf.output, leaf.is_stream) == (3, 6, False)
    assert (root.input_data, root.output) == (3, "answer/paths")
    assert leaf.primitive is double
    assert leaf.parent_call is root
    assert path.parent_call is root
    assert root.parent_call is None
    assert root.context is context
    assert repr(root) == "<Call 'answer'>"


async def test_a_record_begins_running_and_empty() -> None:
    """What is not known yet has a plain value, and a name that does not exist none."""
    found = []

    class Look(Observer):
        def started(self, call):
            found.append((call.status, call.output, call.error, call.is_stream))
            call.store[self] = "kept"

        def finished(self, call):
            found.append(call.store[self])
            with pytest.raises(AttributeError, match=r"'Call' object has no attr.*'x'"):
                _ = call.x

    with listening(observers=(Look(),)):
        await run(double)
    assert found == [("running", None, None, False), "kept"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("no"), "failed"),
        (TimeoutError("slow"), "failed"),
        (TimeoutExceededError("late", timeout_seconds=1), "timed_out"),
        (asyncio.CancelledError("stop"), "cancelled"),
        (GeneratorExit("left"), "cancelled"),
        (KeyboardInterrupt("key"), "failed"),
    ],
)
async def test_the_ends_of_a_call_are_told_apart(error, status) -> None:
    """Failed, timed out and cancelled differ; the error is there while it is told."""

    class Keep(Observer):
        def finished(self, call):
            seen.append((call.status, call.error))
            calls.append(call)

    @step
    def fail(_):
        raise error

    seen: list[object] = []
    calls: list[Call] = []
    with (
        listening(observers=(Keep(),)),
        pytest.raises(type(error), match=str(error)) as raised,
    ):
        await run(fail)
    assert raised.value is error
    assert seen == [(status, error)]
    assert calls[0].error is None


async def test_only_hooks_that_are_written_are_called() -> None:
    """All methods of an observer are optional, also without the base class."""

    class Bare:
        def finished(self, call):
            told.append(call.path)

    told: list[str] = []
    with listening(observers=(Observer(), Bare())):
        await run(double)
    assert told == ["double"]


async def test_an_observer_that_raises_changes_nothing(caplog, unlogged) -> None:
    """What it raises is logged once for each kind, and the run goes on."""

    class Bad(Observer):
        def started(self, call):
            raise RuntimeError("started")

        def event(self, call, name, detail):
            raise KeyError(name)

        def finished(self, call):
            raise RuntimeError("finished")

    @step
    def telling(value, context):
        emit(context, "told")
        return value

    log = Log()
    caplog.set_level(logging.ERROR, "tta_primitives")
    with listening(observers=(Bad(), log)):
        for _ in range(3):
            assert await run(telling, 5) == 5
        with pytest.raises(ValueError, match="5"):
            await run(broken, 5)
    assert [message.split(".")[-1] for message in caplog.messages] == [
        "started raised and is ignored",
        "event raised and is ignored",
        "finished raised and is ignored",
    ]
    assert log.lines[:3] == ["> telling", "! telling told", "< telling ok"]


async def test_a_sole_observer_that_raises_changes_nothing(caplog, unlogged) -> None:
    """One observer alone takes another way through the door than several."""

    class Alone(Observer):
        def started(self, call):
            raise LookupError("started")

        def finished(self, call):
            raise LookupError("finished")

    with listening(observers=(Alone(),)):
        assert await run(double, 2) == 4
        with pytest.raises(ValueError, match="2"):
            await run(broken, 2)
    assert len(caplog.messages) == 2


async def test_what_observers_raise_beyond_exceptions_is_not_hidden() -> None:
    """An exit or an interrupt is no mistake of the observer's."""

    class Quit(Observer):
        def finished(self, call):
            raise SystemExit(3)

    with listening(observers=(Quit(),)), pytest.raises(SystemExit, match="3"):
        await run(double)


async def test_events_belong_to_the_call_that_emits_them() -> None:
    """`emit` finds the call by the context, `tell` is for those who hold the call."""

    @step
    async def work(value, context):
        emit(context, "work.done", amount=value)
        return value

    class Teller(Interceptor):
        async def execute(self, call, proceed):
            tell(call, "seen", label=call.label)
            return await proceed()

    log = Log()
    with listening(observers=(log,), interceptors=(Teller(),)):
        await run(Tag("T", work))
    assert log.lines == [
        "> tag",
        "! tag seen label='tag'",
        "> tag/work",
        "! tag/work seen label='work'",
        "! tag/work work.done amount=1",
        "< tag/work ok",
        "< tag ok",
    ]


async def test_emit_without_a_call_is_silent() -> None:
    """A context that no call stands behind, or nobody listening, is no error."""
    log = Log()
    emit(WorkflowContext(), "nobody", hears=1)
    with listening(observers=(log,)):
        emit(WorkflowContext(), "nobody", hears=1)
    assert log.lines == []


async def test_interceptors_act_around_each_other() -> None:
    """What was added later acts further outside, and a scope outside the process."""
    notes: list[str] = []
    always = Around("process", notes)
    add_interceptor(always)
    try:
        with (
            listening(interceptors=(Around("first", notes), Around("second", notes))),
            listening(interceptors=(Around("inner", notes),)),
        ):
            assert await run(double) == 2
    finally:
        remove_interceptor(always)
    names = ["inner", "second", "first", "process"]
    assert notes == [f"{name} before double" for name in names] + [
        f"{name} after double" for name in reversed(names)
    ]


async def test_interceptors_replace_input_context_and_result() -> None:
    """What an interceptor puts on the call is what is executed and recorded."""

    class Swap(Interceptor):
        async def execute(self, call, proceed):
            call.input_data += 1
            call.context = call.context.child()
            call.context.deadline = 99.0
            return [await proceed()]

    @step
    def show(value, context):
        return value, context.deadline, context.path

    context = WorkflowContext()
    with listening(interceptors=(Swap(),)):
        assert await run(show, 1, context) == [(2, 99.0, "show")]
    assert context.deadline is None


async def test_case_95_an_interceptor_can_fail_or_skip_a_call() -> None:
    """Neither needs the primitive to run; with no interceptor nothing is asked."""

    class Skip(Interceptor):
        async def execute(self, call, proceed):
            if call.input_data == 0:
                raise ConnectionError("injected")
            return "answered"

    log = Log()
    with listening(observers=(log,), interceptors=(Skip(),)):
        assert await run(broken, 1) == "answered"
        with pytest.raises(ConnectionError, match="injected"):
            await run(double, 0)
    assert log.lines == ["> broken", "< broken ok", "> double", "< double failed"]


async def test_an_interceptor_may_do_nothing() -> None:
    """The base class passes calls and streams through."""
    with listening(interceptors=(Interceptor(),)):
        assert await run(double) == 2
        stream = double.stream(4, WorkflowContext())
        assert [chunk async for chunk in stream] == [8]


async def test_a_scope_is_left_with_its_block() -> None:
    """Scopes nest, overlap with the process, and leave nothing behind."""
    outer, inner, always = Log(), Log(), Log()
    with listening(observers=(outer,)):
        with listening(observers=(inner,)):
            add_observer(always)
            await run(double)
        await run(double)
    await run(double)
    remove_observer(always)
    remove_observer(always)
    await run(double)
    counts = [len(log.lines) // 2 for log in (inner, outer, always)]
    assert counts == [1, 2, 3]
    assert not is_listening()


async def test_a_scope_belongs_to_its_task() -> None:
    """Tasks made inside a scope are heard, tasks beside it are not."""
    log = Log()
    ready = asyncio.Event()

    async def beside():
        await ready.wait()
        await run(double, 1)

    other = asyncio.create_task(beside())
    with listening(observers=(log,)):
        await asyncio.create_task(run(double, 2))
        ready.set()
        await other
        empty = contextvars.Context()
        await asyncio.create_task(run(double, 3), context=empty)
    assert log.lines == ["> double", "< double ok"]


async def test_a_scope_left_in_a_run_is_heard_to_its_end() -> None:
    """A call that was told to start is told to finish."""
    log = Log()
    release = asyncio.Event()

    @step
    async def wait(value):
        await release.wait()
        return value

    with listening(observers=(log,)):
        task = asyncio.create_task(run(wait))
        await asyncio.sleep(0)
    release.set()
    await task
    assert log.lines == ["> wait", "< wait ok"]


async def test_the_context_of_a_run_is_kept_for_those_who_ask() -> None:
    """`current_context` is set once per run, for observers that want it kept."""

    class Following(Observer):
        keeps_context = True

    @step
    async def look(value):
        return current_context()

    context = WorkflowContext()
    assert await run(look, 1, context) is None
    with listening(observers=(Log(),)):
        assert await run(look, 1, context) is None
    with listening(observers=(Log(), Following())):
        assert await run(double >> look, 1, context) is context
        assert current_context() is None


# Classes of the user's own: where the door is put.


class Base(WorkflowPrimitive):
    async def execute(self, value, context):
        return [value]


class Calling(Base):
    async def execute(self, value, context):
        return ["sub", *await super().execute(value, context)]


class Mixin:
    async def execute(self, value, context):
        return ["mixin", value]


class Mixed(Mixin, WorkflowPrimitive):
    pass


class MixedOver(Mixin, Base):
    pass


class Abstract(WorkflowPrimitive, abc.ABC):
    @abc.abstractmethod
    async def execute(self, value, context): ...


class Concrete(Abstract):
    async def execute(self, value, context):
        return ["concrete", value]


class Silent(Base):
    def __init__(self) -> None:
        """Leave out `super().__init__()`, as the guide's example does."""
        self.client = object()


class Recursive(WorkflowPrimitive):
    async def execute(self, value, context):
        if value == 0:
            return []
        return [value, *await self.execute(value - 1, context)]


def decorated(function):
    @functools.wraps(function)
    async def wrapper(self, value, context):
        return ["decorated", *await function(self, value, context)]

    return wrapper


class Decorated(Base):
    @decorated
    async def execute(self, value, context):
        return [value]


@pytest.mark.parametrize(
    ("primitive", "output", "told"),
    [
        (Base(), [1], ["> base"]),
        (Calling(), ["sub", 1], ["> calling"]),
        (Mixed(), ["mixin", 1], ["> mixed"]),
        (MixedOver(), ["mixin", 1], ["> mixed_over"]),
        (Concrete(), ["concrete", 1], ["> concrete"]),
        (Silent(), [1], ["> silent"]),
        (Recursive(), [1], ["> recursive", "> recursive/recursive"]),
        (Decorated(), ["decorated", 1], ["> decorated"]),
    ],
)
async def test_every_call_is_told_exactly_once(primitive, output, told) -> None:
    """Through `super()`, mixins, abstract bases, decorators: one call, one record."""
    log = Log()
    assert await run(primitive) == output
    with listening(observers=(log,)):
        assert await run(primitive) == output
    assert [line for line in log.lines if line[0] == ">"] == told


def test_an_abstract_primitive_stays_abstract() -> None:
    """The door does not stand before a method that nobody has written."""
    with pytest.raises(TypeError, match="abstract"):
        Abstract()


async def test_a_class_without_execute_says_what_to_write() -> None:
    """The base class names the class and the method."""

    class Nothing(WorkflowPrimitive):
        pass

    with pytest.raises(
        NotImplementedError, match=r"Nothing must define async def exec"
    ):
        await run(Nothing())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            {"execute": lambda self, data: data},
            r"Bad\.execute\(self, data\) must be as",
        ),
        ({"execute": 3}, r"Bad\.execute is 'int', and must be async def execute\(self"),
        (
            {"stream": lambda self: None},
            r"Bad\.stream\(self\) must be async def stream",
        ),
    ],
)
def test_a_wrong_method_fails_when_the_class_is_made(body, message) -> None:
    """What could never be called is refused before anything runs."""
    with pytest.raises(TypeError, match=message):
        type("Bad", (WorkflowPrimitive,), body)


def test_an_execute_that_yields_is_a_stream() -> None:
    """An async generator has another name here."""
    with pytest.raises(TypeError, match=r"Bad\.execute yields; call it stream"):

        class Bad(WorkflowPrimitive):
            async def execute(self, value, context):
                yield value


def test_execute_is_a_coroutine_function() -> None:
    """Frameworks that look (Starlette, unittest.mock) see what it is."""
    assert asyncio.iscoroutinefunction(Base().execute)
    assert asyncio.iscoroutinefunction(double.execute)
    assert list(inspect.signature(Base.execute).parameters) == [
        "self",
        "value",
        "context",
    ]


async def test_case_97_the_door_adds_no_frame() -> None:
    """While nobody listens, the caller awaits the primitive's own coroutine."""
    coroutine = Base().execute(1, WorkflowContext())
    assert coroutine.cr_code is Base.execute.__wrapped__.__code__
    assert await coroutine == [1]


@pytest.mark.parametrize("workflow", [double >> Paths(), Tag("T", double), broken])
async def test_observing_leaves_no_cyclic_garbage(workflow) -> None:
    """Records, views and errors are freed when the last one lets go."""

    async def once():
        try:
            await run(workflow)
        except ValueError as error:
            del error

    with listening(observers=(Observer(), Log())):
        await once()  # What is made once is made now.
        with only_new_garbage():
            await once()
            assert gc.collect() == 0


async def test_paths_are_the_same_heard_or_not() -> None:
    """Whether somebody listens must not change what a step sees."""

    class Own(WorkflowPrimitive):
        def __init__(self) -> None:
            self.inner = Paths()

        async def execute(self, value, context):
            return [context.path, await self.inner.execute(value, context)]

    workflow = (double >> (Own() | Own() | MapPrimitive(Paths()))).named("root")

    def to_items(value):
        return [value]

    whole = to_items >> workflow.steps[1] >> (lambda value: value)
    quiet = await run(whole.named("root"))
    with listening(observers=(Log(),)):
        assert await run(whole.named("root")) == quiet
    assert quiet == (
        ["root/parallel/own", "root/parallel/own/paths"],
        ["root/parallel/own#2", "root/parallel/own#2/paths"],
        ["root/parallel/map/paths"],
    )


async def test_listeners_of_the_process_are_heard_in_open_scopes() -> None:
    """A scope that was entered before hears with those who come later, and without."""
    own, later = Log(), Log()
    with listening(observers=(own,)):
        add_observer(later)
        await run(double)
        remove_observer(later)
        await run(double)
    assert (len(own.lines), len(later.lines)) == (4, 2)


async def test_a_task_that_outlives_its_scope_is_told_to_those_outside() -> None:
    """A block that is left hears no call that begins afterwards."""
    inner, outer = Log(), Log()
    release = asyncio.Event()

    async def late():
        await release.wait()
        await run(double)

    with listening(observers=(outer,)):
        with listening(observers=(inner,)):
            task = asyncio.create_task(late())
            await asyncio.sleep(0)
        release.set()
        await task
    assert (inner.lines, outer.lines) == ([], ["> double", "< double ok"])


@pytest.mark.parametrize("workflow", [double, double >> double], ids=["leaf", "chain"])
async def test_who_comes_or_goes_during_a_call_changes_nothing_in_it(workflow) -> None:
    """Those who heard its start hear its end, and nobody else does."""
    early, late = Log(), Log()

    class Switch(Observer):
        def started(self, call):
            if not late.lines and call.parent_call is None:
                remove_observer(early)
                add_observer(late)

    switch = Switch()
    add_observer(early, switch)
    try:
        await run(workflow)
    finally:
        remove_observer(early, switch, late)
    assert early.lines[0].startswith("> ")
    assert early.lines[-1].startswith("< ")
    path = early.lines[0].removeprefix("> ")
    assert f"< {path} ok" not in late.lines


def test_scopes_of_many_threads_are_counted() -> None:
    """They open and close at the same time, and leave nobody listening."""
    gate = threading.Barrier(8, timeout=10)

    def enter_often():
        gate.wait()
        for _ in range(200):
            with listening(observers=(Log(),)):
                assert is_listening()

    threads = [threading.Thread(target=enter_often) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not is_listening()


async def test_a_scope_that_nobody_is_in_is_forgotten() -> None:
    """Its observers are not kept for the life of the process."""
    log = Log()
    seen = weakref.ref(log)
    gc.collect()  # What earlier tests have left.
    before = len(door._scopes)
    with listening(observers=(log,)):
        await run(double)
    del log
    gc.collect()
    assert seen() is None
    assert len(door._scopes) == before


async def test_siblings_of_one_name_are_told_apart_while_somebody_listens() -> None:
    """Steps that never ask for their paths have them all the same."""
    log = Log()
    with listening(observers=(log,)):
        await run(double | double)
        await run(double >> double)
    assert log.lines[1] == "> parallel/double"
    assert log.lines[2] == "< parallel/double ok"
    assert "> parallel/double#2" in log.lines
    assert "> sequential/double#2" in log.lines


async def test_a_method_called_through_super_finds_its_own_place() -> None:
    """Also with a context that was not made for it, heard or not."""

    class Detached(Paths):
        async def execute(self, value, context):
            return await super().execute(value, WorkflowContext())

    unheard = await run(Detached())
    with listening(observers=(Log(),)):
        assert await run(Detached()) == unheard == "detached"


class Nothing(WorkflowPrimitive):
    """A primitive that does nothing with its context."""

    async def execute(self, value, context):
        return value


@pytest.mark.parametrize("given", [None, {}, "context"])
@pytest.mark.parametrize(
    "workflow", [double, double >> double, Nothing()], ids=["leaf", "chain", "user's"]
)
async def test_what_is_no_context_is_refused_while_somebody_listens(
    workflow, given
) -> None:
    """The error shows what was given, and says what to give."""
    message = rf"context={given!r} must be a WorkflowContext, as in await workflow"
    with listening(observers=(Log(),)), pytest.raises(TypeError, match=message):
        await workflow.execute(1, given)


async def test_a_users_primitive_refuses_what_is_no_context() -> None:
    """Also while nobody listens."""
    with pytest.raises(TypeError, match="context=None must be a WorkflowContext"):
        await Nothing().execute(1, None)


async def test_an_error_of_a_name_is_its_own() -> None:
    """An attribute that a primitive lacks is not taken for a missing context."""

    class Nameless(Nothing):
        @property
        def name(self):
            return self.no_such_attribute

    with pytest.raises(AttributeError, match="no_such_attribute"):
        await Nameless().execute(1, WorkflowContext())
