"""Shipping quotes over HTTP with Flask: one event loop behind synchronous views."""
