"""Processes that are scraped as one: where they keep numbers, and who is alive.

A process is alive as long as it holds the lock of its file: the kernel lets go of it
however the process ends, a fork does not inherit it, and unlike a process id it is
never given to somebody else.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Event, RLock
from typing import IO, TYPE_CHECKING, Any

from tta_primitives.chance import new_id
from tta_primitives.observability.sheets import FileSheet, kinds_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# On Windows there is none: each process has metrics of its own.
fcntl: Any = import_module("fcntl") if find_spec("fcntl") else None

__all__ = ["Group", "Lock", "can_share", "private_directory"]

# How long to wait for a process that is just cleaning up.
_TRIES = 50
_PAUSE = 0.01


def can_share() -> bool:
    """Tell whether processes can be told apart on this platform."""
    return fcntl is not None


def private_directory(name: str) -> Path:
    """Return a directory of this user's, the same for all processes that ask.

    Raises:
        OSError: There is none, or somebody else could write in it.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    base = Path(tempfile.gettempdir()) / f"tta-metrics-{user}"
    for path in (base, base / name):
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        found = path.lstat()
        is_open = bool(found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != user or is_open:
            msg = f"{path} is no directory that only this user can write in"
            raise PermissionError(msg)
    return base / name


class Lock:
    """A lock on a file that is let go of when the process ends.

    Args:
        path: The file; it is made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[Any] | None = None

    @property
    def is_held(self) -> bool:
        """Whether this process holds it."""
        return self._file is not None

    def take(self) -> bool:
        """Take it if nobody has it, and tell whether that worked."""
        if self._file is None:
            file = self._path.open("a+b")
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_there = os.fstat(file.fileno()).st_ino == self._path.stat().st_ino
            except OSError:
                is_there = False
            if not is_there:  # Somebody has it, or has just removed the file.
                file.close()
                return False
            self._file = file
        return True

    def release(self) -> None:
        """Let go of it; in a fork this closes the copy and releases nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Group:
    """The processes whose numbers are in one directory, and this one among them.

    Args:
        directory: Where they are.
        is_ours: Whether nobody else keeps anything there, so that what was left
            behind by processes that are gone may be removed.
    """

    def __init__(self, directory: Path, *, is_ours: bool) -> None:
        self.directory = directory
        self.is_ours = is_ours
        self._name: str | None = None
        self._life: Lock | None = None
        self._guard = Lock(directory / "tta-group.lock")
        # Closing a lock's file releases the lock for all threads of a process.
        self._lock = RLock()

    def join(self, bounds: Sequence[float]) -> FileSheet:
        """Become one of them, and return the sheet of this process.

        Raises:
            OSError: Nothing can be kept in the directory.
        """
        name = f"{os.getpid()}-{new_id()[:12]}"
        with self._alone():
            if self.is_ours and not any(map(self._is_alive, self._others())):
                self._empty()
            # It gets its name when it is locked: without a lock it would be dead.
            new = self.directory / f"tta-{name}.new"
            life = Lock(new)
            life.take()
            new.rename(self._life_of(name))
        self._name, self._life = name, life
        return FileSheet(self.directory, name, bounds)

    def sweep(self, sheet: FileSheet) -> None:
        """Remove what dead processes left; their counts become those of this one."""
        with self._alone() as is_alone:
            for name in self._others() if is_alone else ():
                if not self._is_alive(name):
                    self._inherit(name, sheet)

    def leave(self) -> None:
        """Be no more one of them; the last one removes what is theirs alone."""
        with self._alone():
            if self._name is not None:
                self._gauges_of(self._name).unlink(missing_ok=True)
            if self._life is not None:
                self._life.release()
            if self.is_ours and not any(map(self._is_alive, self._others())):
                self._empty()
                (self.directory / "tta-group.lock").unlink(missing_ok=True)
                with suppress(OSError):
                    self.directory.rmdir()
        self._name = self._life = None

    def forked(self) -> None:
        """Forget, in a child, what the parent is."""
        for lock in (self._guard, self._life):
            if lock is not None:
                lock.release()
        self._name = self._life = None
        self._lock = RLock()

    def files(self) -> list[str]:
        """Return all files with numbers, those of others than ours too."""
        return sorted(map(str, self.directory.glob("*.db")))

    def own_files(self) -> list[str]:
        """Return the files with numbers of our processes."""
        return sorted(map(str, self.directory.glob("*_tta-*.db")))

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Keep other processes out; tell whether that worked in time."""
        with self._lock:
            pause = Event()
            for _ in range(_TRIES):
                # The last one to leave may just have removed it.
                self.directory.mkdir(0o700, parents=True, exist_ok=True)
                with suppress(FileNotFoundError):
                    if self._guard.take():
                        break
                pause.wait(_PAUSE)
            try:
                yield self._guard.is_held
            finally:
                self._guard.release()

    def _others(self) -> list[str]:
        names = [
            path.stem.removeprefix("tta-")
            for path in self.directory.glob("tta-*-*.lock")
        ]
        return [name for name in names if name != self._name]

    def _life_of(self, name: str) -> Path:
        return self.directory / f"tta-{name}.lock"

    def _is_alive(self, name: str) -> bool:
        try:
            with self._life_of(name).open("r+b") as file:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def _gauges_of(self, name: str) -> Path:
        return self.directory / f"{kinds_of['gauge']}_tta-{name}.db"

    def _inherit(self, name: str, sheet: FileSheet) -> None:
        self._gauges_of(name).unlink(missing_ok=True)
        for kind in ("counter", "histogram"):
            path = self.directory / f"{kinds_of[kind]}_tta-{name}.db"
            gone = path.with_suffix(".gone")
            with suppress(FileNotFoundError):
                # Counted at most once, also if this process dies in the middle.
                path.rename(gone)
                sheet.inherit(kind, gone)
                gone.unlink()
        self._life_of(name).unlink(missing_ok=True)

    def _empty(self) -> None:
        for pattern in ("*.db", "*.new", "*.gone", "tta-*-*.lock", "tta-server.lock"):
            for path in self.directory.glob(pattern):
                path.unlink(missing_ok=True)
