"""Hosts by name, pattern, address or network: which are here, and which are free."""

from __future__ import annotations

import re
import socket
from fnmatch import fnmatchcase
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Address, IPv4Network, IPv6Network

__all__ = [
    "AllowedHosts",
    "HostRule",
    "address_of",
    "is_local",
    "normal",
    "parse_rule",
    "target",
]

# RFC 6761, section 6.3, and what Linux distributions write into /etc/hosts.
_LOCAL_NAMES = frozenset(
    {"", "ip6-localhost", "ip6-loopback", "localhost", "localhost.localdomain"}
)
# 127.1 and 0x7f000001 are addresses to `connect`, too.
_NUMBER = r"(?:0x[0-9a-f]+|\d+)"
_LEGACY = rf"{_NUMBER}(?:\.{_NUMBER}){{0,3}}"
_NAME = r"[\w*.-]+"
_WITH_PORT = r"(?P<host>\[[^\]]*\]|[^:]*)(?::(?P<port>[^:]*))?"
_HIGHEST_PORT = 65_535


class HostRule(NamedTuple):
    """Hosts that a test may talk to.

    Attributes:
        name: A name, in which `*` stands for any characters; None for a network.
        network: Addresses; None for a name.
        port: The only port that is meant; None for all.
    """

    name: str | None = None
    network: IPv4Network | IPv6Network | None = None
    port: int | None = None

    def names(self, host: str) -> bool:
        """Tell whether a host is meant, whatever its port; the host is `normal`."""
        if self.name == "*":
            return True
        if self.network is None:
            return self.name is not None and fnmatchcase(host, self.name)
        address = address_of(host)
        return address is not None and address in self.network

    def allows(self, host: str, port: object) -> bool:
        """Tell whether a host is meant, and its port."""
        return (self.port is None or self.port == port) and self.names(host)


class AllowedHosts:
    """What several rules allow together.

    Args:
        rules: As `parse_rule` returns them; none allows nothing.
    """

    def __init__(self, rules: Iterable[HostRule] = ()) -> None:
        self.rules: tuple[HostRule, ...] = tuple(rules)

    def names(self, host: str) -> bool:
        """Tell whether any rule means a host, whatever its port."""
        return any(rule.names(host) for rule in self.rules)

    def allows(self, hosts: Iterable[str], port: object) -> bool:
        """Tell whether a host may be connected to, by any of the names it has."""
        return any(rule.allows(host, port) for host in hosts for rule in self.rules)


def parse_rule(text: str) -> HostRule:
    """Read one host of `tta_allow_hosts`.

    Args:
        text: `api.example.com`, `*.example.com`, `10.0.0.7`, `10.0.0.0/8`, `[::2]`,
            each with `:port` if only one port is meant; `*` for everything.

    Raises:
        TypeError: It is no text.
        ValueError: It is none of these.
    """
    if not isinstance(text, str):
        msg = f"host {text!r} must be a string, such as 'api.example.com'"
        raise TypeError(msg)
    if "://" in text or "@" in text:
        msg = f"host {_without_secrets(text)!r} must be a host, not a URL"
        raise ValueError(msg)
    whole = _network(text)
    if whole is not None:
        return HostRule(network=whole)
    split = re.fullmatch(_WITH_PORT, text)
    if split is None:
        _refuse(text)
    port = None if split["port"] is None else _port(text, split["port"])
    network = _network(split["host"].strip("[]"))
    if network is not None:
        return HostRule(network=network, port=port)
    name = normal(split["host"])
    if re.fullmatch(_NAME, name) is None:
        _refuse(text)
    return HostRule(name=name, port=port)


def _refuse(text: str) -> NoReturn:
    msg = (
        f"host {text!r} must be a name, a pattern such as '*.example.com', an address "
        "or a network such as '10.0.0.0/8', each with or without ':port'"
    )
    raise ValueError(msg)


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def _port(text: str, written: str) -> int:
    if not (written.isascii() and written.isdigit() and int(written) <= _HIGHEST_PORT):
        msg = f"host {text!r}: port {written!r} must be a number up to {_HIGHEST_PORT}"
        raise ValueError(msg)
    return int(written)


def _without_secrets(url: str) -> str:
    """Leave what may be a password, and what follows the host, out of a URL."""
    before, _, after = url.rpartition("@")
    scheme = before.partition("://")[0] + "://" if "://" in before else ""
    shown = f"{scheme}{after}" if before else url
    return re.split(r"[?#]", shown, maxsplit=1)[0]


def normal(host: str) -> str:
    """Write a host as all who compare hosts write it: small, ASCII, without end dot."""
    text = host.removesuffix(".").lower()
    if text.isascii():
        return text
    try:
        return text.encode("idna").decode("ascii")
    except UnicodeError:
        return text


@lru_cache(maxsize=1024)
def address_of(host: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a host is written as; None for a name."""
    try:
        address = ip_address(host)
    except ValueError:
        return _legacy_address(host)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _legacy_address(host: str) -> IPv4Address | IPv6Address | None:
    if host == "<broadcast>":
        return ip_address("255.255.255.255")
    if re.fullmatch(_LEGACY, host.lower()) is None:
        return None
    try:
        return ip_address(socket.inet_aton(host))
    except OSError:
        return None


def is_local(host: str) -> bool:
    """Tell whether a host is this machine, and reached without leaving it.

    The address of no interface (`0.0.0.0`, `::`, the empty host) is one: the system
    connects it to the loopback.

    Args:
        host: As `normal` returns it.
    """
    if host in _LOCAL_NAMES or host.endswith(".localhost"):
        return True
    address = address_of(host)
    return address is not None and (address.is_loopback or address.is_unspecified)


def target(host: str, port: object) -> str:
    """Write a host and its port, if it has one, as one word."""
    if not isinstance(port, int | str) or port == 0:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
