"""Secrets at rest: keys, rotation, and what is said when something cannot be read."""

from __future__ import annotations

import os
import pickle
import stat
import subprocess
import sys
import traceback

import pytest
from cryptography.fernet import Fernet

from tests.repository.source import ROOT
from tta_primitives.integrations.crypto import (
    CorruptTokenError,
    DecryptionError,
    ExpiredTokenError,
    KeyRing,
    KeyRingError,
    WrongKeyError,
    generate_key,
    main,
    write_key_file,
)

SECRET = "sk-live-4242424242"


@pytest.fixture
def old() -> str:
    return generate_key()


@pytest.fixture
def new() -> str:
    return generate_key()


def test_what_is_encrypted_can_be_read(old) -> None:
    """Text and bytes come back, and the token does not hold them."""
    ring = KeyRing([old])
    token = ring.encrypt(SECRET)
    assert ring.decrypt(token) == SECRET
    assert SECRET not in token
    assert ring.decrypt_bytes(ring.encrypt(b"\xff\x00")) == b"\xff\x00"
    assert Fernet(old).decrypt(token).decode() == SECRET


def test_bytes_are_no_text(old) -> None:
    """The message says how to read them."""
    ring = KeyRing(old)
    with pytest.raises(CorruptTokenError, match="read it with decrypt_bytes"):
        ring.decrypt(ring.encrypt(b"\xff\x00"))


def test_old_tokens_are_read_and_rotated(old, new) -> None:
    """Behind a new key the old one still reads; after rotation it may go."""
    token = KeyRing([old]).encrypt(SECRET)
    ring = KeyRing([new, old])
    assert ring.needs_rotation(token)
    assert ring.decrypt(token) == SECRET
    rotated = ring.rotate(token)
    assert not ring.needs_rotation(rotated)
    assert KeyRing([new]).decrypt(rotated) == SECRET
    assert not ring.needs_rotation(ring.encrypt(SECRET))


def test_wrong_key_is_told_from_a_corrupt_token(old, new) -> None:
    """A token of another key is whole; one that was cut or replaced is not."""
    token = KeyRing([old]).encrypt(SECRET)
    with pytest.raises(WrongKeyError, match="none of the 1 keys on the ring"):
        KeyRing([new]).decrypt(token)
    for broken in (token[:40], token[:-4], "", "hello", SECRET, "é", b"\xff"):
        with pytest.raises(CorruptTokenError, match="is the column of the database"):
            KeyRing([old]).decrypt(broken)
    with pytest.raises(WrongKeyError, match="or it was changed since"):
        KeyRing([old]).rotate(f"{token[:-8]}AAAAAAA=")
    with pytest.raises(TypeError, match="must be text or bytes, not NoneType"):
        KeyRing([old]).decrypt(None)


async def test_tokens_expire_in_virtual_time(tta, old) -> None:
    """An hour passes at once; the limit itself is still good."""
    ring = KeyRing([old])
    token = ring.encrypt(SECRET)
    await tta.clock.advance(3600)
    assert ring.decrypt(token, ttl=3600) == SECRET
    rotated = ring.rotate(token)
    await tta.clock.advance(1)
    with pytest.raises(ExpiredTokenError, match="3601 s ago, and may be 3600 s old"):
        ring.decrypt(token, ttl=3600)
    with pytest.raises(ExpiredTokenError, match="3601 s ago"):
        ring.decrypt(rotated, ttl=3600)
    assert ring.decrypt(token) == SECRET


def test_expired_token_of_another_key_is_of_another_key(old, new) -> None:
    """Who made it is asked first: anybody may write a date."""
    token = KeyRing([old]).encrypt(SECRET)
    with pytest.raises(WrongKeyError, match="none of the 1 keys"):
        KeyRing([new]).decrypt(token, ttl=1)


def test_nothing_shows_a_key_or_a_secret(old, new) -> None:
    """Neither repr, nor errors, nor tracebacks."""
    ring = KeyRing([old])
    shown = [repr(ring), str(ring), f"{len(ring)}"]
    for fail in (
        lambda: KeyRing([new]).decrypt(ring.encrypt(SECRET)),
        lambda: KeyRing([old[:-3]]),
        lambda: KeyRing([f"{old}x"]),
        lambda: pickle.dumps(ring),
    ):
        with pytest.raises((DecryptionError, KeyRingError, TypeError), match="k") as e:
            fail()
        shown += [repr(e.value), *traceback.format_exception(e.value)]
    for secret in (SECRET, old, old[:-3], new):
        assert secret not in "\n".join(shown)
    assert repr(ring) == "<KeyRing keys=1>"


def test_ring_stays_in_its_process(old) -> None:
    """A key that is pickled into a queue is no secret any more."""
    with pytest.raises(TypeError, match="stays in its process"):
        pickle.dumps(KeyRing([old]))


@pytest.mark.parametrize("keys", [[], ["x"], [b"\xff"], [None]], ids=str)
def test_what_is_no_key_is_refused(keys) -> None:
    """An empty ring, and what is no key, are told apart and say what to do."""
    with pytest.raises(KeyRingError, match=r"generate_key|is no key .*make one with"):
        KeyRing(keys)


def test_keys_come_from_the_environment(monkeypatch, old, new) -> None:
    """Several are separated by commas, blanks or lines; the first is the newest."""
    monkeypatch.setenv("APP_KEYS", f"{new}, {old}\n")
    ring = KeyRing.from_environment("APP_KEYS")
    assert len(ring) == 2
    assert KeyRing([new]).decrypt(ring.encrypt(SECRET)) == SECRET
    monkeypatch.delenv("TTA_ENCRYPTION_KEYS", raising=False)
    with pytest.raises(KeyRingError, match="variable TTA_ENCRYPTION_KEYS is not set"):
        KeyRing.from_environment()


def test_keys_come_from_a_file(tmp_path, old) -> None:
    """A new key is put above the old one; comments are left out."""
    path = tmp_path / "keys"
    write_key_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text(f"# the newest first\n{path.read_text()}\n{old}\n")
    ring = KeyRing.from_file(path)
    assert len(ring) == 2
    assert ring.decrypt(KeyRing([old]).encrypt(SECRET)) == SECRET
    with pytest.raises(FileExistsError, match="keys"):
        write_key_file(path)


@pytest.mark.skipif(os.name != "posix", reason="Windows has other permissions")
def test_file_that_others_may_read_is_refused(tmp_path) -> None:
    """The message shows the mode and the command; a mount may be excused."""
    path = tmp_path / "keys"
    write_key_file(path)
    path.chmod(0o640)
    with pytest.raises(KeyRingError, match=r"\(mode 0640\): chmod 600"):
        KeyRing.from_file(path)
    assert len(KeyRing.from_file(path, check_permissions=False)) == 1


def test_missing_file_says_how_to_make_one(tmp_path) -> None:
    """The command is there to be copied."""
    with pytest.raises(KeyRingError, match=r"crypto --file .*nowhere"):
        KeyRing.from_file(tmp_path / "nowhere")


def test_command_prints_a_key() -> None:
    """It is the one line that goes into a vault."""
    done = subprocess.run(
        [sys.executable, "-m", "tta_primitives.integrations.crypto"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert len(KeyRing(done.stdout.split())) == 1


def test_command_writes_a_key_and_never_over_one(tmp_path, capsys) -> None:
    """The second time it fails, and the file is as it was."""
    path = tmp_path / "keys"
    assert main(["--file", str(path)]) == 0
    before = path.read_text()
    assert main(["--file", str(path)]) == 1
    assert path.read_text() == before
    assert "File exists" in capsys.readouterr().err


def test_a_file_that_is_no_text_shows_no_key(tmp_path) -> None:
    """What Python raises holds all that was read, and reporters show it."""
    path = tmp_path / "keys"
    key = generate_key()
    path.write_bytes(key.encode() + b"\n\xff")
    path.chmod(0o600)
    with pytest.raises(KeyRingError, match="is no text: it has one key a line") as info:
        KeyRing.from_file(path)
    error = info.value
    assert error.__context__ is error.__cause__ is None
    assert key not in repr(error)


def test_only_text_and_bytes_are_encrypted() -> None:
    """A number would become so many zero bytes, and its value would be lost."""
    ring = KeyRing([generate_key()])
    with pytest.raises(TypeError, match="a secret must be text or bytes, not int"):
        ring.encrypt(1234)
    assert ring.decrypt(ring.encrypt(bytearray(b"1234"))) == "1234"
