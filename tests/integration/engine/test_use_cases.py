"""Use cases of containers, over the engine's socket."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.engine import PrivateEngine


@pytest.fixture
def make(engine: PrivateEngine, busybox: str) -> Iterator[Callable[..., str]]:
    """Make a container of busybox; the answer is its id. All are removed at the end."""
    made: list[str] = []

    def create(*cmd: str, host: dict[str, Any] | None = None, **body: Any) -> str:
        document = {"Image": busybox, "Cmd": list(cmd), "HostConfig": host or {}, **body}
        answer = engine.request("POST", "/containers/create", document)
        assert answer.status == 201, answer.body
        made.append(answer.json()["Id"])
        return made[-1]

    yield create
    for container in made:
        engine.request("DELETE", f"/containers/{container}?force=1&v=1")


def start(engine: PrivateEngine, container: str) -> None:
    answer = engine.request("POST", f"/containers/{container}/start")
    assert answer.status == 204, answer.body


def ran(engine: PrivateEngine, container: str) -> tuple[int, str]:
    """Start it, wait for its end: exit code and output."""
    start(engine, container)
    code = engine.request("POST", f"/containers/{container}/wait").json()["StatusCode"]
    log = engine.request("GET", f"/containers/{container}/logs?stdout=1&stderr=1").body
    text = b""
    while log:  # frames: stream, three zeros, length
        size = int.from_bytes(log[4:8], "big")
        text += log[8 : 8 + size]
        log = log[8 + size :]
    return code, text.decode()


def inspect(engine: PrivateEngine, container: str) -> dict[str, Any]:
    document: dict[str, Any] = engine.request("GET", f"/containers/{container}/json").json()
    return document


@pytest.mark.parametrize(
    "body",
    [
        {"HostConfig": {"Memory": 1}},
        {"HostConfig": {"NanoCpus": 10**15}},
        {"HostConfig": {"CapAdd": ["NONSENSE"]}},
        {"HostConfig": {"Binds": ["relative/path:/x"]}},
        {"HostConfig": {"NetworkMode": "container:nobody"}},
        {"HostConfig": {"LogConfig": {"Type": "nonsense"}}},
        {"HostConfig": {"Sysctls": {"kernel.panic": "1"}}},
        {"HostConfig": {"Devices": [{"PathOnHost": "/etc/passwd"}]}},
        {"WorkingDir": "/proc/self/fd/3"},
        {"Hostname": "not a name"},
        {"Cmd": [], "Entrypoint": [""]},
    ],
)
def test_a_request_that_is_refused_leaves_nothing(
    engine: PrivateEngine, busybox: str, body: dict[str, Any]
) -> None:
    before = sorted((engine.root / "lib" / "containers").iterdir())
    volumes = engine.request("GET", "/volumes").body
    name = f"n{uuid.uuid4().hex[:8]}"
    document = {"Image": busybox, "Cmd": ["true"], **body}
    answer = engine.request("POST", f"/containers/create?name={name}", document)
    assert answer.status == 400, answer.body
    assert answer.json()["message"]
    assert sorted((engine.root / "lib" / "containers").iterdir()) == before
    assert engine.request("GET", "/volumes").body == volumes
    document = {"Image": busybox, "Cmd": ["true"]}
    again = engine.request("POST", f"/containers/create?name={name}", document)
    assert again.status == 201, "the name was not given back"
    engine.request("DELETE", f"/containers/{name}")


def test_a_missing_program_is_recorded_and_releases_everything(
    engine: PrivateEngine, make: Callable[..., str]
) -> None:
    container = make("no-such-program")
    answer = engine.request("POST", f"/containers/{container}/start")
    assert answer.status == 400
    assert "executable file not found in $PATH" in answer.json()["message"]
    state = inspect(engine, container)["State"]
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("created", 127, 0)
    assert "not found" in state["Error"]
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{engine.cgroup_parent}/{container}"))


def test_a_container_runs_again_and_keeps_its_files(
    engine: PrivateEngine, make: Callable[..., str]
) -> None:
    container = make("sh", "-c", "cat /mark; echo again > /mark")
    assert ran(engine, container)[0] == 0
    code, output = ran(engine, container)
    assert code == 0
    assert output.endswith("again\n")


def test_two_containers_never_have_the_same_ids(
    engine: PrivateEngine, make: Callable[..., str]
) -> None:
    pids = []
    for _ in range(3):
        container = make("sleep", "600")
        start(engine, container)
        pids.append(inspect(engine, container)["State"]["Pid"])
    maps = [Path(f"/proc/{pid}/uid_map").read_text().split()[1] for pid in pids]
    assert len(set(maps)) == 3
    assert all(int(first) >= 1_000_000_000 for first in maps)


def test_a_new_volume_gets_the_images_content(
    engine: PrivateEngine, make: Callable[..., str]
) -> None:
    volume = f"jlt{uuid.uuid4().hex[:8]}"
    container = make("ls", "/bin/busybox", host={"Binds": [f"{volume}:/bin"]})
    code, output = ran(engine, container)
    assert (code, output) == (0, "/bin/busybox\n")
    assert engine.request("DELETE", f"/volumes/{volume}").status == 409
    engine.request("DELETE", f"/containers/{container}")
    assert engine.request("DELETE", f"/volumes/{volume}").status == 204


def test_anonymous_volumes_are_removed_with_their_container_on_request(
    engine: PrivateEngine, make: Callable[..., str]
) -> None:
    def volumes() -> set[str]:
        return {v["Name"] for v in engine.request("GET", "/volumes").json()["Volumes"]}

    before = volumes()
    kept = make("true", host={"Binds": ["/data"]})
    gone = make("true", host={"Binds": ["/data"]})
    assert len(volumes() - before) == 2
    engine.request("DELETE", f"/containers/{gone}?v=1")
    engine.request("DELETE", f"/containers/{kept}")
    (left,) = volumes() - before
    engine.request("DELETE", f"/volumes/{left}")


def test_joining_a_namespace_joins_the_user_namespace_too(
    engine: PrivateEngine, make: Callable[..., str]
) -> None:
    lender = make("sleep", "600", host={"IpcMode": "shareable"})
    start(engine, lender)
    mode = f"container:{lender}"
    guest = make("sleep", "600", host={"NetworkMode": mode, "PidMode": mode, "IpcMode": mode})
    start(engine, guest)
    first = Path(f"/proc/{inspect(engine, lender)['State']['Pid']}/ns")
    second = Path(f"/proc/{inspect(engine, guest)['State']['Pid']}/ns")
    for kind in ("net", "pid", "ipc", "user"):
        assert (first / kind).readlink() == (second / kind).readlink(), kind
    for kind in ("mnt", "uts", "cgroup"):
        assert (first / kind).readlink() != (second / kind).readlink(), kind


def test_waiting_for_removal_tells_the_exit_code(
    engine: PrivateEngine, make: Callable[..., str]
) -> None:
    import threading

    container = make("sh", "-c", "exit 9", host={"AutoRemove": True})
    answers: list[Any] = []
    waiting = threading.Thread(
        target=lambda: answers.append(
            engine.request("POST", f"/containers/{container}/wait?condition=removed").json()
        )
    )
    waiting.start()
    start(engine, container)
    waiting.join(20)
    assert answers == [{"StatusCode": 9}]
    assert engine.request("GET", f"/containers/{container}/json").status == 404


def test_a_policy_starts_it_again_until_its_count_is_used_up(
    engine: PrivateEngine, make: Callable[..., str]
) -> None:
    from harness import containers

    policy = {"Name": "on-failure", "MaximumRetryCount": 2}
    container = make("false", host={"RestartPolicy": policy})
    start(engine, container)
    containers.eventually(
        lambda: inspect(engine, container)["State"]["Status"] == "exited", "it gives up"
    )
    document = inspect(engine, container)
    assert document["RestartCount"] == 2
    assert document["State"]["ExitCode"] == 1


def test_stopped_by_a_person_it_is_not_started_again(
    engine: PrivateEngine, make: Callable[..., str]
) -> None:
    container = make("sleep", "600", host={"RestartPolicy": {"Name": "always"}})
    start(engine, container)
    assert engine.request("POST", f"/containers/{container}/stop?t=0").status == 204
    assert inspect(engine, container)["State"]["Status"] == "exited"
    assert engine.request("POST", f"/containers/{container}/stop").status == 304


def test_a_paused_container_refuses_exec_and_can_be_killed(
    engine: PrivateEngine, make: Callable[..., str]
) -> None:
    container = make("sleep", "600")
    start(engine, container)
    assert engine.request("POST", f"/containers/{container}/pause").status == 204
    body = {"Cmd": ["true"]}
    assert engine.request("POST", f"/containers/{container}/exec", body).status == 409
    assert engine.request("POST", f"/containers/{container}/kill").status == 204
    result = engine.request("POST", f"/containers/{container}/wait").json()
    assert result["StatusCode"] == 137


@pytest.mark.parametrize("program", ["docker", "jaula"])
def test_processes_are_limited_by_default(
    engine: PrivateEngine, busybox: str, program: str
) -> None:
    for flags, limit in (((), "4096"), (("--pids-limit", "-1"), "max")):
        words = ("sh", "-c", "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null")
        done = engine.cli(program, "run", "--rm", *flags, busybox, *words)
        assert done.stdout.strip() == limit, done.stderr


def test_who_killed_it_may_remove_it_at_once(
    engine: PrivateEngine, make: Callable[..., str]
) -> None:
    for _ in range(5):
        container = make("sleep", "600")
        start(engine, container)
        assert engine.request("POST", f"/containers/{container}/kill").status == 204
        assert engine.request("DELETE", f"/containers/{container}").status == 204


def test_limits_are_changed_while_it_runs(engine: PrivateEngine, make: Callable[..., str]) -> None:
    container = make("sleep", "600", host={"Memory": 64 << 20})
    start(engine, container)
    body = {"Memory": 96 << 20, "PidsLimit": 33}
    assert engine.request("POST", f"/containers/{container}/update", body).status == 200
    stats = engine.request("GET", f"/containers/{container}/stats?stream=0&one-shot=1").json()
    assert stats["memory_stats"]["limit"] == 96 << 20
    assert stats["pids_stats"]["limit"] == 33
    low = engine.request("POST", f"/containers/{container}/update", {"Memory": 1})
    assert low.status == 400


def test_the_spec_in_effect_can_be_read(engine: PrivateEngine, make: Callable[..., str]) -> None:
    container = make("sleep", "600")
    assert engine.request("GET", f"/jaula/containers/{container}/spec").status == 409
    start(engine, container)
    spec = engine.request("GET", f"/jaula/containers/{container}/spec").json()
    assert spec["linux"]["cgroupsPath"] == f"/{engine.cgroup_parent}/{container}"
    assert {"type": "user"} in spec["linux"]["namespaces"]
