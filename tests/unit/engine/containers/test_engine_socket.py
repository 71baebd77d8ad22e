"""The sockets that the engine makes for containers."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaula.engine.containers.engine_socket import FILE_NAME, EngineSockets, bind_mounts
from jaula.engine.containers.resolved_request import resolve
from jaula.spec.api_documents import ContainerCreate, HostConfig, Mount
from jaula.spec.api_params import ContainerPeer
from jaula.state.container_records import ContainerRecord, MountRecord

OWN = os.getuid(), os.getgid()


class Listener:
    """A listener that records what it serves."""

    def __init__(self, sock: socket.socket, peer: ContainerPeer) -> None:
        self.sock, self.peer = sock, peer

    def close(self) -> None:
        self.sock.close()


def record(name: str = "web", *, kind: str = "engine-socket") -> ContainerRecord:
    body = ContainerCreate(host_config=HostConfig(mounts=(Mount(type="engine-socket"),)))
    return ContainerRecord(
        id=name * 16,
        name=name,
        created=0,
        body=body,
        image="",
        mounts=(MountRecord(kind, "/run/docker.sock"),),
        engine_socket="web",
        resolved_request=resolve(body),
    )


@pytest.fixture
def sockets() -> Iterator[EngineSockets]:
    made = EngineSockets()
    yield made
    made.close_all()


def test_the_engines_own_socket_is_known_by_any_name(
    sockets: EngineSockets, tmp_path: Path
) -> None:
    own, other = tmp_path / "own.sock", tmp_path / "other.sock"
    listening = []
    for path in (own, other):
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        listening.append(sock)
    (tmp_path / "link").symlink_to("own.sock")
    os.link(own, tmp_path / "hard")
    (tmp_path / "loop").symlink_to("loop")
    sockets.paths = (str(tmp_path / "absent"), str(own))
    names = ("own.sock", "link", "hard")
    assert all(sockets.is_engine_socket(str(tmp_path / name)) for name in names)
    others = ("other.sock", "absent", "loop", "nul\0", "")
    assert not any(sockets.is_engine_socket(str(tmp_path / name)) for name in others)
    for sock in listening:
        sock.close()


def test_a_socket_belongs_to_the_user_of_the_container(
    sockets: EngineSockets, tmp_path: Path
) -> None:
    deep = tmp_path / ("d" * 100)  # a socket address has 107 bytes
    deep.mkdir()
    (deep / FILE_NAME).write_text("of an earlier start")
    sockets.open(record(), str(deep), OWN, "")
    status = (deep / FILE_NAME).stat()
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o660
    assert (status.st_uid, status.st_gid) == OWN
    assert not os.get_inheritable(sockets.descriptor(record().id))


def test_a_container_without_the_mount_has_no_socket(
    sockets: EngineSockets, tmp_path: Path
) -> None:
    sockets.open(record(kind="bind"), str(tmp_path), OWN, "")
    assert sockets.descriptor(record().id) == -1
    assert not list(tmp_path.iterdir())


def test_sockets_are_served_as_soon_as_there_is_a_server(
    sockets: EngineSockets, tmp_path: Path
) -> None:
    served: list[Listener] = []

    def listen(sock: socket.socket, peer: ContainerPeer) -> Listener:
        served.append(Listener(sock, peer))
        return served[-1]

    (tmp_path / "a").mkdir()
    sockets.open(record("aa"), str(tmp_path / "a"), OWN, "")
    assert not served
    sockets.serve(listen)
    sockets.open(record("bb"), str(tmp_path), OWN, "")
    assert [each.peer for each in served] == [
        ContainerPeer(record("aa").id, "web"),
        ContainerPeer(record("bb").id, "web"),
    ]
    sockets.close(record("aa").id)
    assert [each.sock.fileno() >= 0 for each in served] == [False, True]
    assert sockets.descriptor(record("aa").id) == -1
    sockets.close_all()
    assert served[1].sock.fileno() == -1


def test_a_failed_bind_leaves_nothing_open(sockets: EngineSockets, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(OSError, match="directory"):
        sockets.open(record(), str(tmp_path), OWN, "")
    assert len(os.listdir("/proc/self/fd")) == before
    assert sockets.descriptor(record().id) == -1


def test_only_the_engine_socket_becomes_a_bind_mount() -> None:
    mounts = (MountRecord("bind", "/a", source="/a"), *record().mounts)
    bind, own = bind_mounts(mounts, "/run/j/engine.sock")
    assert bind == mounts[0]
    assert (own.type, own.source, own.mapped) == ("bind", "/run/j/engine.sock", True)
