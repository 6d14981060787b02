"""Providers inside the test: what real clients send is answered here, byte for byte."""
