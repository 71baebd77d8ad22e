"""Findings for the state of a host."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from jaula.features.checkpoint.runtime.probe import CriuReport
from jaula.features.doctor import host_state
from jaula.features.doctor.doctor_checks import (
    Finding,
    State,
    examine,
    has_blocker,
    kernel_features,
)
from jaula.features.doctor.host_state import HostReport, Program
from jaula.features.doctor.kernel.check_config import SupportRow

GOOD = HostReport(
    uid=1000,
    name="me",
    distribution=("debian",),
    kernel=(6, 12),
    subuids=65536,
    subgids=65536,
    next_subid=165536,
    programs={
        "newuidmap": Program("/usr/bin/newuidmap", raised=True),
        "newgidmap": Program("/usr/bin/newgidmap", raised=True),
        "pasta": Program("/usr/bin/pasta"),
        "ps": Program("/usr/bin/ps"),
    },
    libnftables=True,
    sysctls={
        "user.max_user_namespaces": 10000,
        "user.max_net_namespaces": 10000,
        "user.max_mnt_namespaces": 10000,
        "kernel.unprivileged_userns_clone": 1,
        "kernel.apparmor_restrict_unprivileged_userns": 0,
    },
    runtime_variable="/run/user/1000",
    run="/run/user/1000/jaula",
    root="/home/me/.local/share/jaula",
    unified=True,
    controllers=frozenset({"cpu", "cpuset", "io", "memory", "pids"}),
    user_manager=True,
    systemd=True,
    lingers=True,
)


def found(subject: str, **changes: Any) -> Finding:
    rows = examine(msgspec.structs.replace(GOOD, **changes))
    (row,) = [row for row in rows if row.subject == subject]
    return row


def without(*names: str) -> dict[str, Program]:
    return {name: row for name, row in GOOD.programs.items() if name not in names}


def test_root_is_told_what_a_migration_compares() -> None:
    root = msgspec.structs.replace(
        GOOD,
        uid=0,
        architecture="x86_64",
        cpu_features=("avx", "fpu"),
        criu=CriuReport("4.2", "", tracks_memory=False),
    )
    (row,) = [row for row in examine(root) if row.subject == "processor"]
    assert row.state is State.OK
    assert row.detail.startswith("x86_64, 2 features")


def test_a_good_host_has_no_findings() -> None:
    rows = examine(GOOD)
    assert {row.state for row in rows} == {State.OK}
    assert not any(row.fix for row in rows)
    assert not has_blocker(rows)


def test_the_fix_for_missing_ranges_is_the_next_free_one() -> None:
    row = found("subuid", subuids=0)
    assert row.state is State.HINDERS
    assert row.fix == "sudo usermod --add-subuids 165536-231071 me"
    row = found("subgid", subgids=0)
    assert row.fix == "sudo usermod --add-subgids 165536-231071 me"


def test_a_short_range_costs() -> None:
    assert found("subuid", subuids=1000).state is State.COSTS


def test_missing_newuidmap_names_the_distributions_package() -> None:
    row = found("newuidmap", programs=without("newuidmap"))
    assert (row.state, row.fix) == (State.HINDERS, "sudo apt install uidmap")
    row = found("newuidmap", programs=without("newuidmap"), distribution=("fedora",))
    assert row.fix == "sudo dnf install shadow-utils"
    row = found("newuidmap", programs=without("newuidmap"), distribution=("own", "rhel"))
    assert row.fix == "sudo dnf install shadow-utils"
    row = found("newuidmap", programs=without("newuidmap"), distribution=())
    assert row.fix == "install the package that contains uidmap"


def test_newuidmap_without_rights_hinders() -> None:
    programs = GOOD.programs | {"newuidmap": Program("/usr/bin/newuidmap")}
    row = found("newuidmap", programs=programs)
    assert (row.state, row.fix) == (State.HINDERS, "sudo chmod u+s /usr/bin/newuidmap")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("user.max_user_namespaces", 0, 28633),
        ("kernel.unprivileged_userns_clone", 0, 1),
    ],
)
def test_a_sysctl_that_forbids_namespaces_hinders(name: str, value: int, expected: int) -> None:
    row = found(name, sysctls=GOOD.sysctls | {name: value})
    assert row.state is State.HINDERS
    assert f"{name}={expected}" in row.fix


def test_apparmors_restriction_hinders_only_if_it_applies_to_the_user() -> None:
    name = "kernel.apparmor_restrict_unprivileged_userns"
    sysctls = GOOD.sysctls | {name: 1}
    assert found(name, sysctls=sysctls).state is State.OK
    row = found(name, sysctls=sysctls, namespace="Operation not permitted")
    assert row.state is State.HINDERS
    assert found("user namespace", namespace="no").state is State.HINDERS


def test_no_new_privs_hinders() -> None:
    assert found("no_new_privs", no_new_privileges=True).state is State.HINDERS


def test_a_missing_network_helper_costs() -> None:
    row = found("pasta", programs=without("pasta"))
    assert (row.state, row.fix) == (State.COSTS, "sudo apt install passt")
    programs = without("pasta") | {"slirp4netns": Program("/usr/bin/slirp4netns")}
    assert found("pasta", programs=programs).state is State.OK
    assert found("/dev/net/tun", tun="Permission denied").state is State.COSTS


def test_a_runtime_directory_of_another_user_hinders() -> None:
    row = found("XDG_RUNTIME_DIR", runtime_directory="it is owned by user 0")
    assert row.state is State.HINDERS
    assert row.fix == "export XDG_RUNTIME_DIR=/run/user/1000"


def test_an_unset_runtime_directory_costs_unless_the_default_exists() -> None:
    assert found("XDG_RUNTIME_DIR", runtime_variable="").state is State.OK
    row = found("XDG_RUNTIME_DIR", runtime_variable="", run="/tmp/jaula-1000")
    assert row.state is State.COSTS


def test_a_data_directory_that_cannot_be_made_hinders() -> None:
    assert found("data directory", root_writable=False).state is State.HINDERS


def test_undelegated_controllers_cost() -> None:
    assert "v1" in found("cgroups", unified=False).detail
    for row in (
        found("cgroups", unified=False),
        found("cgroups", user_manager=False),
        found("cgroups", controllers=frozenset({"memory"})),
    ):
        assert "no --profile strict" in row.detail
    assert found("cgroups", user_manager=False).fix == "sudo loginctl enable-linger me"
    row = found("cgroups", controllers=frozenset({"memory", "pids"}))
    assert row.state is State.COSTS
    assert "cpu, cpuset, io" in row.detail
    assert "Delegate=cpu cpuset io memory pids" in row.fix


def test_containers_that_end_with_the_session_cost() -> None:
    assert found("lingering", lingers=False).fix == "sudo loginctl enable-linger me"


def test_root_needs_no_ranges_and_no_sudo() -> None:
    root = msgspec.structs.replace(
        GOOD, uid=0, name="root", subuids=0, programs={}, libnftables=False
    )
    rows = {row.subject: row for row in examine(root)}
    assert "subuid" not in rows
    assert "newuidmap" not in rows
    assert rows["nft"].fix == "apt install nftables"


def test_an_old_kernel_costs() -> None:
    assert found("kernel", kernel=(5, 10)).state is State.COSTS
    assert found("kernel", kernel=(5, 11)).state is State.OK


def test_host_files_are_parsed() -> None:
    assert host_state.kernel("6.12.3-amd64") == (6, 12)
    assert host_state.kernel("5.10-rc1") == (5, 10)
    assert host_state.kernel("x") == (0, 0)
    text = 'NAME=x\nID=ubuntu\nID_LIKE="debian other"\n'
    assert host_state.distribution(text) == ("ubuntu", "debian", "other")
    assert host_state.next_subid("") == 100_000
    assert host_state.next_subid("a:100000:65536\nb:5:5\nbad\nc:165536:10\n") == 165_546


def test_missing_kernel_features_are_findings() -> None:
    rows = [
        SupportRow("g", "a", "yes", "-", "works", "x"),
        SupportRow("g", "b", "no", "CONFIG_B=n", "-", "this"),
        SupportRow("g", "c", "no", "-", "No such device", "that", fatal=True),
        SupportRow("g", "d", "unknown", "-", "-", "x"),
    ]
    first, second, rest = kernel_features(rows)
    assert (first.state, first.detail) == (State.COSTS, "missing (CONFIG_B=n): this")
    assert (second.state, second.detail) == (State.HINDERS, "missing (No such device): that")
    assert rest.detail == "1 of 4 are available, 1 could not be tried"
