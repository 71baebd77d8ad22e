"""Security options: the confinement of a container, and each named way to relax it. Pure.

Source: Docker's ``--security-opt`` (``seccomp=``, ``no-new-privileges``, ``label=``,
``apparmor=``, ``systempaths=``), ``--cap-add``, ``--cap-drop``, ``--privileged``; podman's
``mask=``, ``unmask=`` and ``proc-opts=``. ``landlock=``, ``seccomp-allow=`` and
``seccomp-enosys=`` are our own. The API's ``MaskedPaths`` and ``ReadonlyPaths`` replace our lists;
``unmask`` removes paths from them, ``mask`` adds any path and wins. proc(5) has the options of
/proc.

``--privileged`` grants all capabilities and lifts seccomp and the masks. In a user namespace of its
own this power ends at the container's boundary. So host devices come only with ``--userns=host``: a
disk that the container's root can open is the host itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import msgspec

from jaula.engine.oci_spec.inputs import HostFacts
from jaula.errors import InvalidRequest
from jaula.security import capability_sets, landlock_ruleset, masked_paths
from jaula.security.lsm import apparmor_choice, interface, selinux_choice
from jaula.security.seccomp import seccomp_agent, seccomp_filter
from jaula.spec.api_documents import HostConfig
from jaula.spec.apparmor_name import NAME
from jaula.spec.runtime_spec import Capabilities, Seccomp
from jaula.state.container_records import (
    NO_OPTIONS,
    ResolvedRequest,
    Security,
    SecurityOptions,
    is_external,
)

UNCONFINED = "unconfined"
_BUILTIN = ("", "builtin", "default")
_RESERVED = "io.jaula."  # annotations from the engine to the runtime


class SecurityConfig(msgspec.Struct, frozen=True):
    """The decisions, in the form of the spec."""

    capabilities: Capabilities
    seccomp: Seccomp | None
    masked: tuple[str, ...]
    readonly: tuple[str, ...]
    no_new_privileges: bool
    apparmor: interface.LabelRequest
    label: interface.LabelRequest
    landlock: interface.LabelRequest
    proc: tuple[str, ...] = ()


_ARCHITECTURES = ("x86_64", "x86", "x32", "aarch64", "arm")
_MAX_PATHS = 1024  # of each list of masked and read-only paths
_LIMITS = {
    "seccomp_allow": ("seccomp-allow", 1024 * len(_ARCHITECTURES)),
    "seccomp_enosys": ("seccomp-enosys", 1024 * len(_ARCHITECTURES)),
    "apparmor": ("apparmor", 16),
    "labels": ("label", 64),
    "landlock": ("landlock", 2 * landlock_ruleset.MAX_PATHS),
    "mask": ("mask", _MAX_PATHS),
    "unmask": ("unmask", 64),
}
"""The option and the most values of each list of one request."""


def parse(options: Sequence[str]) -> SecurityOptions:
    """Parse the options; both ``key=value`` and the older ``key:value`` are accepted.

    :raises InvalidRequest: when an option does not exist, lacks its value or has too many.
    """
    if not options:
        return NO_OPTIONS
    settings: dict[str, object] = {}
    lists: dict[str, list[str]] = {}
    for option in options:
        member, value = _parse_one(option)
        if isinstance(value, list):
            lists.setdefault(member, []).extend(value)
        else:
            settings[member] = value
    for member, values in lists.items():
        option, limit = _LIMITS[member]
        if len(values) > limit:
            raise InvalidRequest(
                f"--security-opt {option}: {len(values)} values; at most {limit} are allowed"
            )
        settings[member] = tuple(values)
    return msgspec.structs.replace(NO_OPTIONS, **settings)


def _parse_one(option: str) -> tuple[str, object]:
    """Return a member of :class:`SecurityOptions` and its value.

    A later value extends a list; it replaces a value of another type.
    """
    if option == "no-new-privileges":
        return "no_new_privileges", True
    key, equals, value = option.partition("=")
    if not equals:
        key, equals, value = option.partition(":")
    if not equals or not value:
        raise InvalidRequest(f'invalid --security-opt 2: "{option}"')
    match key:
        case "no-new-privileges" if value.lower() in ("true", "false", "1", "0", "t", "f"):
            return "no_new_privileges", value.lower() in ("true", "1", "t")
        case "seccomp":
            return "seccomp", value
        case "seccomp-allow":
            return "seccomp_allow", [*_syscall_names(key, value)]
        case "seccomp-enosys":
            return "seccomp_enosys", [*_syscall_names(key, value)]
        case "seccomp-listener" if value.startswith("/") and "\0" not in value:
            return "seccomp_listener", value
        case "apparmor":
            return "apparmor", [value]
        case "label":
            return "labels", [value]
        case "landlock":
            return "landlock", [value]
        case "systempaths" if value == UNCONFINED:
            return "system_paths", True
        case "mask":
            return "mask", [*split_paths(key, value)]
        case "unmask":
            return "unmask", [*split_paths(key, value)]
        case "proc-opts":
            return "proc", proc_options(value)
    raise InvalidRequest(
        f'invalid --security-opt 2: "{option}"',
        hint="must be one of seccomp=, seccomp-allow=, seccomp-enosys=, seccomp-listener=,"
        " no-new-privileges,"
        " label=, apparmor=, landlock=, systempaths=unconfined, mask=, unmask=, proc-opts=",
    )


def _syscall_names(option: str, value: str) -> tuple[str, ...]:
    """Return the system calls of ``[ARCHITECTURE:]NAME,NAME``, each with the architecture.

    :raises InvalidRequest: when one is not a name.
    """
    architecture, colon, text = value.rpartition(":")
    if colon and architecture not in _ARCHITECTURES:
        raise InvalidRequest(
            f"--security-opt {option}: {architecture[:64]!r} is not an architecture",
            hint=f"must be one of {', '.join(_ARCHITECTURES)}",
        )
    names = tuple(text.split(","))
    for name in names:
        if not (name.isascii() and name.replace("_", "a").isalnum() and len(name) <= 64):
            raise InvalidRequest(
                f"--security-opt {option}: {name[:64]!r} is not the name of a system call",
                hint=f"{option}=read,write,openat",
            )
    return tuple(f"{architecture}{colon}{name}" for name in names)


def resolve(host_config: HostConfig) -> Security:
    """Return the confinement that a request asks for.

    :raises InvalidRequest: when an option does not exist or lacks its value, or a list is too long.
    """
    for name, paths in (
        ("MaskedPaths", host_config.masked_paths),
        ("ReadonlyPaths", host_config.readonly_paths),
    ):
        if paths and len(paths) > _MAX_PATHS:
            raise InvalidRequest(f"{name}: {len(paths)} paths; at most {_MAX_PATHS} are allowed")
    return Security(
        privileged=host_config.privileged,
        cap_add=host_config.cap_add,
        cap_drop=host_config.cap_drop,
        options=parse(host_config.security_opt),
        masked_paths=host_config.masked_paths,
        readonly_paths=host_config.readonly_paths,
        readonly_rootfs=host_config.readonly_rootfs,
    )


def check(requested: HostConfig, resolved: ResolvedRequest, host: HostFacts) -> tuple[str, ...]:
    """Check the confinement; return warnings for options that have no effect on this host.

    :raises InvalidRequest: when a capability or option is unknown, a profile does not parse, or the
        kernel does not have a module.
    """
    confinement = decide(resolved, host, external=is_external(requested.runtime))
    for name in requested.annotations:
        if name.startswith(_RESERVED):
            raise InvalidRequest(
                f"annotation {name}: names with this prefix are reserved for the engine"
            )
    warnings = []
    labels = resolved.security.options.labels
    if labels and labels != ("disable",) and not host.selinux:
        warnings.append("SELinux is not enabled on this host. --security-opt label is discarded.")
    names = resolved.security.options.seccomp_allow
    if names and confinement.seccomp is not None:
        refused = [
            item
            for item in seccomp_filter.refused_names(confinement.seccomp, names)
            if item.rpartition(":")[2] != "clone3"
        ]
        if refused:
            warnings.append(
                "seccomp-allow only narrows the seccomp profile, which refuses"
                f" {', '.join(refused)}"
            )
    return tuple(warnings)


def decide(resolved: ResolvedRequest, host: HostFacts, *, external: bool = False) -> SecurityConfig:
    """Return all layers of confinement of a resolved request on this host.

    ``external``: a runtime other than jaula's own runs the container. That is a fact of the start:
    a runtime that the configuration lost may have been an alias of our own.
    """
    requested = resolved.security
    options, privileged = requested.options, requested.privileged
    sets = capabilities(resolved, host)
    masked, readonly = covered_paths(requested)
    if options.proc and resolved.namespaces.pid.host:
        raise InvalidRequest(
            "--security-opt proc-opts: with --pid=host /proc is the host's, with its mount options",
            hint="leave one of the two out",
        )
    filter = _seccomp(options, sets, host, privileged=privileged)
    if options.seccomp_listener:
        if external:
            raise InvalidRequest(
                "--security-opt seccomp-listener: the requested runtime does not support it",
                hint="use --runtime jaula",
            )
        filter = seccomp_agent.with_listener(filter, options.seccomp_listener)
    return SecurityConfig(
        capabilities=sets,
        seccomp=filter,
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


def capabilities(
    resolved: ResolvedRequest, host: HostFacts, *, everything: bool = False
) -> Capabilities:
    """Return the capability sets; ``everything`` is what ``--privileged`` grants.

    In a user namespace of its own a container can have all capabilities, on the host's only those
    that the engine has itself.
    """
    requested = resolved.security
    everything = everything or requested.privileged
    if not resolved.namespaces.user.host:
        return capability_sets.resolve(requested.cap_add, requested.cap_drop, privileged=everything)
    return capability_sets.resolve(
        requested.cap_add,
        requested.cap_drop,
        privileged=everything,
        known=host.capabilities,
    )


def _seccomp(
    options: SecurityOptions, sets: Capabilities, host: HostFacts, *, privileged: bool
) -> Seccomp | None:
    requested, names, absent = options.seccomp, options.seccomp_allow, options.seccomp_enosys
    narrowed = bool(names or absent)
    if requested == UNCONFINED and narrowed:
        raise InvalidRequest(
            "--security-opt seccomp=unconfined excludes seccomp-allow and seccomp-enosys",
            hint="leave one of the two out",
        )
    if requested == UNCONFINED or (privileged and not requested and not narrowed):
        return None
    if requested in _BUILTIN:
        filtered = seccomp_filter.default_profile(sets)
    else:
        filtered = seccomp_filter.from_docker(requested.encode(), sets, host.kernel)
    return seccomp_filter.narrow(filtered, names, absent) if narrowed else filtered


def _apparmor(
    requested: tuple[str, ...], host: HostFacts, *, privileged: bool
) -> interface.LabelRequest:
    """Return the input of :meth:`apparmor.AppArmor.confine`."""
    apparmor_choice.choose(
        requested,
        host.apparmor_profiles,
        host.apparmor_default,
        privileged=privileged,
        active=host.apparmor,
    )
    return interface.LabelRequest(requested, privileged)


def _label(requested: tuple[str, ...], *, privileged: bool) -> interface.LabelRequest:
    """Return the input of :meth:`selinux.SELinux.confine`."""
    selinux_choice.parse(requested)
    return interface.LabelRequest(requested, privileged)


def selinux_labels(resolved: ResolvedRequest, host: HostFacts, level: str) -> selinux_choice.Labels:
    """Return the SELinux labels of a container of that level; empty ones without a policy."""
    if not host.selinux:
        return selinux_choice.Labels()
    requested, modes = resolved.security, resolved.namespaces
    bare = requested.privileged or modes.pid.host or modes.ipc.host
    options = selinux_choice.parse(requested.options.labels)
    return selinux_choice.decide(
        options, host.selinux_types, level, unconfined=bare, spc=host.selinux_spc
    )


def apparmor_profile_name(resolved: ResolvedRequest, host: HostFacts) -> str:
    """Return the name of the container's AppArmor profile for display, '' if it has none."""
    profile = apparmor_choice.choose(
        resolved.security.options.apparmor,
        host.apparmor_profiles,
        host.apparmor_default,
        privileged=resolved.security.privileged,
        active=host.apparmor,
    )
    return NAME if profile == host.apparmor_default else profile or ""


def _landlock(
    requested: tuple[str, ...], host: HostFacts, *, privileged: bool, external: bool
) -> interface.LabelRequest:
    """Return the input of :meth:`landlock.Landlock.confine`.

    The rules are an annotation of our own, which no other runtime obeys.
    """
    options = landlock_ruleset.parse(requested)
    if external:
        if options.asked:
            raise InvalidRequest(
                "--security-opt landlock: the requested runtime does not support Landlock rules",
                hint="use --runtime jaula",
            )
        return interface.LabelRequest(("off",), privileged)
    if options.asked:
        landlock_ruleset.decide((), root_readonly=False, options=options, abi=host.landlock)
    return interface.LabelRequest(requested, privileged)


# -- masked paths and options of /proc -----------------------------------------------------------


UNMASK_ALL = "ALL"
_HIDEPID = ("0", "1", "2", "4", "off", "noaccess", "invisible", "ptraceable")


def split_paths(option: str, value: str) -> tuple[str, ...]:
    """Return paths that are separated by colons, each absolute and normalised.

    :raises InvalidRequest: when a path is not.
    """
    paths = tuple(value.split(":"))
    if option == "unmask" and value.upper() == UNMASK_ALL:
        return (UNMASK_ALL,)
    for path in paths:
        parts = path.split("/")
        if not path.startswith("/") or {"", ".", ".."} & set(parts[1:]) or "\0" in path:
            raise InvalidRequest(
                f"--security-opt {option}: {path[:80]!r} is not a normalised absolute path",
                hint=f"{option}=/proc/one:/proc/two" + (" or ALL" if option == "unmask" else ""),
            )
    return paths


def decide_paths(
    masked: Sequence[str] | None,
    readonly: Sequence[str] | None,
    *,
    lifted: bool,
    mask: Sequence[str] = (),
    unmask: Sequence[str] = (),
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the masked paths and the read-only paths.

    ``masked`` and ``readonly`` are the request's own lists, None without one. With ``lifted`` our
    lists are empty.

    :raises InvalidRequest: when a path to be unmasked is in neither list.
    """
    base_masked = tuple(
        masked if masked is not None else () if lifted else masked_paths.MASKED_PATHS
    )
    base_readonly = tuple(
        readonly if readonly is not None else () if lifted else masked_paths.READONLY_PATHS
    )
    for pattern in unmask:
        if not lifted and not any(
            _matches(path, pattern) for path in (*base_masked, *base_readonly)
        ):
            raise InvalidRequest(
                f"--security-opt unmask: {pattern!r} is neither masked nor read-only",
                hint="jaula inspect shows MaskedPaths and ReadonlyPaths",
            )
    kept = [path for path in base_masked if not any(_matches(path, p) for p in unmask)]
    readonly_paths = tuple(
        path for path in base_readonly if not any(_matches(path, p) for p in unmask)
    )
    return tuple(dict.fromkeys((*kept, *mask))), readonly_paths


def _matches(path: str, pattern: str) -> bool:
    return pattern == UNMASK_ALL or fnmatchcase(path, pattern)


def proc_options(value: str) -> tuple[str, ...]:
    """Return ``hidepid=2,subset=pid`` as mount options of /proc.

    :raises InvalidRequest: when an option is unknown or repeated.
    """
    accepted: dict[str, str] = {}
    for option in value.split(","):
        key, _, setting = option.partition("=")
        valid = (
            (key == "hidepid" and setting in _HIDEPID)
            or option == "subset=pid"
            or (key == "gid" and setting.isascii() and setting.isdigit() and len(setting) < 10)
        )
        if not valid or key in accepted:
            raise InvalidRequest(
                f"--security-opt proc-opts: {option[:80]!r} is not valid",
                hint=f"hidepid={'|'.join(_HIDEPID)}, gid=NUMBER, subset=pid; each once",
            )
        accepted[key] = option
    return tuple(accepted.values())
