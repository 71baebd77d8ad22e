"""Landlock: the containers that are confined by default, and their rules for each version."""

from __future__ import annotations

import msgspec
import pytest

from jaula.errors import InvalidRequest
from jaula.kernel.landlock import LANDLOCK_ACCESS_FS as FS
from jaula.kernel.landlock import supported_rights
from jaula.security import capability_sets
from jaula.security.landlock_ruleset import (
    READ,
    Landlock,
    Options,
    decide,
    default_off_reason,
    describe,
    parse,
)
from jaula.security.lsm.interface import LabelRequest, MandatoryAccess
from jaula.security.seccomp import seccomp_filter
from jaula.spec.annotations import (
    LANDLOCK_ANNOTATION,
    PathRule,
    PortRule,
    Ruleset,
    decode_ruleset,
)
from jaula.spec.runtime_spec import Linux, Mount, Namespace, Process, Root, Seccomp, Spec, Syscall

ALL = supported_rights(7).access_fs
MOUNTS = (
    Mount("/proc", "proc", "proc", ("nosuid",)),
    Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "mode=755")),
    Mount("/sys", "sysfs", "sysfs", ("nosuid", "ro")),
    Mount("/data", "bind", "/srv/data", ("rbind", "rw")),
    Mount("/config", "bind", "/srv/config", ("rbind", "ro", "rro")),
    Mount("/old", "bind", "/srv/old", ("rbind", "ro")),
    Mount("/one", "bind", "/srv/one", ("bind", "ro")),
)


OWN_PID = Namespace("pid")


def spec(
    *,
    caps: tuple[str, ...] = ("chown",),
    readonly: bool = False,
    pid: Namespace | None = OWN_PID,
    profile: Seccomp | None = None,
    confined: bool = True,
) -> Spec:
    sets = capability_sets.resolve(add=caps)
    return Spec(
        process=Process(cwd="/", capabilities=sets),
        root=Root("rootfs", readonly=readonly),
        mounts=MOUNTS,
        annotations={"mine": "kept"},
        linux=Linux(
            namespaces=(pid,) if pid else (),
            seccomp=(profile or seccomp_filter.default_profile(sets)) if confined else None,
        ),
    )


def test_a_writable_root_is_one_rule_since_mounts_have_flags_of_their_own() -> None:
    rules = decide(MOUNTS, root_readonly=False, options=Options(), abi=7)
    assert rules.paths == (PathRule("/", ALL),)
    assert rules.handled_access_fs == ALL
    assert not rules.handled_access_net
    assert not rules.scoped
    assert not rules.joined


def test_beneath_a_read_only_root_only_writable_mounts_are_written() -> None:
    rules = decide(MOUNTS, root_readonly=True, options=Options(), abi=7)
    assert rules.paths == (
        PathRule("/", int(READ)),
        PathRule("/proc", ALL),
        PathRule("/dev", ALL),
        PathRule("/data", ALL),
        PathRule("/old", ALL),  # mounts below it may be writable
    )
    assert not READ & (FS.WRITE_FILE | FS.MAKE_REG | FS.REMOVE_FILE | FS.TRUNCATE | FS.REFER)


@pytest.mark.parametrize("abi", range(1, 10))
@pytest.mark.parametrize("readonly", [False, True])
def test_a_ruleset_has_only_rights_of_its_version(abi: int, readonly: bool) -> None:
    rules = decide(MOUNTS, root_readonly=readonly, options=Options(), abi=abi)
    assert rules.handled_access_fs == supported_rights(abi).access_fs
    for rule in rules.paths:
        assert rule.access
        assert not rule.access & ~rules.handled_access_fs


def test_ports_are_rules_of_two_rights() -> None:
    options = parse(("tcp-bind=80,tcp-bind=443", "tcp-connect=443"))
    rules = decide((), root_readonly=False, options=options, abi=4)
    assert rules.handled_access_net == 3
    assert rules.ports == (PortRule(80, 1), PortRule(443, 3))
    assert rules.joined


def test_only_named_port_rights_are_handled() -> None:
    rules = decide((), root_readonly=False, options=parse(("tcp-bind=80",)), abi=7)
    assert rules.handled_access_net == 1


def test_no_port_at_all() -> None:
    rules = decide((), root_readonly=False, options=parse(("tcp-connect=none",)), abi=7)
    assert (rules.handled_access_net, rules.ports) == (2, ())


@pytest.mark.parametrize(
    ("words", "abi", "needed"),
    [("tcp-bind=80", 3, "Linux 6.7"), ("scope-signal", 5, "Linux 6.12"), ("on", 0, "no Landlock")],
)
def test_options_that_the_kernel_does_not_support_are_refused(
    words: str, abi: int, needed: str
) -> None:
    with pytest.raises(InvalidRequest, match=needed):
        decide((), root_readonly=False, options=parse((words,)), abi=abi)


@pytest.mark.parametrize(
    "words", ["", "yes", "tcp-bind", "tcp-bind=", "tcp-bind=65536", "tcp-connect=-1", "on,off"]
)
def test_an_option_that_does_not_exist_is_refused(words: str) -> None:
    with pytest.raises(InvalidRequest):
        parse((words,))


@pytest.mark.parametrize("abi", range(2, 8))
def test_a_default_container_is_confined(abi: int) -> None:
    assert default_off_reason(spec(), abi=abi) == ""
    made = Landlock(abi).confine(spec(), LabelRequest())
    assert (
        decode_ruleset(made.annotations[LANDLOCK_ANNOTATION]).handled_access_fs
        == supported_rights(abi).access_fs
    )
    assert made.annotations["mine"] == "kept"


MOUNTING = Seccomp("SCMP_ACT_ERRNO", syscalls=(Syscall(("mount",), "SCMP_ACT_ALLOW"),))
LISTED = Seccomp("SCMP_ACT_ALLOW", syscalls=(Syscall(("ptrace",), "SCMP_ACT_ERRNO"),))


@pytest.mark.parametrize(
    ("made", "abi", "why"),
    [
        (spec(), 0, "no Landlock"),
        (spec(), 1, "renames"),
        (spec(caps=("sys_admin",)), 7, "CAP_SYS_ADMIN"),
        (spec(caps=("all",)), 7, "CAP_SYS_ADMIN"),
        (spec(confined=False), 7, "seccomp"),
        (spec(profile=MOUNTING), 7, "seccomp"),
        (spec(profile=LISTED), 7, "seccomp"),
        (spec(pid=None), 7, "pid namespace"),
        (spec(pid=Namespace("pid", "/proc/7/ns/pid")), 7, "pid namespace"),
    ],
)
def test_the_default_is_off_if_it_would_break_a_container(made: Spec, abi: int, why: str) -> None:
    assert why in default_off_reason(made, abi=abi)
    assert Landlock(abi).confine(made, LabelRequest()) == made


def test_privileged_is_not_confined_unless_requested() -> None:
    assert Landlock(7).confine(spec(), LabelRequest(privileged=True)) == spec()
    requested = Landlock(7).confine(spec(caps=("all",)), LabelRequest(("on",), privileged=True))
    assert LANDLOCK_ANNOTATION in requested.annotations


def test_off_is_off() -> None:
    for word in ("off", "unconfined"):
        assert Landlock(7).confine(spec(), LabelRequest((word,))) == spec()


def test_a_request_on_a_kernel_without_landlock_is_an_error() -> None:
    with pytest.raises(InvalidRequest, match="no Landlock"):
        Landlock(0).confine(spec(), LabelRequest(("on",)))


def test_rules_are_formatted_for_display() -> None:
    options = parse(("tcp-bind=80,tcp-connect=none,scope-signal",))
    rules = decide(MOUNTS[:2], root_readonly=True, options=options, abi=7)
    assert describe(rules) == (
        "/ rx, /proc rwx, /dev rwx, tcp-bind 80, tcp-connect none, scope-signal, exec too"
    )
    module: MandatoryAccess = Landlock(7)
    assert module.requested(module.confine(spec(), LabelRequest())) == "/ rwx"
    assert module.requested(spec()) == ""
    assert module.security_option() == "name=landlock,abi=7"
    assert module.enabled()
    assert not Landlock(0).enabled()


def test_a_spec_without_capabilities_is_not_confined() -> None:
    bare = msgspec.structs.replace(spec(), process=Process(cwd="/"))
    assert "CAP_SYS_ADMIN" in default_off_reason(bare, abi=7)


@pytest.mark.parametrize("readonly", [False, True])
def test_message_queues_have_a_rule_since_theirs_is_a_mount_of_the_kernel(readonly: bool) -> None:
    queues = Mount("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev"))
    rules = decide((*MOUNTS, queues), root_readonly=readonly, options=Options(), abi=7)
    assert PathRule("/dev/mqueue", ALL) in rules.paths


def access(rules: Ruleset, path: str) -> str:
    """Return the rights of the rule for a path, as ls prints them."""
    rule = next((rule for rule in rules.paths if rule.path == path), None)
    bits = ((FS.READ_FILE, "r"), (FS.WRITE_FILE, "w"), (FS.EXECUTE, "x"))
    return "".join(letter for bit, letter in bits if rule is not None and rule.access & bit)


def listed(*words: str, readonly: bool = True, mounts: tuple[Mount, ...] = MOUNTS) -> Ruleset:
    return decide(mounts, root_readonly=readonly, options=parse(words), abi=7)


def test_a_list_of_paths_restricts_its_own_kind_of_access_only() -> None:
    read = listed("read=/etc/app/")
    assert (access(read, "/"), access(read, "/etc/app/"), access(read, "/data")) == ("x", "r", "rw")
    execute = listed("execute=/bin/sh")
    assert (access(execute, "/"), access(execute, "/bin/sh")) == ("r", "rx")
    write = listed("write=/data/log")
    assert (access(write, "/"), access(write, "/data/log"), access(write, "/data")) == (
        "rx",
        "rw",
        "",
    )
    assert access(listed("read=/etc/", readonly=False), "/") == "wx"


def test_every_list_together_leaves_the_basics() -> None:
    rules = listed("read=/a", "execute=/b", "write=/c/", "execute=/a")
    assert access(rules, "/") == ""
    assert [access(rules, path) for path in ("/a", "/b", "/c/")] == ["rx", "rx", "rw"]
    assert [access(rules, path) for path in ("/proc", "/dev", "/sys", "/etc/hosts")] == [
        "rw",
        "rw",
        "r",
        "r",
    ]
    assert rules.joined
    assert {rule.path for rule in rules.paths if rule.create} == {"/c/"}


def test_the_init_program_of_the_engine_can_be_executed() -> None:
    init = Mount("/sbin/docker-init", "bind", "/usr/bin/tini", ("bind", "ro"))
    assert access(listed("execute=/b", mounts=(*MOUNTS, init)), init.destination) == "rx"


def test_a_path_may_have_commas_and_equal_signs() -> None:
    assert parse(("read=/a,b=c", "on,tcp-bind=80")).read == ("/a,b=c",)


@pytest.mark.parametrize(
    "path", ["", "a", "//", "/a//b", "/a/../b", "/./a", "/a/..", "/a\0b", "/" + "a" * 4096, "a/b"]
)
def test_a_path_that_is_not_normalised_is_refused(path: str) -> None:
    with pytest.raises(InvalidRequest):
        parse((f"read={path}",))


def test_the_number_of_paths_has_a_limit() -> None:
    with pytest.raises(InvalidRequest, match="more than 4096 paths"):
        parse([f"read=/{n}" for n in range(4097)])


def test_an_old_kernel_has_the_rights_that_it_supports() -> None:
    rules = decide((), root_readonly=True, options=parse(("write=/c",)), abi=2)
    assert all(not rule.access & ~supported_rights(2).access_fs for rule in rules.paths)
    assert all(not rule.create & ~supported_rights(2).access_fs for rule in rules.paths)
