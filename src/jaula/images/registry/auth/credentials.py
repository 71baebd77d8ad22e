"""Credentials of registries as Docker and podman keep them on disk.

Sources: docker docs, "docker login" (``auths``, ``credsStore``, ``credHelpers``), the protocol of
github.com/docker/docker-credential-helpers, containers-auth.json(5). The client reads and writes
them; the engine is only told what it needs for one request. Standard library only, since the
client loads no packages, and what starts programs or makes random names when it is needed.

A helper is a program ``docker-credential-NAME`` that is given ``get``, ``store`` or ``erase``, and
speaks JSON. Its name is a plain word, so a configuration file cannot name any other program.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from jaula.errors import InvalidRequest, JaulaError, NotFound, Unavailable

if TYPE_CHECKING:
    from jaula.images.registry.auth.keyring import Keyring

_LIMIT = 4 << 20  # bytes of a configuration file
_ANSWER_LIMIT = 1 << 20  # bytes of a helper's answer
_PATIENCE = 60  # seconds that a helper may take: it may ask a person
_HELPER = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_HELPER_LENGTH = 64
TOKEN_USER = "<token>"
NOT_FOUND = "credentials not found in native keychain"
OWN_HELPER = "jaula"
"""The helper that gives other programs what the kernel's keyring has; we need no program for it."""


class Login(NamedTuple):
    """What is kept for one registry. Never shown."""

    user: str = ""
    password: str = ""
    identity_token: str = ""

    def __repr__(self) -> str:
        return "Login(...)"

    @property
    def known(self) -> bool:
        return bool(self.user or self.identity_token)


class CredentialFile:
    """One configuration file, the helpers that it names, and the kernel's keyring.

    ``keyring`` gives the one that belongs to a file; without it, or where the kernel has none,
    secrets that no helper takes are in the file.
    """

    def __init__(self, path: str, keyring: Callable[[str], Keyring | None] | None = None) -> None:
        self.path = path
        self._open_keyring = keyring

    @property
    def _keyring(self) -> Keyring | None:
        return self._open_keyring(os.path.realpath(self.path)) if self._open_keyring else None

    def find(self, key: str) -> Login:
        """The credentials for a registry; empty where there are none.

        ``key`` is ``host[:port]``, or ``https://index.docker.io/v1/``. Raises
        :class:`InvalidRequest` for a file that cannot be read, :class:`JaulaError` for a helper
        that fails.
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
        return _decoded(entry, key)

    def store(self, key: str, login: Login, *, clear: bool = False) -> bool:
        """Keep credentials; whether they are in clear in the file, as ``clear`` wants them.

        The first of these takes them: the file's helper, the kernel's keyring, the file.
        """
        document = self.document()
        helper = _helper_of(document, key)
        auths = _auths(document)
        document["auths"] = auths
        if helper:
            document_of = {
                "ServerURL": key,
                "Username": TOKEN_USER if login.identity_token else login.user,
                "Secret": login.identity_token or login.password,
            }
            _call(helper, "store", json.dumps(document_of))
            auths[key] = {}  # that there is something, as Docker notes it
        elif not clear and self._keep(key, login):
            helper, auths[key] = OWN_HELPER, {}
        else:
            pair = f"{login.user}:{'' if login.identity_token else login.password}"
            auths[key] = {"auth": b64encode(pair.encode()).decode()}
            if login.identity_token:
                auths[key]["identitytoken"] = login.identity_token
        _name_own(document, key, named=helper == OWN_HELPER and _is_installed(OWN_HELPER))
        self.replace(document)
        return not helper

    def _keep(self, key: str, login: Login) -> bool:
        """Whether the kernel's keyring has taken the credentials."""
        keyring = self._keyring
        if keyring is None:
            return False
        try:
            keyring.store(key, login)
        except Unavailable:
            return False  # the file takes them, and the person is told so
        return True

    def erase(self, key: str) -> bool:
        """Forget credentials; whether there were any."""
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
            _name_own(document, key, named=False)
            self.replace(document)
        return bool(names or helper)

    def document(self) -> dict[str, Any]:
        """Everything in the file; empty where there is none. Raises :class:`InvalidRequest`."""
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
            raise InvalidRequest(f"{self.path} is no JSON document: {error}") from None
        if not isinstance(document, dict):
            raise InvalidRequest(f"{self.path} is no JSON object")
        return document

    def replace(self, document: dict[str, Any]) -> None:
        """Replace the file as a whole, readable by its owner alone; a link stays one."""
        import secrets

        path = os.path.realpath(self.path)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        temporary = f"{path}.{secrets.token_hex(6)}"
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump(document, file, indent="\t")
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


def _auths(document: dict[str, Any]) -> dict[str, Any]:
    auths = document.get("auths")
    return auths if isinstance(auths, dict) else {}


def _same(name: str, key: str) -> bool:
    """Older files have a URL where newer ones have a host."""
    return _host(name) == _host(key)


def _host(name: str) -> str:
    return name.partition("://")[2].partition("/")[0] if "://" in name else name.partition("/")[0]


def _decoded(entry: dict[str, Any], key: str) -> Login:
    token = entry.get("identitytoken")
    user, password = entry.get("username"), entry.get("password")
    pair = entry.get("auth")
    if isinstance(pair, str) and pair:
        try:
            user, _, password = b64decode(pair, validate=True).decode().partition(":")
        except ValueError:
            raise InvalidRequest(f"the credentials kept for {key} cannot be read") from None
        password = password.strip("\0")
    texts = [value if isinstance(value, str) else "" for value in (user, password, token)]
    return Login(*texts)


def _helper_of(document: dict[str, Any], key: str) -> str:
    """The helper for a registry: its own, or the one for all; empty without one."""
    helpers = document.get("credHelpers")
    name = helpers.get(_host(key)) or helpers.get(key) if isinstance(helpers, dict) else None
    if name is None:
        name = document.get("credsStore")
    if not name or name == OWN_HELPER:
        return ""
    if not isinstance(name, str) or not _is_helper(name):
        raise InvalidRequest(f"{str(name)[:80]!r} is no name of a credential helper")
    return name


def _is_helper(name: str) -> bool:
    return len(name) <= _HELPER_LENGTH and name[0] not in "._-" and _HELPER.issuperset(name)


def _name_own(document: dict[str, Any], key: str, *, named: bool) -> None:
    """Have other programs find what the keyring has by our own helper, or not any more."""
    helpers = document.get("credHelpers")
    if named:
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
        answer = _call(helper, "get", key)
    except NotFound:
        return Login()
    try:
        document = json.loads(answer)
        user, secret = document["Username"], document["Secret"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise JaulaError(f"docker-credential-{helper} answered with no credentials") from None
    if not isinstance(user, str) or not isinstance(secret, str):
        raise JaulaError(f"docker-credential-{helper} answered with no credentials")
    if user == TOKEN_USER:
        return Login(identity_token=secret)
    return Login(user, secret)


def _call(helper: str, verb: str, given: str) -> str:
    import shutil
    import subprocess

    program = f"docker-credential-{helper}"
    path = shutil.which(program)
    if path is None:
        raise JaulaError(
            f"error getting credentials - err: {program} is not in the path",
            hint="install it, or take it out of the configuration file",
        )
    try:
        done = subprocess.run(
            [path, verb],
            input=given.encode(),
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise JaulaError(f"error getting credentials - err: {program}: {error}") from None
    answer = done.stdout[:_ANSWER_LIMIT].decode("utf-8", "replace").strip()
    if done.returncode:
        if answer == NOT_FOUND:
            raise NotFound(answer)
        raise JaulaError(
            f"error getting credentials - err: exit status {done.returncode}, out: `{answer[:300]}`"
        )
    return answer
