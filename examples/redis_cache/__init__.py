"""Translations that a model makes once: kept in memory, and in Redis for all processes.

`python -m examples.redis_cache` shows two workers that share what they load, on an
imitation of Redis in this process; with `REDIS_URL` set, on that server.
"""
