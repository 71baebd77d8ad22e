"""``jaula trust verify``."""

from __future__ import annotations

from jaula.cli.cli_errors import CliError, UsageError
from jaula.cli.client.api_client import Client
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.features.trust.cli import trust_keys
from jaula.spec.fast_json import encode

UNSIGNED = 1


def run(options: Options) -> int:
    """Verify that an image is signed by one of the keys; 1 if it is not."""
    if not options.texts("key"):
        raise UsageError("a public key is required: --key FILE", status=1)
    trust_keys.enable()
    from jaula.errors import InvalidRequest
    from jaula.features.trust import signature
    from jaula.images import reference

    name = options.arguments[0]
    trusted = [trust_keys.public_key(path) for path in options.texts("key")]
    try:
        parsed = reference.parse(name)
        signed_as = (
            reference.parse(options.text("signed-as")) if options.is_set("signed-as") else None
        )
    except InvalidRequest as error:
        raise CliError(f"jaula: {error}") from None
    expected = signed_as or parsed
    descriptor, signatures = trust_keys.fetch_signatures(Client(Settings.host), name)
    try:
        verified = signature.find(
            signatures,
            trusted,
            descriptor["digest"],
            f"{expected.domain}/{expected.path}",
            None if parsed.digest else parsed.tag,
        )
    except signature.UnsignedImage as error:
        raise CliError(
            f"jaula: {parsed.repository}@{descriptor['digest']}: {error}", status=UNSIGNED
        ) from None
    if options.text("format") == "json":
        print(
            encode(
                {
                    "Digest": descriptor["digest"],
                    "Key": verified.key,
                    "Fingerprint": verified.fingerprint,
                    "SignedAs": verified.claim.name,
                    "Annotations": verified.claim.notes,
                }
            )
        )
        return 0
    print(
        f"{parsed.repository}@{descriptor['digest']}\nis signed by {verified.key} "
        f"(sha256:{verified.fingerprint})\nas {verified.claim.name}"
    )
    for note, value in sorted(verified.claim.notes.items()):
        print(f"{note}={value}")
    return 0


COMMAND = Command(
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    "Verify the signature of an image",
    run,
    flags=(
        Flag("format", "", "string", "Format of the output (json, or text)", completes=("json",)),
        Flag(
            "key",
            "k",
            "list",
            "Public key file; one of several must match (required)",
            completes="file",
        ),
        Flag("signed-as", "", "string", "Repository in the signature, if it differs"),
    ),
    min_args=1,
    max_args=1,
    description=(
        "Fetches the signatures of the image's digest at its registry, under cosign's tag and "
        "among the referring manifests, and verifies them in the client."
    ),
    exit_status=(("0", "the image is signed"), ("1", "it is not signed")),
    examples=(
        (
            "Verify an image before use",
            "jaula trust verify --key team.pub registry.example.com/web",
        ),
    ),
    see_also=("image sign", "trust inspect", "trust policy"),
    completes="image",
)
