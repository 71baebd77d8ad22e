"""``jaula trust generate-key``."""

from __future__ import annotations

import os

from jaula.cli.command import Command, Flag, Options
from jaula.cli.errors import CliError
from jaula.cli.images import signing


def run(options: Options) -> int:
    """Write a new pair of keys, the private one encrypted and for its owner alone."""
    signing.enable()
    from jaula.errors import InvalidRequest
    from jaula.images.trust import key_file, keys

    name = options.arguments[0]
    try:
        key = keys.generate(options.text("algorithm", "ecdsa"))
    except InvalidRequest as error:
        raise CliError(f"jaula: {error}") from None
    private, public = f"{name}.key", f"{name}.pub"
    for path in (private, public):
        if os.path.lexists(path):
            raise CliError(f"jaula: {path} is there already")
    password = signing.read_password(f"Password for {private}: ", twice=True)
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
    "Make a pair of keys for signing images",
    run,
    flags=(
        Flag("algorithm", "", "string", "ecdsa (on P-256) or ed25519", default="ecdsa",
             completes=("ecdsa", "ed25519")),
    ),
    min_args=1,
    max_args=1,
    description=(
        "Writes NAME.key, encrypted under a password, and NAME.pub. Both are as cosign writes "
        "and reads them. The password is asked for, or taken from COSIGN_PASSWORD."
    ),
    examples=(("A team's keys", "jaula trust generate-key team"),),
    see_also=("image sign", "trust verify"),
)  # fmt: skip
