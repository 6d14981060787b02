"""What DBOS writes to its database and reads there: JSON, and never a pickle."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from tta_primitives.durable.errors import JournalError
from tta_primitives.durable.values import from_json, to_json
from tta_primitives.extras import needs

with needs("dbos", __name__):
    from dbos import Serializer, _serialization

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["JsonSerializer", "no_pickle"]


class JsonSerializer(Serializer):
    """Inputs, outputs and errors as JSON, as `tta_primitives.durable` writes them."""

    def name(self) -> str:
        """Return what stands in the column `serialization`."""
        return "tta_json"

    def serialize(self, data: Any) -> str:  # noqa: ANN401 - the interface
        """Return data as JSON.

        Raises:
            TypeError: A part of it would not come back as what it is.
        """
        return to_json(data, "the input or output of a durable workflow")

    def deserialize(self, serialized_data: str) -> Any:  # noqa: ANN401 - as above
        """Return the data that the JSON stands for.

        Raises:
            JournalError: It was written by somebody else.
        """
        return from_json(serialized_data, "what the durable database holds")


def _refuse(_serialized: str) -> NoReturn:
    msg = (
        "the durable database holds a pickle, which is not loaded: unpickling runs "
        "whatever code its writer chose, and this program writes JSON only"
    )
    raise JournalError(msg)


@contextmanager
def no_pickle() -> Iterator[None]:
    """Refuse pickles while DBOS runs, also in rows that say that they are one.

    A serializer of one's own does not do that: DBOS reads each row as the row's column
    `serialization` says, so that whoever can write to the database could run code in
    every process that recovers from it.
    """
    # The one object that all of DBOS's readers of such rows use.
    reader: Any = _serialization.DBOSDefaultSerializer
    reader.deserialize = _refuse
    try:
        yield
    finally:
        del reader.deserialize
