"""The names of the host that engines claim."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from jaula.errors import Conflict, Unavailable
from jaula.state.claims import Claim, Claims, conflicts

ONE = Claim("id-1", "/root-1", "/run-1", 7, "bridge-1", "/parent-1")
TWO = Claim("id-2", "/root-2", "/run-2", 7, "bridge-2", "/parent-2")


@pytest.mark.parametrize(
    ("shared", "flags"),
    [
        ({}, []),
        ({"run": "/run-1"}, ["--run DIRECTORY"]),
        ({"bridge": "bridge-1"}, ["--bridge NAME"]),
        ({"bridge": "bridge-1", "netns": 8}, []),
        ({"cgroup_parent": "/parent-1"}, ["--cgroup-parent NAME"]),
        (
            {"bridge": "bridge-1", "cgroup_parent": "/parent-1"},
            ["--bridge NAME", "--cgroup-parent NAME"],
        ),
    ],
)
def test_what_two_engines_would_share(shared: dict[str, object], flags: list[str]) -> None:
    other = msgspec.structs.replace(TWO, **shared)
    assert [flag for _, flag in conflicts(ONE, other)] == flags


def claims(tmp_path: Path, own: Claim = ONE) -> Claims:
    return Claims(own, tmp_path / "engines")


def with_run(own: Claim, run: Path) -> Claim:
    return msgspec.structs.replace(own, run=str(run))


def test_a_name_of_a_running_engine_is_refused_until_it_ends(tmp_path: Path) -> None:
    first = claims(tmp_path)
    first.take()
    second = claims(tmp_path, msgspec.structs.replace(TWO, bridge=ONE.bridge))
    with pytest.raises(Conflict, match=r"bridge-1 belongs to another engine, that of /root-1"):
        second.take()
    assert second.is_active("id-1")
    first.release()
    assert not second.is_active("id-1")
    second.take()
    with pytest.raises(Conflict, match=r"/root-2"):
        first.take()
    second.release()


@pytest.mark.parametrize("length", [1, 64, 200])
def test_a_claim_counts_while_a_shim_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    run = tmp_path / ("run" * 10)
    directory = run / "containers" / ("c" * length)
    directory.mkdir(parents=True)
    monkeypatch.chdir(directory)
    first = claims(tmp_path, with_run(ONE, run))
    first.take()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as shim:
        shim.bind("shim.sock")  # the address of the whole path may be too long
        shim.listen()
        first.release()
        second = claims(tmp_path, msgspec.structs.replace(TWO, cgroup_parent=ONE.cgroup_parent))
        with pytest.raises(Conflict, match="--cgroup-parent NAME"):
            second.take()
        again = claims(tmp_path, with_run(ONE, run))
        again.take()  # the same root takes it again
        again.release()
    second.take()
    assert not (tmp_path / "engines" / "id-1").exists()
    second.release()


def test_a_copy_of_a_root_is_refused(tmp_path: Path) -> None:
    first = claims(tmp_path)
    first.take()
    copy = Claim("id-1", "/copy", "/run-3", 7, "bridge-3", "/parent-3")
    with pytest.raises(Conflict, match=r"the engine of /root-1 has the id of this one"):
        claims(tmp_path, copy).take()
    first.release()
    claims(tmp_path, copy).take()


@pytest.mark.parametrize("distance", [-65535, -1, 0, 1, 65535])
def test_ranges_that_overlap_those_of_another_engine_are_not_taken(
    tmp_path: Path, distance: int
) -> None:
    first, second = claims(tmp_path), claims(tmp_path, TWO)
    first.take()
    second.take()
    assert first.take_ids(1_000_000)
    assert not second.take_ids(1_000_000 + distance)
    assert second.take_ids(1_000_000 + 65536)
    assert second.take_ids(1_000_000 - 65536)
    assert second.foreign_ids() == {1_000_000}
    first.release_ids(1_000_000)
    assert second.take_ids(1_000_000 + distance)
    first.release()
    second.release()


def test_ranges_of_an_ended_engine_are_free_and_those_of_its_next_process_are_swept(
    tmp_path: Path,
) -> None:
    first, second = claims(tmp_path), claims(tmp_path, TWO)
    first.take()
    second.take()
    assert first.take_ids(0)
    assert first.take_ids(65536)
    first_place = first.place
    shutil.copytree(first_place, tmp_path / "killed")
    first.release()
    shutil.copytree(tmp_path / "killed", first_place)
    assert second.take_ids(0)
    again = claims(tmp_path)
    again.take()
    again.hold_ids(65536)
    again.sweep_ids()
    assert os.listdir(first_place / "ids") == ["65536"]
    again.release()
    second.release()


def test_a_removed_claim_is_written_again_with_its_ranges(tmp_path: Path) -> None:
    first = claims(tmp_path)
    first.take()
    assert not first.renew()
    assert first.take_ids(65536)
    shutil.rmtree(tmp_path / "engines")
    assert first.renew()
    assert os.listdir(first.place / "ids") == ["65536"]
    shutil.rmtree(first.place)
    assert first.take_ids(131072)
    assert sorted(os.listdir(first.place / "ids")) == ["131072", "65536"]
    assert claims(tmp_path, TWO).is_active("id-1")
    first.release()


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"id": 1}', b"\xff" * 100, b"null"])
def test_a_file_that_is_not_a_claim_is_no_claim(tmp_path: Path, text: bytes) -> None:
    place = tmp_path / "engines" / "id-2"
    place.mkdir(parents=True)
    (place / "claim.json").write_bytes(text)
    (tmp_path / "engines" / "a file").write_bytes(b"")
    first = claims(tmp_path)
    first.take()
    assert not first.is_active("id-2")
    assert first.foreign_containers() == set()
    first.release()


DAMAGED = [b"", b"{", b"[]", b'{"id": 1}', b'{"\xff": 1}', b"\xff" * 100, b"null"]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_claim_of_a_running_engine_hides_nothing(
    tmp_path: Path, text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jaula.state.claims._UNREADABLE_TIMEOUT", 0.2)
    first = claims(tmp_path)
    first.take()
    (first.place / "claim.json").write_bytes(text)
    second = claims(tmp_path, msgspec.structs.replace(TWO, bridge=ONE.bridge))
    assert second.is_active("id-1")
    with pytest.raises(Unavailable, match=r"id-1/claim\.json is not the claim of the engine"):
        second.take()
    assert first.renew()
    assert not first.renew()
    with pytest.raises(Conflict, match="bridge-1 belongs to another engine"):
        second.take()
    first.release()
    second.take()
    second.release()


def test_an_engine_waits_until_another_one_has_written_its_claim_again(tmp_path: Path) -> None:
    first, second = claims(tmp_path), claims(tmp_path, TWO)
    first.take()
    (first.place / "claim.json").unlink()
    timer = threading.Timer(0.3, first.renew)
    timer.start()
    second.take()
    timer.join()
    assert second.is_active("id-1")
    assert (first.place / "claim.json").exists()
    for each in (first, second):
        each.release()


def test_a_claim_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    first = claims(tmp_path)
    first.take()
    shutil.rmtree(first.place / "ids")
    (first.place / "ids").write_bytes(b"")
    with pytest.raises(Unavailable, match="Not a directory"):
        first.take_ids(65536)
    assert first.foreign_ids() == set()
    first.release()
    blocked = Claims(TWO, tmp_path / "file" / "engines")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unavailable, match="cannot claim the names of this engine"):
        blocked.take()


def test_of_engines_that_start_at_once_one_gets_the_names(tmp_path: Path) -> None:
    many = [claims(tmp_path, msgspec.structs.replace(ONE, id=f"id-{n}")) for n in range(8)]
    begin = threading.Barrier(len(many))

    def take(each: Claims) -> bool:
        begin.wait()
        try:
            each.take()
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(len(many)) as pool:
        taken = list(pool.map(take, many))
    assert taken.count(True) == 1
    for each in many:
        each.release()


def test_engines_without_cgroups_share_no_cgroup_parent() -> None:
    one, two = (msgspec.structs.replace(each, cgroup_parent="") for each in (ONE, TWO))
    assert conflicts(one, two) == []


def test_the_directory_is_closed_to_users(tmp_path: Path) -> None:
    first = claims(tmp_path)
    first.take()
    assert (tmp_path / "engines").stat().st_mode & 0o777 == 0o700
    first.release()
