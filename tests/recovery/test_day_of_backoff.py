"""A day of backoff at the default policy is the same wherever it is run."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.repository.interpreters import Version, interpreters
from tests.repository.source import ROOT

FOUND = interpreters()
SEEDS = (7, 8)
# How many, the first three, and what all of them hash to.
EXPECTED = [
    [
        5845,
        [0.1515725002142999, 0.6461348038040384, 0.35803753603800303],
        "11bed622b3ddf981",
    ],
    [
        5826,
        [0.0044362688176362575, 0.8532785105001296, 0.33833989954876453],
        "06b32d3f2793c80b",
    ],
]
CODE = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import hashlib, json
from pytest_tta.clock.clock import VirtualClock
from tta_primitives import WorkflowContext, chance
from tta_primitives.recovery import RetryPrimitive

async def down(_value):
    raise ConnectionError("down")

async def run(retry):
    try:
        await retry.execute(1, WorkflowContext())
    except ConnectionError:
        pass

def delays(seed):
    clock = VirtualClock(wall=False)
    retry = RetryPrimitive(down, max_retries=None, max_elapsed=24 * 3600)
    with chance.seeded(seed):
        clock.run(run(retry))
    return clock.sleeps.delays

def summary(found):
    text = json.dumps(found).encode()
    return [len(found), found[:3], hashlib.sha256(text).hexdigest()[:16]]

print(json.dumps([summary(delays(seed)) for seed in {SEEDS!r}]))
"""


@pytest.mark.parametrize("version", FOUND, ids=lambda v: f"{v[0]}.{v[1]}")
def test_equal_seeds_give_equal_delays_on_every_interpreter(version: Version) -> None:
    """Thousands of jittered delays are equal to the last bit, and differ by seed."""
    command = [FOUND[version], "-I", "-B", "-S", "-c", CODE]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == EXPECTED
