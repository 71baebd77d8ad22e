"""``RUN --mount``: what a step sees besides its own files.

Every mount is made here, resolved, shown with the container's owners and attached below a
directory of the step's in ``run``, before the container starts; the runtime binds those places.
So a path in a Dockerfile is looked up once, inside of what it is a path of (``RESOLVE_IN_ROOT``),
and what the container gets is that very file or directory, whatever a step beside it changes.

The places exist in the engine's own mount namespace only. When the engine is killed they are gone.
What they are attached to is removed by name and never with what is in it: that may be a cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from jaula.engine.builder.mounts.attacher import MountAttacher
from jaula.engine.builder.mounts.kinds import SecretMount
from jaula.engine.builder.mounts.step_sources import places, remove_places
from jaula.engine.threads import in_own_thread
from jaula.engine.volumes import mount_spec
from jaula.kernel import mounts
from jaula.kernel.mounts import MNT

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

    from jaula.engine.builder.mounts.kinds import StepMount
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.engine.userns.id_ranges import IdMaps


class StepMounts:
    """The mounts of one step."""

    def __init__(self, parts: Services, wanted: Sequence[StepMount]) -> None:
        self._parts = parts
        self._wanted = tuple(wanted)
        self._attached: list[str] = []
        self._place: Path | None = None
        for mount in self._wanted:
            if mount.target:
                mount_spec.destination(mount.target)

    @property
    def targets(self) -> tuple[str, ...]:
        """Where they are mounted."""
        return tuple(mount.target for mount in self._wanted if mount.target)

    def preparation(self, container: Container) -> Callable[[IdMaps], Awaitable[None]]:
        """What a start does once the ids of its user namespace are known."""

        async def prepare(maps: IdMaps) -> None:
            if not self._wanted:
                return
            uids, gids = maps
            sandbox = None
            if uids and not self._parts.host.rootless:
                sandbox = await self._parts.runtime.sandbox(uids, network=False, gid_mappings=gids)
            try:
                user_fd = sandbox.user_fd if sandbox is not None else None
                self._place = places(self._parts.config.paths) / container.id
                make = MountAttacher(
                    self._parts, container, (uids, gids or uids), user_fd, self._place
                )
                found = await in_own_thread(lambda: make.all(self._wanted, self._attached))
                container.bundle = make.bundle
            finally:
                if sandbox is not None:
                    sandbox.close()
            container.transient_env = tuple(
                f"{m.variable}={m.content.decode(errors='surrogateescape')}"
                for m in self._wanted
                if isinstance(m, SecretMount) and m.variable
            )
            container.change(mounts=found)

        return prepare

    def detach(self) -> None:
        """Take them away; from any thread, as often as one likes."""
        while self._attached:
            mounts.umount2(self._attached.pop(), MNT.DETACH)
        if self._place is not None:
            remove_places(self._place)
            self._place = None
