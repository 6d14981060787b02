"""Tests of the page about a session."""
