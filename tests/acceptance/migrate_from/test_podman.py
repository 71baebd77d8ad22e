"""A real podman's storage is taken over, and is as before."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.docker_root import listing
from harness.engine import PrivateEngine

pytestmark = [pytest.mark.takeover, pytest.mark.needs("podman")]

FLAGS = (
    "--user 1000:1000 --workdir /tmp --hostname name --add-host a:1.2.3.4 --dns 9.9.9.9 --env X=1 "
    "--tmpfs /t:size=1m --ulimit nofile=100:200 --sysctl net.ipv4.ip_forward=1 --label own=1 "
    "--device /dev/null:/dev/mynull --init --read-only --read-only-tmpfs=false "
    "--security-opt no-new-privileges --security-opt seccomp=unconfined --cap-drop CHOWN "
    "--cpus 0.5 --pids-limit 77 --memory 64m --shm-size 1m --group-add 5 --stop-timeout 3 "
    "--stop-signal USR1 --restart on-failure:3 -p 127.0.0.1:9000-9001:90-91/udp --oom-score-adj 5 "
    "--network front:ip=172.31.242.9,alias=www -v data:/data -v /etc:/h:ro --secret key"
)

SETTINGS = '[engine]\nevents_logger = "file"\ncgroup_manager = "cgroupfs"\n'


class StoredPodman:
    """A podman with a storage of its own. It only creates objects, and runs nothing."""

    def __init__(self, database: str = "sqlite") -> None:
        self.database = database
        self.base = Path(tempfile.mkdtemp(prefix="jpo", dir="/var/tmp"))
        self.run = Path(tempfile.mkdtemp(prefix="jpo", dir="/run"))
        for name, text in (
            ("containers.conf", f'{SETTINGS}database_backend = "{database}"\n'),
            ("storage.conf", '[storage]\ndriver = "overlay"\n'),
            ("registries.conf", ""),
            ("policy.json", json.dumps({"default": [{"type": "insecureAcceptAnything"}]})),
        ):
            (self.base / name).write_text(text)

    @property
    def root(self) -> Path:
        return self.base / "storage"

    def __call__(self, *words: str, stdin: str = "") -> str:
        places = (
            "--root",
            str(self.root),
            "--runroot",
            f"{self.run}/r",
            "--tmpdir",
            f"{self.run}/t",
            "--network-config-dir",
            f"{self.root}/networks",
        )
        done = subprocess.run(
            ["podman", *places, *words],
            capture_output=True, text=True, timeout=60, check=False, input=stdin,
            env={
                "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
                "HOME": "/root",
                "CONTAINERS_CONF": str(self.base / "containers.conf"),
                "CONTAINERS_STORAGE_CONF": str(self.base / "storage.conf"),
                "CONTAINERS_REGISTRIES_CONF": str(self.base / "registries.conf"),
                "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
                "SUPPRESS_BOLTDB_WARNING": "1",
                "CI_DESIRED_DATABASE": self.database,  # podman 5 creates no file of BoltDB else
            },
        )  # fmt: skip
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout.strip()

    def remove(self) -> None:
        overlay = str(self.root / "overlay")
        with open("/proc/self/mountinfo", encoding="utf-8") as table:
            mounted = [line.split()[4] for line in table]
        for target in sorted((t for t in mounted if t.startswith(overlay)), reverse=True):
            subprocess.run(["umount", target], check=True)
        shutil.rmtree(self.base)
        shutil.rmtree(self.run)


@pytest.fixture(params=["sqlite", "boltdb"])
def podman(busybox_archive: Path, request: pytest.FixtureRequest) -> Iterator[StoredPodman]:
    made = StoredPodman(str(request.param))
    try:
        policy = ("--signature-policy", str(made.base / "policy.json"))
        made("load", "-q", *policy, "-i", str(busybox_archive))
        made("volume", "create", "--label", "k=v", "data")
        (made.root / "volumes/data/_data/file").write_text("content\n")
        made("network", "create", "--subnet", "172.31.242.0/24", "front")
        made("secret", "create", "key", "-", stdin="secret content")
        command = ("busybox", "cat", "/run/secrets/key", "/data/file")
        made("create", "--name", "web", *FLAGS.split(), *command)
        script = "cat /own; grep CapBnd /proc/self/status"
        made("create", "--name", "plain", "--network", "none", "busybox", "sh", "-c", script)
        assert (made.root / "db.sql").exists() == (request.param == "sqlite")
        yield made
    finally:
        made.remove()


def test_podman_is_taken_over(podman: StoredPodman, new_engine: Any) -> None:
    upper = Path(podman("inspect", "-f", "{{.GraphDriver.Data.UpperDir}}", "plain"))
    (upper / "own").write_text("own\n")
    ids = podman("images", "--no-trunc", "-q").splitlines()
    before = listing(podman.root)
    target: PrivateEngine = new_engine()
    words = ("migrate-from", "podman", "--root", str(podman.root), "--yes")
    done = target.cli("jaula", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert listing(podman.root) == before

    images = target.request("GET", "/images/json").json()
    assert [image["Id"] for image in images] == ids
    assert images[0]["RepoTags"] == ["busybox:latest"]
    assert target.request("GET", "/volumes/data").json()["Labels"]["k"] == "v"
    web = target.request("GET", "/containers/web/json").json()
    config, host = web["Config"], web["HostConfig"]
    assert (config["User"], config["WorkingDir"], config["Hostname"]) == (
        "1000:1000",
        "/tmp",
        "name",
    )
    assert "X=1" in config["Env"] and "container=podman" not in config["Env"]
    assert (config["StopSignal"], config["StopTimeout"]) == ("10", 3)
    assert config["Labels"]["own"] == "1"
    expected = {
        "ReadonlyRootfs": True, "Init": True, "PidsLimit": 77, "Memory": 64 << 20,
        "ShmSize": 1 << 20, "GroupAdd": ["5"], "Dns": ["9.9.9.9"], "ExtraHosts": ["a:1.2.3.4"],
        "CpuQuota": 50000, "CpuPeriod": 100000, "OomScoreAdj": 5,
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
        "Sysctls": {"net.ipv4.ip_forward": "1"}, "Tmpfs": {"/t": "size=1m"},
        "Binds": ["data:/data", "/etc:/h:ro"],
        "SecurityOpt": ["no-new-privileges", "seccomp=unconfined"],
    }  # fmt: skip
    assert {name: host[name] for name in expected} == expected
    assert host["Devices"][0]["PathInContainer"] == "/dev/mynull"
    assert host["Ulimits"] == [{"Name": "nofile", "Hard": 200, "Soft": 100}]
    assert set(host["PortBindings"]) == {"90/udp", "91/udp"}
    assert {"CAP_CHOWN", "CAP_NET_RAW"} <= {
        name if name.startswith("CAP_") else f"CAP_{name}" for name in host["CapDrop"]
    }
    network = web["NetworkSettings"]["Networks"]["front"]
    assert network["IPAMConfig"]["IPv4Address"] == "172.31.242.9"
    assert network["Aliases"] == ["www", "name"]  # podman resolves the host name too

    out = target.cli("docker", "start", "-a", "plain").stdout
    assert out.split() == ["own", "CapBnd:", "00000000800405fb"]
    out = target.cli("docker", "start", "-a", "web").stdout
    assert out == "secret contentcontent\n"
    done = target.cli("jaula", *words)
    assert "to take over" not in done.stdout
