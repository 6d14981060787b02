"""The command: `python -m examples.celery_worker`."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from examples.celery_worker.app import app, process_batch
from tta_primitives import WorkflowContext
from tta_primitives.integrations.celery import carrying

_READINGS = {"m-1": 20.1, "m-2": 19.8, "m-3": 20.4, "m-4": 98.7, "m-5": 20.0}

_HOW = """
This was one process, without a broker. With real workers, for instance with Redis:

    export CELERY_BROKER_URL=redis://127.0.0.1:6379/0
    export CELERY_RESULT_BACKEND=redis://127.0.0.1:6379/1
    export BATCHES=/srv/batches
    echo '{"m-1": 20.1, "m-2": 19.8, "m-3": 98.7}' > /srv/batches/monday.json
    celery -A examples.celery_worker.app worker -P threads -c 50 --loglevel INFO

and from anywhere:

    celery -A examples.celery_worker.app call batches.process --args '["monday"]'
"""


def main() -> int:
    """Check one batch in this process; return the exit code."""
    app.conf.update(task_always_eager=True, task_eager_propagates=True)
    with tempfile.TemporaryDirectory() as place:
        os.environ["BATCHES"] = place
        Path(place, "monday.json").write_text(json.dumps(_READINGS), "utf-8")
        with carrying(WorkflowContext("request-1")):
            result = process_batch.delay("monday")
        print(f"task {result.id}: {result.get()}")
    print(_HOW)
    return 0


if __name__ == "__main__":
    sys.exit(main())
