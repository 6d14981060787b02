"""The options of a cache, checked, and what follows from them for one value."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from tta_primitives.arguments import (
    check_choice,
    check_count,
    check_flag,
    check_number,
    seconds,
)
from tta_primitives.chance import rng
from tta_primitives.performance.memory import MemoryStorage
from tta_primitives.performance.redis_storage import RedisStorage
from tta_primitives.performance.serializers import (
    JsonSerializer,
    MsgpackSerializer,
    Serializer,
)
from tta_primitives.performance.storage import LeaseStorage, Storage
from tta_primitives.recovery.classify import ErrorFilter, check_filter, matches
from tta_primitives.redis_link import is_redis
from tta_primitives.signature import function_name, of_both

if TYPE_CHECKING:
    from tta_primitives.context import WorkflowContext
    from tta_primitives.performance.shelves import CopyMode

__all__ = ["CachePolicy", "KeyFunction", "TagFunction", "check_options"]

Seconds: TypeAlias = float | timedelta
KeyFunction: TypeAlias = (
    "Callable[[Any], object] | Callable[[Any, WorkflowContext], object]"
)
TagFunction: TypeAlias = Callable[[Any, Any], Iterable[str]]

_STORAGE_METHODS = ("get_many", "set_many", "delete", "delete_tagged", "clear")


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """The checked options of a cache; durations in seconds."""

    ttl: float | Callable[[Any], Seconds]
    storage: Storage | MemoryStorage | None
    max_size: int
    key_fn: Callable[[Any, WorkflowContext], object] | None
    namespace: str | None
    version: int | str
    stale_ttl: float
    stale_if_error: float
    early_refresh: float
    negative_ttl: float
    negative_on: ErrorFilter
    ttl_jitter: float
    cache_if: Callable[[Any], object] | None
    single_flight: bool
    copy: CopyMode
    serializer: Serializer
    fail_open: bool
    tags: tuple[str, ...] | TagFunction
    lease: float

    @property
    def leases(self) -> LeaseStorage | None:
        """The storage by which processes agree who loads; None if they do not."""
        if not self.lease or not self.single_flight:
            return None
        return self.storage if isinstance(self.storage, LeaseStorage) else None

    @property
    def stale_window(self) -> float:
        """Seconds for which an entry is kept after it has become stale."""
        return max(self.stale_ttl, self.stale_if_error)

    def admits(self, value: object) -> bool:
        """Tell whether a value may be kept at all."""
        return self.cache_if is None or bool(self.cache_if(value))

    def remembers(self, error: Exception) -> bool:
        """Tell whether a failure is kept."""
        return matches(self.negative_on, error)

    def lifetime(self, value: object) -> float:
        """Return for how many seconds a value is fresh.

        Raises:
            TypeError: The `ttl` function returned neither a number nor a timedelta.
            ValueError: It returned a negative number, or one that is none.
        """
        ttl = self.ttl
        if callable(ttl):
            name = f"the result of ttl={function_name(ttl)}"
            ttl = seconds(name, ttl(value), zero=True, infinite=True)
        return ttl * (1 - self.ttl_jitter * rng().random()) if self.ttl_jitter else ttl

    def tags_of(self, input_data: object, value: object) -> tuple[str, ...]:
        """Return the tags of an entry."""
        if callable(self.tags):
            return _check_tags("the result of tags", self.tags(input_data, value))
        return self.tags

    def may_tag(self, tags: tuple[str, ...]) -> bool:
        """Tell whether an entry could have one of these tags."""
        return callable(self.tags) or not set(self.tags).isdisjoint(tags)


def check_options(
    *,
    storage: object,
    negative_on: object,
    key_fn: object,
    namespace: object,
    version: object,
    serializer: object,
    tags: object,
    **rest: Any,  # noqa: ANN401 - checked below, one by one
) -> CachePolicy:
    """Return the policy that a cache's arguments describe.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument has a value that is not allowed.
    """
    policy = CachePolicy(
        ttl=_check_ttl(rest["ttl"]),
        storage=_check_storage(storage),
        max_size=check_count("max_size", rest["max_size"], minimum=1),
        key_fn=_check_key_fn(key_fn),
        namespace=_check_namespace(namespace),
        version=_check_version(version),
        stale_ttl=seconds("stale_ttl", rest["stale_ttl"], zero=True),
        stale_if_error=seconds("stale_if_error", rest["stale_if_error"], zero=True),
        early_refresh=seconds("early_refresh", rest["early_refresh"], zero=True),
        negative_ttl=seconds("negative_ttl", rest["negative_ttl"], zero=True),
        negative_on=check_filter("negative_on", negative_on),
        ttl_jitter=_check_fraction("ttl_jitter", rest["ttl_jitter"]),
        cache_if=_check_function("cache_if", rest["cache_if"]),
        single_flight=check_flag("single_flight", rest["single_flight"]),
        copy=cast(
            "CopyMode", check_choice("copy", rest["copy"], ("auto", "deep", "none"))
        ),
        serializer=_check_serializer(serializer),
        fail_open=check_flag("fail_open", rest["fail_open"]),
        tags=cast("TagFunction", tags) if callable(tags) else _check_tags("tags", tags),
        lease=seconds("lease", rest["lease"], zero=True),
    )
    _check_together(policy)
    return policy


def _check_together(policy: CachePolicy) -> None:
    if bool(policy.negative_ttl) != (policy.negative_on != ()):
        msg = (
            "negative_ttl and negative_on belong together: for how long a failure is "
            f"kept ({policy.negative_ttl!r} s), and which ({policy.negative_on!r})"
        )
        raise ValueError(msg)
    if (
        policy.early_refresh
        and not callable(policy.ttl)
        and (policy.early_refresh >= policy.ttl)
    ):
        msg = (
            f"early_refresh={policy.early_refresh!r} must be less than "
            f"ttl={policy.ttl!r}, or every hit would load again"
        )
        raise ValueError(msg)


def _check_ttl(value: object) -> float | Callable[[Any], Seconds]:
    if callable(value) and not isinstance(value, type):
        return cast("Callable[[Any], Seconds]", value)
    if isinstance(value, (int, float, timedelta)) and not isinstance(value, bool):
        return seconds("ttl", value, zero=True, infinite=True)
    msg = (
        f"ttl={value!r} must be a number of seconds, a timedelta, or a function of the "
        f"value that returns one, not {type(value).__name__}"
    )
    raise TypeError(msg)


def _check_storage(value: object) -> Storage | MemoryStorage | None:
    if value is None or isinstance(value, MemoryStorage):
        return value
    if is_redis(value):
        client: Any = value
        return RedisStorage(client)
    missing = [name for name in _STORAGE_METHODS if not hasattr(value, name)]
    if not isinstance(value, type) and not missing:
        return cast("Storage", value)
    lacks = f"it has no {missing[0]}" if missing else "it is a class"
    msg = (
        f"storage={value!r} is no storage: {lacks}. Give None for memory of its own, a "
        "MemoryStorage(), a redis.asyncio.Redis, or an object with the async methods "
        f"of Storage ({', '.join(_STORAGE_METHODS)}); the client of another server "
        "needs such an object around it"
    )
    raise TypeError(msg)


def _check_key_fn(
    value: object,
) -> Callable[[Any, WorkflowContext], object] | None:
    if value is None:
        return None
    return of_both("key_fn", cast("Callable[..., Any]", value))


def _check_namespace(value: object) -> str | None:
    if value is None or (isinstance(value, str) and value):
        return value
    msg = f"namespace={value!r} must be a non-empty text, or None"
    raise (ValueError if value == "" else TypeError)(msg)


def _check_version(value: object) -> int | str:
    if isinstance(value, (int, str)) and not isinstance(value, bool):
        return value
    msg = f"version={value!r} must be a whole number or a text"
    raise TypeError(msg)


def _check_fraction(name: str, value: object) -> float:
    fraction = check_number(name, value, zero=True)
    if fraction > 1:
        msg = f"{name}={value!r} must be a fraction between 0 and 1"
        raise ValueError(msg)
    return fraction


def _check_function(name: str, value: object) -> Callable[[Any], object] | None:
    if value is None or callable(value):
        return value
    msg = f"{name}={value!r} must be a function of the value, or None"
    raise TypeError(msg)


def _check_serializer(value: object) -> Serializer:
    if value == "json":
        return JsonSerializer()
    if value == "msgpack":
        return MsgpackSerializer()
    if isinstance(value, Serializer) and not isinstance(value, type):
        return value
    msg = (
        f"serializer={value!r} must be 'json', 'msgpack' or an object with dumps and "
        "loads"
    )
    raise (ValueError if isinstance(value, str) else TypeError)(msg)


def _check_tags(name: str, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, str) and isinstance(value, Iterable):
        tags = tuple(value)
        if all(isinstance(tag, str) and tag for tag in tags):
            return tags
    msg = (
        f"{name}={value!r} must be non-empty texts in a list, or a function of the "
        "input and the value that returns them"
    )
    raise TypeError(msg)
