"""A shop that asks a warehouse, and what can be seen of that: traces, metrics, logs.

`python -m examples.observed_service` takes three orders and shows what a collector, a
Prometheus and a terminal get of them, all in this process. Read `shop.py` first: it is
the workflow, and it knows nothing of being observed.
"""
