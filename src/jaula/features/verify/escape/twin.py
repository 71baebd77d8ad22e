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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from msgspec.structs import replace

from jaula.errors import Unsupported
from jaula.features.verify.escape import (
    attempts,
    profile,
    profile_layers,
    program,
    results,
    select,
    sysv_shm,
)
from jaula.features.verify.escape.api import Api
from jaula.features.verify.escape.attempts import Attempt
from jaula.features.verify.escape.check_info import INFO
from jaula.features.verify.escape.neighbour import create_neighbour, executable
from jaula.features.verify.escape.profile_layers import Sink
from jaula.features.verify.escape.results import AttemptResult
from jaula.features.verify.escape.select import HostBait
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result, Verdict
from jaula.kernel import landlock, ptrace
from jaula.kernel.libc import MACHINE
from jaula.security.lsm import detect
from jaula.spec.confinement_profile import Profile
from jaula.spec.container_copy import copied_host_config
from jaula.spec.runtime_spec import Spec

INSIDE = "/.jaula-probe"
SHARED = ("host", "container:")  # network modes
BIND_ABI = 4  # of Landlock: rules for bind(2)


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


class Copies(Protocol):
    """Makes inspect documents of copies of a container under its own profile.

    ``calls`` are added to the filter, ``destinations`` to the egress list.
    """

    def __call__(self, calls: Sequence[str], destinations: Sequence[str]) -> Mapping[str, Any]: ...


def profile_rows(
    api: Api, document: Profile, inspect: Mapping[str, Any], spec: Spec, copies: Copies
) -> list[Result]:
    """Return the rows that prove a profile.

    The loaded filters of the first process of the container are evaluated. Two twins make the
    attempts: one under the filter of the container, and one whose filter also has the calls of
    the attempts on other layers.

    :raises Unsupported: on other machines than x86_64.
    """
    if MACHINE != "x86_64":
        raise Unsupported(f"--probe needs x86_64; this host is {MACHINE}")
    pid = int(inspect["State"]["Pid"])
    container = AuditedContainer(inspect, spec)
    try:
        rows = list(profile.filter_rows(document, ptrace.seccomp_filters(pid)))
        rows += profile_layers.state_rows(document, container)
    finally:
        container.close()
    first = [*profile.attempts(document), *profile_layers.memory_programs(document)]
    permitted = profile.permitted(document)
    copy = copies((), ())
    evaluated = _attempt(api, [*first, *permitted], lambda path: body(copy, path))
    stopped, worked = evaluated[: len(first)], evaluated[len(first) :]

    mounts = profile_layers.mounts_of(inspect)
    address = profile_layers.gateway(inspect) if document.network.egress is not None else ""
    with _sink(address) as sink, _directories(mounts) as directories:
        mode = str(inspect["HostConfig"].get("NetworkMode") or "")
        facts = profile_layers.Facts(
            programs=profile_layers.programs_of(pid),
            identity=profile_layers.identity_of(pid),
            mounts=mounts,
            sink=sink[0] if sink else None,
            shared_network=f"--network={mode}" if mode.startswith(SHARED) else None,
            checks_execution=profile_layers.execution_check(),
            checks_bind=landlock.abi_version() >= BIND_ABI,
        )
        second = profile_layers.refused(document, facts)
        permitted = profile_layers.permitted(document, facts)
        calls = profile_layers.calls([*second, *permitted])
        copy = copies(calls, (sink[0].item,) if sink else ())

        def request(path: str) -> dict[str, Any]:
            twin = body(copy, path, calls=calls)
            return profile_layers.with_directories(twin, inspect, directories)

        # The limits come after the listed files: without memory the kernel drops directory entries.
        evaluated = _attempt(api, [*permitted, *second], request)
        if sink and _received(sink[1]):
            name = f"udp:{sink[0].address}:{sink[0].datagrams}"
            evaluated = [
                replace(each, refused=False, answer="a datagram arrived")
                if each.attempt.name == name
                else each
                for each in evaluated
            ]
    worked += evaluated[: len(permitted)]
    stopped += evaluated[len(permitted) :]
    rows += results.rows(stopped)
    rows += profile.permitted_rows(worked)
    return [profile.summary(rows, stopped, worked), *rows]


def _attempt(
    api: Api, selected: Sequence[Attempt], request: Callable[[str], Mapping[str, Any]]
) -> list[AttemptResult]:
    """Make attempts in a twin; ``request`` returns its request for the path of the program.

    Attempts of which the twin prints no result were not made.
    """
    entries = attempts.table(selected)
    with executable(program.build(entries)) as path:
        output = run(api, request(path))
    try:
        answers = program.read(output, len(entries))
    except ValueError as error:
        return [AttemptResult(attempt, None, str(error)) for attempt in selected]
    return results.evaluate(selected, answers)


@contextmanager
def _sink(address: str) -> Iterator[tuple[Sink, socket.socket] | None]:
    """Open sockets on an address of the host, for connections from the twin.

    Yields them with the socket of datagrams; None if this host does not have the address.
    """
    with ExitStack() as stack:
        try:
            servers = [
                stack.enter_context(socket.create_server((address, 0))) if address else None
                for _ in range(2)
            ]
            datagrams = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            if address:
                datagrams.bind((address, 0))
        except OSError:
            servers = [None, None]
        if servers[0] is None or servers[1] is None:
            yield None
            return
        refused, listed, port = (
            each.getsockname()[1] for each in (servers[0], servers[1], datagrams)
        )
        sink = Sink(address=address, refused=refused, listed=listed, datagrams=port)
        yield sink, datagrams


def _received(datagrams: socket.socket) -> bool:
    """Return whether a datagram has arrived."""
    datagrams.setblocking(False)
    try:
        datagrams.recv(16)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _directories(destinations: Sequence[str]) -> Iterator[dict[str, str]]:
    """Create an empty directory that any user may write for each destination; yield the paths."""
    parent = tempfile.mkdtemp(
        prefix="jaula-probe-", dir="/run" if os.access("/run", os.W_OK) else None
    )
    try:
        os.chmod(parent, 0o755)
        found = {}
        for number, destination in enumerate(destinations):
            found[destination] = f"{parent}/{number}"
            os.mkdir(found[destination])
            os.chmod(found[destination], 0o1777)
        yield found
    finally:
        shutil.rmtree(parent)


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


def body(
    inspect: Mapping[str, Any], path: str, binds: Sequence[str] = (), calls: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the request for the twin: the container's, without side effects on others.

    ``path`` is the program; ``binds`` are further files that it tries to read. If the container has
    a list of system calls, ``calls`` are added to it.
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
    host["SecurityOpt"] = [*(host.get("SecurityOpt") or ()), *_execution(host, calls)]
    label = ",z" if detect.selinux() else ""
    host = copied_host_config(host)
    host["Binds"] = [*host["Binds"], f"{path}:{INSIDE}:ro{label}", *binds]
    if host.get("Profile") == "honeypot":  # its values are all explicit; no sink for the twin
        host["Profile"] = "default"
    options = tuple(host.get("SecurityOpt") or ())
    if any(option.startswith("landlock=execute=") for option in options):
        host["SecurityOpt"] = [*options, f"landlock=execute={INSIDE}", f"landlock=read={INSIDE}"]
    return config | {"HostConfig": host}


def _execution(host: Mapping[str, Any], calls: Sequence[str]) -> Iterator[str]:
    """Yield the options that let the program run, if the container has lists of a profile."""
    if any(option.startswith("seccomp-allow=") for option in host.get("SecurityOpt") or ()):
        yield f"seccomp-allow=x86_64:{','.join((*program.SYSTEM_CALLS, *calls))}"
    kinds = ("landlock=read=", "landlock=write=", "landlock=execute=")
    if any(option.startswith(kinds) for option in host.get("SecurityOpt") or ()):
        yield f"landlock=execute={INSIDE}"


def _shares_hostname(host: Mapping[str, Any]) -> bool:
    """Return whether the container has the host name of the host or of another container."""
    modes = [str(host.get(key) or "") for key in ("UTSMode", "NetworkMode")]
    return modes[0] == "host" or any(mode.startswith("container:") for mode in modes)
