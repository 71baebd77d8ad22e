"""Sealed data: it opens only with its key and its context."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import CorruptState
from jaula.features.secrets.encryption import SecretEncryption


def test_sealed_data_is_opened_by_the_next_engine(tmp_path: Path) -> None:
    sealed = SecretEncryption(tmp_path).seal(b"hunter2", "secret x")
    assert b"hunter2" not in sealed
    assert SecretEncryption(tmp_path).open(sealed, "secret x") == b"hunter2"
    assert SecretEncryption(tmp_path).seal(b"hunter2", "secret x") != sealed


def test_only_the_owner_can_read_the_key(tmp_path: Path) -> None:
    os.umask(0o022)
    SecretEncryption(tmp_path).seal(b"", "x")
    key = tmp_path / "secrets.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert len(key.read_bytes()) == 32
    assert [path.name for path in tmp_path.iterdir()] == ["secrets.key"]


def test_sealed_data_is_bound_to_its_context(tmp_path: Path) -> None:
    vault = SecretEncryption(tmp_path)
    sealed = vault.seal(b"hunter2", "secret x")
    with pytest.raises(CorruptState, match="secret y cannot be decrypted"):
        vault.open(sealed, "secret y")


@given(place=st.integers(0, 34), bit=st.integers(0, 7))
def test_any_changed_bit_is_detected(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    vault = SecretEncryption(tmp_path_factory.mktemp("vault"))
    sealed = bytearray(vault.seal(b"hunter2", "x"))
    sealed[place] ^= 1 << bit
    with pytest.raises(CorruptState):
        vault.open(bytes(sealed), "x")


@pytest.mark.parametrize("sealed", [b"", b"x", b"x" * 12, b"x" * 27])
def test_truncated_data_is_refused(tmp_path: Path, sealed: bytes) -> None:
    vault = SecretEncryption(tmp_path)
    vault.seal(b"", "x")
    with pytest.raises(CorruptState):
        vault.open(sealed, "x")


def test_a_missing_readable_or_different_key_is_reported(tmp_path: Path) -> None:
    vault, key = SecretEncryption(tmp_path), tmp_path / "secrets.key"
    sealed = vault.seal(b"hunter2", "x")
    whole = key.read_bytes()
    key.chmod(0o640)
    with pytest.raises(CorruptState, match="readable by other users"):
        vault.open(sealed, "x")
    key.chmod(0o600)
    key.write_bytes(whole[:-1])
    with pytest.raises(CorruptState, match="does not have 32 bytes"):
        vault.open(sealed, "x")
    key.write_bytes(bytes(32))
    with pytest.raises(CorruptState, match="has changed since"):
        vault.open(sealed, "x")
    key.unlink()
    with pytest.raises(CorruptState, match="is missing"):
        vault.open(sealed, "x")
    key.symlink_to("/dev/zero")
    with pytest.raises(CorruptState, match=r"secrets\.key"):
        vault.seal(b"", "x")
