"""Credentials in the kernel's keyring: in memory that is not swapped to a file, for one user.

Source: keyrings(7), persistent-keyring(7). They are there until the machine is started anew, or
until nobody used them for three days. Standard library only, since the client loads no packages.
"""

from __future__ import annotations

import errno
import json

from jaula.errors import Unavailable
from jaula.kernel import keyring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.images.registry.auth.credentials import Login

_ABSENT = frozenset({errno.ENOKEY, errno.EKEYEXPIRED, errno.EKEYREVOKED})


class Keyring:
    """The keys that belong to one configuration file."""

    def __init__(self, path: str) -> None:
        """Raises :class:`Unavailable` where the kernel gives this user no keyring."""
        self._path = path
        try:
            self._ring = keyring.persistent()
        except OSError:
            self._ring = keyring.KEY_SPEC_USER_KEYRING
        try:
            keyring.search(self._ring, self._name("-"))
        except OSError as error:
            if error.errno not in _ABSENT:
                raise Unavailable(f"no kernel keyring: {error.strerror}") from None

    def find(self, key: str) -> Login:
        """What is kept for a registry; empty where nothing is."""
        from jaula.images.registry.auth.credentials import Login

        try:
            data = keyring.read(keyring.search(self._ring, self._name(key)))
            return Login(*(str(text) for text in json.loads(data)))
        except OSError as error:
            if error.errno in _ABSENT:
                return Login()
            raise Unavailable(f"cannot read the kernel keyring: {error.strerror}") from None
        except (ValueError, TypeError):
            return Login()  # not one of ours

    def store(self, key: str, login: Login) -> None:
        """Keep credentials. Raises :class:`Unavailable`: too large, or the user's quota is full."""
        data = json.dumps(list(login)).encode()
        if len(data) > keyring.PAYLOAD_LIMIT:
            raise Unavailable("the credentials are too large for the kernel keyring")
        try:
            serial = keyring.add_key(self._name(key), data, self._ring)
            keyring.setperm(serial, keyring.KEY_POS_ALL | keyring.KEY_USR_ALL)
        except OSError as error:
            raise Unavailable(f"cannot write the kernel keyring: {error.strerror}") from None

    def erase(self, key: str) -> bool:
        """Forget them; whether there were any."""
        try:
            keyring.unlink(keyring.search(self._ring, self._name(key)), self._ring)
        except OSError as error:
            if error.errno in _ABSENT:
                return False
            raise Unavailable(f"cannot change the kernel keyring: {error.strerror}") from None
        return True

    def _name(self, key: str) -> str:
        return f"jaula:{key}:{self._path}"


def available(path: str) -> Keyring | None:
    """The keyring for a configuration file; None where the kernel gives none."""
    try:
        return Keyring(path)
    except Unavailable:
        return None
