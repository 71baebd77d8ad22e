"""Sending one blob: not at all where it is there, by a mount, whole, or in chunks.

Source: distribution-spec 1.1, "Pushing blobs", "Mounting a blob from another repository". A chunk
that breaks off is gone on with from where the registry says it has got to. An upload's URL is used
only where it is the registry itself; its scheme is always the one that the registry is spoken to
with, since servers behind a proxy name another one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, Protocol

import msgspec

from jaula.errors import InvalidRequest
from jaula.images.registry import manifest as registry_manifest
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.errors import ConnectionLost, RegistryError, Unreachable
from jaula.images.registry.http import url as http_url
from jaula.images.registry.http.transport import HttpResponse
from jaula.images.registry.http.url import Url
from jaula.images.registry.repository import Repository, again
from jaula.images.registry.session import check
from jaula.images.registry.timeouts import ERROR_LIMIT
from jaula.spec.image import Descriptor

CHUNK = 64 << 20  # bytes of one request
_PIECE = 1 << 18
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,19})", re.ASCII)

Told = Callable[[int], None]


class Blobs(Protocol):
    """Where what is sent comes from."""

    def open(self, digest: str) -> BinaryIO: ...


class Upload:
    """Blobs on their way into one repository. Methods may be called from several threads."""

    def __init__(
        self, target: Repository, blobs: Blobs, cancel: Cancellation, *, chunk: int = CHUNK
    ) -> None:
        self._target = target
        self._session = target.session
        self._blobs = blobs
        self._cancel = cancel
        self._chunk = chunk
        self._scopes = (f"repository:{target.path}:pull,push",)

    @property
    def scopes(self) -> tuple[str, ...]:
        return self._scopes

    def has(self, digest: str) -> bool:
        """Whether the repository has the blob."""

        def ask() -> bool:
            answer = self._session.request(
                "HEAD",
                f"/v2/{self._target.path}/blobs/{digest}",
                self._scopes,
                cancel=self._cancel,
            )
            with check(answer, 200, 404):
                return answer.status == 200

        return again(ask, self._target.patience, self._cancel)

    def send(self, blob: Descriptor, told: Told, mounts: Iterable[str] = ()) -> str:
        """Have the blob in the repository; the name of the one it was mounted from, else ''.

        ``mounts`` are repositories of the same registry that may have it.
        """
        place: Url | None = None
        for name in mounts:
            try:
                begun = self._begin(blob.digest, name)
            except RegistryError:
                continue  # we may not look there, which says nothing about here
            if place is not None:
                self._abandon(place)
            place = begun
            if place is None:
                return name
        self._transfer(blob, place or self._started(blob.digest), told)
        return ""

    def manifest(self, reference: str, data: bytes, media_type: str, *, subject: str = "") -> bool:
        """Send a manifest under a tag or its digest, everything that it names being there.

        Whether the registry lists it among what refers to ``subject``.
        """
        digest = registry_manifest.sha256(data)

        def ask() -> bool:
            answer = self._session.request(
                "PUT",
                f"/v2/{self._target.path}/manifests/{reference}",
                self._scopes,
                cancel=self._cancel,
                headers={"Content-Type": media_type, "Content-Length": str(len(data))},
                body=lambda: (data,),
            )
            with check(answer, 201):
                answer.document(ERROR_LIMIT, "the registry's answer")
                stated = answer.header("Docker-Content-Digest")
                known = answer.header("OCI-Subject")
            if stated not in ("", digest):
                raise InvalidRequest(
                    f"the registry calls the manifest {stated[:80]!r}, not {digest}"
                )
            return bool(subject) and known == subject

        return again(ask, self._target.patience, self._cancel)

    def mount(self, digest: str, name: str) -> bool:
        """Have a blob of another repository of this registry here; whether the registry did it."""
        if self.has(digest):
            return True
        place = self._begin(digest, name)
        if place is not None:
            self._abandon(place)
        return place is None

    def _abandon(self, place: Url) -> None:
        """Tell the registry that an upload is not wanted; it would forget it by itself, later."""
        try:
            with self._session.request(
                "DELETE", place, self._scopes, cancel=self._cancel
            ) as answer:
                answer.document(ERROR_LIMIT, "the registry's answer")
        except (RegistryError, ConnectionLost, Unreachable):
            self._cancel.check()

    def _started(self, digest: str) -> Url:
        place = self._begin(digest, None)
        assert place is not None, "only a mount has no upload"
        return place

    def _begin(self, digest: str, mount: str | None) -> Url | None:
        """Begin an upload; its URL, or None where ``mount`` had the blob."""
        url = self._session.base.at(f"/v2/{self._target.path}/blobs/uploads/")
        scopes: tuple[str, ...] = self._scopes
        if mount is not None:
            url = url.with_query(f"mount={digest}&from={mount}")
            scopes = (*scopes, f"repository:{mount}:pull")

        def ask() -> Url | None:
            answer = self._session.request("POST", url, scopes, cancel=self._cancel)
            good = (201, 202) if mount is not None else (202,)
            with check(answer, *good):
                answer.document(ERROR_LIMIT, "the registry's answer")
                return None if answer.status == 201 else self._place(answer, url)

        return again(ask, self._target.patience, self._cancel)

    def _place(self, answer: HttpResponse, before: Url) -> Url:
        """Where the upload goes on."""
        location = answer.header("Location")
        if not location:
            return before
        found = http_url.parse(location, self._session.base)
        base = self._session.base
        same_port = found.port == base.port or found.scheme != base.scheme
        if found.host != base.host or not same_port:
            raise InvalidRequest(
                f"the registry {self._session.endpoint.name} wants the layer to be sent to "
                f"{found.authority}, which is refused"
            )
        return base.at(found.target)

    def _transfer(self, blob: Descriptor, place: Url, told: Told) -> None:
        """Send what is missing until all is there, then close the upload with the digest."""
        patience = self._target.patience
        attempt, pause, sent = 0, patience.pause, 0
        while True:
            try:
                while blob.size - sent > self._chunk:
                    place, sent = self._patch(blob, place, sent, self._chunk, told)
                self._put(blob, place, sent, told)
                return
            except (ConnectionLost, Unreachable, RegistryError) as error:
                self._cancel.check()
                attempt += 1
                if attempt >= patience.attempts or _is_final(error):
                    raise
            self._cancel.pause(pause)
            pause = min(pause * 2, patience.longest_pause)
            place, sent = self._look(blob, place)

    def _look(self, blob: Descriptor, place: Url) -> tuple[Url, int]:
        """How much of an upload has arrived; a new one where it is lost."""
        try:
            answer = self._session.request("GET", place, self._scopes, cancel=self._cancel)
            with check(answer, 204):
                there = _RANGE.fullmatch(answer.header("Range"))
                arrived = int(there[1]) + 1 if there and there[1] != "0" else 0
                if arrived <= blob.size:
                    return self._place(answer, place), arrived
        except (RegistryError, ConnectionLost, Unreachable):
            self._cancel.check()
        return self._started(blob.digest), 0

    def _patch(
        self, blob: Descriptor, place: Url, sent: int, size: int, told: Told
    ) -> tuple[Url, int]:
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{sent}-{sent + size - 1}",
            "Content-Length": str(size),
        }
        answer = self._session.request(
            "PATCH",
            place,
            self._scopes,
            cancel=self._cancel,
            headers=headers,
            body=lambda: self._pieces(blob, sent, size, told),
        )
        with check(answer, 202, 201, 204):
            answer.document(ERROR_LIMIT, "the registry's answer")
            return self._place(answer, place), sent + size

    def _put(self, blob: Descriptor, place: Url, sent: int, told: Told) -> None:
        size = blob.size - sent
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        if sent:
            headers["Content-Range"] = f"{sent}-{blob.size - 1}"
        answer = self._session.request(
            "PUT",
            place.with_query(f"digest={blob.digest}"),
            self._scopes,
            cancel=self._cancel,
            headers=headers,
            body=lambda: self._pieces(blob, sent, size, told),
        )
        with check(answer, 201, 204):
            answer.document(ERROR_LIMIT, "the registry's answer")
            stated = answer.header("Docker-Content-Digest")
            if stated not in ("", blob.digest):
                raise InvalidRequest(f"the registry calls {blob.digest} {stated[:80]!r}")

    def _pieces(self, blob: Descriptor, offset: int, size: int, told: Told) -> Iterator[bytes]:
        with self._blobs.open(blob.digest) as file:
            file.seek(offset)
            while size:
                self._cancel.check()
                piece = file.read(min(_PIECE, size))
                if not piece:
                    raise InvalidRequest(f"the blob {blob.digest} has another length than it had")
                size -= len(piece)
                offset += len(piece)
                yield piece
                told(offset)


def _is_final(error: Exception) -> bool:
    """416 says that the registry counts otherwise; that is looked up and gone on with."""
    return isinstance(error, RegistryError) and not (error.passing or error.answered == 416)


class UploadResult(msgspec.Struct, frozen=True):
    """What the registry has now."""

    tag: str
    digest: str
    size: int
