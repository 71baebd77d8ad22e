"""Documents of the OCI specification as callers really write them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from jaula.spec import runtime_spec

DOCUMENT: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "root": {"path": "rootfs"},
    "process": {"cwd": "/", "args": ["true"]},
}


def encoded(path: str, value: object) -> bytes:
    document = json.loads(json.dumps(DOCUMENT))
    *parents, last = path.split("/")
    target = document
    for name in parents:
        target = target.setdefault(name, {})
    target[last] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "path",
    [
        "annotations",
        "mounts",
        "hooks",
        "hooks/prestart",
        "hostname",
        "process/env",
        "process/rlimits",
        "process/user",
        "process/user/additionalGids",
        "process/capabilities/ambient",
        "process/terminal",
        "root/readonly",
        "linux/namespaces",
        "linux/sysctl",
        "linux/resources/devices",
        "linux/resources/unified",
        "linux/timeOffsets",
        "linux/seccomp",
    ],
)
def test_null_is_the_empty_value(path: str) -> None:
    parent = path.rpartition("/")[0]
    absent = encoded(parent, {}) if parent and parent != "root" and parent != "process" else None
    expected = runtime_spec.decode(absent or json.dumps(DOCUMENT).encode())
    assert runtime_spec.decode(encoded(path, None)) == expected


def test_null_members_of_a_list_are_absent_too() -> None:
    mount = {"destination": "/tmp", "options": None, "source": None, "uidMappings": None}
    assert runtime_spec.decode(encoded("mounts", [mount])).mounts == (runtime_spec.Mount("/tmp"),)


@pytest.mark.parametrize(
    ("path", "value"),
    [("process/cwd", None), ("process/args", [None]), ("annotations", {"a": None})],
)
def test_null_is_refused_where_it_stands_for_nothing(path: str, value: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        runtime_spec.decode(encoded(path, value))


def test_bytes_of_a_process_are_kept() -> None:
    document = {**DOCUMENT, "process": {"cwd": "/X", "args": ["X", "\u00fc"], "env": ["A=X"]}}
    data = json.dumps(document, ensure_ascii=False).encode().replace(b"X", b"\xff\xfe")
    spec = runtime_spec.decode(data)
    assert spec.process == runtime_spec.Process(
        "/\udcff\udcfe", ("\udcff\udcfe", "\u00fc"), ("A=\udcff\udcfe",)
    )
    assert runtime_spec.decode(runtime_spec.encode(spec)) == spec


@pytest.mark.parametrize("path", ["hostname", "root/path", "annotations/a"])
def test_bytes_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(UnicodeDecodeError):
        runtime_spec.decode(encoded(path, "X").replace(b"X", b"\xff"))


def test_an_environment_of_a_hook_may_be_absent_or_empty() -> None:
    hooks = [{"path": "/a"}, {"path": "/a", "env": None}, {"path": "/a", "env": []}]
    decoded = runtime_spec.decode(encoded("hooks/prestart", hooks)).hooks
    assert decoded is not None
    assert [hook.env for hook in decoded.prestart] == [None, None, ()]
