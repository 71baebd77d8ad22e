"""Containers, as one caller may use them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from jaula.engine import relaxations as asking
from jaula.engine.authz.rule import ContainerAccess
from jaula.engine.model.filters import Filters

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import AsyncIterator, Sequence

    from jaula.engine.authz.session import Session
    from jaula.engine.engine import Engine
    from jaula.engine.model.container import Container
    from jaula.spec.api import ContainerCreate, ContainerUpdate
    from jaula.spec.api_params import (
        AttachOptions,
        CommitOptions,
        ContainerCreated,
        LogOptions,
        WaitResult,
    )
    from jaula.state.records import ResolvedRequest
    from jaula.storage.path_resolve import PathStat

Document = dict[str, Any]
Documents = list[Document]


class ContainersApi:
    """Containers: their owner and whoever may control others' can do what is asked."""

    def __init__(self, engine: Engine, visitor: Session) -> None:
        self._inner = engine.containers
        self._visitor = visitor

    async def create(
        self, body: ContainerCreate, name: str | None, platform: str | None
    ) -> ContainerCreated:
        visitor = self._visitor
        with visitor.deed("container create", name or "", image=body.image) as deed:

            def authorize(resolved: ResolvedRequest) -> tuple[str, ...]:
                asks = deed.judged((*asking.of_request(resolved), *visitor.inherited(resolved)))
                visitor.given(resolved)
                return visitor.prefixes(asks)

            created = await self._inner.create(
                body, name, platform, owner=visitor.owner, authorize=authorize
            )
            deed.object = created.id
            return created

    async def start(self, ref: str) -> None:
        with self._visitor.deed("container start", ref) as deed:
            deed.judged(asking.of_record(deed.container(ref).record))
            await self._inner.start(ref)

    async def stop(self, ref: str, timeout: int | None, signal: str | None) -> None:
        with self._visitor.deed("container stop", ref, lessens=True) as deed:
            deed.container(ref)
            await self._inner.stop(ref, timeout, signal)

    async def restart(self, ref: str, timeout: int | None, signal: str | None) -> None:
        with self._visitor.deed("container restart", ref) as deed:
            deed.judged(asking.of_record(deed.container(ref).record))
            await self._inner.restart(ref, timeout, signal)

    async def kill(self, ref: str, signal: str | None) -> None:
        with self._visitor.deed("container kill", ref, lessens=True) as deed:
            deed.container(ref)
            await self._inner.kill(ref, signal)

    async def pause(self, ref: str) -> None:
        with self._visitor.deed("container pause", ref, lessens=True) as deed:
            deed.container(ref)
            await self._inner.pause(ref)

    async def unpause(self, ref: str) -> None:
        with self._visitor.deed("container unpause", ref) as deed:
            deed.container(ref)
            await self._inner.unpause(ref)

    async def rename(self, ref: str, new: str) -> None:
        with self._visitor.deed("container rename", ref) as deed:
            deed.container(ref)
            await self._inner.rename(ref, new)

    async def remove(self, ref: str, *, force: bool, volumes: bool) -> None:
        with self._visitor.deed("container remove", ref, lessens=True) as deed:
            deed.container(ref)
            await self._inner.remove(ref, force=force, volumes=volumes)

    async def remove_link(self, name: str) -> None:
        with self._visitor.deed("container unlink", name, lessens=True) as deed:
            deed.run()
            deed.container(self._inner.parent_of_link(name).id)
            await self._inner.remove_link(name)

    async def wait(self, ref: str, condition: str) -> Future[WaitResult]:
        self._visitor.look()
        return await self._inner.wait(ref, condition)

    def inspect(self, ref: str, *, size: bool) -> Document:
        self._visitor.look()
        document = self._inner.inspect(ref, size=size)
        if not self._visitor.has(self._inner.find(ref), ContainerAccess.READ):
            names = [entry.partition("=")[0] for entry in document["Config"]["Env"]]
            document["Config"]["Env"] = names
        return document

    def list(self, *, all: bool, limit: int | None, filters: Filters, size: bool) -> Documents:
        self._visitor.look()
        return self._inner.list(all=all, limit=limit, filters=filters, size=size)

    async def top(self, ref: str, ps_args: str) -> Document:
        self._visitor.read(ref)
        return await self._inner.top(ref, ps_args)

    async def changes(self, ref: str) -> Documents:
        self._visitor.read(ref)
        return await self._inner.changes(ref)

    async def attach(self, ref: str, fd: int, options: AttachOptions) -> None:
        try:
            with self._visitor.deed("container attach", ref) as deed:
                deed.container(ref)
                owned, fd = fd, -1
                await self._inner.attach(ref, owned, options)
        finally:
            if fd >= 0:
                os.close(fd)

    def tty(self, ref: str, *, control: bool = False) -> bool:
        if control:
            self._visitor.control(ref)
        else:
            self._visitor.read(ref)
        return self._inner.tty(ref, control=control)

    def logs(self, ref: str, options: LogOptions) -> AsyncIterator[tuple[str, bytes]]:
        self._visitor.read(ref)
        return self._inner.logs(ref, options)

    def stats(self, ref: str, *, stream: bool, one_shot: bool) -> AsyncIterator[Document]:
        self._visitor.look()
        return self._inner.stats(ref, stream=stream, one_shot=one_shot)

    def export(self, ref: str) -> AsyncIterator[bytes]:
        self._visitor.read(ref)
        return self._inner.export(ref)

    async def commit(self, ref: str, options: CommitOptions) -> str:
        with self._visitor.deed("container commit", ref, image=options.repo) as deed:
            deed.container(ref)
            deed.images()
            return await self._inner.commit(ref, options)

    async def path_stat(self, ref: str, path: str) -> PathStat:
        self._may_copy_out(ref)
        return await self._inner.path_stat(ref, path)

    async def copy_out(self, ref: str, path: str) -> tuple[PathStat, AsyncIterator[bytes]]:
        self._may_copy_out(ref)
        return await self._inner.copy_out(ref, path)

    def _may_copy_out(self, ref: str) -> None:
        """What a container that does not run would see is mounted anew: as for a start."""
        self._visitor.read(ref)
        container = self._inner.find(ref)
        if not container.live and any(mount.type == "bind" for mount in container.record.mounts):
            self._as_it_runs(container)
            self._visitor.judge(asking.of_record(container.record))

    def _as_it_runs(self, container: Container) -> None:
        """Mounts that give an owner's rights alone give root's where it does not run."""
        if container.record.beneath and not container.live and not self._visitor.mighty:
            raise self._visitor.refusal(
                f"copy where directories of the host are mounted: {container.name} does not run",
                "start it",
            )

    async def copy_in(
        self, ref: str, path: str, stream: AsyncIterator[bytes], *, keep_kinds: bool, as_user: bool
    ) -> None:
        with self._visitor.deed("container copy", ref) as deed:
            container = deed.container(ref)
            self._as_it_runs(container)
            deed.judged(asking.of_record(container.record))
            await self._inner.copy_in(ref, path, stream, keep_kinds=keep_kinds, as_user=as_user)

    async def update(self, ref: str, body: ContainerUpdate) -> Sequence[str]:
        with self._visitor.deed("container update", ref) as deed:
            deed.container(ref)
            deed.judged(asking.of_update(body))
            return await self._inner.update(ref, body)

    async def resize(self, ref: str, h: int, w: int) -> None:
        self._visitor.control(ref)
        await self._inner.resize(ref, h, w)

    async def prune(self, filters: Filters) -> Document:
        with self._visitor.deed("container prune", "", lessens=True) as deed:
            deed.everyone("remove containers of all owners")
            return await self._inner.prune(filters)

    def spec(self, ref: str) -> bytes:
        self._visitor.read(ref)
        return self._inner.spec(ref)
