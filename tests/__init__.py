"""The tests: a package, so that `tests.services` and its like can be imported."""
