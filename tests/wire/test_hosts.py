"""Hosts are told apart: this machine, what is allowed, and all others."""

from __future__ import annotations

import re

import pytest

from pytest_tta.wire.hosts import (
    AllowedHosts,
    address_of,
    is_local,
    normal,
    parse_rule,
    target,
)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost",
        "LocalHost.",
        "db.localhost",
        "ip6-loopback",
        "127.0.0.1",
        "127.200.3.4",
        "127.1",
        "0x7f000001",
        "2130706433",
        "::1",
        "::ffff:127.0.0.1",
        "0.0.0.0",
        "::",
    ],
)
def test_this_machine_by_each_of_its_names(host: str) -> None:
    """The loopback has more spellings than one, and all of them are free."""
    assert is_local(normal(host))


@pytest.mark.parametrize(
    "host",
    [
        "localhost.example",
        "notlocalhost",
        "127.0.0.1.example",
        "128.0.0.1",
        "192.0.2.1",
        "::2",
        "::ffff:192.0.2.1",
        "fe80::1%lo",
        "<broadcast>",
        "127.0.0.1.1",
        "0x100000000",
    ],
)
def test_what_only_looks_like_this_machine(host: str) -> None:
    """Names that begin or end like the loopback's are somewhere else."""
    assert not is_local(normal(host))


@pytest.mark.parametrize(
    ("rule", "host", "port", "expected"),
    [
        ("api.example", "api.example", 443, True),
        ("API.example.", "api.example", 443, True),
        ("api.example", "api.example", None, True),
        ("api.example", "v1.api.example", 443, False),
        ("*.example", "v1.api.example", 443, True),
        ("*.api.example", "api.example", 443, False),
        ("*.api.example", "evil-api.example", 443, False),
        ("m\u00fcnchen.example", "xn--mnchen-3ya.example", 443, True),
        ("api.example:443", "api.example", 443, True),
        ("api.example:443", "api.example", 80, False),
        ("api.example:443", "api.example", None, False),
        ("192.0.2.7", "192.0.2.7", 1, True),
        ("192.0.2.7", "192.0.2.70", 1, False),
        ("192.0.2.7", "::ffff:192.0.2.7", 1, True),
        ("192.0.2.0/24", "192.0.2.70", 1, True),
        ("192.0.2.9/24", "192.0.2.70", 1, True),
        ("192.0.2.0/24", "192.0.3.70", 1, False),
        ("192.0.2.0/24:5432", "192.0.2.70", 5432, True),
        ("192.0.2.0/24:5432", "192.0.2.70", 80, False),
        ("192.0.2.0/24", "192.0.2.example", 1, False),
        ("2001:db8::7", "2001:db8:0:0:0:0:0:7", 1, True),
        ("[2001:db8::7]:80", "2001:db8::7", 80, True),
        ("[2001:db8::7]:80", "2001:db8::7", 81, False),
        ("2001:db8::/32", "2001:db8::7", 81, True),
        ("2001:db8::/32", "192.0.2.7", 81, False),
        ("*", "api.example", 1, True),
        ("*", "192.0.2.7", None, True),
        ("*", "2001:db8::7", 1, True),
        ("*:53", "192.0.2.7", 53, True),
        ("*:53", "192.0.2.7", 80, False),
    ],
)
def test_a_rule_means_hosts_and_ports(
    rule: str,
    host: str,
    port: int | None,
    expected: bool,
) -> None:
    """Names, patterns, addresses and networks are compared each in its own way."""
    assert AllowedHosts([parse_rule(rule)]).allows([host], port) is expected


def test_a_name_is_meant_whatever_the_port() -> None:
    """Who looks up a name need not know yet which port it will be."""
    allowed = AllowedHosts([parse_rule("api.example:443"), parse_rule("192.0.2.0/24")])
    assert allowed.names("api.example")
    assert not allowed.names("other.example")
    assert allowed.names("192.0.2.1")


def test_nothing_is_allowed_by_no_rule() -> None:
    """Whoever says nothing gets nothing."""
    assert not AllowedHosts().allows(["api.example"], 443)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://api.example/v1?key=hidden", "'https://api.example/v1' must be a ho"),
        ("https://me:hidden@api.example", "'https://api.example' must be a host, not"),
        ("me:hidden@api.example", "'api.example' must be a host, not a URL"),
        ("", "'' must be a name, a pattern"),
        ("api.example/v1", "'api.example/v1' must be a name"),
        ("api .example", "'api .example' must be a name"),
        ("[2001:db8::]/32", "'[2001:db8::]/32' must be a name"),
        ("[::1", "'[::1' must be a name"),
        ("a:b:c", "'a:b:c' must be a name"),
        ("api.example:http", "port 'http' must be a number up to 65535"),
        ("api.example:65536", "port '65536' must be a number"),
        ("api.example:", "port '' must be a number"),
        ("api.example:\u0663", "port '\u0663' must be a number"),
        ("192.0.2.0/33", "'192.0.2.0/33' must be a name"),
    ],
)
def test_what_is_no_host_is_refused(text: str, said: str) -> None:
    """The message quotes what was written, and no secret of a URL."""
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        parse_rule(text)
    assert "hidden" not in str(caught.value)


def test_only_text_is_a_host() -> None:
    """A number among the hosts is a mistake that is said where it was made."""
    with pytest.raises(TypeError, match="host 443 must be a string"):
        parse_rule(443)


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("api.example", 443, "api.example:443"),
        ("api.example", "https", "api.example:https"),
        ("api.example", None, "api.example"),
        ("api.example", 0, "api.example"),
        ("api.example", b"443", "api.example"),
        ("2001:db8::7", 443, "[2001:db8::7]:443"),
        ("2001:db8::7", None, "2001:db8::7"),
    ],
)
def test_host_and_port_are_one_word(host: str, port: object, expected: str) -> None:
    """Messages write them as a browser's address line does."""
    assert target(host, port) == expected


def test_names_that_are_no_addresses() -> None:
    """What the system would look up has no address of its own."""
    assert address_of("api.example") is None
    assert address_of("face.example") is None
    assert str(address_of("<broadcast>")) == "255.255.255.255"
    assert str(address_of("10.1")) == "10.0.0.1"


def test_a_name_that_cannot_be_encoded_stays_as_it_is() -> None:
    """A wrong name is the resolver's to refuse."""
    assert normal("\u00fc" * 70) == "\u00fc" * 70
