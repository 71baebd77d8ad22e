"""A disposable copy of a container that runs the probing program and is gone.

The twin has the container's image, user, environment and host configuration, and so the same spec;
it has another name, a writable layer of its own, no published ports, and every volume and bind
read-only. The program comes on a read-only bind of a temporary file of the host. Whatever happens,
container, anonymous volumes and file are removed.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from jaula.audit.probing import attempts, judging, program, sharedmemory
from jaula.audit.probing.about import ABOUT
from jaula.audit.row import Row, Verdict
from jaula.audit.subject import Subject
from jaula.confine import lsm
from jaula.confine.masks import MASKED_PATHS, READONLY_PATHS
from jaula.errors import Unsupported
from jaula.kernel.libc import MACHINE
from jaula.spec.runtime import Spec

INSIDE = "/.jaula-probe"
Query = Sequence[tuple[str, object]]


class Api(Protocol):
    """What is asked of the engine: the Docker Engine API."""

    def request(self, method: str, path: str, query: Query = (), body: object = None) -> bytes:
        """The body of the answer; raises where the engine refuses."""
        ...

    def document(self, method: str, path: str, query: Query = (), body: object = None) -> Any:
        """The answer's JSON document."""
        ...


def rows(api: Api, inspect: Mapping[str, Any], spec: Spec) -> list[Row]:
    """Rows of what a twin of the container tried. Raises ``Unsupported`` beside x86_64."""
    if MACHINE != "x86_64":
        raise Unsupported(f"--probe has a program for x86_64, this host is {MACHINE}")
    subject = Subject(inspect, spec)
    with _bait() as bait:
        tries = chosen(subject, bait)
        entries = attempts.table(tries)
        with _executable(program.build(entries)) as path:
            said = run(api, inspect, path)
        try:
            answers = program.read(said, len(entries))
        except ValueError as error:
            return [Row("tried", ABOUT.layer, f"{len(tries)} attempts", str(error),
                        "a twin's output", Verdict.UNKNOWN, ABOUT.id)]  # fmt: skip
    return judging.rows(judging.outcomes(tries, answers))


class Bait:
    """Things of the host that no container may reach."""

    def __init__(self, file: str, abstract: bytes, port: int, memory: int) -> None:
        self.file = file
        self.abstract = abstract
        self.port = port
        self.memory = memory


@contextmanager
def _bait() -> Iterator[Bait]:
    """A file, an abstract socket, a port of the loopback and a shared memory segment."""
    name = b"\0jaula-probe-" + os.urandom(8).hex().encode()
    directory = tempfile.mkdtemp(prefix="jaula-probe-")
    file = f"{directory}/secret"
    try:
        os.chmod(directory, 0o755)
        with open(file, "w", encoding="ascii") as secret:
            secret.write("only the host may read this\n")
        os.chmod(file, 0o644)
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as unix,
            socket.create_server(("127.0.0.1", 0)) as inet,
            sharedmemory.segment() as key,
        ):
            unix.bind(name)
            unix.listen()
            yield Bait(file, name, inet.getsockname()[1], key)
    finally:
        shutil.rmtree(directory)


@contextmanager
def _executable(image: bytes) -> Iterator[str]:
    """The program as a file that any user of any container may execute."""
    directory = tempfile.mkdtemp(prefix="jaula-probe-", dir="/run")
    try:
        os.chmod(directory, 0o755)
        path = f"{directory}/probe"
        with open(path, "wb") as file:
            file.write(image)
        os.chmod(path, 0o755)
        yield path
    finally:
        shutil.rmtree(directory)


def chosen(subject: Subject, bait: Bait) -> list[attempts.Attempt]:
    """The attempts that the container's request says must fail."""
    flag = relaxing(subject)
    privileged = "--privileged" if subject.privileged else None
    mode = subject.text("NetworkMode")
    shares = {
        key: f"{name}=host" if subject.text(key) == "host" else None
        for key, name in (("PidMode", "--pid"), ("IpcMode", "--ipc"))
    }
    host = "--network=host" if mode == "host" else None
    if mode.startswith("container:"):
        host = f"--network={mode}"
    sysctls = any("ipv6" in name for name in subject.host_config.get("Sysctls") or ())
    masked = subject.host_config.get("MaskedPaths")
    readonly = subject.host_config.get("ReadonlyPaths")
    lifted = "systempaths=unconfined" if readonly == [] else None
    asked = "--device" if subject.host_config.get("Devices") else None
    resources = subject.linux.resources
    limit = resources.pids.limit if resources and resources.pids else 0
    pids = int(subject.host_config.get("PidsLimit") or limit or 0)
    memory = max(subject.number("Memory"), subject.number("MemorySwap"))
    return [
        *attempts.calls(flag),
        *attempts.families(flag),
        *attempts.terminals(flag),
        *attempts.capabilities(privileged),
        *attempts.masked(MASKED_PATHS if masked is None else masked),
        *attempts.writes(READONLY_PATHS if readonly is None else readonly, privileged or lifted),
        *attempts.devices(privileged or asked),
        *attempts.network(bait.abstract, bait.port, alone=mode == "none", host=host,
                          ipv6="--sysctl" if sysctls else None),
        *attempts.others(bait.file, os.getpid(), bait.memory, pids=shares["PidMode"],
                         ipc=shares["IpcMode"]),
        *attempts.ceilings(pids if pids > 0 else None, memory if memory > 0 else None,
                           "--oom-kill-disable" if subject.host_config.get("OomKillDisable")
                           else None),
    ]  # fmt: skip


def relaxing(subject: Subject) -> str | None:
    """The flags for which more system calls work than by default."""
    flags = ["--privileged"] if subject.privileged else []
    flags += [f"seccomp={value}" for value in subject.security_option("seccomp") if value]
    if added := subject.names("CapAdd"):
        flags.append("--cap-add " + ",".join(added))
    return ", ".join(flags) or None


def run(api: Api, inspect: Mapping[str, Any], path: str) -> str:
    """Make the twin, let it end, and give what it printed; nothing of it stays."""
    name = f"jaula-probe-{str(inspect.get('Id'))[:12]}-{os.urandom(3).hex()}"
    made = api.document("POST", "/containers/create", (("name", name),), body(inspect, path))
    where = f"/containers/{made['Id']}"
    try:
        api.request("POST", f"{where}/start")
        api.request("POST", f"{where}/wait")
        output = api.request("GET", f"{where}/logs", (("stdout", "1"), ("stderr", "1")))
    finally:
        api.request("DELETE", where, (("force", "1"), ("v", "1")))
    return _unframed(output)


def _unframed(output: bytes) -> str:
    """The text of a log whose pieces have 8 bytes of heading each."""
    text = b""
    while len(output) >= 8:
        length = int.from_bytes(output[4:8], "big")
        text += output[8 : 8 + length]
        output = output[8 + length :]
    return text.decode("ascii", "replace")


def body(inspect: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The request that makes the twin: the container's, with what would disturb others changed."""
    config = dict(inspect.get("Config") or {})
    host = dict(inspect.get("HostConfig") or {})
    volumes = config.get("Volumes")
    for name in ("ExposedPorts", "Healthcheck", "OnBuild", "StopTimeout", "Volumes", "MacAddress"):
        config.pop(name, None)
    config |= {
        "Image": inspect.get("Image") or config.get("Image"),
        "Entrypoint": [INSIDE],
        "Cmd": [],
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "AttachStdin": False,
        "Labels": {},
    }
    if volumes:
        config["Volumes"] = volumes  # new ones, empty, removed with the twin
    label = ",z" if lsm.selinux() else ""
    host |= {
        "Binds": [*map(readonly, host.get("Binds") or ()), f"{path}:{INSIDE}:ro{label}"],
        "Mounts": [{**mount, "ReadOnly": mount.get("Type") != "tmpfs"}
                   for mount in host.get("Mounts") or ()],
        "VolumesFrom": [f"{each.removesuffix(':rw').removesuffix(':ro')}:ro"
                        for each in host.get("VolumesFrom") or ()],
        "PortBindings": {},
        "PublishAllPorts": False,
        "RestartPolicy": {"Name": "no"},
        "AutoRemove": False,
        "LogConfig": {"Type": "json-file", "Config": {}},
    }  # fmt: skip
    return config | {"HostConfig": host}


def readonly(bind: str) -> str:
    """A bind with ``ro`` among its options, and none that would change the source."""
    source, _, rest = bind.partition(":")
    target, _, options = rest.partition(":")
    kept = [word for word in options.split(",") if word not in ("", "rw", "ro", "z", "Z", "U")]
    return f"{source}:{target}:{','.join(['ro', *kept])}"
