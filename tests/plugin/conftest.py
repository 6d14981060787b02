"""How the tests of the plugin run a session of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin_arguments import PLUGIN_ARGUMENTS

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]

_QUIET = ("-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:looptime")


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """Run pytest in this process on the files that the test made."""

    def run_pytest(*args: str) -> pytest.RunResult:
        return pytester.runpytest_inprocess(*PLUGIN_ARGUMENTS, *_QUIET, *args)

    return run_pytest


@pytest.fixture
def run_apart(pytester: pytest.Pytester) -> Run:
    """Run pytest in a process of its own."""

    def run_pytest(*args: str) -> pytest.RunResult:
        return pytester.runpytest_subprocess(*PLUGIN_ARGUMENTS, *_QUIET, *args)

    return run_pytest
