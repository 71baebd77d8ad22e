"""The services of quadlet's files, carried out in order as systemd does, on a host without it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.engine import PROJECT, PrivateEngine
from harness.service_manager import ServiceManager
from jaula.features.quadlet import generator
from jaula.features.quadlet.directories import VARIABLE
from jaula.features.quadlet.unit_file import UnitFile, load

SECONDS = 60.0
FILES = {
    "web.container": """[Container]
Image=app.build
Network=lan.network:ip=10.88.7.9
Volume=data.volume:/data
Mount=type=tmpfs,destination=/scratch
Environment="WORDS=a b" TAB=x\\ty
Label=of=unit
ReadOnly=true
NoNewPrivileges=true
DropCapability=all
PidsLimit=50
Memory=64m
Ulimit=nofile=100:200
StopTimeout=2
HealthCmd=true
HealthInterval=1s
Notify=healthy
AddHost=other:10.88.7.1
EnvironmentFile=web.env
Exec=sh -c 'echo "$$WORDS-$$TAB-$$FILE" > /data/f; trap "exit 5" TERM; sleep 600 & wait'
""",
    "data.volume": "[Volume]\nLabel=a=b\n",
    "lan.network": "[Network]\nSubnet=10.88.7.0/24\nGateway=10.88.7.1\nInternal=true\n",
    "app.build": "[Build]\nImageTag=localhost/app:unit\nSetWorkingDirectory=unit\n",
    "duo.pod": "[Pod]\nPodName=duo\nVolume=/shared\n",
    "one.container": "[Container]\nImage=busybox\nPod=duo.pod\nStopTimeout=1\nExec=sleep 600\n",
    "Dockerfile": "FROM busybox\nENV FROM_IMAGE=1\n",
    "web.env": "FILE=from-file\n",
}


class Services:
    """Services and their main processes."""

    def __init__(self, engine: PrivateEngine, units: Path, runtime: Path) -> None:
        self._engine = engine
        self._units = units
        self._runtime = runtime
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def unit(self, name: str) -> UnitFile:
        return load(str(self._units / f"{name}.service"))

    def words(self, name: str, key: str) -> list[str]:
        """Return a command with the specifiers and the variables of systemd replaced."""
        result = []
        for word in self.unit(name).last_words("Service", key):
            for specifier, value in (("%t", str(self._runtime)), ("%N", name),
                                     ("%n", f"{name}.service"), ("$$", "$")):  # fmt: skip
                word = word.replace(specifier, value)
            result.append(word)
        return [result[0].lstrip("-"), *result[1:]]

    def run(self, name: str, key: str, **variables: str) -> subprocess.CompletedProcess[str]:
        directory = self.unit(name).text("Service", "WorkingDirectory") or "/"
        return subprocess.run(
            self.words(name, key),
            env={**os.environ, "JAULA_HOST": self._engine.host, **variables},
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )

    def start(self, name: str, manager: ServiceManager) -> None:
        """Start a service that notifies, and wait until it is ready."""
        manager.messages.clear()
        environment = manager.environment(JAULA_HOST=self._engine.host)
        self.processes[name] = subprocess.Popen(self.words(name, "ExecStart"), env=environment)
        assert manager.expect("READY=1", SECONDS), self._engine.log_tail()


@pytest.fixture
def services(
    engine: PrivateEngine, busybox: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Services]:
    source, output, runtime = (tmp_path / name for name in ("source", "output", "runtime"))
    source.mkdir()
    runtime.mkdir()
    for name, text in FILES.items():
        (source / name).write_text(text)
    monkeypatch.setenv(VARIABLE, str(source))
    monkeypatch.setenv("JAULA", str(PROJECT / "jaula"))
    assert generator.main(["-no-kmsg-log", str(output)]) == 0
    made = Services(engine, output, runtime)
    yield made
    for process in made.processes.values():
        if process.poll() is None:
            process.kill()
        process.wait()


def test_each_file_is_a_service_that_works(
    services: Services, engine: PrivateEngine, tmp_path: Path
) -> None:
    def inspect(field: str, name: str = "systemd-web") -> str:
        return engine.cli("jaula", "inspect", "-f", field, name).stdout.strip()

    for name in ("data-volume", "lan-network", "app-build", "data-volume", "lan-network"):
        done = services.run(name, "ExecStart")
        assert done.returncode == 0, done.stderr
    with ServiceManager(tmp_path / "notify") as manager:
        services.start("web", manager)
        file = engine.cli("jaula", "exec", "systemd-web", "cat", "/data/f").stdout
        assert file == "a b-x\ty-from-file\n"
        assert inspect('{{index .Config.Labels "io.jaula.systemd-unit"}}') == "web.service"
        assert inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}") == "10.88.7.9"
        assert inspect("{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}") == "67108864 50"
        assert inspect("{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.AutoRemove}}") == "true true"
        assert services.run("web", "ExecStop").returncode == 0
        assert services.processes["web"].wait(SECONDS) == 5
        assert services.run("web", "ExecStopPost").returncode == 0

        services.start("web", manager)  # what an earlier run has left is replaced
        services.processes["web"].kill()
        services.processes["web"].wait()
        assert inspect("{{.State.Running}}") == "true"
        services.start("web", manager)
        assert services.run("web", "ExecStop").returncode == 0
        assert services.processes["web"].wait(SECONDS) == 5

        assert services.run("duo-pod", "ExecStartPre").returncode == 0
        services.start("duo-pod", manager)
        services.start("one", manager)
        assert engine.cli("jaula", "exec", "systemd-one", "hostname").stdout == "duo\n"
        services.processes["duo-pod"].send_signal(signal.SIGTERM)
        assert services.processes["duo-pod"].wait(SECONDS) == 0
        assert services.processes["one"].wait(SECONDS) in (137, 143)
        for key in ("ExecStop", "ExecStopPost"):
            assert services.run("duo-pod", key).returncode == 0
    assert list((tmp_path / "runtime").glob("*.pod-id")) == []
    assert engine.cli("jaula", "ps", "-aq").stdout == ""
    engine.cli("jaula", "network", "rm", "systemd-lan")
    engine.cli("jaula", "volume", "rm", "systemd-data")
    engine.cli("jaula", "rmi", "localhost/app:unit")
