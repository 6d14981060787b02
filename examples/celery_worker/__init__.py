"""Batches of meter readings, checked in the background by Celery workers.

Read `batches.py` first: it is the workflow. `app.py` makes a task of it in one line.
`python -m examples.celery_worker` checks a batch in this process, without a broker.
"""
