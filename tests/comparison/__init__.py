"""Which library breaks which case: `python -m tests.comparison`."""
