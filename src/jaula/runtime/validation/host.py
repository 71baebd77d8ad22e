"""Validation that depends on the host: its security modules and its own namespaces."""

from __future__ import annotations

import os

import msgspec

from jaula.errors import InvalidRequest, Unsupported
from jaula.runtime.validation import sysctl
from jaula.runtime.validation.field import quote, refuse
from jaula.spec.runtime import Process, Spec

_LINKS = {"network": "net", "ipc": "ipc", "uts": "uts", "user": "user"}  # names in /proc/<pid>/ns


class Host(msgspec.Struct, frozen=True):
    """Security modules of the host."""

    apparmor: bool
    selinux: bool


def detect() -> Host:
    """Return whether AppArmor and SELinux are enabled."""
    return Host(
        apparmor=_first_byte("/sys/module/apparmor/parameters/enabled") == b"Y",
        selinux=os.path.exists("/sys/fs/selinux/enforce"),
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
    """Validate labels, and refuse sysctls of the host's own namespaces.

    :raises Unsupported: when a label's security module is not enabled.
    :raises InvalidRequest: when a sysctl would be written in a host namespace.
    """
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


def _first_byte(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""  # this kernel does not have the module
    try:
        return os.read(fd, 1)
    finally:
        os.close(fd)
