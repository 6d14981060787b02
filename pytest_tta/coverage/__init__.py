"""Resilience coverage: which outcomes of each primitive the tests have reached."""

from __future__ import annotations

from pytest_tta.coverage.collector import Collector
from pytest_tta.coverage.data import CoverageData, Hit, NodeCoverage, WorkflowCoverage

__all__ = ["Collector", "CoverageData", "Hit", "NodeCoverage", "WorkflowCoverage"]
