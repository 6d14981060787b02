"""Invoices in the background with RQ: rendered, and mailed once.

Read `invoices.py` first: it is the workflow. `jobs.py` makes a job of it.
"""
