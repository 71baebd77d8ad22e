"""Local manifest lists, stored in the user's files as docker stores them.

Source: docker/cli ``cli/manifest/store``. Each list is a directory below ``manifests`` in the
configuration directory, with one document per manifest. Slashes and colons in names are replaced.
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode

from jaula.cli.cli_errors import CliError
from jaula.kernel.syncfs import write_durable
from jaula.spec.fast_json import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_ESCAPES = str.maketrans({"/": "_", ":": "-"})


class ManifestList:
    """One local list, which may not exist yet. ``name`` is its full name, with domain and tag."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._directory = os.path.join(_top(), name.translate(_ESCAPES))

    @property
    def exists(self) -> bool:
        return os.path.isdir(self._directory)

    def remove(self) -> None:
        """Delete the list with all its documents."""
        import shutil

        shutil.rmtree(self._directory)

    def put(self, manifest: dict[str, Any]) -> None:
        """Add or replace a manifest."""
        os.makedirs(self._directory, mode=0o755, exist_ok=True)
        path = os.path.join(self._directory, manifest["Ref"].translate(_ESCAPES))
        write_durable(path, encode(manifest).encode(), 0o644)

    def manifests(self) -> list[dict[str, Any]]:
        """Return the manifests of the list, sorted by name.

        :raises CliError: when a document is damaged.
        """
        result = []
        for name in sorted(os.listdir(self._directory)):
            path = os.path.join(self._directory, name)
            try:
                with open(path, encoding="utf-8") as file:
                    document = decode(file.read())
                _ = document["Ref"], document["Descriptor"]["digest"]
            except (ValueError, KeyError, TypeError, RecursionError):
                raise CliError(
                    f"jaula: {path} is damaged: remove the list and create it again"
                ) from None
            result.append(document)
        return result

    def document(self) -> tuple[str, str]:
        """Return the media type and the JSON text to push.

        :raises CliError: when a manifest has no platform.
        """
        descriptors = []
        for manifest in self.manifests():
            descriptor = manifest["Descriptor"]
            platform = descriptor.get("platform") or {}
            if not platform.get("architecture") or not platform.get("os"):
                raise CliError(
                    f"manifest {manifest['Ref']} must have an OS and Architecture to be pushed "
                    "to a registry"
                )
            descriptors.append(descriptor)
        oci = any(d["mediaType"] == OCI_MANIFEST for d in descriptors)
        kind = OCI_INDEX if oci else DOCKER_LIST
        return kind, encode({"schemaVersion": 2, "mediaType": kind, "manifests": descriptors})


def full_name(text: str) -> str:
    """Return a reference with its domain, and its tag or digest.

    :raises CliError: when the reference is invalid.
    """
    from jaula.cli import site_packages

    site_packages.enable()
    from jaula.errors import InvalidRequest
    from jaula.images import reference

    try:
        return reference.parse(text).canonical
    except InvalidRequest as error:
        raise CliError(f"jaula: {error}") from None


def manifest_entry(name: str, document: dict[str, Any]) -> dict[str, Any]:
    """Convert the engine's manifest document to docker's form."""
    content = document["Content"]
    descriptor = dict(document["Descriptor"])
    if document.get("Platform"):
        descriptor["platform"] = document["Platform"]
    kind = "OCIManifest" if descriptor["mediaType"] == OCI_MANIFEST else "SchemaV2Manifest"
    return {
        "Ref": name,
        "Descriptor": descriptor,
        "Raw": b64encode(content.encode()).decode(),
        kind: decode(content),
    }


def raw(manifest: dict[str, Any]) -> str:
    """Return the original text of a manifest."""
    return b64decode(manifest.get("Raw") or "").decode("utf-8", "replace")


def _top() -> str:
    home = os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")
    return os.path.join(home, "manifests")
