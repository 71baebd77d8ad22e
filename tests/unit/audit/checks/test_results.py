"""Verdicts, tables and parsers of kernel files, including hostile content."""

from __future__ import annotations

import pytest

from jaula.errors import Conflict
from jaula.features.doctor.kernel import kconfig
from jaula.features.verify.checks import devices, id_maps, network, open_files, rlimits
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result, Verdict, passed, table, verdict_of
from jaula.features.verify.verify import render
from jaula.spec.runtime_spec import DeviceCgroup, Spec


def row(verdict: Verdict) -> Result:
    return Result("id", "layer", "this", "that", "/proc/1/x", verdict)


@pytest.mark.parametrize(
    ("verdicts", "complete"),
    [
        ([], False),
        ([Verdict.HOLDS], True),
        ([Verdict.HOLDS, Verdict.RELAXED], True),
        ([Verdict.HOLDS, Verdict.FAILS], False),
        ([Verdict.HOLDS, Verdict.UNKNOWN], False),
    ],
)
def test_a_proof_is_complete_when_no_row_fails_or_is_unknown(
    verdicts: list[Verdict], complete: bool
) -> None:
    assert passed([row(verdict) for verdict in verdicts]) is complete


def test_a_flag_relaxes_only_a_value_that_matches_the_request() -> None:
    assert verdict_of(True, None) is Verdict.HOLDS
    assert verdict_of(True, "--privileged") is Verdict.RELAXED
    assert verdict_of(False, "--privileged") is Verdict.FAILS


def test_the_report_ends_with_failing_rows() -> None:
    text = render([row(Verdict.HOLDS), row(Verdict.FAILS)])
    assert text.endswith("2 rows: 1 holds, 1 FAILS\nid: requested: this; in effect: that")


def test_a_table_shows_no_control_characters_and_cuts_wide_cells() -> None:
    text = table(("A", "B"), [("\x1b[31mred\n", "x"), ("y" * 100, "z")], widest=20)
    assert "\x1b" not in text
    assert text.count("\n") == 2
    assert max(map(len, text.splitlines())) <= 23


def test_a_stopped_container_is_not_verified() -> None:
    for document in ({}, {"State": None}, {"State": {"Pid": 0}}):
        with pytest.raises(Conflict):
            AuditedContainer(document, Spec())


def test_security_options_are_read_with_both_separators() -> None:
    options = ["no-new-privileges", "seccomp:unconfined", "label=type:x_t", "seccomp=/a=b"]
    container = AuditedContainer(
        {"State": {"Pid": 1}, "HostConfig": {"SecurityOpt": options}}, Spec()
    )
    assert container.security_option("no-new-privileges") == ("",)
    assert container.security_option("seccomp") == ("unconfined", "/a=b")
    assert container.security_option("label") == ("type:x_t",)
    assert container.security_option("apparmor") == ()


# -- the kernel's files ----------------------------------------------------------------------


def test_an_id_map_is_read() -> None:
    assert id_maps.parse("         0     100000      65536\n") == [(0, 100000, 65536)]
    with pytest.raises(ValueError, match="unpack"):
        id_maps.parse("0 1\n")


def test_limits_are_read_by_label() -> None:
    text = (
        "Limit                     Soft Limit           Hard Limit           Units     \n"
        "Max open files            1024                 4096                 files     \n"
        "Max core file size        0                    unlimited            bytes     \n"
    )
    assert rlimits.parse(text) == {"Max open files": 4096, "Max core file size": 2**64 - 1}


def test_local_addresses_are_read_without_loopback_and_broadcast() -> None:
    text = """Local:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     |-- 127.0.0.1
        /32 host LOCAL
     |-- 172.30.0.2
        /32 host LOCAL
     |-- 172.30.255.255
        /32 link BROADCAST
"""
    assert network.addresses(text) == {"172.30.0.2"}


def test_interfaces_are_read() -> None:
    text = "Inter-|   Receive\n face |bytes\n    lo: 0 0\n  eth0: 1 2\n"
    assert network.interfaces(text) == ["lo", "eth0"]


@pytest.mark.parametrize(
    ("number", "target", "known", "device", "out"),
    [
        (0, "/dev/null", False, (1, 3), False),
        (0, "/null", False, (1, 3), False),
        (0, "/dev/null", False, None, True),
        (0, "/dev/null", False, (1, 1), True),
        (1, "pipe:[5]", False, None, False),
        (2, "socket:[5]", False, None, False),
        (0, "/dev/pts/3", False, (136, 3), False),
        (3, "/dev/null", False, (1, 3), True),
        (0, "/", False, None, True),
        (7, "/etc/shadow", False, None, True),
        (7, "/etc/shadow", True, None, False),
        (7, "/memfd:x (deleted)", False, None, False),
        (8, "mnt:[4026531832]", False, None, True),
        (8, "net:[4026531832]", True, None, True),
        (8, "anon_inode:[eventpoll]", False, None, False),
    ],
)
def test_an_unknown_mount_or_a_namespace_is_outside(
    number: int, target: str, known: bool, device: tuple[int, int] | None, out: bool
) -> None:
    assert open_files.leads_out(number, target, known, device) is out


def test_device_rules_are_written_as_the_kernel_prints_them() -> None:
    assert devices.format_rule(DeviceCgroup(True, "c", 1, None, "rwm")) == "c 1:* rwm"
    assert devices.format_rule(DeviceCgroup(True, None, None, None, None)) == "a *:* rwm"
    assert devices.format_rule(DeviceCgroup(True, "b", 8, 0, "wr")) == "b 8:0 rw"


def test_a_kernel_configuration_is_read() -> None:
    text = "# comment\n# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_C=m\nnot=an option\n"
    assert kconfig.parse(text) == {"CONFIG_B": "y", "CONFIG_C": "m"}
