"""Probes ask what a service depends on: briefly, rarely, and secrets stay inside."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from tta_primitives.runtime import HealthCheck, Lifecycle


class Dependency:
    """Something that can be well, fail, or hang; counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.under_way = 0
        self.most = 0
        self.error: Exception | None = None
        self.seconds = 0.0
        self.is_stubborn = False

    async def ping(self) -> bool:
        """Answer as it is."""
        self.asked += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self._wait()
            if self.error is not None:
                raise self.error
            return True
        finally:
            self.under_way -= 1

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self.seconds
        while loop.time() < end:
            try:
                await asyncio.sleep(end - loop.time())
            except asyncio.CancelledError:
                if not self.is_stubborn:
                    raise


def time():
    """Return the time of the loop."""
    return asyncio.get_running_loop().time()


async def test_body_tells_each_check_by_name(tta) -> None:
    """One that fails makes the service unready; the types of errors are shown."""
    redis, database = Dependency(), Dependency()
    checks = {"redis": redis.ping, "database": database.ping}
    async with Lifecycle(checks=checks, check_keep_seconds=0) as lifecycle:
        well = {"redis": {"status": "ok"}, "database": {"status": "ok"}}
        assert await lifecycle.ready() == (200, {"status": "ready", "checks": well})
        redis.error = ConnectionError("redis://user:secret@host")
        code, body = await lifecycle.ready()
        assert code == 503
        assert body == {
            "status": "failing",
            "checks": {
                "redis": {"status": "failed", "error": "ConnectionError"},
                "database": {"status": "ok"},
            },
        }
        assert "secret" not in json.dumps(body)
        redis.error = None
        assert (await lifecycle.ready())[0] == 200


async def test_error_is_logged_once_for_each_outage(tta, caplog) -> None:
    """The text is in the log; not once more for each probe, but when it is over."""
    redis = Dependency()
    checks = {"redis": redis.ping}
    with caplog.at_level(logging.INFO):
        async with Lifecycle(checks=checks, check_keep_seconds=0) as lifecycle:
            for error in (OSError("no route"), OSError("no route"), None, None):
                redis.error = error
                await lifecycle.ready()
    told = [record.getMessage() for record in caplog.records if "check" in record.msg]
    assert told == [
        "health check 'redis' failed",
        "health check 'redis' is well again",
    ]
    assert "no route" in caplog.text


async def test_checks_run_side_by_side_with_limits_of_their_own(tta) -> None:
    """Three that hang take no longer than the longest limit."""
    slow = Dependency()
    slow.seconds = 3600
    checks = {
        "one": slow.ping,
        "two": HealthCheck(slow.ping, timeout=2),
        "three": slow.ping,
    }
    async with Lifecycle(checks=checks) as lifecycle:
        began = time()
        code, body = await lifecycle.ready()
        assert time() - began == pytest.approx(2)
        await asyncio.sleep(0)
        assert slow.under_way == 0  # They were cancelled.
    assert code == 503
    assert {found["status"] for found in body["checks"].values()} == {"timed out"}


async def test_check_that_swallows_cancellation_holds_up_nobody(tta) -> None:
    """The probe is answered in time, and no second one hangs beside the first."""
    slow = Dependency()
    slow.seconds, slow.is_stubborn = 100, True
    checks = {"redis": slow.ping}
    async with Lifecycle(checks=checks, check_keep_seconds=0) as lifecycle:
        for expected in (0.5, 0.0, 0.0):
            began = time()
            code, body = await lifecycle.ready()
            assert (code, body["checks"]["redis"]) == (503, {"status": "timed out"})
            assert time() - began == pytest.approx(expected)
        assert slow.asked == 1
        slow.seconds = 0
        await asyncio.sleep(100)
        assert (await lifecycle.ready())[0] == 200


async def test_end_does_not_wait_for_a_check_that_hangs(tta, caplog) -> None:
    """It is cancelled, and left with a line in the log if that does not help."""
    slow = Dependency()
    slow.seconds, slow.is_stubborn = 100, True
    async with Lifecycle(checks={"redis": slow.ping}) as lifecycle:
        await lifecycle.ready()
        report = await lifecycle.drain()
    assert report.seconds == pytest.approx(0.1)
    assert "health check 'redis' cannot be cancelled and is left" in caplog.text
    await asyncio.sleep(100)


async def test_many_probes_are_one_question(tta) -> None:
    """A hundred at once ask once; for a second nobody asks again."""
    redis = Dependency()
    redis.seconds = 0.2
    async with Lifecycle(checks={"redis": redis.ping}) as lifecycle:
        answers = await asyncio.gather(*[lifecycle.ready() for _ in range(100)])
        assert [code for code, _ in answers] == [200] * 100
        await asyncio.sleep(0.9)
        await lifecycle.ready()
        assert (redis.asked, redis.most) == (1, 1)
        await asyncio.sleep(0.2)
        await lifecycle.ready()
        assert redis.asked == 2


async def test_probe_that_goes_away_takes_no_answer_with_it(tta) -> None:
    """The first who asked is cancelled; the others are answered by that question."""
    redis = Dependency()
    redis.seconds = 0.3
    async with Lifecycle(checks={"redis": redis.ping}) as lifecycle:
        first = asyncio.ensure_future(lifecycle.ready())
        second = asyncio.ensure_future(lifecycle.ready())
        await asyncio.sleep(0.1)
        first.cancel()
        assert (await second)[0] == 200
        assert redis.asked == 1


async def test_failure_of_what_is_not_required_is_shown_only(tta) -> None:
    """A cache that is away makes a service slower, and not unready."""
    redis = Dependency()
    redis.error = ConnectionError()
    checks = {"cache": HealthCheck(redis.ping, required=False)}
    async with Lifecycle(checks=checks) as lifecycle:
        code, body = await lifecycle.ready()
    assert code == 200
    assert body["checks"]["cache"]["status"] == "failed"


async def test_dependencies_are_not_asked_where_it_makes_no_difference(tta) -> None:
    """Not for liveness, and not while it starts or drains."""
    redis = Dependency()
    lifecycle = Lifecycle(checks={"redis": redis.ping})
    lifecycle.start()
    assert (await lifecycle.ready())[0] == 503
    lifecycle.begin_drain()
    assert (await lifecycle.ready())[0] == 503
    assert lifecycle.live()[0] == 200
    await lifecycle.drain()
    assert redis.asked == 0


async def test_drain_that_begins_meanwhile_is_seen(tta) -> None:
    """The checks were well, but the process is not ready any more."""
    redis = Dependency()
    redis.seconds = 0.3
    async with Lifecycle(checks={"redis": redis.ping}) as lifecycle:
        asked = asyncio.ensure_future(lifecycle.ready())
        await asyncio.sleep(0.1)
        lifecycle.begin_drain()
        code, body = await asked
    assert (code, body["status"]) == (503, "draining")


async def test_probe_during_the_end_is_answered(tta) -> None:
    """What it waits for is cancelled; the probe itself is not."""
    slow = Dependency()
    slow.seconds = 100
    async with Lifecycle(checks={"redis": slow.ping}, check_timeout=50) as lifecycle:
        asked = asyncio.ensure_future(lifecycle.ready())
        await asyncio.sleep(0.1)
    code, body = await asked
    assert (code, body["status"]) == (503, "draining")


@pytest.mark.parametrize(
    ("ping", "status"),
    [(lambda: True, "ok"), (lambda: None, "ok"), (lambda: False, "failed")],
    ids=["true", "none", "false"],
)
async def test_plain_functions_are_checks_too(tta, ping, status) -> None:
    """What returns False has failed; what returns nothing has raised nothing."""
    async with Lifecycle(checks={"it": ping}) as lifecycle:
        _, body = await lifecycle.ready()
    assert body["checks"] == {"it": {"status": status}}


async def test_check_that_cancels_itself_has_failed(tta) -> None:
    """A driver that is being closed may do so."""

    async def ping():
        """Be cancelled from inside."""
        raise asyncio.CancelledError

    async with Lifecycle(checks={"it": ping}) as lifecycle:
        _, body = await lifecycle.ready()
    assert body["checks"] == {"it": {"status": "failed", "error": "CancelledError"}}


def test_findings_of_one_loop_are_not_those_of_another() -> None:
    """One lifecycle in several tests: what hung in the first is not awaited there."""
    redis = Dependency()
    lifecycle = Lifecycle(checks={"redis": redis.ping})

    async def probe():
        """Ask once."""
        async with lifecycle:
            return await lifecycle.ready()

    for _ in range(2):
        assert asyncio.run(probe())[0] == 200
    assert redis.asked == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ping": 3}, r"ping=3 must be an async function"),
        ({"ping": print, "timeout": -1}, r"timeout=-1 must be a positive number"),
        ({"ping": print, "required": None}, r"required=None must be True or False"),
    ],
    ids=["ping", "timeout", "required"],
)
def test_arguments_of_a_check_are_checked(arguments, message) -> None:
    """Each error names the parameter, shows the value and says what is allowed."""
    with pytest.raises((TypeError, ValueError), match=message):
        HealthCheck(**arguments)
