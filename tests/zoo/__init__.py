"""A zoo of planted bugs, each of a kind that real libraries or services had.

`bug.py` says what an entry is, `bugs_*.py` hold them, `catalogue.py` lists them all.
"""
