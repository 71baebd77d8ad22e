"""Device nodes and the devices cgroup: only what is on the allow-list (statement I10).

Evidence: the nodes in the container's /dev (through /proc/<pid>/root); on cgroup v1 devices.list,
on v2 the BPF programs attached to the cgroup, whose
instructions are held against those that the spec's rules compile to.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator

from jaula.audit.checks.cgroups import CgroupDirs
from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.container import AuditedContainer
from jaula.audit.model.result import Result, Verdict, verdict_of
from jaula.config import OWN_RUNTIME
from jaula.kernel.paths import open_in_root
from jaula.security.devices import DEFAULT_DEVICES, DEFAULT_RULES
from jaula.spec.runtime import DeviceCgroup

SEPARATE = ("pts", "shm", "mqueue")
MAX_NODES = 10_000


INFO = CheckInfo(
    id="devices",
    layer="devices",
    title="Devices",
    reason="A device node leads past every namespace to the hardware or the kernel's memory.",
    references=("I10", "CIS 5.18", "GHSA-g54h-m393-cpwq"),
    evidence=(
        "nodes in /proc/<pid>/root/dev; devices.list (v1), the BPF programs of the cgroup (v2)"
    ),
    advice=(
        "start it without --device and --device-cgroup-rule, or restart it where rules were added"
    ),
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Nodes, then rules."""
    flags = _flags(container)
    by = ", ".join(flags) or None
    wanted = {(d.type, d.major, d.minor) for d in container.linux.devices}
    default = {(d.type, d.major, d.minor) for d in DEFAULT_DEVICES}
    terminals = {("c", major, minor) for major in range(136, 144) for minor in (-1,)}
    found = list(_nodes(container))
    extra = [
        path
        for path, node in found
        if node not in wanted | default
        and (node[0], node[1], -1) not in terminals
        and node != ("c", 5, 2)
    ]
    unasked = wanted - default if not flags else set()
    effective = f"{len(found)} nodes"
    if extra:
        effective += f"; not asked for: {', '.join(extra)}"
    if unasked:
        effective += f"; the spec has {len(unasked)} that no flag asked for"
    requested = f"{len(wanted | default)} nodes" + (f" ({by})" if by else "")
    yield Result(
        "device nodes", "devices", requested, effective, container.path("root/dev"),
        verdict_of(not extra and not unasked, by),
    )  # fmt: skip
    yield _rules(container, by)


def _flags(container: AuditedContainer) -> list[str]:
    flags = []
    if container.privileged and container.text("UsernsMode") == "host":
        flags.append("--privileged")
    flags += [f"--device {d.get('PathOnHost')}" for d in container.host_config.get("Devices") or ()]
    flags += [f"--device-cgroup-rule {rule!r}" for rule in container.names("DeviceCgroupRules")]
    return flags


def _nodes(container: AuditedContainer) -> Iterator[tuple[str, tuple[str, int, int]]]:
    """Every device node below /dev, without terminals, shared memory and queues."""
    top = open_in_root(container.root, "/dev", os.O_RDONLY | os.O_DIRECTORY)
    count = 0
    try:
        for where, folders, files, fd in os.fwalk(".", dir_fd=top):
            if where == ".":
                folders[:] = [name for name in folders if name not in SEPARATE]
            for name in files:
                facts = os.stat(name, dir_fd=fd, follow_symlinks=False)
                count += 1
                if count > MAX_NODES:
                    raise ValueError(f"more than {MAX_NODES} entries in /dev")
                if stat.S_ISCHR(facts.st_mode) or stat.S_ISBLK(facts.st_mode):
                    kind = "c" if stat.S_ISCHR(facts.st_mode) else "b"
                    node = (kind, os.major(facts.st_rdev), os.minor(facts.st_rdev))
                    yield f"/dev/{where}/{name}".replace("/./", "/"), node
    finally:
        os.close(top)


def _rules(container: AuditedContainer, by: str | None) -> Result:
    resources = container.linux.resources
    rules = [rule for rule in (resources.devices if resources else ()) if rule.allow]
    wanted = {format_rule(rule) for rule in rules}
    default = {format_rule(rule) for rule in DEFAULT_RULES}
    groups = CgroupDirs(container)
    requested = f"{len(wanted)} rules" + (f" ({by})" if by else "")
    if container.rootless is not None:
        return Result("device rules", "devices", f"none ({container.rootless})",
                   "no node can be made in its user namespace", container.path("uid_map"),
                   verdict_of(True, container.rootless))  # fmt: skip
    if (directory := groups.legacy("devices")) is not None:
        evidence = f"{directory}/devices.list"
        with open(evidence, encoding="ascii") as file:
            found = {line.strip() for line in file if line.strip()}
        extra = sorted(found - wanted)
        unasked = sorted(wanted - default) if not by else []
        effective = f"{len(found)} rules"
        if extra:
            effective += f"; not asked for: {', '.join(extra)}"
        if unasked:
            effective += f"; the spec allows {', '.join(unasked)}"
        return Result("device rules", "devices", requested, effective, evidence,
                   verdict_of(not extra and not unasked, by))  # fmt: skip
    if (unified := groups.unified()) is None:
        return Result("device rules", "devices", requested, "no devices controller on this host", "",
                   Verdict.UNKNOWN)  # fmt: skip
    return _program(container, unified, wanted, by)


def _program(
    container: AuditedContainer, directory: str, wanted: set[str], by: str | None
) -> Result:
    """The BPF programs of a v2 cgroup against the one that the spec's rules compile to."""
    from jaula.cgroups import device_rules
    from jaula.cgroups.v2 import devices

    resources = container.linux.resources
    expected = devices.assemble(device_rules.normalize(resources.devices if resources else ()))
    programs = attached_programs(directory)
    ours = [number for number, code, tag in programs if is_expected(expected, code, tag)]
    runtime = container.text("Runtime")
    everything = "a *:* rwm" in wanted and by is not None
    effective = "; ".join(
        f"BPF program {number} tag {tag}" + (", the spec's" if number in ours else "")
        for number, _, tag in programs
    )
    holds = bool(ours)
    if not holds and runtime not in ("", OWN_RUNTIME):
        holds, effective = bool(programs), f"{effective}; compiled by {runtime}"
    requested = f"{len(wanted)} rules" + (f" ({by})" if by else "")
    return Result("device rules", "devices", requested, effective or "no program",
               f"BPF_PROG_QUERY, BPF_OBJ_GET_INFO_BY_FD {directory}",
               verdict_of(holds or everything, by))  # fmt: skip


def attached_programs(directory: str) -> list[tuple[int, bytes, str]]:
    """(id, instructions, tag) of the device programs attached to a cgroup itself."""
    from jaula.cgroups.v2 import bpf

    found = []
    group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for number in bpf.attached(group):
            program = bpf.by_id(number)
            try:
                found.append((number, bpf.instructions(program), bpf.tag(program)))
            finally:
                os.close(program)
    finally:
        os.close(group)
    return found


def is_expected(expected: bytes, code: bytes, tag: str) -> bool:
    """Whether a loaded program is the expected one: by its text, else by the kernel's digest.

    The digest was SHA-1 until Linux 6.17 and is SHA-256 since (kernel/bpf/core.c), cut to 8 bytes.
    """
    if code:
        return code == expected
    digests = (hashlib.sha1(expected, usedforsecurity=False), hashlib.sha256(expected))
    return tag in [digest.hexdigest()[:16] for digest in digests]


def format_rule(rule: DeviceCgroup) -> str:
    """A rule as devices.list prints it."""
    major = "*" if rule.major is None or rule.major < 0 else str(rule.major)
    minor = "*" if rule.minor is None or rule.minor < 0 else str(rule.minor)
    access = "".join(letter for letter in "rwm" if letter in (rule.access or "rwm"))
    return f"{rule.type or 'a'} {major}:{minor} {access}"
