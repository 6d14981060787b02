"""Secrets that are encrypted where they are kept: API keys in a database or a file.

`python -m tta_primitives.integrations.crypto` makes a key.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import os
import stat
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from tta_primitives.arguments import seconds
from tta_primitives.errors import PrimitiveError
from tta_primitives.extras import needs

with needs("crypto", __name__, "cryptography"):
    from cryptography.fernet import Fernet, InvalidToken, MultiFernet

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import timedelta

__all__ = [
    "CorruptTokenError",
    "DecryptionError",
    "ExpiredTokenError",
    "KeyRing",
    "KeyRingError",
    "WrongKeyError",
    "generate_key",
    "write_key_file",
]

VARIABLE: Final = "TTA_ENCRYPTION_KEYS"

# The format of a Fernet token: a version, the time, an IV, blocks of AES, a signature.
_VERSION: Final = 0x80
_HEAD: Final = 1 + 8 + 16
_SIGNATURE: Final = 32
_BLOCK: Final = 16
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class KeyRingError(PrimitiveError, ValueError):
    """There are no keys, or what should be a key is none."""


class DecryptionError(PrimitiveError, ValueError):
    """What was encrypted cannot be read."""

    retryable: bool = False


class CorruptTokenError(DecryptionError):
    """It is nothing that was encrypted here: cut, changed, or something else."""


class WrongKeyError(DecryptionError):
    """It was encrypted with a key that is not on the ring, or changed since."""


class ExpiredTokenError(DecryptionError):
    """It was encrypted longer ago than it may be."""


class KeyRing:
    """Encrypts with the newest of its keys, and decrypts with any of them.

    To replace a key, put a new one before it: from then on everything is encrypted with
    the new one, and what was encrypted before can still be read. `rotate` encrypts a
    token anew; when all are, take the old key away.

    Args:
        keys: Of `generate_key()`, the newest first.

    Raises:
        KeyRingError: There are none, or one is no key.
    """

    __slots__ = ("_count", "_newest", "_ring")

    def __init__(self, keys: Iterable[str | bytes]) -> None:
        if isinstance(keys, (str, bytes)):
            keys = (keys,)
        found = [_fernet(key, number) for number, key in enumerate(keys, start=1)]
        if not found:
            msg = "a key ring needs at least one key: make one with generate_key()"
            raise KeyRingError(msg)
        self._count = len(found)
        self._newest = found[0]
        self._ring = MultiFernet(found)

    @classmethod
    def from_environment(cls, variable: str = VARIABLE) -> KeyRing:
        """Return the keys that stand in a variable, the newest first.

        Args:
            variable: Its name; keys are separated by commas or blanks.

        Raises:
            KeyRingError: It is not set, or what it holds is no key.
        """
        keys = os.environ.get(variable, "").replace(",", " ").split()
        if not keys:
            msg = (
                f"the environment variable {variable} is not set: put one key or more "
                "into it, the newest first; make one with "
                f"python -m {_MODULE}"
            )
            raise KeyRingError(msg)
        return cls(keys)

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], *, check_permissions: bool = True
    ) -> KeyRing:
        """Return the keys of a file, one a line, the newest first.

        Args:
            path: Of the file; empty lines and those that begin with # are left out.
            check_permissions: Whether to refuse a file that others than its owner may
                read. Secrets that Kubernetes mounts are such files; False for them.

        Raises:
            KeyRingError: It is not there, others may read it, or it holds no keys.
        """
        file = Path(path)
        try:
            with file.open(encoding="utf-8") as opened:
                if check_permissions:
                    _check_permissions(file, os.fstat(opened.fileno()).st_mode)
                lines: list[str] | None = [line.strip() for line in opened]
        except FileNotFoundError:
            msg = (
                f"the key file {str(file)!r} is not there: make one with "
                f"python -m {_MODULE} --file {file}"
            )
            raise KeyRingError(msg) from None
        except UnicodeDecodeError:
            lines = None
        if lines is None:  # Raised here: what was caught holds all that was read.
            msg = f"the key file {str(file)!r} is no text: it has one key a line"
            raise KeyRingError(msg)
        return cls([line for line in lines if line and not line.startswith("#")])

    def encrypt(self, secret: str | bytes) -> str:
        """Return a secret encrypted with the newest key, as text.

        Args:
            secret: Text or bytes. Who encrypted it and when is readable by anybody, its
                length roughly as well.

        Raises:
            TypeError: It is neither.
        """
        if not isinstance(secret, (str, bytes, bytearray)):
            msg = (
                f"a secret must be text or bytes, not {type(secret).__name__}; of a "
                "SecretStr give secret.get_secret_value()"
            )
            raise TypeError(msg)
        data = secret.encode() if isinstance(secret, str) else bytes(secret)
        return self._newest.encrypt_at_time(data, _wall_seconds()).decode()

    def decrypt(
        self, token: str | bytes, *, ttl: float | timedelta | None = None
    ) -> str:
        """Return the text that was encrypted.

        Args:
            token: What `encrypt` returned.
            ttl: Seconds since it was encrypted after which it is not taken any more;
                None for ever.

        Raises:
            CorruptTokenError: It is no token, or not all of one.
            ExpiredTokenError: It is older than `ttl`.
            WrongKeyError: None of the keys has encrypted it.
        """
        data = self.decrypt_bytes(token, ttl=ttl)
        try:
            return data.decode()
        except UnicodeDecodeError:
            msg = "what was encrypted is no text: read it with decrypt_bytes"
        raise CorruptTokenError(msg)

    def decrypt_bytes(
        self, token: str | bytes, *, ttl: float | timedelta | None = None
    ) -> bytes:
        """Return the bytes that were encrypted; otherwise as `decrypt`."""
        encrypted_at = _time_of(token)
        data = self._opened(token)
        if ttl is not None:
            _check_age(encrypted_at, seconds("ttl", ttl))
        return data

    def rotate(self, token: str | bytes) -> str:
        """Return the token encrypted anew with the newest key; its age stays.

        Raises:
            CorruptTokenError: It is no token, or not all of one.
            WrongKeyError: None of the keys has encrypted it.
        """
        encrypted_at = _time_of(token)
        return self._newest.encrypt_at_time(self._opened(token), encrypted_at).decode()

    def needs_rotation(self, token: str | bytes) -> bool:
        """Tell whether a token was encrypted with another key than the newest.

        Raises:
            CorruptTokenError: It is no token, or not all of one.
        """
        _time_of(token)
        try:
            self._newest.extract_timestamp(token)
        except InvalidToken:
            return True
        return False

    def _opened(self, token: str | bytes) -> bytes:
        try:
            return self._ring.decrypt(token)
        except InvalidToken:
            msg = (
                f"none of the {self._count} keys on the ring has encrypted this, or it "
                "was changed since: keep an old key behind the new one until "
                "everything is rotated"
            )
        raise WrongKeyError(msg)

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"<KeyRing keys={self._count}>"

    def __reduce__(self) -> NoReturn:
        msg = "a key ring stays in its process: load it where it is needed"
        raise TypeError(msg)


def generate_key() -> str:
    """Return a new key for a `KeyRing`, from the system's own source of randomness."""
    return Fernet.generate_key().decode()


def write_key_file(path: str | os.PathLike[str]) -> None:
    """Write a new key into a new file that only its owner may read.

    Raises:
        FileExistsError: The file is there; its keys may be all that can read something.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    handle = os.open(path, flags, stat.S_IRUSR | stat.S_IWUSR)
    with os.fdopen(handle, "w", encoding="utf-8") as opened:
        opened.write(f"{generate_key()}\n")


_MODULE: Final = "tta_primitives.integrations.crypto"


def _fernet(key: object, number: int) -> Fernet:
    """Return what encrypts with one key; it is shown by its number alone."""
    if isinstance(key, (str, bytes)):
        raw = key.strip().encode() if isinstance(key, str) else key.strip()
        try:
            # What stands behind the padding would be left out silently.
            if base64.urlsafe_b64encode(base64.urlsafe_b64decode(raw)) == raw:
                return Fernet(raw)
        except (ValueError, binascii.Error):
            pass
    msg = (
        f"key {number} on the ring is no key (32 bytes in URL-safe base64): make one "
        f"with python -m {_MODULE}"
    )
    raise KeyRingError(msg)


def _time_of(token: object) -> int:
    """Return when a token was encrypted, in seconds since 1970.

    Raises:
        CorruptTokenError: It has not the form of a token.
        TypeError: It is neither text nor bytes.
    """
    if not isinstance(token, (str, bytes)):
        msg = f"a token must be text or bytes, not {type(token).__name__}"
        raise TypeError(msg)
    try:
        data = base64.urlsafe_b64decode(token)
    except (ValueError, binascii.Error):
        data = b""
    body = len(data) - _HEAD - _SIGNATURE
    if not data or data[0] != _VERSION or body < _BLOCK or body % _BLOCK:
        msg = (
            "this is no encrypted text, or not all of it: what encrypt() returned must "
            "be kept whole (is the column of the database long enough?)"
        )
        raise CorruptTokenError(msg)
    (encrypted_at,) = struct.unpack(">Q", data[1:9])
    return int(encrypted_at)


def _check_age(encrypted_at: int, ttl: float) -> None:
    age = _wall_seconds() - encrypted_at
    if age > ttl:
        msg = f"this was encrypted {age} s ago, and may be {ttl:g} s old at most"
        raise ExpiredTokenError(msg)


def _wall_seconds() -> int:
    return int(time.time())  # noqa: TID251 - a token's date is read by other processes


def _check_permissions(file: Path, mode: int) -> None:
    if os.name == "posix" and mode & _OTHERS:
        msg = (
            f"the key file {str(file)!r} may be used by others than its owner (mode "
            f"{stat.S_IMODE(mode):04o}): chmod 600 {file}; or, if it is mounted so on "
            "purpose, check_permissions=False"
        )
        raise KeyRingError(msg)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a key, and print it or write it into a new file.

    Args:
        arguments: Of the command line; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {_MODULE}", description="Make a key for a KeyRing."
    )
    parser.add_argument("--file", help="write it here, for its owner alone")
    given: Any = parser.parse_args(arguments)
    if given.file is None:
        sys.stdout.write(f"{generate_key()}\n")
        return 0
    try:
        write_key_file(given.file)
    except OSError as error:
        sys.stderr.write(f"{given.file}: {error.strerror}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
