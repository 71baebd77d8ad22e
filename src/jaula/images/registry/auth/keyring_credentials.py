"""Credentials in the kernel's keyring: in memory that is never swapped to a file, for one user.

Source: keyrings(7), persistent-keyring(7). They last until the next boot, or until they were not
used for three days. The module uses the standard library only, since the client loads no packages.
"""

from __future__ import annotations

import errno
import json

from jaula.errors import Unavailable
from jaula.images.registry.auth.credentials import Login
from jaula.kernel import keyctl

_ABSENT = frozenset({errno.ENOKEY, errno.EKEYEXPIRED, errno.EKEYREVOKED})


class Keyring:
    """The keys that belong to one configuration file."""

    def __init__(self, path: str) -> None:
        """Open the user's keyring.

        :raises Unavailable: if the kernel gives this user no keyring.
        """
        self._path = path
        try:
            self._ring = keyctl.persistent()
        except OSError:
            self._ring = keyctl.KEY_SPEC_USER_KEYRING
        try:
            keyctl.search(self._ring, self._name("-"))
        except OSError as error:
            if error.errno not in _ABSENT:
                raise Unavailable(f"no kernel keyring: {error.strerror}") from None

    def find(self, key: str) -> Login:
        """Return the credentials for a registry, empty if there are none."""
        try:
            data = keyctl.read(keyctl.search(self._ring, self._name(key)))
            return Login(*(str(text) for text in json.loads(data)))
        except OSError as error:
            if error.errno in _ABSENT:
                return Login()
            raise Unavailable(f"cannot read the kernel keyring: {error.strerror}") from None
        except (ValueError, TypeError):
            return Login()  # another program's key

    def store(self, key: str, login: Login) -> None:
        """Store credentials.

        :raises Unavailable: if they are too large, or the user's quota is exhausted.
        """
        data = json.dumps(list(login)).encode()
        if len(data) > keyctl.PAYLOAD_LIMIT:
            raise Unavailable("the credentials are too large for the kernel keyring")
        try:
            serial = keyctl.add_key(self._name(key), data, self._ring)
            keyctl.setperm(serial, keyctl.KEY_POS_ALL | keyctl.KEY_USR_ALL)
        except OSError as error:
            raise Unavailable(f"cannot write the kernel keyring: {error.strerror}") from None

    def erase(self, key: str) -> bool:
        """Remove credentials and return whether there were any."""
        try:
            keyctl.unlink(keyctl.search(self._ring, self._name(key)), self._ring)
        except OSError as error:
            if error.errno in _ABSENT:
                return False
            raise Unavailable(f"cannot change the kernel keyring: {error.strerror}") from None
        return True

    def _name(self, key: str) -> str:
        return f"jaula:{key}:{self._path}"


def available(path: str) -> Keyring | None:
    """Return the keyring for a configuration file, or None if the kernel provides none."""
    try:
        return Keyring(path)
    except Unavailable:
        return None
