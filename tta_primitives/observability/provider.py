"""The TracerProvider of the process, where the app has set none itself.

OpenTelemetry lets a process set its provider once and for ever. What is set here is
therefore a stand-in, behind which the SDK's provider may be exchanged: observability
can be shut down and initialized again, and tracers that were made before follow.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Switch"]


class Switch:
    """A TracerProvider that stands for another one, or for none.

    It has whatever else the other one has, for instance `add_span_processor`.
    """

    def __init__(self) -> None:
        self._inner: Any = None
        self._turns = 0

    @property
    def inner(self) -> Any:  # noqa: ANN401 - the SDK is not imported here
        """The provider that it stands for, None for none."""
        return self._inner

    @inner.setter
    def inner(self, provider: Any) -> None:  # noqa: ANN401 - as above
        self._inner = provider
        self._turns += 1

    def get_tracer(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as any provider's
        """Return a tracer of whatever provider this stands for when it is used."""
        return _Tracer(self, args, kwargs)

    def _tracer(self, args: Any, kwargs: Any) -> Any:  # noqa: ANN401 - as above
        if self._inner is not None:
            return self._inner.get_tracer(*args, **kwargs)
        from opentelemetry.trace import NoOpTracer

        return NoOpTracer()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as above
        inner = self.__dict__.get("_inner")
        if inner is None or name.startswith("__"):
            msg = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(msg)
        return getattr(inner, name)


class _Tracer:
    """A tracer of the provider that a switch stands for at the moment."""

    __slots__ = ("_args", "_known", "_kwargs", "_switch", "_turn")

    def __init__(self, switch: Switch, args: Any, kwargs: Any) -> None:  # noqa: ANN401 - as any provider's
        self._switch = switch
        self._args, self._kwargs = args, kwargs
        self._turn = -1
        self._known: Any = None

    def _now(self) -> Any:  # noqa: ANN401 - as above
        switch = self._switch
        if self._turn != switch._turns:
            self._turn = switch._turns
            self._known = switch._tracer(self._args, self._kwargs)
        return self._known

    def start_span(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as any tracer's
        return self._now().start_span(*args, **kwargs)

    def start_as_current_span(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as any tracer's
        return self._now().start_as_current_span(*args, **kwargs)
