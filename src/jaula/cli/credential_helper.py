"""``docker-credential-jaula``: the credentials of ``jaula login`` for docker, podman and others.

Source: the protocol of github.com/docker/docker-credential-helpers. The argument is ``get``,
``store``, ``erase`` or ``list``, the input comes on standard input, the answer is JSON. An error is
text on standard output and exit status 1.
"""

from __future__ import annotations

import json
import os
import sys

from jaula.cli.images.registry_auth import key as key_of
from jaula.errors import JaulaError, NotFound
from jaula.images.registry.auth.authfile import auth_file_path
from jaula.images.registry.auth.credentials import NOT_FOUND, TOKEN_USER, Login
from jaula.images.registry.auth.keyring_credentials import Keyring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LIMIT = 1 << 16  # bytes of the input


def main() -> int:
    """Run one action and return the exit status."""
    verb = VERBS.get(sys.argv[1]) if len(sys.argv) == 2 else None
    if verb is None:
        sys.stderr.write(f"Usage: docker-credential-jaula {'|'.join(VERBS)}\n")
        return 1
    request = sys.stdin.buffer.read(_LIMIT).decode("utf-8", "replace").strip()
    try:
        print(verb(Keyring(os.path.realpath(auth_file_path())), request), end="")
    except JaulaError as error:
        print(error.message)
    except (ValueError, KeyError, TypeError):
        print("the request is invalid")
    else:
        return 0
    return 1


def _get(keyring: Keyring, server: str) -> str:
    login = keyring.find(key_of(server))
    if not login.known:
        raise NotFound(NOT_FOUND)
    user = TOKEN_USER if login.identity_token else login.user
    secret = login.identity_token or login.password
    return json.dumps({"ServerURL": server, "Username": user, "Secret": secret})


def _store(keyring: Keyring, request: str) -> str:
    document = json.loads(request)
    user, secret = str(document["Username"]), str(document["Secret"])
    login = Login(identity_token=secret) if user == TOKEN_USER else Login(user, secret)
    keyring.store(key_of(str(document["ServerURL"])), login)
    return ""


def _erase(keyring: Keyring, server: str) -> str:
    keyring.erase(key_of(server))
    return ""


def _list(keyring: Keyring, request: str) -> str:
    from jaula.images.registry.auth.credentials import CredentialFile

    auths = CredentialFile(auth_file_path()).document().get("auths") or {}
    logins = {name: keyring.find(key_of(name)) for name, entry in auths.items() if not entry}
    return json.dumps({name: login.user or TOKEN_USER for name, login in logins.items()
                       if login.known})  # fmt: skip


VERBS: dict[str, Callable[[Keyring, str], str]] = {
    "get": _get,
    "store": _store,
    "erase": _erase,
    "list": _list,
}

if __name__ == "__main__":
    sys.exit(main())
