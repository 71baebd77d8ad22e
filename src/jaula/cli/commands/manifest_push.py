"""``jaula manifest push``."""

from __future__ import annotations

from base64 import b64encode

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Flag, Options
from jaula.cli.errors import CliError
from jaula.cli.images import manifest_list, registry_auth
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Send a list to its registry, under its name."""
    name = manifest_list.full_name(options.arguments[0])
    made = manifest_list.ManifestList(name)
    if not made.exists:
        raise CliError(f"No such manifest: {name}")
    kind, text = made.document()
    members = [_with_digest(m["Ref"], m["Descriptor"]["digest"]) for m in made.manifests()]
    answer = Client(Settings.host).document(
        "PUT",
        f"/jaula/manifests/{quote(name, '/:@')}",
        (),
        {"Content": b64encode(text.encode()).decode(), "MediaType": kind, "Members": members},
        registry_auth.headers(name),
    )
    print(answer["Digest"])
    if options.on("purge"):
        made.remove()
    return 0


def _with_digest(name: str, digest: str) -> str:
    path = name.partition("@")[0]
    head, slash, last = path.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}@{digest}"


COMMAND = Command(
    "[OPTIONS] MANIFEST_LIST",
    "Push a list of images to its registry",
    run,
    flags=(
        Flag(
            "insecure",
            "",
            "bool",
            "Allow push to an insecure registry (no effect: set on the engine)",
        ),
        Flag("purge", "p", "bool", "Remove the local manifest list after push"),
    ),
    min_args=1,
    max_args=1,
    description=(
        "Images of other repositories of the same registry are taken over into the list's. Prints "
        "the digest of the list."
    ),
    examples=(("And forget it here", "jaula manifest push --purge r.io/web:1"),),
    see_also=("manifest create", "manifest inspect"),
)
