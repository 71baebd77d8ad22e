"""A data directory of docker is taken over, whatever is in it and whenever the run is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.docker_root import DockerRoot
from harness.engine import PROJECT, PrivateEngine
from harness.images import busybox_entries, file

ORIGIN = "io.jaula.migrated-from"
SUBNET = "172.31.250.0/24"


@pytest.fixture
def root(tmp_path: Path) -> DockerRoot:
    """A directory with a container that has a volume, a network and files of its own."""
    made = DockerRoot(tmp_path / "docker")
    image = made.image("migrated:1", busybox_entries(), [file("etc/base", b"base\n")])
    data = made.volume("migrated-data", {"k": "v"})
    (data / "plain").write_text("content\n")
    upper = made.container(
        "migrated",
        image,
        volumes={"/data": "migrated-data"},
        networks={"migrated-net": {"IPAMConfig": {"IPv4Address": "172.31.250.9"}}},
        Labels={"own": "1"},
        Cmd=["sh", "-c", "cat /etc/own /data/plain; test ! -e /etc/base"],
    )
    made.network("migrated-net", SUBNET)
    (upper / "etc").mkdir()
    (upper / "etc/own").write_text("own\n")
    os.mknod(upper / "etc/base", stat.S_IFCHR, os.makedev(0, 0))
    return made


@pytest.fixture
def clean(engine: PrivateEngine) -> Iterator[Callable[..., Any]]:
    """Remove what a test has taken over; yields the function that sends a request."""

    def request(method: str, path: str) -> Any:
        reply = engine.request(method, path)
        return reply.json() if reply.body else None

    yield request
    for each in request("GET", "/containers/json?all=1"):
        if ORIGIN in (each["Labels"] or {}):
            request("DELETE", f"/containers/{each['Id']}?force=1")
    for each in request("GET", "/volumes")["Volumes"]:
        if ORIGIN in (each["Labels"] or {}) or each["Name"].startswith("migrated"):
            request("DELETE", f"/volumes/{each['Name']}")
    for each in request("GET", "/networks"):
        if ORIGIN in (each["Labels"] or {}):
            request("DELETE", f"/networks/{each['Id']}")
    for each in request("GET", "/images/json"):
        if any(tag.startswith("migrated") for tag in each["RepoTags"] or ()):
            request("DELETE", f"/images/{each['Id']}?force=1")


def migrate(jaula: Any, root: DockerRoot, *words: str) -> dict[str, Any]:
    """Run the command with JSON and return what it prints, with its exit status."""
    done = jaula("migrate-from", "docker", "--root", str(root.path), "--yes", "--json", *words)
    assert done.stdout, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document | {"Status": done.returncode, "Text": done.stderr}


def actions(document: dict[str, Any]) -> dict[str, str]:
    return {f"{item['Kind']} {item['Name']}": item["Action"] for item in document["Items"]}


def errors(document: dict[str, Any]) -> dict[str, str]:
    return {f"{o['Kind']} {o['Name']}": o["Error"] for o in document["Outcomes"] if o["Error"]}


def test_everything_arrives_and_the_source_is_as_before(
    jaula: Any, root: DockerRoot, clean: Callable[..., Any]
) -> None:
    before = root.listing()
    document = migrate(jaula, root)
    assert document["Status"] == 0, document
    assert root.listing() == before

    container = clean("GET", "/containers/migrated/json")
    assert container["Created"] == "2026-01-02T03:04:05.678901234Z"
    assert container["State"]["Status"] == "created"
    assert container["Config"]["Labels"]["own"] == "1"
    network = container["NetworkSettings"]["Networks"]["migrated-net"]
    assert network["IPAMConfig"]["IPv4Address"] == "172.31.250.9"
    assert clean("GET", "/volumes/migrated-data")["Labels"]["k"] == "v"
    done = jaula("start", "-a", "migrated")
    assert (done.returncode, done.stdout) == (0, "own\ncontent\n"), done.stderr

    again = migrate(jaula, root)
    assert set(actions(again).values()) == {"present", "leave"}
    assert again["Outcomes"] == []


def test_a_dry_run_changes_nothing(jaula: Any, root: DockerRoot, clean: Callable[..., Any]) -> None:
    done = jaula("migrate-from", "docker", "--root", str(root.path), "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "5 to take over" not in done.stdout
    assert "4 to take over, 1 left behind; disk" in done.stdout
    assert clean("GET", "/containers/json?all=1") == []
    assert not any(v["Name"] == "migrated-data" for v in clean("GET", "/volumes")["Volumes"])


def test_without_a_terminal_or_a_flag_nothing_is_changed(
    jaula: Any, root: DockerRoot, clean: Callable[..., Any]
) -> None:
    done = jaula("migrate-from", "docker", "--root", str(root.path))
    assert done.returncode == 1
    assert "add --yes, or --dry-run" in done.stderr
    assert clean("GET", "/containers/json?all=1") == []


def test_odd_files_of_a_volume_arrive_as_they_are(
    jaula: Any, root: DockerRoot, clean: Callable[..., Any]
) -> None:
    data = root.path / "volumes/migrated-data/_data"
    (data / "a b\n\xff".encode("latin-1").decode("utf-8", "surrogateescape")).write_text("name")
    (data / ".wh.not-a-whiteout").write_text("x")
    os.link(data / "plain", data / "hard")
    os.symlink("/etc/passwd", data / "link")
    os.mkfifo(data / "fifo")
    with open(data / "sparse", "wb") as sparse:
        sparse.truncate(32 << 20)
    os.setxattr(data / "plain", "user.test", b"\0value")
    acl = bytes.fromhex("02000000010006000000000002000400e803000004000400ffffffff10000400ffffffff"
                        "20000400ffffffff")  # fmt: skip
    os.setxattr(data / "plain", "system.posix_acl_access", acl)
    os.chown(data / "plain", 1234, 5678)
    os.chmod(data / "plain", 0o4644)
    os.utime(data / "plain", ns=(1, 1_234_567_890_123_456_789))
    os.chown(data, 999, 998)
    os.chmod(data, 0o1770)
    assert migrate(jaula, root, "--only", "volumes")["Status"] == 0

    copy = Path(clean("GET", "/volumes/migrated-data")["Mountpoint"])
    assert sorted(os.listdir(os.fsencode(copy))) == sorted(os.listdir(os.fsencode(data)))
    for path in (data, *data.iterdir()):
        one, other = path.lstat(), (copy / path.relative_to(data)).lstat()
        for field in ("st_mode", "st_uid", "st_gid", "st_size", "st_nlink"):
            assert getattr(one, field) == getattr(other, field), (path, field)
        if not path.is_dir() and not path.is_symlink():
            assert one.st_mtime_ns == other.st_mtime_ns
    assert os.getxattr(copy / "plain", "user.test") == b"\0value"
    assert os.getxattr(copy / "plain", "system.posix_acl_access") == os.getxattr(
        data / "plain", "system.posix_acl_access"
    )
    assert (copy / "sparse").stat().st_blocks < 100
    assert os.readlink(copy / "link") == "/etc/passwd"


def test_a_symbolic_link_in_place_of_a_volume_is_not_followed(
    jaula: Any, root: DockerRoot, clean: Callable[..., Any], tmp_path: Path
) -> None:
    data = root.path / "volumes/migrated-data/_data"
    (data / "plain").unlink()
    data.rmdir()
    (tmp_path / "private").mkdir()
    (tmp_path / "private/key").write_text("key")
    data.symlink_to(tmp_path / "private")
    document = migrate(jaula, root)
    assert document["Status"] == 1
    assert actions(document)["volume migrated-data"] == "refuse"
    assert actions(document)["container migrated"] == "refuse"
    assert not any(v["Name"] == "migrated-data" for v in clean("GET", "/volumes")["Volumes"])


@pytest.mark.parametrize("text", ["../../../etc", "..", "a" * 64 + "/../..", ""])
def test_an_id_that_is_a_path_is_not_opened(
    jaula: Any, root: DockerRoot, clean: Callable[..., Any], text: str
) -> None:
    for path in (root.path / "image/overlay2/layerdb/sha256").glob("*/cache-id"):
        path.write_text(text)
    document = migrate(jaula, root, "--only", "images")
    assert document["Status"] == 1
    assert "cache-id is not valid" in errors(document)["image migrated:1"]


def test_an_image_that_lies_about_its_layers_is_refused(
    jaula: Any, root: DockerRoot, clean: Callable[..., Any]
) -> None:
    image = json.loads((root.path / "image/overlay2/repositories.json").read_text())
    id = image["Repositories"]["migrated"]["migrated:1"]
    (root.layer_files(id) / "etc/base").write_bytes(b"BASE\n")  # same size, other content
    document = migrate(jaula, root)
    assert document["Status"] == 1
    assert "image migrated:1" in errors(document)
    assert "was not taken over" in errors(document)["container migrated"]
    assert not any("migrated:1" in (i["RepoTags"] or ()) for i in clean("GET", "/images/json"))
    assert clean("GET", "/containers/json?all=1") == []


def test_a_changed_configuration_of_an_image_is_refused(
    jaula: Any, root: DockerRoot, clean: Callable[..., Any]
) -> None:
    path = next((root.path / "image/overlay2/imagedb/content/sha256").iterdir())
    path.write_bytes(path.read_bytes().replace(b'"sh"', b'"su"'))
    done = jaula("migrate-from", "docker", "--root", str(root.path), "--yes")
    assert done.returncode == 1
    assert "is damaged" in done.stderr


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("containers/{id}/config.v2.json", b'{"ID": 5}'),
        ("containers/{id}/hostconfig.json", b"[" * 100_000),
        ("image/overlay2/repositories.json", b'{"Repositories": {"a": {"a:1": "sha256:../.."}}}'),
        ("network/files/local-kv.db", b"\0" * 9000),
        ("volumes/metadata.db", b"\xff" * 100),
    ],
)
def test_a_document_that_is_not_valid_is_one_error(
    jaula: Any, root: DockerRoot, clean: Callable[..., Any], name: str, content: bytes
) -> None:
    id = next((root.path / "containers").iterdir()).name
    (root.path / name.format(id=id)).write_bytes(content)
    done = jaula("migrate-from", "docker", "--root", str(root.path), "--yes")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert clean("GET", "/containers/json?all=1") == []


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0\xff garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n[[[[[",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b'HTTP/1.1 500 No\r\nContent-Length: 19\r\n\r\n{"message": "\x1b[31m"}',
        b'HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\n{"DockerRootDir": "../../x"}',
    ],
)
def test_an_api_that_answers_garbage_is_one_error(
    jaula: Any, tmp_path: Path, answer: bytes
) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    client.recv(65536)
                    client.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        done = jaula("migrate-from", "docker", "--host", f"unix://{path}", "--yes")
        listener.shutdown(socket.SHUT_RDWR)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "\x1b" not in done.stderr


def test_a_name_of_another_object_is_refused_or_changed(
    jaula: Any, root: DockerRoot, clean: Callable[..., Any]
) -> None:
    jaula("volume", "create", "migrated-data")
    document = migrate(jaula, root)
    assert actions(document)["volume migrated-data"] == "refuse"
    assert actions(document)["container migrated"] == "refuse"
    assert actions(document)["image migrated:1"] == "take"
    document = migrate(jaula, root, "--on-conflict", "rename", "--suffix", "-old")
    assert document["Status"] == 0, document
    container = clean("GET", "/containers/migrated/json")
    assert [mount["Name"] for mount in container["Mounts"]] == ["migrated-data-old"]


def test_a_subnet_that_the_host_uses_is_refused_or_changed(
    jaula: Any, engine: PrivateEngine, tmp_path: Path, clean: Callable[..., Any]
) -> None:
    root = DockerRoot(tmp_path / "d")
    root.network("migrated-net", f"10.199.{engine.index}.0/25")
    document = migrate(jaula, root)
    assert "overlaps network bridge" in document["Items"][0]["Reason"]
    document = migrate(jaula, root, "--new-subnets")
    assert document["Status"] == 0
    pool = clean("GET", "/networks/migrated-net")["IPAM"]["Config"][0]["Subnet"]
    assert not pool.startswith("10.199.")


def test_containers_can_follow_what_they_need(
    jaula: Any, root: DockerRoot, clean: Callable[..., Any]
) -> None:
    jaula("volume", "create", "migrated-data")
    rename = ("--on-conflict", "rename", "--suffix", "-old")
    first = migrate(jaula, root, "--only", "images,volumes,networks", *rename)
    assert first["Status"] == 0, first
    second = migrate(jaula, root, "--only", "containers", *rename)
    assert second["Status"] == 0, second
    assert list(actions(second)) == ["container migrated", "build cache *"]
    container = clean("GET", "/containers/migrated/json")
    assert [mount["Name"] for mount in container["Mounts"]] == ["migrated-data-old"]


KILLER = """
import os, signal, sys
sys.path.insert(0, {source!r})
from jaula.features.migrate_from import migrate_from_cli as migrate_from
from jaula.cli import main
left = int(sys.argv.pop(1))
def point():
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
class Api(migrate_from._Api):
    def document(self, method, path, query=(), body=None):
        answer = super().document(method, path, query, body)
        if method != "GET":
            point()
        return answer
    def upload(self, path, query, chunks):
        def cut():
            for chunk in chunks:
                half = len(chunk) // 2
                yield chunk[:half]
                point()
                yield chunk[half:]
        answer = super().upload(path, query, cut())
        point()
        return answer
migrate_from._Api = Api
sys.exit(main.main())
"""


def test_a_killed_run_is_completed_by_the_next_one(
    jaula: Any, engine: PrivateEngine, root: DockerRoot, clean: Callable[..., Any]
) -> None:
    words = ("-H", engine.host, "migrate-from", "docker", "--root", str(root.path), "--yes", "-q")
    script = KILLER.format(source=str(PROJECT / "src"))
    step, states = 0, []
    for _ in range(60):
        done = subprocess.run(
            [sys.executable, "-c", script, str(step), *words],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        state = _state(clean)
        assert state[0] in ([], ["/migrated"], [f"/migrate-from-{_id('migrated')[:12]}"])
        if state[0] == ["/migrated"]:
            assert "own" in jaula("cp", "migrated:/etc/own", "-").stdout
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        step = step + 1 if states and state[1:] == states[-1][1:] else 0
        states.append(state)
    else:
        pytest.fail(f"the command was killed 60 times, and has reached {states[-1]}")
    assert len(states) > 6
    assert any(state[0] and state[0] != ["/migrated"] for state in states)  # an incomplete one
    assert clean("GET", "/containers/json?all=1")[0]["Names"] == ["/migrated"]
    assert set(actions(migrate(jaula, root)).values()) == {"present", "leave"}
    assert jaula("start", "-a", "migrated").stdout == "own\ncontent\n"


def _state(request: Callable[..., Any]) -> tuple[list[str], ...]:
    """Return the containers, volumes, networks and images that were taken over."""
    return (
        [each["Names"][0] for each in request("GET", "/containers/json?all=1")],
        [v["Name"] for v in request("GET", "/volumes")["Volumes"] if v["Name"] == "migrated-data"],
        [n["Name"] for n in request("GET", "/networks") if n["Name"] == "migrated-net"],
        [i["Id"] for i in request("GET", "/images/json") if "migrated:1" in i["RepoTags"]],
    )


def _id(name: str) -> str:
    from harness.docker_root import digest

    return digest(name.encode())


def test_two_runs_at_once_are_refused(
    jaula: Any, root: DockerRoot, clean: Callable[..., Any]
) -> None:
    from jaula.features.migrate_from.execute import only_once

    with only_once(clean("GET", "/info")["ID"]):
        done = jaula("migrate-from", "docker", "--root", str(root.path), "--yes")
    assert done.returncode == 1
    assert "another jaula migrate-from" in done.stderr
    assert migrate(jaula, root)["Status"] == 0
    assert not list(Path("/run/lock").glob(f"jaula-migrate-from-{_lock(clean)}*"))


def _lock(request: Callable[..., Any]) -> str:
    from harness.docker_root import digest

    return digest(request("GET", "/info")["ID"].encode())[:16]


def test_a_truncated_archive_makes_no_volume(
    engine: PrivateEngine, clean: Callable[..., Any]
) -> None:
    from harness.images import archive, directory

    whole = archive([directory("d")])
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(engine.socket))
        head = "POST /jaula/volumes/import?name=migrated-cut HTTP/1.1\r\nHost: x\r\n"
        body = b"%x\r\n%s\r\n" % (512, whole[:512])  # ends at an entry, without the last chunk
        client.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + body)
        client.shutdown(socket.SHUT_WR)
        client.recv(65536)
    assert not any(v["Name"] == "migrated-cut" for v in clean("GET", "/volumes")["Volumes"])


def test_a_container_that_has_run_takes_no_other_files(
    jaula: Any, engine: PrivateEngine, root: DockerRoot, clean: Callable[..., Any]
) -> None:
    migrate(jaula, root)
    jaula("start", "-a", "migrated")
    reply = engine.request("POST", "/jaula/containers/migrated/import?name=other")
    assert reply.status == 409
    assert "has run" in reply.json()["message"]
