"""Services of quadlet's files under systemd: in a virtual machine, whose init system it is.

The generator, the engine and the client are those of this tree, at the paths of an installation.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import image_archive
from harness.engine import PROJECT

pytestmark = [
    pytest.mark.vm,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        "JAULA_VM" not in os.environ or not Path("/run/systemd/system").is_dir(),
        reason="needs a virtual machine with systemd",
    ),
]

UNITS = Path("/etc/jaula/systemd")
SYSTEM = Path("/run/systemd/system")
GENERATOR = Path("/run/systemd/system-generators/jaula-system-generator")
LIBRARY = Path("/usr/local/lib/jaula-generator")
SECONDS = 300.0  # emulation is slow
LIMITS = "[Service]\nTimeoutStartSec=600\nTimeoutStopSec=300\n"


def systemctl(*words: str, check: bool = True) -> str:
    done = subprocess.run(
        ["systemctl", *words], capture_output=True, text=True, timeout=900, check=False
    )
    if check and done.returncode:
        log = subprocess.run(
            ["journalctl", "-n", "40", "--no-pager"], capture_output=True, text=True
        ).stdout
        pytest.fail(f"systemctl {' '.join(words)}: {done.stderr}\n{log}")
    return done.stdout.strip()


def value(unit: str, name: str) -> str:
    return systemctl("show", "--value", "-p", name, unit)


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > end:
            log = subprocess.run(
                ["journalctl", "-n", "60", "--no-pager"], capture_output=True, text=True
            ).stdout
            pytest.fail(f"not within {SECONDS:.0f} s: {what}\n{log}")
        time.sleep(0.5)


def jaula(*words: str) -> str:
    done = subprocess.run(["/usr/bin/jaula", *words], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module", autouse=True)
def installation() -> Iterator[None]:
    Path("/usr/bin/jaula").symlink_to(PROJECT / "jaula")
    GENERATOR.parent.mkdir(parents=True, exist_ok=True)
    # systemd runs generators with a /tmp of their own, and the tree is there.
    shutil.copytree(PROJECT / "src" / "jaula" / "quadlet", LIBRARY / "jaula" / "quadlet")
    shutil.copy(PROJECT / "src" / "jaula" / "__init__.py", LIBRARY / "jaula")
    code = f"import sys; sys.path.insert(0, {str(LIBRARY)!r})\n"
    code += "from jaula.features.quadlet.generator import main; sys.exit(main())"
    GENERATOR.write_text(f"#!/usr/bin/python3 -ISXutf8\n{code}\n")
    GENERATOR.chmod(0o755)
    for name in ("jaula.service", "jaula.socket"):
        shutil.copy(PROJECT / "packaging" / name, SYSTEM / name)
    (SYSTEM / "jaula.service.d").mkdir(exist_ok=True)
    (SYSTEM / "jaula.service.d" / "slow.conf").write_text(LIMITS + "WatchdogSec=120\n")
    socket_file = (SYSTEM / "jaula.socket").read_text()
    (SYSTEM / "jaula.socket").write_text(socket_file.replace("SocketGroup=jaula\n", ""))
    UNITS.mkdir(parents=True, exist_ok=True)
    systemctl("daemon-reload")
    systemctl("start", "jaula.socket", "jaula.service")
    jaula("load", "-i", str(image_archive("busybox")))
    yield
    systemctl("stop", "jaula.service", "jaula.socket", check=False)


@pytest.fixture
def units() -> Iterator[Callable[..., None]]:
    """Return a function that writes files of quadlet, and makes systemd read them."""
    written: list[Path] = []

    def write(**files: str) -> None:
        for name, text in files.items():
            stem, _, kind = name.rpartition("_")
            directory = SYSTEM if kind == "socket" else UNITS
            path = directory / f"{stem}.{kind}"
            if kind in ("container", "pod", "kube"):
                text += "\n" + LIMITS if "[Service]" not in text else ""
            path.write_text(text)
            written.append(path)
        systemctl("daemon-reload")

    yield write
    for path in written:
        suffix = {".pod": "-pod", ".volume": "-volume", ".network": "-network"}.get(path.suffix, "")
        systemctl("stop", f"{path.stem}{suffix}.service", check=False)
        path.unlink()
    systemctl("daemon-reload")


LOOP = "trap 'exit 0' TERM; echo begins; while :; do sleep 1; done"


def test_a_container_starts_with_its_target_restarts_and_survives_the_engine(
    units: Callable[..., None],
) -> None:
    units(
        web_container=f"""[Unit]
Description=web
[Container]
Image=busybox
Exec=sh -c "{LOOP}"
Volume=data.volume:/data
Network=lan.network
[Service]
Restart=always
TimeoutStartSec=600
[Install]
WantedBy=multi-user.target
""",
        data_volume="[Volume]\n",
        lan_network="[Network]\nSubnet=10.77.0.0/24\n",
    )
    systemctl("start", "multi-user.target")  # as the boot does
    until(lambda: value("web.service", "ActiveState") == "active", "web.service is active")
    main = value("web.service", "MainPID")
    assert "jaula" in Path(f"/proc/{main}/cmdline").read_text()
    assert jaula("ps", "--format", "{{.Names}}") == "systemd-web"
    assert value("data-volume.service", "ActiveState") == "active"
    assert "systemd-data" in jaula("volume", "ls", "-q")
    log = ["journalctl", "-u", "web.service", "-o", "cat", "--no-pager"]
    until(lambda: "begins" in subprocess.run(log, capture_output=True, text=True).stdout, "a log")

    systemctl("restart", "jaula.service")
    assert value("web.service", "MainPID") == main
    assert jaula("ps", "--format", "{{.Names}}") == "systemd-web"

    jaula("kill", "systemd-web")
    until(lambda: value("web.service", "NRestarts") == "1", "a restart")
    until(lambda: value("web.service", "ActiveState") == "active", "web.service is active again")
    systemctl("stop", "web.service")
    assert value("web.service", "Result") == "success"
    assert jaula("ps", "-aq") == ""


def test_a_service_is_active_when_its_program_says_so(units: Callable[..., None]) -> None:
    """A unit that is ordered after it starts then."""
    program = Path("/usr/local/bin/service")
    source = PROJECT / "tests" / "harness" / "service_program.c"
    subprocess.run(["gcc", "-O1", "-static", "-o", program, source], check=True)
    units(
        slow_container="[Container]\nImage=busybox\nNotify=true\nVolume=/usr/local/bin:/p:ro\n"
        'Exec=sh -c "sleep 3; /p/service STATUS=ready-now READY=1 wait"\nRunInit=true\n'
    )
    systemctl("start", "slow.service")
    assert value("slow.service", "ActiveState") == "active"
    assert value("slow.service", "StatusText") == "ready-now"
    systemctl("stop", "slow.service")


def test_the_watchdog_ends_a_service_that_is_unhealthy(units: Callable[..., None]) -> None:
    units(
        ill_container="""[Container]
Image=busybox
Notify=healthy
HealthCmd=test ! -e /sick
HealthInterval=2s
HealthRetries=1
Exec=sleep 1000
[Service]
WatchdogSec=20
Restart=no
TimeoutStartSec=600
"""
    )
    systemctl("start", "ill.service")
    jaula("exec", "systemd-ill", "touch", "/sick")
    until(lambda: value("ill.service", "ActiveState") == "failed", "the service has failed")
    assert value("ill.service", "Result") == "watchdog"
    assert jaula("ps", "-aq") == ""
    systemctl("reset-failed", "ill.service")


def test_a_socket_starts_the_container_that_serves_it(units: Callable[..., None]) -> None:
    program = Path("/usr/local/bin/service")
    if not program.exists():
        source = PROJECT / "tests" / "harness" / "service_program.c"
        subprocess.run(["gcc", "-O1", "-static", "-o", program, source], check=True)
    units(
        echo_socket="[Socket]\nListenStream=127.0.0.1:7777\nFileDescriptorName=echo\n",
        echo_container="[Container]\nImage=busybox\nNetwork=none\nVolume=/usr/local/bin:/p:ro\n"
        "Exec=/p/service serve wait\n",
    )
    systemctl("start", "echo.socket")
    assert value("echo.service", "ActiveState") == "inactive"
    with socket.create_connection(("127.0.0.1", 7777), timeout=SECONDS) as client:
        assert client.recv(100) == b"0 of echo\n"
    until(lambda: value("echo.service", "ActiveState") == "active", "echo.service is active")
    systemctl("stop", "echo.socket", "echo.service")


def test_containers_of_a_pod_start_and_stop_with_it(units: Callable[..., None]) -> None:
    units(
        duo_pod="[Pod]\nPodName=duo\n",
        one_container=f'[Container]\nImage=busybox\nPod=duo.pod\nExec=sh -c "{LOOP}"\n',
    )
    systemctl("start", "duo-pod.service")
    until(lambda: value("one.service", "ActiveState") == "active", "one.service is active")
    assert jaula("pod", "ls", "-q") != ""
    systemctl("stop", "duo-pod.service")
    until(lambda: value("one.service", "ActiveState") == "inactive", "one.service has ended")
    assert jaula("ps", "-aq") == ""


def test_a_kube_file_is_a_service(units: Callable[..., None]) -> None:
    (UNITS / "app.yaml").write_text(
        "kind: Pod\nmetadata: {name: app}\nspec:\n  terminationGracePeriodSeconds: 1\n"
        "  containers: [{name: c, image: busybox, args: [sleep, '1000']}]\n"
    )
    units(app_kube="[Kube]\nYaml=app.yaml\n")
    systemctl("start", "app.service")
    assert jaula("ps", "--format", "{{.Names}}").split() == ["app-c", "app-infra"]
    systemctl("stop", "app.service")
    assert value("app.service", "Result") == "success"
    assert jaula("ps", "-aq") == ""


def start_seconds() -> float:
    """Return how long the last start of the engine took, until it was ready."""
    begin = int(value("jaula.service", "ExecMainStartTimestampMonotonic"))
    return (int(value("jaula.service", "ActiveEnterTimestampMonotonic")) - begin) / 1e6


def test_a_start_that_takes_longer_than_its_time_out_is_not_ended() -> None:
    """The engine extends the time after a third of its start."""
    drop_in = SYSTEM / "jaula.service.d" / "slow.conf"
    settings = drop_in.read_text()
    systemctl("restart", "jaula.service")
    limit = 0.6 * start_seconds()
    drop_in.write_text(
        "[Service]\nRestart=no\nTimeoutStopSec=300\nWatchdogSec=120\n"
        f"TimeoutStartSec={limit * 1000:.0f}ms\n"
    )
    systemctl("daemon-reload")
    try:
        systemctl("restart", "jaula.service")
        assert start_seconds() > limit
        assert value("jaula.service", "Result") == "success"
    finally:
        drop_in.write_text(settings)
        systemctl("daemon-reload")


def test_an_engine_that_is_blocked_is_started_again(units: Callable[..., None]) -> None:
    (SYSTEM / "jaula.service.d" / "slow.conf").write_text(LIMITS + "WatchdogSec=30\n")
    systemctl("daemon-reload")
    systemctl("restart", "jaula.service")
    jaula("run", "-d", "--name", "stays", "busybox", "sleep", "1000")
    main = int(value("jaula.service", "MainPID"))
    os.kill(main, 19)  # SIGSTOP
    until(lambda: value("jaula.service", "MainPID") not in (str(main), "0"), "a new engine")
    until(lambda: value("jaula.service", "ActiveState") == "active", "the engine is active")
    assert jaula("ps", "--format", "{{.Names}}") == "stays"
    jaula("rm", "-f", "stays")
