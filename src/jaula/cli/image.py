"""The commands of images: ``jaula image ls``, ``pull``, ``save`` and others."""

from __future__ import annotations

import sys

from jaula.cli.cli_errors import CliError, UsageError
from jaula.cli.client.api_client import Client, filters, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.for_each import each
from jaula.cli.images import (
    content_trust,
    image_archive,
    platform_flag,
    prune_prompt,
    pull_progress,
    registry_auth,
)
from jaula.cli.images.registry_auth import HUB, domain
from jaula.cli.main import Settings
from jaula.cli.output import inspect_output, list_output, times
from jaula.cli.output.list_output import short_id
from jaula.cli.output.progress_line import Progress, file_size
from jaula.spec import units
from jaula.spec.fast_json import decode_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

RECIPES = ("busybox", "debian", "ubuntu")


def bootstrap(options: Options) -> int:
    """Build the images and load them into the engine, or write them to a file."""
    for name in options.arguments:
        build_bootstrap(
            Client(Settings.host), name, options.text("output"), quiet=options.on("quiet")
        )
    return 0


def build_bootstrap(client: Client, name: str, output: str = "", *, quiet: bool = False) -> str:
    """Build one image and return its reference.

    :raises CliError: when the mirror or a program is missing.
    """
    from jaula.cli import site_packages

    site_packages.enable()
    import tempfile
    from pathlib import Path

    from jaula.errors import JaulaError
    from jaula.images.bootstrap import build

    def progress(line: str) -> None:
        if not quiet:
            sys.stderr.write(f"{name}: {line}\n")

    try:
        if output:
            return build(name, Path(output), progress)
        with tempfile.TemporaryDirectory(prefix="jaula-") as scratch:
            path = Path(scratch) / "image.tar"
            reference = build(name, path, progress)
            with path.open("rb", buffering=0) as archive:
                image_archive.send(client, archive, quiet=quiet)
            return reference
    except JaulaError as error:
        raise CliError(f"jaula: {error}") from None


BOOTSTRAP = Command(
    "[OPTIONS] NAME[:SUITE] [NAME...]",
    "Build an image from the host's package mirror",
    bootstrap,
    flags=(
        Flag(
            "output",
            "o",
            "string",
            "Write the image to an archive, instead of loading it",
            completes="file",
        ),
        Flag("quiet", "q", "bool", "Suppress progress output"),
    ),
    min_args=1,
    description=(
        "busybox is Debian's static busybox with its applets. debian and ubuntu are a minimal "
        "system of the given suite. Two builds from the same packages give the same image ID. "
        "No registry is needed, only the package mirror of apt."
    ),
    examples=(
        ("Build two base images", "jaula image bootstrap busybox debian"),
        ("Build a release of Ubuntu", "jaula image bootstrap ubuntu:noble"),
    ),
    see_also=("load", "pull", "images"),
    completes=RECIPES,
)


def history(options: Options) -> int:
    """List the history of an image, the newest step first."""
    name = options.arguments[0]
    path = f"/images/{quote(name, '/:@')}/history"
    rows = Client(Settings.host).get(path, platform_flag.query(options)) or []
    no_trunc, human = options.on("no-trunc"), options.on("human", True)
    columns: dict[str, list_output.Column] = {
        "ID": (
            "IMAGE",
            lambda row: (
                row["Id"] if row["Id"] == "<missing>" else list_output.short_id(row["Id"], no_trunc)
            ),
        ),
        "CreatedSince": (
            "CREATED",
            lambda row: times.ago(row["Created"]) if row["Created"] > 0 else "N/A",
        ),
        "CreatedAt": (
            "CREATED AT",
            lambda row: times.local(row["Created"], "%Y-%m-%dT%H:%M:%SZ"),
        ),
        "CreatedBy": (
            "CREATED BY",
            lambda row: list_output.ellipsis(
                _one_line(row["CreatedBy"]), 1 << 20 if no_trunc else 45
            ),
        ),
        "Size": (
            "SIZE",
            lambda row: units.human_size(row["Size"], 3) if human else str(row["Size"]),
        ),
        "Comment": ("COMMENT", lambda row: row["Comment"] or ""),
    }
    output_format = options.text("format")
    if options.on("quiet") and output_format in ("", "table"):
        output_format = "{{.ID}}"
    since = "CreatedSince" if human else "CreatedAt"
    default = "{{.ID}}\t{{." + since + "}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
    list_output.show(rows, columns, default, output_format)
    return 0


def _one_line(text: str | None) -> str:
    return (text or "").replace("\t", " ").replace("\n", " ")


HISTORY = Command(
    "[OPTIONS] IMAGE",
    "Show the history of an image",
    history,
    flags=(
        Flag(
            "format",
            "",
            "string",
            "Format output using a custom template (table, json, or a Go template)",
        ),
        Flag(
            "human", "H", "bool", "Print sizes and dates in human readable format", default="true"
        ),
        Flag("no-trunc", "", "bool", "Don't truncate output"),
        platform_flag.flag(
            'Show history for the given platform. Formatted as "os[/arch[/variant]]" (e.g., '
            '"linux/amd64")'
        ),
        Flag("quiet", "q", "bool", "Only show image IDs"),
    ),
    min_args=1,
    max_args=1,
    description="One line for each build step of the image; steps without a layer have size 0.",
    examples=(("Show the history", "jaula history debian"),),
    see_also=("images", "image inspect"),
    completes="image",
)


def import_(options: Options) -> int:
    """Create an image of one layer from a tar of a root file system."""
    source, *names = options.arguments
    if "://" in source:
        raise CliError(f"cannot import from {source}: must be a file or - (download it first)")
    repository, tag = pull_progress.split_reference(names[0]) if names else ("", "")
    query = [
        ("fromSrc", "-"),
        ("repo", repository),
        ("tag", tag),
        ("message", options.text("message")),
        ("platform", platform_flag.requested(options)),
        *(("changes", change) for change in options.texts("change")),
    ]
    client = Client(Settings.host)
    is_file = source != "-"
    with open(source if is_file else 0, "rb", buffering=0, closefd=is_file) as archive:
        total = file_size(archive.fileno())
        with Progress("import", total=total) as progress:
            response = client.upload(
                "/images/create", query, progress.counted(image_archive.chunks(archive))
            )
    pull_progress.show_progress(decode_lines(response.chunks()), sys.stdout)
    return 0


IMPORT = Command(
    "[OPTIONS] file|- [REPOSITORY[:TAG]]",
    "Import the contents from a tarball to create a filesystem image",
    import_,
    flags=(
        Flag(
            "change",
            "c",
            "list",
            'Apply Dockerfile instruction to the created image (CMD ["sh"], ENV A=b)',
        ),
        Flag("message", "m", "string", "Set commit message for imported image"),
        Flag(
            "platform", "", "string", "Set platform if server is multi-platform capable (os/arch)"
        ),
    ),
    min_args=1,
    max_args=2,
    description=(
        "The tar contains a root file system, as written by export or tar, compressed or not."
    ),
    examples=(("Flatten a container to an image", "jaula export web | jaula import - web:flat"),),
    see_also=("export", "load"),
    completes="file",
)


def inspect(options: Options) -> int:
    """Print the documents of the images."""
    client, query = Client(Settings.host), platform_flag.query(options)
    return inspect_output.show(
        options.arguments,
        options.text("format"),
        lambda name: client.get(f"/images/{quote(name, '/:@')}/json", query),
    )


INSPECT = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    "Display detailed information on one or more images",
    inspect,
    flags=(
        inspect_output.FORMAT,
        platform_flag.flag(
            "Inspect a specific platform of the multi-platform image. 'os[/arch[/variant]]': "
            "Explicit platform (eg. linux/amd64)"
        ),
    ),
    min_args=1,
    description="Prints Docker's document of each image as JSON, or the output of a template.",
    examples=(("Inspect an image", "jaula image inspect busybox"),),
    see_also=("inspect", "images"),
    completes="image",
)


def load(options: Options) -> int:
    """Send an archive to the engine and print the images in it."""
    path = options.text("input")
    if not path and sys.stdin.isatty():
        raise CliError("requested load from stdin, but stdin is empty")
    client = Client(Settings.host)
    with open(path or 0, "rb", buffering=0, closefd=bool(path)) as archive:
        image_archive.send(
            client, archive, quiet=options.on("quiet"), platforms=platform_flag.queries(options)
        )
    return 0


LOAD = Command(
    "[OPTIONS]",
    "Load an image from a tar archive or STDIN",
    load,
    flags=(
        Flag(
            "input", "i", "string", "Read from tar archive file, instead of STDIN", completes="file"
        ),
        platform_flag.flag(
            "Load only the given platform(s). Formatted as a comma-separated list of "
            '"os[/arch[/variant]]" (e.g., "linux/amd64,linux/arm64/v8")',
            "list",
        ),
        Flag("quiet", "q", "bool", "Suppress the load output"),
    ),
    max_args=0,
    description=(
        "Reads an archive of docker save, jaula save or skopeo (docker-archive: and "
        "oci-archive:), compressed or not. All platforms of an archive are kept."
    ),
    examples=(("Load an image from another host", "ssh host jaula save web | jaula load"),),
    see_also=("save", "import", "images"),
)


NONE = "<none>"


def ls(options: Options) -> int:
    """List images, one line for each name of an image."""
    conditions = options.texts("filter")
    if options.arguments:
        conditions.append("reference=" + options.arguments[0])
    if options.on("tree"):
        return _tree(options, conditions)
    query = (
        ("all", options.on("all")),
        ("filters", filters(conditions)),
        ("digests", options.on("digests")),
    )
    images = Client(Settings.host).get("/images/json", query) or []
    images.sort(key=lambda image: -image["Created"])
    no_trunc = options.on("no-trunc")
    rows = [row for image in images for row in _named(image, digests=options.on("digests"))]
    output_format = options.text("format")
    if options.on("quiet") and output_format in ("", "table"):
        output_format = "{{.ID}}"
    default = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
    if options.on("digests"):
        default = default.replace("\t{{.ID}}", "\t{{.Digest}}\t{{.ID}}")
    columns: dict[str, list_output.Column] = {
        "Repository": ("REPOSITORY", lambda row: row["Repository"]),
        "Tag": ("TAG", lambda row: row["Tag"]),
        "Digest": ("DIGEST", lambda row: row["Digest"]),
        "ID": ("IMAGE ID", lambda row: short_id(row["Id"], no_trunc)),
        "CreatedSince": ("CREATED", lambda row: times.ago(row["Created"])),
        "CreatedAt": ("CREATED AT", lambda row: times.local(row["Created"])),
        "Size": ("SIZE", lambda row: units.human_size(row["Size"], 3)),
        "Containers": ("CONTAINERS", lambda row: "N/A"
                       if row.get("Containers", -1) < 0 else str(row["Containers"])),
        "SharedSize": ("SHARED SIZE", lambda row: "N/A"
                       if row.get("SharedSize", -1) < 0
                       else units.human_size(row["SharedSize"], 3)),
        "UniqueSize": ("UNIQUE SIZE", lambda row: "N/A"
                       if row.get("SharedSize", -1) < 0
                       else units.human_size(row["Size"] - row["SharedSize"], 3)),
        "VirtualSize": ("SIZE", lambda row: units.human_size(row["Size"])),
    }  # fmt: skip
    list_output.show(rows, columns, default, output_format)
    return 0


def _tree(options: Options, conditions: list[str]) -> int:
    """Print each image with its platforms.

    :raises UsageError: when another flag changes the table.
    """
    from jaula.cli.images.image_tree import render
    from jaula.cli.output.user_terminal import size

    for name in ("quiet", "no-trunc", "digests", "format"):
        if options.is_set(name):
            raise UsageError(f"--{name} is not yet supported with --tree", status=1)
    query = (("all", options.on("all")), ("filters", filters(conditions)), ("manifests", True))
    images = Client(Settings.host).get("/images/json", query) or []
    if not options.on("all") and not any(text.startswith("dangling=") for text in conditions):
        images = [image for image in images if image.get("RepoTags")]
    for line in render(images, size(1)[1]):
        print(line)
    return 0


def _named(image: dict[str, Any], *, digests: bool) -> Iterator[dict[str, Any]]:
    tags: dict[str, list[str]] = {}
    for tag in image.get("RepoTags") or ():
        name, _, word = tag.rpartition(":")
        if not tag.startswith(NONE):
            tags.setdefault(name, []).append(word)
    digests_by_name: dict[str, list[str]] = {}
    for digest in image.get("RepoDigests") or ():
        name, _, value = digest.partition("@")
        if not digest.startswith(NONE):
            digests_by_name.setdefault(name, []).append(value)
    for name, words in tags.items():
        values = (digests_by_name.get(name) if digests else None) or [NONE]
        for word in words:
            for value in values:
                yield image | {"Repository": name, "Tag": word, "Digest": value}
    for name, values in digests_by_name.items():
        if name not in tags:
            for value in values if digests else [NONE]:
                yield image | {"Repository": name, "Tag": NONE, "Digest": value}
    if not tags and not digests_by_name:
        yield image | {"Repository": NONE, "Tag": NONE, "Digest": NONE}


LS = Command(
    "[OPTIONS] [REPOSITORY[:TAG]]",
    "List images",
    ls,
    flags=(
        Flag("all", "a", "bool", "Show all images"),
        Flag("digests", "", "bool", "Show digests"),
        Flag(
            "filter",
            "f",
            "list",
            "Filter output based on conditions provided (dangling=true, label=a=b, reference=b*)",
        ),
        Flag(
            "format",
            "",
            "string",
            "Format output using a custom template (table, json, or a Go template)",
        ),
        Flag("no-trunc", "", "bool", "Don't truncate output"),
        Flag("quiet", "q", "bool", "Only show image IDs"),
        Flag("tree", "", "bool", "List multi-platform images as a tree"),
    ),
    max_args=1,
    description="Lists the images in the engine, the newest first.",
    examples=(
        ("Untagged images", "jaula images -f dangling=true"),
        ("The platforms of each image", "jaula images --tree"),
    ),
    see_also=("load", "pull", "rmi", "history", "image bootstrap"),
    completes="image",
)


def prune(options: Options) -> int:
    """Prompt, remove the images and print the result."""
    if options.on("all"):
        warning = "This will remove all images without at least one container associated to them."
        return prune_prompt.prune(options, "images", warning, ["dangling=false"])
    warning = "This will remove all dangling images."
    return prune_prompt.prune(options, "images", warning, ["dangling=true"])


PRUNE = Command(
    "[OPTIONS]",
    "Remove unused images",
    prune,
    flags=(
        Flag("all", "a", "bool", "Remove all unused images, not just dangling ones"),
        prune_prompt.FILTER,
        prune_prompt.FORCE,
    ),
    max_args=0,
    description="Removes untagged images; with -a, every image that no container uses.",
    examples=(("Do not prompt", "jaula image prune -f"),),
    see_also=("system prune", "system df"),
)


def pull(options: Options) -> int:
    """Pull the image; with ``--all-tags`` every tag of its repository."""
    image, all_tags = pull_progress.repository_or_tag(options)
    quiet = options.on("quiet")
    client, requested = Client(Settings.host), platform_flag.requested(options)
    pull_progress.pull(client, image, requested, quiet=quiet, output=1, all_tags=all_tags)
    full = image if all_tags else pull_progress.with_tag(image)
    print(full if quiet else _canonical(full))
    return 0


def _canonical(image: str) -> str:
    """Return the full reference that Docker prints: ``docker.io/library/busybox:latest``."""
    server = domain(image)
    if server != HUB:
        return image
    path = image.partition("/")[2] if image.startswith((HUB + "/", "index." + HUB + "/")) else image
    return f"{HUB}/{path}" if "/" in path else f"{HUB}/library/{path}"


PULL = Command(
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    "Download an image from a registry",
    pull,
    flags=(
        Flag("all-tags", "a", "bool", "Download all tagged images in the repository"),
        content_trust.FLAG,
        Flag(
            "platform", "", "string", "Set platform if server is multi-platform capable (os/arch)"
        ),
        Flag("quiet", "q", "bool", "Suppress verbose output"),
    ),
    min_args=1,
    max_args=1,
    description=(
        "Downloads the missing layers in parallel and unpacks them as they arrive. Without a "
        "registry, use load to read an archive, or image bootstrap to build an image from the "
        "host's package mirror."
    ),
    examples=(
        ("Pull a tag", "jaula pull debian:13"),
        ("Pull a digest", "jaula pull debian@sha256:0123..."),
    ),
    see_also=("push", "login", "load", "image bootstrap", "images"),
)


def push(options: Options) -> int:
    """Push the image; with ``--all-tags`` every tag of its repository."""
    image, all_tags = pull_progress.repository_or_tag(options)
    name, tag = pull_progress.split_reference(image)
    chosen = platform_flag.query(options)
    if chosen:
        _note(
            "Using --platform pushes only the specified platform manifest of a multi-platform image"
            " index.\nOther components, like attestations, will not be included.\n"
            "To push the complete multi-platform image, remove the --platform flag.\n"
        )
    messages = Client(Settings.host).lines(
        "POST",
        f"/images/{quote(name, '/:')}/push",
        (("tag", "" if all_tags else tag), *chosen, *_compression(options)),
        registry_auth.headers(image),
    )
    notes: list[str] = []
    pull_progress.show_progress(_watched(messages, notes), sys.stdout, quiet=options.on("quiet"))
    if options.on("quiet"):
        print(image if all_tags else pull_progress.with_tag(image))
    for note in notes:
        _note(note)
    return 0


def _compression(options: Options) -> list[tuple[str, str]]:
    """Return the parameters of the requested compression."""
    flags = ("compression", "compression-level", "force-compression")
    return [(name, value) for name in flags if (value := options.text(name))]


def _watched(messages: Iterable[dict[str, Any]], notes: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the messages, and add a note for each index that was not pushed as a whole."""
    for message in messages:
        aux = message.get("aux") or {}
        if aux.get("manifestPushedInsteadOfIndex"):
            notes.append(
                "Not all multiplatform-content is present and only the available single-platform "
                "image was pushed\n"
                f"{aux['originalIndex']['digest']} -> {aux['selectedManifest']['digest']}"
            )
        yield message


def _note(text: str) -> None:
    """Print a note as Docker prints it."""
    header = " Info -> "
    first, *rest = text.split("\n")
    print(f"\n{header}{first}")
    for line in rest:
        print(" " * len(header) + line)


PUSH = Command(
    "[OPTIONS] NAME[:TAG]",
    "Upload an image to a registry",
    push,
    flags=(
        Flag("all-tags", "a", "bool", "Push all tags of an image to the repository"),
        Flag(
            "compression",
            "",
            "string",
            "Compression of the pushed layers (gzip, zstd, estargz, zstd:chunked, uncompressed)",
            completes=("gzip", "zstd", "estargz", "zstd:chunked", "uncompressed"),
        ),
        Flag("compression-level", "", "int", "Level of the compression"),
        content_trust.FLAG,
        Flag(
            "force-compression",
            "",
            "bool",
            "Convert layers that are compressed in another form, as --compression does by default",
        ),
        platform_flag.flag(
            "Push a platform-specific manifest as a single-platform image to the registry. Image "
            "index won't be pushed, meaning that other manifests, including attestations won't be "
            "preserved. 'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)"
        ),
        Flag("quiet", "q", "bool", "Suppress verbose output"),
    ),
    min_args=1,
    max_args=1,
    description=(
        "Uploads the layers that the registry does not have, then the manifest. A pulled image "
        "is pushed unchanged, under the same digest, with its index if the engine has all of it. "
        "The layers of a loaded or imported image are compressed first. With --compression all "
        "layers are pushed in that form, under another digest. Other engines can start containers "
        "from estargz and zstd:chunked before they have the whole image, or fetch only the files "
        "that they lack. The image of the engine stays as it is."
    ),
    examples=(
        ("Push a tag", "jaula push registry.example.com/team/web:1.0"),
        (
            "Push layers that podman can fetch file by file",
            "jaula push --compression zstd:chunked registry.example.com/team/web:1.0",
        ),
    ),
    see_also=("pull", "login", "tag"),
    completes="image",
)


def rm(options: Options) -> int:
    """Remove the images; print each untagged name and deleted layer."""
    client = Client(Settings.host)
    query = (
        ("force", options.on("force")),
        ("noprune", options.on("no-prune")),
        *platform_flag.queries(options, "platforms"),
    )

    def remove(name: str) -> None:
        for row in client.document("DELETE", f"/images/{quote(name, '/:@')}", query) or ():
            for action, image in row.items():
                print(f"{action}: {image}")

    return each(options.arguments, remove, echo=False)


RM = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    "Remove one or more images",
    rm,
    flags=(
        Flag("force", "f", "bool", "Force removal of the image"),
        Flag("no-prune", "", "bool", "Do not delete untagged parents"),
        platform_flag.flag(
            'Remove only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., '
            '"linux/amd64")',
            "list",
        ),
    ),
    min_args=1,
    description=(
        "Removes a name. The image is removed with its last name, a layer with the last image "
        "that uses it."
    ),
    examples=(("Remove an image", "jaula rmi busybox"),),
    see_also=("images", "image prune"),
    completes="image",
)


def save(options: Options) -> int:
    """Write the images with all their layers as one archive."""
    query = [*(("names", name) for name in options.arguments), *platform_flag.queries(options)]
    response = Client(Settings.host).open("GET", "/images/get", query)
    image_archive.write(response.chunks(), options.text("output"), "save")
    return 0


SAVE = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    "Save one or more images to a tar archive (streamed to STDOUT by default)",
    save,
    flags=(
        Flag("output", "o", "string", "Write to a file, instead of STDOUT", completes="file"),
        platform_flag.flag(
            "Save only the given platform(s). Formatted as a comma-separated list of "
            '"os[/arch[/variant]]" (e.g., "linux/amd64,linux/arm64/v8")',
            "list",
        ),
    ),
    min_args=1,
    description=(
        "The archive is a Docker archive and an OCI image layout at once. docker load, jaula "
        "load and skopeo (docker-archive: and oci-archive:) read it. It has all platforms of an "
        "image that the engine has."
    ),
    examples=(("Copy an image to another host", "jaula save web | ssh host docker load"),),
    see_also=("load", "export"),
    completes="image",
)


def tag(options: Options) -> int:
    """Add a tag to the image."""
    source, target = options.arguments
    repository, tag = pull_progress.split_reference(target)
    query = (("repo", repository), ("tag", tag))
    Client(Settings.host).request("POST", f"/images/{quote(source, '/:@')}/tag", query)
    return 0


TAG = Command(
    "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    tag,
    min_args=2,
    max_args=2,
    description="Both names refer to the same image; nothing is copied.",
    examples=(("Tag a version", "jaula tag web:latest web:1.0"),),
    see_also=("images", "rmi"),
    completes="image",
)
