"""What this project costs beside its peers: `python -m tests.benchmarks`."""
