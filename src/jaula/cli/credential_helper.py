"""``docker-credential-jaula``: gives docker, podman and others what ``jaula login`` has kept.

Source: the protocol of github.com/docker/docker-credential-helpers: ``get``, ``store``, ``erase``
or ``list``, what it is about on standard input, the answer as JSON, an error as text and status 1.
"""

from __future__ import annotations

import json
import os
import sys

from jaula.cli.images.registry_auth import key as key_of
from jaula.errors import JaulaError, NotFound
from jaula.images.registry.auth.authfile import auth_file_path
from jaula.images.registry.auth.credentials import NOT_FOUND, TOKEN_USER, Login
from jaula.images.registry.auth.keyring import Keyring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LIMIT = 1 << 16  # bytes of what is asked


def main() -> int:
    """Do one thing; the exit status."""
    verb = VERBS.get(sys.argv[1]) if len(sys.argv) == 2 else None
    if verb is None:
        sys.stderr.write(f"Usage: docker-credential-jaula {'|'.join(VERBS)}\n")
        return 1
    given = sys.stdin.buffer.read(_LIMIT).decode("utf-8", "replace").strip()
    try:
        print(verb(Keyring(os.path.realpath(auth_file_path())), given), end="")
    except JaulaError as error:
        print(error.message)
    except (ValueError, KeyError, TypeError):
        print("the request cannot be read")
    else:
        return 0
    return 1


def _get(keyring: Keyring, given: str) -> str:
    login = keyring.find(key_of(given))
    if not login.known:
        raise NotFound(NOT_FOUND)
    user = TOKEN_USER if login.identity_token else login.user
    secret = login.identity_token or login.password
    return json.dumps({"ServerURL": given, "Username": user, "Secret": secret})


def _store(keyring: Keyring, given: str) -> str:
    document = json.loads(given)
    user, secret = str(document["Username"]), str(document["Secret"])
    login = Login(identity_token=secret) if user == TOKEN_USER else Login(user, secret)
    keyring.store(key_of(str(document["ServerURL"])), login)
    return ""


def _erase(keyring: Keyring, given: str) -> str:
    keyring.erase(key_of(given))
    return ""


def _list(keyring: Keyring, given: str) -> str:
    from jaula.images.registry.auth.credentials import CredentialFile

    auths = CredentialFile(auth_file_path()).document().get("auths") or {}
    found = {name: keyring.find(key_of(name)) for name, entry in auths.items() if not entry}
    return json.dumps({name: login.user or TOKEN_USER for name, login in found.items()
                       if login.known})  # fmt: skip


VERBS: dict[str, Callable[[Keyring, str], str]] = {
    "get": _get,
    "store": _store,
    "erase": _erase,
    "list": _list,
}

if __name__ == "__main__":
    sys.exit(main())
