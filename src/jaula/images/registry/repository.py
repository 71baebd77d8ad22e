"""One repository at one registry: its documents and blobs.

Source: distribution-spec 1.1, "Pull". Paths hold a repository's name, a tag or a digest, each of a
strict grammar (:mod:`jaula.images.reference`), so nothing has to be quoted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from jaula.errors import InvalidRequest
from jaula.images.reference import is_tag
from jaula.images.registry import manifest as registry_manifest
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.errors import ConnectionLost, RegistryError
from jaula.images.registry.http import url as http_url
from jaula.images.registry.http.transport import HttpResponse
from jaula.images.registry.manifest import Document
from jaula.images.registry.session import Session, check
from jaula.images.registry.timeouts import Timeouts
from jaula.spec.image import DOCUMENT_LIMIT, Descriptor

_TAGS_LIMIT = 20_000
_PAGES_LIMIT = 400

_Result = TypeVar("_Result")


class _Tags(msgspec.Struct, frozen=True):
    tags: tuple[str, ...] | None = None


class Repository:
    """``path`` is the name below the registry: ``library/busybox``."""

    def __init__(self, session: Session, path: str) -> None:
        self.session = session
        self.path = path
        self.scopes: tuple[str, ...] = (f"repository:{path}:pull",)

    @property
    def patience(self) -> Timeouts:
        return self.session.transport.patience

    def manifest(self, reference: str, cancel: Cancellation) -> Document:
        """The manifest or index of a tag or digest, checked."""

        def fetch() -> Document:
            target = f"/v2/{self.path}/manifests/{reference}"
            sent = {"Accept": registry_manifest.ACCEPTED}
            answer = self.session.request("GET", target, self.scopes, cancel=cancel, headers=sent)
            with check(answer, 200):
                what = f"the manifest {reference}"
                return registry_manifest.read(
                    answer.document(DOCUMENT_LIMIT, what),
                    answer.header("Content-Type"),
                    wanted=reference if ":" in reference else None,
                    stated=answer.header("Docker-Content-Digest"),
                    what=what,
                )

        return again(fetch, self.patience, cancel)

    def config(self, descriptor: Descriptor, cancel: Cancellation) -> bytes:
        """A small blob, of the size and digest that its descriptor says."""
        if descriptor.size > DOCUMENT_LIMIT:
            raise InvalidRequest(
                f"the image's configuration has {descriptor.size} bytes, "
                f"at most {DOCUMENT_LIMIT} are accepted"
            )

        def fetch() -> bytes:
            with self.blob(descriptor.digest, 0, cancel) as answer:
                data = answer.document(descriptor.size, f"blob {descriptor.digest}")
            found = registry_manifest.sha256(data)
            if found != descriptor.digest or len(data) != descriptor.size:
                raise InvalidRequest(
                    f"image config verification failed for digest {descriptor.digest}: "
                    f"the registry sent {found}"
                )
            return data

        return again(fetch, self.patience, cancel)

    def blob(self, digest: str, offset: int, cancel: Cancellation) -> HttpResponse:
        """A blob from ``offset`` on; status 200 is the whole one, 206 the rest."""
        sent = {"Range": f"bytes={offset}-"} if offset else {}
        answer = self.session.request(
            "GET",
            f"/v2/{self.path}/blobs/{digest}",
            self.scopes,
            cancel=cancel,
            headers=sent,
            stream=True,
        )
        return check(answer, 200, 206) if offset else check(answer, 200)

    def tags(self, cancel: Cancellation) -> Iterator[str]:
        """Every tag. Raises :class:`InvalidRequest` where the list does not end."""
        url = self.session.base.at(f"/v2/{self.path}/tags/list")
        count = 0
        for _ in range(_PAGES_LIMIT):
            answer = self.session.request("GET", url, self.scopes, cancel=cancel)
            with check(answer, 200):
                data = answer.document(DOCUMENT_LIMIT, "the list of tags")
                link = answer.header("Link")
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
        raise InvalidRequest("the list of tags does not end")


def again(fetch: Callable[[], _Result], patience: Timeouts, cancel: Cancellation) -> _Result:
    """Do something small until it is done: answers that break off, servers that are busy."""
    pause = patience.pause
    for attempt in range(patience.attempts):
        try:
            return fetch()
        except (ConnectionLost, RegistryError) as error:
            last = attempt + 1 == patience.attempts
            if last or (isinstance(error, RegistryError) and not error.passing):
                raise
        cancel.pause(pause)
        pause = min(pause * 2, patience.longest_pause)
    raise AssertionError("the last attempt returns or raises")
