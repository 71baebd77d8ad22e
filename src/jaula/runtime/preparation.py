"""Mounts that are made with the host's view before the container's init exists.

Bind mounts and the device directory: detached, and attached by init where the plan says
(:mod:`jaula.runtime.mountplan`).
"""

from __future__ import annotations

import os

from jaula.errors import RuntimeFailure
from jaula.kernel import mounts
from jaula.runtime import devices, mountplan
from jaula.spec.runtime import Spec


class Keep:
    """Descriptors that are closed together."""

    def __init__(self) -> None:
        self.fds: list[int] = []

    def add(self, fd: int) -> int:
        self.fds.append(fd)
        return fd

    def close(self) -> None:
        while self.fds:
            os.close(self.fds.pop())


def prepare(
    spec: Spec, *, user_fd: int | None, owner: tuple[int, int], keep: Keep
) -> dict[int, int]:
    """Detached mounts for binds and /dev, by their index in the spec."""
    assert spec.linux is not None
    ready: dict[int, int] = {}
    for index, mount in enumerate(spec.mounts):
        options = mountplan.parse_options(mount.options)
        if not mountplan.needs_preparation(mount, options):
            continue
        try:
            if mountplan.is_device_directory(mount):
                ready[index] = keep.add(devices.make(options, spec.linux.devices, owner))
            else:
                ready[index] = keep.add(_bind(mount.source or "", options, user_fd))
        except OSError as error:
            raise RuntimeFailure(f"mount {mount.source} at {mount.destination}: {error}") from error
    return ready


def _bind(source: str, options: mountplan.MountOptions, user_fd: int | None) -> int:
    tree = mounts.clone_tree(source, recursive=options.recursive)
    try:
        if options.idmap and user_fd is not None:
            try:
                mounts.idmap(tree, user_fd, recursive=options.recursive)
            except OSError as error:
                if error.errno == 22:
                    raise OSError(
                        22, "its file system, or one mounted below it, cannot be id-mapped", source
                    ) from None
                raise
        if options.set or options.clear:
            mounts.mount_setattr(tree, set=options.set, clear=options.clear)
        if options.recursive_set or options.recursive_clear:
            mounts.mount_setattr(
                tree, set=options.recursive_set, clear=options.recursive_clear, recursive=True
            )
        mounts.mount_setattr(
            tree,
            propagation=options.propagation or mounts.MS.PRIVATE,
            recursive=options.propagation_recursive or not options.propagation,
        )
    except BaseException:
        os.close(tree)
        raise
    return tree
