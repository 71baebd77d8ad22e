"""Pods and Kubernetes' YAML on a real engine."""

from __future__ import annotations

import functools
import http.server
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.engine import PROJECT, PrivateEngine
from harness.service_manager import ServiceManager
from jaula.features.kubernetes.kube.kube_documents import load

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SECONDS = 60.0

YAML = """
apiVersion: v1
kind: ConfigMap
metadata: {name: site}
data: {index.html: "from the config map"}
---
apiVersion: v1
kind: Secret
metadata: {name: login}
stringData: {password: hunter2}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: kept}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    metadata: {labels: {app: web}}
    spec:
      initContainers:
      - name: first
        image: busybox
        command: [sh, -c, "echo before > /kept/x"]
        volumeMounts: [{name: kept, mountPath: /kept}]
      containers:
      - name: httpd
        image: busybox
        args: [httpd, -f, -p, "80", -h, /www]
        ports: [{containerPort: 80, hostPort: PORT}]
        env:
        - {name: PASSWORD, valueFrom: {secretKeyRef: {name: login, key: password}}}
        volumeMounts:
        - {name: www, mountPath: /www}
        - {name: login, mountPath: /login}
        - {name: kept, mountPath: /kept}
        - {name: shared, mountPath: /shared}
        - {name: host, mountPath: /host}
        livenessProbe: {httpGet: {path: /index.html, port: 80}, periodSeconds: 1}
        resources: {limits: {memory: 64Mi}}
      - name: side
        image: busybox
        command: [sh, -c, "wget -qO /shared/page localhost; trap exit TERM; sleep 1000 & wait"]
        volumeMounts: [{name: shared, mountPath: /shared}]
      terminationGracePeriodSeconds: 1
      volumes:
      - {name: www, configMap: {name: site}}
      - {name: login, secret: {secretName: login, defaultMode: 0400}}
      - {name: kept, persistentVolumeClaim: {claimName: kept}}
      - {name: shared, emptyDir: {}}
      - {name: host, hostPath: {path: DIRECTORY, type: DirectoryOrCreate}}
"""


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def file(tmp_path: Path, port: int, jaula: Run, busybox: str) -> Iterator[Path]:
    path = tmp_path / "web.yaml"
    path.write_text(YAML.replace("PORT", str(port)).replace("DIRECTORY", str(tmp_path / "made")))
    commands = ("ps -aq", "volume ls -q", "secret ls -q", "config ls -q", "pod ls -q")
    before = {command: jaula(*command.split()).stdout for command in commands}
    yield path
    assert jaula("kube", "down", "--force", path).returncode == 0
    assert {command: jaula(*command.split()).stdout for command in commands} == before
    jaula("network", "rm", "jaula-kube")


def test_a_deployment_is_played_replaced_written_and_removed(
    file: Path, port: int, jaula: Run, tmp_path: Path
) -> None:
    others = set(jaula("volume", "ls", "-q").stdout.split())
    done = jaula("kube", "play", file, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    titles = [line for line in done.stdout.splitlines() if line.endswith(":")]
    assert titles == ["Volumes:", "Secrets:", "Pod:", "Containers:"]
    assert (tmp_path / "made").is_dir()
    url = f"http://127.0.0.1:{port}/index.html"
    assert urllib.request.urlopen(url, timeout=10).read() == b"from the config map"
    script = "cat /kept/x; echo $PASSWORD; cat /login/password; until cat /shared/page; do :; done"
    output = jaula("exec", "web-pod-httpd", "sh", "-c", script).stdout
    assert output.split() == ["before", "hunter2", "hunter2from", "the", "config", "map"]
    listed = jaula("pod", "ls").stdout.splitlines()[1].split()
    assert listed[1:3] == ["web-pod", "Running"]
    assert listed[-1] == "3"  # the init container is gone

    written = jaula("kube", "generate", "web-pod").stdout
    config_map, document = load(written.encode())
    assert config_map["data"] == {"index.html": "from the config map"}
    kinds = {
        v["name"]: next(key for key in v if key != "name") for v in document["spec"]["volumes"]
    }
    assert sorted(kinds.values()) == [
        "configMap", "emptyDir", "hostPath", "persistentVolumeClaim", "secret",
    ]  # fmt: skip
    names = [container["name"] for container in document["spec"]["containers"]]
    assert names == ["httpd", "side"]
    assert document["spec"]["containers"][0]["ports"] == [{"containerPort": 80, "hostPort": port}]

    def described() -> str:
        form = "{{json .Config.Entrypoint}} {{json .Config.Cmd}} {{json .Mounts}}"
        return jaula("inspect", "-f", form, "web-pod-httpd", "web-pod-side").stdout

    before = described()
    copy = tmp_path / "copy.yaml"
    copy.write_text(written)
    again = jaula("kube", "play", "--replace", copy, timeout=SECONDS)  # the way back
    assert again.returncode == 0, again.stderr
    assert described() == before
    assert jaula("exec", "web-pod-httpd", "cat", "/login/password").stdout == "hunter2"

    replaced = jaula("kube", "play", "--replace", file, timeout=SECONDS)
    assert replaced.returncode == 0, replaced.stderr
    assert jaula("kube", "play", file).returncode != 0  # it is there
    assert jaula("pod", "inspect", "web-pod").returncode == 0
    down = jaula("kube", "down", file, timeout=SECONDS)
    assert "Pods removed:" in down.stdout
    assert set(jaula("volume", "ls", "-q").stdout.split()) - others == {"kept"}


def test_a_file_is_played_as_a_whole(jaula: Run, busybox: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    container = {"name": "c", "image": "busybox"}
    failing = {"name": "i", "image": "busybox", "command": ["sh", "-c", "echo no; exit 3"]}
    path.write_text(
        yaml.safe_dump_all(
            [
                {"kind": "Pod", "metadata": {"name": "a"},
                 "spec": {"containers": [{**container, "args": ["sleep", "100"]}]}},
                {"kind": "Pod", "metadata": {"name": "b"},
                 "spec": {"containers": [container], "initContainers": [failing]}},
            ]
        )
    )  # fmt: skip
    done = jaula("kube", "play", path, timeout=SECONDS)
    assert done.returncode == 125
    assert "init container i exited with status 3; its output: no" in done.stderr
    assert jaula("ps", "-aq").stdout == ""
    jaula("network", "rm", "jaula-kube")


def write(path: Path, *objects: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump_all(objects))
    return path


def pod(name: str, *command: str, **members: Any) -> dict[str, Any]:
    """Return a Pod with one container ``c`` that runs a command of busybox."""
    container = {"name": "c", "image": "busybox", "command": list(command), **members}
    spec = {"containers": [container], "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0}  # fmt: skip
    return {"kind": "Pod", "metadata": {"name": name}, "spec": spec}


@pytest.fixture
def clean(jaula: Run, busybox: str) -> Iterator[None]:
    """Check that a test leaves no object in the engine."""
    commands = ("ps -aq", "volume ls -q", "secret ls -q", "config ls -q", "pod ls -q")
    before = {command: jaula(*command.split()).stdout for command in commands}
    yield
    assert {command: jaula(*command.split()).stdout for command in commands} == before
    jaula("network", "rm", "jaula-kube")


@pytest.mark.usefixtures("clean")
def test_a_failed_play_leaves_neither_secrets_nor_volumes(jaula: Run, tmp_path: Path) -> None:
    volume = {"name": "v", "emptyDir": {}}
    bad = pod("bad", "/absent", volumeMounts=[{"name": "v", "mountPath": "/v"}])
    bad["spec"]["volumes"] = [volume]
    path = write(
        tmp_path / "f.yaml",
        {"kind": "Secret", "metadata": {"name": "gone"}, "stringData": {"a": "b"}},
        {"kind": "PersistentVolumeClaim", "metadata": {"name": "gone"}},
        pod("good", "sleep", "99"),
        bad,
    )
    done = jaula("kube", "play", path, timeout=SECONDS)
    assert done.returncode != 0
    assert "absent" in done.stderr
    assert "not everything is removed" not in done.stderr


@pytest.mark.usefixtures("clean")
def test_a_part_of_a_path_that_leads_out_of_it_is_refused(jaula: Run, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "out").symlink_to("/etc")
    (shared / "in").mkdir()

    def played(part: str) -> subprocess.CompletedProcess[str]:
        mount = {"name": "v", "mountPath": "/v", "subPath": part}
        user = pod("part", "true", volumeMounts=[mount])
        user["spec"]["volumes"] = [{"name": "v", "hostPath": {"path": str(shared)}}]
        return jaula("kube", "play", write(tmp_path / "f.yaml", user), timeout=SECONDS)

    refused = played("out")
    assert refused.returncode == 125
    assert "leads out of it, to /etc" in refused.stderr
    assert played("in").returncode == 0
    assert jaula("kube", "down", tmp_path / "f.yaml").returncode == 0


@pytest.mark.usefixtures("clean")
def test_a_play_that_is_interrupted_leaves_nothing(
    engine: PrivateEngine, jaula: Run, tmp_path: Path
) -> None:
    slow = pod("slow", "sleep", "99")
    slow["spec"]["initContainers"] = [{"name": "i", "image": "busybox", "command": ["sleep", "99"]}]
    secret = {"kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "b"}}
    path = write(tmp_path / "f.yaml", secret, pod("quick", "sleep", "99"), slow)
    words = [str(PROJECT / "jaula"), "--host", engine.host, "kube", "play", str(path)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + SECONDS
    while "slow-i" not in jaula("ps", "--format", "{{.Names}}").stdout:
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, error
    assert b"Traceback" not in error


def test_a_play_is_repeated_after_the_engine_was_killed_in_its_middle(
    new_engine: Callable[..., PrivateEngine], busybox_archive: Path, tmp_path: Path
) -> None:
    engine = new_engine()
    assert engine.cli("jaula", "load", "-i", str(busybox_archive)).returncode == 0
    slow = pod("slow", "sleep", "99")
    init = {"name": "i", "image": "busybox", "command": ["sleep", "2"]}
    slow["spec"]["initContainers"] = [init]
    secret = {"kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "b"}}
    path = str(write(tmp_path / "f.yaml", secret, slow))
    words = [str(PROJECT / "jaula"), "--host", engine.host, "kube", "play", path]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + SECONDS
    while "slow-i" not in engine.cli("jaula", "ps", "--format", "{{.Names}}").stdout:
        assert time.monotonic() < deadline
    engine.kill()
    _, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert error.count(b"not everything is removed") == 1
    engine.start()
    again = engine.cli("jaula", "kube", "play", "--replace", path)
    assert again.returncode == 0, again.stderr
    assert engine.cli("jaula", "pod", "ls", "--format", "{{.Status}}").stdout == "Running\n"
    assert engine.cli("jaula", "kube", "down", path).returncode == 0
    for command in ("ps -aq", "secret ls -q", "pod ls -q"):
        assert engine.cli("jaula", *command.split()).stdout == ""
    engine.cli("jaula", "network", "rm", "jaula-kube")


@pytest.mark.usefixtures("clean")
def test_the_yaml_of_a_url_is_played_and_removed(jaula: Run, tmp_path: Path) -> None:
    write(tmp_path / "job.yaml", pod("net", "sleep", "99"))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        done = jaula("kube", "play", f"{url}/job.yaml", timeout=SECONDS)
        assert done.returncode == 0, done.stderr
        assert "net-c" in jaula("ps", "--format", "{{.Names}}").stdout
        assert jaula("kube", "down", f"{url}/job.yaml").returncode == 0
        missing = jaula("kube", "play", f"{url}/none.yaml")
        assert missing.returncode == 125
        assert "404" in missing.stderr
        server.shutdown()
    refused = jaula("kube", "play", f"{url}/job.yaml")
    assert refused.returncode == 125
    assert "Connection refused" in refused.stderr
    file = jaula("kube", "play", f"file://{tmp_path}/job.yaml")
    assert "begins with http:// or https://" in file.stderr


@pytest.mark.usefixtures("clean")
def test_an_image_with_a_context_of_its_name_is_built(
    engine: PrivateEngine, jaula: Run, tmp_path: Path
) -> None:
    context = tmp_path / "own" / "app"
    context.mkdir(parents=True)
    (context / "Containerfile").write_text("FROM busybox\nCOPY text /text\n")
    (context / "text").write_text("one")
    built = pod("built", "cat", "/text")
    built["spec"]["containers"][0]["image"] = "localhost/own/app:1"
    path = write(tmp_path / "f.yaml", built)

    def played(*flags: str) -> str:
        words = ("kube", "play", "-q", "--replace", *flags, path)
        done = jaula(*words, cwd=tmp_path, timeout=SECONDS)
        assert done.returncode == 0, done.stderr
        jaula("wait", "built-c")
        return jaula("logs", "built-c").stdout

    assert jaula("kube", "play", "--build=false", path, cwd=tmp_path).returncode != 0
    assert played() == "one"
    (context / "text").write_text("two")
    assert played() == "one"  # the image exists
    assert played("--build") == "two"
    (context / "text").write_text("three")
    assert played("--build", f"--context-dir={tmp_path}") == "three"
    assert jaula("kube", "down", path).returncode == 0
    assert jaula("rmi", "localhost/own/app:1").returncode == 0


@pytest.mark.usefixtures("clean")
def test_a_pod_has_the_addresses_and_networks_of_the_flags(jaula: Run, tmp_path: Path) -> None:
    network = ("network", "create", "--subnet", "10.123.45.0/24", "kube-test")
    assert jaula(*network).returncode == 0
    path = write(tmp_path / "f.yaml", pod("net", "sleep", "99"))

    def address(*flags: str) -> list[str]:
        done = jaula("kube", "play", "--replace", *flags, path, timeout=SECONDS)
        assert done.returncode == 0, done.stderr
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.MacAddress}}{{end}}"
        return jaula("inspect", "-f", form, "net-infra").stdout.split()

    mac = "02:00:00:00:00:77"
    try:
        podmans = address(f"--network=kube-test:ip=10.123.45.7,mac={mac}")
        assert podmans == ["10.123.45.7", mac]
        dockers = address(f"--network=name=kube-test,ip=10.123.45.8,mac-address={mac}")
        assert dockers == ["10.123.45.8", mac]
        flags = address("--network=kube-test", "--ip=10.123.45.9", f"--mac-address={mac}")
        assert flags == ["10.123.45.9", mac]
        assert address("--network=host") == []
        assert address("--network=none") == []
    finally:
        assert jaula("kube", "down", path).returncode == 0
        assert jaula("network", "rm", "kube-test").returncode == 0


@pytest.mark.usefixtures("clean")
def test_a_secret_of_an_earlier_file_is_mounted_and_a_map_is_not_needed_to_remove(
    jaula: Run, tmp_path: Path
) -> None:
    secret = {"kind": "Secret", "metadata": {"name": "login"}, "stringData": {"key": "hunter2"}}
    first = write(tmp_path / "secret.yaml", secret)
    maps = write(
        tmp_path / "map.yaml", {"kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"A": "b"}}
    )
    user = pod("user", "sh", "-c", "cat /s/key; echo $A", envFrom=[{"configMapRef": {"name": "m"}}],
               volumeMounts=[{"name": "s", "mountPath": "/s"}])  # fmt: skip
    user["spec"]["volumes"] = [{"name": "s", "secret": {"secretName": "login"}}]
    second = write(tmp_path / "pod.yaml", user)
    assert jaula("kube", "play", second).returncode == 125
    assert jaula("kube", "play", first).returncode == 0
    done = jaula("kube", "play", "--configmap", maps, second, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    jaula("wait", "user-c")
    assert jaula("logs", "user-c").stdout == "hunter2b\n"
    again = jaula("kube", "play", "--configmap", maps, second)
    assert again.returncode == 125
    assert "the pod user exists: --replace removes it first" in again.stderr
    assert jaula("kube", "down", second).returncode == 0  # without the map
    assert jaula("kube", "down", first).returncode == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c}]}", "image is missing"),
        ("a: &a [*a]", "anchor"),
        ("kind: X", "'X' is not supported"),
        ("", "no object"),
    ],
)
def test_a_file_that_is_not_valid_makes_nothing(jaula: Run, text: str, message: str) -> None:
    done = jaula("kube", "play", "-", input=text)
    assert done.returncode == 125
    assert message in done.stderr
    assert jaula("kube", "play", "/absent").returncode == 125


def test_a_client_that_waits_takes_the_pod_down_when_it_is_stopped(
    engine: PrivateEngine, busybox: str, jaula: Run, tmp_path: Path
) -> None:
    path = tmp_path / "job.yaml"
    spec = {"restartPolicy": "Never", "containers": [
        {"name": "c", "image": "busybox",
         "command": ["sh", "-c", "sleep 0.5; exit 4"]}]}  # fmt: skip
    path.write_text(
        yaml.safe_dump(
            {"kind": "Job", "metadata": {"name": "j"}, "spec": {"template": {"spec": spec}}}
        )
    )
    words = [str(PROJECT / "jaula"), "--host", engine.host, "kube", "play", "--wait"]
    done = subprocess.run(
        [*words, "--service-exit-code-propagation=all", path],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 4, done.stderr
    assert "Pods removed:" in done.stdout
    path.write_text(path.read_text().replace("sleep 0.5", "trap 'exit 0' TERM; sleep 99 & wait"))
    with ServiceManager(tmp_path / "notify") as manager:
        process = subprocess.Popen(
            [*words, "--sdnotify=conmon", path],
            env=manager.environment(),
            stdout=subprocess.DEVNULL,
        )
        assert manager.expect("READY=1", SECONDS)
        assert manager.value("MAINPID") == str(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
    assert jaula("ps", "-aq").stdout == ""
    jaula("network", "rm", "jaula-kube")


def test_containers_of_a_pod_share_its_namespaces_and_volumes(
    jaula: Run, busybox: str, tmp_path: Path
) -> None:
    id_file = tmp_path / "pod-id"
    flags = ("--name", "duo", "-v", "/both", "--pod-id-file", id_file)
    assert jaula("pod", "create", *flags).returncode == 0
    server = "echo x > /both/f; httpd -f -p 8000 -h /both"
    assert jaula("run", "-d", "--pod", "duo", "--name", "srv", busybox, "sh", "-c", server).stdout
    wget = "until wget -qO- localhost:8000/f; do sleep 0.1; done; hostname; cat /both/f"
    done = jaula("run", "--rm", "--pod-id-file", id_file, busybox, "sh", "-c", wget)
    assert done.stdout.split() == ["x", "duo", "x"]
    refused = jaula("run", "--pod", "duo", "-p", "80:80", busybox)
    assert refused.returncode == 125
    assert "--publish belongs to the pod duo" in refused.stderr
    assert jaula("pod", "rm", "duo").returncode == 1  # it runs
    assert jaula("pod", "rm", "-f", "--pod-id-file", id_file).returncode == 0
    assert not id_file.exists()
    assert jaula("pod", "rm", "--ignore", "--pod-id-file", id_file).returncode == 0
    assert jaula("run", "--pod", "none", busybox).returncode == 125
    assert jaula("ps", "-aq").stdout == ""
