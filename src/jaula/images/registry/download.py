"""Receiving one blob: in order, checked while it comes, gone on with after a break.

Source: distribution-spec 1.1, "Pulling blobs"; RFC 9110 section 14 for ranges. After a broken
connection the rest is asked for; a server that sends everything again instead is heard out, and
what is there already is skipped. An answer that says another length than the descriptor, or goes
on beyond it, is refused.
"""

from __future__ import annotations

from collections.abc import Callable

from jaula.errors import InvalidRequest
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.errors import ConnectionLost, RegistryError, Unreachable
from jaula.images.registry.http.transport import HttpResponse
from jaula.images.registry.repository import Repository
from jaula.images.store.blobs import BlobWriter
from jaula.spec.image import Descriptor

_PIECE = 1 << 18


def receive(
    source: Repository,
    layer: Descriptor,
    blob: BlobWriter,
    cancel: Cancellation,
    told: Callable[[int], None],
) -> None:
    """Write the blob of ``layer``; ``told`` hears how many bytes are there.

    Raises :class:`InvalidRequest` for one that is not what its descriptor says, and the last
    failure where the attempts are used up.
    """
    patience = source.patience
    attempt, pause, mark = 0, patience.pause, 0
    while blob.size < layer.size:
        try:
            with source.blob(layer.digest, blob.size, cancel) as answer:
                _copy(answer, layer, blob, cancel, told)
            continue
        except (ConnectionLost, Unreachable, RegistryError) as error:
            cancel.check()
            if isinstance(error, RegistryError) and not error.passing:
                raise
            if blob.size - mark >= patience.progress:
                attempt, pause = 0, patience.pause
            mark = blob.size
            attempt += 1
            if attempt >= patience.attempts:
                raise
        cancel.pause(pause)
        pause = min(pause * 2, patience.longest_pause)
    if blob.digest != layer.digest:
        raise InvalidRequest(f"filesystem layer verification failed for digest {layer.digest}")


def _copy(
    answer: HttpResponse,
    layer: Descriptor,
    blob: BlobWriter,
    cancel: Cancellation,
    told: Callable[[int], None],
) -> None:
    skip = 0
    if answer.status == 206:
        _check_range(answer.header("Content-Range"), layer, blob.size)
    else:
        skip = blob.size
    if answer.length is not None and answer.length != layer.size - blob.size + skip:
        raise InvalidRequest(
            f"the registry sends {answer.length} bytes of {layer.digest}, "
            f"its manifest says {layer.size - blob.size + skip}"
        )
    while piece := answer.read(_PIECE):
        cancel.check()
        if skip:
            cut = min(skip, len(piece))
            skip -= cut
            piece = piece[cut:]
        if blob.size + len(piece) > layer.size:
            raise InvalidRequest(
                f"the registry sends more of {layer.digest} than the {layer.size} bytes "
                "that its manifest says"
            )
        blob.write(piece)
        told(blob.size)
    if blob.size < layer.size:
        raise ConnectionLost(
            f"{answer.url.authority} broke off after {blob.size} of {layer.size} bytes"
        )


def _check_range(text: str, layer: Descriptor, offset: int) -> None:
    wanted = f"bytes {offset}-{layer.size - 1}/"
    if not text.startswith(wanted) or text.removeprefix(wanted) not in (str(layer.size), "*"):
        raise InvalidRequest(
            f"the registry was asked for {layer.digest} from byte {offset} on and sends "
            f"{text[:80]!r}"
        )
