"""Sysctls of the host that make kernel flaws harder to exploit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from jaula.features.verify.host.host import Host
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.result import Result, verdict_of

INFO = CheckInfo(
    id="host-settings",
    layer="host",
    title="Kernel settings",
    reason="These sysctls remove what most known escapes needed: kernel addresses, unprivileged "
    "BPF, links and fifos in shared directories.",
    references=("I24", "I25", "CIS 1.2.1", "sysctl(2)"),
    evidence="/proc/sys",
    advice="write the recommended value to a file in /etc/sysctl.d; load it with sysctl --system",
)


class Setting(msgspec.Struct, frozen=True):
    """A sysctl; ``is_hardened`` tests a value, ``recommended`` describes the good ones."""

    name: str
    recommended: str
    is_hardened: Callable[[str], bool]
    reason: str


def _at_least(number: int) -> Callable[[str], bool]:
    return lambda value: value.lstrip("-").isdigit() and int(value) >= number


def _exactly(text: str) -> Callable[[str], bool]:
    return lambda value: value == text


SETTINGS: tuple[Setting, ...] = (
    Setting("kernel/kptr_restrict", "1 or 2", _at_least(1), "kernel addresses"),
    Setting("kernel/dmesg_restrict", "1", _exactly("1"), "the kernel's log for root only"),
    Setting("kernel/unprivileged_bpf_disabled", "1 or 2", _at_least(1), "BPF for root only"),
    Setting("kernel/perf_event_paranoid", "2 or more", _at_least(2),
            "counters of own processes only"),
    Setting("kernel/randomize_va_space", "2", _exactly("2"), "random address spaces"),
    Setting("vm/unprivileged_userfaultfd", "0", _exactly("0"), "no page faults held in user space"),
    Setting("vm/mmap_min_addr", "4096 or more", _at_least(4096), "no page at address 0"),
    Setting("fs/protected_hardlinks", "1", _exactly("1"), "no hard links to other users' files"),
    Setting("fs/protected_symlinks", "1", _exactly("1"), "no other users' links in /tmp"),
    Setting("fs/protected_fifos", "1 or 2", _at_least(1), "no other users' fifos in /tmp"),
    Setting("fs/protected_regular", "1 or 2", _at_least(1), "no other users' files in /tmp"),
    Setting("fs/suid_dumpable", "0 or 2", lambda value: value in "02", "no readable core dumps"),
    Setting("net/ipv4/conf/all/route_localnet", "0", _exactly("0"),
            "loopback services are not routed"),
)  # fmt: skip


def check(host: Host) -> Iterator[Result]:
    """Yield a row for each sysctl that this kernel has."""
    for setting in SETTINGS:
        value = host.setting(setting.name)
        if value is None:
            continue
        weak = None if setting.is_hardened(value) else "weaker, as set on this host"
        requested = f"{setting.recommended} ({setting.reason})" + (f" ({weak})" if weak else "")
        yield Result(setting.name.replace("/", "."), "host", requested, value,
                  f"{host.proc}/sys/{setting.name}", verdict_of(True, weak))  # fmt: skip
