"""Tests of resilience coverage."""
