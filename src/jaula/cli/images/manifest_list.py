"""Lists of manifests that are being put together: this person's files, as docker keeps them.

Source: docker/cli ``cli/manifest/store``: a directory for each list below ``manifests`` beside the
configuration, a document for each manifest in it, slashes and colons in names replaced.
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode

from jaula.cli.errors import CliError
from jaula.spec.fast_json import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_MARKS = str.maketrans({"/": "_", ":": "-"})


class ManifestList:
    """One list, there or not. ``name`` is its full name, with domain and tag."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._directory = os.path.join(_top(), name.translate(_MARKS))

    @property
    def exists(self) -> bool:
        return os.path.isdir(self._directory)

    def remove(self) -> None:
        """Take it away with all its documents."""
        import shutil

        shutil.rmtree(self._directory)

    def put(self, manifest: dict[str, Any]) -> None:
        """Add a manifest, or replace what is known of it."""
        os.makedirs(self._directory, mode=0o755, exist_ok=True)
        path = os.path.join(self._directory, manifest["Ref"].translate(_MARKS))
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            file.write(encode(manifest))
        os.replace(f"{path}.new", path)

    def manifests(self) -> list[dict[str, Any]]:
        """What is in it, in order of names."""
        found = []
        for name in sorted(os.listdir(self._directory)):
            path = os.path.join(self._directory, name)
            try:
                with open(path, encoding="utf-8") as file:
                    document = decode(file.read())
                _ = document["Ref"], document["Descriptor"]["digest"]
            except (ValueError, KeyError, TypeError, RecursionError):
                raise CliError(
                    f"jaula: {path} is damaged: remove the list and make it again"
                ) from None
            found.append(document)
        return found

    def document(self) -> tuple[str, str]:
        """The list as it is pushed: its media type and its text."""
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
    """A name with its domain, and its tag or digest. Raises Failure."""
    from jaula.cli import site_packages

    site_packages.enable()
    from jaula.errors import InvalidRequest
    from jaula.images import reference

    try:
        return reference.parse(text).canonical
    except InvalidRequest as error:
        raise CliError(f"jaula: {error}") from None


def manifest_entry(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """A manifest as the engine tells it, in docker's form."""
    content = found["Content"]
    descriptor = dict(found["Descriptor"])
    if found.get("Platform"):
        descriptor["platform"] = found["Platform"]
    kind = "OCIManifest" if descriptor["mediaType"] == OCI_MANIFEST else "SchemaV2Manifest"
    return {
        "Ref": name,
        "Descriptor": descriptor,
        "Raw": b64encode(content.encode()).decode(),
        kind: decode(content),
    }


def raw(manifest: dict[str, Any]) -> str:
    """The manifest's own text."""
    return b64decode(manifest.get("Raw") or "").decode("utf-8", "replace")


def _top() -> str:
    home = os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")
    return os.path.join(home, "manifests")
