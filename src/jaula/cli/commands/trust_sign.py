"""``jaula image sign`` and ``jaula trust sign``."""

from __future__ import annotations

from base64 import b64encode

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Flag, Options
from jaula.cli.errors import CliError, UsageError
from jaula.cli.images import registry_auth, signing
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Sign what the registry has under a name, and put the signature beside it."""
    if not options.text("key"):
        raise UsageError("the private key to sign with is needed: --key FILE", status=1)
    notes = _notes(options.texts("annotation"))
    signing.enable()
    from jaula.errors import InvalidRequest
    from jaula.images import reference
    from jaula.images.trust import simple_signing

    name = options.arguments[0]
    try:
        wanted = reference.parse(name)
        identity = options.text("identity") or f"{wanted.domain}/{wanted.path}"
        reference.parse(identity)
    except InvalidRequest as error:
        raise CliError(f"jaula: {error}") from None
    client = Client(Settings.host)
    found = signing.fetch_signatures(client, name)[0]
    if wanted.digest is None:
        signing.check_local(client, name, wanted.repository, found["digest"])
    key = signing.private_key(options.text("key"))
    digests = [found["digest"]]
    if options.on("recursive"):
        digests += _listed(client, f"{wanted.repository}@{found['digest']}")
    for digest in digests:
        text = simple_signing.write(simple_signing.SimpleSigning(digest, identity, notes))
        body = {
            "Payload": b64encode(text).decode(),
            "Signature": b64encode(key.sign(text)).decode(),
            "Referring": options.on("referrer"),
        }
        signed = f"{wanted.repository}@{digest}"
        client.document(
            "POST", signing.signatures_path(signed), (), body, registry_auth.headers(name)
        )
        print(f"Signed {signed}", flush=True)
    print(f"by sha256:{key.public.fingerprint}")
    return 0


def _listed(client: Client, name: str) -> list[str]:
    """Digests of the manifests of a list; none where the name is an image's."""
    place = f"/jaula/manifests/{quote(name, '/:@')}"
    found = client.document("GET", place, (), None, registry_auth.headers(name))
    return [member["Descriptor"]["digest"] for member in found.get("Manifests") or ()]


def _notes(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f'invalid argument "{text}" for "-a, --annotation": NAME=VALUE')
        found[name] = value
    return found


COMMAND = Command(
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    "Sign an image at its registry",
    run,
    flags=(
        Flag("annotation", "a", "list", "A word of the signer's own, signed along (NAME=VALUE)"),
        Flag("identity", "", "string",
             "The name that is signed, with a tag or without (default: the image's repository)"),
        Flag("key", "k", "string", "Private key (required)", completes="file"),
        Flag("recursive", "r", "bool", "Sign the images of a list as well, each by itself"),
        Flag("referrer", "", "bool",
             "Keep the signature as a manifest that refers to the image, not under a tag"),
    ),
    min_args=1,
    max_args=1,
    description=(
        "Signs the digest that the name has at its registry, so the image has to be pushed first. "
        "Signatures are cosign's and are kept where cosign, skopeo and podman look for them: "
        "under the tag sha256-DIGEST.sig. The key does not leave this process; its password is "
        "asked for, or taken from COSIGN_PASSWORD."
    ),
    examples=(
        ("An image that was just pushed",
         "jaula image sign --key team.key registry.example.com/team/web:1.0"),
        ("For this tag alone",
         "jaula image sign --key team.key --identity r.example.com/web:1.0 r.example.com/web:1.0"),
    ),
    see_also=("push", "trust generate-key", "trust verify"),
    completes="image",
)  # fmt: skip
