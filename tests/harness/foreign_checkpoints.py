"""Archives of checkpoints from another engine, without CRIU: for what decides about them."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import msgspec

from harness import containers
from harness.engine import PrivateEngine
from jaula.features.checkpoint import checkpoint_archive
from jaula.features.checkpoint.checkpoint_store import (
    MANIFEST,
    ROOT_TAR,
    SPEC,
    CheckpointFiles,
    CheckpointStore,
    ContainerDescription,
    Manifest,
    add_file,
    describe_file,
)
from jaula.features.trust import signing_keys
from jaula.spec.api_documents import ContainerCreate


class ForeignCheckpoints:
    """Archives of checkpoints as another engine writes them, signed with a key.

    The images of processes are none: nothing can be restored from them.
    """

    def __init__(
        self, engine: PrivateEngine, directory: Path, key: signing_keys.PrivateKey
    ) -> None:
        self._engine = engine
        self._key = key
        self._store = CheckpointStore(directory / "foreign")

    def image(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = self._engine.request("GET", f"/images/{name}/json").json()
        return document

    def make(
        self, container: str, name: str, of: str = "", key: signing_keys.PrivateKey | None = None
    ) -> bytes:
        """Return an archive that names an image, and has the id and layers of the image ``of``."""
        image = self.image(of or name)
        facts = Manifest(
            container=container,
            name="one",
            created=1_700_000_000_000_000_000,
            criu="4.2",
            kernel="6.18",
            architecture=os.uname().machine,
            image=image["Id"],
            description=ContainerDescription(
                name=containers.unique("imported"),
                body=ContainerCreate(image=name, cmd=("sleep", "60")),
                image_id=image["Id"],
                layers=tuple(image["RootFS"]["Layers"]),
            ),
        )
        images = self._store.begin(container, "one")
        (images / "files.img").write_bytes(b"files")
        (images.parent / SPEC).write_bytes(b"{}")
        with add_file(images, ROOT_TAR) as file:
            file.write(bytes(1024))
        held = CheckpointFiles(files=(describe_file(images, ROOT_TAR),))
        manifest = self._store.commit(images, msgspec.structs.replace(facts, held=held))
        checkpoint = self._store.images(manifest).parent
        signature = (key or self._key).sign((checkpoint / MANIFEST).read_bytes())
        out = io.BytesIO()
        checkpoint_archive.write(checkpoint, manifest, out.write, signature=signature)
        self._store.remove(container, "one")
        return out.getvalue()
