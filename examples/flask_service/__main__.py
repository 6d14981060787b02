"""The command: `python -m examples.flask_service`, or with `--serve`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from examples.flask_service.service import create_app

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flask.testing import FlaskClient


def main(arguments: Sequence[str] | None = None) -> int:
    """Show what the service does, or serve; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.flask_service", description=__doc__
    )
    parser.add_argument(
        "--serve", action="store_true", help="run the development server"
    )
    parser.add_argument("--port", type=int, default=5000, help="where (default: 5000)")
    options = parser.parse_args(arguments)
    app = create_app()
    if options.serve:
        app.run(port=options.port)
    else:
        show(app.test_client())
    return 0


def show(client: FlaskClient) -> None:
    """Make some requests of the application, without a server."""
    parcel = {"country": "PT", "grams": 800}
    headers = {"x-correlation-id": "order-7"}
    for path, body in (
        ("/quotes", parcel),
        ("/quotes/batch", [parcel, {**parcel, "grams": 5000}]),
        ("/quotes", {"country": "PT"}),
    ):
        reply = client.post(path, json=body, headers=headers)
        print(
            f"POST {path} -> {reply.status_code}, {reply.headers['x-correlation-id']}"
        )
        print(f"  {reply.get_json(silent=True) or reply.status}")
    print("GET /readyz ->", client.get("/readyz").get_json())


if __name__ == "__main__":
    sys.exit(main())
