"""Keys of the user and signatures in registries: shared parts of the trust commands.

The client reads private keys and never sends them. The engine gets the signature only.
"""

from __future__ import annotations

import os
import sys

from jaula.cli import site_packages
from jaula.cli.cli_errors import CliError, EngineError
from jaula.cli.client.api_client import Client, quote
from jaula.cli.images import registry_auth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jaula.features.trust.signature import Signature
    from jaula.features.trust.signing_keys import PrivateKey, PublicKey

PASSWORD = "COSIGN_PASSWORD"
"""The environment variable of the key's password, the same as cosign's."""

NOT_FOUND = 404
_LIMIT = 1 << 16  # bytes of a key file


def enable() -> None:
    """Load the packages that signatures need.

    :raises CliError: when they are not installed.
    """
    site_packages.enable()
    from jaula.errors import Unavailable
    from jaula.features.trust import signing_keys

    try:
        signing_keys.require_cryptography()
    except Unavailable as error:
        raise CliError(f"jaula: {error}") from None


def private_key(path: str) -> PrivateKey:
    """Return the private key in a file; prompt for its password if it is encrypted.

    :raises CliError: when the file or the password is invalid.
    """
    from jaula.errors import InvalidRequest
    from jaula.features.trust import key_file

    pem = _read_file(path)
    password = read_password(f"Password of {path}: ") if key_file.is_encrypted(pem) else b""
    try:
        return key_file.read(pem, password, path)
    except InvalidRequest as error:
        raise CliError(f"jaula: {error}") from None


def public_key(path: str) -> PublicKey:
    """Return the public key in a file.

    :raises CliError: when the file is invalid.
    """
    from jaula.errors import InvalidRequest
    from jaula.features.trust import signing_keys

    try:
        return signing_keys.public_key(_read_file(path), path)
    except InvalidRequest as error:
        raise CliError(f"jaula: {error}") from None


def read_password(prompt: str, *, twice: bool = False) -> bytes:
    """Return ``$COSIGN_PASSWORD``, or prompt for the password.

    :raises CliError: when there is no terminal, or the passwords differ.
    """
    variable = os.environ.get(PASSWORD)
    if variable is not None:
        return os.fsencode(variable)
    if not sys.stdin.isatty():
        raise CliError(f"jaula: the key has a password: set {PASSWORD}, or use a terminal")
    from getpass import getpass

    password = getpass(prompt)
    if twice and getpass("Repeat the password: ") != password:
        raise CliError("jaula: the two passwords differ")
    return password.encode()


def fetch_signatures(client: Client, name: str) -> tuple[dict[str, Any], list[Signature]]:
    """Return the descriptor of a reference at its registry and its unverified signatures."""
    from base64 import b64decode

    from jaula.features.trust.signature import Signature

    document = client.document("GET", signatures_path(name), (), None, registry_auth.headers(name))
    return document["Descriptor"], [
        Signature(b64decode(s["Payload"]), b64decode(s["Signature"]))
        for s in document["Signatures"]
    ]


def signatures_path(name: str) -> str:
    """Return the API path of an image's signatures."""
    return f"/jaula/signatures/{quote(name, '/:@')}"


def check_local(client: Client, name: str, repository: str, digest: str) -> None:
    """Refuse to sign an image that differs from the local image of that name.

    Another user may have pushed to the name meanwhile.

    :raises CliError: when the digests differ.
    """
    try:
        digests = client.get(f"/images/{quote(name, '/:@')}/json").get("RepoDigests") or ()
    except EngineError as error:
        if error.code != NOT_FOUND:
            raise
        return
    local = [text.partition("@")[2] for text in digests if text.partition("@")[0] == repository]
    if local and digest not in local:
        raise CliError(
            f"jaula: {name} is {digest} at the registry, but {local[-1]} in the engine: push or "
            f"pull it first, or sign {repository}@{digest} explicitly"
        )


def _read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_LIMIT)
    except OSError as error:
        raise CliError(f"jaula: cannot read {path}: {(error.strerror or '').lower()}") from None
