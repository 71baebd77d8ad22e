"""The use cases of the image store: list, inspect, tag, remove, load, save, import, prune."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import msgspec

from jaula.engine.model.label_filters import (
    Filters,
    check_prune,
    has_labels,
    parse_time,
    prune_selects,
    truth,
)
from jaula.engine.threads import consume, in_thread, produce
from jaula.errors import Conflict, CorruptState, InvalidRequest, JaulaError, NotFound
from jaula.images import reference
from jaula.spec import units
from jaula.state.container_records import Status

if TYPE_CHECKING:
    from jaula.engine.model.services import Services
    from jaula.images.store.image_names import NameRights
    from jaula.images.store.image_quota import Quota
    from jaula.images.store.image_store import Image, ImageStore, RemovalResult
    from jaula.spec.image_documents import Platform

_MAX_SAVED = 1024  # names of an archive, each for each platform
_MAX_WILDCARDS = 64  # patterns of a filter
_WILDCARD = re.compile(r"[*?\[]")

Names = list[str]
Document = dict[str, Any]
Documents = list[Document]


class StoredImage(NamedTuple):
    """An image with its bytes on the disk.

    It is ``pinned`` if a container uses it or its index, or by the configuration.
    """

    image: Image
    size: int
    pinned: bool


class Images:
    """The images of an engine."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def list(
        self,
        *,
        all: bool,
        filters: Filters,
        digests: bool,
        manifests: bool = False,
        identity: bool = False,
    ) -> Documents:
        """Return Docker's summaries, newest first.

        With ``manifests`` they have the manifests of each image, and with ``identity`` also their
        identity.

        :raises InvalidRequest: when a filter is not known, or a time is not one.
        :raises NotFound: when ``before`` or ``since`` name no image.
        """
        for ref in (*filters.get("before", ()), *filters.get("since", ())):
            self._services.images.resolve(ref)
        for text in filters.get("until", ()):
            parse_time(text)
        users = self._users()
        images = self._services.images.list()
        given = filters.get("reference")
        patterns = ReferencePatterns(given) if given else None
        selected = [i for i in images if matches_filters(i, filters, self._services, patterns)]
        documents = [self._summary(image, users, patterns) for image in selected]
        if manifests or identity:
            for image, document in zip(selected, documents, strict=True):
                document["Manifests"] = self._manifests(image, users, identity=identity)
        return documents

    def _users(self) -> dict[str, Names]:
        """Return the ids of containers by the id of their image."""
        users: dict[str, Names] = {}
        for container in self._services.container_store:
            for image in dict.fromkeys(container.record.images):
                users.setdefault(image, []).append(container.id)
        return users

    def _summary(
        self, image: Image, users: Mapping[str, Names], patterns: ReferencePatterns | None = None
    ) -> Document:
        store = self._services.images
        together = store.ids_with(image.id)
        return {
            "Id": image.id,
            "ParentId": "",
            "RepoTags": patterns.matching(image.names) if patterns else list(image.names),
            "RepoDigests": list(image.digests),
            "Created": seconds(image.created),
            "Size": store.unpacked_size(image),
            "SharedSize": -1,
            "Labels": image.config.labels,  # no copy: it may have megabytes
            "Containers": sum(len(users.get(id, ())) for id in together),
            "Descriptor": msgspec.to_builtins(store.descriptor(image)),
            **self._incomplete(image),
        }

    def _manifests(
        self, image: Image, users: Mapping[str, Names], *, identity: bool = False
    ) -> Documents:
        from jaula.engine.images import manifests

        store, policy = self._services.images, self._services.image_policy
        identities = {}
        if identity:
            known = {
                each.manifest: manifests.identity(policy, each) for each in store.images(image)
            }
            identities = {manifest: document for manifest, document in known.items() if document}
        return manifests.summaries(store, image, users, identities)

    async def attestations(
        self, ref: str, platform: Platform | None, types: Sequence[str], *, statement: bool
    ) -> Documents:
        """Return the in-toto statements about an image.

        :raises NotFound: when the image does not exist, or not for the platform.
        """
        from jaula.engine.images import manifests

        store = self._services.images
        return await asyncio.to_thread(
            manifests.attestations, store, ref, platform, types, statement=statement
        )

    def inspect(
        self,
        ref: str,
        platform: Platform | None = None,
        *,
        manifests: bool = False,
        identity: bool = False,
    ) -> Document:
        """Return Docker's document of one image, of an index the one for ``platform``.

        With ``manifests`` it has the manifests of the image, with ``identity`` its identity.
        """
        image = self._services.images.resolve(ref, platform)
        more: Document = {}
        if manifests:
            more["Manifests"] = self._manifests(image, self._users())
        if identity:
            from jaula.engine.images.manifests import identity as identity_of

            if known := identity_of(self._services.image_policy, image):
                more["Identity"] = known
        return self._document(image) | more

    def _document(self, image: Image) -> Document:
        document = image.document
        config: Document = msgspec.to_builtins(image.config)
        config = _ABSENT_FIELDS | config
        return {
            "Id": image.id,
            "RepoTags": list(image.names),
            "RepoDigests": list(image.digests),
            "Parent": "",
            "Comment": document.comment,
            "Created": image.created,
            "DockerVersion": document.docker_version,
            "Author": document.author,
            "Config": config,
            "Architecture": document.architecture,
            **({"Variant": document.variant} if document.variant else {}),
            "Os": document.os or "linux",
            "Size": image.size,
            "GraphDriver": {"Name": self._services.snapshots.name, "Data": None},
            "RootFS": {"Type": "layers", "Layers": list(image.layers)},
            "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
            "Owner": self._services.images.owner_of(image.id),
            "NameOwners": self._services.images.name_owners(image),
            "Descriptor": msgspec.to_builtins(self._services.images.descriptor(image)),
            **self._incomplete(image),
        }

    def _incomplete(self, image: Image) -> Document:
        """Return the member for an image of which layers are still fetched, {} for others."""
        if self._services.lazy_layers is None:
            return {}
        incomplete = self._services.images.incomplete(image)
        if incomplete is None:
            return {}
        advice = f"jaula pull {(*image.names, *image.digests, image.id)[0]}"
        state: Document = {"Layers": list(incomplete.layers), "Failure": incomplete.failure}
        return {"Incomplete": state | ({"Advice": advice} if incomplete.failure else {})}

    async def stored(self) -> Sequence[StoredImage]:
        """Return all images, newest first."""
        return await self._describe(self._services.images.list())

    async def find_stored(self, ref: str) -> StoredImage:
        """Return the image for ``ref``: a name, an id or a unique id prefix.

        :raises NotFound: when no image matches.
        :raises CorruptState: when the image is damaged.
        """
        [stored] = await self._describe([self._services.images.resolve(ref)])
        return stored

    async def _describe(self, images: Sequence[Image]) -> Sequence[StoredImage]:
        store, used = self._services.images, self._users().keys()
        patterns = self._services.config.cri_pinned_images

        def describe() -> Sequence[StoredImage]:
            return [
                StoredImage(
                    image,
                    store.disk_size(image),
                    pinned=not used.isdisjoint(store.ids_with(image.id))
                    or is_pinned((*image.names, *image.digests), patterns),
                )
                for image in images
            ]

        return await asyncio.to_thread(describe)

    def names(self, id: str) -> tuple[Sequence[str], Sequence[str]]:
        """Return the names of an image with a tag, and those with a digest.

        :raises NotFound: when there is no such image.
        """
        image = self._services.images.resolve(id)
        return image.names, image.digests

    async def configuration(self, ref: str) -> bytes:
        """Return the configuration of an image as it was received: JSON of the OCI or Docker.

        :raises NotFound: when no image matches.
        """
        store = self._services.images
        return await asyncio.to_thread(lambda: store.config_bytes(store.resolve(ref)))

    def id_of(self, ref: str) -> str:
        """Return the id of the image for ``ref``, '' if it is absent or damaged."""
        image = self._found(ref)
        return image.id if image is not None else ""

    def index_of(self, ref: str) -> str:
        """Return the digest of the index or manifest for ``ref``, '' if it is absent or damaged."""
        image = self._found(ref)
        return image.target if image is not None else ""

    def _found(self, ref: str) -> Image | None:
        try:
            return self._services.images.resolve(ref)
        except (CorruptState, InvalidRequest, NotFound, Conflict):
            return None

    def labels(self, ref: str) -> dict[str, str]:
        """Return the labels that an image and all that a removal takes with it have."""
        store = self._services.images
        return store.common_labels(store.resolve(ref))

    def history(self, ref: str, platform: Platform | None = None) -> Documents:
        """Return the history of an image, newest step first; of an index that for ``platform``."""
        return [
            {
                "Id": item.id,
                "Created": seconds(item.created),
                "CreatedBy": item.created_by,
                "Tags": [*item.tags] or None,
                "Size": item.size,
                "Comment": item.comment,
            }
            for item in self._services.images.history(ref, platform)
        ]

    async def tag(self, ref: str, repo: str, tag: str, quota: Quota) -> None:
        """Add a tag to an image.

        :raises NotAuthorized: when another owner has set the tag to another image, or the quota
            does not allow one more name.
        """
        name = f"{repo}:{tag}" if tag else repo
        image = await in_thread(self._services.images.tag, ref, name, quota)
        self._services.events.emit("image", "tag", image.id, {"name": name})

    async def remove(
        self,
        ref: str,
        *,
        force: bool,
        noprune: bool,
        platforms: Sequence[Platform] = (),
        all_names: bool = False,
        unnamed: bool = False,
        rights: NameRights | None = None,
        id: str = "",
    ) -> Documents:
        """Remove a tag of an image, or with its last tag the image.

        With ``platforms``, only the images for these are removed from the index. With
        ``all_names``, the image is removed whichever of its names ``ref`` is. With ``unnamed``, it
        is removed only while it has no name. ``rights`` are those of the caller, None for one that
        may remove every image. ``id`` is the image for which the caller was authorized, or with
        ``platforms`` the digest of the index.

        :raises NotAuthorized: when a name belongs to another owner.
        :raises Conflict: when a container uses it, or a name was moved or added meanwhile.
        """
        if platforms:
            return [dict(step) for step in await self._remove_platforms(ref, platforms, rights, id)]
        result = await self._remove(
            ref,
            force=force,
            all_names=all_names,
            rights=rights,
            id=id,
            names=() if unnamed else None,
        )
        return [dict(step) for step in result]

    async def _remove_platforms(
        self, ref: str, platforms: Sequence[Platform], rights: NameRights | None, index: str
    ) -> RemovalResult:
        store = self._services.images
        image = store.resolve(ref)
        users = self._users()

        def in_use(id: str) -> str | None:
            return f"container {users[id][0][:12]} is using it" if id in users else None

        result = await asyncio.to_thread(
            store.remove_platforms,
            ref,
            platforms,
            in_use=in_use,
            rights=rights,
            index=index or image.target,
        )
        self._services.events.emit("image", "delete", image.id, {"name": ref})
        return result

    async def _remove(
        self,
        ref: str,
        *,
        force: bool,
        all_names: bool = False,
        rights: NameRights | None,
        id: str = "",
        names: Collection[str] | None = None,
    ) -> RemovalResult:
        try:
            image = self._services.images.resolve(ref)
        except CorruptState:
            return await asyncio.to_thread(
                self._services.images.remove, ref, all_names=all_names, rights=rights
            )
        in_use = None
        together = self._services.images.ids_with(image.id)
        for container in self._services.container_store:
            if together.isdisjoint(container.record.images):
                continue
            if container.record.status in (Status.RUNNING, Status.PAUSED, Status.RESTARTING):
                in_use = f"image is being used by running container {container.id[:12]}"
                break
            in_use = f"image is being used by stopped container {container.id[:12]}"
        running = in_use is not None and "running" in in_use
        if running and len(image.names) <= 1 and ref.removeprefix("sha256:") in image.id:
            raise Conflict(f"conflict: unable to delete {ref[:12]} (cannot be forced) - {in_use}")
        result = await asyncio.to_thread(
            self._services.images.remove,
            ref,
            force=force,
            all_names=all_names,
            in_use=in_use,
            rights=rights,
            id=id or image.id,
            names=names,
        )
        for step in result:
            for action, name in step.items():
                verb = "untag" if action == "Untagged" else "delete"
                self._services.events.emit("image", verb, image.id, {"name": name})
        return result

    async def load(
        self,
        stream: AsyncIterator[bytes],
        *,
        quiet: bool,
        quota: Quota,
        platforms: Sequence[Platform] = (),
    ) -> AsyncIterator[Document]:
        """Load images from an archive, all or those for ``platforms``; yield Docker's messages.

        :raises NotAuthorized: when the quota does not allow the images.
        """
        from jaula.images.archive.load_archive import load

        store, gate = self._services.images, self._services.image_policy

        def work(file: BinaryIO, emit: Callable[[Document], None]) -> None:
            messages = load(
                store,
                file,
                quiet=quiet,
                admit=gate.check_load,
                quota=quota,
                platforms=platforms,
            )
            for message in messages:
                emit(dict(message))

        async for message in consume(stream, work):
            text = str(message.get("stream", ""))
            if text.startswith("Loaded image"):
                name = text.partition(": ")[2].strip()
                try:
                    loaded = store.resolve(name).id
                except NotFound:
                    loaded = name  # another client has removed it already
                self._services.events.emit("image", "load", loaded, {"name": name})
            yield message

    async def save(
        self, names: Sequence[str], platforms: Sequence[Platform] = ()
    ) -> AsyncIterator[bytes]:
        """Yield an archive of images, with all platforms of an index or with ``platforms``."""
        from jaula.images.archive.save_archive import save

        store = self._services.images
        names = [tag for name in names for tag in store.tags_of(name) or (name,)]
        if len(names) * len(platforms) > _MAX_SAVED:
            raise InvalidRequest(
                f"{len(names)} images for {len(platforms)} platforms each; at most {_MAX_SAVED}"
                " images of a platform are saved at once"
            )

        def resolve() -> list[str]:
            """Return the ids; a missing image is an error before the first byte."""
            ids = [_saved_id(store, name) for name in names]
            for name, platform in product(names, dict.fromkeys(platforms)):
                store.resolve(name, platform)
            return ids

        ids = await in_thread(resolve)

        def work(emit: Callable[[bytes], None]) -> None:
            save(store, names, lambda data: emit(bytes(data)), platforms)

        for image_id, name in zip(ids, names, strict=True):
            self._services.events.emit("image", "save", image_id, {"name": name})
        async for chunk in produce(work):
            yield chunk

    async def import_(
        self,
        stream: AsyncIterator[bytes],
        repo: str,
        tag: str,
        changes: Sequence[str],
        message: str,
        platform: Platform | None,
        quota: Quota,
    ) -> AsyncIterator[Document]:
        """Create an image from the tar of a root file system, for this machine's platform if None.

        :raises NotAuthorized: when the quota does not allow the image.
        """
        from jaula.images.archive.import_archive import import_tar

        store = self._services.images
        name = reference.join_name(repo, tag) or None

        def work(file: BinaryIO, emit: Callable[[Document], None]) -> None:
            image = import_tar(
                store, file, name, changes, message=message, platform=platform, quota=quota
            )
            emit({"status": image.id})

        async for document in consume(stream, work):
            self._services.events.emit(
                "image", "import", str(document["status"]), {"name": name or ""}
            )
            yield document

    async def prune(self, filters: Filters, rights: NameRights | None = None) -> Document:
        """Remove untagged images, or with ``dangling=false`` all that no container uses.

        Images that the caller may not remove are skipped.
        """
        check_prune(filters, "dangling")
        dangling = "dangling" not in filters or truth("dangling", filters["dangling"])
        used = {image for c in self._services.container_store for image in c.record.images}
        deleted: Documents = []
        freed = 0
        for image in self._services.images.list():
            in_use = not used.isdisjoint(self._services.images.ids_with(image.id))
            if in_use or (dangling and image.names):
                continue
            if not all(
                prune_selects(filters, each.config.labels, seconds(each.created))
                for each in self._services.images.with_siblings(image)
            ):
                continue
            try:
                names = (*image.names, *image.digests)
                result = await self._remove(image.id, force=True, rights=rights, names=names)
            except JaulaError:
                continue  # of another owner, or it was named or is used in the meantime
            deleted += result
            freed += result.freed
        self._services.events.emit("image", "prune", "", {"reclaimed": str(freed)})
        return {"ImagesDeleted": deleted or None, "SpaceReclaimed": freed}


def _saved_id(store: ImageStore, name: str) -> str:
    """Return the id of an image to save.

    :raises NotFound: in Docker's words, which have the name without a default tag.
    """
    try:
        return store.resolve(name).id
    except NotFound:
        raise NotFound(f"No such image: {name}") from None


_ABSENT_FIELDS: Document = {
    **dict.fromkeys(("Hostname", "Domainname", "User", "Image", "WorkingDir"), ""),
    **dict.fromkeys(("AttachStdin", "AttachStdout", "AttachStderr"), False),
    **dict.fromkeys(("Tty", "OpenStdin", "StdinOnce"), False),
    **dict.fromkeys(("Env", "Cmd", "Entrypoint", "Volumes", "OnBuild", "Labels"), None),
}
"""Docker's values of the fields that only containers have."""


def is_pinned(names: Iterable[str], patterns: Sequence[str]) -> bool:
    """Return whether a pattern of the setting ``cri-pinned-images`` selects one of these names.

    Pure. A pattern is a name, or the beginning of full names and ``*``.
    """
    prefixes = tuple(pattern[:-1] for pattern in patterns if pattern.endswith("*"))
    exact = {reference.index_name(pattern) for pattern in patterns}
    return any(
        name in exact or reference.parse(name).canonical.startswith(prefixes) for name in names
    )


class ReferencePatterns:
    """The patterns of the filter ``reference``, taken apart once for all images.

    :raises InvalidRequest: when too many of them have wildcards.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        from fnmatch import translate

        self._plain = {p for p in patterns if not _WILDCARD.search(p)}
        self._wild: dict[int, list[list[re.Pattern[str]]]] = {}
        wild = dict.fromkeys(p for p in patterns if p not in self._plain)
        if len(wild) > _MAX_WILDCARDS:
            raise InvalidRequest(
                f"filter 'reference': {len(wild)} patterns with wildcards;"
                f" at most {_MAX_WILDCARDS} are allowed"
            )
        for pattern in wild:
            parts = [re.compile(translate(part)) for part in pattern.split("/")]
            self._wild.setdefault(len(parts), []).append(parts)

    def matching(self, names: Iterable[str]) -> list[str]:
        """Return the names that match, with or without tags; no wildcard matches a slash."""
        return [n for n in names if self._matches(n) or self._matches(_untagged(n))]

    def _matches(self, name: str) -> bool:
        if name in self._plain:
            return True
        parts = name.split("/")
        return any(
            all(pattern.match(part) for pattern, part in zip(patterns, parts, strict=True))
            for patterns in self._wild.get(len(parts), ())
        )


def _untagged(name: str) -> str:
    path, colon, tag = name.rpartition(":")
    return path if colon and "/" not in tag else name


def matches_filters(
    image: Image,
    filters: Filters,
    services: Services,
    patterns: ReferencePatterns | None = None,
) -> bool:
    """Return whether an image matches every filter of ``docker images``.

    ``patterns`` are those of ``reference``, which a caller with many images has taken apart.

    :raises InvalidRequest: when a filter is not known.
    """
    for key, values in filters.items():
        match key:
            case "dangling":
                matches = truth(key, values) == (not image.names)
            case "label":
                matches = has_labels(image.config.labels, values)
            case "reference":
                matches = bool((patterns or ReferencePatterns(values)).matching(image.names))
            case "before":
                matches = _moment(image.created) < _moment(
                    services.images.resolve(values[0]).created
                )
            case "since":
                matches = _moment(image.created) > _moment(
                    services.images.resolve(values[0]).created
                )
            case "until":
                second, fraction = _moment(image.created)
                created = second + fraction / 1e9
                matches = all(created < parse_time(value) for value in values)
            case _:
                raise InvalidRequest(f"invalid filter '{key}'")
        if not matches:
            return False
    return True


def _moment(created: str) -> tuple[int, int]:
    """Return an RFC 3339 time as Unix seconds and nanoseconds; a float has no room for both."""
    _, point, rest = created.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))] if point else ""
    return seconds(created), int(digits[:9].ljust(9, "0"))


def seconds(created: str) -> int:
    """Return an RFC 3339 time as Unix seconds, 0 if absent or malformed."""
    try:
        return int(units.unix_time(created))
    except ValueError:
        return 0
