"""What the standard variables of OpenTelemetry say where an argument was left open.

Their names and meanings are those of
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ and
https://opentelemetry.io/docs/specs/otel/protocol/exporter/. An empty variable counts as
one that is not set. The sampler's variables and those of the resource are read by the
SDK itself.
"""

from __future__ import annotations

import os
from urllib.parse import unquote, urlsplit, urlunsplit

from tta_primitives.arguments import check_count

__all__ = [
    "EXPORT_SECONDS",
    "exporter_timeout",
    "is_disabled",
    "milliseconds",
    "service_name",
    "shown_endpoint",
    "traces_endpoint",
    "whole_number",
]

# The SDK's own ten seconds are too long for whom a collector that hangs holds up.
EXPORT_SECONDS = 2.0
_PATH = "/v1/traces"
_TRUE = "true"


def _variable(name: str) -> str | None:
    return os.environ.get(name, "").strip() or None


def is_disabled() -> bool:
    """Tell whether `OTEL_SDK_DISABLED` is true."""
    return (_variable("OTEL_SDK_DISABLED") or "").lower() == _TRUE


def service_name(given: str | None) -> str:
    """Return the service's name: the argument, else what the environment says.

    Args:
        given: The argument; None for `OTEL_SERVICE_NAME`, or else `service.name` among
            the `OTEL_RESOURCE_ATTRIBUTES`.

    Raises:
        TypeError: It is no text.
        ValueError: It is empty, or nobody says it.
    """
    if given is None:
        given = _variable("OTEL_SERVICE_NAME") or _in_resource("service.name")
        if given is None:
            msg = (
                "service_name=None needs the environment variable OTEL_SERVICE_NAME; "
                "give service_name='my-service' or set it"
            )
            raise ValueError(msg)
    if not isinstance(given, str):
        msg = f"service_name={given!r} must be a text, not {type(given).__name__}"
        raise TypeError(msg)
    if not given.strip():
        msg = f"service_name={given!r} must not be empty"
        raise ValueError(msg)
    return given.strip()


def _in_resource(name: str) -> str | None:
    pairs = (_variable("OTEL_RESOURCE_ATTRIBUTES") or "").split(",")
    found = (pair.partition("=") for pair in pairs)
    values = [unquote(value.strip()) for key, _, value in found if key.strip() == name]
    return (values[-1] or None) if values else None


def traces_endpoint(given: str | None) -> str | None:
    """Return the URL that spans are sent to, None if they are sent nowhere.

    Args:
        given: The collector's address, to which `/v1/traces` is added; None for
            `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, which is taken as it is, or else
            `OTEL_EXPORTER_OTLP_ENDPOINT`.

    Raises:
        TypeError: It is no text.
        ValueError: It is no URL of HTTP, or the environment asks for another protocol.
    """
    if given is not None:
        return _with_path(_checked("otlp_endpoint", given))
    if (_variable("OTEL_TRACES_EXPORTER") or "otlp").lower() != "otlp":
        return None
    own, common = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
    exact, base = _variable(own), _variable(common)
    if exact is None and base is None:
        return None
    _check_protocol()
    if exact is not None:
        return _checked(own, exact)
    return _with_path(_checked(common, base))


def _check_protocol() -> None:
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = _variable(name)
        if protocol is not None:
            if protocol != "http/protobuf":
                msg = (
                    f"{name}={protocol!r} is not spoken here; set it to "
                    "'http/protobuf' and the endpoint to the collector's HTTP port, "
                    "usually 4318"
                )
                raise ValueError(msg)
            return


def _checked(name: str, value: object) -> str:
    if not isinstance(value, str):
        msg = f"{name}={value!r} must be a URL, not {type(value).__name__}"
        raise TypeError(msg)
    try:
        parts = urlsplit(value.strip())
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        is_url = False
    if not is_url:
        msg = (
            f"{name}={shown_endpoint(value)!r} must be the URL of a collector, such as "
            "'http://localhost:4318'"
        )
        raise ValueError(msg)
    return value.strip()


def _with_path(url: str) -> str:
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    if not path.endswith(_PATH):
        path += _PATH
    return urlunsplit(parts._replace(path=path))


def shown_endpoint(url: str) -> str:
    """Return a URL as logs and errors may show it: no credentials, no query."""
    before, at, after = url.strip().partition("://")
    if not at:
        before, after = "", before
    host, slash, path = after.partition("/")
    host = host.rpartition("@")[2].partition("?")[0]
    return f"{before}{at}{host}{slash}{path.partition('?')[0]}"


def exporter_timeout(given: float | None) -> float:
    """Return how long one request to the collector may take, in seconds.

    Args:
        given: The argument; None for `OTEL_EXPORTER_OTLP_TRACES_TIMEOUT`, else
            `OTEL_EXPORTER_OTLP_TIMEOUT`, else 2 seconds.
    """
    if given is not None:
        return given
    for name in ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"):
        value = _variable(name)
        if value is not None:
            return _number(name, value)
    return EXPORT_SECONDS


def _number(name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        msg = f"{name}={value!r} must be a number above 0"
        raise ValueError(msg)
    return number


def whole_number(name: str, usual: int) -> int:
    """Return a variable that counts something, from 1."""
    value = _variable(name)
    if value is None:
        return usual
    return check_count(name, int(_number(name, value)), minimum=1)


def milliseconds(name: str, usual: float) -> float:
    """Return a variable in milliseconds as seconds."""
    value = _variable(name)
    return usual if value is None else _number(name, value) / 1000
