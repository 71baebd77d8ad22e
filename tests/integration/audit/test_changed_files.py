"""Host name, set-user-ID files and bind sources of a running container."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import containers
from harness.audits import Audited
from harness.engine import PrivateEngine
from jaula.features.verify.model.result import Verdict


@pytest.fixture(scope="module")
def shared(engine: PrivateEngine, busybox: str) -> Iterator[Audited]:
    """A container whose program is not root."""
    with containers.running(engine, busybox, flags=("--user", "1000")) as name:
        yield Audited(engine, name)


def test_a_changed_host_name_fails(shared: Audited) -> None:
    shared.enter("u", "hostname", "other")
    try:
        assert shared.failing() == {"host name": "other (none)"}
    finally:
        shared.enter("u", "hostname", shared.inspect["Config"]["Hostname"])
    assert shared.failing() == {}, shared.explain()


def test_the_host_name_of_the_host_has_no_row(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox, flags=("--uts", "host")) as name:
        assert "host name" not in Audited(engine, name).rows()


@pytest.mark.parametrize("mode", [0o4755, 0o2755])
def test_a_set_user_id_file_in_the_writable_layer_fails(shared: Audited, mode: int) -> None:
    file = Path(shared.inspect["GraphDriver"]["Data"]["UpperDir"], "tool")
    file.write_bytes(b"x")
    file.chmod(mode)
    try:
        assert shared.failing() == {"set-user-id files": "/tool"}
    finally:
        file.unlink()
    assert shared.failing() == {}, shared.explain()


def test_a_file_with_capabilities_in_the_writable_layer_fails(shared: Audited) -> None:
    file = Path(shared.inspect["GraphDriver"]["Data"]["UpperDir"], "tool")
    file.write_bytes(b"x")
    file.chmod(0o755)
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    try:
        os.setxattr(file, "security.capability", capability)
        assert shared.failing() == {"set-user-id files": "/tool"}
    finally:
        file.unlink()


@pytest.mark.parametrize(
    ("flags", "verdict"),
    [
        ((), Verdict.FAILS),
        (("--security-opt", "no-new-privileges"), Verdict.RELAXED),
        (("--privileged",), Verdict.RELAXED),
    ],
    ids=["default", "no new privileges", "privileged"],
)
def test_set_user_id_files_of_the_container_s_root_fail_unless_a_flag_permits_them(
    engine: PrivateEngine, busybox: str, flags: tuple[str, ...], verdict: Verdict
) -> None:
    """Another program could have added them to the layer."""
    script = "touch /tmp/tool; chmod 4755 /tmp/tool; sleep 600"
    with containers.running(engine, busybox, "sh", "-c", script, flags=flags) as name:
        row = lambda: Audited(engine, name).rows()["set-user-id files"]  # noqa: E731
        containers.eventually(lambda: row().effective == "/tmp/tool", "the file is found")
        assert row().verdict is verdict


@pytest.mark.parametrize("mode", [0o4755, 0o2755])
@pytest.mark.parametrize("user", ["0", "1000"])
def test_a_set_user_id_file_in_a_volume_fails(
    engine: PrivateEngine, busybox: str, mode: int, user: str
) -> None:
    flags = ("-v", "/data", "--user", user)
    with containers.running(engine, busybox, flags=flags) as name:
        audited = Audited(engine, name)
        assert audited.rows()["set-user-id volumes"].verdict is Verdict.HOLDS
        (mount,) = audited.inspect["Mounts"]
        file = Path(mount["Source"], "below", "tool")
        file.parent.mkdir()
        file.write_bytes(b"x")
        file.chmod(mode)
        assert audited.failing() == {"set-user-id volumes": "/data/below/tool"}


@pytest.mark.parametrize("source", ["/etc/shadow", "/etc/ssh", "STATE", "STATE/jaula.db"])
def test_a_bound_secret_of_the_host_is_named(
    engine: PrivateEngine, busybox: str, source: str
) -> None:
    path = source.replace("STATE", f"{engine.root}/lib")
    if not os.path.exists(path):
        pytest.skip(f"this machine has no {path}")
    with containers.running(engine, busybox, flags=("-v", f"{path}:/b:ro")) as name:
        row = Audited(engine, name).rows()["host secrets"]
    assert row.verdict is Verdict.RELAXED
    assert row.requested == f"-v {os.path.realpath(path)}:/b"


def test_a_directory_with_a_control_socket_of_any_engine_is_named(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    with (
        socket.socket(socket.AF_UNIX) as listener,
        containers.running(engine, busybox, flags=("-v", f"{tmp_path}:/b")) as name,
    ):
        assert Audited(engine, name).rows()["control sockets"].verdict is Verdict.HOLDS
        listener.bind(str(tmp_path / "docker.sock"))
        assert Audited(engine, name).rows()["control sockets"].verdict is Verdict.RELAXED


@pytest.mark.parametrize(
    "path",
    [
        "/etc/cron.d",
        "/etc/systemd/system",
        "/etc/pam.d",
        "/root/.ssh",
        "/etc/passwd",
        "/etc/shadow",
    ],
)
def test_a_bound_path_that_is_as_good_as_root_is_named(
    engine: PrivateEngine, busybox: str, path: str
) -> None:
    if not os.path.exists(path):
        pytest.skip(f"this machine has no {path}")
    with containers.running(engine, busybox, flags=("-v", f"{path}:/b")) as name:
        row = Audited(engine, name).rows()["host directories"]
    assert (row.verdict, row.requested) == (Verdict.RELAXED, f"-v {os.path.realpath(path)}:/b")
