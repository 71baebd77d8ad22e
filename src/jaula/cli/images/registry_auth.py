"""Credentials for the engine: what this person's files have for a registry, for one request."""

from __future__ import annotations

from jaula.cli.errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jaula.images.registry.auth.credentials import CredentialFile, Login
    from jaula.images.registry.auth.keyring import Keyring

HUB = "docker.io"
HUB_KEY = "https://index.docker.io/v1/"
_HUB_NAMES = ("", HUB, "index.docker.io", "registry-1.docker.io")


def domain(image: str) -> str:
    """The registry of an image's name."""
    first, slash, _ = image.partition("/")
    named = slash and ("." in first or ":" in first or first == "localhost")
    return HUB if not named or first in _HUB_NAMES else first


def key(server: str) -> str:
    """Under which name credentials are kept: a host, or Docker Hub's old address."""
    name = server.partition("://")[2] if "://" in server else server
    name = name.partition("/")[0]
    return HUB_KEY if name in _HUB_NAMES else name


def file() -> CredentialFile:
    """The file of this person."""
    from jaula.images.registry.auth.authfile import auth_file_path
    from jaula.images.registry.auth.credentials import CredentialFile

    def keyring(path: str) -> Keyring | None:
        from jaula.images.registry.auth.keyring import available

        return available(path)

    return CredentialFile(auth_file_path(), keyring)


def found(server: str) -> Login:
    """What is kept for a registry. Raises Failure where it cannot be read."""
    from jaula.errors import JaulaError

    try:
        return file().find(key(server))
    except JaulaError as error:
        raise CliError(str(error)) from None


def document(server: str, login: Login) -> dict[str, Any]:
    """The API's AuthConfig."""
    made = {"serveraddress": key(server)}
    if login.identity_token:
        return made | {"identitytoken": login.identity_token}
    return made | {"username": login.user, "password": login.password}


def headers(image: str) -> tuple[tuple[str, str], ...]:
    """``X-Registry-Auth`` for requests about ``image``; nothing where nothing is kept."""
    return headers_for(domain(image))


def headers_for(server: str) -> tuple[tuple[str, str], ...]:
    """The same, for a registry's name."""
    from os import path

    from jaula.images.registry.auth.authfile import auth_file_path

    if not path.exists(auth_file_path()):
        return ()
    login = found(server)
    if not login.known:
        return ()
    from base64 import urlsafe_b64encode

    from jaula.spec.fast_json import encode

    text = encode(document(server, login)).encode()
    return (("X-Registry-Auth", urlsafe_b64encode(text).decode()),)
