"""Which contexts this host's SELinux policy has for containers, and whether it lets them work.

Follows selinux(8) and the policy's own files: /etc/selinux/config names the policy,
``contexts/lxc_contexts`` below it the contexts of containers. Decided in
:mod:`jaula.security.lsm.selinux`.
"""

from __future__ import annotations

from typing import NamedTuple

from jaula.kernel import selinuxfs
from jaula.security.lsm import detect, selinux
from jaula.security.lsm.selinux import Types

_CONFIG = "/etc/selinux/config"
_CONTEXTS = "/etc/selinux/{}/contexts/lxc_contexts"


class Policy(NamedTuple):
    """What the engine has to know of the policy; ``missing`` are sentences for ``info``."""

    active: bool = False
    types: Types = Types()
    spc: bool = False  # whether there is a type for privileged containers
    missing: tuple[str, ...] = ()


def read(*, process: str = "", file: str = "") -> Policy:
    """The policy in force, with the types that an operator prefers.

    Raises ``InvalidRequest`` where those are none.
    """
    if not detect.selinux():
        return Policy()
    types = selinux.read_types(_contexts(), process=process, file=file)
    unknown = [
        str(context)
        for context in (types.process, types.file)
        if not selinuxfs.check_context(str(context))
    ]
    missing = [
        f"the SELinux policy does not know {context}: containers need"
        " --security-opt label=disable, or the engine other types (--selinux-type)"
        for context in unknown
    ]
    if not unknown and not _files(types):
        missing.append(
            f"the SELinux policy lets no {types.process.type} write to {types.file.type}: semodule"
            " -i jaula.cil"
        )
    return Policy(True, types, selinuxfs.check_context(str(types.privileged)), tuple(missing))


def _files(types: Types) -> bool:
    """Whether containers may write to their files; pipes are the least that they need."""
    try:
        return selinuxfs.allowed(str(types.process), str(types.file), "fifo_file", "write")
    except OSError:
        return True  # the policy does not tell; the first container shows it


def _contexts() -> str:
    name = ""
    for line in _text(_CONFIG).splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and key.strip() == "SELINUXTYPE":
            name = value.strip().strip('"')
    return _text(_CONTEXTS.format(name)) if name and "/" not in name else ""


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 16)
    except FileNotFoundError:
        return ""
