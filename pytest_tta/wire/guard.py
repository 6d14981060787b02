"""The guard: what a test sends to the outside without a mock fails it, by name.

It stands where Python's own sockets connect, send and ask for names, and where event
loops do so without them. As long as no guard is entered, nothing of this is in place,
unless `standing` keeps it there: to put it there takes longer than many a test.
"""

from __future__ import annotations

import re
import socket
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, NoReturn

from pytest_tta.clock import describe
from pytest_tta.clock.imports import ImportWatcher, watch_imports
from pytest_tta.clock.places import is_ours, place, user_spot
from pytest_tta.wire.exits import OF_OTHERS, OF_PYTHON, Placed, stands
from pytest_tta.wire.hosts import (
    AllowedHosts,
    HostRule,
    address_of,
    is_local,
    normal,
    parse_rule,
    target,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType, ModuleType
    from typing import Self

    from pytest_tta.wire.exits import Exit

__all__ = ["Guard", "NetworkBlocked", "asking_for", "standing"]

_INTERNET = frozenset({socket.AF_INET, socket.AF_INET6})
# Answered without a look at anything else: most connections of tests go here.
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

_purpose: ContextVar[str | None] = ContextVar("tta_network_purpose", default=None)

# The names that an address was given for: whoever may talk to a name may connect to
# its addresses. It holds only names that were allowed, and clients keep addresses
# from one test to the next, so it does, too.
_names: dict[str, set[str]] = {}

# Who is asked, the innermost last, and who tells of modules that are imported later.
_entered: list[Guard] = []
_watchers: list[ImportWatcher] = []


class NetworkBlocked(BaseException):
    """Report a connection, or the look-up of a name, that would leave the machine.

    It is no `Exception`, so that neither a retry, nor a fallback, nor an SDK's own
    `except Exception` takes it for a failure of the network. It is no
    `KeyboardInterrupt` either: tasks, `gather` and `TaskGroup` carry it like any other
    error. Whoever raises it also keeps it, so that the test fails even if it was
    swallowed.
    """


@contextmanager
def asking_for(text: str) -> Iterator[None]:
    """Let a guard's error say what the block wants from the network.

    Args:
        text: For instance "POST https://api.example.com/v1/chat"; a query, a fragment
            and the user of a URL are left out.
    """
    token = _purpose.set(_without_secrets(text))
    try:
        yield
    finally:
        _purpose.reset(token)


def _without_secrets(text: str) -> str:
    plain = re.split(r"[?#]", text, maxsplit=1)[0]
    return re.sub(r"//[^/\s]*@", "//", plain)


class _Gate:
    """Asks the guards that are entered, the innermost first, from one of them on.

    What a guard finds in its place when it is entered, such as a patch, may hide the
    guards outside of it: they have their own gates below that.

    Args:
        first: The outermost that is asked; None for all.

    Attributes:
        is_on: Whether it still has to stand in the way.
    """

    def __init__(self, first: Guard | None) -> None:
        self._first = first
        self.is_on: bool = True

    def _asked(self) -> list[Guard]:
        guards = _entered.copy()
        first = guards.index(self._first) if self._first in guards else 0
        return guards[: first - 1 if first else None : -1]

    def check(self, host: object, port: object = None) -> None:
        """Let none of them refuse to connect."""
        for guard in self._asked():
            guard.check(host, port)

    def check_lookup(self, host: object, port: object = None) -> None:
        """Let none of them refuse to ask for the addresses of a name."""
        for guard in self._asked():
            guard.check_lookup(host, port)

    def check_reverse(self, host: object) -> None:
        """Let none of them refuse to ask for the name of an address."""
        for guard in self._asked():
            guard.check_reverse(host)

    def check_address(self, sock: socket.socket, address: object) -> None:
        """Let none of them refuse an address of a socket."""
        for guard in self._asked():
            guard.check_address(sock, address)

    def remember(self, host: object, addresses: Iterable[str]) -> None:
        """Let each of them know the addresses of a name."""
        for guard in self._asked():
            guard.remember(host, addresses)


def _placed(
    gate: _Gate, owners: Iterable[tuple[object, dict[str, Exit]]]
) -> list[Placed]:
    """Put a gate before the functions that have none."""
    return [
        Placed(gate, owner, name, exit_)
        for owner, exits in owners
        for name, exit_ in exits.items()
        if not stands(owner, name)
    ]


def _take_away(gate: _Gate, placed: list[Placed]) -> None:
    gate.is_on = False
    for one in reversed(placed):
        one.remove()
    placed.clear()


@contextmanager
def standing() -> Iterator[None]:
    """Keep gates where Python goes out, while the block runs.

    They refuse what the guards refuse that are entered, and nothing if none is.
    """
    gate = _Gate(None)
    placed = _placed(gate, OF_PYTHON)
    try:
        yield
    finally:
        _take_away(gate, placed)


class Guard:
    """Refuses what would leave the machine, while it is entered; for all threads.

    Guards may stand inside each other, and then each has to agree.

    Args:
        allowed: What may be talked to beside this machine.
        problems: Where each refusal is written down, once, beside `blocked`.

    Attributes:
        blocked: The messages of all refusals so far, each once.
    """

    def __init__(
        self,
        allowed: AllowedHosts | None = None,
        *,
        problems: list[str] | None = None,
    ) -> None:
        self._allowed = AllowedHosts() if allowed is None else allowed
        self._problems = problems
        self._permits: list[HostRule] = []
        # While it is entered: the two hold each other.
        self._gate: _Gate | None = None
        self._placed: list[Placed] = []
        self._told = 0
        self.is_on: bool = False
        self.blocked: list[str] = []

    def __enter__(self) -> Self:
        """Stand in the way."""
        self.is_on = True
        _entered.append(self)
        _watch_for_others()
        self._gate = _Gate(self)
        self._place()
        return self

    def _place(self) -> None:
        if self._gate is not None:
            self._placed += _placed(self._gate, OF_PYTHON)
        for name in OF_OTHERS:
            self.cover(sys.modules.get(name))

    def __exit__(self, *raised: object) -> None:
        """Step aside, and let others' patches stay where they are."""
        self.is_on = False
        index = _entered.index(self)
        del _entered[index]
        gate, self._gate = self._gate, None
        if gate is not None:
            _take_away(gate, self._placed)
        # Those inside of it, if any are left, had no need of gates of their own.
        for guard in _entered[index:]:
            guard._place()

    def __repr__(self) -> str:
        return f"<Guard blocked={len(self.blocked)}>"

    @contextmanager
    def permitting(self, host: str, port: int | None = None) -> Iterator[None]:
        """Let one more host be talked to, while the block runs.

        Args:
            host: Name or address.
            port: The only port that is meant; None for all.
        """
        named = f"[{host}]" if ":" in host else host
        rule = parse_rule(named)._replace(port=port)
        self._permits.append(rule)
        try:
            yield
        finally:
            self._permits.remove(rule)

    @property
    def _hosts(self) -> AllowedHosts:
        """What may be talked to now."""
        if not self._permits:
            return self._allowed
        return AllowedHosts((*self._allowed.rules, *self._permits))

    def cover(self, module: ModuleType | None) -> None:
        """Stand in the way of a module that does without Python's own sockets.

        Args:
            module: One of those that are known; None for one that is not imported.
        """
        if module is None or module.__name__ not in OF_OTHERS:
            return
        name, exits = OF_OTHERS[module.__name__]
        owner = getattr(module, name, None)
        if owner is not None and self._gate is not None:
            self._placed += _placed(self._gate, [(owner, exits)])

    def untold(self) -> list[str]:
        """Return the refusals since this was last asked."""
        fresh = self.blocked[self._told :]
        self._told += len(fresh)
        return fresh

    def check(self, host: object, port: object = None) -> None:
        """Refuse to connect, unless the host is this machine, or allowed.

        Args:
            host: Name or address, as text or bytes; None is this machine.
            port: Its port; None if it is not known.

        Raises:
            NetworkBlocked: It is neither.
        """
        name = self._outside(host)
        if name is None:
            return
        # By the names that it was found by, the address itself last.
        hosts = (*sorted(_names.get(name, ())), name)
        if _own_name() not in hosts and not self._hosts.allows(hosts, port):
            self._refuse(hosts[0], port)

    def check_lookup(self, host: object, port: object = None) -> None:
        """Refuse to ask for a name's addresses; what is an address asks nobody.

        Args:
            host: Name or address, as text or bytes; None is this machine.
            port: For the message.

        Raises:
            NetworkBlocked: The name is neither one of this machine nor allowed.
        """
        name = self._outside(host)
        if name is None or address_of(name) is not None:
            return
        # Own names are asked for by logging, mail and servers, to write them somewhere.
        if name != _own_name() and not self._hosts.names(name):
            self._refuse(name, port)

    def check_reverse(self, host: object) -> None:
        """Refuse to ask for the name of an address.

        Args:
            host: Name or address.

        Raises:
            NetworkBlocked: It is neither of this machine nor allowed.
        """
        name = self._outside(host)
        if name is None:
            return
        names = (*sorted(_names.get(name, ())), name)
        if _own_name() not in names and not any(map(self._hosts.names, names)):
            self._refuse(names[0], None)

    def check_address(self, sock: socket.socket, address: object) -> None:
        """Refuse an address of a socket, unless it is this machine's, or allowed.

        Args:
            sock: Who is to connect, or to send.
            address: As its family writes addresses.

        Raises:
            NetworkBlocked: It would leave the machine.
        """
        # What has another form is a path, or an error that Python describes better.
        if not isinstance(address, tuple) or not address:
            return
        host = address[0]
        is_loopback = isinstance(host, str) and host in _LOOPBACK
        if not is_loopback and sock.family in _INTERNET:
            self.check(*address[:2])

    def remember(self, host: object, addresses: Iterable[str]) -> None:
        """Know the addresses of a name that was allowed, or is this machine's."""
        name = self._outside(host)
        if name is not None and (name == _own_name() or self._hosts.names(name)):
            for address in addresses:
                _names.setdefault(normal(address), set()).add(name)

    def _outside(self, host: object) -> str | None:
        """Return a host as rules are compared with it; None for the loopback."""
        if not self.is_on or (isinstance(host, str) and host in _LOOPBACK):
            return None
        if isinstance(host, bytes | bytearray):
            host = bytes(host).decode("latin-1")
        name = normal(host) if isinstance(host, str) else ""
        return None if is_local(name) else name

    def _refuse(self, host: str, port: object) -> NoReturn:
        msg = _message(host, port, _asking_frame(sys._getframe(1)))
        for kept in (self.blocked, self._problems):
            if kept is not None and msg not in kept:
                kept.append(msg)
        raise NetworkBlocked(msg)


def _own_name() -> str:
    return normal(socket.gethostname())


def _asking_frame(frame: FrameType | None) -> FrameType | None:
    """Return the innermost frame that is not the guard's own."""
    while frame is not None and is_ours(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def _message(host: str, port: object, frame: FrameType | None) -> str:
    known = (
        ("for", _purpose.get()),
        ("by", describe.path_of_current()),
        ("at", place(user_spot(frame))),
    )
    asked = "".join(f"  {word}: {value}\n" for word, value in known if value)
    return (
        f"{target(host, port)} is not on this machine, and nothing is mocked there\n"
        f"{asked}"
        "script its answers with the fixture tta_wire, mock the client, or allow the "
        f"host: tta_allow_hosts = {host} in the ini file, or "
        f'@pytest.mark.tta_allow_hosts("{host}")'
    )


def _watch_for_others() -> None:
    """Hear of such modules when they are imported, whoever restores the finders."""
    if not any(watcher in sys.meta_path for watcher in _watchers):
        _watchers[:] = [watch_imports(OF_OTHERS, _after_import)]


def _after_import(module: ModuleType) -> None:
    for guard in _entered:
        guard.cover(module)
