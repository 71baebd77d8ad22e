"""Secrets and configs in containers: paths, owners, and where the content is not."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import load_image
from harness import containers
from harness.engine import PrivateEngine

VALUE = "hunter2-of-the-test"


@pytest.fixture
def made(engine: PrivateEngine) -> Iterator[Callable[..., str]]:
    """Make a secret or config of the test's own; its name."""
    found: list[tuple[str, str]] = []

    def make(kind: str = "secret", value: str = VALUE, **more: object) -> str:
        name = containers.unique(kind)
        body = {"Name": name, "Data": base64.b64encode(value.encode()).decode()} | more
        reply = engine.request("POST", f"/{kind}s/create", body)
        assert reply.status == 201, reply.body
        found.append((kind, name))
        return name

    yield make
    for kind, name in found:
        assert engine.request("DELETE", f"/{kind}s/{name}").status in (204, 404)


def run(engine: PrivateEngine, image: str, *words: str) -> str:
    done = engine.cli("jaula", "run", "--rm", *words[:-1], image, "sh", "-c", words[-1])
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_they_are_files_in_memory_with_owner_and_mode(
    engine: PrivateEngine, busybox: str, made: Callable[..., str]
) -> None:
    db, site = made(), made("config", "port=1")
    out = run(
        engine,
        busybox,
        *("--secret", db, "--secret", f"{db},target=own,mode=0400,uid=1000,gid=7"),
        *("--secret", f"{db},target=/etc/deep/pw", "--config", f"{site},target=/etc/site.conf"),
        f"cat /run/secrets/{db} /etc/deep/pw; echo; stat -c '%u %g %a' /run/secrets/own;"
        "stat -f -c %T /run/secrets /etc/deep/pw; cat /etc/site.conf; echo;"
        "grep -c ' /run/secrets tmpfs ro,nosuid,nodev,noexec' /proc/mounts;"
        "touch /run/secrets/x 2>&1; id -u;"
        "su -s /bin/sh nobody -c 'cat /run/secrets/own' 2>&1; true",
    )
    lines = out.splitlines()
    assert lines[0] == VALUE * 2
    assert lines[1:6] == ["1000 7 400", "tmpfs", "tmpfs", "port=1", "1"]
    assert "Read-only file system" in lines[6]
    assert "Permission denied" in lines[8]


@pytest.mark.parametrize("flags", [("--userns=host",), ("--read-only",), ("--user", "1000:1000")])
def test_secrets_are_mounted_in_every_kind_of_container(
    engine: PrivateEngine, busybox: str, made: Callable[..., str], flags: tuple[str, ...]
) -> None:
    db = made()
    command = f"cat /run/secrets/{db}"
    words = (*flags, *(("--tmpfs", "/run") if "--read-only" in flags else ()))
    assert run(engine, busybox, *words, "--secret", db, command) == VALUE


def test_they_are_nowhere_else(
    engine: PrivateEngine, busybox: str, made: Callable[..., str], tmp_path: Path
) -> None:
    db = made()
    flags = ("--secret", db, "--secret", f"{db},target=/etc/pw")
    with containers.running(engine, busybox, "sleep", "600", flags=flags) as name:
        seen = [
            engine.cli("jaula", "inspect", name).stdout,
            engine.cli("jaula", "secret", "inspect", db).stdout,
            engine.cli("jaula", "exec", name, "env").stdout,
            engine.log_tail(1 << 20),
        ]
        archive = tmp_path / "x.tar"
        for words in (("export", "-o", str(archive), name), ("cp", f"{name}:/", str(tmp_path))):
            done = engine.cli("jaula", *words)
            assert done.returncode == 0, done.stderr
        refused = engine.cli("jaula", "cp", f"{name}:/run/secrets/{db}", "-")
        assert "which cannot be copied" in refused.stderr
        assert "which cannot be copied" in engine.cli("jaula", "cp", f"{name}:/etc/pw", "-").stderr
        image = engine.cli("jaula", "commit", name).stdout.strip()
        saved = tmp_path / "image.tar"
        assert engine.cli("jaula", "save", "-o", str(saved), image).returncode == 0
        engine.cli("jaula", "rmi", image)
        # Not in the host's mounts either, but inside.
        assert str(engine.run) not in Path("/proc/1/mounts").read_text()
        assert engine.cli("jaula", "exec", name, "cat", "/etc/pw").stdout == VALUE
    assert not any(VALUE in text for text in seen)
    for place in (tmp_path, engine.root, engine.run):
        found = subprocess.run(
            ["grep", "-rlF", "--devices=skip", VALUE, str(place)], capture_output=True, text=True
        )
        assert found.stdout == ""


def test_a_secret_in_use_cannot_be_removed_and_its_name_is_unique(
    engine: PrivateEngine, busybox: str, made: Callable[..., str]
) -> None:
    db = made()
    with containers.running(engine, busybox, "sleep", "600", flags=("--secret", db)) as name:
        done = engine.cli("jaula", "secret", "rm", db)
        assert done.returncode == 1
        assert f"secret '{db}' is in use by the following containers: {name}" in done.stderr
    again = engine.request("POST", "/secrets/create", {"Name": db, "Data": "eA=="})
    assert (again.status, again.json()["message"]) == (409, f"secret {db} already exists")


@pytest.mark.parametrize("kind", ["secret", "config"])
def test_one_is_replaced_only_while_it_has_its_name(
    engine: PrivateEngine, made: Callable[..., str], kind: str
) -> None:
    name = made(kind)
    first = engine.request("GET", f"/{kind}s/{name}").json()["ID"]
    body = {"Name": name, "Data": "bmV3"}
    create = f"/{kind}s/create"
    too_large = body | {"Data": base64.b64encode(bytes(1 << 20)).decode()}
    assert engine.request("POST", f"{create}?replace={first}", too_large).status == 400
    other = engine.request("POST", f"{create}?replace={first}", body | {"Name": "other"})
    assert other.status == 409
    assert engine.request("GET", f"/{kind}s/{name}").json()["ID"] == first
    reply = engine.request("POST", f"{create}?replace={first}", body)
    assert reply.status == 201, reply.body
    second = reply.json()["ID"]
    assert second != first
    assert [each["ID"] for each in engine.request("GET", f"/{kind}s").json()] == [second]
    again = engine.request("POST", f"{create}?replace={first}", body)
    assert again.status == 409
    assert "was replaced or removed by another request meanwhile" in again.json()["message"]
    assert engine.request("GET", f"/{kind}s/{name}").json()["ID"] == second


def test_one_that_a_container_has_is_not_replaced(
    engine: PrivateEngine, busybox: str, made: Callable[..., str]
) -> None:
    db = made()
    id = engine.request("GET", f"/secrets/{db}").json()["ID"]
    with containers.running(engine, busybox, "sleep", "600", flags=("--secret", db)) as name:
        body = {"Name": db, "Data": "bmV3"}
        reply = engine.request("POST", f"/secrets/create?replace={id}", body)
        assert (reply.status, name in reply.json()["message"]) == (409, True)
        assert engine.cli("jaula", "exec", name, "cat", f"/run/secrets/{db}").stdout == VALUE


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--secret", "nix-of-the-kind"), "secret nix-of-the-kind not found"),
        (("--config", "nix-of-the-kind"), "config nix-of-the-kind not found"),
        (("--secret", "{db},target=a/b"), "must be a name or an absolute path"),
        (("--secret", "{db},target=.."), "must be a name or an absolute path"),
        (("--secret", "{db},target=/proc/sys/x"), "is in /proc"),
        (("--secret", "{db},uid=root"), "is not a valid id inside a container"),
        (("--secret", "{db},uid=65536"), "is not a valid id inside a container"),
        (("--secret", "{db},mode=4755"), "has more than permission bits"),
        (("--secret", "{db}", "--secret", "{db}"), "Duplicate mount point: /run/secrets/{db}"),
        (("--secret", "{db},target=/m", "-v", "/m"), "Duplicate mount point: /m"),
        (("--secret", "{db},target=/m", "--tmpfs", "/m"), "Duplicate mount point: /m"),
    ],
)
def test_an_invalid_reference_is_one_clear_error(
    engine: PrivateEngine,
    busybox: str,
    made: Callable[..., str],
    words: tuple[str, ...],
    message: str,
) -> None:
    db = made()
    given = [word.replace("{db}", db) for word in words]
    done = engine.cli("jaula", "run", "--rm", *given, busybox, "true")
    assert done.returncode == 125
    assert message.replace("{db}", db) in done.stderr


def test_secrets_coexist_with_requested_mounts(
    engine: PrivateEngine, busybox: str, made: Callable[..., str], tmp_path: Path
) -> None:
    db = made()
    (tmp_path / "own").write_text("of the host")
    for words in (
        ("-v", f"{tmp_path}/own:/run/secrets/own"),
        ("-v", f"{tmp_path}:/run/secrets"),
    ):
        script = (
            f"cat /run/secrets/own /run/secrets/{db}; grep -c 'secrets/{db} tmpfs' /proc/mounts"
        )
        assert run(engine, busybox, *words, "--secret", db, script) == f"of the host{VALUE}1\n"


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"Name": "", "Data": "eA=="}, 400, "invalid name"),
        ({"Name": "a/b", "Data": "eA=="}, 400, "invalid name"),
        ({"Name": "x" * 65, "Data": "eA=="}, 400, "invalid name"),
        ({"Name": "empty"}, 400, "larger than 0 and less than 512000"),
        ({"Name": "large", "Data": base64.b64encode(bytes(512000)).decode()}, 400, "less than"),
        ({"Name": "odd", "Data": "###"}, 400, "not base64"),
        ({"Name": "d", "Data": "eA==", "Driver": {"Name": "vault"}}, 400, "driver 'vault'"),
        ({"Name": "t", "Data": "eA==", "Templating": {"Name": "golang"}}, 400, "templates"),
    ],
)
def test_requests_that_cannot_be(
    engine: PrivateEngine, body: dict[str, object], status: int, message: str
) -> None:
    reply = engine.request("POST", "/secrets/create", body)
    assert reply.status == status
    assert message in reply.json()["message"]


@pytest.mark.needs("docker")
def test_dockers_commands_have_them(
    engine: PrivateEngine, busybox: str, made: Callable[..., str]
) -> None:
    db, site = made(Labels={"a": "b"}), made("config", "port=1")
    for kind, name in (("secret", db), ("config", site)):
        assert name in engine.cli("docker", kind, "ls").stdout
        filtered = engine.cli("docker", kind, "ls", "-q", "--filter", "label=a=b").stdout
        assert bool(filtered) == (kind == "secret")
        shown = json.loads(engine.cli("docker", kind, "inspect", name).stdout)[0]
        assert shown["Spec"]["Name"] == name
        assert ("Data" in shown["Spec"]) == (kind == "config")
        other = containers.unique("by-docker")
        done = engine.cli("docker", kind, "create", other, "-", input="content")
        assert done.returncode == 0, done.stderr
        assert engine.cli("docker", kind, "rm", other).stdout == f"{other}\n"
        gone = engine.cli("docker", kind, "inspect", other)
        assert gone.returncode == 1
        assert "not found" in gone.stderr
    update = engine.request("GET", f"/secrets/{db}").json()
    path = f"/secrets/{db}/update?version={update['Version']['Index']}"
    assert engine.request("POST", path, {"Labels": {"c": "d"}}).status == 200
    assert (
        engine.request("POST", path, {"Labels": {}}).json()["message"] == "update out of sequence"
    )
    assert engine.request("GET", f"/secrets/{db}").json()["Spec"]["Labels"] == {"c": "d"}
    for data, status in ((VALUE, 200), (f"{VALUE}x", 400)):
        index = engine.request("GET", f"/secrets/{db}").json()["Version"]["Index"]
        body = {"Labels": {}, "Data": base64.b64encode(data.encode()).decode()}
        path = f"/secrets/{db}/update?version={index}"
        assert engine.request("POST", path, body).status == status, data


def test_the_next_engine_mounts_the_secrets_again(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    engine = new_engine()
    image = load_image(engine, "busybox")
    made = engine.cli("jaula", "secret", "create", "db", "-", input=VALUE)
    assert made.returncode == 0, made.stderr
    flags = ("--secret", "db", "--name", "box")
    assert engine.cli("jaula", "run", "-d", *flags, image, "sleep", "600").returncode == 0
    engine.kill()
    engine.start()
    show = ("exec", "box", "cat", "/run/secrets/db")
    assert engine.cli("jaula", *show).stdout == VALUE
    assert engine.cli("jaula", "restart", "-t", "0", "box").returncode == 0
    assert engine.cli("jaula", *show).stdout == VALUE
    key = engine.root / "lib" / "secrets.key"
    key.rename(key.with_suffix(".away"))
    done = engine.cli("jaula", "restart", "-t", "0", "box")
    assert done.returncode == 1
    assert "secrets.key is missing" in done.stderr
    key.with_suffix(".away").rename(key)
    assert engine.cli("jaula", "start", "box").returncode == 0
