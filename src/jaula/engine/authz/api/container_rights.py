"""Containers, as one caller may use them."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from jaula import metrics
from jaula.engine import relaxations
from jaula.engine.authz import request_ceilings
from jaula.engine.authz.authorization_policy import ContainerAccess
from jaula.engine.authz.request_ceilings import Share
from jaula.engine.authz.use_case import Right, use_case
from jaula.engine.containers.containers import Containers
from jaula.engine.containers.storage_opt import size_limit
from jaula.engine.containers.update import updated_resources
from jaula.engine.model.container_store import check_name
from jaula.engine.model.label_filters import Filters
from jaula.engine.model.seal import request_seal
from jaula.engine.threads import in_thread
from jaula.engine.volumes.mount_sources import option_names
from jaula.images.reference import join_name
from jaula.state.container_records import log_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from jaula.engine.authz.caller_session import AuditedAction, Session
    from jaula.engine.containers.bounds import Authorize, Bounds
    from jaula.engine.engine import Engine
    from jaula.engine.model.container import Container
    from jaula.spec.api_documents import (
        ContainerCreate,
        ContainerUpdate,
    )
    from jaula.spec.api_params import (
        AttachOptions,
        CommitOptions,
        ContainerCreated,
    )
    from jaula.state.container_records import ResolvedRequest
    from jaula.storage.path_resolve import DirectoryListing, PathStat

Document = dict[str, Any]
Documents = list[Document]
_SHORT = 256 << 10  # bytes of records whose list needs no thread


def create_authorization(
    session: Session, action: AuditedAction, body: ContainerCreate, name: str
) -> Authorize:
    """Return the check of a create request, which records its privileges in ``action``."""

    def authorize(merged: ContainerCreate, resolved: ResolvedRequest) -> Bounds:
        host, entry = merged.host_config, ""
        if relaxations.has_engine_socket(resolved):
            # Labels of the request alone: the image must not choose its own right.
            plain_name = check_name(name) if name else ""
            entry = session.policy.proposed_entry(plain_name, body.labels)
        privileges = action.authorize(
            (
                *relaxations.of_request(merged, resolved, entry),
                *session.inherited_mounts(host, resolved),
            )
        )
        session.check_request(merged, resolved)
        session.check_ceilings(
            request_ceilings.of_storage(size_limit(body.host_config.storage_opt))
        )
        check_container_name(session, name)
        session.services.hooks.request_authorized(session, merged, resolved)
        session.authorize_networks(body, resolved)
        action.reserve(Share.CONTAINERS)
        action.reserve(Share.VOLUMES, session.authorize_volumes(resolved))
        return session.bounds(log_of(merged, resolved), privileges, entry, action.reserve_container)

    return authorize


def check_container_name(session: Session, name: str) -> None:
    """Check that the name of a container hides no container of another owner.

    :raises NotAuthorized: when it does.
    """
    owners = ((c.id, c.record.owner) for c in session.services.container_store)
    session.check_new_name("container", name.removeprefix("/"), owners)


def _hide_content(document: Document) -> None:
    """Remove from an inspected container what a caller may not know who may only list it.

    These are values of variables, passwords of volumes, and what the programs do and print.
    """
    names = [entry.partition("=")[0] for entry in document["Config"]["Env"]]
    document["Config"]["Env"] = names
    for probe in (document["State"].get("Health") or {}).get("Log") or ():
        probe["Output"] = ""
    for mount in document["HostConfig"].get("Mounts", ()):
        driver = mount.get("VolumeOptions", {}).get("DriverConfig") or {}
        if options := driver.get("Options"):
            driver["Options"] = option_names(options)
    for member in ("EgressRefused", "NamesRefused"):
        document.pop(member, None)


class ContainersApi:
    """Containers may be changed by their owner, and by callers with control of all containers."""

    def __init__(self, engine: Engine, session: Session) -> None:
        self._service = engine.containers
        self._session = session

    stop = use_case(Containers.stop, Right.REMOVE, "container stop", revokes=True)
    restart = use_case(Containers.restart, Right.START, "container restart")
    kill = use_case(Containers.kill, Right.REMOVE, "container kill", revokes=True)
    pause = use_case(Containers.pause, Right.CONTROL, "container pause", revokes=True)
    unpause = use_case(Containers.unpause, Right.CONTROL, "container unpause")
    remove = use_case(Containers.remove, Right.REMOVE, "container remove", revokes=True)
    resize = use_case(Containers.resize, Right.CONTROL)
    wait = use_case(Containers.wait, Right.READ)
    stats = use_case(Containers.stats, Right.READ)
    top = use_case(Containers.top, Right.READ_CONTAINER)
    logs = use_case(Containers.logs, Right.READ_CONTAINER)
    log_follower = use_case(Containers.log_follower, Right.READ_CONTAINER)
    export = use_case(Containers.export, Right.READ_CONTAINER)
    spec = use_case(Containers.spec, Right.READ_CONTAINER)

    async def create(
        self, body: ContainerCreate, name: str | None, platform: str | None
    ) -> ContainerCreated:
        session = self._session
        with session.begin("container create", name or "", image=body.image) as action:
            created = await self._service.create(
                body,
                name,
                platform,
                owner=session.owner,
                authorize=create_authorization(session, action, body, name or ""),
            )
            action.object = created.id
            action.seal = request_seal(self._service.find(created.id).record)
            return created

    async def start(self, ref: str, *, checkpoint: str = "", checkpoint_dir: str = "") -> None:
        with self._session.begin("container start", ref) as action:
            action.authorize_start(ref)
            if checkpoint:
                action.require_enter(ref)
                action.authorize_more(relaxations.of_checkpoint_directory(checkpoint_dir))
            await self._service.start(ref, checkpoint=checkpoint, checkpoint_dir=checkpoint_dir)

    async def rename(self, ref: str, new: str) -> None:
        with self._session.begin("container rename", ref) as action:
            container = action.require_control(ref)
            check_container_name(self._session, new)
            action.reserve(Share.RECORD_SIZE, len(new.encode()), container.record.owner)
            await self._service.rename(ref, new)

    async def import_(
        self, ref: str, name: str, created: int | None, stream: AsyncIterator[bytes]
    ) -> None:
        with self._session.begin("container import", ref) as action:
            self._session.require_import("the files of a container")
            action.require_control(ref)
            await self._service.import_(ref, name, created, stream)

    async def remove_link(self, name: str) -> None:
        with self._session.begin("container unlink", name, revokes=True) as action:
            action.require_run()
            action.require_control(self._service.parent_of_link(name).id)
            await self._service.remove_link(name)

    async def inspect(self, ref: str, *, size: bool) -> Document:
        self._session.require_read()
        document = await self._service.inspect(ref, size=size)
        if entry := self._service.find(ref).record.engine_socket:
            document["EngineSocket"] = self._session.policy.describe_entry(entry)
        if not self._session.can_access(self._service.find(ref), ContainerAccess.READ):
            _hide_content(document)
        return document

    async def list(
        self, *, all: bool, limit: int | None, filters: Filters, size: bool, pods: bool = False
    ) -> Documents:
        self._session.require_read()
        work = partial(
            self._service.list, all=all, limit=limit, filters=filters, size=size, pods=pods
        )
        is_short = self._session.services.container_store.sizes.total <= _SHORT
        return work() if is_short and not size else await in_thread(work)

    async def changes(self, ref: str) -> Documents:
        self._session.require_container_read(ref)
        started = time.perf_counter()
        changes = await self._service.changes(ref)
        metrics.CONTAINER_ACTIONS.observe(time.perf_counter() - started, "changes")
        return changes

    async def attach(self, ref: str, fd: int, options: AttachOptions) -> None:
        try:
            with self._session.begin("container attach", ref) as action:
                action.require_enter(ref)
                owned, fd = fd, -1
                await self._service.attach(ref, owned, options)
        finally:
            if fd >= 0:
                os.close(fd)

    async def give_descriptors(self, ref: str, fds: Sequence[int]) -> None:
        """A socket is one of the client's network namespace: no rule of the container applies."""
        try:
            with self._session.begin("container descriptors", ref) as action:
                action.require_enter(ref)
                action.authorize_more(relaxations.of_descriptors())
                owned, fds = fds, []
                await self._service.give_descriptors(ref, owned)
        finally:
            for fd in fds:
                os.close(fd)

    def tty(self, ref: str, *, control: bool = False) -> bool:
        if control:
            self._session.require_engine_socket(self._session.require_control(ref))
        else:
            self._session.require_container_read(ref)
        return self._service.tty(ref, control=control)

    async def commit(self, ref: str, options: CommitOptions) -> str:
        with self._session.begin("container commit", ref, image=options.repo) as action:
            action.require_control(ref)
            action.require_images()
            name = join_name(options.repo, options.tag)
            return await self._service.commit(ref, options, action.reserve_image(name))

    async def path_stat(self, ref: str, path: str) -> PathStat:
        self._authorize_copy_out(ref)
        return await self._service.path_stat(ref, path)

    async def list_directory(self, ref: str, path: str) -> DirectoryListing:
        self._authorize_copy_out(ref)
        return await self._service.list_directory(ref, path)

    async def copy_out(self, ref: str, path: str) -> tuple[PathStat, AsyncIterator[bytes]]:
        self._authorize_copy_out(ref)
        return await self._service.copy_out(ref, path)

    def _authorize_copy_out(self, ref: str) -> None:
        """Check a copy; the mounts of a stopped container are mounted as for a start."""
        self._session.require_container_read(ref)
        container = self._service.find(ref)
        if container.live:
            return
        record = container.record
        self._session.authorize_mounts(record.mounts, record.owner)
        if any(mount.type == "bind" for mount in record.mounts):
            self._require_running(container)
            self._session.authorize(relaxations.of_record(record))

    def _require_running(self, container: Container) -> None:
        """Refuse a copy that would open a restricted bind mount as root.

        Such a mount has the rights of its owner only. While the container is stopped, the engine
        would open it with those of root.
        """
        if container.record.beneath and not container.live and not self._session.is_admin:
            raise self._session.denial(
                f"copy below directories of the host: {container.name} is not running",
                "start it",
            )

    async def copy_in(
        self, ref: str, path: str, stream: AsyncIterator[bytes], *, keep_kinds: bool, as_user: bool
    ) -> None:
        with self._session.begin("container copy", ref) as action:
            container = action.require_control(ref)
            self._require_running(container)
            action.authorize(relaxations.of_record(container.record))
            self._session.authorize_mounts(container.record.mounts, container.record.owner)
            await self._service.copy_in(ref, path, stream, keep_kinds=keep_kinds, as_user=as_user)

    async def update(self, ref: str, body: ContainerUpdate) -> Sequence[str]:
        with self._session.begin("container update", ref) as action:
            container = action.require_control(ref)
            old = container.record.host_config
            action.authorize(relaxations.of_update(body))
            action.reserve_change(container, body)
            new, pids = updated_resources(old, body), self._session.services.host.pids_limit
            self._session.check_ceilings(request_ceilings.of_update(old, new, pids))
            warnings = await self._service.update(ref, body)
            action.seal = request_seal(container.record)
            return warnings

    async def prune(self, filters: Filters) -> Document:
        with self._session.begin("container prune", "", revokes=True) as action:
            if action.may_prune(filters):
                return await self._service.prune(filters)
            action.require_run()
            return await self._service.prune(
                filters, lambda each: self._session.can_access(each, ContainerAccess.CONTROL)
            )
