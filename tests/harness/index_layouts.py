"""OCI layouts that name an image index, with an image and an attestation for each platform."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping

from jaula.spec.image_documents import CONFIG, INDEX, LAYER_TAR, MANIFEST

Files = dict[str, bytes]
Json = dict[str, object]

IN_TOTO = "application/vnd.in-toto+json"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"


def index_layout(
    layers: Mapping[str, bytes],
    name: str | None,
    omit: Collection[str] = (),
    more: Mapping[str, object] | None = None,
    more_of: Mapping[str, Mapping[str, object]] | None = None,
) -> Files:
    """Return the files of a layout. ``layers`` has a plain tar for each platform.

    The index lists also the platforms ``omit``, of which the layout has nothing else. ``more`` are
    members of the configuration of each image, ``more_of`` those of a platform's.
    """
    files: Files = {}

    def add(data: bytes, media_type: str, **members: object) -> Json:
        files[blob_path(data)] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)} | members

    manifests = []
    for platform, layer in layers.items():
        kept = dict(files)
        os_name, architecture, *variant = platform.split("/")
        stated = {"os": os_name, "architecture": architecture}
        stated |= {"variant": variant[0]} if variant else {}
        config = {
            "created": "2024-01-02T03:04:05Z",
            "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
            "history": [{"created_by": f"build for {platform}"}],
        }
        config |= stated | dict(more or {}) | dict((more_of or {}).get(platform, {}))
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": add(json.dumps(config).encode(), CONFIG),
            "layers": [add(layer, LAYER_TAR)],
        }
        image = add(json.dumps(document).encode(), MANIFEST, platform=stated)
        statement = {"predicateType": PREDICATE_TYPE, "subject": platform}
        document["config"] = add(b'{"author":"%s"}' % platform.encode(), CONFIG)
        document["layers"] = [
            add(
                json.dumps(statement).encode(),
                IN_TOTO,
                annotations={"in-toto.io/predicate-type": PREDICATE_TYPE},
            )
        ]
        about = {
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": image["digest"],
        }
        unknown = {"os": "unknown", "architecture": "unknown"}
        attestation = add(
            json.dumps(document).encode(), MANIFEST, platform=unknown, annotations=about
        )
        manifests += [image, attestation]
        if platform in omit:
            files = kept
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}
    named = add(json.dumps(index).encode(), INDEX)
    if name is not None:
        named["annotations"] = {"io.containerd.image.name": f"docker.io/library/{name}"}
    return files | {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [named]}).encode(),
    }


def digest(data: bytes) -> str:
    """Return the digest of a blob."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def blob_path(data: bytes) -> str:
    """Return the path of a blob in a layout."""
    return "blobs/" + digest(data).replace(":", "/")
