"""Tests of what a session tells a person, and other programs."""
