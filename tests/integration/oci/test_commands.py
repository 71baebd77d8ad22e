"""The command line as callers use it: flags, logs, ``list``, ``ps``, ``spec``, ``events``."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from harness.private_runtime import RUNTIME, PrivateRuntime

MIB = 1 << 20


def test_version_has_the_lines_that_callers_parse(runtime: PrivateRuntime) -> None:
    for words in (["--version"], ["-v"]):
        lines = runtime.command(*words).stdout.splitlines()
        assert re.fullmatch(r"jaula-runtime version \d+\.\d+\.\d+\S*", lines[0])
        assert lines[1].startswith("commit: ")
        assert lines[2] == "spec: 1.2.0"


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"], []])
def test_help_names_every_command(runtime: PrivateRuntime, words: list[str]) -> None:
    done = runtime.command(*words)
    assert done.returncode == 0
    for name in ("create", "start", "events", "features", "update"):
        assert f"   {name} " in done.stdout


@pytest.mark.parametrize("name", ["create", "start", "run", "exec", "kill", "events", "update"])
def test_each_command_has_its_help(runtime: PrivateRuntime, name: str) -> None:
    done = runtime.command(name, "--help")
    assert done.returncode == 0
    assert f"usage: jaula-runtime {name} " in done.stdout


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["frobnicate"], "no such command: frobnicate"),
        (["--frob", "list"], "flag provided but not defined: -frob"),
        (["list", "--frob"], "flag provided but not defined: -frob"),
        (["list", "--format"], "flag needs an argument: -format"),
        (["list", "--format", "xml"], "invalid format option 'xml'"),
        (["list", "--quiet=maybe"], "'maybe' must be true or false"),
        (["--log-format", "xml", "list"], "unknown log-format 'xml'"),
        (["--rootless", "maybe", "list"], "--rootless: 'maybe'"),
        (["state"], '"state" requires exactly 1 argument(s), 0 given'),
        (["state", "a", "b"], '"state" requires exactly 1 argument(s), 2 given'),
        (["create"], "requires exactly 1 argument"),
        (["create", "--preserve-fds", "many", "x"], "'many' is not a whole number"),
        (["create", "--preserve-fds", "-1", "x"], "--preserve-fds: -1 is less than 0"),
        (["create", "--preserve-fds", "1", "x"], "descriptor 3 is not open"),
        (["exec", "--preserve-fds", "2", "x", "true"], "descriptor 3 is not open"),
        (["kill"], '"kill" requires a minimum of 1 argument'),
        (["kill", "a", "b", "c"], "a maximum of 2"),
        (["ps"], "requires a minimum of 1 argument"),
        (["features", "x"], '"features" takes no argument'),
        (["--log", "/nonexistent/log", "list"], "/nonexistent/log: no such file"),
    ],
)
def test_an_invalid_command_line_gives_one_line_and_status_1(
    runtime: PrivateRuntime, words: list[str], text: str
) -> None:
    done = runtime.command(*words, cwd=runtime.bundle().path)
    assert done.returncode == (255 if words[0] == "exec" else 1)
    (line,) = done.stderr.splitlines()
    assert text in json.loads(line.partition(" level=error msg=")[2])
    assert done.stdout == ""


@pytest.mark.parametrize(
    "flags",
    [["--format", "json"], ["--format=json"], ["-format", "json"], ["-f", "json"], ["-f=json"]],
)
def test_the_forms_of_a_flag_are_the_same(runtime: PrivateRuntime, flags: list[str]) -> None:
    with runtime.created() as bundle:
        (result,) = json.loads(runtime.command("list", *flags).stdout)
        assert result["id"] == bundle.id


def test_log_lines_go_to_the_file_and_the_text_to_standard_error(
    runtime: PrivateRuntime, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    for style in ("json", "text"):
        done = runtime.command("--log", str(log), "--log-format", style, "state", "nope")
        assert done.returncode == 1
        assert done.stderr == "container nope does not exist\n"
    first, second = log.read_text().splitlines()
    document = json.loads(first)
    assert document.pop("time")
    assert document == {"level": "error", "msg": "container nope does not exist"}
    assert second.endswith(' level=error msg="container nope does not exist"')


def test_warnings_are_not_errors(runtime: PrivateRuntime, tmp_path: Path) -> None:
    log = tmp_path / "log"
    capabilities = {"bounding": ["CAP_FLY", "CAP_KILL"], "effective": [], "permitted": []}
    bundle = runtime.bundle({"process": {"capabilities": capabilities}}, script="true")
    flags = ["--log", str(log), "--log-format=json"]
    done = runtime.command(*flags, "run", "--bundle", str(bundle.path), bundle.id)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = log.read_text().splitlines()
    assert json.loads(line)["level"] == "warning"
    assert "CAP_FLY" in json.loads(line)["msg"]


# list, ps, spec, features


def test_list_shows_every_container(runtime: PrivateRuntime) -> None:
    assert runtime.command("list", "--format=json").stdout == "null\n"
    assert runtime.command("list", "-q").stdout == ""
    with runtime.started() as running, runtime.created({"annotations": {"a": "b"}}) as created:
        result = {
            one["id"]: one for one in json.loads(runtime.command("list", "-f", "json").stdout)
        }
        assert result[running.id]["status"] == "running"
        assert result[created.id] == {**created.state(), "owner": "root"}
        assert set(runtime.command("list", "--quiet").stdout.split()) == {running.id, created.id}
        table = runtime.command("list").stdout.splitlines()
        assert table[0].split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
        row = next(line for line in table if line.startswith(running.id))
        assert row.split()[1:4] == [str(running.pid), "running", str(running.path)]
        assert row.split()[5] == "root"


def test_list_skips_other_directories(runtime: PrivateRuntime) -> None:
    runtime.root.mkdir(exist_ok=True)
    (runtime.root / "a file").touch()
    (runtime.root / "bad name").mkdir()
    (runtime.root / "link").symlink_to("/etc")
    try:
        done = runtime.command("list")
        assert done.returncode == 0
        assert len(done.stdout.splitlines()) == 1
    finally:
        (runtime.root / "a file").unlink()
        (runtime.root / "bad name").rmdir()
        (runtime.root / "link").unlink()


def test_ps_shows_the_host_s_numbers(runtime: PrivateRuntime) -> None:
    with runtime.started(script="sleep 100 & exec sleep 200") as bundle:
        assert bundle.exec("true").returncode == 0
        pids = json.loads(runtime.command("ps", "--format", "json", bundle.id).stdout)
        assert bundle.pid in pids
        assert len(pids) == 2
        table = runtime.command("ps", bundle.id).stdout.splitlines()
        assert "PID" in table[0]
        assert {int(line.split()[1]) for line in table[1:]} == set(pids)
        short = runtime.command("ps", bundle.id, "-o", "pid,comm").stdout.splitlines()
        assert {tuple(line.split()) for line in short[1:]} == {(str(pid), "sleep") for pid in pids}
        done = runtime.command("ps", bundle.id, "-o", "comm")
        assert done.returncode == 1
        assert "shows no PID column" in done.stderr


def test_spec_writes_a_document_that_runs(runtime: PrivateRuntime, tmp_path: Path) -> None:
    assert runtime.command("spec", cwd=tmp_path).returncode == 0
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["ociVersion"] == "1.2.0"
    assert config["process"]["terminal"] is True
    done = runtime.command("spec", "--bundle", str(tmp_path))
    assert done.returncode == 1
    assert "exists" in done.stderr
    assert json.loads((tmp_path / "config.json").read_text()) == config
    (tmp_path / "rootless").mkdir()
    assert runtime.command("spec", "--rootless", "-b", str(tmp_path / "rootless")).returncode == 0
    rootless = json.loads((tmp_path / "rootless/config.json").read_text())
    assert {"type": "user"} in rootless["linux"]["namespaces"]


def test_features_match_the_commands(runtime: PrivateRuntime) -> None:
    document = json.loads(runtime.command("features").stdout)
    assert document["ociVersionMax"] == "1.2.0"
    assert document["hooks"] == [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
        "poststop",
    ]
    assert "rro" in document["mountOptions"]
    assert document["linux"]["mountExtensions"]["idmap"]["enabled"] is True


def test_a_closed_standard_output_gives_no_traceback(runtime: PrivateRuntime) -> None:
    script = '"$0" features | head -c 1 >/dev/null'
    line = ["sh", "-c", script, RUNTIME]
    done = subprocess.run(line, capture_output=True, timeout=20, check=False)
    assert done.stderr == b""


# events


def test_events_prints_statistics_once(runtime: PrivateRuntime) -> None:
    resources = {"memory": {"limit": 64 * MIB}, "pids": {"limit": 20}}
    with runtime.started({"linux": {"resources": resources}}) as bundle:
        done = runtime.command("events", "--stats", bundle.id)
        (line,) = done.stdout.splitlines()
        event = json.loads(line)
        assert (event["type"], event["id"]) == ("stats", bundle.id)
        data = event["data"]
        assert data["memory"]["usage"]["limit"] == 64 * MIB
        assert data["memory"]["usage"]["usage"] > 0
        assert data["pids"] == {"current": 1, "limit": 20}
        assert data["cpu"]["usage"]["total"] > 0


def test_events_prints_statistics_until_the_container_exits(runtime: PrivateRuntime) -> None:
    with runtime.started() as bundle:
        line = [RUNTIME, "--root", runtime.root, "events", "--interval", "50ms", bundle.id]
        before = time.monotonic()
        with subprocess.Popen(line, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as watching:
            assert watching.stdout is not None
            for _ in range(5):
                assert json.loads(watching.stdout.readline())["type"] == "stats"
            assert time.monotonic() - before >= 0.2
            assert bundle.command("kill", bundle.id, "KILL").returncode == 0
            watching.communicate(timeout=30)  # read meanwhile: a full pipe would hold it
            assert watching.returncode == 0


def test_events_reports_an_oom_kill(runtime: PrivateRuntime) -> None:
    resources = {"memory": {"limit": 24 * MIB, "swap": 24 * MIB}}
    script = "read line; dd if=/dev/zero of=/dev/null bs=64M count=1; exec sleep 60"
    with runtime.created({"linux": {"resources": resources}}, script=script) as bundle:
        bundle.start()
        line = [RUNTIME, "--root", runtime.root, "events", "--interval", "1h", bundle.id]
        with subprocess.Popen(line, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as watching:
            assert watching.stdout is not None
            assert json.loads(watching.stdout.readline())["type"] == "stats"
            done = bundle.exec("dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1")
            assert done.returncode == 137
            assert json.loads(watching.stdout.readline()) == {"type": "oom", "id": bundle.id}
            watching.terminate()


@pytest.mark.parametrize(
    "interval", ["0s", "-1s", "5", "s", "1d", "1..5s", "", "5 s", "nans", "1e3s"]
)
def test_an_invalid_interval_is_refused(runtime: PrivateRuntime, interval: str) -> None:
    with runtime.created() as bundle:
        done = runtime.command("events", "--stats", f"--interval={interval}", bundle.id)
        if interval:
            assert done.returncode == 1
            assert "--interval: " in done.stderr
        else:
            assert done.returncode == 0


def test_debug_says_what_is_done_step_by_step(runtime: PrivateRuntime, tmp_path: Path) -> None:
    bundle = runtime.bundle(script="true")
    log = tmp_path / "log"
    words = ("--debug", "--log", str(log), "--log-format", "json", "run", "--bundle")
    done = runtime.command(*words, str(bundle.path), bundle.id)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["level"] for line in lines} == {"debug"}
    steps = [line["msg"] for line in lines]
    expected = [
        "run: containers are in ",
        "read and validate ",
        "create cgroup /",
        "init: mount proc at /proc",
        "init: enter the root",
        "the program runs",
        "remove cgroup /",
    ]
    positions = [
        next(n for n, step in enumerate(steps) if step.startswith(start)) for start in expected
    ]
    assert positions == sorted(positions), steps
