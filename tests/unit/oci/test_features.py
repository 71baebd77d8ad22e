"""The features document: valid, and in agreement with the code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.oci_schema import SCHEMAS, problems
from jaula.kernel import seccomp
from jaula.oci import runtime_main
from jaula.oci.runtime_features import features
from jaula.runtime.create import mount_plan

needs_schema = pytest.mark.needs(str(SCHEMAS))


@needs_schema
def test_the_document_is_valid() -> None:
    assert not problems("features-schema.json", features())


@needs_schema
def test_a_document_of_other_types_is_not() -> None:
    assert problems("features-schema.json", {"ociVersionMin": 1})


def test_listed_mount_options_are_not_file_system_data() -> None:
    listed = features()["mountOptions"]
    assert {"rro", "ro", "rbind", "rslave", "idmap", "tmpcopyup"} <= set(listed)
    assert listed == sorted(set(listed))
    assert [name for name in listed if mount_plan.parse_options((name,)).data] == []


WORDS = """
acl async atime bind copy-symlink defaults dev diratime dirsync exec group idmap iversion lazytime
loud mand noacl noatime nodev nodiratime noexec noiversion nolazytime nomand norelatime
nostrictatime nosuid nosymfollow private ratime rbind rdev rdiratime relatime remount rexec ridmap
rnoatime rnodev
rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw
rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave src-nofollow
strictatime suid symfollow sync tmpcopyup unbindable
"""


def test_every_parsed_mount_option_is_listed() -> None:
    listed = set(features()["mountOptions"])
    understood = {word for word in WORDS.split() if not mount_plan.parse_options((word,)).data}
    assert understood <= listed


def test_hooks_are_named_as_in_the_specification() -> None:
    assert features()["hooks"] == [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
        "poststop",
    ]


def test_capabilities_are_those_of_the_kernel() -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    names = features()["linux"]["capabilities"]
    assert len(names) == last + 1
    assert names[:2] == ["CAP_CHOWN", "CAP_DAC_OVERRIDE"]


def test_supported_flags_are_known_ones() -> None:
    reported = features()["linux"]["seccomp"]
    assert set(reported["supportedFlags"]) <= set(reported["knownFlags"])
    assert "SECCOMP_FILTER_FLAG_LOG" in reported["supportedFlags"]  # Linux 4.14
    assert not seccomp.filter_flag_available(1 << 30)


def test_without_libseccomp_no_seccomp_feature_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise OSError("not installed")

    monkeypatch.setattr(seccomp, "library", missing)
    document = features()
    assert document["linux"]["seccomp"] == {"enabled": False}
    assert "io.github.seccomp.libseccomp.version" not in document["annotations"]


def test_the_command_prints_the_features(capfd: pytest.CaptureFixture[str]) -> None:
    assert runtime_main.run(["features"]) == 0
    assert json.loads(capfd.readouterr().out) == features()
    assert runtime_main.run(["features", "x"]) == 1
    assert "takes no argument" in capfd.readouterr().err
