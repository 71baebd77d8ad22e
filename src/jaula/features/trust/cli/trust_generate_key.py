"""``jaula trust generate-key``."""

from __future__ import annotations

import os

from jaula.cli.cli_errors import CliError
from jaula.cli.command_parser import Command, Flag, Options
from jaula.features.trust.cli import trust_keys


def run(options: Options) -> int:
    """Write a new key pair; the private key is encrypted and readable by its owner only."""
    trust_keys.enable()
    from jaula.errors import InvalidRequest
    from jaula.features.trust import key_file, signing_keys

    name = options.arguments[0]
    try:
        key = signing_keys.generate(options.text("algorithm", "ecdsa"))
    except InvalidRequest as error:
        raise CliError(f"jaula: {error}") from None
    private, public = f"{name}.key", f"{name}.pub"
    for path in (private, public):
        if os.path.lexists(path):
            raise CliError(f"jaula: {path} already exists")
    password = trust_keys.read_password(f"Password for {private}: ", twice=True)
    _write(private, key_file.write(key, password), 0o600)
    _write(public, key.public.pem, 0o644)
    print(f"Private key: {private}\nPublic key:  {public} (sha256:{key.public.fingerprint})")
    return 0


def _write(path: str, data: bytes, mode: int) -> None:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with open(os.open(path, flags, mode), "wb") as file:
            file.write(data)
    except OSError as error:
        raise CliError(f"jaula: cannot write {path}: {(error.strerror or '').lower()}") from None


COMMAND = Command(
    "[OPTIONS] NAME",
    "Generate a key pair for signing images",
    run,
    flags=(
        Flag("algorithm", "", "string", "Signature algorithm (ecdsa or ed25519)", default="ecdsa",
             completes=("ecdsa", "ed25519")),
    ),
    min_args=1,
    max_args=1,
    description=(
        "Writes NAME.key, encrypted with a password, and NAME.pub, in cosign's format. An ecdsa "
        "key is on the curve P-256. The password is prompted for, or taken from "
        "COSIGN_PASSWORD."
    ),
    examples=(("Generate a key pair", "jaula trust generate-key team"),),
    see_also=("image sign", "trust verify"),
)  # fmt: skip
