"""Imports and starts of checkpoints beside other requests, cancelled, and in a killed engine.

An import is whole or absent, and so is a container that it creates. The archives have no images of
processes, so no CRIU is needed, but for the tests of restores that succeed.
"""

from __future__ import annotations

import http.client
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import load_image
from harness import containers, leaks
from harness.engine import PrivateEngine, Reply, UnixConnection
from harness.faulty_engine import FaultyEngine
from harness.foreign_checkpoints import ForeignCheckpoints
from harness.paused_steps import PausedEngine
from jaula.features.trust import signing_keys

KEY = signing_keys.generate()
IMAGE = "busybox"
LINK = "link of a checkpoint"
VERIFY = "verification of a checkpoint"
REMOVAL = "removal of a container"


class ImportEngine(FaultyEngine):
    """An engine with the steps of :mod:`harness.import_faults`."""

    script = "import_faults.py"


def flags(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Return the flags of an engine that accepts archives of :data:`KEY`."""
    directory = tmp_path_factory.mktemp("policy")
    (directory / "team.pub").write_bytes(KEY.public.pem)
    policy = directory / "policy.toml"
    policy.write_text('[checkpoints]\n"docker.io/library/busybox" = { signed-by = "team.pub" }\n')
    return "--policy", str(policy)


@pytest.fixture(scope="module")
def paused(worker_index: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PausedEngine]:
    private = PausedEngine((worker_index + 61) % 250 + 1, extra_flags=flags(tmp_path_factory))
    with leaks.nothing_left(private):
        load_image(private, IMAGE)
        yield private


@pytest.fixture(scope="module")
def faulty(worker_index: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyEngine]:
    private = ImportEngine((worker_index + 67) % 250 + 1, extra_flags=flags(tmp_path_factory))
    with leaks.nothing_left(private):
        load_image(private, IMAGE)
        yield private


class Asking:
    """A request that is sent in a thread; ``reply`` is there after :meth:`end`."""

    def __init__(self, engine: PrivateEngine, method: str, path: str, body: Any = None) -> None:
        def run() -> None:
            self.reply = engine.request(method, path, body)

        self.reply: Reply
        self._thread = threading.Thread(target=run)
        self._thread.start()

    @property
    def waits(self) -> bool:
        self._thread.join(0.3)
        return self._thread.is_alive()

    def end(self) -> Reply:
        self._thread.join()
        return self.reply


def create(engine: PrivateEngine) -> str:
    body = {"Image": IMAGE, "Cmd": ["sleep", "600"]}
    reply = engine.request("POST", "/containers/create", body)
    assert reply.status == 201, reply
    return str(reply.json()["Id"])


def names(engine: PrivateEngine, id: str) -> list[str]:
    reply = engine.request("GET", f"/containers/{id}/checkpoints")
    return [each["Name"] for each in reply.json() or []]


def is_whole(engine: PrivateEngine, id: str, name: str = "one") -> bool:
    reply = engine.request("GET", f"/jaula/containers/{id}/checkpoints/{name}")
    return bool(reply.json()["Usable"])


def unfinished(engine: PrivateEngine) -> list[str]:
    """Return what an import has left in the store, and directories of no container."""
    store = engine.root / "lib/checkpoints"
    ids = {each["Id"] for each in engine.request("GET", "/containers/json?all=1").json()}
    return [
        str(path.relative_to(store))
        for pattern in ("*", "*/*")
        for path in (store.glob(pattern) if store.exists() else ())
        if path.name != ".key"
        and (path.name.startswith(".") or (path.parent == store and path.name not in ids))
    ]


def check(engine: PrivateEngine, id: str, expected: list[str]) -> None:
    assert names(engine, id) == expected
    assert all(is_whole(engine, id, name) for name in expected)
    assert unfinished(engine) == []


def remove(engine: PrivateEngine, id: str) -> None:
    assert engine.request("DELETE", f"/containers/{id}?force=1&v=1").status in (204, 404)


# -- two requests --------------------------------------------------------------------------------


@pytest.mark.parametrize("exists", [True, False], ids=["container", "no container"])
def test_of_two_imports_of_one_name_one_succeeds(
    paused: PausedEngine, tmp_path: Path, exists: bool
) -> None:
    """Also if both have read their archives, and one is about to get the name."""
    id = create(paused) if exists else "f" * 64
    archive = ForeignCheckpoints(paused, tmp_path, KEY).make(id, IMAGE)
    with paused.pausing(LINK) as wait:
        asking = [Asking(paused, "POST", "/jaula/checkpoints", archive) for _ in range(2)]
        wait()
        time.sleep(0.5)  # the other one waits for the lock, or has found the name
    replies = [each.end() for each in asking]
    assert sorted(reply.status for reply in replies) in ([201, 400], [201, 409]), replies
    (refused,) = (reply.json()["message"] for reply in replies if reply.status != 201)
    assert "already exists" in refused or "is already in use" in refused
    (imported,) = (reply.json() for reply in replies if reply.status == 201)
    assert imported["Created"] is not exists
    check(paused, imported["Id"], ["one"])
    assert len(paused.request("GET", "/containers/json?all=1").json()) == 1
    remove(paused, imported["Id"])
    assert unfinished(paused) == []


def test_a_name_that_is_removed_during_an_import_is_that_of_the_import(
    paused: PausedEngine, tmp_path: Path
) -> None:
    """The removal is before the import, or after it: no request gets a mixture of both."""
    id = create(paused)
    archive = ForeignCheckpoints(paused, tmp_path, KEY).make(id, IMAGE)
    path = f"/containers/{id}/checkpoints/one"
    with paused.pausing(LINK) as wait:
        importing = Asking(paused, "POST", "/jaula/checkpoints", archive)
        wait()
        removing = Asking(paused, "DELETE", path)
        assert removing.waits
    assert importing.end().status == 201
    assert removing.end().status == 204
    check(paused, id, [])
    assert paused.request("POST", "/jaula/checkpoints", archive).status == 201
    check(paused, id, ["one"])
    remove(paused, id)


@pytest.mark.parametrize("first", ["import", "removal"])
def test_a_container_that_is_removed_during_an_import_leaves_nothing(
    paused: PausedEngine, tmp_path: Path, first: str
) -> None:
    id = create(paused)
    archive = ForeignCheckpoints(paused, tmp_path, KEY).make(id, IMAGE)
    import_, removal = ("POST", "/jaula/checkpoints", archive), ("DELETE", f"/containers/{id}")
    with paused.pausing(LINK if first == "import" else REMOVAL) as wait:
        asking = [Asking(paused, *(import_ if first == "import" else removal))]
        wait()
        asking.append(Asking(paused, *(removal if first == "import" else import_)))
        assert asking[1].waits
    statuses = [each.end().status for each in asking]
    if first == "import":
        assert statuses in ([201, 204], [404, 204])  # it may be gone before the answer
    else:
        assert statuses == [204, 404]
    assert unfinished(paused) == []


def test_a_container_without_its_files_is_not_started(paused: PausedEngine, tmp_path: Path) -> None:
    """Another client sees it while it is imported."""
    archive = ForeignCheckpoints(paused, tmp_path, KEY).make("e" * 64, IMAGE)
    with paused.pausing(LINK) as wait:
        importing = Asking(paused, "POST", "/jaula/checkpoints", archive)
        wait()
        (row,) = paused.request("GET", "/containers/json?all=1").json()
        starting = Asking(paused, "POST", f"/containers/{row['Id']}/start")
        assert starting.waits
    assert importing.end().status == 201
    assert starting.end().status == 204
    assert containers.inspect(paused, row["Id"])["State"]["Running"]
    check(paused, row["Id"], ["one"])
    remove(paused, row["Id"])


@pytest.mark.parametrize("other", ["removal", "rename", "start", "removal of the checkpoint"])
def test_another_request_comes_after_a_start_from_a_checkpoint(
    paused: PausedEngine, tmp_path: Path, other: str
) -> None:
    """The images of this checkpoint are none: the start fails, and the container is as before."""
    id = create(paused)
    archive = ForeignCheckpoints(paused, tmp_path, KEY).make(id, IMAGE)
    assert paused.request("POST", "/jaula/checkpoints", archive).status == 201
    requests = {
        "removal": ("DELETE", f"/containers/{id}?force=1"),
        "rename": ("POST", f"/containers/{id}/rename?name=renamed"),
        "start": ("POST", f"/containers/{id}/start"),
        "removal of the checkpoint": ("DELETE", f"/containers/{id}/checkpoints/one"),
    }
    with paused.pausing(VERIFY) as wait:
        starting = Asking(paused, "POST", f"/containers/{id}/start?checkpoint=one")
        wait()
        asking = Asking(paused, *requests[other])
        assert asking.waits or other == "rename"
    reply = starting.end()
    assert reply.status == 500, reply
    assert asking.end().status == 204
    if other == "removal":
        assert paused.request("GET", f"/containers/{id}/json").status == 404
    else:
        document = containers.inspect(paused, id)
        assert document["State"]["Running"] is (other == "start")
        assert document["Name"] == "/renamed" or other != "rename"
        check(paused, id, [] if "checkpoint" in other else ["one"])
    remove(paused, id)
    assert unfinished(paused) == []


@pytest.mark.criu
@pytest.mark.parametrize("other", ["removal", "rename", "start", "removal of the checkpoint"])
def test_another_request_comes_after_a_restore(paused: PausedEngine, other: str) -> None:
    name = containers.unique("restored")
    program = ("sh", "-c", "i=0; while :; do i=$((i+1)); echo $i >/count; sleep 0.1; done")
    done = paused.cli("jaula", "run", "-d", "--name", name, IMAGE, *program)
    assert done.returncode == 0, done.stderr
    id = containers.inspect(paused, name)["Id"]
    done = paused.cli("jaula", "checkpoint", "create", name, "one")
    assert done.returncode == 0, done.stderr
    requests = {
        "removal": ("DELETE", f"/containers/{id}?force=1"),
        "rename": ("POST", f"/containers/{id}/rename?name={name}-2"),
        "start": ("POST", f"/containers/{id}/start"),
        "removal of the checkpoint": ("DELETE", f"/containers/{id}/checkpoints/one"),
    }
    with paused.pausing(VERIFY) as wait:
        starting = Asking(paused, "POST", f"/containers/{id}/start?checkpoint=one")
        wait()
        asking = Asking(paused, *requests[other])
        assert asking.waits or other == "rename"
    assert starting.end().status == 204
    assert asking.end().status == (304 if other == "start" else 204)
    if other == "removal":
        assert paused.request("GET", f"/containers/{id}/json").status == 404
    else:
        assert containers.inspect(paused, id)["State"]["Running"]
        count = paused.cli("jaula", "exec", id, "cat", "/count").stdout
        assert int(count) > 1  # it goes on from there
    remove(paused, id)
    assert unfinished(paused) == []


# -- clients that leave --------------------------------------------------------------------------


@pytest.mark.parametrize("exists", [True, False], ids=["container", "no container"])
@pytest.mark.parametrize("step", ["archive", LINK])
def test_an_import_whose_client_leaves_is_whole_or_absent(
    paused: PausedEngine, tmp_path: Path, exists: bool, step: str
) -> None:
    id = create(paused) if exists else "d" * 64
    archive = ForeignCheckpoints(paused, tmp_path, KEY).make(id, IMAGE)
    connection = UnixConnection(str(paused.socket))
    with paused.pausing(step) as wait:
        connection.putrequest("POST", "/jaula/checkpoints")
        connection.putheader("Content-Length", str(len(archive)))
        connection.endheaders()
        connection.send(archive if step == LINK else archive[: len(archive) // 2])
        if step == LINK:
            wait()
        else:
            time.sleep(0.3)
        connection.close()
        time.sleep(0.3)
    containers.eventually(lambda: unfinished(paused) == [], "nothing unfinished is left")
    present = paused.request("GET", "/containers/json?all=1").json()
    assert len(present) <= 1
    for each in present:
        found = names(paused, each["Id"])
        assert found == ["one"] or (exists and not found)
        check(paused, each["Id"], found)
        remove(paused, each["Id"])
    if step == "archive":
        assert len(present) == exists


# -- killed engines ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("exists", [True, False], ids=["container", "no container"])
@pytest.mark.parametrize(
    "stride", [5, pytest.param(1, marks=[pytest.mark.soak, pytest.mark.timeout(600)])]
)
def test_an_import_is_whole_or_absent_wherever_the_engine_is_killed(
    faulty: FaultyEngine, tmp_path: Path, exists: bool, stride: int
) -> None:
    foreign = ForeignCheckpoints(faulty, tmp_path, KEY)
    step, absent = 1 - stride, 0
    while True:
        step += stride
        id = create(faulty) if exists else f"{step:064x}"
        archive = foreign.make(id, IMAGE)
        faulty.fault.write_text(str(step))
        try:
            reply = faulty.request("POST", "/jaula/checkpoints", archive)
        except (OSError, http.client.HTTPException):
            assert faulty.process is not None
            faulty.process.wait(10)
            faulty.process = None
            faulty.fault.unlink()
            faulty.start()
        else:
            assert reply.status == 201, reply
            assert step > int(faulty.fault.read_text())
            remove(faulty, reply.json()["Id"])
            break
        present = [each["Id"] for each in faulty.request("GET", "/containers/json?all=1").json()]
        assert len(present) <= 1
        found = names(faulty, present[0]) if present else []
        assert found in ([], ["one"])
        absent += not found
        if not exists:
            assert bool(found) == bool(present), f"a container without its files, step {step}"
        if present:
            check(faulty, present[0], found)
        assert unfinished(faulty) == []
        if not found:  # the client asks again
            reply = faulty.request("POST", "/jaula/checkpoints", archive)
            assert reply.status == 201, reply
            present = [reply.json()["Id"]]
            check(faulty, present[0], ["one"])
        remove(faulty, present[0])
        assert os.listdir(faulty.root / "lib/containers") == []
    assert absent * stride > 5
