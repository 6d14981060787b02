"""What crosses between a caller and a worker: plain data with a version, never code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, cast

from tta_primitives.distributed.errors import RemoteDataError
from tta_primitives.distributed.values import is_json, read_json, write_json

if TYPE_CHECKING:
    from typing import Self

__all__ = ["RemoteReply", "RemoteTask", "ReplyStatus"]

ReplyStatus: TypeAlias = Literal["ok", "failed", "cancelled"]

_VERSION = 1


def _names(record: type) -> list[str]:
    return [one.name for one in fields(record)]


class _Record:
    """Something that is written as versioned JSON, and read back with suspicion.

    Whatever else stands in the data is ignored, so that a later minor version may add
    to it.
    """

    __slots__ = ()

    _kind: ClassVar[str]
    _texts: ClassVar[tuple[str, ...]]

    def to_json(self) -> str:
        """Return it as JSON text, in ASCII."""
        return write_json(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, which any JSON library can write."""
        head = {"tta": self._kind, "version": _VERSION}
        return head | {name: getattr(self, name) for name in _names(type(self))}

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return what `to_json` wrote.

        Raises:
            RemoteDataError: It is something else.
        """
        try:
            data = read_json(text)
        except (ValueError, RecursionError):
            msg = f"a {cls._kind} must be JSON text, not {text[:40]!r}..."
            raise RemoteDataError(msg) from None
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: object) -> Self:
        """Return what `to_dict` returned.

        Raises:
            RemoteDataError: It is something else, or of another version.
        """
        given = cls._checked(data)
        flaw = cls._flaw(given)
        for name in cls._texts:
            if not isinstance(given.get(name), str):
                flaw = f"its {name!r} is {given.get(name)!r:.80}"
        if flaw is not None:
            msg = f"this {cls._kind} is malformed: {flaw}"
            raise RemoteDataError(msg)
        return cls(**{name: given[name] for name in _names(cls) if name in given})

    @classmethod
    def _checked(cls, data: object) -> Mapping[str, Any]:
        if not isinstance(data, Mapping) or data.get("tta") != cls._kind:
            shown = type(data).__name__
            if isinstance(data, Mapping):
                shown = f"data with the keys {sorted(map(str, data))!r:.120}"
            msg = f"{shown} is no {cls._kind} of tta_primitives: is the queue shared?"
            raise RemoteDataError(msg)
        version = data.get("version")
        if version != _VERSION:
            msg = (
                f"this {cls._kind} is of version {version!r}, and version {_VERSION} "
                "is read here: let callers and workers run one version"
            )
            raise RemoteDataError(msg)
        if not is_json(dict(data)):
            msg = f"this {cls._kind} is malformed: it holds something that is no JSON"
            raise RemoteDataError(msg)
        return cast("Mapping[str, Any]", data)

    @classmethod
    def _flaw(cls, given: Mapping[str, Any]) -> str | None:
        """Return what is wrong with the fields that are no texts."""
        raise NotImplementedError


# What the context's data holds, apart from what is None.
_CONTEXT: dict[str, type | tuple[type, ...]] = {
    "correlation_id": str,
    "run_id": str,
    "workflow_id": str,
    "session_id": str,
    "traceparent": str,
    "tracestate": str,
    "idempotency_key": str,
    "key_is_shared": bool,
    "remaining_seconds": (int, float),
    "state": dict,
}
_CONTEXT_TEXTS = ("baggage", "tags")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteTask(_Record):
    """One call of a step on a worker: names and JSON, nothing that could be executed.

    Attributes:
        call_id: Identifies the call, also when it is delivered more than once.
        workflow: The name under which the workflow is registered on the worker.
        path: The position in it, beginning with that name.
        value: The input, as JSON.
        context: What travels along with it; see `tta_primitives.distributed.carried`.
    """

    _kind: ClassVar[str] = "task"
    _texts: ClassVar[tuple[str, ...]] = ("call_id", "workflow", "path")

    call_id: str
    workflow: str
    path: str
    value: Any = field(default=None, repr=False)
    context: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def remaining_seconds(self) -> float | None:
        """The seconds to its deadline when it was sent, None without one."""
        return self.context.get("remaining_seconds")

    @classmethod
    def _flaw(cls, given: Mapping[str, Any]) -> str | None:
        context = given.get("context", {})
        if not isinstance(context, dict):
            return f"its context is {type(context).__name__}"
        for name, kind in _CONTEXT.items():
            value = context.get(name)
            if value is not None and not isinstance(value, kind):
                return f"its context's {name!r} is no {kind!r}"
        for name in _CONTEXT_TEXTS:
            texts = context.get(name) or {}
            if not isinstance(texts, dict) or not all(
                isinstance(text, str) for text in texts.values()
            ):
                return f"its context's {name!r} holds more than texts"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteReply(_Record):
    """What a worker answers: a value, or an error as data.

    Attributes:
        call_id: That of the task.
        status: `ok`, `failed`, or `cancelled` if the step was cancelled on the worker.
        value: The output, as JSON.
        error: The error, as `tta_primitives.distributed.failures` writes it.
        state: What the step has changed in the context's `state`.
        outcomes: Who answered, by path, as in the context's `outcomes`.
    """

    _kind: ClassVar[str] = "reply"
    _texts: ClassVar[tuple[str, ...]] = ("call_id", "status")

    call_id: str
    status: ReplyStatus
    value: Any = field(default=None, repr=False)
    error: dict[str, Any] | None = field(default=None, repr=False)
    state: dict[str, Any] | None = field(default=None, repr=False)
    outcomes: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def _flaw(cls, given: Mapping[str, Any]) -> str | None:
        if given.get("status") not in {"ok", "failed", "cancelled"}:
            return f"its status is {given.get('status')!r:.80}"
        for name in ("error", "state", "outcomes"):
            if not isinstance(given.get(name) or {}, dict):
                return f"its {name!r} is no object"
        if given.get("status") != "ok" and not given.get("error"):
            return "it is no success, and has no error"
        return None
