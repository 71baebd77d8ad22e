"""User namespaces: auto, keep-id, container:X, and ids that no container shares by default."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import load_image
from harness import containers
from harness.api_user import ApiUser
from harness.engine import PrivateEngine

USER, GROUP = 54321, 54322


def uid_map(engine: PrivateEngine, name: str, kind: str = "uid") -> list[list[int]]:
    text = Path(f"/proc/{containers.pid(engine, name)}/{kind}_map").read_text()
    return [[int(word) for word in line.split()] for line in text.splitlines()]


def namespace(engine: PrivateEngine, name: str, kind: str = "user") -> str:
    return os.readlink(f"/proc/{containers.pid(engine, name)}/ns/{kind}")


def test_auto_is_a_range_of_its_own(engine: PrivateEngine, busybox: str) -> None:
    with (
        containers.running(engine, busybox, flags=("--userns", "auto")) as one,
        containers.running(engine, busybox) as two,
    ):
        ((inside, first, size),) = uid_map(engine, one)
        ((_, second, _),) = uid_map(engine, two)
    assert (inside, size) == (0, 65536)
    assert abs(first - second) >= 65536


def test_a_container_joins_anothers_user_namespace(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox) as lender:
        flags = ("--userns", f"container:{lender}")
        with containers.running(engine, busybox, flags=flags) as joiner:
            assert namespace(engine, joiner) == namespace(engine, lender)
            assert uid_map(engine, joiner) == uid_map(engine, lender)
            for kind in ("pid", "net", "ipc", "uts", "mnt"):
                assert namespace(engine, joiner, kind) != namespace(engine, lender, kind)
            seen = engine.cli("jaula", "exec", joiner, "sh", "-c", "id -u; cat /proc/net/dev")
            assert seen.stdout.split()[0] == "0"
            assert "eth0:" in seen.stdout
            links = engine.cli("jaula", "exec", joiner, "ls", "/sys/class/net").stdout
            assert links.split() == ["eth0", "lo"]  # its own network, not the host's
            assert engine.cli("jaula", "verify", joiner).returncode == 0


def test_a_range_is_used_until_the_last_one_of_it_has_ended(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    """Two in all: the lender ends, the joiner goes on with its ids, nobody else gets them."""
    private = new_engine("--subid-count", str(2 * 65536), "--sandbox-pool", "0")
    load_image(private, "busybox")
    alone = ("--network", "none")
    with containers.running(private, "busybox", flags=alone) as lender:
        (_, first, _) = uid_map(private, lender)[0]
        joining = (*alone, "--userns", f"container:{lender}")
        with containers.running(private, "busybox", flags=joining) as joiner:
            private.cli("jaula", "rm", "-f", lender)
            for _ in range(4):
                with containers.running(private, "busybox", flags=alone) as other:
                    assert uid_map(private, other)[0][1] != first
            private.kill()
            private.start()
            with containers.running(private, "busybox", flags=alone) as other:
                assert uid_map(private, other)[0][1] != first
                assert uid_map(private, joiner)[0][1] == first
                full = private.cli("jaula", "run", "--rm", *alone, "busybox", "true")
                assert full.returncode == 125
                assert "all 2 ranges of 65536 host ids" in full.stderr
                assert "--subid-count" in full.stderr
        with (
            containers.running(private, "busybox", flags=alone),
            containers.running(private, "busybox", flags=alone),
        ):
            pass  # both ranges are free again


def test_a_user_namespace_that_is_the_hosts_cannot_be_joined(
    engine: PrivateEngine, busybox: str
) -> None:
    with containers.running(engine, busybox, flags=("--userns", "host")) as lender:
        flags = ("--userns", f"container:{lender}")
        done = engine.cli("jaula", "run", "--rm", *flags, busybox, "true")
    assert done.returncode == 125
    assert "has no user namespace of its own to join" in done.stderr


@pytest.mark.parametrize("mode", ["", "container:", "nobody", "ns:/proc/1/ns/user"])
def test_another_mode_is_refused(engine: PrivateEngine, busybox: str, mode: str) -> None:
    body = {"Image": busybox, "HostConfig": {"UsernsMode": mode or "x"}}
    assert engine.request("POST", "/containers/create", body).status == 400


@pytest.mark.parametrize("flags", [("--pid",), ("--network",), ("--userns",)])
def test_namespaces_of_a_container_that_has_ended_are_not_joined(
    engine: PrivateEngine, busybox: str, flags: tuple[str, ...]
) -> None:
    name = containers.unique("ended")
    engine.cli("jaula", "run", "--name", name, busybox, "true")
    done = engine.cli("jaula", "run", "--rm", *flags, f"container:{name}", busybox, "true")
    engine.cli("jaula", "rm", name)
    assert done.returncode == 125
    assert "non running container" in done.stderr


def test_privileged_ends_at_the_containers_border(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox, flags=("--privileged",)) as name:
        assert uid_map(engine, name)[0][1] != 0
        tried = (
            "mkdir /m; mount -t tmpfs x /m && echo mounted; mknod /d b 7 0 && head -c 1 /d;"
            " cat /proc/sys/kernel/panic > /proc/sys/kernel/panic"
        )
        done = engine.cli("jaula", "exec", name, "sh", "-c", tried)
    assert "mounted" in done.stdout
    assert "Permission denied" in done.stderr
    assert done.returncode != 0


# -- keep-id ---------------------------------------------------------------------------------------


@pytest.fixture
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("mine")
    os.chown(place, USER, GROUP)
    return place


@pytest.fixture
def keeper(
    new_engine: Callable[..., PrivateEngine], tmp_path: Path, ground: Path
) -> tuple[PrivateEngine, ApiUser]:
    policy = tmp_path / "policy.toml"
    policy.write_text(f'[user.{USER}]\naccess = "run"\nhost-mounts = ["{ground}"]\n')
    private = new_engine("--policy", str(policy))
    private.run.chmod(0o711)
    private.socket.chmod(0o666)
    load_image(private, "busybox")
    return private, ApiUser(private, USER, GROUP)


def test_keep_id_gives_the_client_one_id_inside_and_outside(
    keeper: tuple[PrivateEngine, ApiUser], ground: Path
) -> None:
    private, visitor = keeper
    binds = [f"{ground}:/mine"]
    reply = visitor.create("busybox", "kept", UsernsMode="keep-id", Binds=binds)
    assert reply.status == 201, reply
    assert visitor.request("POST", "/containers/kept/start").status == 204
    facts = containers.status(containers.pid(private, "kept"))
    assert facts["Uid"].split() == [str(USER)] * 4
    assert facts["Gid"].split() == [str(GROUP)] * 4
    rows = uid_map(private, "kept")
    start = rows[0][1]
    assert rows == [
        [0, start, USER],
        [USER, USER, 1],
        [USER + 1, start + USER + 1, 65535 - USER],
    ]
    assert [USER + 1, USER + 1, 1] in uid_map(private, "kept", "gid")
    for user, owner in (("", USER), ("0", 0)):
        words = ("exec", *(("-u", user) if user else ()), "kept", "sh", "-c")
        path = f"/mine/by-{user}"
        done = private.cli("jaula", *words, f"touch {path}; id -u")
        assert done.stdout.strip() == str(owner)
    assert (ground / "by-").stat().st_uid == USER
    assert not (ground / "by-0").exists()  # root inside is not the person, who alone has rights
    assert private.cli("jaula", "verify", "kept").returncode == 0


def test_root_cannot_keep_its_id(engine: PrivateEngine, busybox: str) -> None:
    done = engine.cli("jaula", "run", "--rm", "--userns", "keep-id", busybox, "true")
    assert done.returncode == 125
    assert "for ordinary users" in done.stderr


def test_the_owner_and_the_mode_are_in_inspect(keeper: tuple[PrivateEngine, ApiUser]) -> None:
    _, visitor = keeper
    visitor.create("busybox", "kept", UsernsMode="keep-id", NetworkMode="none")
    document = json.loads(visitor.request("GET", "/containers/kept/json").body)
    assert document["Owner"] == str(USER)
    assert document["HostConfig"]["UsernsMode"] == "keep-id"
    assert document["Config"]["User"] == f"{USER}:{GROUP}"
