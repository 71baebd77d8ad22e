"""Keys of this person, and signatures that registries have: what the commands of trust share.

Private keys are read here, in the client, and go nowhere; the engine gets what was signed.
"""

from __future__ import annotations

import os
import sys

from jaula.cli import site_packages
from jaula.cli.client.client import Client, quote
from jaula.cli.errors import CliError, EngineError
from jaula.cli.images import registry_auth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jaula.images.trust.keys import PrivateKey, PublicKey
    from jaula.images.trust.signature import Signature

PASSWORD = "COSIGN_PASSWORD"
"""The variable that cosign reads as well."""

NOT_FOUND = 404
_LIMIT = 1 << 16  # bytes of a key's file


def enable() -> None:
    """Load what signatures need. Raises Failure where it is not installed."""
    site_packages.enable()
    from jaula.errors import Unavailable
    from jaula.images.trust import keys

    try:
        keys.require_cryptography()
    except Unavailable as error:
        raise CliError(f"jaula: {error}") from None


def private_key(path: str) -> PrivateKey:
    """The key in a file, its password asked for where it has one."""
    from jaula.errors import InvalidRequest
    from jaula.images.trust import key_file

    pem = _content(path)
    password = asked_password(f"Password of {path}: ") if key_file.is_encrypted(pem) else b""
    try:
        return key_file.read(pem, password, path)
    except InvalidRequest as error:
        raise CliError(f"jaula: {error}") from None


def public_key(path: str) -> PublicKey:
    """The public key in a file."""
    from jaula.errors import InvalidRequest
    from jaula.images.trust import keys

    try:
        return keys.public_key(_content(path), path)
    except InvalidRequest as error:
        raise CliError(f"jaula: {error}") from None


def asked_password(prompt: str, *, twice: bool = False) -> bytes:
    """``$COSIGN_PASSWORD``, else what the person types."""
    given = os.environ.get(PASSWORD)
    if given is not None:
        return os.fsencode(given)
    if not sys.stdin.isatty():
        raise CliError(f"jaula: the key has a password: set {PASSWORD}, or use a terminal")
    from getpass import getpass

    password = getpass(prompt)
    if twice and getpass("Once more: ") != password:
        raise CliError("jaula: the two passwords differ")
    return password.encode()


def listed(client: Client, name: str) -> tuple[dict[str, Any], list[Signature]]:
    """The descriptor that a name has at its registry, and its signatures, not verified."""
    from base64 import b64decode

    from jaula.images.trust.signature import Signature

    found = client.document("GET", place(name), (), None, registry_auth.headers(name))
    return found["Descriptor"], [
        Signature(b64decode(s["Payload"]), b64decode(s["Signature"])) for s in found["Signatures"]
    ]


def place(name: str) -> str:
    """The API's path of an image's signatures."""
    return f"/jaula/signatures/{quote(name, '/:@')}"


def check_local(client: Client, name: str, repository: str, digest: str) -> None:
    """Refuse to sign what a registry calls by a name where this engine knows it as another image.

    Somebody else may have pushed meanwhile.
    """
    try:
        known = client.get(f"/images/{quote(name, '/:@')}/json").get("RepoDigests") or ()
    except EngineError as error:
        if error.code != NOT_FOUND:
            raise
        return
    own = [text.partition("@")[2] for text in known if text.partition("@")[0] == repository]
    if own and digest not in own:
        raise CliError(
            f"jaula: {name} is {digest} at the registry, but {own[-1]} here: push or pull it "
            f"first, or sign {repository}@{digest} if that is meant"
        )


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_LIMIT)
    except OSError as error:
        raise CliError(f"jaula: cannot read {path}: {(error.strerror or '').lower()}") from None
