"""Registry credentials for the engine: from the user's files, for one request."""

from __future__ import annotations

from jaula.cli.cli_errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jaula.images.registry.auth.credentials import CredentialFile, Login
    from jaula.images.registry.auth.keyring_credentials import Keyring

HUB = "docker.io"
HUB_KEY = "https://index.docker.io/v1/"
_HUB_NAMES = ("", HUB, "index.docker.io", "registry-1.docker.io")


def domain(image: str) -> str:
    """Return the registry of an image reference."""
    first, slash, _ = image.partition("/")
    has_domain = slash and ("." in first or ":" in first or first == "localhost")
    return HUB if not has_domain or first in _HUB_NAMES else first


def key(server: str) -> str:
    """Return the key of stored credentials: a host, or Docker Hub's old URL."""
    name = server.partition("://")[2] if "://" in server else server
    name = name.partition("/")[0]
    return HUB_KEY if name in _HUB_NAMES else name


def credential_file() -> CredentialFile:
    """Return the user's credential file."""
    from jaula.images.registry.auth.authfile import auth_file_path
    from jaula.images.registry.auth.credentials import CredentialFile

    def keyring(path: str) -> Keyring | None:
        from jaula.images.registry.auth.keyring_credentials import available

        return available(path)

    return CredentialFile(auth_file_path(), keyring)


def stored_login(server: str) -> Login:
    """Return the stored credentials of a registry.

    :raises CliError: when they cannot be read.
    """
    from jaula.errors import JaulaError

    try:
        return credential_file().find(key(server))
    except JaulaError as error:
        raise CliError(str(error)) from None


def auth_config(server: str, login: Login) -> dict[str, Any]:
    """Return the API's AuthConfig."""
    config = {"serveraddress": key(server)}
    if login.identity_token:
        return config | {"identitytoken": login.identity_token}
    return config | {"username": login.user, "password": login.password}


def headers(image: str) -> tuple[tuple[str, str], ...]:
    """Return ``X-Registry-Auth`` for requests about ``image``; empty without stored credentials."""
    return headers_for(domain(image))


def headers_for(server: str) -> tuple[tuple[str, str], ...]:
    """Return ``X-Registry-Auth`` for a registry; empty without stored credentials."""
    from os import path

    from jaula.images.registry.auth.authfile import auth_file_path

    if not path.exists(auth_file_path()):
        return ()
    login = stored_login(server)
    if not login.known:
        return ()
    from base64 import urlsafe_b64encode

    from jaula.spec.fast_json import encode

    text = encode(auth_config(server, login)).encode()
    return (("X-Registry-Auth", urlsafe_b64encode(text).decode()),)
