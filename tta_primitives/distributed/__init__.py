"""Steps on more than one machine: what crosses, what brings it there, and how it fails.

`remote(step, engine=fleet)` is a primitive like any other. The engines for real fleets
are in `tta_primitives.integrations`; `InlineEngine` needs none.
"""

from __future__ import annotations

from tta_primitives.distributed.codec import Codec, TypeCodec
from tta_primitives.distributed.engine import Engine
from tta_primitives.distributed.errors import (
    EngineClosedError,
    EngineError,
    RemoteCancelledError,
    RemoteDataError,
    RemoteError,
    RemoteValueError,
    UnknownWorkflowError,
)
from tta_primitives.distributed.failures import register_errors
from tta_primitives.distributed.inline import InlineEngine
from tta_primitives.distributed.registry import Registry
from tta_primitives.distributed.remote import RemotePrimitive, remote
from tta_primitives.distributed.task import RemoteReply, RemoteTask
from tta_primitives.distributed.worker import Worker, perform

__all__ = [
    "Codec",
    "Engine",
    "EngineClosedError",
    "EngineError",
    "InlineEngine",
    "Registry",
    "RemoteCancelledError",
    "RemoteDataError",
    "RemoteError",
    "RemotePrimitive",
    "RemoteReply",
    "RemoteTask",
    "RemoteValueError",
    "TypeCodec",
    "UnknownWorkflowError",
    "Worker",
    "perform",
    "register_errors",
    "remote",
]
