"""``jaula image sign`` and ``jaula trust sign``."""

from __future__ import annotations

from base64 import b64encode

from jaula.cli.cli_errors import CliError, UsageError
from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.images import registry_auth
from jaula.cli.main import Settings
from jaula.features.trust.cli import trust_keys


def run(options: Options) -> int:
    """Sign the image at its registry and upload the signature."""
    if not options.text("key"):
        raise UsageError("a private key is required: --key FILE", status=1)
    notes = _annotations(options.texts("annotation"))
    trust_keys.enable()
    from jaula.errors import InvalidRequest
    from jaula.features.trust import simple_signing
    from jaula.images import reference

    name = options.arguments[0]
    try:
        parsed = reference.parse(name)
        identity = options.text("identity") or f"{parsed.domain}/{parsed.path}"
        reference.parse(identity)
    except InvalidRequest as error:
        raise CliError(f"jaula: {error}") from None
    client = Client(Settings.host)
    descriptor = trust_keys.fetch_signatures(client, name)[0]
    if parsed.digest is None:
        trust_keys.check_local(client, name, parsed.repository, descriptor["digest"])
    key = trust_keys.private_key(options.text("key"))
    digests = [descriptor["digest"]]
    if options.on("recursive"):
        digests += _member_digests(client, f"{parsed.repository}@{descriptor['digest']}")
    for digest in digests:
        text = simple_signing.write(simple_signing.SimpleSigning(digest, identity, notes))
        body = {
            "Payload": b64encode(text).decode(),
            "Signature": b64encode(key.sign(text)).decode(),
            "Referring": options.on("referrer"),
        }
        signed = f"{parsed.repository}@{digest}"
        client.document(
            "POST", trust_keys.signatures_path(signed), (), body, registry_auth.headers(name)
        )
        print(f"Signed {signed}", flush=True)
    print(f"by sha256:{key.public.fingerprint}")
    return 0


def _member_digests(client: Client, name: str) -> list[str]:
    """Return the digests of a manifest list's members; empty for an image."""
    path = f"/jaula/manifests/{quote(name, '/:@')}"
    document = client.document("GET", path, (), None, registry_auth.headers(name))
    return [member["Descriptor"]["digest"] for member in document.get("Manifests") or ()]


def _annotations(texts: list[str]) -> dict[str, str]:
    annotations = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(
                f'invalid argument "{text}" for "-a, --annotation": must be NAME=VALUE'
            )
        annotations[name] = value
    return annotations


COMMAND = Command(
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    "Sign an image at its registry",
    run,
    flags=(
        Flag("annotation", "a", "list", "Additional claim to sign (NAME=VALUE)"),
        Flag("identity", "", "string",
             "Image reference to sign, with or without a tag (default: the repository)"),
        Flag("key", "k", "string", "Private key file (required)", completes="file"),
        Flag("recursive", "r", "bool", "Sign each image of a manifest list too"),
        Flag("referrer", "", "bool",
             "Store the signature as a referring manifest, not under a tag"),
    ),
    min_args=1,
    max_args=1,
    description=(
        "Signs the digest of the image at its registry, so the image must be pushed first. "
        "Signatures have cosign's format and are stored where cosign, skopeo and podman look "
        "for them: under the tag sha256-DIGEST.sig. The private key is used by the client only. "
        "Its password is prompted for, or taken from COSIGN_PASSWORD."
    ),
    examples=(
        ("Sign a pushed image",
         "jaula image sign --key team.key registry.example.com/team/web:1.0"),
        ("Sign for one tag only",
         "jaula image sign --key team.key --identity r.example.com/web:1.0 r.example.com/web:1.0"),
    ),
    see_also=("push", "trust generate-key", "trust verify"),
    completes="image",
)  # fmt: skip
