"""What the tests of tapes stand on."""

from __future__ import annotations

import pytest

from pytest_tta.harness import Harness
from pytest_tta.tape import Tape


@pytest.fixture
def path(tmp_path):
    """Return where the tape of the test is."""
    return tmp_path / "tapes" / "test_it.yaml"


@pytest.fixture
def run(path):
    """Run a function in virtual time with the tape, and return what it returns."""

    def run(function, *, mode="none", before=None, seed=0, **options):
        with Harness(tape=Tape(path, mode=mode, **options), seed=seed) as tta:
            if before is not None:
                before(tta.tape)
            return tta.run(function, None)

    return run
