"""Resolution of a container's cgroupsPath."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.cgroups import cgroup_path
from jaula.cgroups.cgroup_path import (
    container_id,
    container_path,
    expand_slice,
    own_cgroup,
    parent_path,
    resolve,
)
from jaula.cgroups.v2 import driver_v2
from jaula.errors import InvalidRequest, Unsupported

USER = "/user.slice/user-1000.slice/user@1000.service"
OWN_V2 = f"0::{USER}/app.slice/run-7.scope\n"
HYBRID = "9:name=systemd:/a\n4:memory:/b:c\n0::/d\n"


def of(path: str | None, *, rootless: bool = False, own: str = OWN_V2) -> str:
    return resolve(path, "id1", systemd=False, rootless=rootless, own=own)


def of_unit(path: str | None, *, rootless: bool = False) -> str:
    return resolve(path, "id1", systemd=True, rootless=rootless, own=OWN_V2)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (None, "/jaula-runtime/id1"),
        ("", "/jaula-runtime/id1"),
        ("a/b", "/jaula-runtime/a/b"),
        ("/default/d1", "/default/d1"),
        ("/machine.slice/libpod-1.scope", "/machine.slice/libpod-1.scope"),
    ],
)
def test_an_absolute_path_is_kept_and_a_relative_one_gets_a_parent(
    path: str | None, found: str
) -> None:
    assert of(path) == found


def test_a_rootless_path_has_the_parent_of_the_caller() -> None:
    assert of(None, rootless=True) == f"{USER}/app.slice/id1"
    assert of("x/y", rootless=True) == f"{USER}/app.slice/x/y"
    assert of(None, rootless=True, own="0::/\n") == "/id1"
    assert of(f"{USER}/z", rootless=True) == f"{USER}/z"


def test_a_caller_outside_the_cgroup_namespace_is_an_error() -> None:
    with pytest.raises(Unsupported, match="outside the cgroup namespace"):
        of(None, rootless=True, own="0::/../../x\n")


def test_own_cgroup_prefers_v2() -> None:
    assert own_cgroup(HYBRID) == "/d"
    assert own_cgroup("4:memory:/b:c\n") == "/b:c"
    assert own_cgroup("nonsense\n") == "/"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "//",
        "/a/../b",
        "..",
        "/a//b",
        "a/",
        "/a\nb",
        "/\x01",
        "/a/" + "x" * 256,
        "/cgroup.procs",
    ],
)
def test_a_hostile_path_is_refused(path: str) -> None:
    for rootless in (False, True):
        with pytest.raises(InvalidRequest, match="bad cgroup path"):
            of(path, rootless=rootless)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (None, "/system.slice/jaula-id1.scope"),
        ("machine.slice:libpod:abc", "/machine.slice/libpod-abc.scope"),
        (":crio:abc", "/system.slice/crio-abc.scope"),
        ("a-b.slice::abc", "/a.slice/a-b.slice/abc.scope"),
        ("-.slice:p:n", "/p-n.scope"),
        ("kubepods.slice:p:kubepods-pod1.slice", "/kubepods.slice/kubepods-pod1.slice"),
        ("::a-b.slice", "/a.slice/a-b.slice"),
    ],
)
def test_slice_prefix_and_name_give_a_unit_in_a_slice(path: str | None, found: str) -> None:
    assert of_unit(path) == found


def test_the_default_slice_of_a_rootless_container_is_the_user_s() -> None:
    assert of_unit(None, rootless=True) == "/user.slice/jaula-id1.scope"


@pytest.mark.parametrize("path", ["/a/b", "a:b", "a:b:c:d", "abc"])
def test_another_form_is_refused_with_runc_s_words(path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        of_unit(path)
    assert caught.value.message == (
        'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, '
        f'got "{path}" instead'
    )


@pytest.mark.parametrize(
    "path",
    ["a:b:c", "a/b.slice:p:n", "-a.slice:p:n", "a--b.slice:p:n", ".slice:p:n", "a.slice:p:",
     "a.slice:../p:n",
     "a.slice:p:n\n", "a.slice:p:" + "n" * 300, "b.slice:p:a-b.slice", "...slice:p:n/../x"],
)  # fmt: skip
def test_a_bad_slice_or_unit_is_refused(path: str) -> None:
    with pytest.raises(InvalidRequest):
        of_unit(path)


def test_a_slice_is_below_the_slices_of_its_prefixes() -> None:
    assert expand_slice("a-b-c.slice") == "/a.slice/a-b.slice/a-b-c.slice"
    assert expand_slice("-.slice") == ""


@given(st.text(max_size=60), st.booleans(), st.booleans())
def test_any_input_gives_a_valid_path_or_an_error(path: str, systemd: bool, rootless: bool) -> None:
    try:
        found = resolve(path, "id1", systemd=systemd, rootless=rootless, own=OWN_V2)
    except InvalidRequest:
        return
    assert found == "/" + cgroup_path.relative(found)


def test_common_ancestor() -> None:
    assert driver_v2.common_ancestor("/a/b/c", "/a/b/d/e") == "/a/b"
    assert driver_v2.common_ancestor("/a/b", "/a/b/c") == "/a/b"
    assert driver_v2.common_ancestor("/", "/a") == ""
    assert driver_v2.common_ancestor("/ab", "/a") == ""


ID = "0123456789abcdef" * 4
KUBELET = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice"


@pytest.mark.parametrize(
    ("parent", "found"),
    [
        ("jaula.slice", f"/jaula.slice/jaula-{ID}.scope"),
        ("a-b.slice", f"/a.slice/a-b.slice/jaula-{ID}.scope"),
        ("/a.slice/a-b.slice", f"/a.slice/a-b.slice/jaula-{ID}.scope"),
        ("/a.slice/a-b.slice/", f"/a.slice/a-b.slice/jaula-{ID}.scope"),
        ("-.slice", f"/jaula-{ID}.scope"),
        (KUBELET, f"{KUBELET}/jaula-{ID}.scope"),
    ],
)
def test_with_systemd_a_container_is_a_scope_in_a_slice(parent: str, found: str) -> None:
    assert container_path(parent, ID, systemd=True) == found
    assert container_id(found.rpartition("/")[2]) == ID


def test_without_systemd_a_parent_is_a_directory_whatever_its_name() -> None:
    assert container_path("jaula", ID, systemd=False) == f"/jaula/{ID}"
    assert container_path("/a/b/", ID, systemd=False) == f"/a/b/{ID}"
    assert container_path("a-b.slice", ID, systemd=False) == f"/a-b.slice/{ID}"
    assert container_id(ID) == ID


@pytest.mark.parametrize(
    "parent",
    [
        *("", "jaula", "/kubepods/pod1", "a.slice/b", ".slice", "a--b.slice", "-a.slice"),
        *("/x.slice/a-b.slice", "../a.slice", "/a.slice/../a-b.slice", "a\n.slice", "\xe4.slice"),
        "/" + "a" * 300 + ".slice",
    ],
)
def test_a_parent_that_is_not_a_slice_is_refused(parent: str) -> None:
    with pytest.raises(InvalidRequest):
        parent_path(parent, systemd=True)


@pytest.mark.parametrize("parent", ["", "/", "..", "a/../b", "cgroup.procs", "a//b"])
def test_a_parent_that_is_not_a_directory_is_refused(parent: str) -> None:
    with pytest.raises(InvalidRequest):
        parent_path(parent, systemd=False)


@pytest.mark.parametrize(
    "name", ["", "x", ID[1:], ID.upper(), f"jaula-{ID}.slice", f"docker-{ID}.scope", f"{ID}.x"]
)
def test_another_name_is_not_that_of_a_container(name: str) -> None:
    assert container_id(name) == ""


@given(st.text(max_size=40), st.booleans())
def test_any_parent_gives_a_path_of_valid_parts_or_an_error(parent: str, systemd: bool) -> None:
    with contextlib.suppress(InvalidRequest):
        parts = parent_path(parent, systemd=systemd).split("/")[1:]
        assert all(part and part not in (".", "..") for part in parts)
