"""I32: a name of another caller's object replaces no authorized object, and no undo removes it.

Another caller removes a network or a volume, and creates its own with the name, while a request is
between its authorization and its effect, or between a step and the undo of that step.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from conftest import load_image, open_to_all
from harness import containers, leaks
from harness.api_user import ApiUser
from harness.engine import PROJECT, PrivateEngine, Reply
from harness.images import archive, file
from harness.index_layouts import index_layout
from harness.paused_steps import PausedEngine
from harness.registry import Registry

OWNER, OTHER = 54301, 54302
POLICY = f"""
[user.{OWNER}]
access = "run"

[user.{OTHER}]
access = "run"
remove = ["label=removable"]
"""
PLATFORMS = ("linux/amd64", "linux/s390x")
REMOVABLE = {"removable": ""}
"""Labels of what the other caller may remove, as a cleaner of tests may."""


@pytest.fixture(scope="module")
def paused(worker_index: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PausedEngine]:
    policy = tmp_path_factory.mktemp("policy") / "policy.toml"
    policy.write_text(POLICY)
    flags = ("--policy", str(policy))
    with leaks.nothing_left(PausedEngine(worker_index % 120 + 120, extra_flags=flags)) as private:
        assert isinstance(private, PausedEngine)
        open_to_all(private)
        load_image(private, "busybox")
        yield private


@pytest.fixture
def owner(paused: PausedEngine) -> ApiUser:
    return ApiUser(paused, OWNER, OWNER)


@pytest.fixture
def other(paused: PausedEngine) -> ApiUser:
    return ApiUser(paused, OTHER, OTHER)


@pytest.fixture
def name(paused: PausedEngine) -> Iterator[str]:
    """Yield a name for the objects of a test, which are removed after it."""
    made = containers.unique("replaced")
    yield made
    for each in (made, f"{made}-2"):
        paused.request("DELETE", f"/containers/{each}?force=1&v=1")
    for each in (made, f"{made}-2"):
        paused.request("DELETE", f"/images/{each}?force=1")
        paused.request("DELETE", f"/networks/{each}")
        paused.request("DELETE", f"/volumes/{each}")


class Asking:
    """A request that is sent in a thread; ``reply`` is there after :meth:`end`."""

    def __init__(self, user: ApiUser, method: str, path: str, body: Any = None) -> None:
        sock = user.connect()  # not in the thread: the ids are those of the whole process

        def run() -> None:
            with contextlib.suppress(ConnectionResetError):  # the engine was killed
                self.reply = user.request_over(sock, method, path, body)

        self.reply: Reply
        self._thread = threading.Thread(target=run)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def end(self) -> Reply:
        self.join()
        return self.reply


def network(user: ApiUser, name: str) -> str:
    """Create a network that the other caller may remove, and return its id."""
    made = user.request("POST", "/networks/create", {"Name": name, "Labels": REMOVABLE})
    assert made.status == 201, made
    return str(made.json()["Id"])


def replace_network(other: ApiUser, name: str) -> str:
    assert other.request("DELETE", f"/networks/{name}").status == 204
    return network(other, name)


def members(engine: PrivateEngine, name: str) -> dict[str, Any]:
    """Return the running containers on a network."""
    found: dict[str, Any] = engine.request("GET", f"/networks/{name}").json()["Containers"]
    return found


def run(owner: ApiUser, name: str, **host_config: Any) -> None:
    assert owner.create("busybox", name, **host_config).status == 201
    reply = owner.request("POST", f"/containers/{name}/start")
    assert reply.status == 204, reply


def test_the_undo_of_an_edit_connects_to_no_network_of_another_caller(
    paused: PausedEngine, owner: ApiUser, other: ApiUser, name: str
) -> None:
    network(owner, name)
    run(owner, name, NetworkMode=name)
    # The port is taken, so the edit fails after it has disconnected the container.
    run(owner, f"{name}-2", PortBindings={"80/tcp": [{"HostPort": "18391"}]})
    change = {"Disconnect": [name], "Connect": {"bridge": {}}}
    change["Publish"] = {"80/tcp": [{"HostPort": "18391"}]}  # type: ignore[dict-item]
    with paused.pausing("undo of an edit") as wait:
        edit = Asking(owner, "POST", f"/jaula/containers/{name}/edit", change)
        wait()
        replace_network(other, name)
    assert edit.end().status >= 400, edit.reply
    assert members(paused, name) == {}
    document = containers.inspect(paused, name)
    assert name not in document["NetworkSettings"]["Networks"]
    assert document["State"]["Running"]


def test_the_undo_of_an_edit_connects_to_the_former_network(
    paused: PausedEngine, owner: ApiUser, name: str
) -> None:
    network(owner, name)
    run(owner, name, NetworkMode=name)
    run(owner, f"{name}-2", PortBindings={"80/tcp": [{"HostPort": "18392"}]})
    change = {"Disconnect": [name], "Connect": {"bridge": {}}}
    change["Publish"] = {"80/tcp": [{"HostPort": "18392"}]}  # type: ignore[dict-item]
    edit = owner.request("POST", f"/jaula/containers/{name}/edit", change)
    assert edit.status >= 400, edit
    assert len(members(paused, name)) == 1


MOUNTED = {"Mounts": [{"Type": "tmpfs", "Target": "/added"}], "Unmount": ["/former"]}
OWN_MOUNT = "mount -t tmpfs none {0} && touch {0}/own"


def failing_edit(owner: ApiUser, name: str, port: str) -> Asking:
    """Begin an edit that mounts and unmounts, and fails then: the port is taken."""
    run(owner, name, Binds=[f"{name}:/former"])
    run(owner, f"{name}-2", PortBindings={"80/tcp": [{"HostPort": port}]})
    change = {**MOUNTED, "Publish": {"80/tcp": [{"HostPort": port}]}}
    return Asking(owner, "POST", f"/jaula/containers/{name}/edit", change)


def as_program(engine: PrivateEngine, name: str, script: str) -> str:
    """Run a script with all capabilities in the container, as a program that may mount."""
    words = ("nsenter", "-t", str(containers.pid(engine, name)), "-U", "-m", "sh", "-c", script)
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def mounted(engine: PrivateEngine, name: str) -> list[str]:
    """Return the mount points of a container, those in /added and /former only."""
    table = Path(f"/proc/{containers.pid(engine, name)}/mountinfo").read_text()
    points = (line.split()[4] for line in table.splitlines())
    return sorted(point for point in points if point in ("/added", "/former"))


@pytest.mark.parametrize(
    ("script", "left"),
    [
        ("true", ["/former"]),
        ("umount /added", ["/former"]),
        (f"umount /added && {OWN_MOUNT.format('/added')}", ["/added", "/former"]),
        (OWN_MOUNT.format("/added"), ["/added", "/added", "/former"]),
        (OWN_MOUNT.format("/former"), ["/former"]),
    ],
    ids=["nothing", "unmounted", "replaced", "covered", "mounted where one was removed"],
)
def test_the_undo_of_an_edit_leaves_the_mounts_of_the_container(
    paused: PausedEngine, owner: ApiUser, name: str, script: str, left: list[str]
) -> None:
    with paused.pausing("undo of an edit") as wait:
        edit = failing_edit(owner, name, "18393")
        wait()
        assert mounted(paused, name) == ["/added"]
        as_program(paused, name, script)
    assert edit.end().status >= 400, edit.reply
    assert mounted(paused, name) == left
    own = as_program(paused, name, "ls /added/own /former/own 2>/dev/null || true").split()
    assert own == [word for word in script.split() if word.endswith("/own")]
    spec = paused.request("GET", f"/jaula/containers/{name}/spec").json()
    destinations = {mount["destination"] for mount in spec["mounts"]}
    assert "/former" in destinations
    assert "/added" not in destinations


def test_an_edit_that_did_not_unmount_mounts_nothing_in_its_undo(
    paused: PausedEngine, owner: ApiUser, name: str
) -> None:
    run(owner, name, Binds=[f"{name}:/former"])
    as_program(paused, name, "umount /former")
    edit = owner.request("POST", f"/jaula/containers/{name}/edit", MOUNTED)
    assert edit.status == 409, edit
    assert mounted(paused, name) == []


def test_the_undo_of_a_killed_engines_edit_leaves_the_mounts_of_the_container(
    paused: PausedEngine, owner: ApiUser, name: str
) -> None:
    with paused.pausing("undo of an edit") as wait:
        edit = failing_edit(owner, name, "18394")
        wait()
        as_program(paused, name, f"umount /added && {OWN_MOUNT.format('/added')}")
        assert paused.process is not None
        paused.process.kill()
        paused.process.wait()
        paused.process = None
        edit.join()
    paused.start()
    open_to_all(paused)
    assert mounted(paused, name) == ["/added", "/former"]
    assert as_program(paused, name, "ls /added") == "own\n"


def test_an_edit_connects_to_no_network_that_was_replaced(
    paused: PausedEngine, owner: ApiUser, other: ApiUser, name: str
) -> None:
    network(owner, name)
    run(owner, name)
    with paused.pausing("volumes that were authorized") as wait:
        edit = Asking(owner, "POST", f"/jaula/containers/{name}/edit", {"Connect": {name: {}}})
        wait()
        replace_network(other, name)
    assert edit.end().status == 409, edit.reply
    assert "another client" in edit.reply.json()["message"]
    assert members(paused, name) == {}


def test_a_connect_joins_no_network_that_was_replaced(
    paused: PausedEngine, owner: ApiUser, other: ApiUser, name: str
) -> None:
    network(owner, name)
    run(owner, name)
    with paused.pausing("connect that was authorized") as wait:
        connect = Asking(owner, "POST", f"/networks/{name}/connect", {"Container": name})
        wait()
        replace_network(other, name)
    assert connect.end().status == 409, connect.reply
    assert members(paused, name) == {}


def test_a_start_joins_no_network_that_was_replaced(
    paused: PausedEngine, owner: ApiUser, other: ApiUser, name: str
) -> None:
    network(owner, name)
    assert owner.create("busybox", name, NetworkMode=name).status == 201
    with paused.pausing("start that was authorized") as wait:
        start = Asking(owner, "POST", f"/containers/{name}/start")
        wait()
        replace_network(other, name)
    assert start.end().status == 409, start.reply
    assert "another client" in start.reply.json()["message"]
    assert members(paused, name) == {}
    refused = owner.request("POST", f"/containers/{name}/start")
    assert refused.status == 403, refused  # by the policy


def test_a_restart_by_policy_joins_no_network_that_was_replaced(
    paused: PausedEngine, owner: ApiUser, other: ApiUser, name: str
) -> None:
    network(owner, name)
    run(owner, name, NetworkMode=name, RestartPolicy={"Name": "always"})
    with paused.pausing("start by the engine") as wait:
        os.kill(containers.pid(paused, name), signal.SIGKILL)
        wait()
        replace_network(other, name)
    containers.eventually(
        lambda: containers.inspect(paused, name)["State"]["Status"] == "exited", "a failed restart"
    )
    assert members(paused, name) == {}
    assert "another client" in containers.inspect(paused, name)["State"]["Error"]


def test_a_restart_by_policy_joins_a_network_that_its_owner_has_created_again(
    paused: PausedEngine, owner: ApiUser, name: str
) -> None:
    network(owner, name)
    run(owner, name, NetworkMode=name, RestartPolicy={"Name": "always"})
    with paused.pausing("start by the engine") as wait:
        os.kill(containers.pid(paused, name), signal.SIGKILL)
        wait()
        replace_network(owner, name)
    containers.eventually(lambda: len(members(paused, name)) == 1, "the restart")


def test_a_volume_is_removed_only_if_the_container_has_made_it(
    paused: PausedEngine, owner: ApiUser, name: str
) -> None:
    """As a clone that cannot be started is undone by the command."""

    def remove(container: str) -> int:
        return owner.request("DELETE", f"/volumes/{name}?transaction={container}").status

    made = owner.create("busybox", name, Binds=[f"{name}:/v"]).json()["Id"]
    assert remove(made) == 409  # it is in use
    owner.request("DELETE", f"/containers/{name}")
    assert remove("0" * 64) == 404
    assert remove(made) == 204
    assert owner.request("POST", "/volumes/create", {"Name": name}).status == 201
    assert remove(made) == 404
    assert paused.request("GET", f"/volumes/{name}").status == 200


def test_the_undo_of_a_create_removes_no_volume_of_another_caller(
    paused: PausedEngine, owner: ApiUser, other: ApiUser, name: str
) -> None:
    # The second volume cannot be created, so the first one is removed again.
    mounts = [
        {"Type": "volume", "Source": name, "Target": "/a", "VolumeOptions": {"Labels": REMOVABLE}},
        {"Type": "bind", "Source": f"/nowhere/{name}", "Target": "/b"},
    ]
    with paused.pausing("undo of volumes") as wait:
        create = Asking(
            ApiUser(paused, 0, 0),
            "POST",
            f"/containers/create?name={name}",
            {"Image": "busybox", "HostConfig": {"Mounts": mounts}},
        )
        wait()
        assert other.request("DELETE", f"/volumes/{name}").status in (204, 409)
        made = other.request("POST", "/volumes/create", {"Name": name})
        assert made.status == 201, made
    assert create.end().status == 400, create.reply
    left = paused.request("GET", f"/volumes/{name}")
    assert left.status == 200, left


def replace_volume(other: ApiUser, name: str) -> None:
    """Remove a volume as the other caller, and create one with its name."""
    assert other.request("DELETE", f"/volumes/{name}").status == 204
    body = {"Name": name, "Labels": REMOVABLE}
    made = other.request("POST", "/volumes/create", body)
    assert made.json()["Owner"] == str(OTHER), made


def is_of_other(engine: PrivateEngine, name: str) -> bool:
    reply = engine.request("GET", f"/volumes/{name}")
    return reply.status == 200 and reply.json()["Owner"] == str(OTHER)


def test_a_removal_removes_no_volume_that_was_replaced(
    paused: PausedEngine, owner: ApiUser, other: ApiUser, name: str
) -> None:
    body = {"Name": name, "Labels": REMOVABLE}
    assert owner.request("POST", "/volumes/create", body).status == 201
    with paused.pausing("removal of a volume") as wait:
        removal = Asking(owner, "DELETE", f"/volumes/{name}")
        wait()
        replace_volume(other, name)
    assert removal.end().status == 404, removal.reply
    assert is_of_other(paused, name)


def test_a_prune_removes_no_volume_that_was_replaced(
    paused: PausedEngine, owner: ApiUser, other: ApiUser, name: str
) -> None:
    body = {"Name": name, "Labels": REMOVABLE | {name: ""}}
    assert owner.request("POST", "/volumes/create", body).status == 201
    filters = quote(json.dumps({"label": [name], "all": ["true"]}))
    with paused.pausing("removal of a volume") as wait:
        prune = Asking(owner, "POST", f"/volumes/prune?filters={filters}")
        wait()
        replace_volume(other, name)
    assert prune.end().json()["VolumesDeleted"] == []
    assert is_of_other(paused, name)


def test_a_container_takes_no_anonymous_volume_with_it_that_was_replaced(
    paused: PausedEngine, owner: ApiUser, other: ApiUser, name: str
) -> None:
    mount = {"Type": "volume", "Target": "/v", "VolumeOptions": {"Labels": REMOVABLE}}
    assert owner.create("busybox", name, Mounts=[mount]).status == 201
    volume = containers.inspect(paused, name)["Mounts"][0]["Name"]
    with paused.pausing("removal of a volume") as wait:
        removal = Asking(owner, "DELETE", f"/containers/{name}?v=1")
        wait()
        replace_volume(other, volume)
    assert removal.end().status == 204, removal.reply
    assert is_of_other(paused, volume)
    assert paused.request("DELETE", f"/volumes/{volume}").status == 204


def test_a_request_keeps_a_volume_that_another_one_has_created(
    paused: PausedEngine, owner: ApiUser, name: str
) -> None:
    word = "0123456789abcdef" * 2
    create, remove = f"/volumes/create?transaction={word}", f"/volumes/{name}?transaction={word}"
    body = {"Name": name}
    assert owner.request("POST", "/volumes/create?transaction=x", body).status == 400
    for _ in range(2):
        assert owner.request("POST", create, body).status == 201
    assert owner.request("DELETE", f"/volumes/{name}?transaction={'0' * 32}").status == 404
    assert owner.request("DELETE", remove).status == 204
    assert owner.request("POST", create, body).status == 201
    assert owner.request("POST", "/volumes/create", body).status == 201  # it counts on the volume
    assert owner.request("DELETE", remove).status == 404
    assert paused.request("GET", f"/volumes/{name}").status == 200


def test_a_volume_is_removed_only_if_it_has_the_id(
    paused: PausedEngine, owner: ApiUser, name: str
) -> None:
    def identity() -> str:
        return str(owner.request("POST", "/volumes/create", {"Name": name}).json()["Id"])

    former = identity()
    assert owner.request("DELETE", f"/volumes/{name}").status == 204
    now = identity()
    assert owner.request("DELETE", f"/volumes/{name}?id={former}").status == 404
    assert owner.request("DELETE", f"/volumes/{name}?id={former}&force=1").status == 204
    assert identity() == now
    assert owner.request("DELETE", f"/volumes/{name}?id={now}").status == 204


def kube(engine: PrivateEngine, *words: str) -> subprocess.Popen[str]:
    command = [str(PROJECT / "jaula"), "--host", engine.host, "kube", *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/"
    )


def pod(name: str, program: str) -> str:
    """Return a pod with a claim and a volume of its own, both with the name, as YAML."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "labels": REMOVABLE},
    }
    container = {"name": "c", "image": "busybox", "command": [program]}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    return f"{json.dumps(claim)}\n---\n{json.dumps(made)}\n"


def test_the_undo_of_a_play_removes_no_volume_of_another_caller(
    paused: PausedEngine, other: ApiUser, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(pod(name, "/absent"))
    with paused.pausing("removal of a volume") as wait:
        play = kube(paused, "play", str(path))
        wait()
        replace_volume(other, name)
    error = play.communicate(timeout=60)[1]
    assert play.returncode != 0
    assert "absent" in error
    assert "not everything is removed" not in error
    assert is_of_other(paused, name)


def test_a_play_that_fails_keeps_a_volume_that_was_there(
    paused: PausedEngine, other: ApiUser, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(pod(name, "/absent"))
    assert other.request("POST", "/volumes/create", {"Name": name}).status == 201
    play = kube(paused, "play", str(path))
    error = play.communicate(timeout=60)[1]
    assert play.returncode != 0
    assert "not everything is removed" not in error
    assert is_of_other(paused, name)


def test_kube_down_removes_no_volume_that_was_replaced(
    paused: PausedEngine, other: ApiUser, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(pod(name, "true"))
    play = kube(paused, "play", str(path))
    assert play.wait(60) == 0, play.communicate()
    # A volume of the pod, as of an emptyDir, which the other caller may remove.
    volume = f"{name}-2"
    body = {"Name": volume, "Labels": REMOVABLE | {"io.jaula.features.kubernetes.kube": name}}
    assert paused.request("POST", "/volumes/create", body).status == 201
    assert paused.request("DELETE", f"/volumes/{name}").status == 204  # that of the claim
    with paused.pausing("removal of a volume") as wait:
        down = kube(paused, "down", str(path))
        wait()
        replace_volume(other, volume)
    assert down.wait(60) == 0, down.communicate()
    assert is_of_other(paused, volume)


def test_kube_down_keeps_the_volume_of_a_claim_with_the_name_of_the_pod(
    paused: PausedEngine, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(pod(name, "true"))
    for words in (("play", str(path)), ("down", str(path))):
        done = kube(paused, *words)
        assert done.wait(60) == 0, done.communicate()
    assert paused.request("GET", f"/volumes/{name}").status == 200
    down = kube(paused, "down", "--force", str(path))
    assert down.communicate(timeout=60)[0].endswith(f"Volumes removed:\n{name}\n")
    assert paused.request("GET", f"/volumes/{name}").status == 404


def test_kube_down_force_removes_no_volume_that_was_replaced(
    paused: PausedEngine, other: ApiUser, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(pod(name, "true"))
    play = kube(paused, "play", str(path))
    assert play.wait(60) == 0, play.communicate()
    with paused.pausing("removal of a volume") as wait:
        down = kube(paused, "down", "--force", str(path))
        wait()
        replace_volume(other, name)
    assert down.wait(60) == 0, down.communicate()
    assert is_of_other(paused, name)


def test_kube_down_force_keeps_a_volume_that_was_there_before_the_play(
    paused: PausedEngine, other: ApiUser, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(pod(name, "true"))
    assert other.request("POST", "/volumes/create", {"Name": name}).status == 201
    for words in (("play", str(path)), ("down", "--force", str(path))):
        done = kube(paused, *words)
        assert done.wait(60) == 0, done.communicate()
    assert is_of_other(paused, name)


def commit(engine: PrivateEngine, name: str, repository: str = "") -> str:
    """Create an image of its own from a new container, and return its id."""
    made = engine.request("POST", f"/containers/create?name={name}", {"Image": "busybox"})
    assert made.status == 201, made
    path = f"/commit?container={name}&repo={repository}&comment={containers.unique('image')}"
    image = engine.request("POST", path)
    assert image.status == 201, image
    engine.request("DELETE", f"/containers/{name}")
    return str(image.json()["Id"])


def test_a_removal_removes_no_tag_that_was_moved(paused: PausedEngine, name: str) -> None:
    former, latter = commit(paused, name, name), commit(paused, name, f"{name}-2")
    assert former != latter
    with paused.pausing("removal of an image") as wait:
        removal = Asking(ApiUser(paused, 0, 0), "DELETE", f"/images/{name}")
        wait()
        moved = paused.request("POST", f"/images/{latter}/tag?repo={name}")
        assert moved.status == 201, moved
    assert removal.end().status == 409, removal.reply
    assert paused.request("GET", f"/images/{name}/json").json()["Id"] == latter
    paused.request("DELETE", f"/images/{former}?force=1")


def load_index(engine: PrivateEngine, name: str, content: str, labels: dict[str, str]) -> None:
    """Load an image for two platforms; ``content`` makes its layers, and so its ids, its own."""
    layers = {each: archive([file(content, each.encode())]) for each in PLATFORMS}
    files = index_layout(layers, f"{name}:latest", more={"config": {"Labels": labels}})
    data = archive([file(path, content) for path, content in files.items()])
    loaded = engine.cli("jaula", "load", input=data, text=False)
    assert loaded.returncode == 0, loaded


@pytest.mark.parametrize("moved", [True, False])
def test_a_removal_removes_no_platform_of_a_tag_that_was_moved(
    paused: PausedEngine, other: ApiUser, name: str, moved: bool
) -> None:
    load_index(paused, name, "former", REMOVABLE)
    load_index(paused, f"{name}-2", "latter", {})

    def platforms() -> int:
        listed = paused.request("GET", f"/images/{name}/json?manifests=1").json()["Manifests"]
        return sum(each["Available"] for each in listed if each["Kind"] == "image")

    assert platforms() == 2
    chosen = quote(json.dumps({"os": "linux", "architecture": "s390x"}))
    with paused.pausing("removal of platforms") as wait:
        removal = Asking(other, "DELETE", f"/images/{name}?platforms={chosen}")
        wait()
        if moved:
            tagged = paused.request("POST", f"/images/{name}-2/tag?repo={name}")
            assert tagged.status == 201, tagged
    assert removal.end().status == (409 if moved else 200), removal.reply
    assert platforms() == (2 if moved else 1)


@pytest.mark.parametrize("request_", ["prune", "unnamed"])
def test_an_image_without_a_name_stays_if_it_gets_one(
    paused: PausedEngine, name: str, request_: str
) -> None:
    """As the image of a build that is only for its output, or a dangling one that is pruned."""
    image = commit(paused, name)
    root = ApiUser(paused, 0, 0)
    with paused.pausing("removal of an image") as wait:
        if request_ == "prune":
            removal = Asking(root, "POST", "/images/prune")
        else:
            removal = Asking(root, "DELETE", f"/images/{image}?unnamed=1")
        wait()
        assert paused.request("POST", f"/images/{image}/tag?repo={name}").status == 201
    assert removal.end().status == (200 if request_ == "prune" else 409), removal.reply
    assert paused.request("GET", f"/images/{name}/json").json()["Id"] == image


def test_an_image_without_a_name_is_removed(paused: PausedEngine, name: str) -> None:
    image = commit(paused, name)
    assert paused.request("DELETE", f"/images/{image}?unnamed=1").status == 200
    assert paused.request("GET", f"/images/{image}/json").status == 404


@pytest.mark.skipif(shutil.which("docker") is None, reason="docker is not installed")
def test_the_image_of_an_exported_cache_stays_if_a_caller_has_named_it(
    paused: PausedEngine, name: str, tmp_path: Path
) -> None:
    def unnamed() -> set[str]:
        found = paused.request("GET", "/images/json?all=1").json()
        return {image["Id"] for image in found if not image["RepoTags"]}

    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nRUN echo {name} > /x\n")
    with Registry(tmp_path / "registry") as registry:
        cache = f"type=registry,ref={registry.name}/cache:1"
        words = ["docker", "--host", paused.host, "build", "--cache-to", cache]
        words += ["-t", f"{name}-2", str(tmp_path)]
        environment = os.environ | {"DOCKER_CONFIG": str(tmp_path), "DOCKER_BUILDKIT": "1"}
        former = unnamed()
        with paused.pausing("removal of an exported cache") as wait:
            build = subprocess.Popen(
                words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
            )
            wait()
            (image,) = unnamed() - former
            assert paused.request("POST", f"/images/{image}/tag?repo={name}").status == 201
        assert build.wait(60) == 0, build.communicate()
    assert paused.request("GET", f"/images/{name}/json").json()["Id"] == image
