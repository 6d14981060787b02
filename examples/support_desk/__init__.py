"""Answers customers about their orders, in plain code over OpenAI's SDK.

Nothing of this project is in `desk.py`; `tests/` shows how such code is tested.
"""
