"""Pods and Kubernetes' YAML on a real engine."""

from __future__ import annotations

import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from harness.engine import PROJECT, PrivateEngine
from harness.service_manager import ServiceManager
from jaula.kube.documents import load

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
    (document,) = load(written.encode())
    names = [container["name"] for container in document["spec"]["containers"]]
    assert names == ["httpd", "side"]
    assert document["spec"]["containers"][0]["ports"] == [{"containerPort": 80, "hostPort": port}]

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
