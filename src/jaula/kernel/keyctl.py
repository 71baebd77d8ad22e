"""Kernel keyrings: keyctl(2), add_key(2), keyrings(7)."""

from __future__ import annotations

import ctypes

from jaula.kernel.libc import MACHINE, syscall

NR_add_key = {"x86_64": 248, "aarch64": 217}.get(MACHINE, 248)
NR_keyctl = {"x86_64": 250, "aarch64": 219}.get(MACHINE, 250)

KEYCTL_JOIN_SESSION_KEYRING = 1
KEYCTL_SETPERM = 5
KEYCTL_UNLINK = 9
KEYCTL_SEARCH = 10
KEYCTL_READ = 11
KEYCTL_GET_PERSISTENT = 22

KEY_SPEC_PROCESS_KEYRING = -2
KEY_SPEC_USER_KEYRING = -4
KEY_POS_ALL = 0x3F000000
KEY_USR_ALL = 0x003F0000
PAYLOAD_LIMIT = 32767
"""Maximum payload of a key of type ``user``, in bytes."""

_add_key = syscall(
    "add_key",
    NR_add_key,
    *(ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int),
)
_join = syscall("keyctl", NR_keyctl, ctypes.c_int, ctypes.c_char_p)
_numbers = syscall("keyctl", NR_keyctl, ctypes.c_int, ctypes.c_long, ctypes.c_long)
_search = syscall(
    "keyctl", NR_keyctl, ctypes.c_int, ctypes.c_long, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int
)
_read = syscall("keyctl", NR_keyctl, ctypes.c_int, ctypes.c_long, ctypes.c_void_p, ctypes.c_size_t)


def join_new_session() -> None:
    """Join a new, empty session keyring, so that possession does not give access to the host's.

    A kernel without keyrings (ENOSYS) or a user over the key quota (EDQUOT) is not an error: the
    process inherits nothing that it did not have before.
    """
    try:
        _join(KEYCTL_JOIN_SESSION_KEYRING, None)
    except OSError as error:
        if error.errno not in (38, 122):
            raise


def add_key(description: str, payload: bytes, keyring: int) -> int:
    """Add or replace the key of type ``user`` with this description; return its serial number."""
    # Passed by address: an error would include an argument of type bytes in its text.
    buffer = ctypes.create_string_buffer(payload, len(payload))
    return _add_key(b"user", description.encode(), ctypes.addressof(buffer), len(payload), keyring)


def setperm(key: int, permissions: int) -> None:
    """Set the permissions of a key: keyctl(2), ``KEYCTL_SETPERM``."""
    _numbers(KEYCTL_SETPERM, key, permissions)


def search(keyring: int, description: str) -> int:
    """Return the serial number of a key of type ``user``.

    :raises OSError: ENOKEY when the keyring has no such key.
    """
    return _search(KEYCTL_SEARCH, keyring, b"user", description.encode(), 0)


def read(key: int) -> bytes:
    """Return the payload of a key."""
    buffer = ctypes.create_string_buffer(PAYLOAD_LIMIT)
    size = _read(KEYCTL_READ, key, ctypes.addressof(buffer), PAYLOAD_LIMIT)
    return buffer.raw[: min(size, PAYLOAD_LIMIT)]


def unlink(key: int, keyring: int) -> None:
    """Remove a key from a keyring; the kernel frees a key without links."""
    _numbers(KEYCTL_UNLINK, key, keyring)


def persistent() -> int:
    """Return the user's persistent keyring, linked to the process keyring so that it can be used.

    It outlives logins and expires three days after its last use
    (``/proc/sys/kernel/keys/persistent_keyring_expiry``).

    :raises OSError: EOPNOTSUPP when the kernel has no persistent keyrings.
    """
    return _numbers(KEYCTL_GET_PERSISTENT, -1, KEY_SPEC_PROCESS_KEYRING)
