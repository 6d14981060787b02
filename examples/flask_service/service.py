"""The application: `gunicorn --threads 16 examples.flask_service.service:app`."""

from __future__ import annotations

import asyncio

from flask import Blueprint, Flask, Response, jsonify, request
from werkzeug.exceptions import BadRequest

from examples.flask_service.quotes import Parcel, quote
from tta_primitives.integrations.flask import Tta, request_context, run_workflow
from tta_primitives.runtime import Lifecycle

__all__ = ["app", "create_app"]

_HEAVIEST = 30_000

quotes = Blueprint("quotes", __name__)


@quotes.post("/quotes")
def make_quote() -> Response:
    """Quote one parcel: a sync view, and the workflow on the loop of the process."""
    parcel = _parcel_of(request.get_json())
    return jsonify(run_workflow(quote, parcel))


@quotes.post("/quotes/batch")
async def make_quotes() -> Response:
    """Quote many parcels at the same time: an async view, on the same loop."""
    parcels = [_parcel_of(each) for each in request.get_json()]
    context = request_context()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(quote.execute(each, context)) for each in parcels]
    return jsonify([task.result() for task in tasks])


def _parcel_of(given: object) -> Parcel:
    match given:
        case {"country": str(country), "grams": int(grams)} if 0 < grams <= _HEAVIEST:
            return {"country": country, "grams": grams}
    msg = f"a parcel has a country, and from 1 to {_HEAVIEST} grams"
    raise BadRequest(msg)


def create_app() -> Flask:
    """Make the application."""
    made = Flask(__name__)
    lifecycle = Lifecycle(drain_seconds=25, workflows={"quote": quote})
    Tta(made, lifecycle=lifecycle, request_timeout=10, health="/health")
    made.register_blueprint(quotes)
    return made


app = create_app()
