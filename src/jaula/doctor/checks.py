"""What the facts mean for an engine: nothing, a loss, or that it cannot run. Pure.

``hinders``: no engine, or no container, until it is mended. ``costs``: they run and lack something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum

import msgspec

from jaula.doctor.facts import HostReport
from jaula.rootless.subids import MIN_IDS


class State(StrEnum):
    """How bad it is."""

    OK = "ok"
    COSTS = "costs"
    HINDERS = "hinders"


class Finding(msgspec.Struct, frozen=True):
    """One line: ``mend`` is a command to type, "" where nothing is to be done or can be."""

    subject: str
    state: State
    found: str
    mend: str = ""


OVERLAY_IN_NAMESPACE = (5, 11)
IDMAPPED = (5, 12)
_PACKAGES = {  # by family of distributions: Debian's, Fedora's, Arch's
    "uidmap": {"debian": "uidmap", "fedora": "shadow-utils", "arch": "shadow"},
    "pasta": {"debian": "passt", "fedora": "passt", "arch": "passt"},
    "nft": {"debian": "nftables", "fedora": "nftables", "arch": "nftables"},
    "ps": {"debian": "procps", "fedora": "procps-ng", "arch": "procps-ng"},
}
_INSTALL = {"debian": "apt install", "fedora": "dnf install", "arch": "pacman -S"}
_LIMITS = ("cpu", "cpuset", "io", "memory", "pids")


def examine(facts: HostReport) -> list[Finding]:
    """Every line for root's engine or an ordinary user's."""
    if facts.uid == 0:
        return [*_namespace_sysctls(facts), *_kernel(facts), *_firewall(facts), *_tools(facts),
                *_root_cgroups(facts), *_root_directories(facts)]  # fmt: skip
    checks: tuple[Callable[[HostReport], Iterator[Finding]], ...] = (
        _ids,
        _mappers,
        _namespace_sysctls,
        _namespace,
        _kernel,
        _runtime_directory,
        _root_directories,
        _outside,
        _firewall,
        _tools,
        _delegation,
        _lingering,
    )
    return [finding for check in checks for finding in check(facts)]


def hinders(findings: list[Finding]) -> bool:
    """Whether anything stops an engine."""
    return any(finding.state is State.HINDERS for finding in findings)


def install(facts: HostReport, what: str) -> str:
    """The command that installs a package by what is needed of it."""
    for word in facts.distribution:
        family = {"ubuntu": "debian", "rhel": "fedora", "centos": "fedora"}.get(word, word)
        if family in _INSTALL:
            return f"{_as_root(facts)}{_INSTALL[family]} {_PACKAGES[what][family]}"
    return f"install the package that has {what}"


def _as_root(facts: HostReport) -> str:
    return "" if facts.uid == 0 else "sudo "


def _ids(facts: HostReport) -> Iterator[Finding]:
    for kind, count in (("uid", facts.subuids), ("gid", facts.subgids)):
        subject, path = f"sub{kind}", f"/etc/sub{kind}"
        first = facts.next_subid
        mend = f"sudo usermod --add-sub{kind}s {first}-{first + MIN_IDS - 1} {facts.name}"
        if count == 0:
            yield Finding(subject, State.HINDERS, f"{facts.name} has no range in {path}", mend)
        elif count < MIN_IDS:
            found = f"{count} ids in {path}: images with owners above {count} cannot be unpacked"
            yield Finding(subject, State.COSTS, found, mend)
        else:
            yield Finding(subject, State.OK, f"{count} ids in {path}")


def _mappers(facts: HostReport) -> Iterator[Finding]:
    for name in ("newuidmap", "newgidmap"):
        program = facts.programs.get(name)
        if program is None:
            mend = install(facts, "uidmap")
            yield Finding(name, State.HINDERS, "it is not installed", mend)
        elif not program.raised:
            found = f"{program.path} has neither the set-user-ID bit nor a file capability"
            yield Finding(name, State.HINDERS, found, f"sudo chmod u+s {program.path}")
        else:
            yield Finding(name, State.OK, program.path)
    if facts.no_new_privileges:
        found = "this session may gain no privileges, so newuidmap cannot work in it"
        yield Finding("no_new_privs", State.HINDERS, found)


def _namespace_sysctls(facts: HostReport) -> Iterator[Finding]:
    for name in ("user.max_user_namespaces", "user.max_net_namespaces", "user.max_mnt_namespaces"):
        value = facts.sysctls.get(name)
        if value is None:
            if name == "user.max_user_namespaces":
                found = "this kernel has no user namespaces (CONFIG_USER_NS)"
                state = State.COSTS if facts.uid == 0 else State.HINDERS
                yield Finding(name, state, found)
        elif value < 16:
            yield Finding(name, State.HINDERS, f"{value}", _sysctl(facts, name, 28633))
        else:
            yield Finding(name, State.OK, f"{value}")
    if facts.uid == 0:
        return
    if (value := facts.sysctls.get("kernel.unprivileged_userns_clone")) is not None:
        name = "kernel.unprivileged_userns_clone"
        if value:
            yield Finding(name, State.OK, f"{value}")
        else:
            yield Finding(name, State.HINDERS, "0", _sysctl(facts, name, 1))
    if (value := facts.sysctls.get("kernel.apparmor_restrict_unprivileged_userns")) is not None:
        name = "kernel.apparmor_restrict_unprivileged_userns"
        if value and facts.namespace:
            yield Finding(name, State.HINDERS, f"{value}", _sysctl(facts, name, 0))
        else:
            yield Finding(name, State.OK, f"{value}")


def _sysctl(facts: HostReport, name: str, value: int) -> str:
    return (
        f"echo {name}={value} | {_as_root(facts)}tee /etc/sysctl.d/90-jaula.conf"
        f" && {_as_root(facts)}sysctl --system"
    )


def _namespace(facts: HostReport) -> Iterator[Finding]:
    if facts.namespace:
        found = f"one with rights in it cannot be made: {facts.namespace}"
        yield Finding("user namespace", State.HINDERS, found)
    else:
        yield Finding("user namespace", State.OK, "one with rights in it can be made")


def _kernel(facts: HostReport) -> Iterator[Finding]:
    version = ".".join(map(str, facts.kernel))
    wanted = IDMAPPED if facts.uid == 0 else OVERLAY_IN_NAMESPACE
    if facts.kernel < wanted:
        lost = "id-mapped layers" if facts.uid == 0 else "overlay in a user namespace"
        found = f"{version}: no {lost} before {wanted[0]}.{wanted[1]}, so every image is copied"
        yield Finding("kernel", State.COSTS, found)
    else:
        yield Finding("kernel", State.OK, version)


def _runtime_directory(facts: HostReport) -> Iterator[Finding]:
    subject = "XDG_RUNTIME_DIR"
    usual = f"export XDG_RUNTIME_DIR=/run/user/{facts.uid}"
    if facts.runtime_directory:
        found = f"{facts.runtime_variable}: {facts.runtime_directory}"
        yield Finding(subject, State.HINDERS, found, usual)
    elif not facts.runtime_variable and facts.run.startswith("/run/user/"):
        yield Finding(subject, State.OK, f"not set; {facts.run} is used")
    elif not facts.runtime_variable:
        found = f"not set: the engine's socket is below {facts.run}, where docker does not look"
        mend = f"sudo loginctl enable-linger {facts.name}" if facts.systemd else usual
        yield Finding(subject, State.COSTS, found, mend)
    else:
        yield Finding(subject, State.OK, facts.runtime_variable)


def _root_directories(facts: HostReport) -> Iterator[Finding]:
    if facts.root_writable:
        yield Finding("data directory", State.OK, facts.root)
    else:
        mend = "" if facts.uid == 0 else "export XDG_DATA_HOME=DIRECTORY"
        yield Finding("data directory", State.HINDERS, f"{facts.root} cannot be made", mend)


def _outside(facts: HostReport) -> Iterator[Finding]:
    helper = next((n for n in ("pasta", "slirp4netns") if n in facts.programs), "")
    lost = "containers do not reach outside"
    if not helper:
        found = f"neither pasta nor slirp4netns is installed: {lost}"
        yield Finding("pasta", State.COSTS, found, install(facts, "pasta"))
    else:
        yield Finding("pasta", State.OK, facts.programs[helper].path)
    if facts.tun:
        found = f"cannot be opened ({facts.tun}): {lost}"
        yield Finding("/dev/net/tun", State.COSTS, found, "sudo chmod 666 /dev/net/tun")
    else:
        yield Finding("/dev/net/tun", State.OK, "can be opened")


def _firewall(facts: HostReport) -> Iterator[Finding]:
    if facts.libnftables or "nft" in facts.programs:
        yield Finding("nft", State.OK, "libnftables" if facts.libnftables else "the program")
    else:
        found = "neither libnftables nor nft is installed: only --network none and host work"
        yield Finding("nft", State.COSTS, found, install(facts, "nft"))


def _tools(facts: HostReport) -> Iterator[Finding]:
    if "ps" in facts.programs:
        yield Finding("ps", State.OK, facts.programs["ps"].path)
    else:
        yield Finding("ps", State.COSTS, "not installed: no jaula top", install(facts, "ps"))


def _root_cgroups(facts: HostReport) -> Iterator[Finding]:
    if not facts.unified:
        yield Finding("cgroups", State.OK, "v1, or v1 and v2")
    elif missing := [name for name in _LIMITS if name not in facts.controllers]:
        yield Finding("cgroups", State.COSTS, f"v2 without {', '.join(missing)}: no such limits")
    else:
        yield Finding("cgroups", State.OK, "v2")


def _delegation(facts: HostReport) -> Iterator[Finding]:
    subject, lost = "cgroups", "no limits, no --profile strict, no pause, no figures of use"
    if not facts.unified:
        found = f"v1, which is not delegated to users: {lost}"
        mend = ""
        if facts.systemd:
            mend = "add systemd.unified_cgroup_hierarchy=1 to the kernel's command line"
        yield Finding(subject, State.COSTS, found, mend)
        return
    if not facts.user_manager:
        found = f"the user's own systemd does not answer, so nothing is delegated: {lost}"
        mend = f"sudo loginctl enable-linger {facts.name}" if facts.systemd else ""
        yield Finding(subject, State.COSTS, found, mend)
        return
    missing = [name for name in _LIMITS if name not in facts.controllers]
    if missing:
        given = "cpu cpuset io memory pids"
        mend = (
            "sudo mkdir -p /etc/systemd/system/user@.service.d && printf"
            f" '[Service]\\nDelegate={given}\\n' | sudo tee"
            " /etc/systemd/system/user@.service.d/delegate.conf && sudo systemctl daemon-reload"
        )
        found = f"v2, not delegated: {', '.join(missing)}: no such limits"
        if {"memory", "pids"} & set(missing):
            found += ", no --profile strict"
        yield Finding(subject, State.COSTS, found, mend)
    else:
        yield Finding(subject, State.OK, "v2, delegated by systemd")


def _lingering(facts: HostReport) -> Iterator[Finding]:
    if not facts.systemd:
        return
    if facts.lingers:
        yield Finding("lingering", State.OK, "containers outlive the user's last session")
    else:
        found = "off: containers end with the user's last session"
        mend = f"sudo loginctl enable-linger {facts.name}"
        yield Finding("lingering", State.COSTS, found, mend)
