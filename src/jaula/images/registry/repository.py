"""One repository at one registry: its documents and blobs.

Source: distribution-spec 1.1, "Pull". Request paths contain a repository name, a tag or a digest.
Each has a strict grammar (:mod:`jaula.images.reference`), so nothing has to be quoted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from jaula.errors import InvalidRequest, Unsupported
from jaula.images.reference import is_tag
from jaula.images.registry import manifest_download
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.http import url as http_url
from jaula.images.registry.http.registry_transport import HttpResponse
from jaula.images.registry.manifest_download import Document
from jaula.images.registry.registry_errors import ConnectionLost, RegistryError
from jaula.images.registry.registry_session import Session, check
from jaula.images.registry.timeouts import Timeouts
from jaula.spec.image_documents import DOCUMENT_LIMIT, Descriptor

_ATTEMPTS = 2  # at a server before the next one is asked
_TAGS_LIMIT = 20_000
_PAGES_LIMIT = 400

_Result = TypeVar("_Result")


class _Tags(msgspec.Struct, frozen=True):
    tags: tuple[str, ...] | None = None


class Repository:
    """``path`` is the name within the registry: ``library/busybox``.

    With ``alternatives``, other servers may have the content, so fewer attempts are made.
    """

    def __init__(self, session: Session, path: str, *, alternatives: bool = False) -> None:
        self.session = session
        self.path = path
        self._alternatives = alternatives
        self.scopes: tuple[str, ...] = (f"repository:{path}:pull",)

    @property
    def timeouts(self) -> Timeouts:
        timeouts = self.session.transport.timeouts
        if not self._alternatives:
            return timeouts
        attempts = min(timeouts.attempts, _ATTEMPTS)
        return msgspec.structs.replace(timeouts, attempts=attempts)

    def manifest(self, reference: str, cancel: Cancellation) -> Document:
        """Return the manifest or index of a tag or digest, verified."""

        def fetch() -> Document:
            target = f"/{self.path}/manifests/{reference}"
            headers = {"Accept": manifest_download.ACCEPTED}
            response = self.session.request(
                "GET", target, self.scopes, cancel=cancel, headers=headers
            )
            with check(response, 200):
                what = f"the manifest {reference}"
                return manifest_download.read(
                    response.document(DOCUMENT_LIMIT, what),
                    response.header("Content-Type"),
                    expected=reference if ":" in reference else None,
                    stated=response.header("Docker-Content-Digest"),
                    what=what,
                )

        return retry(fetch, self.timeouts, cancel)

    def config(self, descriptor: Descriptor, cancel: Cancellation) -> bytes:
        """Return a small blob, verified against the size and digest of its descriptor."""
        if descriptor.size > DOCUMENT_LIMIT:
            raise InvalidRequest(
                f"the image's configuration has {descriptor.size} bytes, "
                f"the limit is {DOCUMENT_LIMIT}"
            )

        def fetch() -> bytes:
            with self.blob(descriptor.digest, 0, cancel) as response:
                data = response.document(descriptor.size, f"blob {descriptor.digest}")
            digest = manifest_download.sha256(data)
            if digest != descriptor.digest or len(data) != descriptor.size:
                raise InvalidRequest(
                    f"image config verification failed for digest {descriptor.digest}: "
                    f"the registry headers {digest}"
                )
            return data

        return retry(fetch, self.timeouts, cancel)

    def blob(self, digest: str, offset: int, cancel: Cancellation) -> HttpResponse:
        """Return a response with a blob from byte ``offset``.

        Status 200 is the whole blob, 206 the rest.
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        response = self.session.request(
            "GET",
            f"/{self.path}/blobs/{digest}",
            self.scopes,
            cancel=cancel,
            headers=headers,
            stream=True,
        )
        return check(response, 200, 206) if offset else check(response, 200)

    def blob_range(
        self, digest: str, offset: int, length: int, cancel: Cancellation
    ) -> HttpResponse:
        """Return a response with exactly ``length`` bytes of a blob, from byte ``offset``.

        :raises Unsupported: if the registry does not serve ranges.
        :raises RegistryError: if it refuses the request.
        """
        last = offset + length - 1
        response = self.session.request(
            "GET",
            f"/{self.path}/blobs/{digest}",
            self.scopes,
            cancel=cancel,
            headers={"Range": f"bytes={offset}-{last}"},
            stream=True,
        )
        check(response, 200, 206)
        stated = response.header("Content-Range").partition("/")[0]
        if response.status == 206 and stated == f"bytes {offset}-{last}":
            return response
        response.drop()
        raise Unsupported(
            f"the registry {self.session.endpoint.name} does not serve parts of blobs"
        )

    def tags(self, cancel: Cancellation) -> Iterator[str]:
        """Yield every tag.

        :raises InvalidRequest: if the list is not valid or has too many pages.
        """
        url = self.session.url(f"/{self.path}/tags/list")
        count = 0
        for _ in range(_PAGES_LIMIT):
            response = self.session.request("GET", url, self.scopes, cancel=cancel)
            with check(response, 200):
                data = response.document(DOCUMENT_LIMIT, "the list of tags")
                link = response.header("Link")
            try:
                tags = msgspec.json.decode(data, type=_Tags).tags or ()
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
                raise InvalidRequest(f"the list of tags is not valid: {error}") from None
            for tag in tags:
                count += 1
                if is_tag(tag) and count <= _TAGS_LIMIT:
                    yield tag
            if not link.startswith("<") or count > _TAGS_LIMIT:
                return
            url = http_url.parse(link[1:].partition(">")[0], url)
        raise InvalidRequest(f"the list of tags has more than {_PAGES_LIMIT} pages")


def retry(fetch: Callable[[], _Result], timeouts: Timeouts, cancel: Cancellation) -> _Result:
    """Call ``fetch`` until it succeeds; retry dropped connections and temporary errors."""
    pause = timeouts.pause
    for attempt in range(timeouts.attempts):
        try:
            return fetch()
        except (ConnectionLost, RegistryError) as error:
            last = attempt + 1 == timeouts.attempts
            if last or (isinstance(error, RegistryError) and not error.is_temporary):
                raise
        cancel.pause(pause)
        pause = min(pause * 2, timeouts.longest_pause)
    raise AssertionError("the last attempt returns or raises")
