"""Kernel keyrings: keyctl(2)."""

from __future__ import annotations

import ctypes

from jaula.kernel.libc import MACHINE, syscall

NR_keyctl = {"x86_64": 250, "aarch64": 219}.get(MACHINE, 250)
KEYCTL_JOIN_SESSION_KEYRING = 1

_keyctl = syscall("keyctl", NR_keyctl, ctypes.c_int, ctypes.c_char_p)


def join_new_session() -> None:
    """A new, empty session keyring, so that the host's cannot be read through possession.

    A kernel without keyrings (ENOSYS), or a user over the key quota (EDQUOT), leaves nothing to
    inherit that is worse than before and is not an error.
    """
    try:
        _keyctl(KEYCTL_JOIN_SESSION_KEYRING, None)
    except OSError as error:
        if error.errno not in (38, 122):
            raise
