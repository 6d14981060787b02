"""httpx and httpx2: two libraries of one shape, and the one method that all pass by.

Neither has a public place where all clients can be met, those with a transport of their
own and those made at import included. Both ask `_transport_for_url` for each request;
it is private, so before anything relies on it a request is sent to see that it works.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_tta.names import HTTP_LIBRARIES

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

__all__ = ["Around", "Family", "WireError", "loaded_families"]

Around: TypeAlias = "Callable[[Family, Any, bool], Any]"

_METHOD = "_transport_for_url"
# What was seen to work, by library: how its clients send.
_good: dict[str, list[object]] = {}


class WireError(RuntimeError):
    """Report that requests can no longer be intercepted."""


class Family:
    """One of the libraries, once it has been imported.

    Args:
        module: The library.
    """

    def __init__(self, module: ModuleType) -> None:
        self.module: Any = module
        self.name: str = module.__name__
        self._originals: dict[type, Callable[..., Any]] = {}

    def error(self, name: str, message: str) -> Exception:
        """Return one of the library's exceptions.

        Args:
            name: Its class, such as `ReadTimeout`.
            message: What it says.
        """
        made: Exception = getattr(self.module, name)(message)
        return made

    def patch(self, around: Around) -> None:
        """Put something around the transport of every request, from now on.

        Args:
            around: Is given the family, the transport, and whether its client runs in
                an event loop; returns a transport.

        Raises:
            WireError: This version of the library sends requests in another way.
        """
        for client in self._clients():
            original = client.__dict__.get(_METHOD)
            if original is None or not _calls(client._send_single_request, _METHOD):
                msg = f"{client.__name__} has no {_METHOD} that is used"
                raise self._refusal(msg)
            self._originals[client] = original
            in_tasks = client is self.module.AsyncClient
            setattr(client, _METHOD, _patched(original, self, around, in_tasks))

    def unpatch(self) -> None:
        """Give back what `patch` has replaced."""
        for client, original in self._originals.items():
            setattr(client, _METHOD, original)
        self._originals.clear()

    def check(self) -> None:
        """See that a request passes by, in the way that `patch` relies on.

        Raises:
            WireError: It does not.
        """
        methods = [
            _inner(vars(client).get("_send_single_request"))
            for client in self._clients()
        ]
        if _good.get(self.name) == methods:
            return
        met: list[object] = []

        def seen(_: Family, transport: Any, __: bool) -> Any:  # noqa: ANN401, FBT001 - as `patch` asks
            met.append(transport)
            return transport

        nowhere = self.module.MockTransport(lambda _: self.module.Response(204))
        self.patch(seen)
        try:
            with self.module.Client(transport=nowhere, trust_env=False) as client:
                client.get("http://self-check.invalid/")
        finally:
            self.unpatch()
        if met != [nowhere]:
            msg = "a request was sent past it"
            raise self._refusal(msg)
        _good[self.name] = methods

    def _clients(self) -> tuple[Any, Any]:
        return self.module.Client, self.module.AsyncClient

    def _refusal(self, why: str) -> WireError:
        version = getattr(self.module, "__version__", "?")
        return WireError(
            f"{self.name} {version} cannot be intercepted: {why}. The fake provider "
            f"would let requests out; use an older {self.name}, or a newer pytest_tta"
        )


def loaded_families() -> list[Family]:
    """Return the libraries that have been imported by now."""
    modules = {
        id(m): m for m in map(sys.modules.get, sorted(HTTP_LIBRARIES)) if m is not None
    }
    return [Family(module) for module in modules.values()]


def _patched(
    original: Callable[..., Any],
    family: Family,
    around: Around,
    in_tasks: bool,  # noqa: FBT001 - of the only caller
) -> Callable[..., Any]:
    def transport_for_url(self: object, url: object) -> Any:  # noqa: ANN401 - a transport
        return around(family, original(self, url), in_tasks)

    return transport_for_url


def _calls(function: Callable[..., Any], name: str) -> bool:
    """Tell whether a function mentions a method of that name."""
    code = getattr(_inner(function), "__code__", None)
    return code is not None and name in code.co_names


def _inner(function: Any) -> Any:  # noqa: ANN401 - whatever stands there
    """Return what was there before our own exploration made it a site."""
    return getattr(function, "__tta_inner__", function)
