"""The cipher of private key files, in both implementations, with a vector of NaCl's own tests."""

from __future__ import annotations

import os
import sys

import pytest
from nacl import bindings

from jaula.errors import InvalidRequest
from jaula.features.trust import secretbox

# NaCl's tests/secretbox.c: key, nonce, message, and the box after its sixteen zeros.
KEY = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
NONCE = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
MESSAGE = bytes.fromhex(
    "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffc"
    "e5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f41db66cce314adb31"
    "0e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde"
    "048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f93776384864"
    "5e0705"
)
BOX = bytes.fromhex(
    "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce"
    "48332ea7164d96a4476fb8c531a1186ac0dfc17c98dce87b4da7f011ec48c972"
    "71d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae"
    "90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b3"
    "7973f622a43d14a6599b1f654cb45a74e355a5"
)


@pytest.fixture(params=["libsodium", "own"], autouse=True)
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "own":
        monkeypatch.setattr(secretbox, "_sodium", lambda: None)
    else:
        assert secretbox._sodium() is not None
    return str(request.param)


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 64, 700])
def test_both_implementations_make_the_same_box(
    size: int, implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    message, nonce, key = os.urandom(size), os.urandom(24), os.urandom(32)
    box = secretbox.seal(message, nonce, key)
    sodium = None if implementation == "libsodium" else bindings
    monkeypatch.setattr(secretbox, "_sodium", lambda: sodium)
    assert secretbox.seal(message, nonce, key) == box
    assert secretbox.unseal(box, nonce, key) == message


def test_without_pynacl_the_builtin_implementation_is_used(
    implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if implementation == "libsodium":
        monkeypatch.setitem(sys.modules, "nacl", None)
        assert secretbox._sodium() is None
        assert secretbox.unseal(BOX, NONCE, KEY) == MESSAGE


def test_a_box_is_nacls() -> None:
    assert secretbox.seal(MESSAGE, NONCE, KEY) == BOX
    assert secretbox.unseal(BOX, NONCE, KEY) == MESSAGE


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 64, 200])
def test_a_sealed_message_is_unsealed(size: int) -> None:
    message, nonce, key = os.urandom(size), os.urandom(24), os.urandom(32)
    assert secretbox.unseal(secretbox.seal(message, nonce, key), nonce, key) == message


@pytest.mark.parametrize("position", [0, 15, 16, len(BOX) - 1])
def test_a_changed_bit_is_detected(position: int) -> None:
    changed = bytearray(BOX)
    changed[position] ^= 1
    with pytest.raises(InvalidRequest, match="password is wrong, or the file is damaged"):
        secretbox.unseal(bytes(changed), NONCE, KEY)


@pytest.mark.parametrize(
    ("box", "nonce", "key"),
    [
        (b"short", NONCE, KEY),
        (bytes(secretbox.LIMIT + 1), NONCE, KEY),
        (BOX, b"short", KEY),
        (BOX, NONCE, b"short"),
    ],
)
def test_wrong_lengths_are_refused(box: bytes, nonce: bytes, key: bytes) -> None:
    with pytest.raises(InvalidRequest, match="length"):
        secretbox.unseal(box, nonce, key)
