"""SHA-256 of documents, without OpenSSL.

``hashlib`` maps libcrypto into the process, which is 5 MB of an engine's resident memory. The
interpreter has an implementation of its own. It takes 4 microseconds for a kilobyte, where OpenSSL
takes 0.3. So large documents are hashed by OpenSSL, and so are files and streams, whose modules
import ``hashlib``.

Facts about CPython 3.12 and 3.13: ``_sha2`` does not check its three malloc(3), of less than 200
bytes together (python/cpython#131316). A process without memory gets SIGSEGV in place of
MemoryError.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import _Hash
    from hashlib import sha256 as _sha256
elif sys.version_info >= (3, 12):
    from _sha2 import sha256 as _sha256
else:
    from _sha256 import sha256 as _sha256

LARGE = 65536
"""Bytes of a document that OpenSSL hashes. Its import takes as long as a megabyte without it."""

_RESERVE = 2048
"""Bytes, more than the hash allocates. malloc(3) keeps a block of this size, once it is freed,
where it can divide it: its caches of each thread have blocks of at most 1032 bytes."""


def sha256(data: bytes = b"") -> _Hash:
    """Return the hash of ``data``, with the interface of hashlib.

    :raises MemoryError: if the process has reached its limit.
    """
    if len(data) > LARGE:
        from hashlib import sha256 as of_openssl

        return of_openssl(data)
    bytearray(_RESERVE)
    return _sha256(data)
