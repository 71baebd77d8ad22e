"""A Debian system that packages are installed on, and what they leave on it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.engine import UnixConnection
from harness.web_view import WebView

if TYPE_CHECKING:
    from harness.engine import PrivateEngine

PROJECT = Path(__file__).parents[2]
PACKAGES = PROJECT / "dist/upgrade"
OLD, NEW = PACKAGES / "old", PACKAGES / "new"
CLIENTS = PACKAGES / "clients"  # Debian's docker-cli and docker-compose
# Changed by every program, or by dpkg for each package.
UNCOUNTED = ("/proc", "/sys", "/dev", "/tmp", "/run", "/var/log", "/var/lib/dpkg", "/var/tmp",
             "/var/cache", "/var/lib/systemd", "/root")  # fmt: skip

SOCKET = "/run/jaula/jaula.sock"
AUTOMATIC = {"/proc/sys/fs/binfmt_misc"}  # mounted by the first program that looks
SLOW = 2.0  # seconds after which a command is printed with its time


def run(*words: str | Path, check: bool = True, timeout: float = 1800) -> str:
    """Run a command and return its output, with the errors.

    An installation takes ten minutes in an emulated machine on a busy host.
    """
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    environment["SYSTEMD_BUS_TIMEOUT"] = "300"  # seconds; the machine is emulated
    begin = time.monotonic()
    done = subprocess.run(
        [str(word) for word in words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=timeout, check=False, env=environment,
    )  # fmt: skip
    if (seconds := time.monotonic() - begin) > SLOW:
        print(f"  {seconds:.1f} s: {' '.join(map(str, words))[:150]}", flush=True)
    if check and done.returncode:
        raise AssertionError(f"{words}: status {done.returncode}\n{done.stdout}")
    return done.stdout


def package(directory: Path, name: str = "jaula") -> Path:
    """Return the file of a package."""
    (path,) = directory.glob(f"{name}_*.deb")
    return path


def status(name: str = "jaula") -> str:
    """Return dpkg's state of a package: installed, config-files, half-installed, "" if unknown."""
    text = run("dpkg-query", "-W", "-f", "${db:Status-Status}", name, check=False).strip()
    return "" if text.startswith("dpkg-query: no packages found") else text


def is_active(unit: str) -> bool:
    return run("systemctl", "is-active", unit, check=False).strip() == "active"


def request(method: str, path: str, body: object = None) -> bytes:
    """Return the engine's answer: a client's start takes seconds in an emulated machine."""
    connection = UnixConnection(SOCKET, timeout=1800)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        reply = connection.getresponse()
        content = reply.read()
    finally:
        connection.close()
    assert reply.status < 400, f"{method} {path}: {reply.status} {content!r}"
    return content


def containers(*, every: bool = False) -> list[dict[str, Any]]:
    """Return the documents of `inspect` of containers: of the running ones, or of all."""
    listed = json.loads(request("GET", f"/containers/json?all={int(every)}"))
    return [json.loads(request("GET", f"/containers/{c['Id']}/json")) for c in listed]


def start(name: str, image: str, *command: str) -> None:
    """Create and start a container."""
    body = {"Image": image, "Cmd": command}
    request("POST", f"/containers/create?name={name}", body)
    request("POST", f"/containers/{name}/start")


def init_pids() -> dict[str, int]:
    """Return the pid of the first process of each running container, by name."""
    return {c["Name"]: c["State"]["Pid"] for c in containers()}


def start_time(pid: int) -> int:
    """Return when a process started, in clock ticks: proc_pid_stat(5), field 22."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return int(text.rpartition(")")[2].split()[19])


def wait_until(condition: Any, seconds: float) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not hold in time"
        time.sleep(0.2)


def snapshot() -> dict[str, list[str]]:
    """Return what packages and engines can leave on a system."""
    pruned = [word for path in UNCOUNTED for word in ("-path", path, "-o")][:-1]
    files = run("find", "/", "-xdev", "(", *pruned, ")", "-prune", "-o", "-print")
    cgroups = [str(path) for path in Path("/sys/fs/cgroup").glob("*") if path.is_dir()]
    cgroups = [path for path in cgroups if not path.endswith(".mount")]
    return {
        "files": sorted(files.splitlines()),
        "runtime files": sorted(str(path) for path in Path("/run").iterdir()),
        "units": sorted(run("systemctl", "list-unit-files", "--no-legend", "--plain").splitlines()),
        "active units": sorted(_units()),
        "units in memory": sorted(_units("--all")),
        "users": Path("/etc/passwd").read_text().splitlines(),
        "groups": Path("/etc/group").read_text().splitlines(),
        "mounts": sorted({line.split()[4] for line in _lines("/proc/self/mountinfo")} - AUTOMATIC),
        "cgroups": sorted(cgroups),
        "firewall": run("nft", "list", "ruleset").splitlines(),
        "links": sorted(path.name for path in Path("/sys/class/net").iterdir()),
        "processes": sorted(_processes()),
    }


def _units(*options: str) -> list[str]:
    text = run("systemctl", "list-units", "--no-legend", "--plain", "--full", *options)
    return [line.split()[0] for line in text.splitlines() if "jaula" in line]


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _processes() -> list[str]:
    result = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            command = (directory / "cmdline").read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "/usr/lib/jaula" in command or "/usr/bin/jaula" in command:
            result.append(command.replace("\0", " "))
    return result


class PackagedWebView(WebView):
    """``jaula web`` of the packages, for the engine of the service."""

    def __init__(self) -> None:
        super().__init__(cast("PrivateEngine", None))

    def command(self, *words: str) -> list[str]:
        return ["/usr/bin/jaula", "web", *words]

    @staticmethod
    def environment() -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}


def difference(before: dict[str, list[str]], after: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return what is new or missing, by kind."""
    result = {}
    for kind, lines in before.items():
        new, old = set(after[kind]), set(lines)
        if changed := [f"+ {line}" for line in new - old] + [f"- {line}" for line in old - new]:
            result[kind] = sorted(changed)
    return result
