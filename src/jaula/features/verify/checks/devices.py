"""Device nodes and the devices cgroup: only devices of the allow-list (statement I10).

Evidence: the nodes in the container's /dev (through /proc/<pid>/root); on cgroup v1 devices.list;
on v2 the BPF programs of the cgroup, whose instructions are compared with the compiled rules of the
spec.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator

from jaula.config import OWN_RUNTIME
from jaula.features.verify.checks.cgroups import CgroupDirs
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result, Verdict, quantity, verdict_of
from jaula.kernel.openat2 import open_in_root
from jaula.security.allowed_devices import DEFAULT_DEVICES, DEFAULT_RULES
from jaula.spec.runtime_spec import DeviceCgroup

SEPARATE = ("pts", "shm", "mqueue")
MAX_NODES = 10_000


INFO = CheckInfo(
    id="devices",
    layer="devices",
    title="Devices",
    reason="A device node bypasses every namespace and gives access to hardware or kernel memory.",
    references=("I10", "CIS 5.18", "GHSA-g54h-m393-cpwq"),
    evidence=(
        "nodes in /proc/<pid>/root/dev; devices.list (v1), the BPF programs of the cgroup (v2)"
    ),
    advice=(
        "start it without --device and --device-cgroup-rule, or restart it if rules were added"
    ),
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield a row for the nodes and one for the rules."""
    flags = _flags(container)
    by = ", ".join(flags) or None
    requested_nodes = {(d.type, d.major, d.minor) for d in container.linux.devices}
    default = {(d.type, d.major, d.minor) for d in DEFAULT_DEVICES}
    if container.starter is not None:
        default |= requested_nodes
    terminals = {("c", major, minor) for major in range(136, 144) for minor in (-1,)}
    present = list(nodes(container))
    extra = [
        path
        for path, node in present
        if node not in requested_nodes | default
        and (node[0], node[1], -1) not in terminals
        and node != ("c", 5, 2)
    ]
    unrequested = requested_nodes - default if not flags else set()
    effective = quantity(len(present), "node")
    if extra:
        effective += f"; not requested: {', '.join(extra)}"
    if unrequested:
        effective += f"; the spec has {len(unrequested)} without a flag"
    requested = f"{len(requested_nodes | default)} nodes" + (f" ({by})" if by else "")
    yield Result(
        "device nodes", "devices", requested, effective, container.path("root/dev"),
        verdict_of(not extra and not unrequested, by),
    )  # fmt: skip
    yield _rules(container, by)


def _flags(container: AuditedContainer) -> list[str]:
    flags = []
    if container.privileged and container.text("UsernsMode") == "host":
        flags.append(container.flag("--privileged"))
    flags += [f"--device {d.get('PathOnHost')}" for d in container.host_config.get("Devices") or ()]
    for request in container.host_config.get("DeviceRequests") or ():
        names = request.get("DeviceIDs") or ["gpu"]
        flags += [f"--device {name}" for name in names]
    flags += [f"--device-cgroup-rule {rule!r}" for rule in container.names("DeviceCgroupRules")]
    return flags


def nodes(container: AuditedContainer) -> Iterator[tuple[str, tuple[str, int, int]]]:
    """Yield every device node below /dev, except terminals, shared memory and message queues."""
    top = open_in_root(container.root, "/dev", os.O_RDONLY | os.O_DIRECTORY)
    count = 0
    try:
        for directory, directories, files, fd in os.fwalk(".", dir_fd=top):
            if directory == ".":
                directories[:] = [name for name in directories if name not in SEPARATE]
            for name in files:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                count += 1
                if count > MAX_NODES:
                    raise ValueError(f"more than {MAX_NODES} entries in /dev")
                if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                    kind = "c" if stat.S_ISCHR(status.st_mode) else "b"
                    node = (kind, os.major(status.st_rdev), os.minor(status.st_rdev))
                    yield f"/dev/{directory}/{name}".replace("/./", "/"), node
    finally:
        os.close(top)


def _rules(container: AuditedContainer, by: str | None) -> Result:
    resources = container.linux.resources
    rules = [rule for rule in (resources.devices if resources else ()) if rule.allow]
    requested_rules = {format_rule(rule) for rule in rules}
    default = {format_rule(rule) for rule in DEFAULT_RULES}
    if container.starter is not None:
        default |= requested_rules
    groups = CgroupDirs(container)
    requested = quantity(len(requested_rules), "rule") + (f" ({by})" if by else "")
    if container.rootless is not None:
        return Result("device rules", "devices", f"none ({container.rootless})",
                   "no node can be created in its user namespace", container.path("uid_map"),
                   verdict_of(True, container.rootless))  # fmt: skip
    if (directory := groups.legacy("devices")) is not None:
        evidence = f"{directory}/devices.list"
        with open(evidence, encoding="ascii") as file:
            actual = {line.strip() for line in file if line.strip()}
        extra = sorted(actual - requested_rules)
        unrequested = sorted(requested_rules - default) if not by else []
        effective = quantity(len(actual), "rule")
        if extra:
            effective += f"; not requested: {', '.join(extra)}"
        if unrequested:
            effective += f"; the spec allows {', '.join(unrequested)}"
        return Result("device rules", "devices", requested, effective, evidence,
                   verdict_of(not extra and not unrequested, by))  # fmt: skip
    if (unified := groups.unified()) is None:
        return Result("device rules", "devices", requested, "no devices controller on this host",
                   "", Verdict.UNKNOWN)  # fmt: skip
    return _program(container, unified, requested_rules, by)


def _program(
    container: AuditedContainer, directory: str, requested_rules: set[str], by: str | None
) -> Result:
    """Compare the BPF programs of a v2 cgroup with the compiled rules of the spec."""
    from jaula.cgroups import device_rules
    from jaula.cgroups.v2 import devices_v2

    resources = container.linux.resources
    expected = devices_v2.assemble(device_rules.normalize(resources.devices if resources else ()))
    programs = attached_programs(directory)
    ours = [number for number, code, tag in programs if is_expected(expected, code, tag)]
    runtime = container.text("Runtime")
    everything = "a *:* rwm" in requested_rules and by is not None
    effective = "; ".join(
        f"BPF program {number} tag {tag}" + (", the spec's" if number in ours else "")
        for number, _, tag in programs
    )
    holds = bool(ours)
    if not holds and runtime not in ("", OWN_RUNTIME):
        holds, effective = bool(programs), f"{effective}; compiled by {runtime}"
    requested = quantity(len(requested_rules), "rule") + (f" ({by})" if by else "")
    return Result("device rules", "devices", requested, effective or "no program",
               f"BPF_PROG_QUERY, BPF_OBJ_GET_INFO_BY_FD {directory}",
               verdict_of(holds or everything, by))  # fmt: skip


def attached_programs(directory: str) -> list[tuple[int, bytes, str]]:
    """Return (id, instructions, tag) of the device programs attached to a cgroup itself."""
    from jaula.cgroups.v2 import device_bpf

    programs = []
    group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for number in device_bpf.attached(group):
            program = device_bpf.by_id(number)
            try:
                programs.append((number, device_bpf.instructions(program), device_bpf.tag(program)))
            finally:
                os.close(program)
    finally:
        os.close(group)
    return programs


def is_expected(expected: bytes, code: bytes, tag: str) -> bool:
    """Return whether a loaded program is the expected one, by its text or the kernel's digest.

    The digest is SHA-1 up to Linux 6.17 and SHA-256 since (kernel/bpf/core.c), cut to 8 bytes.
    """
    if code:
        return code == expected
    digests = (hashlib.sha1(expected, usedforsecurity=False), hashlib.sha256(expected))
    return tag in [digest.hexdigest()[:16] for digest in digests]


def format_rule(rule: DeviceCgroup) -> str:
    """Format a rule as devices.list prints it."""
    major = "*" if rule.major is None or rule.major < 0 else str(rule.major)
    minor = "*" if rule.minor is None or rule.minor < 0 else str(rule.minor)
    access = "".join(letter for letter in "rwm" if letter in (rule.access or "rwm"))
    return f"{rule.type or 'a'} {major}:{minor} {access}"
