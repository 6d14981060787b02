"""Give objects back the state that they had at a mark, quickly and again and again.

Objects stay who they are: whoever holds one sees its old state. Only classes that are
asked for are looked into; of all else the references are kept.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Mark"]

_CONTAINERS = (dict, list, set, deque)


class Mark:
    """The state of some objects at this moment, and of what they hold.

    Args:
        roots: Where to begin; None among them is left out.
        is_wanted: Tells of a class whether the state of its objects is kept.
    """

    __slots__ = ("_containers", "_dicts", "_is_wanted", "_slots")

    def __init__(
        self, roots: Iterable[object], is_wanted: Callable[[type], bool]
    ) -> None:
        self._is_wanted = is_wanted
        self._containers: list[tuple[Any, Any]] = []
        self._dicts: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._slots: list[tuple[object, tuple[tuple[str, object], ...]]] = []
        seen: set[int] = set()
        waiting = list(roots)
        while waiting:
            one = waiting.pop()
            if id(one) not in seen:
                seen.add(id(one))
                waiting.extend(self._keep(one))

    def _keep(self, one: object) -> Iterable[object]:
        """Keep the state of one object; return what it holds."""
        if isinstance(one, _CONTAINERS):
            self._containers.append((one, one.copy()))
            return tuple(one.values() if isinstance(one, dict) else one)
        if isinstance(one, tuple):
            return one
        kind = type(one)
        if isinstance(one, type) or not self._is_wanted(kind):
            return ()
        held: list[object] = []
        own = getattr(one, "__dict__", None)
        if own is not None:
            self._dicts.append((own, dict(own)))
            held += own.values()
        slots = tuple(
            (name, getattr(one, name)) for name in _slots_of(kind) if hasattr(one, name)
        )
        if slots and not _is_frozen(kind):
            self._slots.append((one, slots))
        return [*held, *(value for _, value in slots)]

    def restore(self) -> None:
        """Give everything back the state that it had."""
        for container, saved in self._containers:
            if container or saved:
                container.clear()
                # Lists and queues are extended, dictionaries and sets updated.
                (getattr(container, "extend", None) or container.update)(saved)
        for own, before in self._dicts:
            if len(own) != len(before):
                for name in own.keys() - before.keys():
                    del own[name]
            own.update(before)
        for one, slots in self._slots:
            for name, value in slots:
                setattr(one, name, value)


def _slots_of(kind: type) -> list[str]:
    names: list[str] = []
    for cls in kind.__mro__:
        own = vars(cls).get("__slots__", ())
        names += [own] if isinstance(own, str) else own
    return [name for name in names if name not in {"__dict__", "__weakref__"}]


def _is_frozen(kind: type) -> bool:
    parameters = getattr(kind, "__dataclass_params__", None)
    return parameters is not None and bool(parameters.frozen)
