"""What hosts workflows in a process: its life from start to end, and its event loop."""

from tta_primitives.runtime.health import HealthCheck
from tta_primitives.runtime.lifecycle import (
    DrainReport,
    Lifecycle,
    LifecycleStoppedError,
    TrackedRun,
)
from tta_primitives.runtime.loop_thread import LoopThread, loop_thread

__all__ = [
    "DrainReport",
    "HealthCheck",
    "Lifecycle",
    "LifecycleStoppedError",
    "LoopThread",
    "TrackedRun",
    "loop_thread",
]
