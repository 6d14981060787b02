"""Whether what a service depends on answers: asked rarely, briefly, and at once.

Probes come every few seconds from several sides. However many there are, each check is
under way once at most, its answer is kept for a moment, and one that hangs, even one
that cannot be cancelled, holds nobody up for longer than its limit.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from tta_primitives.arguments import check_flag, seconds
from tta_primitives.loops import now, running_loop

__all__ = ["HealthCheck", "HealthChecks"]

logger: logging.Logger = logging.getLogger("tta_primitives")

Ping: TypeAlias = Callable[[], object]
Finding: TypeAlias = "dict[str, Any]"

# How long what was cancelled has to end before nobody waits for it any more.
_GRACE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A check with a limit of its own, or one whose failure is shown and no more.

    Attributes:
        ping: Asks the dependency; an async function without parameters. What it raises,
            and the value False, is a failure.
        timeout: Seconds until it has failed; those of the lifecycle if None.
        required: Whether the service is of no use without what is checked. The failure
            of a check that is not required leaves the service ready.
    """

    ping: Ping
    timeout: float | None = None
    required: bool = True

    def __post_init__(self) -> None:
        if not callable(self.ping):
            msg = (
                f"ping={self.ping!r} must be an async function without parameters, "
                "such as client.ping"
            )
            raise TypeError(msg)
        if self.timeout is not None:
            seconds("timeout", self.timeout)
        check_flag("required", self.required)


class HealthChecks:
    """Checks by name, executed side by side.

    Args:
        checks: By name an async function without parameters, or a `HealthCheck`.
        timeout: Seconds that each may take unless it says otherwise.
        keep_seconds: How long findings are kept, so that probes cannot be a load.
    """

    def __init__(
        self,
        checks: Mapping[str, Ping | HealthCheck],
        *,
        timeout: float = 0.5,
        keep_seconds: float = 1.0,
    ) -> None:
        limit = seconds("check_timeout", timeout)
        self._keep = seconds("check_keep_seconds", keep_seconds, zero=True)
        self._checks = [
            _Check(str(name), _as_check(name, check), limit)
            for name, check in checks.items()
        ]
        self._flight: asyncio.Task[dict[str, Finding]] | None = None
        self._kept: dict[str, Finding] | None = None
        self._kept_at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None

    def __bool__(self) -> bool:
        return bool(self._checks)

    async def findings(self) -> dict[str, Finding]:
        """Return what each check found, by name.

        A finding has `status` (`ok`, `failed` or `timed out`), and `error`, the type of
        what was raised; its text goes to the log only. There are none if `aclose` has
        come in between.
        """
        if not self._checks:
            return {}
        self._follow()
        kept = self._kept
        if kept is not None and now() - self._kept_at < self._keep:
            return kept
        flight = self._flight
        if flight is None or flight.done():
            flight = self._flight = running_loop().create_task(self._look())
        # Whoever goes away meanwhile leaves it to those who still wait.
        await asyncio.wait({flight})
        # `aclose` has cancelled it, and not whoever waits for it.
        return {} if flight.cancelled() else flight.result()

    def is_ready(self, findings: Mapping[str, Finding]) -> bool:
        """Tell whether everything that is required was found to be well."""
        return all(
            findings[check.name]["status"] == "ok"
            for check in self._checks
            if check.is_required
        )

    async def aclose(self) -> None:
        """End what is under way; what cannot be ended is left and logged."""
        flight = self._flight
        tasks = {check.task for check in self._checks if check.task is not None}
        if flight is not None:
            tasks.add(flight)
        open_tasks = {task for task in tasks if not task.done()}
        for task in open_tasks:
            task.cancel()
        if open_tasks:
            _, left = await asyncio.wait(open_tasks, timeout=_GRACE_SECONDS)
            for task in left:
                logger.warning("%s cannot be cancelled and is left", task.get_name())

    def _follow(self) -> None:
        """Forget what belongs to a loop that is over."""
        loop = running_loop()
        if self._loop is not loop:
            self._loop, self._flight, self._kept = loop, None, None
            for check in self._checks:
                check.task = None

    async def _look(self) -> dict[str, Finding]:
        found = await asyncio.gather(*[check.finding() for check in self._checks])
        names = [check.name for check in self._checks]
        self._kept = dict(zip(names, found, strict=True))
        self._kept_at = now()
        return self._kept


def _as_check(name: object, check: Ping | HealthCheck) -> HealthCheck:
    if isinstance(check, HealthCheck):
        return check
    if not callable(check):
        msg = (
            f"checks[{name!r}]={check!r} must be an async function without parameters, "
            "such as client.ping, or a HealthCheck"
        )
        raise TypeError(msg)
    return HealthCheck(check)


class _Check:
    """One check, which is under way once at most.

    Attributes:
        name: Its name.
        is_required: Whether its failure makes the service unready.
        task: What is under way, or was last.
    """

    def __init__(self, name: str, check: HealthCheck, limit: float) -> None:
        self.name = name
        self.is_required = check.required
        self.task: asyncio.Task[Finding] | None = None
        self._ping = check.ping
        self._limit = limit if check.timeout is None else float(check.timeout)
        self._was_ok = True

    async def finding(self) -> Finding:
        """Return what is found within the limit."""
        task = self.task
        if task is not None and not task.done():
            # It hangs since an earlier probe: another would hang beside it.
            return self._late()
        name = f"health check {self.name!r}"
        self.task = task = running_loop().create_task(self._ask(), name=name)
        await asyncio.wait({task}, timeout=self._limit)
        if not task.done():
            task.cancel()
            return self._late()
        if task.cancelled():
            return {"status": "failed", "error": "CancelledError"}
        return task.result()

    def _late(self) -> Finding:
        if self._was_ok:
            logger.warning(
                "health check %r took longer than %s s", self.name, self._limit
            )
        self._was_ok = False
        return {"status": "timed out"}

    async def _ask(self) -> Finding:
        try:
            answer = self._ping()
            if inspect.isawaitable(answer):
                answer = await answer
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            return self._failed(error)
        if answer is False:
            return self._failed(None)
        if not self._was_ok:
            logger.info("health check %r is well again", self.name)
        self._was_ok = True
        return {"status": "ok"}

    def _failed(self, error: Exception | None) -> Finding:
        # Once for each outage: probes come every few seconds.
        if self._was_ok:
            logger.warning("health check %r failed", self.name, exc_info=error)
        self._was_ok = False
        if error is None:
            return {"status": "failed"}
        return {"status": "failed", "error": type(error).__name__}
