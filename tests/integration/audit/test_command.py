"""``jaula verify``: arguments, formats and exit status."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PrivateEngine


def test_verify_lists_every_check_without_an_engine(jaula) -> None:  # type: ignore[no-untyped-def]
    done = jaula("--host", "unix:///nowhere/socket", "verify", "--list")
    assert done.returncode == 0, done.stderr
    for word in ("namespaces (", "host-kernel (", "probes (", "references", "CIS 5.22", "advice"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("words", "status", "output"),
    [
        ((), 1, "requires a container, --pod, --all or --host"),
        (("--format", "xml", "x"), 125, "one of table, json, sarif, html"),
        (("nobody",), 1, "No such container"),
    ],
)
def test_invalid_arguments_are_errors(
    engine: PrivateEngine, words: tuple[str, ...], status: int, output: str
) -> None:
    done = engine.cli("jaula", "verify", *words)
    assert done.returncode == status
    assert output.lower() in done.stderr.lower()


def test_a_container_that_waits_for_its_restart_does_not_hide_the_others(
    engine: PrivateEngine, busybox: str
) -> None:
    words = ("--name", "again", "--restart", "always", busybox, "false")
    assert engine.cli("jaula", "run", "-d", *words).returncode == 0
    try:
        while not containers.inspect(engine, "again")["State"]["Restarting"]:
            time.sleep(0.05)
        with containers.running(engine, busybox) as other:
            while containers.inspect(engine, "again")["RestartCount"] < 5:
                time.sleep(0.1)  # the delay is long enough now
            done = engine.cli("jaula", "verify", "--all", "--no-trace", "--format", "json")
        assert done.returncode == 0, done.stderr
        assert other in {row["subject"] for row in json.loads(done.stdout)}
    finally:
        engine.request("DELETE", "/containers/again?force=1")


def test_every_container_and_the_host_are_in_one_report(
    engine: PrivateEngine, busybox: str
) -> None:
    with (
        containers.running(engine, busybox) as first,
        containers.running(engine, busybox, flags=("--pid", "host")) as second,
    ):
        printed = engine.cli("jaula", "verify", "--all", "--host", "--format", "json")
        sarif = engine.cli("jaula", "verify", "--all", "--format", "sarif")
        html = engine.cli("jaula", "verify", "--all", "--host", "--format", "html")
        table = engine.cli("jaula", "verify", first, second)
    rows = json.loads(printed.stdout)
    names = {row["subject"] for row in rows if row["kind"] == "container"}
    assert {first, second} <= names
    assert {row["kind"] for row in rows} == {"container", "host"}
    assert not [row for row in rows if row["verdict"] == "FAILS"], printed.stdout
    results = json.loads(sarif.stdout)["runs"][0]["results"]
    assert {result["kind"] for result in results} == {"pass", "review"}
    assert html.stdout.count("<svg") == len(names)
    assert f"{first}:" in table.stdout
    assert f"{second}:" in table.stdout
    assert table.returncode == sarif.returncode == html.returncode == 0


def test_the_host_is_verified_without_an_engine(jaula, tmp_path) -> None:  # type: ignore[no-untyped-def]
    done = jaula("--host", f"unix://{tmp_path}/nothing.sock", "verify", "--host")
    assert "known CVEs" in done.stdout, done.stderr
    assert "no engine runs" in done.stdout


def test_a_failing_row_gives_status_1_in_every_format(engine: PrivateEngine, busybox: str) -> None:
    from jaula.kernel import mounts, namespaces

    def strip() -> None:
        namespaces.setns(namespaces.open_namespace(pid, "mnt"))
        mounts.umount2("/proc/keys")

    from jaula.features.doctor.kernel.probes import failure_in_child

    with containers.running(engine, busybox) as name:
        pid = containers.pid(engine, name)
        assert failure_in_child(strip) is None
        for form, word in (
            ("table", "FAILS"), ("json", '"FAILS"'), ("sarif", '"level": "error"'),
            ("html", 'class="verdict fails">'),
        ):  # fmt: skip
            done = engine.cli("jaula", "verify", "--format", form, name)
            assert (done.returncode, done.stderr) == (1, "")
            assert word in done.stdout


def test_no_trace_stops_no_process(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox) as name:
        assert "seccomp program" in engine.cli("jaula", "verify", name).stdout
        done = engine.cli("jaula", "verify", "--no-trace", name)
    assert done.returncode == 0
    assert "seccomp program" not in done.stdout


def test_a_report_on_ten_containers_is_fast(engine: PrivateEngine, busybox: str) -> None:
    """Ten containers, with a margin for a busy machine; docs/security.md has the time of 100."""
    names = [containers.unique("many") for _ in range(10)]
    try:
        for name in names:
            engine.cli("jaula", "run", "-d", "--name", name, busybox, "sleep", "600")
        begun = time.monotonic()
        done = engine.cli("jaula", "verify", *names)
        took = time.monotonic() - begun
    finally:
        for name in names:
            engine.request("DELETE", f"/containers/{name}?force=1")
    assert done.returncode == 0, done.stdout
    assert took < 5, f"{took:.1f} seconds"


def test_the_host_passes_after_a_build(engine: PrivateEngine, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    assert engine.cli("jaula", "build", "-q", "-t", "built", str(tmp_path)).returncode == 0
    try:
        done = engine.cli("jaula", "verify", "--host", "--format", "json")
        rows = {row["id"]: row for row in json.loads(done.stdout)}
        assert rows["state directory"]["verdict"] == "holds", rows["state directory"]
    finally:
        engine.cli("jaula", "rmi", "built")
