"""Tests of the plugin, in sessions of their own."""
