"""Resolve the ``--mount`` flags of a RUN: trees, caches, secrets, sockets.

Secrets are requested over the build session when the step runs, so a cached step requests none. No
digest of a secret is stored, and no id of a cache is used as a path.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import posixpath
from contextlib import ExitStack
from typing import TYPE_CHECKING

from jaula.engine.threads import in_thread
from jaula.errors import InvalidRequest, NotFound
from jaula.features.build.builder.mounts.kinds import (
    BindMount,
    CacheMount,
    SecretMount,
    SshMount,
    StepMount,
    TmpfsMount,
    absolute_target,
)
from jaula.features.build.builder.mounts.ssh_agent import SshAgent
from jaula.features.build.files import copy_sources, digest
from jaula.images.dockerfile.ast import MountKind, RunMount
from jaula.storage.trees import copy_tree

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from jaula.features.build.builder.image_state import ImageState
    from jaula.features.build.builder.job import BuildJob
    from jaula.images.dockerfile.ast import Run
    from jaula.images.dockerfile.stage_graph import PlannedStage

_SCRIPT_DIR = "/dev/pipes"
_SECRET_DIR = "/run/secrets"
_AGENT_SOCKET = "/run/buildkit/ssh_agent.{}"
_AGENT_VARIABLE = "SSH_AUTH_SOCK"


class StepMountRequests:
    """The mounts that one RUN requests. An async context, which releases their resources."""

    def __init__(
        self,
        job: BuildJob,
        planned: PlannedStage,
        state: ImageState,
        instruction: Run,
        report: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        self._job = job
        self._sources = job.sources
        self._planned = planned
        self._state = state
        self._instruction = instruction
        self._report = report
        self._held = ExitStack()
        self._agents: list[SshAgent] = []
        self.environment: list[str] = []

    async def __aenter__(self) -> StepMountRequests:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._held.close()
        for agent in self._agents:
            await agent.close()

    @property
    def script_path(self) -> str:
        """The path of the here-document that is executed."""
        return f"{_SCRIPT_DIR}/{self._instruction.heredocs[0].name}"

    async def digests(self) -> list[str]:
        """Return the digests of what the step can read in its mounts, for the cache key."""
        digests = []
        for mount in self._instruction.mounts:
            if mount.kind is not MountKind.BIND:
                continue
            if mount.origin and (layers := await self._layers(mount.origin)) is not None:
                digests.append("\n".join((*layers, mount.source)))
                continue
            with ExitStack() as held:
                tree = await self._sources.tree(self._planned, mount.origin, held, self._report)
                if tree is None:
                    raise InvalidRequest("the build has no context that could be mounted")
                sources = await in_thread(copy_sources.select, tree, mount.source or ".")
                digests.append(await in_thread(digest.digest, sources))
        return digests

    async def _layers(self, origin: str) -> tuple[str, ...] | None:
        return await self._sources.layers_of(self._planned, origin, self._report)

    async def mounts(self) -> list[StepMount]:
        """Return the mounts. Secrets are requested and caches acquired now."""
        mounts: list[StepMount] = []
        for mount in self._instruction.mounts:
            match mount.kind:
                case MountKind.BIND:
                    mounts.append(await self._bind(mount))
                case MountKind.CACHE:
                    mounts.append(await self._cache(mount))
                case MountKind.TMPFS:
                    mounts.append(TmpfsMount(target=self._target(mount.target), size=mount.size))
                case MountKind.SECRET:
                    mounts += await self._secret(mount)
                case MountKind.SSH:
                    mounts += await self._agent(mount)
        if self._instruction.script:
            content = self._instruction.script.encode()
            mounts.append(SecretMount(target=self.script_path, content=content, mode=0o755))
        return mounts

    def _target(self, text: str) -> str:
        return absolute_target(text, self._state.config.working_dir)

    # -- trees -------------------------------------------------------------------------------

    async def _bind(self, mount: RunMount) -> BindMount:
        lowers, title = await self._lowers(mount.origin)
        return BindMount(
            target=self._target(mount.target),
            lowers=lowers,
            source=mount.source or "/",
            writable=mount.writable,
            title=title,
        )

    async def _lowers(self, origin: str) -> tuple[tuple[str, ...], str]:
        layers = await self._layers(origin) if origin else None
        if layers is None:
            path = await self._sources.context_path(origin, self._report)
            return (path,), f"the context {origin}" if origin else "the build context"
        if not layers:
            raise InvalidRequest(f"{origin!r} has no files to mount")
        store = self._job.services.layers
        return tuple(store.path(layer) for layer in reversed(layers)), origin

    # -- caches ------------------------------------------------------------------------------

    async def _cache(self, mount: RunMount) -> CacheMount:
        cache_dirs = self._job.cache_dirs
        identity = [self._job.owner, mount.id, mount.origin, mount.source]
        name = hashlib.sha256("\0".join(identity).encode()).hexdigest()
        path = await cache_dirs.acquire(name, mount.sharing, self._held)
        if not os.path.isdir(path):
            content = await self._lowers(mount.origin) if mount.origin else None
            await in_thread(self._create_cache, path, mount, content)
        cache_dirs.write_id(path, mount.id)
        return CacheMount(target=self._target(mount.target), path=path)

    def _create_cache(
        self, path: str, mount: RunMount, content: tuple[tuple[str, ...], str] | None
    ) -> None:
        self._job.cache_dirs.create(
            path,
            mode=0o755 if mount.mode is None else mount.mode,
            owner=(mount.uid, mount.gid),
            client=self._job.owner,
            fill=None if content is None else lambda target: self._fill(target, mount, *content),
        )

    def _fill(self, target: int, mount: RunMount, lowers: tuple[str, ...], title: str) -> None:
        from jaula.kernel import openat2
        from jaula.spec.rootfs import OverlayRoot
        from jaula.storage.drivers.storage_driver import open_root

        with open_root(OverlayRoot(lowers, user_xattr=self._job.services.host.rootless)) as root:
            try:
                flags = os.O_RDONLY | os.O_DIRECTORY
                source = openat2.open_in_root(root, mount.source or "/", flags)
            except OSError as error:
                raise InvalidRequest(
                    f"{mount.source!r} of {title} cannot fill a cache: {error.strerror}"
                ) from error
            try:
                copy_tree(source, target)
            finally:
                os.close(source)

    # -- secrets and agents of the client ------------------------------------------------------

    async def _secret(self, mount: RunMount) -> list[StepMount]:
        session = self._sources.session
        content = None if session is None else await session.secret(mount.id)
        if content is None:
            if mount.required:
                raise NotFound(
                    f"secret {mount.id!r} is required but was not provided",
                    hint=f"add --secret id={mount.id},src=FILE",
                )
            return []
        mounts: list[StepMount] = []
        if mount.env:
            mounts.append(SecretMount(content=content, variable=mount.env))
        if mount.target or not mount.env:
            target = mount.target or posixpath.join(_SECRET_DIR, posixpath.basename(mount.id))
            mounts.append(
                SecretMount(
                    target=self._target(target),
                    content=content,
                    mode=0o400 if mount.mode is None else mount.mode,
                    uid=mount.uid,
                    gid=mount.gid,
                )
            )
        return mounts

    async def _agent(self, mount: RunMount) -> list[StepMount]:
        session = self._sources.session
        if session is None or not await session.has_agent(mount.id):
            if mount.required:
                raise NotFound(
                    f"ssh agent {mount.id!r} is required but was not provided",
                    hint="add --ssh default",
                )
            return []
        agent = SshAgent(session, mount.id, asyncio.get_running_loop())
        target = self._target(mount.target or _AGENT_SOCKET.format(len(self._agents)))
        self._agents.append(agent)
        if not any(entry.startswith(_AGENT_VARIABLE + "=") for entry in self.environment):
            self.environment.append(f"{_AGENT_VARIABLE}={target}")
        return [
            SshMount(
                target=target,
                listen=agent.listen,
                mode=0o600 if mount.mode is None else mount.mode,
                uid=mount.uid,
                gid=mount.gid,
            )
        ]
