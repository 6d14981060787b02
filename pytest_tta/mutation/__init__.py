"""Change one thing in a workflow, and see whether a test notices: `--tta-mutate`."""
