"""The simulated fleet: conformance, what it does to a call, and what it reports."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_tta import Harness, HarnessError, S
from pytest_tta.faults import nth
from pytest_tta.fleet import SimulatedFleet
from tta_primitives import MapPrimitive, WorkflowContext, step
from tta_primitives.distributed import EngineError, RemoteValueError, remote
from tta_primitives.distributed.conformance import ENGINE_CHECKS, check_registry
from tta_primitives.recovery import RetryPrimitive

BAD = {"drop": 0.2, "duplicate": 0.2, "reorder": 0.3, "delay": (0.0, 0.2)}


@pytest.mark.parametrize("check", ENGINE_CHECKS, ids=lambda check: check.__name__)
async def test_a_simulated_fleet_conforms(tta, tmp_path, check) -> None:
    """It is an engine like the real ones."""
    async with SimulatedFleet(check_registry()) as engine:
        await check(engine, tmp_path)


class Ledger:
    """An effect outside: each charge is written down, each key counts once."""

    def __init__(self):
        self.executed = []
        self.charged = {}

    def charge(self):
        @step
        async def charge(amount: int, context: WorkflowContext) -> dict:
            self.executed.append(amount)
            await asyncio.sleep(0.1)
            self.charged.setdefault(context.idempotency_key, amount)
            return {"charged": amount}

        return charge


@pytest.fixture
def ledger():
    return Ledger()


@pytest.mark.parametrize(
    ("moment", "executed", "charged_later"),
    [("before", 1, 0), ("inside", 2, 0), ("after", 2, 0), ("unacknowledged", 1, 1)],
)
def test_a_crash_delivers_the_task_again(
    tta, ledger, moment, executed, charged_later
) -> None:
    """Whenever the worker dies, the effect with its key happens once."""
    fleet = tta.fleet.serve(ledger.charge()).crash_at("charge", moment)

    async def pay(amount: int) -> dict:
        """Pay, and wait for what is delivered again."""
        paid = await remote("charge", engine=fleet).execute(amount, WorkflowContext())
        assert len(ledger.executed) == executed
        await fleet.settle()
        return paid

    assert tta.run(pay, 5) == {"charged": 5}
    assert len(ledger.executed) == executed + charged_later
    assert list(ledger.charged.values()) == [5]
    assert [one.name for one in fleet.log].count(f"crashed_{moment}") == 1


def test_the_schedule_is_in_the_trace(tta, ledger) -> None:
    """What became of a call stands in its span, as events with the worker."""
    fleet = tta.fleet.serve(ledger.charge()).crash_at("charge", "after")
    assert tta.run(remote("charge", engine=fleet), 5) == {"charged": 5}
    caller, *_performed = tta.trace.roots
    told = [name for name in caller.event_names if name.startswith("fleet.")]
    assert told == [
        "fleet.sent",
        "fleet.crashed_after",
        "fleet.performed",
        "fleet.acknowledged",
    ]
    assert tta.clock.elapsed == pytest.approx(30.2)


def test_equal_seeds_give_equal_fleets(ledger) -> None:
    """A run is repeated exactly, to the worker and the moment."""

    def log(seed):
        with Harness() as tta:
            fleet = SimulatedFleet(ledger.charge(), seed=seed, crash=0.2, **BAD)
            work = MapPrimitive(remote("charge", engine=fleet), max_concurrency=5)
            tta.run(work, list(range(10)))
            return fleet.log

    assert log(1) == log(1)
    assert log(1) != log(2)


def test_a_task_that_never_succeeds_fails(tta, ledger) -> None:
    """A network that loses everything ends in an error, not in a hang."""
    fleet = SimulatedFleet(ledger.charge(), drop=1.0, max_deliveries=3)
    with pytest.raises(EngineError, match="'charge' was delivered 3 times"):
        tta.run(remote("charge", engine=fleet), 5)
    assert ledger.charged == {}


# As an interceptor.


@step
async def fetch(name: str, context: WorkflowContext) -> dict:
    """Note in the state who was fetched."""
    context.state.setdefault("seen", []).append(name)
    await asyncio.sleep(1)
    return {"name": name, "client": context.deps.get("client")}


@step
async def shout(user: dict) -> str:
    """Return the name in capitals."""
    return user["name"].upper()


def test_a_local_step_becomes_remote(tta) -> None:
    """Code under test stays as it is; its step is performed again after a crash."""
    tta.fleet.at("fetch").crash_at("fetch", "inside")
    context = WorkflowContext(state={"kept": 1}, deps={"client": "ours"})
    assert tta.run(fetch >> shout, "ada", context) == "ADA"
    assert context.state == {"kept": 1, "seen": ["ada"]}
    assert tta.clock.elapsed == 31
    assert "fleet.crashed_inside" in tta.trace.find("fetch").event_names


def test_a_whole_workflow_becomes_remote(tta) -> None:
    """Its steps stay below it in the trace."""
    workflow = (fetch >> shout).named("greet") >> shout_again
    tta.fleet.at("greet")
    assert tta.run(workflow, "ada") == "ADA!"
    assert tta.trace == S(
        "sequential", S("greet", S("fetch"), S("shout")), S("shout_again")
    )


@step
async def shout_again(text: str) -> str:
    """Return the text with a mark."""
    return f"{text}!"


def test_a_fault_at_a_remote_step_strikes_on_the_worker(tta) -> None:
    """The caller gets the error as it comes back from there."""
    tta.fleet.at("fetch")
    tta.faults.at("fetch").fail(ConnectionError("gone"), when=nth(1))
    flow = RetryPrimitive(fetch, initial_delay=1, jitter="none") >> shout
    assert tta.run(flow, "ada") == "ADA"


def test_what_is_no_json_shows_at_once(tta) -> None:
    """A step that could not run on a worker fails in the test."""

    @step
    async def split(text: str) -> tuple:
        return tuple(text)

    tta.fleet.at("split")
    with pytest.raises(RemoteValueError, match=r"output of 'split'.*of type tuple"):
        tta.run(split, "ab")
    with pytest.raises(RemoteValueError, match=r"input of 'split'.*of type set"):
        tta.run(split, {"a"})


def test_a_cancelled_caller_ends_the_work(tta, ledger) -> None:
    """Nothing is executed again for a caller that has gone."""
    fleet = tta.fleet.serve(ledger.charge())

    async def leave(amount: int) -> None:
        """Give up before the step is done."""
        call = remote("charge", engine=fleet).execute(amount, WorkflowContext())
        with pytest.raises(TimeoutError, match=r"^$"):
            await asyncio.wait_for(call, 0.05)
        await fleet.settle()

    tta.run(leave, 5)
    assert ledger.charged == {}
    assert [one.name for one in fleet.log] == ["sent", "left"]


# What it reports.


def under_a_harness(script):
    """Let a script do something, and fail for what it scripted in vain."""
    with Harness() as tta:
        script(tta)


def test_a_crash_that_never_came_is_a_problem(ledger) -> None:
    """The line that scripted it is named, and what was nearest."""

    def script(tta):
        fleet = tta.fleet.serve(ledger.charge())
        fleet.crash_at("chrge", "after")
        fleet.crash_at("charge", "after", when=nth(3))
        tta.run(remote("charge", engine=fleet), 5)

    with pytest.raises(HarnessError, match="nearest: 'charge'") as caught:
        under_a_harness(script)
    told = str(caught.value).splitlines()
    assert len(told) == 2
    assert "fleet.crash_at('chrge', 'after', when=first(1))" in told[0]
    assert "test_simulated_fleet.py:" in told[0]
    assert "nth(3) is none of 1 delivery" in told[1]


def test_a_place_that_was_never_reached_is_a_problem() -> None:
    """A misspelt path does not pass for a step that was remote."""

    def script(tta):
        tta.fleet.at("fecth")
        tta.run(fetch >> shout, "ada")

    wanted = r"fleet\.at\('fecth'\), at .*test_simulated_fleet.py:.*nearest: .*fetch'"
    with pytest.raises(HarnessError, match=wanted):
        under_a_harness(script)


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"drop": 1.5}, ValueError, "drop=1.5 must be a chance"),
        ({"workers": 0}, ValueError, "workers=0 must be"),
        ({"delay": (2, 1)}, ValueError, "delay=.2, 1. must have its smaller"),
        ({"losses": 0.1}, TypeError, "losses= is no condition of a fleet"),
        ({"crash_at": {"charge": "soon"}}, ValueError, "moment='soon' must be one of"),
    ],
)
def test_conditions_are_checked(given, error, match) -> None:
    """A mistake names the condition and what is allowed."""
    with pytest.raises(error, match=match):
        SimulatedFleet(**given)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    drop=st.floats(0, 0.5),
    duplicate=st.floats(0, 1),
    reorder=st.floats(0, 1),
    crash=st.floats(0, 0.5),
    workers=st.integers(1, 4),
)
def test_a_keyed_effect_happens_once_whatever_the_fleet_does(
    *, seed, drop, duplicate, reorder, crash, workers
) -> None:
    """The result is the inline one, and each order is charged exactly once."""
    ledger = Ledger()
    amounts = [3, 1, 4, 1, 5]
    with Harness(seed=seed) as tta:
        fleet = SimulatedFleet(
            ledger.charge(),
            seed=seed,
            drop=drop,
            duplicate=duplicate,
            reorder=reorder,
            crash=crash,
            workers=workers,
            delay=(0, 1),
            max_deliveries=1000,
        )

        async def pay(items: list) -> list:
            """Pay for all, and wait for what comes late."""
            charge = MapPrimitive(remote("charge", engine=fleet), max_concurrency=3)
            paid = await charge.execute(items, WorkflowContext())
            await fleet.settle()
            return paid

        got = tta.run(pay, amounts)
    assert got == [{"charged": amount} for amount in amounts]
    assert sorted(ledger.charged.values()) == sorted(amounts)
    assert len(ledger.executed) >= len(amounts)
