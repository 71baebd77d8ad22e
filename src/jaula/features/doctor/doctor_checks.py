"""Checks of ``jaula doctor``: from the report of a host to findings. Pure.

``hinders``: no engine, or no container, until it is fixed. ``costs``: they run without a feature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from jaula.features.doctor.host_state import HostReport
from jaula.rootless.subids import MIN_IDS

if TYPE_CHECKING:
    from jaula.features.doctor.kernel.check_config import SupportRow


class State(StrEnum):
    """Severity of a finding."""

    OK = "ok"
    COSTS = "costs"
    HINDERS = "hinders"


class Finding(msgspec.Struct, frozen=True):
    """One finding. ``fix`` is a command to type, empty if nothing can or must be done."""

    subject: str
    state: State
    detail: str = msgspec.field(name="found")
    fix: str = msgspec.field(name="mend", default="")


OVERLAY_IN_NAMESPACE = (5, 11)
IDMAPPED = (5, 12)
_PACKAGES = {  # package names by family of distributions: Debian, Fedora, Arch
    "uidmap": {"debian": "uidmap", "fedora": "shadow-utils", "arch": "shadow"},
    "pasta": {"debian": "passt", "fedora": "passt", "arch": "passt"},
    "nft": {"debian": "nftables", "fedora": "nftables", "arch": "nftables"},
    "ps": {"debian": "procps", "fedora": "procps-ng", "arch": "procps-ng"},
}
_INSTALL = {"debian": "apt install", "fedora": "dnf install", "arch": "pacman -S"}
_LIMITS = ("cpu", "cpuset", "io", "memory", "pids")


def examine(host: HostReport) -> list[Finding]:
    """Return all findings for root's engine or a rootless engine."""
    if host.uid == 0:
        return [*_namespace_sysctls(host), *_kernel(host), *_firewall(host), *_tools(host),
                *_checkpoints(host), *_root_cgroups(host), *_root_directories(host)]  # fmt: skip
    checks: tuple[Callable[[HostReport], Iterator[Finding]], ...] = (
        _ids,
        _mappers,
        _namespace_sysctls,
        _namespace,
        _kernel,
        _runtime_directory,
        _root_directories,
        _external_network,
        _firewall,
        _tools,
        _delegation,
        _lingering,
    )
    return [finding for check in checks for finding in check(host)]


def has_blocker(findings: list[Finding]) -> bool:
    """Return whether a finding prevents an engine or its containers."""
    return any(finding.state is State.HINDERS for finding in findings)


def install(host: HostReport, program: str) -> str:
    """Return the command that installs the package of ``program``."""
    for word in host.distribution:
        family = {"ubuntu": "debian", "rhel": "fedora", "centos": "fedora"}.get(word, word)
        if family in _INSTALL:
            return f"{_as_root(host)}{_INSTALL[family]} {_PACKAGES[program][family]}"
    return f"install the package that contains {program}"


def _as_root(host: HostReport) -> str:
    return "" if host.uid == 0 else "sudo "


def _ids(host: HostReport) -> Iterator[Finding]:
    for kind, count in (("uid", host.subuids), ("gid", host.subgids)):
        subject, path = f"sub{kind}", f"/etc/sub{kind}"
        first = host.next_subid
        fix = f"sudo usermod --add-sub{kind}s {first}-{first + MIN_IDS - 1} {host.name}"
        if count == 0:
            yield Finding(subject, State.HINDERS, f"{host.name} has no range in {path}", fix)
        elif count < MIN_IDS:
            detail = f"{count} ids in {path}: images with owners above {count} cannot be unpacked"
            yield Finding(subject, State.COSTS, detail, fix)
        else:
            yield Finding(subject, State.OK, f"{count} ids in {path}")


def _mappers(host: HostReport) -> Iterator[Finding]:
    for name in ("newuidmap", "newgidmap"):
        program = host.programs.get(name)
        if program is None:
            fix = install(host, "uidmap")
            yield Finding(name, State.HINDERS, "not installed", fix)
        elif not program.raised:
            detail = f"{program.path} has neither the set-user-ID bit nor a file capability"
            yield Finding(name, State.HINDERS, detail, f"sudo chmod u+s {program.path}")
        else:
            yield Finding(name, State.OK, program.path)
    if host.no_new_privileges:
        detail = "no_new_privs is set for this session, so newuidmap cannot work"
        yield Finding("no_new_privs", State.HINDERS, detail)


def _namespace_sysctls(host: HostReport) -> Iterator[Finding]:
    for name in ("user.max_user_namespaces", "user.max_net_namespaces", "user.max_mnt_namespaces"):
        value = host.sysctls.get(name)
        if value is None:
            if name == "user.max_user_namespaces":
                detail = "this kernel has no user namespaces (CONFIG_USER_NS)"
                state = State.COSTS if host.uid == 0 else State.HINDERS
                yield Finding(name, state, detail)
        elif value < 16:
            yield Finding(name, State.HINDERS, f"{value}", _sysctl(host, name, 28633))
        else:
            yield Finding(name, State.OK, f"{value}")
    if host.uid == 0:
        return
    if (value := host.sysctls.get("kernel.unprivileged_userns_clone")) is not None:
        name = "kernel.unprivileged_userns_clone"
        if value:
            yield Finding(name, State.OK, f"{value}")
        else:
            yield Finding(name, State.HINDERS, "0", _sysctl(host, name, 1))
    if (value := host.sysctls.get("kernel.apparmor_restrict_unprivileged_userns")) is not None:
        name = "kernel.apparmor_restrict_unprivileged_userns"
        if value and host.namespace:
            yield Finding(name, State.HINDERS, f"{value}", _sysctl(host, name, 0))
        else:
            yield Finding(name, State.OK, f"{value}")


def _sysctl(host: HostReport, name: str, value: int) -> str:
    return (
        f"echo {name}={value} | {_as_root(host)}tee /etc/sysctl.d/90-jaula.conf"
        f" && {_as_root(host)}sysctl --system"
    )


def _namespace(host: HostReport) -> Iterator[Finding]:
    if host.namespace:
        detail = f"one with capabilities cannot be created: {host.namespace}"
        yield Finding("user namespace", State.HINDERS, detail)
    else:
        yield Finding("user namespace", State.OK, "one with capabilities can be created")


def _kernel(host: HostReport) -> Iterator[Finding]:
    version = ".".join(map(str, host.kernel))
    required = IDMAPPED if host.uid == 0 else OVERLAY_IN_NAMESPACE
    if host.kernel < required:
        feature = "id-mapped layers" if host.uid == 0 else "overlay in a user namespace"
        detail = (
            f"{version}: no {feature} before {required[0]}.{required[1]}, so every image is copied"
        )
        yield Finding("kernel", State.COSTS, detail)
    else:
        yield Finding("kernel", State.OK, version)


def _runtime_directory(host: HostReport) -> Iterator[Finding]:
    subject = "XDG_RUNTIME_DIR"
    export = f"export XDG_RUNTIME_DIR=/run/user/{host.uid}"
    if host.runtime_directory:
        detail = f"{host.runtime_variable}: {host.runtime_directory}"
        yield Finding(subject, State.HINDERS, detail, export)
    elif not host.runtime_variable and host.run.startswith("/run/user/"):
        yield Finding(subject, State.OK, f"not set; {host.run} is used")
    elif not host.runtime_variable:
        detail = f"not set: the engine's socket is below {host.run}, where docker does not search"
        fix = f"sudo loginctl enable-linger {host.name}" if host.systemd else export
        yield Finding(subject, State.COSTS, detail, fix)
    else:
        yield Finding(subject, State.OK, host.runtime_variable)


def _root_directories(host: HostReport) -> Iterator[Finding]:
    if host.root_writable:
        yield Finding("data directory", State.OK, host.root)
    else:
        fix = "" if host.uid == 0 else "export XDG_DATA_HOME=DIRECTORY"
        yield Finding("data directory", State.HINDERS, f"{host.root} cannot be created", fix)


def _external_network(host: HostReport) -> Iterator[Finding]:
    helper = next((n for n in ("pasta", "slirp4netns") if n in host.programs), "")
    effect = "containers cannot reach external networks"
    if not helper:
        detail = f"neither pasta nor slirp4netns is installed: {effect}"
        yield Finding("pasta", State.COSTS, detail, install(host, "pasta"))
    else:
        yield Finding("pasta", State.OK, host.programs[helper].path)
    if host.tun:
        detail = f"cannot be opened ({host.tun}): {effect}"
        yield Finding("/dev/net/tun", State.COSTS, detail, "sudo chmod 666 /dev/net/tun")
    else:
        yield Finding("/dev/net/tun", State.OK, "can be opened")


def _firewall(host: HostReport) -> Iterator[Finding]:
    if host.libnftables or "nft" in host.programs:
        yield Finding("nft", State.OK, "libnftables" if host.libnftables else "the program")
    else:
        detail = "neither libnftables nor nft is installed: only --network none and host work"
        yield Finding("nft", State.COSTS, detail, install(host, "nft"))


def _tools(host: HostReport) -> Iterator[Finding]:
    if "ps" in host.programs:
        yield Finding("ps", State.OK, host.programs["ps"].path)
    else:
        yield Finding(
            "ps", State.COSTS, "not installed: jaula top does not work", install(host, "ps")
        )


def _checkpoints(host: HostReport) -> Iterator[Finding]:
    """CRIU is optional: without it only checkpoints do not work."""
    report = host.criu
    if report is None:
        return
    if not report.version:
        yield Finding(
            "criu",
            State.OK,
            f"{report.problem}: no checkpoints (install CRIU 4.2 to have them)",
        )
        return
    if report.problem:
        yield Finding(
            "criu",
            State.COSTS,
            f"{report.version}, no checkpoints: {report.problem}",
            "install CRIU 4.2 or later",
        )
    else:
        yield Finding("criu", State.OK, f"{report.version}, dumps a process with a socket")
    tracks = "tracks" if report.tracks_memory else "does not track"
    yield Finding("dirty memory", State.OK, f"the kernel {tracks} written pages (soft-dirty)")
    yield Finding(
        "processor",
        State.OK,
        f"{host.architecture}, {len(host.cpu_features)} features; the target of a migration must"
        " have them all (jaula doctor --against)",
    )


def _root_cgroups(host: HostReport) -> Iterator[Finding]:
    if not host.unified:
        yield Finding("cgroups", State.OK, "v1, or v1 and v2")
    elif missing := [name for name in _LIMITS if name not in host.controllers]:
        yield Finding(
            "cgroups", State.COSTS, f"v2 without {', '.join(missing)}: these limits do not work"
        )
    else:
        yield Finding("cgroups", State.OK, "v2")


def _delegation(host: HostReport) -> Iterator[Finding]:
    subject, effect = "cgroups", "no limits, no --profile strict, no pause, no stats"
    if not host.unified:
        detail = f"v1, which is not delegated to users: {effect}"
        fix = ""
        if host.systemd:
            fix = "add systemd.unified_cgroup_hierarchy=1 to the kernel's command line"
        yield Finding(subject, State.COSTS, detail, fix)
        return
    if not host.user_manager:
        detail = (
            f"the systemd instance of the user does not answer, so nothing is delegated: {effect}"
        )
        fix = f"sudo loginctl enable-linger {host.name}" if host.systemd else ""
        yield Finding(subject, State.COSTS, detail, fix)
        return
    missing = [name for name in _LIMITS if name not in host.controllers]
    if missing:
        controllers = "cpu cpuset io memory pids"
        fix = (
            "sudo mkdir -p /etc/systemd/system/user@.service.d && printf"
            f" '[Service]\\nDelegate={controllers}\\n' | sudo tee"
            " /etc/systemd/system/user@.service.d/delegate.conf && sudo systemctl daemon-reload"
        )
        detail = f"v2, not delegated: {', '.join(missing)}: these limits do not work"
        if {"memory", "pids"} & set(missing):
            detail += ", no --profile strict"
        yield Finding(subject, State.COSTS, detail, fix)
    else:
        yield Finding(subject, State.OK, "v2, delegated by systemd")


def _lingering(host: HostReport) -> Iterator[Finding]:
    if not host.systemd:
        return
    if host.lingers:
        yield Finding(
            "lingering", State.OK, "containers keep running after the user's last session"
        )
    else:
        detail = "off: containers end with the user's last session"
        fix = f"sudo loginctl enable-linger {host.name}"
        yield Finding("lingering", State.COSTS, detail, fix)


def kernel_features(rows: Sequence[SupportRow]) -> list[Finding]:
    """Return the missing kernel features, and one finding for the others. Pure.

    Features that could not be tried need root: ``jaula check`` as root reports them.
    """
    findings = [
        Finding(
            f"kernel: {row.feature}",
            State.HINDERS if row.fatal else State.COSTS,
            f"missing ({_why(row)}): {row.consequence}",
        )
        for row in rows
        if row.support == "no"
    ]
    available = sum(row.support == "yes" for row in rows)
    untried = len(rows) - available - len(findings)
    text = f"{available} of {len(rows)} are available, {untried} could not be tried"
    return [*findings, Finding("kernel features", State.OK, text)]


def _why(row: SupportRow) -> str:
    return row.tried if row.tried != "-" else row.config
