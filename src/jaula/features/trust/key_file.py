"""Private key files, as cosign and skopeo write and read them.

Source: sigstore's ``specifications.md``: a PEM block whose content is a JSON document with the PKCS
#8 form of the key in a NaCl secretbox. The key of the box is derived from the password with scrypt.
Plain and encrypted PKCS #8 files, as openssl writes them, are read as well.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os

import msgspec

from jaula.errors import InvalidRequest
from jaula.features.trust import secretbox, signing_keys
from jaula.features.trust.signing_keys import PrivateKey

LABEL = "ENCRYPTED SIGSTORE PRIVATE KEY"
_LABELS = (LABEL, "ENCRYPTED COSIGN PRIVATE KEY")
_COST, _BLOCK, _LANES = 65536, 8, 1  # cosign's values
_MEMORY = 512 << 20  # bytes; limit of the memory that a file may require: 128 * N * r
_SALT = 32  # bytes


class _Params(msgspec.Struct, frozen=True):
    N: int
    r: int
    p: int


class _Kdf(msgspec.Struct, frozen=True):
    params: _Params
    salt: bytes
    name: str = "scrypt"


class _Cipher(msgspec.Struct, frozen=True):
    nonce: bytes
    name: str = "nacl/secretbox"


class _File(msgspec.Struct, frozen=True):
    kdf: _Kdf
    cipher: _Cipher
    ciphertext: bytes


def is_encrypted(pem: bytes) -> bool:
    """Return whether a password is required to read the file."""
    return b"ENCRYPTED" in pem


def write(key: PrivateKey, password: bytes) -> bytes:
    """Return the content of a key file."""
    salt, nonce = os.urandom(_SALT), os.urandom(secretbox.NONCE_SIZE)
    params = _Params(_COST, _BLOCK, _LANES)
    box = secretbox.seal(key.der, nonce, _derive_key(password, salt, params))
    document = msgspec.json.encode(_File(_Kdf(params, salt), _Cipher(nonce), box))
    return _pem_armor(document)


def read(pem: bytes, password: bytes, name: str) -> PrivateKey:
    """Return the key in a file. ``name`` names the file in errors.

    :raises InvalidRequest: if the password is wrong or the file has no supported key.
    """
    signing_keys.require_cryptography()
    for label in _LABELS:
        if f"-----BEGIN {label}-----".encode() in pem:
            return _read_own(_pem_content(pem, label, name), password, name)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        loaded = load_pem_private_key(pem, password if is_encrypted(pem) else None)
    except UnsupportedAlgorithm:
        raise InvalidRequest(f"{name} holds a key of an unknown type") from None
    except (ValueError, TypeError):
        wrong = "the password is wrong, or " if is_encrypted(pem) else ""
        raise InvalidRequest(f"{name}: {wrong}it holds no private key in PEM format") from None
    return signing_keys.private_key_of(loaded, name)


def _read_own(data: bytes, password: bytes, name: str) -> PrivateKey:
    try:
        file = msgspec.json.decode(data, type=_File)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{name} is damaged: {error}") from None
    if (file.kdf.name, file.cipher.name) != ("scrypt", "nacl/secretbox"):
        raise InvalidRequest(f"{name} is encrypted with an unknown cipher")
    try:
        secret = _derive_key(password, file.kdf.salt, file.kdf.params)
        der = secretbox.unseal(file.ciphertext, file.cipher.nonce, secret)
    except InvalidRequest as error:
        raise InvalidRequest(f"{name}: {error.message}") from None
    return signing_keys.private_key(der, name)


def _derive_key(password: bytes, salt: bytes, params: _Params) -> bytes:
    n, r, p = params.N, params.r, params.p
    if not (1 < n <= 1 << 24 and n & (n - 1) == 0 and 0 < r <= 64 and 0 < p <= 16):
        raise InvalidRequest("its scrypt parameters are out of range")
    if 128 * n * r > _MEMORY:
        raise InvalidRequest(f"its scrypt parameters need more than {_MEMORY} bytes of memory")
    limit = 128 * r * (n + p + 2) + (1 << 20)
    return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=limit, dklen=32)


def _pem_armor(data: bytes) -> bytes:
    text = base64.b64encode(data).decode()
    lines = [text[i : i + 64] for i in range(0, len(text), 64)]
    return "\n".join((f"-----BEGIN {LABEL}-----", *lines, f"-----END {LABEL}-----", "")).encode()


def _pem_content(pem: bytes, label: str, name: str) -> bytes:
    inner = pem.partition(f"-----BEGIN {label}-----".encode())[2]
    inner, end, _ = inner.partition(f"-----END {label}-----".encode())
    try:
        return base64.b64decode(b"".join(inner.split()), validate=True) if end else b""
    except binascii.Error:
        raise InvalidRequest(f"{name} is damaged: its content is not base 64") from None
