"""The guard: what a test sends to the outside without a mock fails it, by name.

It stands where Python's own sockets connect, send and ask for names, and where event
loops do so without them. As long as no guard is entered, nothing of this is in place.
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
from pytest_tta.clock.places import place, user_spot
from pytest_tta.wire.exits import OF_PYTHON, OF_UVLOOP, Placed
from pytest_tta.wire.hosts import AllowedHosts, address_of, is_local, normal, target

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType, ModuleType, TracebackType
    from typing import Self

__all__ = ["Guard", "NetworkBlocked", "asking_for"]

_INTERNET = frozenset({socket.AF_INET, socket.AF_INET6})
# Answered without a look at anything else: most connections of tests go here.
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

_purpose: ContextVar[str | None] = ContextVar("tta_network_purpose", default=None)

# The names that an address was given for: whoever may talk to a name may connect to
# its addresses. It holds only names that were allowed, and clients keep addresses
# from one test to the next, so it does, too.
_names: dict[str, set[str]] = {}

# Who is to cover uvloop when it is imported, and who tells of that.
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
        self._placed: list[Placed] = []
        self._told = 0
        self.is_on = False
        self.blocked: list[str] = []

    def __enter__(self) -> Self:
        """Stand in the way."""
        self.is_on = True
        self._placed = [
            Placed(self, owner, name, exit_)
            for owner, exits in OF_PYTHON
            for name, exit_ in exits.items()
        ]
        _entered.append(self)
        uvloop = sys.modules.get("uvloop")
        if uvloop is None:
            _watch_for_uvloop()
        else:
            self.cover_uvloop(uvloop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Step aside, and let others' patches stay where they are."""
        self.is_on = False
        _entered.remove(self)
        for placed in reversed(self._placed):
            placed.remove()
        self._placed.clear()

    def __repr__(self) -> str:
        return f"<Guard blocked={len(self.blocked)}>"

    def cover_uvloop(self, module: ModuleType) -> None:
        """Stand in the way of a loop that asks the system without Python's sockets."""
        loop = getattr(module, "Loop", None)
        if loop is not None:
            self._placed += [
                Placed(self, loop, name, exit_) for name, exit_ in OF_UVLOOP.items()
            ]

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
        if host in _LOOPBACK or not self.is_on:
            return
        name = _text(host)
        if name is None or is_local(name):
            return
        if not self._allowed.allows((name, *_names.get(name, ())), port):
            self._refuse(name, port)

    def check_lookup(self, host: object, port: object = None) -> None:
        """Refuse to ask for a name's addresses; what is an address asks nobody.

        Args:
            host: Name or address, as text or bytes; None is this machine.
            port: For the message.

        Raises:
            NetworkBlocked: The name is neither one of this machine nor allowed.
        """
        if host in _LOOPBACK or not self.is_on:
            return
        name = _text(host)
        if name is None or is_local(name) or address_of(name) is not None:
            return
        # Own names are asked for by logging, mail and servers, to write them somewhere.
        if name != normal(socket.gethostname()) and not self._allowed.names(name):
            self._refuse(name, port)

    def check_reverse(self, host: object) -> None:
        """Refuse to ask for the name of an address.

        Args:
            host: Name or address.

        Raises:
            NetworkBlocked: It is neither of this machine nor allowed.
        """
        name = _text(host) if self.is_on else None
        if name is None or is_local(name) or name == normal(socket.gethostname()):
            return
        names = (name, *_names.get(name, ()))
        if not any(self._allowed.names(each) for each in names):
            self._refuse(name, None)

    def check_address(self, sock: socket.socket, address: object) -> None:
        """Refuse an address of a socket, unless it is this machine's, or allowed.

        Args:
            sock: Who is to connect, or to send.
            address: As its family writes addresses.

        Raises:
            NetworkBlocked: It would leave the machine.
        """
        # What has another form is a path, or an error that Python describes better.
        if not isinstance(address, tuple) or not address or address[0] in _LOOPBACK:
            return
        if sock.family in _INTERNET:
            self.check(address[0], address[1] if len(address) > 1 else None)

    def remember(self, host: object, addresses: Iterable[str]) -> None:
        """Know the addresses of a name that was allowed."""
        name = _text(host)
        if name is not None and not is_local(name) and self._allowed.names(name):
            for address in addresses:
                _names.setdefault(normal(address), set()).add(name)

    def _refuse(self, host: str, port: object) -> NoReturn:
        msg = _message(host, port, sys._getframe(1))
        for kept in (self.blocked, self._problems):
            if kept is not None and msg not in kept:
                kept.append(msg)
        raise NetworkBlocked(msg)


def _text(host: object) -> str | None:
    """Return a host in its normal form; None for what is none."""
    if isinstance(host, bytes | bytearray):
        host = bytes(host).decode("latin-1")
    return normal(host) if isinstance(host, str) else None


def _message(host: str, port: object, frame: FrameType) -> str:
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


def _watch_for_uvloop() -> None:
    """Hear of uvloop when it is imported, whoever restores the import system."""
    if not any(watcher in sys.meta_path for watcher in _watchers):
        _watchers[:] = [watch_imports(("uvloop",), _after_import)]


def _after_import(module: ModuleType) -> None:
    if module.__name__ == "uvloop":
        for guard in _entered:
            guard.cover_uvloop(module)
