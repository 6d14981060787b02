"""An order that is finished, or undone, whatever happens to the process.

`order.py` is the workflow, in which nothing is about being durable; `shop.py` is the
world outside; `__main__.py` kills the process in the middle of an order and lets
another one go on.
"""
