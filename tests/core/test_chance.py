"""The one source of randomness and ids, and how a scope replaces it."""

from __future__ import annotations

import asyncio
import os
import random
import re
import subprocess
import sys

import pytest

from tta_primitives import chance
from tta_primitives.late import Late


def test_ids_differ_and_are_hexadecimal() -> None:
    """32 digits, as W3C Trace Context wants them."""
    ids = {chance.new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)


def test_a_seed_repeats_chance_and_ids() -> None:
    """These are the draws of every interpreter and platform."""
    with chance.seeded(7) as generator:
        drawn = (chance.rng().random(), chance.new_id(), chance.rng().random())
        assert chance.rng() is generator
    assert drawn == (
        0.3031450004285998,
        "989dc56f2b1412bec8eab7aff7cff031",
        0.6461348038040384,
    )


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.random(),
        lambda rng: rng.getrandbits(70),
        lambda rng: rng.uniform(1, 2),
        lambda rng: rng.randrange(10**30),
        lambda rng: rng.choice("abcdefgh"),
        lambda rng: rng.sample(range(1000), 5),
        lambda rng: rng.gauss(0, 1),
        lambda rng: rng.randbytes(9),
        lambda rng: rng.getstate(),
    ],
)
def test_a_generator_that_is_seeded_late_draws_the_same(draw) -> None:
    """Whatever is asked for first; and the second draw follows from the first."""
    late, plain = Late("x"), random.Random("x")
    assert [draw(late), draw(late)] == [draw(plain), draw(plain)]
    late.begin("x")
    assert draw(late) == draw(random.Random("x"))


def test_a_late_generator_takes_a_seed_or_a_state() -> None:
    """What was to come first is forgotten then."""
    late, plain = Late("x"), random.Random("y")
    late.seed("y")
    assert late.random() == plain.random()
    late.begin("x")
    late.setstate(plain.getstate())
    assert late.random() == plain.random()


def test_an_id_more_does_not_change_the_draws_that_follow() -> None:
    """Ids have a generator of their own."""
    with chance.seeded("a"):
        first = chance.rng().random()
    with chance.seeded("a"):
        chance.new_id()
        assert chance.rng().random() == first
    with chance.seeded("b"):
        assert chance.rng().random() != first


async def test_a_scope_belongs_to_its_task() -> None:
    """Tasks beside it draw from the process's own generator."""
    outside = chance.rng()

    async def seeded():
        with chance.seeded(1):
            await asyncio.sleep(0)
            return chance.rng().random()

    first, second = await asyncio.gather(seeded(), seeded())
    assert first == second
    assert chance.rng() is outside


def test_a_scope_is_left_with_its_block() -> None:
    """Scopes nest, also when an error ends them."""
    mine = random.Random(3)
    with chance.using(mine, lambda: "id"):
        with pytest.raises(KeyError, match="x"), chance.seeded(1):
            raise KeyError("x")
        assert chance.rng() is mine
        assert chance.new_id() == "id"
    assert chance.new_id() != "id"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_workers_draw_differently() -> None:
    """Else all workers of a server would retry in step."""
    assert chance.rng() is chance.rng()  # Made before they are.
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, repr(chance.rng().random()).encode())
        os._exit(0)
    os.wait()
    assert float(os.read(reader, 64)) != chance.rng().random()
    os.close(reader)
    os.close(writer)


def test_who_draws_nothing_imports_nothing_for_it() -> None:
    """`random` is a seventh of what the import of the primitives costs."""
    code = """
import asyncio, sys
before = set(sys.modules)  # Also what measures this process.
from tta_primitives import WorkflowContext, step

@step
async def double(number):
    return number * 2

assert asyncio.run(double.execute(21, WorkflowContext())) == 42
print(sorted({"copy", "random"} & (set(sys.modules) - before)))
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True
    )
    assert done.stdout == "[]\n"
