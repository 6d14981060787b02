"""Draw the pictures of the documentation from real runs: `python -m tests.pictures`."""
