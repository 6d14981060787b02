"""Every metric that is exported: its name, its kind, what it says and its labels.

Labels have few values: paths of workflows, ways to end, models. Never a correlation id,
never anything of an input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["BUCKETS", "FAMILIES", "Family"]

# In seconds: from a cache hit in memory to an agent that thinks for minutes.
BUCKETS: Final = (
    0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 120.0,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Family:
    """A metric with all its series.

    Attributes:
        name: As it is exported; a counter's ends in `_total`.
        kind: What Prometheus calls its type.
        help: What it says, in a sentence.
        labels: The names of its labels.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ("path",)


DURATION: Final = Family(
    "tta_primitive_duration_seconds",
    "histogram",
    "How long calls of primitives took, and how many ended how.",
    ("path", "status"),
)
IN_FLIGHT: Final = Family(
    "tta_primitive_in_flight", "gauge", "Calls of primitives that are running."
)
ATTEMPTS: Final = Family(
    "tta_retry_attempts_total", "counter", "Attempts that retries made, the first too."
)
RETRIES: Final = Family(
    "tta_retries_total", "counter", "Attempts that failed and are made again."
)
RETRIES_ENDED: Final = Family(
    "tta_retries_ended_total",
    "counter",
    "Retries that ended without success, by reason.",
    ("path", "reason"),
)
FALLBACKS: Final = Family(
    "tta_fallbacks_total",
    "counter",
    "Times that an alternative was turned to, by its number.",
    ("path", "index"),
)
CACHE_REQUESTS: Final = Family(
    "tta_cache_requests_total",
    "counter",
    "Look-ups in caches: hit, negative_hit, stale or miss.",
    ("path", "result"),
)
CACHE_EVENTS: Final = Family(
    "tta_cache_events_total",
    "counter",
    "What else happens in caches: coalesced, refresh, invalidated, lease_lost, ...",
    ("path", "event"),
)
CACHE_EVICTIONS: Final = Family(
    "tta_cache_evictions_total", "counter", "Entries that had to make room for others."
)
CIRCUIT_STATE: Final = Family(
    "tta_circuit_state",
    "gauge",
    "In how many processes the circuit is in this state.",
    ("path", "state"),
)
CIRCUIT_CHANGES: Final = Family(
    "tta_circuit_changes_total",
    "counter",
    "Changes of circuits, by the state that they changed to.",
    ("path", "state"),
)
REJECTIONS: Final = Family(
    "tta_rejections_total",
    "counter",
    "Calls that were turned away: by a breaker, a bulkhead or a rate_limit.",
    ("path", "by"),
)
TIMEOUTS: Final = Family(
    "tta_timeouts_total",
    "counter",
    "Time limits that were up: expired, ignored by the step, or overrun without one.",
    ("path", "outcome"),
)
WAITS: Final = Family(
    "tta_wait_seconds",
    "histogram",
    "How long calls wait before they begin: for a retry, a bulkhead, a rate_limit.",
    ("path", "by"),
)
HEDGES: Final = Family(
    "tta_hedges_total",
    "counter",
    "Hedges, by what became of them: started, won or skipped.",
    ("path", "outcome"),
)
COMPENSATIONS: Final = Family(
    "tta_compensations_total",
    "counter",
    "Compensations of sagas: started, done or failed.",
    ("path", "outcome"),
)
STORAGE_ERRORS: Final = Family(
    "tta_storage_errors_total",
    "counter",
    "Failures of what is shared: of a cache, a breaker or a rate_limit.",
    ("path", "of"),
)
ROUTES: Final = Family(
    "tta_routes_total",
    "counter",
    "Which way routers and conditions sent their input.",
    ("path", "route"),
)
TOKENS: Final = Family(
    "tta_llm_tokens_total",
    "counter",
    "Tokens of language models: input, cached_input (a part of it) and output.",
    ("provider", "model", "direction"),
)
ANSWERS: Final = Family(
    "tta_llm_answers_total",
    "counter",
    "Answers of language models, by why they ended.",
    ("provider", "model", "finish_reason"),
)
SPANS_DROPPED: Final = Family(
    "tta_spans_dropped_total",
    "counter",
    "Spans that were not exported because the queue was full.",
    (),
)
PROCESSES: Final = Family(
    "tta_processes", "gauge", "Processes that count in these metrics.", ("service",)
)

FAMILIES: Final[tuple[Family, ...]] = (
    DURATION, IN_FLIGHT, ATTEMPTS, RETRIES, RETRIES_ENDED, FALLBACKS,
    CACHE_REQUESTS, CACHE_EVENTS, CACHE_EVICTIONS, CIRCUIT_STATE, CIRCUIT_CHANGES,
    REJECTIONS, TIMEOUTS, WAITS, HEDGES, COMPENSATIONS, STORAGE_ERRORS, ROUTES, TOKENS,
    ANSWERS, SPANS_DROPPED, PROCESSES,
)  # fmt: skip
