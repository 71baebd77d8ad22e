"""The interface of mandatory access control modules.

SELinux, AppArmor and Landlock implement it, each in its own module. They confine a process by a
label in the process section of the spec, or by rules in an annotation. So the common operation is
to add the confinement to a spec.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from jaula.spec.runtime_spec import Spec


class LabelRequest(NamedTuple):
    """A request: the values of the module's ``--security-opt`` in order, and ``--privileged``."""

    options: tuple[str, ...] = ()
    privileged: bool = False


class MandatoryAccess(Protocol):
    """One module. It is created with the state of the host, and its methods decide from that."""

    @property
    def name(self) -> str:
        """The name in /sys/kernel/security/lsm."""
        ...

    @property
    def option(self) -> str:
        """The key of its ``--security-opt``."""
        ...

    def enabled(self) -> bool:
        """Return whether this kernel enforces the module."""
        ...

    def security_option(self) -> str:
        """Return the entry in ``SecurityOptions`` of ``info``: ``name=landlock,abi=7``."""
        ...

    def confine(self, spec: Spec, request: LabelRequest) -> Spec:
        """Return the spec with this module's confinement, or unchanged if there is to be none.

        Pure.

        :raises InvalidRequest: when an option does not exist or this kernel does not support it.
        """
        ...

    def requested(self, spec: Spec) -> str:
        """Return the confinement that a spec requests, for display; '' for none."""
        ...

    def in_effect(self, pid: int) -> str | None:
        """Return the confinement of a process, None if the kernel does not expose it.

        :raises OSError: when the process does not exist.
        """
        ...
