"""Answers questions over the project's own documentation.

Read `answer.py` first: it is the workflow. `tests/` shows how each way in which it can
fail is tested, in virtual time.
"""
