"""The decision: every refusal has a layer, and the smallest flag that allows it."""

from __future__ import annotations

import socket

import msgspec
import pytest

from jaula.features.why.confinement import Confinement, Network, Usage
from jaula.features.why.explain import FileFacts, explain
from jaula.features.why.layers import GIVES_AWAY, HOST_CHECKED, Layer
from jaula.features.why.refusal import RLIMITS, UNLIMITED, Refusal
from jaula.kernel import mountinfo
from jaula.kernel.capabilities import NAMES
from jaula.kernel.landlock import LANDLOCK_ACCESS_FS as FS
from jaula.security.capability_sets import DEFAULT
from jaula.security.seccomp.seccomp_filter import default_profile
from jaula.spec.annotations import PathRule, Ruleset
from jaula.spec.runtime_spec import DeviceCgroup

MOUNTS = mountinfo.parse(
    "1 0 0:30 / / rw,relatime - overlay overlay rw\n"
    "2 1 0:31 / /dev/shm rw,nosuid,nodev,noexec - tmpfs shm rw,size=65536k\n"
    "3 1 8:1 /data /data ro,relatime - ext4 /dev/sda1 rw\n"
    "4 1 0:32 / /proc rw - proc proc rw\n"
    "5 4 0:5 /null /proc/kcore ro - devtmpfs devtmpfs rw\n"
)
CONTAINER = Confinement(
    bounding=frozenset(DEFAULT),
    seccomp=default_profile(DEFAULT),
    default_filter=True,
    uids=((0, 100000, 65536),),
    gids=((0, 100000, 65536),),
    mounts=MOUNTS,
    masked=("/proc/kcore",),
    readonly=("/proc/sys",),
    devices=(DeviceCgroup(allow=False), DeviceCgroup(True, "c", 1, 3, "rwm")),
)
ROOT = Refusal(
    syscall="",
    effective=frozenset(DEFAULT),
    fsuid=100000,
    name="program",
    limits=dict.fromkeys(RLIMITS, UNLIMITED),
)


def refusal(syscall: str, errno: str = "EPERM", **fields: object) -> Refusal:
    return msgspec.structs.replace(ROOT, syscall=syscall, errno=errno, **fields)


def confined(**fields: object) -> Confinement:
    return msgspec.structs.replace(CONTAINER, **fields)


def test_a_call_without_entry_was_refused_by_the_filter() -> None:
    answer = explain(refusal("clock_settime", entered=False), CONTAINER)
    assert answer.layer is Layer.SECCOMP
    assert answer.flag == "--cap-add SYS_TIME --userns=host"
    assert "the clock of the whole host" in answer.gives_away
    assert "sys_exit without sys_enter" in answer.proof


def test_host_users_need_no_second_flag() -> None:
    answer = explain(refusal("clock_settime", entered=False), confined(host_users=True))
    assert answer.flag == "--cap-add SYS_TIME"


def test_the_smallest_of_two_groups_is_named() -> None:
    assert explain(refusal("bpf", entered=False), CONTAINER).flag.startswith("--cap-add BPF")


def test_clone3_is_harmless_since_libraries_use_clone() -> None:
    assert explain(refusal("clone3", "ENOSYS", entered=False), CONTAINER).harmless


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ((38, 5, 0, 0, 0, 0), "AF_ALG"),
        ((40, 1, 0, 0, 0, 0), "AF_VSOCK"),
        ((16, 3, 9, 0, 0, 0), "CAP_AUDIT_READ"),
        ((0xFFFFFFFF, 1, 0, 0, 0, 0), "4294967295"),
    ],
)
def test_sockets_are_explained_by_family(args: tuple[int, ...], text: str) -> None:
    answer = explain(refusal("socket", entered=False, args=args), CONTAINER)
    assert answer.layer is Layer.SECCOMP
    assert text in answer.rule


def test_another_profile_is_not_explained_by_the_default_one() -> None:
    answer = explain(refusal("mkdir", entered=False), confined(default_filter=False))
    assert "profile of the container" in answer.rule
    own = explain(refusal("mkdir", entered=False), confined(seccomp=None))
    assert "loaded itself" in own.rule
    assert not own.flag


def test_a_capability_of_the_host_is_the_user_namespace() -> None:
    answer = explain(refusal("quotactl", refused=("CAP_CHOWN",), level=0, own_level=1), CONTAINER)
    assert answer.layer is Layer.USER_NAMESPACE
    assert answer.flag == "--userns=host"


def test_a_capability_refused_to_a_nested_user_namespace_is_not_the_hosts() -> None:
    nested = refusal("mount", refused=("CAP_SYS_ADMIN",), level=1, own_level=2)
    answer = explain(nested, confined(bounding=frozenset({"CAP_SYS_ADMIN"})))
    assert answer.layer is Layer.USER_NAMESPACE
    assert "above the process's own" in answer.rule
    assert not answer.flag


def test_locked_flags_of_a_mount_are_recognized() -> None:
    answer = explain(refusal("mount", text=b"/proc/sys", args=(0, 0, 0, 32, 0, 0)), CONTAINER)
    assert answer.layer is Layer.USER_NAMESPACE
    assert "flags of the mount /proc/sys are locked" in answer.rule


def test_a_missing_capability_is_added() -> None:
    answer = explain(
        refusal("sendmsg", "", refused=("CAP_NET_ADMIN",), level=1, own_level=1), CONTAINER
    )
    assert (answer.layer, answer.flag) == (Layer.CAPABILITY, "--cap-add NET_ADMIN")


def test_a_capability_of_another_user_needs_root() -> None:
    user = refusal("kill", refused=("CAP_KILL",), level=1, effective=frozenset(), fsuid=101000)
    assert explain(user, CONTAINER).flag == "--user 0"
    missing = msgspec.structs.replace(user, refused=("CAP_SYS_PTRACE",), syscall="ptrace")
    assert explain(missing, CONTAINER).flag == "--cap-add SYS_PTRACE --user 0"


def test_no_new_privileges_is_named_for_users_only() -> None:
    user = refusal(
        "setuid", refused=("CAP_SETUID",), level=1, no_new_privs=True, fsuid=101000,
        effective=frozenset(),
    )  # fmt: skip
    assert explain(user, CONTAINER).layer is Layer.NO_NEW_PRIVS


def test_port_80_needs_a_sysctl_and_no_capability() -> None:
    address = socket.AF_INET.to_bytes(2, "little") + (80).to_bytes(2, "big") + bytes(12)
    answer = explain(
        refusal("bind", "EACCES", refused=("CAP_NET_BIND_SERVICE",), level=1, text=address),
        CONTAINER,
    )
    assert answer.flag == "--sysctl net.ipv4.ip_unprivileged_port_start=80"


@pytest.mark.parametrize("text", [b"", b"\2", b"\2\0\0", b"\xff" * 128])
def test_an_address_may_have_any_bytes(text: bytes) -> None:
    for call in ("bind", "connect", "sendto"):
        for error in ("EACCES", "EADDRINUSE", "ENETUNREACH", "ECONNREFUSED", "ETIMEDOUT"):
            assert explain(refusal(call, error, text=text), CONTAINER).rule


def test_read_only_paths_name_sysctl_only_for_namespaced_settings() -> None:
    own = explain(refusal("openat", "EROFS", text=b"/proc/sys/net/ipv4/ip_forward"), CONTAINER)
    assert own.flag == "--sysctl net.ipv4.ip_forward=VALUE"
    host = explain(refusal("openat", "EROFS", text=b"/proc/sys/kernel/panic"), CONTAINER)
    assert host.flag == "--security-opt unmask=/proc/sys --userns=host"


def test_a_read_only_mount_is_named() -> None:
    answer = explain(refusal("openat", "EROFS", text=b"/data/x"), CONTAINER)
    assert answer.layer is Layer.READ_ONLY_MOUNT
    assert "/data (ext4)" in answer.rule


def test_a_masked_file_that_the_kernel_lacks_is_not_masked() -> None:
    assert explain(refusal("openat", "ENOENT", text=b"/proc/kcore"), CONTAINER).layer is (
        Layer.MASKED_PATH
    )
    absent = confined(mounts=MOUNTS[:4])
    assert explain(refusal("openat", "ENOENT", text=b"/proc/kcore"), absent).harmless


def test_an_unmapped_owner_is_recognized_by_the_missing_question() -> None:
    facts = FileFacts(mode=0o100644, uid=5)
    answer = explain(refusal("openat", "EACCES", text=b"/data/x"), CONTAINER, facts)
    assert answer.layer is Layer.ID_MAP


def test_a_device_without_rule() -> None:
    fuse = FileFacts(mode=0o020666, uid=100000, device="c 10:229")
    answer = explain(refusal("openat", text=b"/dev/fuse"), CONTAINER, fuse)
    assert (answer.layer, answer.flag) == (Layer.DEVICE, "--device /dev/fuse")
    null = msgspec.structs.replace(fuse, device="c 1:3")
    assert explain(refusal("openat", text=b"/dev/null"), CONTAINER, null).layer is not Layer.DEVICE


@pytest.mark.parametrize(
    ("pids", "layer"),
    [
        (Usage(limit=20, peak=20, hits=3), Layer.PIDS_LIMIT),
        (Usage(limit=20, peak=4), Layer.RLIMIT),
        (Usage(), Layer.RLIMIT),
    ],
)
def test_a_fork_is_refused_by_the_cgroup_or_the_rlimit(pids: Usage, layer: Layer) -> None:
    assert explain(refusal("clone", "EAGAIN"), confined(pids=pids)).layer is layer


def test_a_full_tmpfs_is_named_by_its_device() -> None:
    answer = explain(refusal("write", "ENOSPC", device="0:31", filesystem="tmpfs"), CONTAINER)
    assert (answer.layer, answer.flag) == (Layer.MOUNT_SIZE, "--shm-size SIZE")


def test_networks() -> None:
    address = socket.AF_INET.to_bytes(2, "little") + (80).to_bytes(2, "big") + bytes([10, 1, 2, 3])
    unreachable = refusal("connect", "ENETUNREACH", text=address + bytes(8))
    assert explain(unreachable, confined(network_mode="none")).flag == "--network bridge"
    internal = confined(networks=(Network("db", internal=True),))
    assert "internal" in explain(unreachable, internal).rule
    assert not explain(unreachable, confined(networks=(Network("web"),))).flag


def test_every_error_of_every_call_has_an_answer() -> None:
    errors = (
        *("EPERM", "EACCES", "EROFS", "ENOSYS", "ENOSPC", "EAGAIN", "EMFILE", "ENOMEM", "EINVAL"),
        *("ENOENT", "ENOEXEC", "EDQUOT", "ENFILE", "EFBIG", "ENXIO", "ENODEV", "999"),
    )
    calls = ("open", "execve", "clone", "mount", "socket", "setgroups", "chown", "mlock", "ioctl",
             "write", "bind", "prlimit64", "inotify_init", "700")  # fmt: skip
    for call in calls:
        for error in errors:
            for entered in (True, False):
                for refused in ((), ("CAP_SYS_ADMIN",), ("CAP_DAC_OVERRIDE",), ("63",)):
                    if "63" in refused and entered:
                        continue
                    answer = explain(
                        refusal(call, error, entered=entered, refused=refused), CONTAINER
                    )
                    assert answer.rule
                    assert answer.proof
                    assert bool(answer.flag) == bool(answer.gives_away), answer


def test_every_capability_says_what_it_gives_away() -> None:
    assert set(GIVES_AWAY) == set(NAMES)
    assert set(HOST_CHECKED) <= set(NAMES)


def test_an_lsm_is_named_only_if_owner_and_mode_cannot_refuse() -> None:
    facts = FileFacts(mode=0o100644, uid=100000)
    labelled = confined(label="jaula-default")
    call = refusal("openat", "EACCES", text=b"/tmp/x")
    assert explain(call, labelled, facts).layer is Layer.LSM
    user = msgspec.structs.replace(call, effective=frozenset(), fsuid=101000)
    assert explain(user, labelled, facts).layer is Layer.LSM, "others may read mode 0644"
    private = FileFacts(mode=0o100600, uid=100000)
    assert explain(user, labelled, private).layer is Layer.PERMISSION


def test_rules_of_landlock_are_computed_from_the_domain() -> None:
    domain = Ruleset(
        handled_access_fs=int(FS.WRITE_FILE | FS.READ_FILE | FS.EXECUTE),
        paths=(PathRule("/", int(FS.READ_FILE)), PathRule("/tmp", int(FS.WRITE_FILE))),
    )
    container = confined(landlock=domain)
    write = (0xFFFFFF9C, 0, 1, 0, 0, 0)
    answer = explain(refusal("openat", "EACCES", text=b"/etc/x", args=write), container)
    assert (answer.layer, answer.flag) == (Layer.LANDLOCK, "--security-opt landlock=write=/etc/x")
    inside = explain(refusal("openat", "EACCES", text=b"/tmp/x", args=write), container)
    assert inside.layer is not Layer.LANDLOCK
    executed = explain(refusal("execve", "EACCES", text=b"/tmp/x"), container)
    assert executed.flag == "--security-opt landlock=execute=/tmp/x"


def test_egress_lists_and_networks_of_others() -> None:
    address = socket.AF_INET.to_bytes(2, "little") + (80).to_bytes(2, "big") + bytes([10, 1, 2, 3])
    refused = refusal("connect", "ECONNREFUSED", text=address + bytes(8))
    listed = confined(egress=("tcp:10.1.0.0/16:80",))
    assert explain(refused, listed).layer is Layer.NETWORK
    assert explain(refused, confined(egress=())).flag == "--egress tcp:10.1.2.3:80"
    silent = msgspec.structs.replace(refused, errno="ETIMEDOUT")
    other = confined(other_networks=(Network("db", subnets=("10.1.2.0/24",)),))
    assert explain(silent, other).flag == "jaula network connect db CONTAINER"
    assert not explain(silent, CONTAINER).flag
