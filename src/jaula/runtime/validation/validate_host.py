"""Validation that depends on the host: security modules, limits, its own namespaces.

The limit of mounts is the sysctl ``fs.mount-max``, of one mount namespace
(Documentation/admin-guide/sysctl/fs.rst).
"""

from __future__ import annotations

import os

import msgspec

from jaula.errors import InvalidRequest, Unsupported
from jaula.runtime.validation import sysctl
from jaula.runtime.validation.field import quote, refuse
from jaula.spec.runtime_spec import Process, Spec

_LINKS = {"network": "net", "ipc": "ipc", "uts": "uts", "user": "user"}  # names in /proc/<pid>/ns


class Host(msgspec.Struct, frozen=True):
    """Security modules of the host, and its limit of mounts."""

    apparmor: bool
    selinux: bool
    mount_max: int = 100_000  # the kernel's default


def detect() -> Host:
    """Return the security modules that are enabled, and the limit of mounts."""
    return Host(
        apparmor=_read("/sys/module/apparmor/parameters/enabled", 1) == b"Y",
        selinux=os.path.exists("/sys/fs/selinux/enforce"),
        mount_max=int(_read("/proc/sys/fs/mount-max", 32) or 100_000),
    )


def check_process(process: Process, host: Host) -> None:
    """Refuse a label that no security module would enforce.

    :raises Unsupported: when the module is not enabled.
    """
    if process.apparmor_profile and not host.apparmor:
        raise Unsupported(
            f"process.apparmorProfile: {quote(process.apparmor_profile)} is requested, but "
            "apparmor is disabled or not supported by this kernel"
        )
    if process.selinux_label and not host.selinux:
        raise Unsupported(
            "process.selinuxLabel: selinux label is specified in config, but selinux is disabled "
            "or not supported"
        )


def check(spec: Spec, host: Host) -> None:
    """Validate labels and the number of mounts, and refuse sysctls of the host's own namespaces.

    :raises Unsupported: when a label's security module is not enabled.
    :raises InvalidRequest: when a sysctl would be written in a host namespace, or a mount namespace
        cannot hold the mounts.
    """
    if len(spec.mounts) > host.mount_max:
        raise refuse(
            "mounts",
            f"{len(spec.mounts)} mounts are more than the {host.mount_max} that the kernel permits "
            "in a mount namespace (sysctl fs.mount-max)",
        )
    if spec.process is not None:
        check_process(spec.process, host)
    if spec.linux is None or not spec.linux.sysctl:
        return
    paths = {namespace.type: namespace.path for namespace in spec.linux.namespaces}
    for name in spec.linux.sysctl:
        kind = sysctl.namespace_of(name)
        path = paths.get(kind or "")
        if kind and path and _same(path, f"/proc/self/ns/{_LINKS[kind]}"):
            raise refuse(
                "linux.sysctl", f"{quote(name)} is not allowed in the host's {kind} namespace"
            )


def _same(path: str, own_path: str) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.stat(own_path))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InvalidRequest(f"linux.namespaces: {quote(path)}: {reason}") from None


def _read(path: str, length: int) -> bytes:
    """Return the first bytes of a file; nothing if this kernel does not have it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, length)
    finally:
        os.close(fd)
