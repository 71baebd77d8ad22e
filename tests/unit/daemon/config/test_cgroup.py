"""The cgroup driver of an engine: options, defaults and refusals."""

from __future__ import annotations

import pytest

from jaula.daemon.config import cgroup_settings, daemon_json
from jaula.errors import InvalidRequest

SYSTEMD = ("native.cgroupdriver=systemd",)


def normalized(
    *, has_systemd: bool = True, rootless: bool = False, **settings: object
) -> dict[str, object]:
    cgroup_settings.normalize(settings, has_systemd=has_systemd, rootless=rootless)
    return settings


@pytest.mark.parametrize("has_systemd", [True, False])
def test_the_default_is_cgroupfs(has_systemd: bool) -> None:
    assert normalized(has_systemd=has_systemd) == {}
    assert normalized(has_systemd=has_systemd, cgroup_parent="a") == {"cgroup_parent": "a"}


def test_an_engine_that_serves_cri_has_the_driver_of_the_host() -> None:
    expected = {"cri": True, "cgroup_driver": "systemd", "cgroup_parent": "jaula.slice"}
    assert normalized(cri=True) == expected
    assert normalized(cri=True, has_systemd=False) == {"cri": True}
    assert normalized(cri=True, rootless=True) == {"cri": True}
    chosen = normalized(cri=True, cgroup_parent="a-b.slice")
    assert (chosen["cgroup_driver"], chosen["cgroup_parent"]) == ("systemd", "a-b.slice")
    assert normalized(cri=True, cgroup_parent="a")["cgroup_driver"] == "cgroupfs"
    assert normalized(cri=True, exec_opt=("native.cgroupdriver=cgroupfs",)) == {
        "cri": True,
        "cgroup_driver": "cgroupfs",
    }


def test_dockers_option_selects_the_driver() -> None:
    assert normalized(exec_opt=SYSTEMD) == {
        "cgroup_driver": "systemd",
        "cgroup_parent": "jaula.slice",
    }
    both = ("native.cgroupdriver=cgroupfs", " Native.CgroupDriver = systemd ")
    assert normalized(exec_opt=both)["cgroup_driver"] == "systemd"
    settings, _ = daemon_json.parse(b'{"exec-opts": ["native.cgroupdriver=systemd"]}')
    assert settings == {"exec_opt": SYSTEMD}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("native.cgroupdriver",), "invalid exec option"),
        (("isolation=process",), "invalid exec option 'isolation=process'"),
        (("native.cgroupdriver=",), "not supported"),
        (("native.cgroupdriver=none",), "'none' not supported"),
    ],
)
def test_another_option_is_refused(options: tuple[str, ...], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        normalized(exec_opt=options)


def test_systemd_is_refused_where_it_does_not_manage_the_cgroups() -> None:
    with pytest.raises(InvalidRequest, match="needs systemd as init, and cgroup v2"):
        normalized(exec_opt=SYSTEMD, has_systemd=False)
    with pytest.raises(InvalidRequest, match="rootless"):
        normalized(exec_opt=SYSTEMD, rootless=True)


def test_the_parent_is_a_slice_with_systemd() -> None:
    with pytest.raises(InvalidRequest, match="valid slice named as"):
        normalized(exec_opt=SYSTEMD, cgroup_parent="mine")
    with pytest.raises(InvalidRequest, match="invalid slice name"):
        normalized(exec_opt=SYSTEMD, cgroup_parent="a--b.slice")


@pytest.mark.parametrize("value", ["native.cgroupdriver=systemd", [1], {}, [""]])
def test_a_file_has_a_list_of_options(value: object) -> None:
    with pytest.raises(InvalidRequest, match="exec-opts: expected"):
        cgroup_settings.keys()["exec-opts"].read("exec-opts", value)
