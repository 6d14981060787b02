"""Fallback: the libraries, the cases, and the probes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tests.comparison.cases import OURS, Area, LacksError, Library, verdict
from tests.comparison.steps import Boom, Script, chunks_of, outcome_of, settle
from tta_primitives import WorkflowContext, step
from tta_primitives.recovery import FallbackPrimitive

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.comparison.cases import Finding, Function

__all__ = ["FALLBACK"]


class Fallback(Library):
    """What a fallback may be asked for."""

    @classmethod
    def chain(cls, primary: Function, *others: Function) -> Function:
        """Try one function after the other, on a Boom."""
        raise LacksError

    @classmethod
    def isolated(cls, primary: Function, other: Function) -> Function:
        """Give each alternative the input as it was."""
        return cls.chain(primary, other)

    @classmethod
    def judged(cls, primary: Function, other: Function, refused: object) -> Function:
        """Fall back on a result."""
        raise LacksError

    @classmethod
    def stream(
        cls, primary: Callable[..., Any], other: Callable[..., Any]
    ) -> Callable[..., Any]:
        """Try one async generator after the other."""
        raise LacksError

    @classmethod
    async def answered(cls, primary: Function, other: Function) -> object:
        """Return who has answered."""
        raise LacksError


class Ours(Fallback):
    """FallbackPrimitive."""

    name = OURS

    @classmethod
    def _made(cls, primary: Any, others: Any, **options: Any) -> Function:
        made = FallbackPrimitive(primary, list(others), **options)
        return lambda value=None: made.execute(value, WorkflowContext())

    @classmethod
    def chain(cls, primary, *others):
        return cls._made(primary, others, fallback_on=Boom)

    @classmethod
    def isolated(cls, primary, other):
        return cls._made(primary, [other], isolate_input=True)

    @classmethod
    def judged(cls, primary, other, refused):
        return cls._made(primary, [other], fallback_if_result=lambda r: r == refused)

    @classmethod
    def stream(cls, primary, other):
        made = FallbackPrimitive(step(primary), [step(other)])
        return lambda value=None: made.stream(value, WorkflowContext())

    @classmethod
    async def answered(cls, primary, other):
        context = WorkflowContext()
        await FallbackPrimitive(primary, [other]).execute(None, context)
        return context.outcomes["fallback"].index


class Langchain(Fallback):
    """`Runnable.with_fallbacks`."""

    name = "langchain"
    distribution = "langchain-core"

    @classmethod
    def chain(cls, primary, *others):
        from langchain_core.runnables import RunnableLambda

        first, *rest = [
            RunnableLambda(lambda value: value, afunc=one) for one in (primary, *others)
        ]
        made = first.with_fallbacks(rest, exceptions_to_handle=(Boom,))
        return lambda value=None: made.ainvoke(value)

    @classmethod
    def stream(cls, primary, other):
        from langchain_core.runnables import RunnableGenerator

        def generator(function):
            async def transformed(inputs):
                async for value in inputs:
                    async for chunk in function(value):
                        yield chunk

            return RunnableGenerator(transformed)

        return generator(primary).with_fallbacks([generator(other)]).astream


class Hyx(Fallback):
    """`hyx.fallback`."""

    name = distribution = "hyx"

    @classmethod
    def chain(cls, primary, *others):
        from hyx.fallback import fallback

        guarded = primary
        for other in others:

            async def handler(result, value=None, other=other):
                return await other(value)

            guarded = fallback(handler, on=Boom)(guarded)
        return guarded

    @classmethod
    def judged(cls, primary, other, refused):
        from hyx.fallback import fallback

        async def handler(result, *args):
            return await other(*args)

        async def is_refused(result, *args):
            return result == refused

        return fallback(handler, on=None, if_=is_refused)(primary)


FALLBACK = Area("Fallback", Ours, Langchain, Hyx)


@FALLBACK.case("When all have failed, all their errors can be found", 52)
async def all_errors_are_told(library: type[Fallback]) -> Finding:
    """Look for three errors in the one that is raised."""
    errors = [Boom("first"), Boom("second"), Boom("third")]
    steps = [Script(error).step() for error in errors]
    outcome = await outcome_of(library.chain(*steps)())
    found: list[BaseException] = []
    _collect(outcome, found)
    known = sum(any(error is one for one in found) for error in errors)
    return verdict(known == 3, f"{known} of 3")


def _collect(error: object, found: list[BaseException]) -> None:
    """Add an error and all that it leads to."""
    if isinstance(error, BaseException) and not any(error is one for one in found):
        found.append(error)
        for other in getattr(error, "exceptions", ()):
            _collect(other, found)
        _collect(error.__cause__, found)
        _collect(error.__context__, found)


@FALLBACK.case("A cancelled primary is no reason to fall back", 53)
async def cancellation_is_no_failure(library: type[Fallback]) -> Finding:
    """Cancel the task in the primary."""
    other = Script("other")
    call = library.chain(Script(30.0).step(), other.step())
    task = asyncio.create_task(call())
    await settle()
    task.cancel()
    outcome = await outcome_of(task)
    is_kept = task.cancelled() and other.calls == 0
    return verdict(is_kept, f"{outcome!r}")


@FALLBACK.case("An error that is not listed passes as the object that it is", 54)
async def other_errors_pass(library: type[Fallback]) -> Finding:
    """Fail with an error of another type."""
    error, other = ValueError("bad input"), Script("other")
    call = library.chain(Script(error).step(), other.step())
    outcome = await outcome_of(call())
    return verdict(outcome is error and other.calls == 0, f"{outcome!r}")


@FALLBACK.case("A result can be a reason to fall back", 55)
async def results_are_judged(library: type[Fallback]) -> Finding:
    """Refuse an empty result."""
    call = library.judged(Script("").step(), Script("other").step(), "")
    outcome = await outcome_of(call())
    return verdict(outcome == "other", f"{outcome!r}")


@FALLBACK.case("What the primary did to the input does not reach the fallback", 54)
async def inputs_are_isolated(library: type[Fallback]) -> Finding:
    """Let the primary change the input before it fails."""

    async def careless(value: dict[str, int]) -> None:
        value["amount"] = 0
        raise Boom

    async def reads(value: dict[str, int]) -> int:
        return value["amount"]

    outcome = await outcome_of(library.isolated(careless, reads)({"amount": 7}))
    return verdict(outcome == 7, f"the fallback reads {outcome} instead of 7")


@FALLBACK.case("It is told who has answered", 57)
async def answers_have_an_author(library: type[Fallback]) -> Finding:
    """Let the fallback answer."""
    who = await library.answered(Script(Boom()).step(), Script("other").step())
    return verdict(who == 1, f"{who}")


@FALLBACK.case("A stream that fails before its first chunk falls back", 58)
async def streams_fall_back(library: type[Fallback]) -> Finding:
    """Let the primary fail before anything has come."""
    call = library.stream(Script((Boom(),)).stream(), Script(("c", "d")).stream())
    seen, _ = await chunks_of(call(1))
    return verdict(seen == ["c", "d"], f"{seen}")


@FALLBACK.case("A stream that fails later is not continued by another", 58)
async def streams_are_not_mixed(library: type[Fallback]) -> Finding:
    """Let the primary fail after a chunk."""
    primary, other = Script(("a", Boom())), Script(("c", "d"))
    call = library.stream(primary.stream(), other.stream())
    seen, error = await chunks_of(call(1))
    is_kept = seen == ["a"] and isinstance(error, Boom)
    return verdict(is_kept, " ".join(map(str, seen)))
