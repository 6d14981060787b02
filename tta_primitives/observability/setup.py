"""One call that turns traces, metrics and logs on, and the handle that ends them."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from threading import RLock
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, get_args

from tta_primitives.arguments import check_choice, check_count, check_flag, seconds
from tta_primitives.extras import missing
from tta_primitives.observability import environment, logs, metrics, tracing
from tta_primitives.observability.redaction import Redactor
from tta_primitives.runtime.closing import flush_with, flush_without

if TYPE_CHECKING:
    from typing import Self, Unpack

    from prometheus_client import CollectorRegistry

    from tta_primitives.observability.exporting import SpanCounts

__all__ = ["Observability", "ObservabilityOptions", "initialize_observability"]

logger: logging.Logger = logging.getLogger(__name__)

LogFormat: TypeAlias = Literal["json", "console"]
_HIGHEST_PORT = 65_535


class ObservabilityOptions(TypedDict, total=False):
    """The keyword arguments of `initialize_observability` that few need.

    Attributes:
        prometheus_registry: Where metrics are registered, and what is served;
            prometheus_client's usual one unless given.
        enable_tracing: Make spans; None to do so where OpenTelemetry is installed.
        otlp_headers: Sent to the collector with each request; those of
            `OTEL_EXPORTER_OTLP_HEADERS` unless given.
        otlp_timeout: How long one request to the collector may take, in seconds; None
            for the environment, or 2.
        resource_attributes: More about the service, such as `deployment.environment`.
        sample_ratio: Which part of the traces that begin here is sampled, from 0 to 1;
            None for the environment, or all. Callers have decided for theirs.
        span_queue_size: How many spans may wait to be sent; None for the environment,
            or 2048.
        capture_content: Tell inputs, outputs and the messages of language models in
            spans, without secrets as far as `redact` knows them.
        content_length: How many characters of each, at most; 2048 unless given.
        log_level: Of the root logger; None to leave it, or INFO if nobody has set up
            logging.
        redact: Takes secrets out of what leaves the process; one with its usual
            knowledge unless given.
    """

    prometheus_registry: CollectorRegistry | None
    enable_tracing: bool | None
    otlp_headers: Mapping[str, str]
    otlp_timeout: float | None
    resource_attributes: Mapping[str, str]
    sample_ratio: float | None
    span_queue_size: int | None
    capture_content: bool
    content_length: int
    log_level: int | None
    redact: Redactor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arguments:
    """What a user has asked for, to be compared with what is asked for again."""

    service_name: str
    enable_prometheus: bool
    prometheus_port: int | None
    prometheus_host: str
    otlp_endpoint: str | None
    log_format: LogFormat | None
    prometheus_registry: CollectorRegistry | None = None
    enable_tracing: bool | None = None
    # Headers are where keys are.
    otlp_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    otlp_timeout: float | None = None
    resource_attributes: Mapping[str, str] = field(default_factory=dict)
    sample_ratio: float | None = None
    span_queue_size: int | None = None
    capture_content: bool = False
    content_length: int = 2048
    log_level: int | None = None
    redact: Redactor | None = None

    def check(self) -> None:
        """Refuse what cannot be meant."""
        check_flag("enable_prometheus", self.enable_prometheus)
        check_flag("capture_content", self.capture_content)
        if self.enable_tracing is not None:
            check_flag("enable_tracing", self.enable_tracing)
        _check_port(self.prometheus_port)
        for name in ("otlp_headers", "resource_attributes"):
            _check_texts(name, getattr(self, name))
        if self.otlp_timeout is not None:
            seconds("otlp_timeout", self.otlp_timeout)
        _check_ratio(self.sample_ratio)
        if self.span_queue_size is not None:
            check_count("span_queue_size", self.span_queue_size, minimum=1)
        check_count("content_length", self.content_length, minimum=1)
        if self.log_format is not None:
            check_choice("log_format", self.log_format, get_args(LogFormat))
        if not isinstance(self.redact, (Redactor, type(None))):
            msg = f"redact={self.redact!r} must be a Redactor or None"
            raise TypeError(msg)
        if self.enable_tracing is False and self.otlp_endpoint is not None:
            msg = "enable_tracing=False sends no spans; leave otlp_endpoint out"
            raise ValueError(msg)

    def differences(self, other: _Arguments) -> list[str]:
        """Return what differs from other arguments, no secret in it."""
        found = []
        for one in fields(self):
            mine, theirs = getattr(self, one.name), getattr(other, one.name)
            if mine != theirs:
                shown = f"={mine!r}, not {theirs!r}"
                if one.name == "otlp_endpoint":
                    shown = f"={_shown(mine)!r}, not {_shown(theirs)!r}"
                found.append(one.name + (shown if one.repr else ""))
        return found


class Observability:
    """What `initialize_observability` has turned on, until `shutdown`.

    It is a context manager, too.

    Attributes:
        service_name: Of the service that the process is a part of.
    """

    def __init__(self, arguments: _Arguments) -> None:
        self.service_name: str = arguments.service_name
        self._arguments = arguments
        self._tracing: tracing.Tracing | None = None
        self._metrics: metrics.Metrics | None = None
        self._logs: logs.Logs | None = None
        self._is_running = True

    @property
    def is_running(self) -> bool:
        """Whether it was not shut down yet."""
        return self._is_running

    @property
    def spans(self) -> SpanCounts:
        """What has become of the spans that this process sends itself.

        All numbers are 0 where they go to a provider of the app.
        """
        from tta_primitives.observability.exporting import SpanCounts

        return SpanCounts() if self._tracing is None else self._tracing.counts

    @property
    def prometheus_port(self) -> int | None:
        """The port that this process serves metrics on; None if it serves none.

        Of several processes with the same service and port one serves for all.
        """
        return None if self._metrics is None else self._metrics.port

    def flush(self, timeout: float = 2.0) -> bool:
        """Send the spans that wait; return whether that was done in time.

        It blocks: call it from a thread where an event loop runs.

        Args:
            timeout: For how many seconds it may block.
        """
        return self._tracing is None or self._tracing.flush(timeout)

    def shutdown(self, timeout: float = 2.0) -> None:
        """Send what waits and turn everything off; never raise, never block longer.

        It is called at the exit of the process, if nobody has called it before. Where
        an event loop runs, use `aclose`. Afterwards `initialize_observability` may be
        called again, with other arguments, too.

        Args:
            timeout: For how many seconds it may block, all parts together.
        """
        with _lock:
            if not self._is_running:
                return
            self._is_running = False
            _forget(self)
        atexit.unregister(self.shutdown)
        flush_without(self.flush)
        end = time.monotonic() + timeout  # noqa: TID251 - a thread waits, not a loop
        for part in (self._tracing, self._metrics, self._logs):
            if part is not None:
                left = end - time.monotonic()  # noqa: TID251 - as above
                _stop(part, max(0.0, left))

    async def aclose(self, timeout: float = 2.0) -> None:  # noqa: ASYNC109 - as shutdown
        """Shut down without blocking the event loop."""
        await asyncio.to_thread(self.shutdown, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        state = "" if self._is_running else " shut down"
        return f"<{type(self).__name__} {self.service_name!r}{state}>"


_lock = RLock()
_current: Observability | None = None


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - a thread of the parent may have held it
    _lock = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def initialize_observability(
    service_name: str | None = None,
    *,
    enable_prometheus: bool = True,
    prometheus_port: int | None = 9464,
    prometheus_host: str = "127.0.0.1",
    otlp_endpoint: str | None = None,
    log_format: LogFormat | None = None,
    **options: Unpack[ObservabilityOptions],
) -> Observability:
    """Turn traces, metrics and logs of all workflows in this process on.

    Call it once, when the process starts; with the same arguments it returns the same
    handle again. What cannot work is raised here. Afterwards nothing that goes wrong,
    such as a collector that is away, is ever raised into the app.

    What is left open follows the standard variables of OpenTelemetry, for instance
    `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER` and
    `OTEL_SDK_DISABLED`. If the app has set a TracerProvider before, that one gets the
    spans and is never replaced.

    Args:
        service_name: Of the service, as traces show it; None for `OTEL_SERVICE_NAME`.
        enable_prometheus: Serve metrics for Prometheus.
        prometheus_port: Where they are served, at `/metrics`; 0 for any port that is
            free, None to serve nothing, where the app has an endpoint of its own.
        prometheus_host: On which address; only this machine can reach the usual one.
        otlp_endpoint: The collector's address for OTLP over HTTP, for instance
            `http://localhost:4318`; None for the environment, and without that no
            spans are sent from here.
        log_format: Write logs as `"json"` or for a `"console"`; None to leave logging
            as it is.
        options: `ObservabilityOptions` explains them.

    Raises:
        ModuleNotFoundError: Something that was asked for needs a library that is not
            installed.
        RuntimeError: It was called before, with other arguments.
        TypeError: An argument is of the wrong type, or is not known.
        ValueError: An argument, or a variable of the environment, has a wrong value.
    """
    _check_names(options)
    arguments = _Arguments(
        service_name=environment.service_name(service_name),
        enable_prometheus=enable_prometheus,
        prometheus_port=prometheus_port,
        prometheus_host=prometheus_host,
        otlp_endpoint=otlp_endpoint,
        log_format=log_format,
        **options,
    )
    arguments.check()
    with _lock:
        return _started(arguments)


def _started(arguments: _Arguments) -> Observability:
    """Return what runs already if it is the same, else start it."""
    global _current  # noqa: PLW0603 - one for the process
    if _current is not None:
        differences = arguments.differences(_current._arguments)
        if not differences:
            return _current
        msg = (
            "observability was initialized before, with other arguments: "
            f"{'; '.join(differences)}. Call it once, or shutdown() what it returned"
        )
        raise RuntimeError(msg)
    found = Observability(arguments)
    try:
        _start_parts(found, arguments)
    except BaseException:
        found.shutdown(0.0)
        raise
    atexit.register(found.shutdown)
    flush_with(found.flush)
    _current = found
    return found


def _forget(gone: Observability) -> None:
    global _current  # noqa: PLW0603 - as above
    if _current is gone:
        _current = None


def _start_parts(found: Observability, arguments: _Arguments) -> None:
    redact = arguments.redact or Redactor()
    options = _tracing_options(arguments)
    if options is not None:
        found._tracing = tracing.start(options, redact)
    if arguments.enable_prometheus:
        found._metrics = metrics.start(
            arguments.service_name,
            host=arguments.prometheus_host,
            port=arguments.prometheus_port,
            registry=arguments.prometheus_registry,
            redact=redact,
        )
        if found._tracing is not None:
            found._tracing.tell_lost(found._metrics.spans_dropped)
    if arguments.log_format is not None:
        found._logs = logs.start(
            arguments.service_name,
            log_format=arguments.log_format,
            redact=redact,
            level=arguments.log_level,
        )


def _tracing_options(arguments: _Arguments) -> tracing.TracingOptions | None:
    """Return how spans are made, None if they are not."""
    wanted = arguments.enable_tracing
    endpoint = environment.traces_endpoint(arguments.otlp_endpoint)
    if wanted is False or environment.is_disabled():
        return None
    if find_spec("opentelemetry") is None:
        if wanted or endpoint is not None:
            error = missing("otel", "tracing", "opentelemetry")
            raise error
        return None
    if arguments.otlp_endpoint is None and endpoint and tracing.has_own_provider():
        # The environment speaks to the app's provider, too.
        endpoint = None
    return tracing.TracingOptions(
        service_name=arguments.service_name,
        endpoint=endpoint,
        headers=arguments.otlp_headers,
        timeout=environment.exporter_timeout(arguments.otlp_timeout),
        resource=arguments.resource_attributes,
        sample_ratio=arguments.sample_ratio,
        queue_size=arguments.span_queue_size,
        content_length=arguments.content_length if arguments.capture_content else 0,
    )


def _stop(part: Any, timeout: float) -> None:  # noqa: ANN401 - each part is a class of its own
    try:
        part.shutdown(timeout)
    except Exception:
        logger.exception("%s did not shut down", type(part).__name__)


def _shown(endpoint: str | None) -> str | None:
    return None if endpoint is None else environment.shown_endpoint(endpoint)


def _check_names(options: Mapping[str, object]) -> None:
    for name in options:
        if name not in ObservabilityOptions.__annotations__:
            known = ", ".join(ObservabilityOptions.__annotations__)
            msg = (
                f"initialize_observability() has no argument {name!r}; beside those of "
                f"its signature it has {known}"
            )
            raise TypeError(msg)


def _check_texts(name: str, given: Mapping[str, str]) -> None:
    if not isinstance(given, Mapping):
        msg = f"{name}= must be a mapping of texts, not {type(given).__name__}"
        raise TypeError(msg)
    for key, value in given.items():
        if not (isinstance(key, str) and isinstance(value, str)):
            # Not shown: headers are where keys are.
            msg = f"{name}= holds {key!r} with a {type(value).__name__}; it takes texts"
            raise TypeError(msg)


def _check_port(port: int | None) -> None:
    if port is not None and check_count("prometheus_port", port) > _HIGHEST_PORT:
        msg = f"prometheus_port={port!r} must be at most 65535"
        raise ValueError(msg)


def _check_ratio(ratio: float | None) -> None:
    if ratio is None:
        return
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)):
        msg = f"sample_ratio={ratio!r} must be a number from 0 to 1"
        raise TypeError(msg)
    if not 0 <= ratio <= 1:
        msg = f"sample_ratio={ratio!r} must be from 0 to 1"
        raise ValueError(msg)
