"""Validation of specs: each invalid field gives one line that names it."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import InvalidRequest, JaulaError, Unsupported
from jaula.runtime import validation
from jaula.runtime.validation import sysctl, validate_host, validate_seccomp
from jaula.security.seccomp import seccomp_filter
from jaula.spec.runtime_spec import Memory, Process, Resources, Spec, decode

GOOD: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "root": {"path": "rootfs"},
    "process": {
        "cwd": "/",
        "args": ["sh"],
        "user": {"uid": 0, "gid": 0, "additionalGids": [5]},
        "capabilities": {"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}],
        "oomScoreAdj": 5,
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
        "scheduler": {"policy": "SCHED_BATCH", "nice": 3},
        "execCPUAffinity": {"initial": "0-1"},
    },
    "hostname": "box",
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
    "hooks": {"poststop": [{"path": "/bin/true", "timeout": 5}]},
    "linux": {
        "namespaces": [
            {"type": kind}
            for kind in ("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time")
        ],
        "uidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
        "gidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
        "devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 438}],
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "cgroupsPath": "/a/b",
        "rootfsPropagation": "rslave",
        "sysctl": {"net.ipv4.ip_forward": "1", "kernel.shmmax": "4096"},
        "maskedPaths": ["/proc/kcore"],
        "personality": {"domain": "LINUX32"},
        "timeOffsets": {"boottime": {"secs": -5, "nanosecs": 1}},
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}],
        },
    },
}
MISSING = object()


def changed(path: str, value: object) -> bytes:
    """The good document with one place set, or removed; numbers in the path are indices."""
    document = deepcopy(GOOD)
    *way, last = path.split("/")
    place: Any = document
    for key in way:
        place = place[int(key) if key.isdigit() else key]
    key = int(last) if last.isdigit() else last
    if value is MISSING:
        del place[key]
    else:
        place[key] = value
    return json.dumps(document).encode()


def test_a_valid_spec_has_no_warnings() -> None:
    assert validation.check(decode(json.dumps(GOOD).encode())) == ()


MAP = {"containerID": 0, "hostID": 0, "size": 1}
SYSCALL = "linux/seccomp/syscalls/0"
BAD: list[tuple[str, object, str]] = [
    ("ociVersion", "2.0.0", "ociVersion: '2.0.0' is not supported, this runtime supports 1.x"),
    ("ociVersion", "new", "ociVersion: 'new' is not a version such as 1.2.0"),
    ("root", MISSING, "root.path: is missing"),
    ("root/path", "", "root.path: is missing"),
    ("process", MISSING, "process: is missing"),
    ("process/cwd", "", "process.cwd: is missing"),
    ("process/cwd", "tmp", "process.cwd: 'tmp' is not an absolute path"),
    ("process/args", [], "process.args: is empty"),
    ("process/args", ["a", "b\0c"], "process.args[1]: holds a NUL byte"),
    ("process/env", ["A=\0"], "process.env[0]: holds a NUL byte"),
    ("mounts/0/source", "\0", "mounts[0].source: holds a NUL byte"),
    ("linux/sysctl", {"net.\0": "1"}, "linux.sysctl.'net.\\x00': holds a NUL byte"),
    ("process/commandLine", "x", "process.commandLine: is for Windows, process.args for Linux"),
    (
        "process/consoleSize",
        {"height": -1, "width": 1},
        "process.consoleSize.height: -1 is not between 0 and 65535",
    ),
    ("process/user/uid", -1, "process.user.uid: -1 is not between 0 and 4294967294"),
    (
        "process/user/gid",
        0xFFFFFFFF,
        "process.user.gid: 4294967295 is not between 0 and 4294967294",
    ),
    ("process/user/uid", 70000, "process.user.uid: 70000 is not mapped by linux.uidMappings"),
    (
        "process/user/additionalGids",
        [1, 70000],
        "process.user.additionalGids: 70000 is not mapped by linux.gidMappings",
    ),
    (
        "process/user/umask",
        512,
        "process.user.umask: 512 is not between 0 and 511 (octal 777)",
    ),
    (
        "process/rlimits/0/type",
        "RLIMIT_X",
        "process.rlimits[0].type: unknown resource limit 'RLIMIT_X'",
    ),
    (
        "process/rlimits",
        [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}] * 2,
        "process.rlimits[1].type: RLIMIT_CORE is specified twice",
    ),
    ("process/rlimits/0/soft", 30, "process.rlimits[0].soft: 30 is above the hard limit 20"),
    (
        "process/rlimits/0/hard",
        1 << 64,
        f"process.rlimits[0].hard: {1 << 64} is not an unsigned 64-bit number",
    ),
    ("process/oomScoreAdj", 1001, "process.oomScoreAdj: 1001 is not between -1000 and 1000"),
    (
        "process/ioPriority/class",
        "BEST",
        (
            "process.ioPriority.class: 'BEST' must be one of IOPRIO_CLASS_NONE, IOPRIO_CLASS_RT, "
            "IOPRIO_CLASS_BE, IOPRIO_CLASS_IDLE"
        ),
    ),
    ("process/ioPriority/priority", 8, "process.ioPriority.priority: 8 is not between 0 and 7"),
    (
        "process/scheduler/policy",
        "SCHED_ISO",
        (
            "process.scheduler.policy: 'SCHED_ISO' must be one of SCHED_OTHER, SCHED_FIFO, "
            "SCHED_RR, SCHED_BATCH, SCHED_IDLE, SCHED_DEADLINE"
        ),
    ),
    ("process/scheduler/nice", 20, "process.scheduler.nice: 20 is not between -20 and 19"),
    (
        "process/scheduler/priority",
        1,
        "process.scheduler.priority: does not apply to SCHED_BATCH",
    ),
    (
        "process/scheduler",
        {"policy": "SCHED_FIFO"},
        "process.scheduler.priority: 0 is not between 1 and 99",
    ),
    (
        "process/scheduler",
        {"policy": "SCHED_IDLE", "nice": 1},
        "process.scheduler.nice: does not apply to SCHED_IDLE",
    ),
    (
        "process/scheduler",
        {"policy": "SCHED_RR", "priority": 1, "deadline": 1},
        "process.scheduler.deadline: does not apply to SCHED_RR",
    ),
    (
        "process/scheduler",
        {"policy": "SCHED_DEADLINE", "runtime": 9000, "deadline": 8000},
        "process.scheduler: 1024 ns <= runtime <= deadline <= period does not hold",
    ),
    (
        "process/execCPUAffinity/final",
        "1-",
        "process.execCPUAffinity.final: '1-' is not a list of cpus such as 0-3,7",
    ),
    (
        "process/capabilities/effective",
        ["CAP_CHOWN"],
        "process.capabilities.effective: CAP_CHOWN is not in the set permitted",
    ),
    (
        "process/capabilities/inheritable",
        ["CAP_CHOWN"],
        "process.capabilities.inheritable: CAP_CHOWN is not in the set bounding",
    ),
    (
        "linux/namespaces",
        [{"type": "mount"}],
        "linux.uidMappings: requires a namespace of type 'user'",
    ),
    ("linux/uidMappings", [], "linux.uidMappings: a new namespace of type 'user' needs a mapping"),
    ("linux/gidMappings", [], "linux.gidMappings: a new namespace of type 'user' needs a mapping"),
    ("linux/uidMappings", [MAP, MAP], "linux.uidMappings: container id 0 is mapped twice"),
    (
        "linux/uidMappings",
        [MAP, {"containerID": 1, "hostID": 0, "size": 1}],
        "linux.uidMappings: host id 0 is mapped twice",
    ),
    (
        "linux/uidMappings/0/size",
        0,
        "linux.uidMappings[0].size: 0 is not between 1 and 4294967295",
    ),
    (
        "linux/gidMappings/0/hostID",
        0xFFFFFFFF,
        "linux.gidMappings[0].hostID: 4294967295 is not between 0 and 4294901759",
    ),
    (
        "linux/uidMappings",
        [{"containerID": n, "hostID": n, "size": 1} for n in range(341)],
        "linux.uidMappings: 341 mappings, the kernel accepts at most 340",
    ),
    (
        "linux/namespaces/0/type",
        "net",
        (
            "linux.namespaces[0].type: 'net' must be one of pid, network, mount, ipc, uts, user, "
            "cgroup, time"
        ),
    ),
    ("linux/namespaces/0/type", "uts", "linux.namespaces[4].type: 'uts' is specified twice"),
    (
        "linux/namespaces/0/path",
        "proc/1/ns/pid",
        "linux.namespaces[0].path: 'proc/1/ns/pid' is not an absolute path",
    ),
    (
        "linux/namespaces/4",
        MISSING,
        "hostname: can only be set with a namespace of type 'uts'",
    ),
    ("hostname", "x" * 65, "hostname: is longer than 64 bytes"),
    ("domainname", "ü" * 33, "domainname: is longer than 64 bytes"),
    ("linux/namespaces/7", MISSING, "linux.timeOffsets: need a new namespace of type 'time'"),
    (
        "linux/namespaces/7/path",
        "/proc/1/ns/time",
        "linux.timeOffsets: need a new namespace of type 'time'",
    ),
    (
        "linux/timeOffsets",
        {"realtime": {}},
        "linux.timeOffsets: 'realtime' must be one of monotonic, boottime",
    ),
    (
        "linux/timeOffsets/boottime/nanosecs",
        10**9,
        "linux.timeOffsets.boottime.nanosecs: 1000000000 is not between 0 and 999999999",
    ),
    (
        "linux/namespaces/1",
        MISSING,
        "linux.sysctl: 'net.ipv4.ip_forward' needs a namespace of type 'network'",
    ),
    (
        "linux/namespaces/3",
        MISSING,
        "linux.sysctl: 'kernel.shmmax' needs a namespace of type 'ipc'",
    ),
    (
        "linux/sysctl",
        {"kernel.core_pattern": "|/x"},
        "linux.sysctl: 'kernel.core_pattern' does not belong to a namespace",
    ),
    (
        "linux/sysctl",
        {"net/../kernel/core_pattern": "|/x"},
        "linux.sysctl: 'net/../kernel/core_pattern' does not belong to a namespace",
    ),
    (
        "linux/sysctl",
        {"kernel.hostname": "x"},
        "linux.sysctl: 'kernel.hostname' must be set by the field hostname",
    ),
    (
        "linux/sysctl",
        {"kernel.sem": "1\n2"},
        "linux.sysctl: 'kernel.sem' has a value that is longer than one line",
    ),
    ("mounts/0/destination", "", "mounts[0].destination: '' is not an absolute path"),
    (
        "mounts/0/uidMappings",
        [MAP],
        "mounts[0]: has only one of uidMappings and gidMappings",
    ),
    (
        "mounts",
        [{"destination": "/x", "type": "tmpfs", "uidMappings": [MAP], "gidMappings": [MAP]}],
        "mounts[0].uidMappings: requires a bind mount",
    ),
    ("linux/devices/0/path", "dev/x", "linux.devices[0].path: 'dev/x' is not an absolute path"),
    ("linux/devices/0/type", "a", "linux.devices[0].type: 'a' must be one of c, b, u, p"),
    ("linux/devices/0/major", 4096, "linux.devices[0].major: 4096 is not between 0 and 4095"),
    ("linux/devices/0/minor", -1, "linux.devices[0].minor: -1 is not between 0 and 1048575"),
    ("linux/devices/0/uid", -1, "linux.devices[0].uid: -1 is not between 0 and 4294967294"),
    (
        "linux/devices/0/fileMode",
        0o200000,
        "linux.devices[0].fileMode: 65536 is not between 0 and 65535",
    ),
    (
        "linux/resources/devices/0/type",
        "p",
        "linux.resources.devices[0].type: 'p' must be one of a, c, b",
    ),
    (
        "linux/resources/devices/0/access",
        "rx",
        "linux.resources.devices[0].access: 'rx' must consist of r, w and m",
    ),
    (
        "linux/resources/unified",
        {"../cgroup.procs": "1"},
        "linux.resources.unified: '../cgroup.procs' is not a file name",
    ),
    (
        "linux/resources/memory",
        {"limit": 1 << 63},
        f"linux.resources.memory.limit: {1 << 63} is not a 64-bit number with a sign",
    ),
    (
        "linux/resources/hugepageLimits",
        [{"pageSize": "2MB", "limit": -(10**30)}],
        f"linux.resources.hugepageLimits[0].limit: {-(10**30)} is not a 64-bit number with a sign",
    ),
    ("linux/cgroupsPath", "/a/../../b", "linux.cgroupsPath: '/a/../../b' contains '..'"),
    (
        "linux/cgroupsPath",
        "user.slice:a:..",
        "linux.cgroupsPath: 'user.slice:a:..' contains '..'",
    ),
    (
        "linux/cgroupsPath",
        "/a\nb",
        "linux.cgroupsPath: '/a\\nb' contains a character that is not printable",
    ),
    ("linux/cgroupsPath", "/a" * 3000, "linux.cgroupsPath: is longer than 4095 bytes"),
    (
        "linux/rootfsPropagation",
        "public",
        (
            "linux.rootfsPropagation: 'public' must be one of private, slave, shared, unbindable, "
            "rprivate, rslave, rshared, runbindable"
        ),
    ),
    (
        "linux/maskedPaths",
        ["proc"],
        "linux.maskedPaths[0]: 'proc' is not an absolute path",
    ),
    (
        "linux/personality/domain",
        "SVR4",
        "linux.personality.domain: 'SVR4' must be one of LINUX, LINUX32",
    ),
    (
        "linux/personality/flags",
        ["ADDR_NO_RANDOMIZE"],
        "linux.personality.flags: the specification defines no flag",
    ),
    ("linux/intelRdt", {}, "linux.intelRdt: intel rdt is not supported by this runtime"),
    ("hooks/poststop/0/path", "true", "hooks.poststop[0].path: 'true' is not an absolute path"),
    ("mounts/0/destination", "proc", "mounts[0].destination: 'proc' is not an absolute path"),
    (
        "hooks/poststop/0/timeout",
        1 << 63,
        f"hooks.poststop[0].timeout: {1 << 63} is not between 1 and {(1 << 63) - 1}",
    ),
    ("hooks/poststop/0/timeout", 0, "hooks.poststop[0].timeout: 0 is not greater than zero"),
    (
        "linux/seccomp/defaultAction",
        "SCMP_ACT_NOTIFY",
        (
            "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY would block the runtime's own last "
            "system calls"
        ),
    ),
    (
        "linux/seccomp/defaultErrnoRet",
        65536,
        "linux.seccomp.defaultErrnoRet: 65536 is not between 0 and 65535",
    ),
    (
        "linux/seccomp/flags",
        ["SECCOMP_FILTER_FLAG_X"],
        (
            "linux.seccomp.flags[0]: 'SECCOMP_FILTER_FLAG_X' must be one of "
            "SECCOMP_FILTER_FLAG_TSYNC, SECCOMP_FILTER_FLAG_LOG, SECCOMP_FILTER_FLAG_SPEC_ALLOW, "
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
        ),
    ),
    (
        "linux/seccomp/listenerMetadata",
        "x",
        "linux.seccomp.listenerMetadata: requires listenerPath",
    ),
    (f"{SYSCALL}/names", [], "linux.seccomp.syscalls[0].names: is empty"),
    (
        f"{SYSCALL}/names",
        ["lesé"],
        "linux.seccomp.syscalls[0].names: 'lesé' is not a system call name",
    ),
    (
        f"{SYSCALL}/action",
        "SCMP_ACT_NOTIFY",
        "linux.seccomp.listenerPath: is missing, but SCMP_ACT_NOTIFY requires it",
    ),
    (
        f"{SYSCALL}/errnoRet",
        5,
        "linux.seccomp.syscalls[0].errnoRet: does not apply to SCMP_ACT_ALLOW",
    ),
    (
        f"{SYSCALL}/args",
        [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}],
        "linux.seccomp.syscalls[0].args[0].index: 6 is not between 0 and 5",
    ),
    (
        f"{SYSCALL}/args",
        [{"index": 0, "value": 0, "op": "EQ"}],
        (
            "linux.seccomp.syscalls[0].args[0].op: 'EQ' must be one of SCMP_CMP_NE, SCMP_CMP_LT, "
            "SCMP_CMP_LE, SCMP_CMP_EQ, SCMP_CMP_GE, SCMP_CMP_GT, SCMP_CMP_MASKED_EQ"
        ),
    ),
]


@pytest.mark.parametrize(
    ("path", "value", "text"), BAD, ids=[f"{n}-{b[0]}" for n, b in enumerate(BAD)]
)
def test_an_error_starts_with_the_name_of_the_field(path: str, value: object, text: str) -> None:
    with pytest.raises(JaulaError) as caught:
        validation.check(decode(changed(path, value)))
    assert str(caught.value) == text


def test_a_name_with_a_line_break_is_quoted_on_one_line() -> None:
    with pytest.raises(InvalidRequest) as caught:
        validation.check(decode(changed("annotations", {"a\nb": "\0"})))
    assert str(caught.value) == r"annotations.'a\nb': holds a NUL byte"


def test_unknown_seccomp_constants_are_refused_and_the_allowed_are_listed() -> None:
    for path, field in (
        ("linux/seccomp/defaultAction", "linux.seccomp.defaultAction"),
        (f"{SYSCALL}/action", "linux.seccomp.syscalls[0].action"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            validation.check(decode(changed(path, "ALLOW")))
        assert (
            str(caught.value)
            == f"{field}: 'ALLOW' must be one of {', '.join(validate_seccomp.ACTIONS)}"
        )
    with pytest.raises(
        InvalidRequest, match=r"architectures\[0\]: 'x86' must be one of SCMP_ARCH_"
    ):
        validation.check(decode(changed("linux/seccomp/architectures", ["x86"])))


def test_the_accepted_seccomp_constants_are_those_of_the_compiler() -> None:
    assert set(validate_seccomp.ACTIONS) == set(seccomp_filter.ACTIONS)
    assert set(validate_seccomp.OPERATORS) == seccomp_filter.COMPARISONS
    assert set(validate_seccomp.FLAGS) == set(seccomp_filter.FLAGS)


@pytest.mark.parametrize(
    ("path", "value", "warning"),
    [
        (
            "process/capabilities/bounding",
            ["CAP_KILL", "CAP_FLY"],
            "process.capabilities.bounding: unknown capability 'CAP_FLY' is ignored",
        ),
    ],
)
def test_a_tolerated_value_gives_a_warning(path: str, value: object, warning: str) -> None:
    assert validation.check(decode(changed(path, value))) == (warning,)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("ociVersion", "1.0.2-dev"),
        ("ociVersion", "1.3.0"),
        ("process/rlimits/0/hard", (1 << 64) - 1),
        ("process/rlimits/0/hard", -1),
        ("process/rlimits", [{"type": "RLIMIT_LOCKS", "soft": 1, "hard": 1}]),
        ("process/scheduler", {"policy": "SCHED_DEADLINE", "runtime": 2000, "deadline": 4000}),
        ("linux/devices/0/fileMode", 0o20666),
        ("linux/cgroupsPath", "system.slice:jaula:abc"),
        ("linux/cgroupsPath", ""),
        ("linux/rootfsPropagation", ""),
        ("linux/namespaces/0/path", ""),
        ("linux/sysctl", {"net/ipv4/conf/eth0.1/forwarding": "1", "fs.mqueue.msg_max": "9"}),
        ("linux/sysctl", {"user.max_user_namespaces": "0", "kernel.domainname": "x"}),
        ("process/env", ["A=back\\u0000slash"]),
        ("hostname", ""),
        ("mounts", []),
        ("hooks/poststop/0/timeout", (1 << 32) - 1),
    ],
)
def test_values_that_callers_write_are_accepted(path: str, value: object) -> None:
    assert validation.check(decode(changed(path, value))) == ()


def test_a_process_is_checked_on_its_own() -> None:
    assert validation.check_process(Process("/", ("a",))) == ()
    assert validation.check_process(Process("/", ("\udcff",), env=("A=\udcff",))) == ()
    with pytest.raises(InvalidRequest, match=r"^env\[0\]: holds a NUL byte$"):
        validation.check_process(Process("/", ("\udcff",), env=("\0",)))
    with pytest.raises(InvalidRequest, match=r"^process.args: is empty$"):
        validation.check_process(Process("/"))
    with pytest.raises(InvalidRequest, match=r"^env\[0\]: holds a NUL byte$"):
        validation.check_process(Process("/", ("a",), env=("\0",)))


def test_resources_are_checked_on_their_own() -> None:
    validation.check_resources(Resources(memory=Memory(limit=-1), unified={"memory.high": "max"}))
    with pytest.raises(InvalidRequest, match=r"^resources\.memory\.swap: \d+ is not a 64"):
        validation.check_resources(Resources(memory=Memory(swap=1 << 70)))
    with pytest.raises(InvalidRequest, match=r"^unified\.memory\.high: holds a NUL byte$"):
        validation.check_resources(Resources(unified={"memory.high": "\0"}))


def test_a_label_without_its_security_module_is_refused() -> None:
    none = validate_host.Host(apparmor=False, selinux=False)
    both = validate_host.Host(apparmor=True, selinux=True)
    for process, text in (
        (Process("/", apparmor_profile="p"), "apparmor is disabled or not supported"),
        (Process("/", selinux_label="l"), "selinux label is specified in config, but selinux is"),
    ):
        validate_host.check_process(process, both)
        with pytest.raises(Unsupported, match=text):
            validate_host.check_process(process, none)
    validate_host.check_process(Process("/", apparmor_profile="", selinux_label=""), none)


def test_more_mounts_than_the_kernel_permits_are_refused() -> None:
    spec = decode(json.dumps(GOOD).encode())
    count = len(spec.mounts)
    validate_host.check(spec, validate_host.Host(apparmor=False, selinux=False, mount_max=count))
    with pytest.raises(InvalidRequest, match=rf"^mounts: {count} mounts are more than the"):
        validate_host.check(
            spec, validate_host.Host(apparmor=False, selinux=False, mount_max=count - 1)
        )
    assert validate_host.detect().mount_max == int(Path("/proc/sys/fs/mount-max").read_text())


@pytest.mark.parametrize(("kind", "name"), [("net", "network"), ("ipc", "ipc")])
def test_a_sysctl_of_the_hosts_own_namespace_is_refused(kind: str, name: str) -> None:
    expected = {"network": "net.core.somaxconn", "ipc": "kernel.sem"}[name]
    document = deepcopy(GOOD)
    document["linux"]["sysctl"] = {expected: "1"}
    spec = decode(json.dumps(document).encode())
    facts = validate_host.detect()
    validate_host.check(spec, facts)
    for namespace in document["linux"]["namespaces"]:
        if namespace["type"] == name:
            namespace["path"] = f"/proc/self/ns/{kind}"
    spec = decode(json.dumps(document).encode())
    validation.check(spec)
    with pytest.raises(
        InvalidRequest, match=f"'{expected}' is not allowed in the host's {name} nam"
    ):
        validate_host.check(spec, facts)


def test_an_error_about_a_missing_namespace_has_its_path() -> None:
    spec = decode(changed("linux/namespaces/1/path", "/nonexistent/ns"))
    with pytest.raises(InvalidRequest) as caught:
        validate_host.check(spec, validate_host.detect())
    assert str(caught.value) == "linux.namespaces: '/nonexistent/ns': no such file or directory"


@given(st.text(max_size=40))
def test_no_sysctl_name_leaves_its_namespace(name: str) -> None:
    if sysctl.namespace_of(name) is not None:
        path = sysctl.sysctl_path(name)
        assert path is not None
        assert path.startswith(("net/", "user/", "kernel/", "fs/mqueue/"))
        assert not {"", ".", ".."} & set(path.split("/"))


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["/", "..", "\0", "user", "mount", "SCMP_ACT_ALLOW", "0-9999999", "a:b:c"])
)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def places(value: object, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items: list[tuple[Any, object]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return [way, *(p for key, item in items for p in places(item, (*way, key)))]


def judge(data: bytes) -> Spec | None:
    spec: Spec | None = None
    try:
        spec = decode(data)
        lines = validation.check(spec)
    except (JaulaError, msgspec.MsgspecError) as error:
        spec, lines = None, (str(error),)
    assert not any("\n" in line or len(line) > 2000 for line in lines)
    return spec


@given(st.data())
def test_any_change_of_a_spec_gives_at_most_a_clear_error(data: st.DataObject) -> None:
    document: Any = deepcopy(GOOD)
    for _ in range(data.draw(st.integers(1, 3))):
        way = data.draw(st.sampled_from(places(document)[1:]))
        place = document
        for key in way[:-1]:
            place = place[key]
        if data.draw(st.booleans()) and isinstance(place, dict):
            del place[way[-1]]
        else:
            place[way[-1]] = data.draw(trees)
        if not document:
            break
    judge(json.dumps(document).encode())


@given(st.binary(max_size=60) | trees.map(lambda tree: json.dumps(tree).encode()))
def test_any_bytes_give_at_most_a_clear_error(data: bytes) -> None:
    assert judge(data) is None
