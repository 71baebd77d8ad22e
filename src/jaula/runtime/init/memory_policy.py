"""The memory policy of a process: runtime-spec 1.3 config-linux.md "Memory policy".

Loaded only if a spec has one.
"""

from __future__ import annotations

import os

import msgspec

from jaula.errors import InvalidRequest, RuntimeFailure
from jaula.kernel import numa
from jaula.spec import cpuset
from jaula.spec.runtime_spec import MemoryPolicy

_FIELD = "linux.memoryPolicy"


class CompiledPolicy(msgspec.Struct, frozen=True):
    """The arguments of set_mempolicy(2), and the policy's name for errors."""

    name: str
    mode: int
    nodes: tuple[int, ...]

    def apply(self) -> None:
        """Set the policy of this process.

        :raises RuntimeFailure: when the kernel refuses it.
        """
        try:
            numa.set_mempolicy(self.mode, self.nodes)
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise RuntimeFailure(f"{_FIELD}: {self.name}: {reason}") from None


def prepare(policy: MemoryPolicy) -> CompiledPolicy:
    """Check and compile a policy.

    :raises InvalidRequest: when a mode, flag or list of nodes is invalid.
    """
    if policy.mode not in numa.MODES:
        raise InvalidRequest(
            f"{_FIELD}.mode: {policy.mode[:128]!r} must be one of {', '.join(numa.MODES)}"
        )
    mode = numa.MODES[policy.mode]
    for flag in policy.flags:
        if flag not in numa.FLAGS:
            raise InvalidRequest(
                f"{_FIELD}.flags: {flag[:128]!r} must be one of {', '.join(numa.FLAGS)}"
            )
        mode |= numa.FLAGS[flag]
    nodes = cpuset.parse(policy.nodes, field=f"{_FIELD}.nodes") if policy.nodes else ()
    return CompiledPolicy(policy.mode, mode, tuple(sorted(nodes)))
