"""Tapes: real exchanges with a provider, recorded once and played offline."""

from __future__ import annotations

from pytest_tta.tape.errors import TapeError
from pytest_tta.tape.recording import Recording
from pytest_tta.tape.tape import RecordMode, Tape

__all__ = ["RecordMode", "Recording", "Tape", "TapeError"]
