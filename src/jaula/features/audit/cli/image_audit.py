"""``jaula image audit``: files, secrets and packages of images."""

from __future__ import annotations

import json
import os

from jaula.cli.cli_errors import CliError, EngineError
from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.output.progress_line import Progress
from jaula.features.audit.cli import audit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from jaula.features.audit.benchmark.assessment import Assessment
    from jaula.features.audit.benchmark.exceptions import Exemption
    from jaula.features.audit.image.controls import Image
    from jaula.features.audit.image.files import LayerReader
    from jaula.features.trust.sbom.package import Inventory

MANIFEST_LIMIT = 4 << 20  # bytes


def run(options: Options) -> int:
    """Print the report; 1 if a control without an exception fails or is unknown."""
    output_format = options.choice("format", audit.FORMATS)
    from jaula.cli import site_packages

    site_packages.enable()
    from jaula.errors import JaulaError
    from jaula.features.audit.benchmark.reports import FORMATS as FORMS
    from jaula.features.audit.image import controls

    if options.on("list"):
        audit.print_controls(controls.PROFILE)
        return 0
    if os.geteuid() != 0:
        raise CliError("jaula image audit reads the engine's layers: run it as root")
    client = Client(Settings.host)
    if not client.address.text.startswith("unix://"):
        raise CliError(
            f"jaula image audit reads the layers on this host, and {client.address.text} may be "
            "another one: run it on the engine's host"
        )
    try:
        ids = {control.id for control in controls.PROFILE.controls}
        exemptions = audit.exemptions_of(options.text("exceptions"), ids)
        with Progress("audit", timer=False):
            assessment = _assess(client, options, exemptions)
    except JaulaError as error:
        raise CliError(f"jaula: {error}", status=1) from None
    print(FORMS[output_format](assessment))
    return 0 if assessment.passed else 1


def _assess(client: Client, options: Options, exemptions: Sequence[Exemption]) -> Assessment:
    """Read the images and return the assessment.

    :raises JaulaError: when the advisories cannot be read.
    """
    import datetime

    from jaula.features.audit.benchmark import assessment
    from jaula.features.audit.benchmark.assessment import Subject
    from jaula.features.audit.benchmark.control import Kind, Scope
    from jaula.features.audit.image import controls

    info = client.get("/info")
    images = _images(client, options, str(info["DockerRootDir"]))
    now = datetime.datetime.now(datetime.UTC)
    subjects = [Subject(Kind.IMAGE, image.state.name, image) for image in images]
    scopes = (Scope.IMAGES,)
    outcomes = assessment.assess(
        controls.PROFILE.controls, scopes, subjects, exemptions, now.date()
    )
    return assessment.Assessment(
        now.strftime("%Y-%m-%dT%H:%M:%SZ"), os.uname().nodename, str(info.get("ID") or ""),
        scopes, outcomes, controls.PROFILE, "jaula image audit",
    )  # fmt: skip


def _images(client: Client, options: Options, root: str) -> list[Image]:
    """Return the named images, or all.

    :raises InvalidRequest: when the advisories cannot be read.
    """
    import msgspec

    from jaula.features.audit.image import advisories
    from jaula.features.audit.image.files import LayerReader

    names = options.arguments or [entry["Id"] for entry in client.get("/images/json") or ()]
    reader, seen = LayerReader(), set()
    images = []
    for name in names:
        try:
            inspect = client.get(f"/images/{quote(name, '/:@')}/json")
            if inspect["Id"] in seen:
                continue
            seen.add(inspect["Id"])
            history = client.get(f"/images/{quote(inspect['Id'])}/history")
        except EngineError as error:
            if options.arguments or error.code != 404:
                raise
            continue  # it was removed since it was listed
        images.append(_image(inspect, history, root, reader))
    path = options.text("advisories")
    if not path:
        return images
    inventories = [image.inventory for image in images if image.inventory is not None]
    index = advisories.Index(advisories.load(path, advisories.names(inventories)))
    return [
        msgspec.structs.replace(image, matches=index.match(image.inventory))
        if image.inventory is not None
        else image
        for image in images
    ]


def _image(
    inspect: dict[str, Any], history: list[dict[str, Any]], root: str, reader: LayerReader
) -> Image:
    from jaula.errors import JaulaError
    from jaula.features.audit.benchmark import images
    from jaula.features.audit.image import controls, files

    scan = images.LayerScan(f"{root}/layers")
    ids = [str(id) for id in (inspect.get("RootFS") or {}).get("Layers") or ()]
    trees = scan.trees(ids)
    contents, inventory, error, package_error = None, None, "", ""
    if not trees or not all(map(os.path.isdir, trees)):
        error = package_error = "a layer is not unpacked"
    else:
        try:
            contents = files.read(trees, reader)
        except (OSError, ValueError) as failure:
            error = str(failure)
        try:
            inventory = _packages(trees)
        except (OSError, JaulaError) as failure:
            package_error = str(failure)
    return controls.Image(
        state=images.read(inspect, history, scan, []),
        annotations=controls.annotations_of(inspect, _manifest(inspect, root)),
        size=int(inspect.get("Size") or 0),
        layers=len(ids),
        files=contents,
        error=error,
        inventory=inventory,
        package_error=package_error,
    )


def _packages(trees: list[str]) -> Inventory:
    """Return the packages in the union of layers, which are lowest first.

    :raises OSError: when they cannot be mounted or read.
    :raises InvalidRequest: when a database is damaged or too large.
    """
    from jaula.features.trust.sbom import sbom_worker
    from jaula.kernel import mounts

    root = mounts.overlay(list(reversed(trees)), attributes=mounts.MOUNT_ATTR.RDONLY)
    try:
        return sbom_worker.inventory(root)
    finally:
        os.close(root)


def _manifest(inspect: dict[str, Any], root: str) -> dict[str, Any]:
    """Return the manifest of an image, empty if the engine has none or it is damaged."""
    digest = str((inspect.get("Descriptor") or {}).get("digest") or "")
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or not value.isalnum():
        return {}
    try:
        with open(f"{root}/images/blobs/sha256/{value}", "rb") as file:
            document = json.loads(file.read(MANIFEST_LIMIT))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


COMMAND = Command(
    "[OPTIONS] [IMAGE...]",
    "Audit configuration, files, secrets and packages of images",
    run,
    flags=(
        Flag("advisories", "", "string", "File of known vulnerabilities (OSV JSON or zip, or the "
             "JSON of the Debian security tracker)", completes="file"),
        Flag("exceptions", "", "string", "File of controls that may fail (TOML)", completes="file"),
        Flag("format", "", "string", "Format of the report (table, json, sarif, junit or html)",
             completes=audit.FORMATS),
        Flag("list", "l", "bool", "List the controls"),
    ),
    completes="image",
    description=(
        "Reads every layer of the images, or of all images: set-user-ID programs, file "
        "capabilities, paths that every user may write, caches, and files with the form of a key "
        "or token, also those that a higher layer removes. With --advisories, the packages of "
        "dpkg, apk, rpm, Python and Node are compared with the vulnerabilities in the file. "
        "Nothing is executed and no network is used."
    ),
    examples=(
        ("Audit an image", "jaula image audit web:1.0"),
        ("Compare packages with the Debian security tracker",
         "jaula image audit --advisories tracker.json debian:13"),
        ("Report for code scanning", "jaula image audit --format sarif > images.sarif"),
    ),
    exit_status=(
        ("0", "no control fails without an exception"),
        ("1", "a control fails or is unknown"),
    ),
    see_also=("audit", "image sbom", "image verify"),
)  # fmt: skip
