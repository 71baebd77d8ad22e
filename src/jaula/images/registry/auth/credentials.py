"""Registry credentials on disk, in the format of Docker and podman.

Sources: docker docs, "docker login" (``auths``, ``credsStore``, ``credHelpers``), the protocol of
github.com/docker/docker-credential-helpers, containers-auth.json(5). The client reads and writes
them. The engine gets only the credentials that a request needs. The module uses the standard
library only, since the client loads no packages. Modules that start programs or generate random
names are imported when needed.

A helper is a program ``docker-credential-NAME``. It is called with ``get``, ``store`` or ``erase``
and speaks JSON. Its name has a restricted character set, so a configuration file cannot name any
other program.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from jaula.errors import InvalidRequest, JaulaError, NotFound, Unavailable

_LIMIT = 4 << 20  # bytes of a configuration file
_OUTPUT_LIMIT = 1 << 20  # bytes of a helper's output
_HELPER_TIMEOUT = 60  # seconds; a helper may prompt the user
_HELPER_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_HELPER_LENGTH = 64  # characters
TOKEN_USER = "<token>"
NOT_FOUND = "credentials not found in native keychain"
OWN_HELPER = "jaula"
"""The helper that gives other programs access to the kernel's keyring. Not called here."""


class Login(NamedTuple):
    """The stored credentials of one registry. ``repr`` hides them."""

    user: str = ""
    password: str = ""
    identity_token: str = ""

    def __repr__(self) -> str:
        return "Login(...)"

    @property
    def known(self) -> bool:
        return bool(self.user or self.identity_token)


class CredentialKeyring(Protocol):
    """The kernel keyring of one configuration file, see :mod:`.keyring`."""

    def find(self, key: str) -> Login: ...

    def store(self, key: str, login: Login) -> None: ...

    def erase(self, key: str) -> bool: ...


class CredentialFile:
    """One configuration file, the helpers that it names, and the kernel's keyring.

    ``keyring`` opens the keyring of a file. Without one, secrets that no helper stores are in the
    file.
    """

    def __init__(
        self, path: str, keyring: Callable[[str], CredentialKeyring | None] | None = None
    ) -> None:
        self.path = path
        self._open_keyring = keyring

    @property
    def _keyring(self) -> CredentialKeyring | None:
        return self._open_keyring(os.path.realpath(self.path)) if self._open_keyring else None

    def find(self, key: str) -> Login:
        """Return the credentials for a registry, empty if there are none.

        ``key`` is ``host[:port]`` or ``https://index.docker.io/v1/``.

        :raises InvalidRequest: if the file cannot be read.
        :raises JaulaError: if a helper fails.
        """
        document = self.document()
        helper = _helper_of(document, key)
        if helper:
            return _get(helper, key)
        auths = _auths(document)
        entry = auths.get(key)
        if entry is None:
            entry = next((auths[name] for name in auths if _same(name, key)), None)
        if not isinstance(entry, dict):
            return Login()
        if not entry and (keyring := self._keyring) is not None:
            return keyring.find(key)
        return _decode(entry, key)

    def store(self, key: str, login: Login, *, clear: bool = False) -> bool:
        """Store credentials and return whether they are in clear text in the file.

        ``clear`` requests that. Otherwise the first available store is used: the file's helper, the
        kernel's keyring, the file.
        """
        document = self.document()
        helper = _helper_of(document, key)
        auths = _auths(document)
        document["auths"] = auths
        if helper:
            request = {
                "ServerURL": key,
                "Username": TOKEN_USER if login.identity_token else login.user,
                "Secret": login.identity_token or login.password,
            }
            _call(helper, "store", json.dumps(request))
            auths[key] = {}  # marks that the helper has credentials, as Docker does
        elif not clear and self._store_in_keyring(key, login):
            helper, auths[key] = OWN_HELPER, {}
        else:
            pair = f"{login.user}:{'' if login.identity_token else login.password}"
            auths[key] = {"auth": b64encode(pair.encode()).decode()}
            if login.identity_token:
                auths[key]["identitytoken"] = login.identity_token
        _register_own_helper(
            document, key, registered=helper == OWN_HELPER and _is_installed(OWN_HELPER)
        )
        self.replace(document)
        return not helper

    def _store_in_keyring(self, key: str, login: Login) -> bool:
        """Store credentials in the kernel's keyring and return whether that worked."""
        keyring = self._keyring
        if keyring is None:
            return False
        try:
            keyring.store(key, login)
        except Unavailable:
            return False  # they go into the file, and the caller warns the user
        return True

    def erase(self, key: str) -> bool:
        """Remove credentials and return whether there were any."""
        document = self.document()
        helper = _helper_of(document, key)
        auths = _auths(document)
        names = [name for name in auths if name == key or _same(name, key)]
        if helper:
            try:
                _call(helper, "erase", key)
            except NotFound:
                helper = ""
        keyring = self._keyring if names and not helper else None
        for name in names:
            if keyring is not None and not auths[name]:
                keyring.erase(key)
            del auths[name]
        if names:
            _register_own_helper(document, key, registered=False)
            self.replace(document)
        return bool(names or helper)

    def document(self) -> dict[str, Any]:
        """Return the content of the file, empty if it is absent.

        :raises InvalidRequest: if it cannot be read.
        """
        try:
            with open(self.path, "rb") as file:
                data = file.read(_LIMIT + 1)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise InvalidRequest(f"cannot read {self.path}: {error.strerror}") from None
        if len(data) > _LIMIT:
            raise InvalidRequest(f"{self.path} is larger than {_LIMIT} bytes")
        try:
            document = json.loads(data) if data.strip() else {}
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"{self.path} is not a JSON document: {error}") from None
        if not isinstance(document, dict):
            raise InvalidRequest(f"{self.path} is not a JSON object")
        return document

    def replace(self, document: dict[str, Any]) -> None:
        """Replace the file atomically, readable only by its owner. A symbolic link stays one."""
        from jaula.kernel.syncfs import write_durable

        path = os.path.realpath(self.path)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        write_durable(path, json.dumps(document, indent="\t").encode())


def _auths(document: dict[str, Any]) -> dict[str, Any]:
    auths = document.get("auths")
    return auths if isinstance(auths, dict) else {}


def _same(name: str, key: str) -> bool:
    """Return whether both names mean one registry. Older files have a URL in place of a host."""
    return _host(name) == _host(key)


def _host(name: str) -> str:
    return name.partition("://")[2].partition("/")[0] if "://" in name else name.partition("/")[0]


def _decode(entry: dict[str, Any], key: str) -> Login:
    token = entry.get("identitytoken")
    user, password = entry.get("username"), entry.get("password")
    pair = entry.get("auth")
    if isinstance(pair, str) and pair:
        try:
            user, _, password = b64decode(pair, validate=True).decode().partition(":")
        except ValueError:
            raise InvalidRequest(f"the stored credentials for {key} cannot be read") from None
        password = password.strip("\0")
    texts = [value if isinstance(value, str) else "" for value in (user, password, token)]
    return Login(*texts)


def _helper_of(document: dict[str, Any], key: str) -> str:
    """Return the helper of a registry: its own or the default one, empty if there is none."""
    helpers = document.get("credHelpers")
    name = helpers.get(_host(key)) or helpers.get(key) if isinstance(helpers, dict) else None
    if name is None:
        name = document.get("credsStore")
    if not name or name == OWN_HELPER:
        return ""
    if not isinstance(name, str) or not _is_helper(name):
        raise InvalidRequest(f"{str(name)[:80]!r} is not a valid name of a credential helper")
    return name


def _is_helper(name: str) -> bool:
    return (
        len(name) <= _HELPER_LENGTH and name[0] not in "._-" and _HELPER_CHARACTERS.issuperset(name)
    )


def _register_own_helper(document: dict[str, Any], key: str, *, registered: bool) -> None:
    """Register or remove our helper for a registry.

    Other programs use the kernel's keyring through it.
    """
    helpers = document.get("credHelpers")
    if registered:
        document["credHelpers"] = {
            **(helpers if isinstance(helpers, dict) else {}),
            _host(key): OWN_HELPER,
        }
    elif isinstance(helpers, dict) and helpers.get(_host(key)) == OWN_HELPER:
        del helpers[_host(key)]
        if not helpers:
            del document["credHelpers"]


def _is_installed(helper: str) -> bool:
    import shutil

    return shutil.which(f"docker-credential-{helper}") is not None


def _get(helper: str, key: str) -> Login:
    try:
        output = _call(helper, "get", key)
    except NotFound:
        return Login()
    try:
        document = json.loads(output)
        user, secret = document["Username"], document["Secret"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise JaulaError(f"docker-credential-{helper} did not return credentials") from None
    if not isinstance(user, str) or not isinstance(secret, str):
        raise JaulaError(f"docker-credential-{helper} did not return credentials")
    if user == TOKEN_USER:
        return Login(identity_token=secret)
    return Login(user, secret)


def _call(helper: str, verb: str, request: str) -> str:
    import shutil
    import subprocess

    program = f"docker-credential-{helper}"
    path = shutil.which(program)
    if path is None:
        raise JaulaError(
            f"error getting credentials - err: {program} is not in the path",
            hint="install it, or remove it from the configuration file",
        )
    try:
        result = subprocess.run(
            [path, verb],
            input=request.encode(),
            capture_output=True,
            timeout=_HELPER_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise JaulaError(f"error getting credentials - err: {program}: {error}") from None
    output = result.stdout[:_OUTPUT_LIMIT].decode("utf-8", "replace").strip()
    if result.returncode:
        if output == NOT_FOUND:
            raise NotFound(output)
        raise JaulaError(
            f"error getting credentials - err: exit status {result.returncode}, "
            f"out: `{output[:300]}`"
        )
    return output
