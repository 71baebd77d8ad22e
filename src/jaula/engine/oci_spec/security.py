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
from fnmatch import fnmatchcase

import msgspec

from jaula.engine.oci_spec.inputs import HostFacts
from jaula.errors import InvalidRequest
from jaula.security import capabilities, landlock, masked_paths
from jaula.security.lsm import apparmor, interface, selinux
from jaula.security.seccomp import seccomp
from jaula.spec.api import HostConfig
from jaula.spec.runtime import Capabilities, Seccomp
from jaula.state.records import NO_OPTIONS, ResolvedRequest, Security, SecurityOptions

UNCONFINED = "unconfined"
_BUILTIN = ("", "builtin", "default")
_RESERVED = "io.jaula."  # annotations that are the engine's word to the runtime


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
    chosen = NO_OPTIONS
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
            return {"mask": (*chosen.mask, *split_paths(key, value))}
        case "unmask":
            return {"unmask": (*chosen.unmask, *split_paths(key, value))}
        case "proc-opts":
            return {"proc": proc_options(value)}
    raise InvalidRequest(
        f'invalid --security-opt 2: "{option}"',
        hint="known are seccomp=, no-new-privileges, label=, apparmor=, landlock=,"
        " systempaths=unconfined, mask=, unmask=, proc-opts=",
    )


def resolve(host_config: HostConfig) -> Security:
    """Return the confinement that a request asks for. Pure.

    :raises InvalidRequest: an option that does not exist or lacks its value.
    """
    return Security(
        privileged=host_config.privileged,
        cap_add=host_config.cap_add,
        cap_drop=host_config.cap_drop,
        options=parse(host_config.security_opt),
        masked_paths=host_config.masked_paths,
        readonly_paths=host_config.readonly_paths,
        readonly_rootfs=host_config.readonly_rootfs,
    )


def check(resolved: ResolvedRequest, host: HostFacts) -> tuple[str, ...]:
    """Refuse what cannot be in effect; return warnings for what has no meaning on this host.

    :raises InvalidRequest: unknown capability or option, a profile that does not parse, a
        module that this kernel does not have.
    """
    decide(resolved, host, external=resolved.external_runtime)
    for name in resolved.annotations:
        if name.startswith(_RESERVED):
            raise InvalidRequest(f"annotation {name}: names that begin so are the engine's own")
    labels = resolved.security.options.labels
    if labels and labels != ("disable",) and not host.selinux:
        return ("SELinux is not enabled on this host. --security-opt label is discarded.",)
    return ()


def decide(resolved: ResolvedRequest, host: HostFacts, *, external: bool = False) -> SecurityConfig:
    """Return all layers of confinement of a resolved request on this host.

    ``external``: another runtime than jaula's own carries it out. That is a fact of the start: a
    runtime that the configuration lost may have been an alias of our own.
    """
    requested = resolved.security
    options, privileged = requested.options, requested.privileged
    sets = capability_sets(resolved, host)
    masked, readonly = covered_paths(requested)
    if options.proc and resolved.namespaces.pid.host:
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
        landlock=_landlock(options.landlock, host, privileged=privileged, external=external),
    )


def covered_paths(requested: Security) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the masked and the read-only paths of a container."""
    return decide_paths(
        requested.masked_paths,
        requested.readonly_paths,
        lifted=requested.privileged or requested.options.system_paths,
        mask=requested.options.mask,
        unmask=requested.options.unmask,
    )


def capability_sets(
    resolved: ResolvedRequest, host: HostFacts, *, everything: bool = False
) -> Capabilities:
    """Return the capability sets; ``everything`` is what ``--privileged`` gives.

    Inside a user namespace of its own a container can have all of them, on the host's only what
    the engine has itself.
    """
    requested = resolved.security
    everything = everything or requested.privileged
    if not resolved.namespaces.user.host:
        return capabilities.resolve(requested.cap_add, requested.cap_drop, privileged=everything)
    return capabilities.resolve(
        requested.cap_add,
        requested.cap_drop,
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


def selinux_labels(resolved: ResolvedRequest, host: HostFacts, level: str) -> selinux.Labels:
    """Return the SELinux labels of a container of that level; empty ones without a policy."""
    if not host.selinux:
        return selinux.Labels()
    requested, modes = resolved.security, resolved.namespaces
    bare = requested.privileged or modes.pid.host or modes.ipc.host
    options = selinux.parse(requested.options.labels)
    return selinux.decide(options, host.selinux_types, level, unconfined=bare, spc=host.selinux_spc)


def apparmor_profile_name(resolved: ResolvedRequest, host: HostFacts) -> str:
    """Return the name of the container's AppArmor profile, '' if it has none."""
    chosen = apparmor.choose(
        resolved.security.options.apparmor,
        host.apparmor_profiles,
        privileged=resolved.security.privileged,
        active=host.apparmor,
    )
    return chosen or ""


def _landlock(
    wanted: tuple[str, ...], host: HostFacts, *, privileged: bool, external: bool
) -> interface.LabelRequest:
    """What :meth:`landlock.Landlock.confine` decides on, once the spec is there.

    The rules are an annotation of our own, which no other runtime obeys.
    """
    options = landlock.parse(wanted)
    if external:
        if options.asked:
            raise InvalidRequest(
                "--security-opt landlock: the runtime that was chosen does not know such rules",
                hint="--runtime jaula does",
            )
        return interface.LabelRequest(("off",), privileged)
    if options.asked:
        landlock.decide((), root_readonly=False, options=options, abi=host.landlock)
    return interface.LabelRequest(wanted, privileged)


UNMASK_ALL = "ALL"
_HIDEPID = ("0", "1", "2", "4", "off", "noaccess", "invisible", "ptraceable")
_MOST = 256  # paths of one request


def split_paths(option: str, value: str) -> tuple[str, ...]:
    """Paths separated by colons, each absolute and plain. Raises ``InvalidRequest``."""
    paths = tuple(value.split(":"))
    if option == "unmask" and value.upper() == UNMASK_ALL:
        return (UNMASK_ALL,)
    for path in paths:
        parts = path.split("/")
        if not path.startswith("/") or {"", ".", ".."} & set(parts[1:]) or "\0" in path:
            raise InvalidRequest(
                f"--security-opt {option}: {path[:80]!r} is no plain absolute path",
                hint=f"{option}=/proc/one:/proc/two" + (" or ALL" if option == "unmask" else ""),
            )
    if len(paths) > _MOST:
        raise InvalidRequest(f"--security-opt {option}: more than {_MOST} paths")
    return paths


def decide_paths(
    masked: Sequence[str] | None,
    readonly: Sequence[str] | None,
    *,
    lifted: bool,
    mask: Sequence[str] = (),
    unmask: Sequence[str] = (),
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(masked paths, read-only paths).

    ``masked`` and ``readonly`` are the request's own lists, None where it has none; ``lifted``:
    ours do not count then. Raises ``InvalidRequest`` for a path to be unmasked that is in neither.
    """
    covered = tuple(masked if masked is not None else () if lifted else masked_paths.MASKED_PATHS)
    guarded = tuple(
        readonly if readonly is not None else () if lifted else masked_paths.READONLY_PATHS
    )
    for pattern in unmask:
        if not lifted and not any(_matches(path, pattern) for path in (*covered, *guarded)):
            raise InvalidRequest(
                f"--security-opt unmask: {pattern!r} is neither masked nor read-only",
                hint="jaula inspect shows MaskedPaths and ReadonlyPaths",
            )
    kept = [path for path in covered if not any(_matches(path, p) for p in unmask)]
    guarded = tuple(path for path in guarded if not any(_matches(path, p) for p in unmask))
    return tuple(dict.fromkeys((*kept, *mask))), guarded


def _matches(path: str, pattern: str) -> bool:
    return pattern == UNMASK_ALL or fnmatchcase(path, pattern)


def proc_options(value: str) -> tuple[str, ...]:
    """``hidepid=2,subset=pid`` as mount options of /proc. Raises ``InvalidRequest``."""
    found: dict[str, str] = {}
    for option in value.split(","):
        key, _, setting = option.partition("=")
        known = (
            (key == "hidepid" and setting in _HIDEPID)
            or option == "subset=pid"
            or (key == "gid" and setting.isascii() and setting.isdigit() and len(setting) < 10)
        )
        if not known or key in found:
            raise InvalidRequest(
                f"--security-opt proc-opts: {option[:80]!r} is not possible",
                hint=f"hidepid={'|'.join(_HIDEPID)}, gid=NUMBER and subset=pid are, once each",
            )
        found[key] = option
    return tuple(found.values())
