"""Mandatory access control: what a kernel module for it gives to a container, as one protocol.

SELinux, AppArmor and Landlock fulfil it, each in a module of its own. They differ in how a process
is confined: by a label in the spec's process section, or by rules in an annotation; so the one
thing that they have in common is a spec that becomes a confined one.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from jaula.spec.runtime import Spec


class LabelRequest(NamedTuple):
    """What was asked for: the values of the module's ``--security-opt``, in their order."""

    options: tuple[str, ...] = ()
    privileged: bool = False


class MandatoryAccess(Protocol):
    """One module. It is made from facts about the host; its decisions read nothing further."""

    @property
    def name(self) -> str:
        """As in /sys/kernel/security/lsm."""
        ...

    @property
    def option(self) -> str:
        """The key of its ``--security-opt``."""
        ...

    def enabled(self) -> bool:
        """Whether this kernel enforces it."""
        ...

    def shown(self) -> str:
        """An entry of ``SecurityOptions`` in ``info``: ``name=landlock,abi=7``."""
        ...

    def confine(self, spec: Spec, request: LabelRequest) -> Spec:
        """The spec with this module's confinement in it, or as it was where there is to be none.

        Pure. Raises ``InvalidRequest`` for an option that does not exist, or that this kernel
        cannot put into effect.
        """
        ...

    def requested(self, spec: Spec) -> str:
        """The confinement that a spec asks for, for people to read; empty: none."""
        ...

    def in_effect(self, pid: int) -> str | None:
        """The same of a process, as the kernel tells it; ``None`` where the kernel never does.

        Raises ``OSError`` where there is no such process.
        """
        ...
