"""``jaula trust inspect``."""

from __future__ import annotations

from jaula.cli.client.api_client import Client
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.output import list_output
from jaula.features.trust.cli import trust_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jaula.features.trust.signature import Signature
    from jaula.features.trust.signing_keys import PublicKey

INVALID = "<invalid>"


def run(options: Options) -> int:
    """List the signatures of an image at its registry with their claims."""
    trust_keys.enable()
    trusted = [trust_keys.public_key(path) for path in options.texts("key")]
    descriptor, signatures = trust_keys.fetch_signatures(
        Client(Settings.host), options.arguments[0]
    )
    items = [_item(signature, trusted, descriptor["digest"]) for signature in signatures]
    columns: dict[str, list_output.Column] = {
        "Key": ("KEY", lambda item: item["key"]),
        "SignedAs": ("SIGNED AS", lambda item: item["name"]),
        "Digest": ("DIGEST", lambda item: item["digest"]),
        "Annotations": ("ANNOTATIONS", lambda item: item["notes"]),
    }
    default = "{{.Key}}\t{{.SignedAs}}\t{{.Digest}}\t{{.Annotations}}"
    list_output.show(items, columns, default, options.text("format"))
    return 0


def _item(signature: Signature, trusted: list[PublicKey], digest: str) -> dict[str, Any]:
    from jaula.errors import InvalidRequest
    from jaula.features.trust import simple_signing
    from jaula.images.registry.registry_errors import printable

    key = next((k for k in trusted if k.verifies(signature.value, signature.payload)), None)
    try:
        claim = simple_signing.read(signature.payload)
    except InvalidRequest:
        claim = simple_signing.SimpleSigning("", INVALID)
    notes = ",".join(f"{name}={value}" for name, value in sorted(claim.notes.items()))
    return {
        "key": key.name if key else "<unknown>",
        "name": printable(claim.name),
        "digest": "this image" if claim.digest == digest else printable(claim.digest),
        "notes": printable(notes),
    }


COMMAND = Command(
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    "List the signatures of an image at its registry",
    run,
    flags=(
        Flag(
            "format",
            "",
            "string",
            "Format output using a custom template (table, json, or a Go template)",
        ),
        Flag("key", "k", "list", "Public key to identify signatures", completes="file"),
    ),
    min_args=1,
    max_args=1,
    description=(
        "A signature does not name its signer: it belongs to the key that verifies it. The "
        "claims of a signature by an unknown key are not trustworthy."
    ),
    examples=(
        (
            "Identify the signatures of a key",
            "jaula trust inspect --key team.pub registry.example.com/web",
        ),
    ),
    see_also=("trust verify", "image sign"),
    completes="image",
)
