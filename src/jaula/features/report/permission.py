"""Permissions of a container, compared with its activity. Pure.

The permissions are those of the profile, or of the OCI spec of the running container if the report
has no profile.
"""

from __future__ import annotations

from typing import NamedTuple

from jaula.features.report.activity import Activity
from jaula.spec.confinement_profile import Profile
from jaula.spec.runtime_spec import Spec


class Comparison(NamedTuple):
    """A kind of permission: allowed items, used ones, and the differences.

    ``allowed`` is None if everything is allowed.
    """

    title: str
    allowed: frozenset[str] | None
    used: frozenset[str]

    @property
    def beyond(self) -> frozenset[str]:
        """Return the items that were used and are not allowed."""
        return frozenset() if self.allowed is None else self.used - self.allowed

    @property
    def unused(self) -> frozenset[str]:
        """Return the items that are allowed and were not used."""
        return frozenset() if self.allowed is None else self.allowed - self.used


def compare(
    activity: Activity | None, profile: Profile | None, spec: Spec | None
) -> tuple[Comparison, ...]:
    """Return the kinds of permissions that are known, each with its use."""
    if profile is None and spec is None:
        return ()
    syscalls, capabilities = (
        _of_profile(profile) if profile is not None else _of_spec(spec) if spec else (None, None)
    )
    used_calls = {i.subject.partition(" ")[0] for i in activity.syscalls} if activity else set()
    used_capabilities = {_short(i.subject) for i in activity.capabilities} if activity else set()
    return (
        Comparison("System calls", syscalls, frozenset(used_calls)),
        Comparison("Capabilities", capabilities, frozenset(used_capabilities)),
    )


def _of_profile(profile: Profile) -> tuple[frozenset[str] | None, frozenset[str] | None]:
    calls = frozenset(name for names in profile.seccomp.syscalls.values() for name in names)
    return calls, frozenset(map(_short, profile.capabilities))


def _of_spec(spec: Spec) -> tuple[frozenset[str] | None, frozenset[str] | None]:
    seccomp = spec.linux.seccomp if spec.linux is not None else None
    calls: frozenset[str] | None = None
    if seccomp is not None and seccomp.default_action != "SCMP_ACT_ALLOW":
        calls = frozenset(
            name
            for rule in seccomp.syscalls
            if rule.action == "SCMP_ACT_ALLOW"
            for name in rule.names
        )
    process = spec.process
    held = process.capabilities.bounding if process and process.capabilities else ()
    return calls, frozenset(map(_short, held))


def _short(name: str) -> str:
    return name.removeprefix("CAP_")
