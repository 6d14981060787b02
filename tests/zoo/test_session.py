"""A bare `--tta --tta-explore` finds the bugs in files of tests as users write them."""

from __future__ import annotations

import inspect
import re

import pytest

from tests.zoo import (
    bugs_cancel,
    bugs_fleet,
    bugs_http,
    bugs_primitives,
    bugs_races,
    bugs_redis,
)

MODULES = (
    *(bugs_races, bugs_cancel, bugs_http, bugs_redis, bugs_primitives, bugs_fleet),
)

TESTS = """

import pytest


@pytest.mark.parametrize("bug", BUGS, ids=repr)
def test_it(tta, bug):
    bug.body(tta, bug.{version})
"""

LINE = re.compile(r"pytest '(\S+)' --tta-replay='(.*)'")


def _write(pytester, module, version):
    tests = inspect.getsource(module) + TESTS.format(version=version)
    pytester.makepyfile(test_shop=tests)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__.split(".")[-1])
def test_a_bare_flag_finds_all_bugs_of_a_file(pytester, run, module):
    """Each test fails with a line, and the line alone brings its failure back."""
    _write(pytester, module, "buggy")

    result = run("--tta", "--tta-explore")

    result.assert_outcomes(failed=len(module.BUGS))
    # In CI the summary shows them in full once more.
    lines = list(dict.fromkeys(LINE.findall(result.stdout.str())))
    assert len(lines) == len(module.BUGS)
    node_id, line = lines[0]
    again = run("--tta", node_id, f"--tta-replay={line}")
    again.assert_outcomes(failed=1)
    assert line in again.stdout.str()


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__.split(".")[-1])
def test_a_bare_flag_finds_nothing_in_what_is_right(pytester, run, module):
    """The corrected versions pass, explored as they are."""
    _write(pytester, module, "corrected")

    run("--tta", "--tta-explore").assert_outcomes(passed=len(module.BUGS))
