"""``jaula manifest push``."""

from __future__ import annotations

from base64 import b64encode

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Flag, Options
from jaula.cli.errors import CliError
from jaula.cli.images import manifest_list, registry_auth
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Push a local manifest list to its registry."""
    name = manifest_list.full_name(options.arguments[0])
    manifests = manifest_list.ManifestList(name)
    if not manifests.exists:
        raise CliError(f"No such manifest: {name}")
    kind, text = manifests.document()
    members = [_with_digest(m["Ref"], m["Descriptor"]["digest"]) for m in manifests.manifests()]
    answer = Client(Settings.host).document(
        "PUT",
        f"/jaula/manifests/{quote(name, '/:@')}",
        (),
        {"Content": b64encode(text.encode()).decode(), "MediaType": kind, "Members": members},
        registry_auth.headers(name),
    )
    print(answer["Digest"])
    if options.on("purge"):
        manifests.remove()
    return 0


def _with_digest(name: str, digest: str) -> str:
    path = name.partition("@")[0]
    head, slash, last = path.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}@{digest}"


COMMAND = Command(
    "[OPTIONS] MANIFEST_LIST",
    "Push a manifest list to a repository",
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
        "Images in other repositories of the same registry are mounted into the repository of "
        "the list. Prints the digest of the list."
    ),
    examples=(("Push a list and remove it locally", "jaula manifest push --purge r.io/web:1"),),
    see_also=("manifest create", "manifest inspect"),
)
