"""From the ``--mount`` flags of a RUN to mounts: trees, caches, secrets, sockets.

Secrets are asked for on the build's session when the step runs, so a step that is cached asks for
none. No digest of a secret is kept, no name of a cache is a path.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import posixpath
from contextlib import ExitStack
from typing import TYPE_CHECKING

from jaula.engine.build_threads import in_thread
from jaula.engine.builder.mounts.kinds import (
    BindMount,
    CacheMount,
    SecretMount,
    SshMount,
    StepMount,
    TmpfsMount,
    target_of,
)
from jaula.engine.builder.mounts.ssh_agent import SshAgent
from jaula.errors import InvalidRequest, NotFound
from jaula.images.build import digest, select
from jaula.images.build.dockerfile.ast import MountKind, RunMount
from jaula.storage.trees import copy_tree

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from jaula.engine.builder.build import Build
    from jaula.engine.builder.image_state import ImageState
    from jaula.images.build.dockerfile.ast import Run
    from jaula.images.build.dockerfile.stage_graph import PlannedStage

_SCRIPTS = "/dev/pipes"
_SECRETS = "/run/secrets"
_AGENTS = "/run/buildkit/ssh_agent.{}"
_AGENT_VARIABLE = "SSH_AUTH_SOCK"


class StepMountRequests:
    """What the mounts of one RUN need; an async context that lets go of it."""

    def __init__(
        self,
        build: Build,
        planned: PlannedStage,
        state: ImageState,
        instruction: Run,
        tell: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        self._build = build
        self._planned = planned
        self._state = state
        self._instruction = instruction
        self._tell = tell
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
        """Where the here-document that is executed lies."""
        return f"{_SCRIPTS}/{self._instruction.heredocs[0].name}"

    async def digests(self) -> list[str]:
        """What the step can read by its mounts, for the cache's key."""
        found = []
        for mount in self._instruction.mounts:
            if mount.kind is not MountKind.BIND:
                continue
            if mount.origin and (layers := await self._layers(mount.origin)) is not None:
                found.append("\n".join((*layers, mount.source)))
                continue
            with ExitStack() as held:
                tree = await self._build.supplies.tree(
                    self._planned, mount.origin, held, self._tell
                )
                if tree is None:
                    raise InvalidRequest("there is no build context that could be mounted")
                sources = await in_thread(select.select, tree, mount.source or ".")
                found.append(await in_thread(digest.digest, sources))
        return found

    async def _layers(self, origin: str) -> tuple[str, ...] | None:
        return await self._build.supplies.layers_of(self._planned, origin, self._tell)

    async def mounts(self) -> list[StepMount]:
        """The mounts themselves; secrets are asked for and caches taken now."""
        found: list[StepMount] = []
        for mount in self._instruction.mounts:
            match mount.kind:
                case MountKind.BIND:
                    found.append(await self._bound(mount))
                case MountKind.CACHE:
                    found.append(await self._cache(mount))
                case MountKind.TMPFS:
                    found.append(TmpfsMount(target=self._target(mount.target), size=mount.size))
                case MountKind.SECRET:
                    found += await self._secret(mount)
                case MountKind.SSH:
                    found += self._agent(mount)
        if self._instruction.script:
            content = self._instruction.script.encode()
            found.append(SecretMount(target=self.script_path, content=content, mode=0o755))
        return found

    def _target(self, text: str) -> str:
        return target_of(text, self._state.config.working_dir)

    # -- trees -------------------------------------------------------------------------------

    async def _bound(self, mount: RunMount) -> BindMount:
        lowers, about = await self._lowers(mount.origin)
        return BindMount(
            target=self._target(mount.target),
            lowers=lowers,
            source=mount.source or "/",
            writable=mount.writable,
            about=about,
        )

    async def _lowers(self, origin: str) -> tuple[tuple[str, ...], str]:
        layers = await self._layers(origin) if origin else None
        if layers is None:
            path = await self._build.supplies.context_path(origin)
            return (path,), f"the context {origin}" if origin else "the build context"
        if not layers:
            raise InvalidRequest(f"{origin!r} has no files that could be mounted")
        store = self._build.parts.layers
        return tuple(store.path(layer) for layer in reversed(layers)), origin

    # -- caches ------------------------------------------------------------------------------

    async def _cache(self, mount: RunMount) -> CacheMount:
        caches = self._build.mount_caches
        about = [self._build.owner, mount.id, mount.origin, mount.source]
        name = hashlib.sha256("\0".join(about).encode()).hexdigest()
        path = await caches.take(name, mount.sharing, self._held, self._build.id)
        if not os.path.isdir(path):
            seed = await self._lowers(mount.origin) if mount.origin else None
            await in_thread(self._make_cache, path, mount, seed)
        caches.note(path, mount.id)
        return CacheMount(target=self._target(mount.target), path=path)

    def _make_cache(
        self, path: str, mount: RunMount, seed: tuple[tuple[str, ...], str] | None
    ) -> None:
        self._build.mount_caches.make(
            path,
            mode=0o755 if mount.mode is None else mount.mode,
            owner=(mount.uid, mount.gid),
            fill=None if seed is None else lambda target: self._seed(target, mount, *seed),
        )

    def _seed(self, target: int, mount: RunMount, lowers: tuple[str, ...], about: str) -> None:
        from jaula.kernel import paths
        from jaula.spec.rootfs import OverlayRoot
        from jaula.storage.drivers.driver import open_root

        with open_root(OverlayRoot(lowers, user_xattr=self._build.parts.host.rootless)) as root:
            try:
                flags = os.O_RDONLY | os.O_DIRECTORY
                source = paths.open_in_root(root, mount.source or "/", flags)
            except OSError as error:
                raise InvalidRequest(
                    f"{mount.source!r} of {about} cannot be a cache's content: {error.strerror}"
                ) from error
            try:
                copy_tree(source, target)
            finally:
                os.close(source)

    # -- what only the client has --------------------------------------------------------------

    async def _secret(self, mount: RunMount) -> list[StepMount]:
        session = self._build.supplies.session
        content = None if session is None else await session.secret(mount.id)
        if content is None:
            if mount.required:
                raise NotFound(
                    f"secret {mount.id!r} is needed and was not given",
                    hint=f"name it with --secret id={mount.id},src=FILE",
                )
            return []
        found: list[StepMount] = []
        if mount.env:
            found.append(SecretMount(content=content, variable=mount.env))
        if mount.target or not mount.env:
            target = mount.target or posixpath.join(_SECRETS, posixpath.basename(mount.id))
            found.append(
                SecretMount(
                    target=self._target(target),
                    content=content,
                    mode=0o400 if mount.mode is None else mount.mode,
                    uid=mount.uid,
                    gid=mount.gid,
                )
            )
        return found

    def _agent(self, mount: RunMount) -> list[StepMount]:
        session = self._build.supplies.session
        if session is None:
            if mount.required:
                raise NotFound(
                    f"ssh agent {mount.id!r} is needed and was not given",
                    hint="name it with --ssh default",
                )
            return []
        agent = SshAgent(session, mount.id, asyncio.get_running_loop())
        target = self._target(mount.target or _AGENTS.format(len(self._agents)))
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
