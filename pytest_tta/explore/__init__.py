"""Search for the fault or the order of events that breaks a test."""
