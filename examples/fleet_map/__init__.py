"""Sends a newsletter from a fleet of workers: a map over more than one machine.

Read `newsletter.py` first: it is the workflow. `fleet.py` chooses the engine, and is
what workers are started with. `tests/` shows that each subscriber gets one letter,
whatever is lost or dies.
"""
