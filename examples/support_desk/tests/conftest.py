"""A key that opens nothing: the SDK makes no client without one."""

from __future__ import annotations

import os

os.environ["OPENAI_API_KEY"] = "sk-test"
os.environ.pop("OPENAI_BASE_URL", None)
