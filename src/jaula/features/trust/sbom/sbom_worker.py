"""Read the packages of an image in a sandboxed process, and make the document there.

The caller opens the files of the image for the process, and reads none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import msgspec

from jaula.features.trust.sbom import formats, scan
from jaula.features.trust.sbom.package import Inventory
from jaula.features.trust.sbom.sbom_rootfs import AskedFiles, RootFiles
from jaula.sandbox.sandbox_limits import Limits
from jaula.sandbox.sandbox_worker import Worker
from jaula.sandbox.start_sandbox import Task

LIMITS = Limits(memory=512 << 20, processor=30, patience=180.0, result=48 << 20)
TASK = Task("jaula-sbom", "the packages of the image", "jaula.features.trust.sbom.sbom_worker:read")

Hold = Callable[[Worker], AbstractContextManager[object]]

_INVENTORY = "inventory"


class SbomRequest(msgspec.Struct, frozen=True):
    """The image that a document describes, with the title and the form of the document."""

    form: str
    id: str = ""
    created: str = ""
    title: str = ""


def document(root: int, request: SbomRequest, hold: Hold) -> msgspec.Raw:
    """Return the document about the image with this root, as JSON. Blocks.

    The process may be ended during the context that ``hold`` returns for it.

    :raises InvalidRequest: if a database is damaged or too large, or a limit is exceeded.
    """
    data = _run(root, request, hold)
    return msgspec.json.decode(data, type=msgspec.Raw)


def inventory(root: int) -> Inventory:
    """Return the packages of the image with this root, for a command. Blocks.

    :raises InvalidRequest: as :func:`document`.
    """
    return msgspec.json.decode(
        _run(root, SbomRequest(_INVENTORY), lambda worker: nullcontext()), type=Inventory
    )


def _run(root: int, request: SbomRequest, hold: Hold) -> bytes:
    with Worker(TASK, LIMITS, RootFiles(root).answer()) as worker, hold(worker):
        return worker.call(msgspec.json.encode(request))


def read(
    payload: bytes, descriptors: list[int], ask: Callable[[bytes], tuple[bytes, list[int]]]
) -> bytes:
    """Return the document of a request. Runs in the sandboxed process."""
    request = msgspec.json.decode(payload, type=SbomRequest)
    found = scan.scan(AskedFiles(ask))
    if request.form == _INVENTORY:
        return msgspec.json.encode(found)
    image = formats.BuiltImage(request.id, request.created)
    return msgspec.json.encode(formats.FORMATS[request.form](image, request.title, found))
