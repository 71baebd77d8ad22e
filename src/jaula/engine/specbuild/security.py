"""Security options: what a container is confined by, and each named way to relax it.

Source: Docker's ``--security-opt`` (``seccomp=``, ``no-new-privileges``, ``label=``,
``apparmor=``, ``systempaths=``), ``--cap-add``, ``--cap-drop``, ``--privileged``.

``--privileged`` gives all capabilities, lifts seccomp and the masks. Inside a user namespace of
its own that power ends at the container's border, so host devices come only together with
``--userns=host``: a disk that the container's root could open would be the host itself.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from jaula.confine import capabilities, masks, seccomp
from jaula.engine.specbuild.facts import HostFacts
from jaula.errors import InvalidRequest
from jaula.spec.api import HostConfig
from jaula.spec.runtime import Capabilities, Seccomp

UNCONFINED = "unconfined"
_BUILTIN = ("", "builtin", "default")


class SecurityOptions(msgspec.Struct, frozen=True):
    """``--security-opt``, read. ``seccomp`` is a profile's JSON, or a word."""

    seccomp: str = ""
    apparmor: str = ""
    labels: tuple[str, ...] = ()
    no_new_privileges: bool = False
    system_paths: bool = False  # masks and read-only paths lifted


class Confinement(msgspec.Struct, frozen=True):
    """The decisions, as the spec has them."""

    capabilities: Capabilities
    seccomp: Seccomp | None
    masked: tuple[str, ...]
    readonly: tuple[str, ...]
    no_new_privileges: bool
    apparmor: str | None
    selinux: str | None


def parse(options: Sequence[str]) -> SecurityOptions:
    """Read the options; both ``key=value`` and the older ``key:value`` are understood.

    :raises InvalidRequest: an option that does not exist or lacks its value.
    """
    chosen = SecurityOptions()
    for option in options:
        chosen = msgspec.structs.replace(chosen, **_parse_one(option, chosen))
    return chosen


def _parse_one(option: str, chosen: SecurityOptions) -> dict[str, object]:
    if option == "no-new-privileges":
        return {"no_new_privileges": True}
    key, equals, value = option.partition("=")
    if not equals:
        key, equals, value = option.partition(":")
    if not equals or not value:
        raise InvalidRequest(f'invalid --security-opt 2: "{option}"')
    match key:
        case "no-new-privileges" if value.lower() in ("true", "false", "1", "0", "t", "f"):
            return {"no_new_privileges": value.lower() in ("true", "1", "t")}
        case "seccomp":
            return {"seccomp": value}
        case "apparmor":
            return {"apparmor": value}
        case "label":
            return {"labels": (*chosen.labels, value)}
        case "systempaths" if value == UNCONFINED:
            return {"system_paths": True}
    raise InvalidRequest(
        f'invalid --security-opt 2: "{option}"',
        hint="known are seccomp=, no-new-privileges, label=, apparmor=, systempaths=unconfined",
    )


def check(host_config: HostConfig, host: HostFacts) -> tuple[str, ...]:
    """Refuse what cannot be in effect; warn about what has no meaning on this host.

    :raises InvalidRequest: unknown capability or option, a profile that does not parse, a
        module that this kernel does not have.
    """
    decide(host_config, host)
    options = parse(host_config.security_opt)
    if options.labels and options.labels != ("disable",) and not host.selinux:
        return ("SELinux is not enabled on this host. --security-opt label is discarded.",)
    return ()


def decide(host_config: HostConfig, host: HostFacts, *, level: str = "") -> Confinement:
    """All layers of confinement; ``level`` is the SELinux level that the engine chose."""
    options = parse(host_config.security_opt)
    privileged = host_config.privileged
    sets = granted(host_config, host)
    open_paths = privileged or options.system_paths
    masked, readonly = host_config.masked_paths, host_config.readonly_paths
    return Confinement(
        capabilities=sets,
        seccomp=_seccomp(options.seccomp, sets, host, privileged=privileged),
        masked=masked if masked is not None else () if open_paths else tuple(masks.MASKED_PATHS),
        readonly=readonly
        if readonly is not None
        else ()
        if open_paths
        else tuple(masks.READONLY_PATHS),
        no_new_privileges=options.no_new_privileges,
        apparmor=_apparmor(options.apparmor, host),
        selinux=_selinux(options.labels, host, level, privileged=privileged),
    )


def granted(host_config: HostConfig, host: HostFacts, *, everything: bool = False) -> Capabilities:
    """The capability sets; ``everything`` is what ``--privileged`` gives.

    Inside a user namespace of its own a container can have all of them, on the host's only what
    the engine has itself.
    """
    everything = everything or host_config.privileged
    if host_config.userns_mode != "host":
        return capabilities.resolve(
            host_config.cap_add, host_config.cap_drop, privileged=everything
        )
    return capabilities.resolve(
        host_config.cap_add,
        host_config.cap_drop,
        privileged=everything,
        known=host.capabilities,
    )


def _seccomp(
    wanted: str, sets: Capabilities, host: HostFacts, *, privileged: bool
) -> Seccomp | None:
    if wanted == UNCONFINED or (privileged and not wanted):
        return None
    if wanted in _BUILTIN:
        return seccomp.default_profile(sets)
    return seccomp.from_docker(wanted.encode(), sets, host.kernel)


def _apparmor(wanted: str, host: HostFacts) -> str | None:
    if wanted in ("", UNCONFINED):
        return UNCONFINED if wanted and host.apparmor else None
    if not host.apparmor:
        raise InvalidRequest(
            f"AppArmor is not enabled on this host, so the profile {wanted} cannot confine"
        )
    return wanted


def _selinux(
    labels: tuple[str, ...], host: HostFacts, level: str, *, privileged: bool
) -> str | None:
    if not host.selinux or "disable" in labels:
        return None
    parts = {
        "user": "system_u",
        "role": "system_r",
        "type": "spc_t" if privileged else "container_t",
        "level": level or "s0",
    }
    for label in labels:
        key, colon, value = label.partition(":")
        if not colon or key not in parts or not value:
            raise InvalidRequest(
                f"invalid --security-opt label={label}",
                hint="label=disable, or user:, role:, type:, level: with a value",
            )
        parts[key] = value
    return ":".join(parts.values())


def random_level() -> str:
    """Two SELinux categories of 1024, so that containers are strangers to each other."""
    low, high = sorted(random.SystemRandom().sample(range(1024), 2))
    return f"s0:c{low},c{high}"
