"""Security options: what a container is confined by, and each named way to relax it.

Source: Docker's ``--security-opt`` (``seccomp=``, ``no-new-privileges``, ``label=``,
``apparmor=``, ``systempaths=``), ``--cap-add``, ``--cap-drop``, ``--privileged``; podman's
``mask=``, ``unmask=`` and ``proc-opts=``; ``landlock=`` is our own.

``--privileged`` gives all capabilities, lifts seccomp and the masks. Inside a user namespace of
its own that power ends at the container's border, so host devices come only together with
``--userns=host``: a disk that the container's root could open would be the host itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from jaula.engine.oci_spec import masked_paths
from jaula.engine.oci_spec.inputs import HostFacts
from jaula.errors import InvalidRequest
from jaula.security import capabilities, landlock
from jaula.security.lsm import apparmor, interface, selinux
from jaula.security.seccomp import seccomp
from jaula.spec.api import HostConfig
from jaula.spec.runtime import Capabilities, Seccomp

UNCONFINED = "unconfined"
_BUILTIN = ("", "builtin", "default")
_RESERVED = "io.jaula."  # annotations that are the engine's word to the runtime


class SecurityOptions(msgspec.Struct, frozen=True):
    """``--security-opt``, read. ``seccomp`` is a profile's JSON, or a word."""

    seccomp: str = ""
    apparmor: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    landlock: tuple[str, ...] = ()
    no_new_privileges: bool = False
    system_paths: bool = False  # masks and read-only paths lifted
    mask: tuple[str, ...] = ()
    unmask: tuple[str, ...] = ()
    proc: tuple[str, ...] = ()  # mount options of /proc


class SecurityConfig(msgspec.Struct, frozen=True):
    """The decisions, as the spec has them."""

    capabilities: Capabilities
    seccomp: Seccomp | None
    masked: tuple[str, ...]
    readonly: tuple[str, ...]
    no_new_privileges: bool
    apparmor: interface.LabelRequest
    label: interface.LabelRequest
    landlock: interface.LabelRequest
    proc: tuple[str, ...] = ()


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
            return {"apparmor": (*chosen.apparmor, value)}
        case "label":
            return {"labels": (*chosen.labels, value)}
        case "landlock":
            return {"landlock": (*chosen.landlock, value)}
        case "systempaths" if value == UNCONFINED:
            return {"system_paths": True}
        case "mask":
            return {"mask": (*chosen.mask, *masked_paths.split(key, value))}
        case "unmask":
            return {"unmask": (*chosen.unmask, *masked_paths.split(key, value))}
        case "proc-opts":
            return {"proc": masked_paths.proc_options(value)}
    raise InvalidRequest(
        f'invalid --security-opt 2: "{option}"',
        hint="known are seccomp=, no-new-privileges, label=, apparmor=, landlock=,"
        " systempaths=unconfined, mask=, unmask=, proc-opts=",
    )


def check(host_config: HostConfig, host: HostFacts, *, foreign: bool = False) -> tuple[str, ...]:
    """Refuse what cannot be in effect; warn about what has no meaning on this host.

    :raises InvalidRequest: unknown capability or option, a profile that does not parse, a
        module that this kernel does not have.
    """
    decide(host_config, host, foreign=foreign)
    for name in host_config.annotations:
        if name.startswith(_RESERVED):
            raise InvalidRequest(f"annotation {name}: names that begin so are the engine's own")
    options = parse(host_config.security_opt)
    if options.labels and options.labels != ("disable",) and not host.selinux:
        return ("SELinux is not enabled on this host. --security-opt label is discarded.",)
    return ()


def decide(host_config: HostConfig, host: HostFacts, *, foreign: bool = False) -> SecurityConfig:
    """All layers of confinement; ``foreign``: another runtime than our own is to obey."""
    options = parse(host_config.security_opt)
    privileged = host_config.privileged
    sets = granted(host_config, host)
    masked, readonly = covered(host_config)
    if options.proc and host_config.pid_mode == "host":
        raise InvalidRequest(
            "--security-opt proc-opts: with --pid=host /proc is the host's, mounted as it is there",
            hint="leave one of the two out",
        )
    return SecurityConfig(
        capabilities=sets,
        seccomp=_seccomp(options.seccomp, sets, host, privileged=privileged),
        masked=masked,
        readonly=readonly,
        proc=options.proc,
        no_new_privileges=options.no_new_privileges,
        apparmor=_apparmor(options.apparmor, host, privileged=privileged),
        label=_label(options.labels, privileged=privileged),
        landlock=_landlock(options.landlock, host, privileged=privileged, foreign=foreign),
    )


def covered(host_config: HostConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The masked and the read-only paths of a container."""
    options = parse(host_config.security_opt)
    return masked_paths.decide(
        host_config.masked_paths,
        host_config.readonly_paths,
        lifted=host_config.privileged or options.system_paths,
        mask=options.mask,
        unmask=options.unmask,
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


def _apparmor(
    wanted: tuple[str, ...], host: HostFacts, *, privileged: bool
) -> interface.LabelRequest:
    """What :meth:`apparmor.AppArmor.confine` puts into the spec."""
    apparmor.choose(wanted, host.apparmor_profiles, privileged=privileged, active=host.apparmor)
    return interface.LabelRequest(wanted, privileged)


def _label(wanted: tuple[str, ...], *, privileged: bool) -> interface.LabelRequest:
    """What :meth:`selinux.SELinux.confine` puts into the spec."""
    selinux.parse(wanted)
    return interface.LabelRequest(wanted, privileged)


def labels(host_config: HostConfig, host: HostFacts, level: str) -> selinux.Labels:
    """The SELinux labels of a container whose level is ``level``; none where there is no policy."""
    if not host.selinux:
        return selinux.Labels()
    bare = host_config.privileged or "host" in (host_config.pid_mode, host_config.ipc_mode)
    options = selinux.parse(parse(host_config.security_opt).labels)
    return selinux.decide(options, host.selinux_types, level, unconfined=bare, spc=host.selinux_spc)


def profile(host_config: HostConfig, host: HostFacts) -> str:
    """The AppArmor profile of a container; empty where there is none."""
    chosen = apparmor.choose(
        parse(host_config.security_opt).apparmor,
        host.apparmor_profiles,
        privileged=host_config.privileged,
        active=host.apparmor,
    )
    return chosen or ""


def _landlock(
    wanted: tuple[str, ...], host: HostFacts, *, privileged: bool, foreign: bool
) -> interface.LabelRequest:
    """What :meth:`landlock.Landlock.confine` decides on, once the spec is there.

    The rules are an annotation of our own, which no other runtime obeys.
    """
    options = landlock.parse(wanted)
    if foreign:
        if options.asked:
            raise InvalidRequest(
                "--security-opt landlock: the runtime that was chosen does not know such rules",
                hint="--runtime jaula does",
            )
        return interface.LabelRequest(("off",), privileged)
    if options.asked:
        landlock.decide((), root_readonly=False, options=options, abi=host.landlock)
    return interface.LabelRequest(wanted, privileged)
