"""Images, as one caller may use them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from jaula.engine.authz.use_case import Right, use_case
from jaula.engine.images.images import Images
from jaula.engine.model.label_filters import Filters
from jaula.engine.threads import in_thread
from jaula.images.image_platform import format_platform
from jaula.images.reference import join_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from jaula.engine.authz.caller_session import Session
    from jaula.engine.engine import Engine
    from jaula.spec.image_documents import Platform

Document = dict[str, Any]
Documents = list[Document]
_SHORT = 16  # manifests of images whose list needs no thread


@asynccontextmanager
async def closing(messages: AsyncIterator[Document]) -> AsyncIterator[AsyncIterator[Document]]:
    """Close an iterator of progress messages after the block, which ends the work behind it."""
    try:
        yield messages
    finally:
        if isinstance(messages, AsyncGenerator):
            await messages.aclose()


class ImagesApi:
    """Every caller may use all images. Changes need the images grant.

    A name is moved and removed by its owner, and by callers with control of all containers. The
    owner of an image is the caller whose share of images it takes, and who may remove it when it
    has no name.
    """

    def __init__(self, engine: Engine, session: Session) -> None:
        self._service = engine.images
        self._session = session

    inspect = use_case(Images.inspect, Right.READ)
    history = use_case(Images.history, Right.READ)
    attestations = use_case(Images.attestations, Right.READ)
    stored = use_case(Images.stored, Right.READ)
    find_stored = use_case(Images.find_stored, Right.READ)
    names = use_case(Images.names, Right.READ)
    configuration = use_case(Images.configuration, Right.READ)
    save = use_case(Images.save, Right.READ)

    async def list(
        self,
        *,
        all: bool,
        filters: Filters,
        digests: bool,
        manifests: bool = False,
        identity: bool = False,
    ) -> Documents:
        self._session.require_read()
        work = partial(
            self._service.list,
            all=all,
            filters=filters,
            digests=digests,
            manifests=manifests,
            identity=identity,
        )
        is_short = self._session.services.images.manifest_count <= _SHORT
        return work() if is_short else await in_thread(work)

    async def tag(self, ref: str, repo: str, tag: str) -> None:
        with self._session.begin("image tag", f"{ref} {repo}:{tag}") as action:
            action.require_images()
            await self._service.tag(ref, repo, tag, self._session.image_quota())

    async def remove(
        self,
        ref: str,
        *,
        force: bool,
        noprune: bool,
        platforms: Sequence[Platform] = (),
        all_names: bool = False,
        unnamed: bool = False,
    ) -> Documents:
        chosen = "".join(f" {format_platform(platform)}" for platform in platforms)
        with self._session.begin("image remove", ref + chosen, revokes=True) as action:
            rights = None
            # Before the check: a name that is moved after it is not removed.
            id = self._service.index_of(ref) if platforms else self._service.id_of(ref)
            if not action.may_remove(lambda: self._service.labels(ref)):
                action.require_images()
                rights = self._session.name_rights()
            return await self._service.remove(
                ref,
                force=force,
                noprune=noprune,
                platforms=platforms,
                all_names=all_names,
                unnamed=unnamed,
                rights=rights,
                id=id,
            )

    async def load(
        self, stream: AsyncIterator[bytes], *, quiet: bool, platforms: Sequence[Platform] = ()
    ) -> AsyncIterator[Document]:
        with self._session.begin("image load", "") as action:
            action.require_images()
            messages = self._service.load(
                stream, quiet=quiet, quota=action.reserve_image(), platforms=platforms
            )
            async with closing(messages) as progress:
                async for document in progress:
                    yield action.check_progress(document)

    async def import_(
        self,
        stream: AsyncIterator[bytes],
        repo: str,
        tag: str,
        changes: Sequence[str],
        message: str,
        platform: Platform | None = None,
    ) -> AsyncIterator[Document]:
        with self._session.begin("image import", f"{repo}:{tag}") as action:
            action.require_images()
            quota = action.reserve_image(join_name(repo, tag))
            async with closing(
                self._service.import_(stream, repo, tag, changes, message, platform, quota)
            ) as progress:
                async for document in progress:
                    yield action.check_progress(document)

    async def prune(self, filters: Filters) -> Document:
        with self._session.begin("image prune", "", revokes=True) as action:
            if action.may_prune(filters):
                return await self._service.prune(filters)
            action.require_images()
            return await self._service.prune(filters, self._session.name_rights())
