"""``jaula trust verify``."""

from __future__ import annotations

from jaula.cli.client.client import Client
from jaula.cli.command import Command, Flag, Options
from jaula.cli.errors import CliError, UsageError
from jaula.cli.images import signing
from jaula.cli.main import Settings
from jaula.spec.fast_json import encode

UNSIGNED = 1


def run(options: Options) -> int:
    """Say whether an image has a signature by one of the keys; 1 where it has none."""
    if not options.texts("key"):
        raise UsageError("a public key is needed: --key FILE", status=1)
    signing.enable()
    from jaula.errors import InvalidRequest
    from jaula.images import reference
    from jaula.images.trust import signature

    name = options.arguments[0]
    trusted = [signing.public_key(path) for path in options.texts("key")]
    try:
        wanted = reference.parse(name)
        as_name = (
            reference.parse(options.text("signed-as")) if options.is_set("signed-as") else None
        )
    except InvalidRequest as error:
        raise CliError(f"jaula: {error}") from None
    expected = as_name or wanted
    found, signatures = signing.fetch_signatures(Client(Settings.host), name)
    try:
        vouched = signature.find(
            signatures,
            trusted,
            found["digest"],
            f"{expected.domain}/{expected.path}",
            None if wanted.digest else wanted.tag,
        )
    except signature.UnsignedImage as error:
        raise CliError(
            f"jaula: {wanted.repository}@{found['digest']}: {error}", status=UNSIGNED
        ) from None
    if options.text("format") == "json":
        print(encode({
            "Digest": found["digest"], "Key": vouched.key, "Fingerprint": vouched.fingerprint,
            "SignedAs": vouched.claim.name, "Annotations": vouched.claim.notes,
        }))  # fmt: skip
        return 0
    print(f"{wanted.repository}@{found['digest']}\nis signed by {vouched.key} "
          f"(sha256:{vouched.fingerprint})\nas {vouched.claim.name}")  # fmt: skip
    for note, value in sorted(vouched.claim.notes.items()):
        print(f"{note}={value}")
    return 0


COMMAND = Command(
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    "See whether an image is signed by somebody's key",
    run,
    flags=(
        Flag("format", "", "string", "json, or text", completes=("json",)),
        Flag("key", "k", "list", "Public key; any of several will do (required)",
             completes="file"),
        Flag("signed-as", "", "string", "The repository that the signature names, if another"),
    ),
    min_args=1,
    max_args=1,
    description=(
        "Looks for signatures of the digest that the name has at its registry, under cosign's tag "
        "and among the manifests that refer to the image, and verifies them here."
    ),
    exit_status=(("0", "it is signed"), ("1", "it is not")),
    examples=(("Before it is used", "jaula trust verify --key team.pub registry.example.com/web"),),
    see_also=("image sign", "trust inspect", "trust policy"),
    completes="image",
)  # fmt: skip
