"""Sysctls: what was asked for is in effect in the container's own namespaces (statement I24).

Evidence: /proc/sys, read by a process that has joined the namespaces, since the kernel shows each
reader the values of the reader's own; and /proc/<pid>/net/if_inet6: the container's interfaces have
no IPv6, so that no router advertisement can give them an address and a way out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv6Address

from jaula.audit.kernel import probes
from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.container import AuditedContainer
from jaula.audit.model.result import Result, judge
from jaula.kernel import namespaces
from jaula.security.sysctls import IPC, UTS, normalize

ABOUT = CheckInfo(
    id="sysctls",
    layer="network",
    title="Kernel settings",
    reason="A setting that is not the container's own changes the host; one that was asked for and "
    "is not in effect leaves a door open.",
    references=("I18", "I24", "CVE-2020-13401", "CVE-2022-0811", "sysctl(2)"),
    evidence="/proc/sys, read in the container's network, ipc and uts namespaces",
    advice="restart it: its settings are made anew",
)

SEPARATOR = "\x1f"


def check(subject: AuditedContainer) -> Iterator[Result]:
    """One row for what was asked for, one for IPv6 on the container's interfaces."""
    asked = {normalize(name): value for name, value in _asked(subject).items()}
    names = sorted(asked.keys() | {normalize(name) for name in subject.linux.sysctl})
    if names:
        found = readings(subject, names)
        wrong = [name for name in names if _plain(found[name]) != _plain(asked.get(name, ""))]
        foreign = [name for name in names if not (name.startswith("net/") or name in IPC | UTS)]
        effective = f"{len(names)} set"
        if wrong:
            effective = "; ".join(f"{name} = {found[name]}" for name in wrong)
        if foreign:
            effective += f"; not a container's own: {', '.join(foreign)}"
        evidence = f"/proc/sys in {subject.path('ns')}"
        yield Result("sysctls", "network", f"{len(asked)} settings", effective, evidence,
                  judge(not wrong and not foreign, None))  # fmt: skip
    mode = subject.text("NetworkMode") or "bridge"
    if mode == "host" or mode.startswith("container:") or any("ipv6" in name for name in asked):
        return
    given = given6(subject)
    found6 = ipv6(subject)
    extra = [text for text in found6 if not allowed(text, given)]
    requested = ", ".join(map(str, given)) or "no address but the loopback's"
    yield Result("ipv6", "network", requested, ", ".join(extra or found6) or "none",
              subject.path("net/if_inet6"), judge(not extra, None))  # fmt: skip


def _asked(subject: AuditedContainer) -> Mapping[str, str]:
    asked: Mapping[str, str] = subject.host_config.get("Sysctls") or {}
    return asked


def given6(subject: AuditedContainer) -> list[IPv6Address]:
    """The IPv6 addresses that the container's networks gave it."""
    networks = (subject.inspect.get("NetworkSettings") or {}).get("Networks") or {}
    found = [str(each.get("GlobalIPv6Address") or "") for each in networks.values()]
    return [IPv6Address(text) for text in found if text]


def allowed(text: str, given: Sequence[IPv6Address]) -> bool:
    """Whether an address was given, or is the link's own where there is IPv6 at all."""
    address = IPv6Address(int(text.split()[1], 16))
    return address in given or (bool(given) and address.is_link_local)


def ipv6(subject: AuditedContainer) -> list[str]:
    """Interfaces with an IPv6 address: where IPv6 is off there is none, not even a local one."""
    try:
        text = subject.read("net/if_inet6")
    except FileNotFoundError:  # a kernel without IPv6
        return []
    words = [line.split() for line in text.splitlines()]
    return [f"{word[5]} {word[0]}" for word in words if len(word) == 6 and word[5] != "lo"]


def readings(subject: AuditedContainer, names: Sequence[str]) -> dict[str, str]:
    """Values by path below /proc/sys, as the container has them; ``?`` where there is none.

    Joins the namespaces in a child process: the kernel shows each reader its own values.
    """
    kinds = {
        "net" if name.startswith("net/") else "uts" if name in UTS else "ipc" for name in names
    }

    def read(name: str) -> str:
        try:
            with open(f"/proc/sys/{name}", encoding="ascii", errors="replace") as file:
                return file.read().strip()
        except OSError:
            return "?"

    def act() -> str:
        for kind in sorted(kinds):
            namespaces.setns(namespaces.open_namespace(subject.pid, kind))
        return SEPARATOR.join(read(name) for name in names)

    values = probes.told_by_child(act).split(SEPARATOR)
    if len(values) != len(names):
        raise ValueError(f"the settings were not told: {SEPARATOR.join(values)[:120]}")
    return dict(zip(names, values, strict=True))


def _plain(value: str) -> str:
    return " ".join(value.split())
