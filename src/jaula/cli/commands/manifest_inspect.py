"""``jaula manifest inspect``."""

from __future__ import annotations

from jaula.cli import registry_auth
from jaula.cli.client import Client, quote
from jaula.cli.flags import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.spec.light import decode, pretty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OCI = "application/vnd.oci.image.manifest.v1+json"


def run(options: Options) -> int:
    """Print what a registry has under a name: a manifest, or a list of them."""
    name = options.arguments[0]
    found = Client(Settings.host).document(
        "GET",
        f"/jaula/manifests/{quote(name, '/:@')}",
        (),
        None,
        registry_auth.headers(name),
    )
    if not options.on("verbose"):
        print(pretty(decode(found["Content"]), "\t"))
        return 0
    manifests = found.get("Manifests")
    if manifests is None:
        print(pretty(_detail(name, found), "\t"))
        return 0
    repository = name.partition("@")[0]
    shown = [_detail(f"{repository}@{m['Descriptor']['digest']}", m) for m in manifests]
    print(pretty(shown, "\t"))
    return 0


def _detail(name: str, manifest: dict[str, Any]) -> dict[str, Any]:
    from base64 import b64encode

    descriptor = dict(manifest["Descriptor"])
    if manifest.get("Platform"):
        descriptor["platform"] = manifest["Platform"]
    content = manifest["Content"]
    kind = "OCIManifest" if descriptor["mediaType"] == OCI else "SchemaV2Manifest"
    return {
        "Ref": name,
        "Descriptor": descriptor,
        "Raw": b64encode(content.encode()).decode(),
        kind: decode(content),
    }


COMMAND = Command(
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    "Show what a registry has under a name",
    run,
    flags=(Flag("verbose", "v", "bool", "Show each manifest of a list, with its descriptor"),),
    least=1,
    most=1,
    description=(
        "Prints the manifest, or the list of manifests for several platforms, without fetching "
        "the image. The engine asks the registry, with its certificates and proxies."
    ),
    examples=(("For which platforms an image is", "jaula manifest inspect debian:13"),),
    see_also=("pull", "image inspect"),
)
