"""What travels along a run: ids, shared state, the deadline, the position in the tree.

A run is one `execute` called from outside. Everything that the whole run shares sits in
one record; a `WorkflowContext` is a view of it with a deadline, an idempotency key and
a position of its own. Primitives hand *views* down and never change the caller's.
"""

from __future__ import annotations

from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    NamedTuple,
    TypeAlias,
    TypeVar,
    cast,
    overload,
)

from tta_primitives.chance import new_id
from tta_primitives.loops import moment, now

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tta_primitives.primitive import WorkflowPrimitive

__all__ = ["Enforced", "Position", "Trace", "WorkflowContext", "carry_trace"]

T = TypeVar("T")

AnyPrimitive: TypeAlias = "WorkflowPrimitive[Any, Any]"

CORRELATION_HEADER = "x-correlation-id"
_MAX_HEADER = 256
# W3C Baggage, section 3.3: a platform must pass on at least this much.
_MAX_BAGGAGE_BYTES = 8192


class Trace(NamedTuple):
    """Where in a distributed trace something happens, as W3C Trace Context writes it.

    Attributes:
        traceparent: The ids of trace and span, None outside of any trace.
        tracestate: What vendors add to them.
    """

    traceparent: str | None
    tracestate: str | None = None


# Who knows in which span the current code runs; None while nobody traces.
_current_trace: Callable[[], Trace | None] | None = None


def carry_trace(current: Callable[[], Trace | None] | None) -> None:
    """Let contexts pass on the span that is current, rather than the caller's.

    Args:
        current: Returns it, or None where there is none; None to pass on what the
            context was given.
    """
    global _current_trace  # noqa: PLW0603 - one tracer for the process
    _current_trace = current


class Position:
    """A place in a workflow tree: a primitive below the position that called it.

    A position belongs to a place and not to an object: a step used twice has two.

    Attributes:
        parent: The enclosing position, or None at the root of a run.
        primitive: The primitive that stands here.
        label: Its name, with `#2` for a second sibling of that name.
    """

    # No __init__: positions are made on the hot path, where calling one costs as much
    # as everything else together.
    __slots__ = ("label", "parent", "primitive")

    parent: Position | None
    primitive: WorkflowPrimitive[Any, Any]
    label: str

    @property
    def path(self) -> str:
        """The labels from the root to here, joined by slashes."""
        labels: list[str] = []
        position: Position | None = self
        while position is not None:
            labels.append(position.label)
            position = position.parent
        return "/".join(reversed(labels))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path!r}>"


def place(
    parent: Position | None, primitive: WorkflowPrimitive[Any, Any], label: str
) -> Position:
    """Return the position of a primitive below another position."""
    position = Position()
    position.parent = parent
    position.primitive = primitive
    position.label = label
    return position


class KeyScope:
    """Where idempotency keys are constant: one execution of a retry, all attempts.

    Executions of one path are told apart by their numbers: in a run, and inside an
    outer scope in each of its attempts, which therefore count alike.

    Args:
        path: The path of the retry.
        outer: The scope that it is executed in, or the caller's own key.
        number: Which execution of this path it is there, counted from 1.
        keys: The keys that earlier attempts have asked for.
    """

    __slots__ = ("_counts", "_keys", "_number", "_outer", "_path")

    def __init__(
        self,
        path: str,
        outer: Keys | str | None,
        number: int,
        keys: dict[str, str] | None = None,
    ) -> None:
        self._path = path
        self._outer = outer
        self._number = number
        self._keys = {} if keys is None else keys
        self._counts: dict[str, int] = {}

    def again(self) -> KeyScope:
        """Return this scope for another attempt, which gets the same keys."""
        return KeyScope(self._path, self._outer, self._number, self._keys)

    def key(self, run: WorkflowContext, path: str) -> str:
        """Return the key of the step at `path`, made on the first question."""
        key = self._keys.get(path)
        if key is None:
            key = self._keys[path] = self._derive(run, path)
        return key

    def _derive(self, run: WorkflowContext, path: str) -> str:
        # Importing it takes a tenth of the time that the whole package may take.
        import hashlib

        outer = self._outer
        if outer is None or isinstance(outer, str):
            origin = outer or run.run_id
        else:
            # What is constant in the outer scope is constant here: an outer retry
            # repeats this whole scope.
            origin = outer.key(run, self._path)
        text = f"{origin}\n{self._path}\n{self._number}\n{path}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def count(self, path: str) -> int:
        """Return which execution of a path begins in this attempt."""
        return _counted(self._counts, path)


class ItemKeys:
    """The keys of one item of many that are processed at one path.

    Args:
        index: Which item it is; a number, or a text for what is no item of a map.
        outer: The scope that all of them are in.
    """

    __slots__ = ("_index", "_outer")

    def __init__(self, index: int | str, outer: Keys) -> None:
        self._index = index
        self._outer = outer

    def key(self, run: WorkflowContext, path: str) -> str:
        """Return the key of the step at `path` for this item."""
        return self._outer.key(run, f"{path}[{self._index}]")

    def count(self, path: str) -> int:
        """Return which execution of a path begins for this item."""
        return self._outer.count(f"{path}[{self._index}]")


Keys: TypeAlias = "KeyScope | ItemKeys"
# The position of a view that nobody has asked for yet: the view it was made of, the
# primitive that made it (None for the one that was called with that view), the one it
# is for, and the label of that one.
Place: TypeAlias = "tuple[WorkflowContext, AnyPrimitive | None, AnyPrimitive, str]"


def _counted(counts: dict[str, int], name: str) -> int:
    """Count one more, and return how many there are."""
    number = counts[name] = counts.get(name, 0) + 1
    return number


class _Shared(Generic[T]):
    """A field of the run, readable and settable through every view of it.

    It is stored in the root context, and made there when it is first read.
    """

    def __init__(self, doc: str, make: Callable[[], T]) -> None:
        self.__doc__ = doc
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, view: None, owner: type) -> _Shared[T]: ...
    @overload
    def __get__(self, view: WorkflowContext, owner: type) -> T: ...
    def __get__(self, view: WorkflowContext | None, owner: type) -> _Shared[T] | T:
        if view is None:
            return self
        root = view._root or view
        stored = root._fields
        if stored is None:
            stored = root._fields = {}
        value: T | None = stored.get(self._name)
        if value is None:
            value = stored[self._name] = self._make()
        return value

    def __set__(self, view: WorkflowContext, value: T) -> None:
        root = view._root or view
        if root._fields is None:
            root._fields = {}
        root._fields[self._name] = value


def _nothing() -> None:
    return None


class WorkflowContext:
    """The context of one run, as the primitive at one position sees it.

    Ids and containers are made when they are first read; creating a context costs well
    under a microsecond.

    Args:
        correlation_id: Ties the run to a request; a new id unless given.
        workflow_id: Names the kind of workflow, for logs and metrics.
        session_id: Names the conversation or user session.
        traceparent: W3C Trace Context header of the caller.
        tracestate: W3C tracestate header of the caller.
        baggage: W3C baggage, passed on to other services.
        tags: Short strings for metrics and logs.
        state: Data that steps of this run share, also across parallel branches.
        metadata: Whatever the caller wants to keep beside the run.
        deps: Live objects (sessions, clients); shared, never serialised.
        deadline: When the run must be over, in seconds of the event loop's clock.
        idempotency_key: A key of the caller's, for instance an order number. Retries
            derive the keys of their steps from it, so that a redelivered job repeats
            them.
    """

    # What differs from view to view has a slot; what the run shares is among the root's
    # fields, so that creating a context stores only what was given. There is no
    # __dict__: to make one is a fifth of the cost of a view.
    __slots__ = (
        "__weakref__",
        "_fields",
        "_key",
        "_position",
        "_root",
        "_started_at",
        "deadline",
    )

    _root: WorkflowContext | None
    _key: Keys | str | None
    _fields: dict[str, Any] | None
    _position: Position | Place | None
    _started_at: float | None
    deadline: float | None

    def __init__(  # noqa: C901 - a line for each field; a loop takes twice as long
        self,
        correlation_id: str | None = None,
        workflow_id: str | None = None,
        session_id: str | None = None,
        *,
        traceparent: str | None = None,
        tracestate: str | None = None,
        baggage: dict[str, str] | None = None,
        tags: dict[str, str] | None = None,
        state: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        deps: dict[str, Any] | None = None,
        deadline: float | None = None,
        idempotency_key: str | None = None,
    ) -> None:
        self._root = None
        self._fields = None
        if correlation_id is not None:
            self._fields = {"correlation_id": correlation_id}
        if workflow_id is not None:
            self.workflow_id = workflow_id
        if session_id is not None:
            self.session_id = session_id
        if traceparent is not None:
            self.traceparent = traceparent
        if tracestate is not None:
            self.tracestate = tracestate
        if baggage is not None:
            self.baggage = baggage
        if tags is not None:
            self.tags = tags
        if state is not None:
            self.state = state
        if metadata is not None:
            self.metadata = metadata
        if deps is not None:
            self.deps = deps
        self._started_at = moment()
        self._key = idempotency_key
        self._position = None
        self.deadline = deadline

    correlation_id: _Shared[str] = _Shared("Ties the run to a request.", new_id)
    workflow_id: _Shared[str | None] = _Shared("Names the kind of workflow.", _nothing)
    session_id: _Shared[str | None] = _Shared("Names the user session.", _nothing)
    traceparent: _Shared[str | None] = _Shared("W3C traceparent.", _nothing)
    tracestate: _Shared[str | None] = _Shared("W3C tracestate.", _nothing)
    baggage: _Shared[dict[str, str]] = _Shared("W3C baggage.", dict)
    tags: _Shared[dict[str, str]] = _Shared("Short strings for metrics.", dict)
    state: _Shared[dict[str, Any]] = _Shared("Data shared along the run.", dict)
    metadata: _Shared[dict[str, Any]] = _Shared("The caller's own data.", dict)
    deps: _Shared[dict[str, Any]] = _Shared("Live objects of the run.", dict)
    run_id: _Shared[str] = _Shared("Identifies this run.", new_id)
    outcomes: _Shared[dict[str, Any]] = _Shared(
        "Who answered, by path: a fallback, a stale cache entry.", dict
    )
    checkpoints: _Shared[list[tuple[str, float]]] = _Shared(
        "Names with the milliseconds since the run began.", list
    )

    _key_scopes: _Shared[dict[str, int]] = _Shared("Key scopes by path.", dict)

    def _root_context(self) -> WorkflowContext:
        return self if self._root is None else self._root

    @property
    def path(self) -> str:
        """The path of the position that this view was made for, "" at the root."""
        position = self._place()
        return "" if position is None else position.path

    @property
    def idempotency_key(self) -> str | None:
        """A key that is the same for all attempts of this step, or None.

        Inside a retry it is derived from the run and the step's path, different for
        each step, each item of a map and each execution of the retry. Elsewhere it is
        what the caller gave to the context. A primitive that executes one step several
        times by itself sees to it with `open_item` that their keys differ.
        """
        key = self._key
        if key is None or isinstance(key, str):
            return key
        return key.key(self._root_context(), self.path)

    def remaining(self) -> float | None:
        """Return the seconds left to the deadline, below 0 after it; None without."""
        if self.deadline is None:
            return None
        return self.deadline - now()

    def elapsed_ms(self) -> float:
        """Return the milliseconds since the context was created, on the loop's clock.

        A context made outside an event loop counts from its first use inside one.
        """
        present = now()
        root = self._root_context()
        if root._started_at is None:
            root._started_at = present
        return (present - root._started_at) * 1000

    def checkpoint(self, name: str) -> None:
        """Note a name with the milliseconds since the run began."""
        self.checkpoints.append((name, self.elapsed_ms()))

    def child(
        self, *, deadline: float | None = None, isolate: bool = False
    ) -> WorkflowContext:
        """Return a view that shares this run, with an earlier deadline if one is given.

        Args:
            deadline: In seconds of the loop's clock; never later than this view's.
            isolate: Give the view a deep copy of `state` instead of the shared one.
        """
        view: WorkflowContext = _View()
        view._root = self._isolated() if isolate else (self._root or self)
        view._key = self._key
        view._position = self._position
        view.deadline = earlier(deadline, self.deadline)
        return view

    def _isolated(self, *, copy_state: bool = True) -> WorkflowContext:
        """Return a root of its own that shares all but `state` with this one.

        Args:
            copy_state: Whether `state` is copied, or shared as well.
        """
        import copy

        # What is made on first read must exist before it can be shared with the copy.
        _ = self.correlation_id, self.run_id, self.outcomes, self.checkpoints
        _ = self.metadata, self.tags, self.baggage, self.deps, self._key_scopes
        state = self.state
        root = copy.copy(self._root_context())
        root.state = copy.deepcopy(state) if copy_state else state
        return root

    def below(
        self,
        parent: WorkflowPrimitive[Any, Any] | None,
        primitive: WorkflowPrimitive[Any, Any],
        label: str,
    ) -> WorkflowContext:
        """Return the view that `parent` hands to the child which it calls `label`.

        Args:
            parent: Who hands it; None for who was called with this view.
            primitive: The child.
            label: Its name, with `#2` for a second sibling of that name.
        """
        view: WorkflowContext = _View()
        view._root = self._root or self
        view._key = self._key
        view._position = (self, parent, primitive, label)
        view.deadline = self.deadline
        return view

    def at(self, position: Position) -> WorkflowContext:
        """Return the view of the primitive at this position."""
        view: WorkflowContext = _View()
        view._root = self._root or self
        view._key = self._key
        view._position = position
        view.deadline = self.deadline
        return view

    def of(self, primitive: WorkflowPrimitive[Any, Any]) -> WorkflowContext:
        """Return this view if it was made for the primitive, else one that is."""
        position = self._position
        if isinstance(position, tuple):
            if position[2] is primitive:
                return self
        elif position is not None and position.primitive is primitive:
            return self
        return self.below(None, primitive, primitive.name)

    def position_of(self, primitive: WorkflowPrimitive[Any, Any]) -> Position:
        """Return the position of the primitive that was called with this view."""
        position = self._place()
        if position is not None and position.primitive is primitive:
            return position
        return place(position, primitive, primitive.name)

    def _place(self) -> Position | None:
        """Return the position, made when somebody asks: most views are never asked."""
        position = self._position
        if isinstance(position, tuple):
            above, parent, primitive, label = position
            outer = above._place() if parent is None else above.position_of(parent)
            position = self._position = place(outer, primitive, label)
        return position

    def open_key_scope(self, primitive: WorkflowPrimitive[Any, Any]) -> None:
        """Begin a scope of constant idempotency keys: one execution of a retry."""
        path, outer = self.position_of(primitive).path, self._key
        if outer is None or isinstance(outer, str):
            number = _counted(self._key_scopes, f"{outer or ''}\n{path}")
        else:
            number = outer.count(path)
        self._key = KeyScope(path, outer, number)

    def reopen_key_scope(self) -> None:
        """Begin another attempt: what is executed again gets the same keys again."""
        if isinstance(self._key, KeyScope):
            self._key = self._key.again()

    def open_item(self, index: int | str) -> None:
        """Make idempotency keys differ from those of the other items of a map."""
        if isinstance(self._key, str):
            self._key = f"{self._key}[{index}]"
        elif self._key is not None:
            self._key = ItemKeys(index, self._key)

    def to_headers(self) -> dict[str, str]:
        """Return what another service needs to join this run.

        The names are those of W3C Trace Context and W3C Baggage, and
        `x-correlation-id`. While workflows are traced, `traceparent` is that of the
        span that is current; otherwise it is the caller's, unchanged.
        """
        headers = {CORRELATION_HEADER: self.correlation_id}
        traceparent, tracestate = self._trace()
        if traceparent is not None:
            headers["traceparent"] = traceparent
            if tracestate is not None:
                headers["tracestate"] = tracestate
        if self.baggage:
            headers["baggage"] = _baggage_header(self.baggage)
        return {name: value for name, value in headers.items() if _is_safe(value)}

    def _trace(self) -> Trace:
        """Return the span that what is called from here belongs to."""
        current = None if _current_trace is None else _current_trace()
        return current or Trace(self.traceparent, self.tracestate)

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> WorkflowContext:
        """Return a context that continues the run described by these headers.

        Names are matched without regard to case. What is malformed is left out, as W3C
        Trace Context asks: a bad header never fails a request.
        """
        lower = {name.lower(): value.strip() for name, value in headers.items()}
        correlation = lower.get(CORRELATION_HEADER, "")
        traceparent = lower.get("traceparent", "")
        is_traced = _is_traceparent(traceparent)
        is_id = 0 < len(correlation) <= _MAX_HEADER and _is_safe(correlation)
        return cls(
            correlation_id=correlation if is_id else None,
            traceparent=traceparent if is_traced else None,
            tracestate=lower.get("tracestate") if is_traced else None,
            baggage=_parse_baggage(lower.get("baggage", "")) or None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the context as plain data, for another process.

        `deps` stay behind, and the deadline becomes the seconds that remain. The span
        that is told is the one of `to_headers`.
        """
        import copy

        key = self.idempotency_key
        traceparent, tracestate = self._trace()
        return {
            "correlation_id": self.correlation_id,
            "run_id": self.run_id,
            "workflow_id": self.workflow_id,
            "session_id": self.session_id,
            "traceparent": traceparent,
            "tracestate": tracestate,
            "baggage": dict(self.baggage),
            "tags": dict(self.tags),
            "state": copy.deepcopy(self.state),
            "metadata": copy.deepcopy(self.metadata),
            "remaining_seconds": self.remaining(),
            "idempotency_key": key,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WorkflowContext:
        """Return the context that `to_dict` described; its deadline counts from now."""
        import copy

        remaining = data.get("remaining_seconds")
        deadline = None if remaining is None else now() + remaining
        context = cls(
            data.get("correlation_id"),
            data.get("workflow_id"),
            data.get("session_id"),
            traceparent=data.get("traceparent"),
            tracestate=data.get("tracestate"),
            baggage=dict(data.get("baggage") or {}),
            tags=dict(data.get("tags") or {}),
            state=copy.deepcopy(dict(data.get("state") or {})),
            metadata=copy.deepcopy(dict(data.get("metadata") or {})),
            deadline=deadline,
            idempotency_key=data.get("idempotency_key"),
        )
        if data.get("run_id") is not None:
            context.run_id = data["run_id"]
        return context

    def __getstate__(self) -> object:
        """Return what a copy gets: fields that it may set without setting ours."""
        own, slots = cast("tuple[object, dict[str, Any]]", super().__getstate__())
        fields = slots.get("_fields")
        return own, {**slots, "_fields": None if fields is None else dict(fields)}

    def __repr__(self) -> str:
        shown = f"correlation_id={self.correlation_id!r}"
        if self._position is not None:
            shown += f" path={self.path!r}"
        if self.deadline is not None:
            shown += f" deadline={self.deadline!r}"
        return f"<WorkflowContext {shown}>"


class _View(WorkflowContext):
    """A context below another, of the same run."""

    __slots__ = ()

    # A view is filled in by whoever makes it; the slot of `object` is called fastest.
    __init__ = object.__init__  # pyright: ignore[reportAssignmentType]


class Enforced(float):
    """A deadline at which whoever has set it ends what is below.

    A limit further inside leaves it to them: both would be up at one instant, and the
    inner one must not answer for the outer one.
    """

    __slots__ = ()


def earlier(first: float | None, second: float | None) -> float | None:
    """Return the earlier of two deadlines, None meaning that there is none."""
    if first is None or second is None:
        return second if first is None else first
    return min(first, second)


def _is_safe(value: str) -> bool:
    """Tell whether a value may stand in a header: a line break would forge another."""
    return value.isprintable() and value.isascii()


def _is_traceparent(value: str) -> bool:
    """Tell whether a value has the form of W3C Trace Context, section 3.2."""
    parts = value.split("-")
    if [len(part) for part in parts[:4]] != [2, 32, 16, 2]:
        return False
    version, trace_id, span_id, _ = parts[:4]
    if version == "ff" or (version == "00" and len(parts) > 4):  # noqa: PLR2004
        return False
    hexadecimal = not "".join(parts[:4]).strip("0123456789abcdef")
    return hexadecimal and bool(trace_id.strip("0")) and bool(span_id.strip("0"))


def _baggage_header(baggage: Mapping[str, str]) -> str:
    """Write a W3C baggage header."""
    # Importing it takes a quarter of the time that the whole package may take.
    from urllib.parse import quote

    return ",".join(
        f"{quote(name, safe='')}={quote(value, safe='')}"
        for name, value in baggage.items()
    )


def _parse_baggage(value: str) -> dict[str, str]:
    """Read a W3C baggage header; members without an equals sign are left out."""
    if not 0 < len(value) <= _MAX_BAGGAGE_BYTES:
        return {}
    from urllib.parse import unquote  # As above.

    pairs = (member.split(";")[0].partition("=") for member in value.split(","))
    return {
        unquote(name.strip()): unquote(content.strip())
        for name, equals, content in pairs
        if equals and name.strip()
    }
