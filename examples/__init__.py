"""Examples that run for real, and that `pytest --tta examples` tests."""
