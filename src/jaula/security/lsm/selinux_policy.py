"""Read the contexts for containers from this host's SELinux policy, and check that they work.

Follows selinux(8) and the files of the policy: /etc/selinux/config names the policy,
``contexts/lxc_contexts`` in its directory the contexts of containers.
:mod:`jaula.security.lsm.selinux_choice` decides the labels.
"""

from __future__ import annotations

from typing import NamedTuple

from jaula.kernel import selinuxfs
from jaula.security.lsm import detect, selinux_choice
from jaula.security.lsm.selinux_choice import Types

_CONFIG = "/etc/selinux/config"
_CONTEXTS = "/etc/selinux/{}/contexts/lxc_contexts"


class Policy(NamedTuple):
    """The properties of the policy. ``missing`` are warnings for ``info``."""

    active: bool = False
    types: Types = Types()
    spc: bool = False  # whether it has the type for privileged containers
    missing: tuple[str, ...] = ()


def read(*, process: str = "", file: str = "") -> Policy:
    """Read the loaded policy, and override types with those of the operator.

    :raises InvalidRequest: when a type is not valid.
    """
    if not detect.selinux():
        return Policy()
    types = selinux_choice.read_types(_contexts(), process=process, file=file)
    unknown = [
        str(context)
        for context in (types.process, types.file)
        if not selinuxfs.check_context(str(context))
    ]
    missing = [
        f"the SELinux policy does not have {context}: use --security-opt label=disable, or set"
        " other types (--selinux-type)"
        for context in unknown
    ]
    if not unknown and not _can_write_files(types):
        missing.append(
            f"the SELinux policy does not allow {types.process.type} to write to"
            f" {types.file.type}: run semodule -i jaula.cil"
        )
    return Policy(True, types, selinuxfs.check_context(str(types.privileged)), tuple(missing))


def _can_write_files(types: Types) -> bool:
    """Return whether containers may write to their files. They need at least pipes."""
    try:
        return selinuxfs.allowed(str(types.process), str(types.file), "fifo_file", "write")
    except OSError:
        return True  # the policy cannot be queried; a container start will fail if it is denied


def _contexts() -> str:
    name = ""
    for line in _read(_CONFIG).splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and key.strip() == "SELINUXTYPE":
            name = value.strip().strip('"')
    return _read(_CONTEXTS.format(name)) if name and "/" not in name else ""


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 16)
    except FileNotFoundError:
        return ""
