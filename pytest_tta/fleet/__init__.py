"""A fleet of workers in virtual time, with a network that loses and doubles."""

from __future__ import annotations

from pytest_tta.fleet.conditions import Conditions, CrashMoment
from pytest_tta.fleet.fleet import SimulatedFleet
from pytest_tta.fleet.simulation import FleetEvent

__all__ = ["Conditions", "CrashMoment", "FleetEvent", "SimulatedFleet"]
