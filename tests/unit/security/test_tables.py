"""Masked paths, devices, id ranges, sysctls and security modules."""

from __future__ import annotations

import pytest

from jaula.errors import InvalidRequest, Unavailable
from jaula.security import devices, id_ranges, masked_paths, sysctls
from jaula.security.id_ranges import IdRange
from jaula.security.lsm import detect
from jaula.spec.runtime import IDMapping

DOCKER_MASKS = {
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
    "/sys/devices/virtual/powercap", "/sys/firmware",
}  # fmt: skip
DOCKER_READONLY = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}


def test_all_paths_that_docker_masks_are_masked() -> None:
    assert set(masked_paths.MASKED_PATHS) >= DOCKER_MASKS
    assert set(masked_paths.READONLY_PATHS) >= DOCKER_READONLY
    assert not set(masked_paths.MASKED_PATHS) & set(masked_paths.READONLY_PATHS)


# -- devices ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "access"),
    [
        ("/dev/null", "/dev/null", "rwm"),
        ("/dev/null:r", "/dev/null", "r"),
        ("/dev/null:/dev/x", "/dev/x", "rwm"),
        ("/dev/null:/dev//./x:rw", "/dev/x", "rw"),
        ("/dev/null::r", "/dev/null", "r"),
    ],
)
def test_a_device_is_described(text: str, path: str, access: str) -> None:
    ((node, rule),) = devices.parse_device(text)
    assert (node.path, node.type, node.major, node.minor) == (path, "c", 1, 3)
    assert (rule.allow, rule.type, rule.major, rule.minor, rule.access) == (True, "c", 1, 3, access)


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "/dev/null:a:b:c", "/dev/null:relative", "/dev/null:/a/../b", "/dev/null:/",
        "/dev/null:/x:rr", "/dev/null:/x:q", "/dev/null:/x:", "/etc/passwd", "/dev", "dev/null",
        "/dev/no-such", "/dev/null\0", "/dev/null:/x\0y",
    ],
)  # fmt: skip
def test_an_invalid_device_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        devices.parse_device(text)


def test_the_default_rules_allow_no_whole_class_of_devices() -> None:
    assert all(rule.major is not None and rule.type == "c" for rule in devices.DEFAULT_RULES)
    allowed = {(rule.major, rule.minor) for rule in devices.DEFAULT_RULES}
    assert {(node.major, node.minor) for node in devices.DEFAULT_DEVICES} <= allowed


# -- id ranges -------------------------------------------------------------------------------


def test_ranges_never_overlap_until_all_are_in_use() -> None:
    used: set[int] = set()
    for _ in range(16):
        result = id_ranges.allocate(used, 1000, 16 * 100 + 99, 100)
        assert result.start >= 1000
        assert result.start + 100 <= 1000 + 1699
        assert all(abs(result.start - other) >= 100 for other in used)
        used.add(result.start)
    with pytest.raises(Unavailable, match="16 ranges"):
        id_ranges.allocate(used, 1000, 16 * 100 + 99, 100)


def test_a_released_range_is_allocated_again() -> None:
    used = {1000, 1200, 1300}
    assert id_ranges.allocate(used | {1400}, 1000, 500, 100) == IdRange(1100, 100)


def test_a_range_allocated_with_other_settings_is_not_reused() -> None:
    used = {1050}
    starts = set()
    for _ in range(3):
        starts.add(id_ranges.allocate(used | starts, 1000, 500, 100).start)
    assert starts == {1200, 1300, 1400}
    with pytest.raises(Unavailable):
        id_ranges.allocate(used | starts, 1000, 500, 100)


def test_too_few_ids_for_one_range_is_a_clear_error() -> None:
    with pytest.raises(Unavailable):
        id_ranges.allocate((), 0, 65535)


def test_a_range_is_mapped_from_zero() -> None:
    assert id_ranges.mappings(IdRange(70000)) == (IDMapping(0, 70000, 65536),)


# -- sysctls ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["net.ipv4.ip_forward", "net/ipv4/conf/eth0.1/forwarding", "kernel.shmmax", "kernel/sem",
     "fs.mqueue.msg_max", "kernel.domainname"],
)  # fmt: skip
def test_a_namespaced_sysctl_is_allowed(name: str) -> None:
    sysctls.check(name, "1", ())


@pytest.mark.parametrize(
    "name",
    ["kernel.core_pattern", "kernel.panic", "vm.overcommit_memory", "fs.file-max",
     "user.max_user_namespaces",
     "kernel.modprobe", "kernel.hostname", "", "net", "net.", ".net.x",
     "net/../kernel/core_pattern",
     "net...kernel.core_pattern", "net.ipv4.x\n", "net.ipv4.x=1", "NET.x", "net/ipv4//x",
     "kernel.shm_next_id", "net.ipv4/../../kernel"],
)  # fmt: skip
def test_any_other_sysctl_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        sysctls.check(name, "1", ())


@pytest.mark.parametrize("value", ["", "1\n2", "1\0", "x" * 2000, "1\x1b"])
def test_a_sysctl_has_one_value(value: str) -> None:
    with pytest.raises(InvalidRequest):
        sysctls.check("net.core.somaxconn", value, ())


@pytest.mark.parametrize(
    ("name", "kind"),
    [("net.core.somaxconn", "network"), ("kernel.sem", "ipc"), ("kernel.domainname", "uts")],
)
def test_a_sysctl_of_a_shared_namespace_is_refused(name: str, kind: str) -> None:
    with pytest.raises(InvalidRequest, match=f"host {kind} namespace"):
        sysctls.check(name, "1", (kind,))


def test_dots_and_slashes_name_the_same_sysctl() -> None:
    assert sysctls.normalize("net.ipv4.conf.eth0/1.forwarding") == "net/ipv4/conf/eth0.1/forwarding"
    assert sysctls.normalize("net/ipv4/conf/eth0.1/forwarding") == "net/ipv4/conf/eth0.1/forwarding"


# -- security modules ------------------------------------------------------------------------


def test_security_modules_are_listed() -> None:
    assert "capability" in detect.active()
    assert detect.landlock() >= 0
    assert detect.selinux_enforcing() <= detect.selinux()
