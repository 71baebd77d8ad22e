"""What of a spec depends on the host: its security modules, and which namespaces are its own."""

from __future__ import annotations

import os

import msgspec

from jaula.errors import InvalidRequest, Unsupported
from jaula.runtime.validation import sysctl
from jaula.runtime.validation.field import refuse, shown
from jaula.spec.runtime import Process, Spec

_LINKS = {"network": "net", "ipc": "ipc", "uts": "uts", "user": "user"}  # names in /proc/<pid>/ns


class Host(msgspec.Struct, frozen=True):
    """Facts about the host."""

    apparmor: bool
    selinux: bool


def facts() -> Host:
    """Whether AppArmor and SELinux are in force."""
    return Host(
        apparmor=_first("/sys/module/apparmor/parameters/enabled") == b"Y",
        selinux=os.path.exists("/sys/fs/selinux/enforce"),
    )


def check_process(wanted: Process, host: Host) -> None:
    """Refuse a label that nothing would enforce; raises ``Unsupported``."""
    if wanted.apparmor_profile and not host.apparmor:
        raise Unsupported(
            f"process.apparmorProfile: {shown(wanted.apparmor_profile)} is wanted, but apparmor "
            "is disabled or not supported by this kernel"
        )
    if wanted.selinux_label and not host.selinux:
        raise Unsupported(
            "process.selinuxLabel: selinux label is specified in config, but selinux is disabled "
            "or not supported"
        )


def check(spec: Spec, host: Host) -> None:
    """Labels, and that no sysctl of the host's own namespaces would be written."""
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
                "linux.sysctl", f"{shown(name)} is not allowed in the host's {kind} namespace"
            )


def _same(path: str, own: str) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.stat(own))
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise InvalidRequest(f"linux.namespaces: {shown(path)}: {why}") from None


def _first(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""  # the module is not in this kernel
    try:
        return os.read(fd, 1)
    finally:
        os.close(fd)
