"""Optional libraries: what to say where one is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["missing", "needs"]


def missing(extra: str, who: str, library: str | None = None) -> ModuleNotFoundError:
    """Return the error that says which extra of ours brings a missing library.

    Args:
        extra: The extra, for instance `redis`.
        who: What cannot be used without it.
        library: The module that was looked for; the extra's name unless given.
    """
    library = library or extra
    return ModuleNotFoundError(
        f"{who} needs {library}: pip install 'tta-dev-primitives[{extra}]'",
        name=library,
    )


class needs:  # noqa: N801 - reads as a statement: with needs("redis", __name__)
    """Say in one sentence what to install if an import inside the block fails.

    A library that is there but fails to import something else is told as it is.

    Args:
        extra: The extra that brings the library.
        who: What cannot be used without it, usually `__name__`.
        library: The library's module; the extra's name unless given.
    """

    __slots__ = ("_extra", "_library", "_who")

    def __init__(self, extra: str, who: str, library: str | None = None) -> None:
        self._extra = extra
        self._who = who
        self._library = library or extra

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Replace the error of a library that is not there."""
        if isinstance(error, ModuleNotFoundError):
            name = (error.name or "").partition(".")[0]
            if name == self._library.partition(".")[0]:
                raise missing(self._extra, self._who, self._library) from None
