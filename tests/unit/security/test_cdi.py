"""CDI files: parsing, selection of devices, and their edits of a spec."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import InvalidRequest
from jaula.security import cdi
from jaula.spec.api_documents import DeviceRequest
from jaula.spec.runtime_spec import DeviceCgroup, Linux, Mount, Process, Resources, Spec, User

FILE: dict[str, Any] = {
    "cdiVersion": "0.6.0",
    "kind": "vendor.com/net",
    "devices": [
        {"name": "0", "containerEdits": {"env": ["ID=0"]}},
        {"name": "all", "containerEdits": {"env": ["ID=all"]}},
    ],
    "containerEdits": {
        "env": ["COMMON=1"],
        "deviceNodes": [{"path": "/dev/inside", "hostPath": "/dev/null", "permissions": "rw"}],
        "mounts": [{"hostPath": "/usr/lib/x", "containerPath": "/lib/x", "options": ["ro"]}],
        "hooks": [{"hookName": "createContainer", "path": "/bin/hook", "args": ["hook", "a"]}],
        "additionalGids": [44, 0],
    },
}

YAML = b"""
cdiVersion: "0.6.0"
kind: nvidia.com/gpu
devices:
- name: "0"
  containerEdits: {env: [ID=0]}
- name: "10"
  containerEdits: {env: [ID=10]}
- name: "2"
  containerEdits: {env: [ID=2]}
"""


def write(directory: Path, name: str, content: bytes | dict[str, Any]) -> None:
    directory.mkdir(exist_ok=True)
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    (directory / name).write_bytes(data)
    (directory / name).chmod(0o644)


def named(*names: str) -> DeviceRequest:
    return DeviceRequest(driver="cdi", device_ids=names)


def gpus(count: int = 0, *ids: str, driver: str = "") -> DeviceRequest:
    return DeviceRequest(driver=driver, count=count, device_ids=ids, capabilities=(("gpu",),))


def test_a_device_edits_the_spec(tmp_path: Path) -> None:
    write(tmp_path, "a.json", FILE)
    devices = cdi.read([str(tmp_path), "/no/such/directory"])
    assert devices.names == ("vendor.com/net=0", "vendor.com/net=all")
    edits = devices.edits(devices.select([named("vendor.com/net=0", "vendor.com/net=all")]))
    assert [each.env for each in edits] == [("COMMON=1",), ("ID=0",), ("ID=all",)]
    deny = DeviceCgroup(allow=False, access="rwm")
    spec = Spec(
        process=Process(cwd="/", env=("ID=own", "A=b"), user=User(additional_gids=(7,))),
        mounts=(Mount("/lib/x", "tmpfs", "tmpfs"), Mount("/proc", "proc", "proc")),
        linux=Linux(resources=Resources(devices=(deny,))),
    )
    changed = cdi.apply(spec, edits)
    assert changed.process is not None
    assert changed.linux is not None
    assert changed.linux.resources is not None
    assert changed.process.env == ("ID=all", "A=b", "COMMON=1")
    assert changed.process.user.additional_gids == (7, 44)
    assert [m.destination for m in changed.mounts] == ["/proc", "/lib/x"]
    assert changed.mounts[1] == Mount("/lib/x", "/usr/lib/x", "bind", ("ro", "bind"))
    (node,) = changed.linux.devices
    assert (node.path, node.type, node.major, node.minor) == ("/dev/inside", "c", 1, 3)
    rule = DeviceCgroup(allow=True, type="c", major=1, minor=3, access="rw")
    assert changed.linux.resources.devices == (deny, rule)
    assert changed.hooks is not None
    (hook,) = changed.hooks.create_container
    assert (hook.path, hook.args) == ("/bin/hook", ("hook", "a"))


def test_gpus_are_counted_and_named(tmp_path: Path) -> None:
    write(tmp_path, "nvidia.yaml", YAML)
    devices = cdi.read([str(tmp_path)])
    zero, two, ten = (f"nvidia.com/gpu={n}" for n in (0, 2, 10))
    assert devices.select([gpus(-1)]) == (zero, two, ten)
    assert devices.select([gpus(2)]) == (zero, two)
    assert devices.select([gpus(0, "10", "0")]) == (ten, zero)
    assert devices.select([gpus(1, driver="nvidia"), gpus(1)]) == (zero,)
    with pytest.raises(InvalidRequest, match=r"4 devices of kind nvidia\.com/gpu are requested"):
        devices.select([gpus(4)])
    with pytest.raises(InvalidRequest, match=r"unresolvable CDI devices nvidia\.com/gpu=7"):
        devices.select([gpus(0, "7")])
    with pytest.raises(InvalidRequest, match=r'device driver "amd" with capabilities: \[\[gpu\]\]'):
        devices.select([gpus(1, driver="amd")])
    write(tmp_path, "all.yaml", YAML.replace(b'"10"', b'"all"').replace(b"nvidia", b"amd"))
    devices = cdi.read([str(tmp_path)])
    assert devices.select([gpus(-1, driver="amd")]) == ("amd.com/gpu=all",)
    assert devices.select([gpus(2, driver="amd")]) == ("amd.com/gpu=0", "amd.com/gpu=2")


def test_a_later_directory_wins_and_a_device_of_two_files_is_ambiguous(tmp_path: Path) -> None:
    first, second = tmp_path / "etc", tmp_path / "run"
    write(first, "a.json", FILE)
    write(
        second, "a.json", FILE | {"devices": [{"name": "0", "containerEdits": {"env": ["ID=r"]}}]}
    )
    devices = cdi.read([str(first), str(second)])
    assert devices.edits(["vendor.com/net=0"])[1].env == ("ID=r",)
    assert devices.edits(["vendor.com/net=all"])[1].env == ("ID=all",)
    write(second, "b.json", FILE)
    devices = cdi.read([str(first), str(second)])
    assert devices.names == ("vendor.com/net=all",)
    with pytest.raises(InvalidRequest, match="is defined by two files"):
        devices.select([named("vendor.com/net=0")])


def test_a_file_that_others_can_write_defines_nothing(tmp_path: Path) -> None:
    write(tmp_path, "a.json", FILE)
    (tmp_path / "a.json").chmod(0o666)
    devices = cdi.read([str(tmp_path)])
    assert devices.names == ()
    with pytest.raises(InvalidRequest, match=r"unresolvable .* is writable by other users"):
        devices.select([named("vendor.com/net=0")])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cdiVersion": "9.9"}, "version '9.9' is not known"),
        ({"kind": "no-class"}, "invalid kind"),
        ({"kind": "a/b/c"}, "invalid kind"),
        ({"devices": [{"name": "a/b"}]}, "invalid device name"),
        ({"devices": [{"name": "a"}, {"name": "a"}]}, "is defined twice"),
        ({"devices": 7}, "Expected `array`"),
        ({"containerEdits": {"env": ["=x"]}}, "invalid variable"),
        ({"containerEdits": {"env": ["A\0=x"]}}, "invalid variable"),
        ({"containerEdits": {"mounts": [{"hostPath": "x", "containerPath": "/y"}]}}, "absolute"),
        (
            {"containerEdits": {"mounts": [{"hostPath": "/x", "containerPath": "/../y"}]}},
            "absolute",
        ),
        ({"containerEdits": {"hooks": [{"hookName": "x", "path": "/y"}]}}, "unknown hook"),
        ({"containerEdits": {"deviceNodes": [{"path": "/x", "permissions": "z"}]}}, "device node"),
        ({"containerEdits": {"intelRdt": {"closID": "x"}}}, "Intel RDT"),
        ({"containerEdits": {"netDevices": [{"hostInterfaceName": "x"}]}}, "network devices"),
    ],
)
def test_an_invalid_file_is_refused(changes: dict[str, Any], message: str) -> None:
    data = json.dumps(FILE | changes).encode()
    with pytest.raises(InvalidRequest, match=r"CDI file /x\.json: ") as raised:
        cdi.parse_file(data, "/x.json")
    assert message in raised.value.message


@pytest.mark.parametrize(
    "data",
    [b"", b"[", b"- a", b"a: &x [*x]", b"!!python/object/apply:os.system ['true']", b"\xff\xfe\0"],
)
def test_invalid_yaml_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"CDI file /x\.yaml: "):
        cdi.parse_file(data, "/x.yaml")


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    for path in ("/x.yaml", "/x.json"):
        with contextlib.suppress(InvalidRequest):
            assert cdi.parse_file(data, path)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (named("vendor.com/net"), "invalid CDI device name"),
        (named("/net=0"), "invalid CDI device name"),
        (DeviceRequest(driver="other", capabilities=(("gpu",),)), "could not select device driver"),
        (DeviceRequest(capabilities=(("tpu",),)), "could not select device driver"),
        (gpus(2, "0"), "cannot set both Count and DeviceIDs"),
    ],
)
def test_the_form_of_a_request_is_checked_at_create(request_: DeviceRequest, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        cdi.check_request(request_)


def test_a_missing_node_of_the_host_is_an_error(tmp_path: Path) -> None:
    node = {"path": "/dev/absent-device"}
    write(tmp_path, "a.json", FILE | {"containerEdits": {"deviceNodes": [node]}})
    devices = cdi.read([str(tmp_path)])
    with pytest.raises(InvalidRequest, match="/dev/absent-device: no such file"):
        cdi.apply(Spec(), devices.edits(["vendor.com/net=0"]))
