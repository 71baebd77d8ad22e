"""Masks, devices, sysctls and security modules."""

from __future__ import annotations

import pytest

from jaula.errors import InvalidRequest
from jaula.security import allowed_devices, allowed_sysctls, masked_paths
from jaula.security.lsm import detect
from jaula.spec.runtime_spec import IDMapping

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
    ((node, rule),) = allowed_devices.parse_device(text)
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
        allowed_devices.parse_device(text)


def test_the_default_rules_allow_no_whole_class_of_devices() -> None:
    assert all(
        rule.major is not None and rule.type == "c" for rule in allowed_devices.DEFAULT_RULES
    )
    allowed = {(rule.major, rule.minor) for rule in allowed_devices.DEFAULT_RULES}
    assert {(node.major, node.minor) for node in allowed_devices.DEFAULT_DEVICES} <= allowed


# -- sysctls ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["net.ipv4.ip_forward", "net/ipv4/conf/eth0.1/forwarding", "kernel.shmmax", "kernel/sem",
     "fs.mqueue.msg_max", "kernel.domainname"],
)  # fmt: skip
def test_a_namespaced_sysctl_is_allowed(name: str) -> None:
    allowed_sysctls.check(name, "1", ())


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
        allowed_sysctls.check(name, "1", ())


@pytest.mark.parametrize("value", ["", "1\n2", "1\0", "x" * 2000, "1\x1b"])
def test_a_sysctl_has_one_value(value: str) -> None:
    with pytest.raises(InvalidRequest):
        allowed_sysctls.check("net.core.somaxconn", value, ())


@pytest.mark.parametrize(
    ("name", "kind"),
    [("net.core.somaxconn", "network"), ("kernel.sem", "ipc"), ("kernel.domainname", "uts")],
)
def test_a_sysctl_of_a_shared_namespace_is_refused(name: str, kind: str) -> None:
    with pytest.raises(InvalidRequest, match=f"host {kind} namespace"):
        allowed_sysctls.check(name, "1", (kind,))


def test_dots_and_slashes_name_the_same_sysctl() -> None:
    assert (
        allowed_sysctls.normalize("net.ipv4.conf.eth0/1.forwarding")
        == "net/ipv4/conf/eth0.1/forwarding"
    )
    assert (
        allowed_sysctls.normalize("net/ipv4/conf/eth0.1/forwarding")
        == "net/ipv4/conf/eth0.1/forwarding"
    )


# -- security modules ------------------------------------------------------------------------


def test_security_modules_are_listed() -> None:
    assert "capability" in detect.active()
    assert detect.landlock() >= 0
    assert detect.selinux_enforcing() <= detect.selinux()


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ((), "0 2147483647"),
        ((IDMapping(0, 1_000_000, 65536),), "0 65535"),
        (
            (
                IDMapping(0, 1_000_000, 1000),
                IDMapping(1000, 1000, 1),
                IDMapping(1001, 1_001_001, 64535),
            ),
            "1000 65535",
        ),
    ],
)
def test_every_group_of_a_container_may_send_echo_requests(
    rows: tuple[IDMapping, ...], expected: str
) -> None:
    assert allowed_sysctls.network_defaults(rows) == {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net.ipv4.ping_group_range": expected,
    }


@pytest.mark.parametrize(
    "name", ["net.ipv4.ping_group_range", "net/ipv4/ping_group_range", "net.core.somaxconn"]
)
def test_a_requested_sysctl_replaces_the_default(name: str) -> None:
    made = allowed_sysctls.with_network_defaults({name: "1 0"}, ())
    assert made[name] == "1 0"
    assert len(made) == (3 if "somaxconn" in name else 2)
