"""What a test holds of a simulated fleet: an engine, and an interceptor at any step."""

# ruff: noqa: ANN401 - outputs of any primitive

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

from pytest_tta.fleet.conditions import ConditionOptions, Conditions, conditions
from pytest_tta.fleet.crashes import Script
from pytest_tta.fleet.simulation import Job, Simulation
from tta_primitives.chance import new_id
from tta_primitives.deadline import within
from tta_primitives.distributed import Registry, RemoteReply, RemoteTask, perform
from tta_primitives.distributed.carried import arrive, bring_back, pack
from tta_primitives.distributed.engine import Engine, tell_caller
from tta_primitives.distributed.errors import EngineClosedError
from tta_primitives.distributed.failures import error_from
from tta_primitives.distributed.values import check_json
from tta_primitives.distributed.worker import reply_of
from tta_primitives.door import Interceptor, tell

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from pytest_tta.faults.schedules import Schedule
    from pytest_tta.fleet.simulation import FleetEvent
    from tta_primitives.door import Call
    from tta_primitives.primitive import WorkflowPrimitive

__all__ = ["SimulatedFleet"]


class SimulatedFleet(Interceptor, Engine):
    """A fleet in the event loop's own time: several workers, and a bad network.

    As an engine it performs `remote` steps; at the places that `at` names it treats
    local steps of the code under test as remote ones. A task is delivered at least
    once. Which deliveries are lost, doubled or late depends on the seed alone.

    A worker that crashes is a cancellation to the step that it performs: `finally`
    blocks run, which kill -9 would not let them.

    Args:
        workflows: A `Registry`, or what to put into one, for an engine.
        crash_at: Paths with the moment at which the worker dies of the first delivery;
            more is scripted with the method of this name.
        given: Conditions: `seed`, `workers`, `concurrency`, `drop`, `duplicate`,
            `reorder`, `delay`, `crash`, `visibility_timeout`, `restart_seconds`,
            `max_deliveries`. See `Conditions`.

    Raises:
        TypeError: A condition is unknown, or of another kind.
        ValueError: A condition is out of range.
    """

    # For searches: its messages are what goes wrong, not calls of `remote`.
    is_simulated = True

    def __init__(
        self,
        *workflows: Registry | WorkflowPrimitive[Any, Any] | Callable[..., Any],
        crash_at: Mapping[str, str] | None = None,
        **given: Unpack[ConditionOptions],
    ) -> None:
        begun = conditions(Conditions(), given)
        self._script = Script(begun.seed)
        self._simulation = Simulation(begun, self._script)
        self._registry: Registry | None = None
        self._is_closed = False
        if workflows:
            self.serve(*workflows)
        for path, moment in (crash_at or {}).items():
            self._script.add_crash(path, moment, None)

    @property
    def conditions(self) -> Conditions:
        """What the fleet is like."""
        return self._simulation.conditions

    @property
    def log(self) -> list[FleetEvent]:
        """What has happened in it, in order."""
        return self._simulation.log

    def configure(self, **given: Unpack[ConditionOptions]) -> SimulatedFleet:
        """Change conditions for what is delivered from now on; return the fleet."""
        self._simulation.conditions = conditions(self.conditions, given)
        return self

    def serve(
        self, *workflows: Registry | WorkflowPrimitive[Any, Any] | Callable[..., Any]
    ) -> SimulatedFleet:
        """Let its workers have these workflows; return the fleet, as an engine."""
        if len(workflows) == 1 and isinstance(workflows[0], Registry):
            self._registry = workflows[0]
        else:
            self._registry = Registry(*workflows)  # type: ignore[arg-type]
        return self

    def at(self, path: str) -> SimulatedFleet:
        """Treat a local step as a remote one; return the fleet.

        Its input, its output and the context's state must be JSON then, and it may be
        executed more than once. `stream` of it is left alone.

        Args:
            path: A path, the end of one or a pattern, as for `tta.faults.at`.
        """
        self._script.add_site(path)
        return self

    def crash_at(
        self, path: str, moment: str, *, when: Schedule | None = None
    ) -> SimulatedFleet:
        """Let a worker die of a task; return the fleet.

        Args:
            path: Of the task: a path, the end of one or a pattern.
            moment: `before` the step; `inside`, where it first waits; `after` it,
                between its effect and the reply; or `unacknowledged`, between the reply
                and its acknowledgement.
            when: At which deliveries that come from there; the first unless given.
        """
        self._script.add_crash(path, moment, when)
        return self

    async def settle(self) -> None:
        """Wait until every task is acknowledged, and late copies are performed."""
        await self._simulation.settle()

    @property
    def is_waiting(self) -> bool:
        """Whether something that was scripted has to happen still."""
        return self._script.is_waiting

    def verify(self, known_paths: Iterable[str] = ()) -> list[str]:
        """Return what was scripted and did not happen, each with the line that did it.

        Args:
            known_paths: Paths of positions, for what is near a wrong one.
        """
        served = self._registry.paths() if self._registry is not None else ()
        return self._script.verify({*known_paths, *served})

    # As an engine.

    async def open(self) -> None:
        """Be ready for calls."""
        self._is_closed = False

    async def close(self) -> None:
        """End everything, also what would be delivered again."""
        self._is_closed = True
        await self._simulation.close()

    async def call(self, task: RemoteTask, /) -> RemoteReply:
        """Let a simulated worker perform a task.

        Raises:
            RuntimeError: It has no workflows.
            EngineClosedError: It was closed.
        """
        if self._registry is None:
            msg = f"{self!r} has no workflows: call fleet.serve(workflow) first"
            raise RuntimeError(msg)
        if self._is_closed:
            msg = f"{self!r} was closed: open it again"
            raise EngineClosedError(msg)
        text, registry = task.to_json(), self._registry

        def again() -> Awaitable[RemoteReply]:
            """Perform the task from what was sent."""
            return perform(RemoteTask.from_json(text), registry)

        reply = await self._simulation.send(Job(task, again, tell_caller))
        return RemoteReply.from_json(reply.to_json())

    # As an interceptor.

    def execute(self, call: Call, proceed: Callable[[], Awaitable[Any]]) -> Any:
        """Let a simulated worker execute a step, if a test has named it."""
        if not self._script.is_site(call.path):
            return proceed()
        return self._remotely(call, proceed)

    async def _remotely(self, call: Call, proceed: Callable[[], Awaitable[Any]]) -> Any:
        context, path = call.context.at(call), call.path
        check_json(call.input_data, f"the input of {path!r}")
        call_id = new_id()
        task = RemoteTask(
            call_id=call_id,
            workflow=call.primitive.name,
            path=path,
            value=call.input_data,
            context=pack(context, call_id, carry_state=True),
        )
        text = task.to_json()

        def again() -> Awaitable[RemoteReply]:
            """Execute the step from what was sent."""
            return self._perform(
                RemoteTask.from_json(text), call, proceed, context.deps
            )

        reply = await self._simulation.send(Job(task, again, partial(tell, call)))
        reply = RemoteReply.from_json(reply.to_json())
        bring_back(context, reply.state or {}, reply.outcomes)
        if reply.status == "ok":
            return reply.value
        raise error_from(reply.error or {})

    async def _perform(
        self,
        task: RemoteTask,
        call: Call,
        proceed: Callable[[], Awaitable[Any]],
        deps: Mapping[str, Any],
    ) -> RemoteReply:
        """Execute a local step as a worker would, from what has crossed alone."""
        view = arrive(task.context, call, deps)

        async def execute() -> Any:
            """Execute the step itself, under the context that has arrived."""
            call.context, call.input_data = view, task.value
            return await proceed()

        remaining = view.remaining()
        if remaining is None:
            return await reply_of(task, view, execute)

        async def limited() -> Any:
            """Execute it until the deadline."""
            return await within(execute(), remaining, call.primitive, view)

        return await reply_of(task, view, limited)

    def __repr__(self) -> str:
        known = "" if self._registry is None else " ".join(self._registry.names)
        return f"<{type(self).__name__} seed={self.conditions.seed!r} {known}>"
