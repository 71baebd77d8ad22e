"""Twin: a disposable copy of a container that runs the escape tests.

The twin has the container's image, user, environment and host configuration, so it has the same
spec. Its name, writable layer and lack of published ports differ, and every volume and bind is
read-only. The program is on a read-only bind of a temporary file of the host. Container, anonymous
volumes and file are always removed.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from jaula.audit.escape import attempts, profile, program, results, select, sysv_shm
from jaula.audit.escape.api import Api
from jaula.audit.escape.check_info import INFO
from jaula.audit.escape.neighbour import create_neighbour, executable
from jaula.audit.escape.select import HostBait
from jaula.audit.model.container import AuditedContainer
from jaula.audit.model.result import Result, Verdict
from jaula.errors import Unsupported
from jaula.kernel import ptrace
from jaula.kernel.libc import MACHINE
from jaula.security.lsm import detect
from jaula.spec import honeypot
from jaula.spec.profile import Profile
from jaula.spec.runtime import Spec

INSIDE = "/.jaula-probe"


def rows(api: Api, inspect: Mapping[str, Any], spec: Spec) -> list[Result]:
    """Return the rows of a twin's attempts.

    :raises Unsupported: on other machines than x86_64.
    """
    if MACHINE != "x86_64":
        raise Unsupported(f"--probe needs x86_64; this host is {MACHINE}")
    container = AuditedContainer(inspect, spec)
    networks = api.document("GET", "/networks")
    with _bait() as bait, create_neighbour(api, inspect, INSIDE) as neighbour:
        selected = select.select_attempts(container, bait, neighbour, networks)
        entries = attempts.table(selected)
        with executable(program.build(entries)) as path:
            output = run(api, body(inspect, path, neighbour.binds))
        try:
            answers = program.read(output, len(entries))
        except ValueError as error:
            return [Result("tried", INFO.layer, f"{len(selected)} attempts", str(error),
                        "a twin's output", Verdict.UNKNOWN, INFO.id)]  # fmt: skip
    return results.rows(results.evaluate(selected, answers))


def profile_rows(api: Api, document: Profile, pid: int, copy: Mapping[str, Any]) -> list[Result]:
    """Return the rows that prove a profile.

    ``pid`` is the first process of the container, whose loaded filters are evaluated. ``copy`` is
    the inspect document with the request of a copy under :func:`profile.of_probe`.

    :raises Unsupported: on other machines than x86_64.
    """
    if MACHINE != "x86_64":
        raise Unsupported(f"--probe needs x86_64; this host is {MACHINE}")
    rows = list(profile.filter_rows(document, ptrace.seccomp_filters(pid)))
    selected, permitted = profile.attempts(document), profile.permitted(document)
    entries = attempts.table([*selected, *permitted])
    with executable(program.build(entries)) as path:
        output = run(api, body(copy, path))
    try:
        answers = program.read(output, len(entries))
    except ValueError as error:
        rows.append(Result("tried", INFO.layer, f"{len(selected)} attempts", str(error),
                           "a twin's output", Verdict.UNKNOWN, INFO.id))  # fmt: skip
    else:
        evaluated = results.evaluate([*selected, *permitted], answers)
        rows += results.rows(evaluated[: len(selected)])
        if permitted:
            rows.append(profile.permitted_row(evaluated[len(selected) :]))
    return [profile.summary(rows), *rows]


@contextmanager
def _bait() -> Iterator[HostBait]:
    """Create a file, abstract socket, loopback port and shared memory segment of the host."""
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
            sysv_shm.segment() as key,
        ):
            unix.bind(name)
            unix.listen()
            yield HostBait(file, name, inet.getsockname()[1], key)
    finally:
        shutil.rmtree(directory)


def run(api: Api, request: Mapping[str, Any]) -> str:
    """Run the twin, return its output, and remove it."""
    name = f"jaula-probe-{os.urandom(6).hex()}"
    created = api.document("POST", "/containers/create", (("name", name),), request)
    url = f"/containers/{created['Id']}"
    try:
        api.request("POST", f"{url}/start")
        api.request("POST", f"{url}/wait")
        output = api.request("GET", f"{url}/logs", (("stdout", "1"), ("stderr", "1")))
    finally:
        api.request("DELETE", url, (("force", "1"), ("v", "1")))
    return _unframed(output)


def _unframed(output: bytes) -> str:
    """Decode a log stream whose frames have a header of 8 bytes."""
    text = b""
    while len(output) >= 8:
        length = int.from_bytes(output[4:8], "big")
        text += output[8 : 8 + length]
        output = output[8 + length :]
    return text.decode("ascii", "replace")


def body(inspect: Mapping[str, Any], path: str, binds: Sequence[str] = ()) -> dict[str, Any]:
    """Return the request for the twin: the container's, without side effects on others.

    ``path`` is the program; ``binds`` are further files that it tries to read.
    """
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
    if _shares_hostname(host):
        for name in ("Hostname", "Domainname"):  # a request may not name another's
            config.pop(name, None)
    if volumes:
        config["Volumes"] = volumes  # new ones, empty, removed with the twin
    host["SecurityOpt"] = [*(host.get("SecurityOpt") or ()), *_execution(host)]
    label = ",z" if detect.selinux() else ""
    host |= {
        "Binds": [*map(readonly, host.get("Binds") or ()), f"{path}:{INSIDE}:ro{label}", *binds],
        "Mounts": [{**mount, "ReadOnly": mount.get("Type") != "tmpfs"}
                   for mount in host.get("Mounts") or ()],
        "VolumesFrom": [f"{source.removesuffix(':rw').removesuffix(':ro')}:ro"
                        for source in host.get("VolumesFrom") or ()],
        "PortBindings": {},
        "PublishAllPorts": False,
        "RestartPolicy": {"Name": "no"},
        "AutoRemove": False,
        "LogConfig": {"Type": "json-file", "Config": {}},
    }  # fmt: skip
    if host.get("Profile") == honeypot.NAME:  # its values are all explicit; no sink for the twin
        host["Profile"] = "default"
    options = tuple(host.get("SecurityOpt") or ())
    if any(option.startswith("landlock=execute=") for option in options):
        host["SecurityOpt"] = [*options, f"landlock=execute={INSIDE}", f"landlock=read={INSIDE}"]
    return config | {"HostConfig": host}


def _execution(host: Mapping[str, Any]) -> Iterator[str]:
    """Yield the options that let the program run, if the container has lists of a profile."""
    if any(option.startswith("seccomp-allow=") for option in host.get("SecurityOpt") or ()):
        yield f"seccomp-allow={','.join(program.SYSTEM_CALLS)}"
    kinds = ("landlock=read=", "landlock=write=", "landlock=execute=")
    if any(option.startswith(kinds) for option in host.get("SecurityOpt") or ()):
        yield f"landlock=execute={INSIDE}"


def _shares_hostname(host: Mapping[str, Any]) -> bool:
    """Return whether the container has the host name of the host or of another container."""
    modes = [str(host.get(key) or "") for key in ("UTSMode", "NetworkMode")]
    return modes[0] == "host" or any(mode.startswith("container:") for mode in modes)


def readonly(bind: str) -> str:
    """Return a bind with ``ro``, and without options that change the source."""
    source, _, rest = bind.partition(":")
    target, _, options = rest.partition(":")
    options_kept = [
        word for word in options.split(",") if word not in ("", "rw", "ro", "z", "Z", "U")
    ]
    return f"{source}:{target}:{','.join(['ro', *options_kept])}"
