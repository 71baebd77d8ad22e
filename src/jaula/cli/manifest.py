"""The commands of manifest lists: ``jaula manifest create``, ``push`` and others."""

from __future__ import annotations

from base64 import b64encode

from jaula.cli.cli_errors import CliError
from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.images import manifest_list, registry_auth
from jaula.cli.main import Settings
from jaula.spec.fast_json import decode, pretty

FIELDS = {"arch": "architecture", "os": "os", "os-version": "os.version", "variant": "variant"}


def annotate(options: Options) -> int:
    """Set the platform of an image in a local manifest list."""
    name, member = (manifest_list.full_name(text) for text in options.arguments)
    manifests = manifest_list.ManifestList(name)
    if not manifests.exists:
        raise CliError(f"No such manifest: {name}")
    manifest = next((m for m in manifests.manifests() if m["Ref"] == member), None)
    if manifest is None:
        raise CliError(f"manifest for image {member} does not exist in {name}")
    platform = dict(manifest["Descriptor"].get("platform") or {})
    for flag, field in FIELDS.items():
        if options.is_set(flag):
            platform[field] = options.text(flag)
    features = [word for text in options.texts("os-features") for word in text.split(",") if word]
    if features:
        platform["os.features"] = [*platform.get("os.features", ()), *features]
    manifest["Descriptor"]["platform"] = platform
    manifests.put(manifest)
    return 0


ANNOTATE = Command(
    "[OPTIONS] MANIFEST_LIST MANIFEST",
    "Add additional information to a local image manifest",
    annotate,
    flags=(
        Flag("arch", "", "string", "Set architecture"),
        Flag("os", "", "string", "Set operating system"),
        Flag("os-features", "", "list", "Set operating system feature"),
        Flag("os-version", "", "string", "Set operating system version"),
        Flag("variant", "", "string", "Set architecture variant"),
    ),
    min_args=2,
    max_args=2,
    description=(
        "A field that is not set keeps the value of the image's configuration. A list can be "
        "pushed only if each of its images has an architecture and an operating system."
    ),
    examples=(
        ("Set the ARM variant", "jaula manifest annotate --variant v6 r.io/web:1 r.io/web:arm"),
    ),
    see_also=("manifest create", "manifest push"),
)


def create(options: Options) -> int:
    """Create a local manifest list from images at registries."""
    name, *members = options.arguments
    manifests = manifest_list.ManifestList(manifest_list.full_name(name))
    if manifests.exists and not options.on("amend"):
        raise CliError("refusing to amend an existing manifest list with no --amend flag")
    client = Client(Settings.host)
    entries = []
    for member in members:
        document = client.document(
            "GET",
            f"/jaula/manifests/{quote(member, '/:@')}",
            (),
            None,
            registry_auth.headers(member),
        )
        if document.get("Manifests") is not None:
            raise CliError(f"{member} is a manifest list")
        entries.append(manifest_list.manifest_entry(manifest_list.full_name(member), document))
    for manifest in entries:
        manifests.put(manifest)
    print(f"Created manifest list {manifests.name}")
    return 0


CREATE = Command(
    "[OPTIONS] MANIFEST_LIST MANIFEST [MANIFEST...]",
    "Create a local manifest list for annotating and pushing to a registry",
    create,
    flags=(
        Flag("amend", "a", "bool", "Amend an existing manifest list"),
        Flag(
            "insecure",
            "",
            "bool",
            "Allow communication with an insecure registry (no effect: set on the engine)",
        ),
    ),
    min_args=2,
    description=(
        "The manifests are fetched from their registries. The list is stored in docker's files "
        "until it is pushed."
    ),
    examples=(
        (
            "Create a list of two images",
            "jaula manifest create r.io/web:1 r.io/web:amd64 r.io/web:arm",
        ),
    ),
    see_also=("manifest annotate", "manifest push"),
)


def inspect(options: Options) -> int:
    """Print a local manifest list, or the manifest of a reference at its registry."""
    if len(options.arguments) == 2:
        return _member(*options.arguments, verbose=options.on("verbose"))
    name = options.arguments[0]
    local_list = manifest_list.ManifestList(manifest_list.full_name(name))
    if local_list.exists:
        output = (
            local_list.manifests() if options.on("verbose") else decode(local_list.document()[1])
        )
        print(pretty(output, "\t"))
        return 0
    document = Client(Settings.host).document(
        "GET",
        f"/jaula/manifests/{quote(name, '/:@')}",
        (),
        None,
        registry_auth.headers(name),
    )
    if not options.on("verbose"):
        print(pretty(decode(document["Content"]), "\t"))
        return 0
    manifests = document.get("Manifests")
    if manifests is None:
        print(pretty(manifest_list.manifest_entry(name, document), "\t"))
        return 0
    repository = name.partition("@")[0]
    details = [
        manifest_list.manifest_entry(f"{repository}@{m['Descriptor']['digest']}", m)
        for m in manifests
    ]
    print(pretty(details, "\t"))
    return 0


def _member(list_name: str, name: str, *, verbose: bool) -> int:
    local_list = manifest_list.ManifestList(manifest_list.full_name(list_name))
    reference = manifest_list.full_name(name)
    entries = local_list.manifests() if local_list.exists else []
    manifest = next((m for m in entries if m["Ref"] == reference), None)
    if manifest is None:
        raise CliError(f"manifest for image {reference} does not exist in {local_list.name}")
    print(pretty(manifest if verbose else decode(manifest_list.raw(manifest)), "\t"))
    return 0


INSPECT = Command(
    "[OPTIONS] [MANIFEST_LIST] NAME[:TAG|@DIGEST]",
    "Display an image manifest, or manifest list",
    inspect,
    flags=(
        Flag(
            "insecure",
            "",
            "bool",
            "Allow communication with an insecure registry (no effect: set on the engine)",
        ),
        Flag("verbose", "v", "bool", "Output additional info including layers and platform"),
    ),
    min_args=1,
    max_args=2,
    description=(
        "Prints a local manifest list (manifest create). If there is none, prints the manifest "
        "or manifest list at the registry, without pulling the image. The engine queries the "
        "registry, with its certificates and proxies."
    ),
    examples=(("Print the platforms of an image", "jaula manifest inspect debian:13"),),
    see_also=("pull", "image inspect"),
)


def push(options: Options) -> int:
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


PUSH = Command(
    "[OPTIONS] MANIFEST_LIST",
    "Push a manifest list to a repository",
    push,
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


def rm(options: Options) -> int:
    """Delete local manifest lists."""
    missing = []
    for text in options.arguments:
        name = manifest_list.full_name(text)
        manifests = manifest_list.ManifestList(name)
        if manifests.exists:
            manifests.remove()
        else:
            missing.append(f"No such manifest: {name}")
    if missing:
        raise CliError("\n".join(missing))
    return 0


RM = Command(
    "MANIFEST_LIST [MANIFEST_LIST...]",
    "Delete one or more manifest lists from local storage",
    rm,
    min_args=1,
    description="Nothing is removed from a registry.",
    examples=(("Delete a list", "jaula manifest rm r.io/web:1"),),
    see_also=("manifest create",),
)
