"""Download one blob: hash it as it arrives and resume after a dropped connection.

Source: distribution-spec 1.1, "Pulling blobs"; RFC 9110 section 14 for ranges. After a dropped
connection the rest is requested. If the server sends the whole blob instead, the bytes received
before are skipped. A response whose length differs from the descriptor is refused.
"""

from __future__ import annotations

from collections.abc import Callable

from jaula.errors import InvalidRequest
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.http.registry_transport import HttpResponse
from jaula.images.registry.registry_errors import ConnectionLost, RegistryError, Unreachable
from jaula.images.registry.repository import Repository
from jaula.images.store.blobs import BlobWriter
from jaula.spec.image_documents import Descriptor

_CHUNK = 1 << 18  # bytes


def receive(
    source: Repository,
    layer: Descriptor,
    blob: BlobWriter,
    cancel: Cancellation,
    on_progress: Callable[[int], None],
) -> None:
    """Download the blob of ``layer`` into ``blob``.

    ``on_progress`` is called with the number of bytes received so far.

    :raises InvalidRequest: if the content does not match the descriptor.
    :raises ConnectionLost: or the last error of the registry, after the last attempt.
    """
    timeouts = source.timeouts
    attempt, pause, mark = 0, timeouts.pause, 0
    while blob.size < layer.size:
        try:
            with source.blob(layer.digest, blob.size, cancel) as response:
                _copy(response, layer, blob, cancel, on_progress)
            continue
        except (ConnectionLost, Unreachable, RegistryError) as error:
            cancel.check()
            if isinstance(error, RegistryError) and not error.is_temporary:
                raise
            if blob.size - mark >= timeouts.progress:
                attempt, pause = 0, timeouts.pause
            mark = blob.size
            attempt += 1
            if attempt >= timeouts.attempts:
                raise
        cancel.pause(pause)
        pause = min(pause * 2, timeouts.longest_pause)
    if blob.digest != layer.digest:
        raise InvalidRequest(f"filesystem layer verification failed for digest {layer.digest}")


def _copy(
    response: HttpResponse,
    layer: Descriptor,
    blob: BlobWriter,
    cancel: Cancellation,
    on_progress: Callable[[int], None],
) -> None:
    skip = 0
    if response.status == 206:
        _check_range(response.header("Content-Range"), layer, blob.size)
    else:
        skip = blob.size
    if response.length is not None and response.length != layer.size - blob.size + skip:
        raise InvalidRequest(
            f"the registry sends {response.length} bytes of {layer.digest}, "
            f"but the manifest says {layer.size - blob.size + skip}"
        )
    while chunk := response.read(_CHUNK):
        cancel.check()
        if skip:
            cut = min(skip, len(chunk))
            skip -= cut
            chunk = chunk[cut:]
        if blob.size + len(chunk) > layer.size:
            raise InvalidRequest(
                f"the registry sends more of {layer.digest} than the {layer.size} bytes "
                "in the manifest"
            )
        blob.write(chunk)
        on_progress(blob.size)
    if blob.size < layer.size:
        raise ConnectionLost(
            f"{response.url.authority} closed the connection "
            f"after {blob.size} of {layer.size} bytes"
        )


def _check_range(text: str, layer: Descriptor, offset: int) -> None:
    expected = f"bytes {offset}-{layer.size - 1}/"
    if not text.startswith(expected) or text.removeprefix(expected) not in (str(layer.size), "*"):
        raise InvalidRequest(
            f"{layer.digest} was requested from byte {offset}, but the registry sends {text[:80]!r}"
        )
