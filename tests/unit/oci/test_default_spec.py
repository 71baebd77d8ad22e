"""The config.json that ``spec`` writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.oci_schema import SCHEMAS, problems
from jaula.oci import bundle_documents, runtime_main
from jaula.oci.default_spec import template
from jaula.runtime import validation
from jaula.spec.runtime_spec import Spec, encode


def make(*, rootless: bool) -> Spec:
    return template(rootless=rootless, uid=1000, gid=1001)


@pytest.mark.needs(str(SCHEMAS))
@pytest.mark.parametrize("rootless", [False, True])
def test_the_default_spec_is_valid_without_warnings(rootless: bool) -> None:
    spec = make(rootless=rootless)
    assert not problems("config-schema.json", json.loads(encode(spec)))
    assert validation.check(spec) == ()


def test_the_default_spec_is_strict() -> None:
    spec = make(rootless=False)
    assert spec.process is not None
    assert spec.process.capabilities is not None
    assert spec.process.capabilities.bounding == (
        "CAP_AUDIT_WRITE",
        "CAP_KILL",
        "CAP_NET_BIND_SERVICE",
    )
    assert not spec.process.capabilities.ambient
    assert not spec.process.capabilities.inheritable
    assert spec.process.no_new_privileges
    assert spec.root is not None
    assert spec.root.readonly
    assert spec.linux is not None
    assert "/proc/kcore" in spec.linux.masked_paths
    assert "/proc/sys" in spec.linux.readonly_paths
    assert spec.linux.seccomp is not None
    assert spec.linux.seccomp.default_action == "SCMP_ACT_ERRNO"


def test_rootless_maps_the_callers_own_ids_only() -> None:
    linux = make(rootless=True).linux
    assert linux is not None
    assert [(m.container_id, m.host_id, m.size) for m in linux.uid_mappings] == [(0, 1000, 1)]
    assert [(m.container_id, m.host_id, m.size) for m in linux.gid_mappings] == [(0, 1001, 1)]
    assert "user" in {namespace.type for namespace in linux.namespaces}
    assert not any("gid=5" in mount.options for mount in make(rootless=True).mounts)


def test_the_command_writes_the_spec_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["spec", "--bundle", str(tmp_path)]
    assert runtime_main.run(words) == 0
    text = (tmp_path / "config.json").read_text()
    assert text.startswith('{\n\t"ociVersion": "1.2.0",\n')
    assert '\n\t"process": {\n\t\t"cwd": "/"' in text
    assert json.loads(text)["process"]["user"] == {"uid": 0, "gid": 0}
    assert bundle_documents.load(str(tmp_path)).hostname == "jaula"
    assert runtime_main.run(words) == 1
    assert "config.json exists (remove it first)" in capfd.readouterr().err
    assert (tmp_path / "config.json").read_text() == text


def test_a_missing_bundle_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    assert runtime_main.run(["spec", "-b", "/nonexistent", "--rootless"]) == 1
    assert "/nonexistent/config.json: no such file or directory" in capfd.readouterr().err
