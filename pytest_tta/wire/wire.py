"""The fake providers of one test, and where requests to them are routed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pytest_tta.whereabouts import call_here
from pytest_tta.wire.audit import audit, check_kinds
from pytest_tta.wire.exchange import REDACTED, WireRequest
from pytest_tta.wire.provider import Provider
from pytest_tta.wire.providers import AnthropicMessages, OpenAIChat, OpenAIResponses
from tta_primitives.arguments import check_choice

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_tta.wire.api import Api
    from pytest_tta.wire.audit import Finding, FindingKind
    from pytest_tta.wire.provider import WireExchange
    from pytest_tta.wire.transport import Asking

__all__ = ["Wire"]

_SECRET_HEADERS = frozenset(
    {
        "api-key",
        "authorization",
        "cookie",
        "openai-organization",
        "openai-project",
        "proxy-authorization",
        "x-api-key",
        "x-goog-api-key",
    }
)
_APIS: dict[str, Callable[[], tuple[Api, ...]]] = {
    "openai": lambda: (OpenAIChat(), OpenAIResponses()),
    "anthropic": lambda: (AnthropicMessages(),),
}


class Wire:
    """Fake providers under the real SDKs.

    Requests to OpenAI and Anthropic are answered as the test wrote it down, whichever
    client sends them over httpx or httpx2; so are those to the hosts that the test
    names. What nobody foresaw fails the test.

    Args:
        seed: Decides the data that schemas are filled with.

    Attributes:
        openai: The provider at `https://api.openai.com`.
        anthropic: The provider at `https://api.anthropic.com`.
    """

    def __init__(self, *, seed: int | str = 0) -> None:
        self._seed = seed
        self._count = 0
        self._began: float | None = None
        self._tolerated: frozenset[str] = frozenset()
        self._hosts: dict[tuple[str, str], Provider] = {}
        self.openai: Provider = self._provider(
            "wire.openai", "https://api.openai.com", "openai"
        )
        self.anthropic: Provider = self._provider(
            "wire.anthropic", "https://api.anthropic.com", "anthropic"
        )
        self._providers = [self.openai, self.anthropic]

    def host(self, base_url: str, *, like: str = "openai") -> Provider:
        """Return a provider at another place: a compatible server, a gateway, Azure.

        Args:
            base_url: What the client is given as `base_url`; the same one gives the
                same provider.
            like: Whose API it has, "openai" or "anthropic".

        Raises:
            ValueError: It is no absolute URL, or `like` is unknown.
        """
        check_choice("like", like, tuple(_APIS))
        known = self._hosts.get((base_url, like))
        if known is None:
            name = f"wire.host({base_url!r})"
            known = self._hosts[base_url, like] = self._provider(name, base_url, like)
            self._providers.append(known)
        return known

    def _provider(self, name: str, base_url: str, like: str) -> Provider:
        provider = Provider(name, [base_url], _APIS[like](), self._seed)
        provider.began = self._began
        return provider

    @property
    def exchanges(self) -> list[WireExchange]:
        """All requests with their answers, in the order in which they came."""
        every = [one for provider in self._providers for one in provider.exchanges]
        return sorted(every, key=lambda one: one.request.number)

    @property
    def requests(self) -> list[WireRequest]:
        """All requests, in the order in which they came."""
        return [one.request for one in self.exchanges]

    def verify(self) -> list[str]:
        """Return what went wrong: with the script, and with what clients made of it."""
        scripted = [text for one in self._providers for text in one.verify()]
        return [*scripted, *map(str, self.findings())]

    def findings(self) -> list[Finding]:
        """Return what clients have done wrong and the test does not tolerate."""
        return [one for one in self.audit() if one.kind not in self._tolerated]

    def audit(self) -> list[Finding]:
        """Return what clients have done wrong so far, though nothing failed.

        It is what fails a test at its end, unless the test tolerates it.
        """
        return audit(self.exchanges)

    def tolerate(self, *kinds: FindingKind) -> None:
        """Let findings of these kinds not fail the test.

        Args:
            kinds: Such as "accepted_bad_answer".

        Raises:
            ValueError: One of them is unknown.
        """
        self._tolerated |= check_kinds(kinds)

    def serves(self, url: Any, /) -> bool:  # noqa: ANN401 - a URL of either library
        """Tell whether requests to a URL are answered here."""
        return self._provider_at(url) is not None

    def start(self, at: float) -> None:
        """Let times of schedules count from a moment, in seconds of the clock."""
        for provider in self._providers:
            provider.began = at
        self._began = at

    def begin(self, asking: Asking, /) -> WireExchange:
        """Take a request that is to be answered."""
        # Only what is served is asked.
        provider = cast("Provider", self._provider_at(asking.url))
        self._count += 1
        caller = call_here()
        return provider.begin(
            WireRequest(
                number=self._count,
                method=asking.method,
                url=_shown(asking.url),
                headers=_without_secrets(asking.headers),
                body=asking.body,
                at=asking.at,
                path="" if caller is None else caller.path,
                timeout=asking.timeout,
            ),
            caller,
        )

    def _provider_at(self, url: Any) -> Provider | None:  # noqa: ANN401 - as above
        host, port, path = url.host.lower(), url.port, url.path
        # A gateway may stand below a host that another provider has.
        near = [one for one in self._providers if one.serves(host, port, path)]
        return near[-1] if near else None

    def __repr__(self) -> str:
        return f"<Wire providers={len(self._providers)} requests={self._count}>"


def _shown(url: Any) -> str:  # noqa: ANN401 - a URL of either library
    """Return a URL with the names of what its query asks, and no values."""
    port = "" if url.port is None else f":{url.port}"
    names = "&".join(url.params.keys())
    return f"{url.scheme}://{url.host}{port}{url.path}{'?' if names else ''}{names}"


def _without_secrets(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    pairs = [(name.decode("latin-1").lower(), value) for name, value in headers]
    return {
        name: REDACTED if name in _SECRET_HEADERS else value.decode("latin-1")
        for name, value in pairs
    }
