"""Upload blobs: skip, mount, send whole, or send in chunks.

Source: distribution-spec 1.1, "Pushing blobs", "Mounting a blob from another repository". After a
dropped connection the upload resumes at the offset that the registry reports. An upload URL is used
only if it is on the registry itself. Its scheme is always the one of the connection, since servers
behind a proxy state another one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, Protocol

import msgspec

from jaula.errors import InvalidRequest
from jaula.images.registry import manifest_download
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.http import url as http_url
from jaula.images.registry.http.registry_transport import HttpResponse
from jaula.images.registry.http.url import Url
from jaula.images.registry.registry_errors import ConnectionLost, RegistryError, Unreachable
from jaula.images.registry.registry_session import check
from jaula.images.registry.repository import Repository, retry
from jaula.images.registry.timeouts import ERROR_LIMIT
from jaula.spec.image_documents import Descriptor

CHUNK = 64 << 20  # bytes of one request
_READ_SIZE = 1 << 18  # bytes
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,19})", re.ASCII)

OnProgress = Callable[[int], None]


class Blobs(Protocol):
    """The source of uploaded blobs."""

    def open(self, digest: str) -> BinaryIO: ...


class Upload:
    """Uploads into one repository. Methods may be called from several threads."""

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
        """Return whether the repository has the blob."""

        def ask() -> bool:
            response = self._session.request(
                "HEAD",
                f"/{self._target.path}/blobs/{digest}",
                self._scopes,
                cancel=self._cancel,
            )
            with check(response, 200, 404):
                return response.status == 200

        return retry(ask, self._target.timeouts, self._cancel)

    def send(self, blob: Descriptor, on_progress: OnProgress, mounts: Iterable[str] = ()) -> str:
        """Upload a blob unless it can be mounted; return the repository it was mounted from, or ''.

        ``mounts`` are repositories of the same registry that may have the blob. ``on_progress`` is
        called with the number of bytes sent so far.
        """
        url: Url | None = None
        for name in mounts:
            try:
                started = self._begin(blob.digest, name)
            except RegistryError:
                continue  # no access to that repository does not mean no access to this one
            if url is not None:
                self._abandon(url)
            url = started
            if url is None:
                return name
        self._transfer(blob, url or self._start(blob.digest), on_progress)
        return ""

    def manifest(self, reference: str, data: bytes, media_type: str, *, subject: str = "") -> bool:
        """Upload a manifest under a tag or its digest. Everything that it names must exist.

        Return whether the registry lists it among the referrers of ``subject``.
        """
        digest = manifest_download.sha256(data)

        def ask() -> bool:
            response = self._session.request(
                "PUT",
                f"/{self._target.path}/manifests/{reference}",
                self._scopes,
                cancel=self._cancel,
                headers={"Content-Type": media_type, "Content-Length": str(len(data))},
                body=lambda: (data,),
            )
            with check(response, 201):
                response.document(ERROR_LIMIT, "the registry's response")
                stated = response.header("Docker-Content-Digest")
                accepted_subject = response.header("OCI-Subject")
            if stated not in ("", digest):
                raise InvalidRequest(
                    f"the registry states the digest {stated[:80]!r} for the manifest {digest}"
                )
            return bool(subject) and accepted_subject == subject

        return retry(ask, self._target.timeouts, self._cancel)

    def mount(self, digest: str, name: str) -> bool:
        """Mount a blob of another repository of this registry; return whether the blob exists."""
        if self.has(digest):
            return True
        url = self._begin(digest, name)
        if url is not None:
            self._abandon(url)
        return url is None

    def _abandon(self, url: Url) -> None:
        """Cancel an upload. Without this the registry would drop it later by itself."""
        try:
            with self._session.request(
                "DELETE", url, self._scopes, cancel=self._cancel
            ) as response:
                response.document(ERROR_LIMIT, "the registry's response")
        except (RegistryError, ConnectionLost, Unreachable):
            self._cancel.check()

    def _start(self, digest: str) -> Url:
        url = self._begin(digest, None)
        assert url is not None, "only a mount has no upload"
        return url

    def _begin(self, digest: str, mount: str | None) -> Url | None:
        """Start an upload and return its URL, or None if the blob was mounted from ``mount``."""
        url = self._session.url(f"/{self._target.path}/blobs/uploads/")
        scopes: tuple[str, ...] = self._scopes
        if mount is not None:
            url = url.with_query(f"mount={digest}&from={mount}")
            scopes = (*scopes, f"repository:{mount}:pull")

        def ask() -> Url | None:
            response = self._session.request("POST", url, scopes, cancel=self._cancel)
            good = (201, 202) if mount is not None else (202,)
            with check(response, *good):
                response.document(ERROR_LIMIT, "the registry's response")
                return None if response.status == 201 else self._upload_url(response, url)

        return retry(ask, self._target.timeouts, self._cancel)

    def _upload_url(self, response: HttpResponse, current: Url) -> Url:
        """Return the URL of the next request of the upload; ``current`` is the one of this one.

        :raises InvalidRequest: if it is on another server.
        """
        location = response.header("Location")
        if not location:
            return current
        stated = http_url.parse(location, self._session.base)
        base = self._session.base
        same_port = stated.port == base.port or stated.scheme != base.scheme
        if stated.host != base.host or not same_port:
            raise InvalidRequest(
                f"the registry {self._session.endpoint.name} redirects the upload of a layer to "
                f"{stated.authority}, which is refused"
            )
        return base.at(stated.target)

    def _transfer(self, blob: Descriptor, url: Url, on_progress: OnProgress) -> None:
        """Send a blob, resuming after errors, and close the upload with the digest."""
        timeouts = self._target.timeouts
        attempt, pause, sent = 0, timeouts.pause, 0
        while True:
            try:
                while blob.size - sent > self._chunk:
                    url, sent = self._patch(blob, url, sent, self._chunk, on_progress)
                self._put(blob, url, sent, on_progress)
                return
            except (ConnectionLost, Unreachable, RegistryError) as error:
                self._cancel.check()
                attempt += 1
                if attempt >= timeouts.attempts or _is_final(error):
                    raise
            self._cancel.pause(pause)
            pause = min(pause * 2, timeouts.longest_pause)
            url, sent = self._offset(blob, url)

    def _offset(self, blob: Descriptor, url: Url) -> tuple[Url, int]:
        """Return URL and offset of an upload, or of a new one if the registry lost it."""
        try:
            response = self._session.request("GET", url, self._scopes, cancel=self._cancel)
            with check(response, 204):
                match = _RANGE.fullmatch(response.header("Range"))
                offset = int(match[1]) + 1 if match and match[1] != "0" else 0
                if offset <= blob.size:
                    return self._upload_url(response, url), offset
        except (RegistryError, ConnectionLost, Unreachable):
            self._cancel.check()
        return self._start(blob.digest), 0

    def _patch(
        self, blob: Descriptor, url: Url, sent: int, size: int, on_progress: OnProgress
    ) -> tuple[Url, int]:
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{sent}-{sent + size - 1}",
            "Content-Length": str(size),
        }
        response = self._session.request(
            "PATCH",
            url,
            self._scopes,
            cancel=self._cancel,
            headers=headers,
            body=lambda: self._chunks(blob, sent, size, on_progress),
        )
        with check(response, 202, 201, 204):
            response.document(ERROR_LIMIT, "the registry's response")
            return self._upload_url(response, url), sent + size

    def _put(self, blob: Descriptor, url: Url, sent: int, on_progress: OnProgress) -> None:
        size = blob.size - sent
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        if sent:
            headers["Content-Range"] = f"{sent}-{blob.size - 1}"
        response = self._session.request(
            "PUT",
            url.with_query(f"digest={blob.digest}"),
            self._scopes,
            cancel=self._cancel,
            headers=headers,
            body=lambda: self._chunks(blob, sent, size, on_progress),
        )
        with check(response, 201, 204):
            response.document(ERROR_LIMIT, "the registry's response")
            stated = response.header("Docker-Content-Digest")
            if stated not in ("", blob.digest):
                raise InvalidRequest(
                    f"the registry states the digest {stated[:80]!r} for the blob {blob.digest}"
                )

    def _chunks(
        self, blob: Descriptor, offset: int, size: int, on_progress: OnProgress
    ) -> Iterator[bytes]:
        with self._blobs.open(blob.digest) as file:
            file.seek(offset)
            while size:
                self._cancel.check()
                chunk = file.read(min(_READ_SIZE, size))
                if not chunk:
                    raise InvalidRequest(f"the blob {blob.digest} became shorter")
                size -= len(chunk)
                offset += len(chunk)
                yield chunk
                on_progress(offset)


def _is_final(error: Exception) -> bool:
    """Return whether an upload cannot be resumed.

    416 means that our offset is wrong: ask the registry for its offset and resume there.
    """
    return isinstance(error, RegistryError) and not (error.is_temporary or error.http_status == 416)


class UploadResult(msgspec.Struct, frozen=True):
    """The manifest that was pushed; ``size`` is in bytes."""

    tag: str
    digest: str
    size: int
