"""dockerd as a foreign engine: its containers, images, settings and files.

Evidence: the shims of its containerd and their children in /proc, the cgroups, namespaces and
mounts of these, the rules of iptables and the proxies in its network namespace, the layers on the
disk. Its API is only read: names, images, and settings that leave no trace in the kernel. A
container that the kernel has and the API does not list is a subject too.

Numbers and subjects of controls: CIS Docker Benchmark 1.6.0.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from jaula.errors import InvalidRequest, JaulaError
from jaula.features.audit.benchmark import (
    catalog,
    container_state,
    engine,
    engine_files,
    host,
    images,
)
from jaula.features.audit.benchmark.assessment import Subject
from jaula.features.audit.benchmark.container_state import ContainerState, Port
from jaula.features.audit.benchmark.control import (
    Control,
    Judge,
    Judgement,
    Kind,
    Profile,
    Scope,
    State,
    fails,
    judged,
    manual,
    not_applicable,
    passes,
    unknown,
)
from jaula.features.audit.benchmark.engine import EngineSettings, EngineState
from jaula.features.audit.benchmark.host import Layout
from jaula.features.verify.host.host import Host
from jaula.features.verify.model.host_snapshot import HostSnapshot
from jaula.kernel.namespace_threads import in_unshared_thread, join_namespaces

DEFAULT_SOCKET = "/run/docker.sock"
CONFIG_FILE = "/etc/docker/daemon.json"
CONFIG_LIMIT = 1 << 20  # bytes
ANSWER_LIMIT = 64 << 20  # bytes of an answer of the API
TIMEOUT = 30.0  # seconds
MAX_OPEN_FILES = 1 << 20
_peer = struct.Struct("iII")  # struct ucred


# -- the API ----------------------------------------------------------------------------------


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self._path)


class DockerApi:
    """The API at a unix socket. Its only method is GET."""

    def __init__(self, path: str) -> None:
        self.path = path

    def get(self, target: str) -> Any:
        """Return the document at a target; None if there is none (404).

        :raises OSError: when dockerd does not answer, or answers with an error.
        """
        connection = _Connection(self.path)
        try:
            connection.request("GET", target)
            response = connection.getresponse()
            body = response.read(ANSWER_LIMIT + 1)
        except http.client.HTTPException as error:
            raise OSError(os.EX_PROTOCOL, f"{self.path} answers {error!r}") from None
        finally:
            connection.close()
        if response.status == 404:
            return None
        try:
            document = json.loads(body) if len(body) <= ANSWER_LIMIT else None
        except (ValueError, RecursionError):
            document = None
        if response.status != 200 or document is None:
            raise OSError(os.EX_PROTOCOL, f"GET {target}: status {response.status}")
        return document

    def peer(self) -> int:
        """Return the process that listens at the socket.

        :raises OSError: when no process listens there.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(TIMEOUT)
            client.connect(self.path)
            raw = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _peer.size)
            return int(_peer.unpack(raw)[0])


# -- pure parts -------------------------------------------------------------------------------


class Shim(msgspec.Struct, frozen=True):
    """A shim of containerd: its container, and the socket and namespace of its containerd."""

    pid: int
    id: str
    address: str
    namespace: str


def parse_shim(pid: int, words: Sequence[str]) -> Shim | None:
    """Return the shim that a command line is of, or None. Pure."""
    if not words or not os.path.basename(words[0]).startswith("containerd-shim"):
        return None
    options = {name.lstrip("-"): value for name, value in itertools.pairwise(words)}
    if not options.get("id") or not options.get("namespace"):
        return None
    return Shim(pid, options["id"], options.get("address", ""), options["namespace"])


def parse_options(words: Sequence[str]) -> dict[str, str]:
    """Return the flags of dockerd's command line, ``true`` for one without a value. Pure."""
    options: dict[str, str] = {}
    rest = list(words[1:])
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("-") else "true"
        options[_SHORT.get(name, name)] = value
    return options


_SHORT = {"D": "debug", "H": "host", "G": "group", "g": "data-root", "l": "log-level",
          "p": "pidfile", "s": "storage-driver", "b": "bridge", "hosts": "host",
          "default-ulimits": "default-ulimit"}  # fmt: skip


def parse_config(data: bytes) -> dict[str, str]:
    """Return the settings of daemon.json by the names of the flags. Pure.

    :raises ValueError: when it is not a JSON object.
    """
    document = json.loads(data or b"{}")
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    return {
        _SHORT.get(str(name), str(name)): value if isinstance(value, str) else json.dumps(value)
        for name, value in document.items()
    }


def parse_proxy(words: Sequence[str]) -> tuple[str, Port] | None:
    """Return the container's address and the port of a docker-proxy, or None. Pure."""
    if not words or os.path.basename(words[0]) != "docker-proxy":
        return None
    options = dict(itertools.pairwise(words))
    try:
        port = Port(options["-host-ip"], int(options["-host-port"]), options.get("-proto", "tcp"))
        return options["-container-ip"], port
    except (KeyError, ValueError):
        return None


def drops_traffic(rules: str, bridge: str) -> bool:
    """Return whether iptables drops what goes from a bridge to itself. Pure.

    ``rules`` is the output of ``iptables-save``.
    """
    pattern = re.compile(rf"^-A \S+ -i {re.escape(bridge)} -o {re.escape(bridge)} -j DROP$", re.M)
    return pattern.search(rules) is not None


def layer_trees(document: Mapping[str, Any]) -> list[str] | None:
    """Return the directories of an image's layers, lowest first; None with another driver. Pure."""
    driver = document.get("GraphDriver") or {}
    data = driver.get("Data") or {}
    if driver.get("Name") != "overlay2" or not data.get("UpperDir"):
        return None
    lower = [tree for tree in str(data.get("LowerDir") or "").split(":") if tree]
    return [*reversed(lower), str(data["UpperDir"])]


# -- reading ----------------------------------------------------------------------------------


class DockerState(EngineState, frozen=True):
    """dockerd; ``rules`` is the output of iptables-save, None if it cannot be read.

    ``options`` are its flags and settings by the names of the flags, ``config_error`` says why
    its file cannot be read.
    """

    options: Mapping[str, str] = {}
    config_error: str = ""
    rules: str | None = None
    proxies: int = 0


class DockerHost:
    """dockerd at a socket, and what the kernel shows of it."""

    def __init__(self, socket_path: str) -> None:
        """Find the process of dockerd.

        :raises InvalidRequest: when no dockerd of root listens at the socket.
        :raises OSError: when /proc cannot be read.
        """
        self.api = DockerApi(socket_path)
        try:
            self.pid = _dockerd(self.api.peer(), socket_path)
        except OSError as error:
            raise InvalidRequest(
                f"no dockerd listens at {socket_path}: {error.strerror or error}",
                hint="name its socket: jaula audit --docker unix:///run/docker.sock",
            ) from None
        if os.stat(f"/proc/{self.pid}").st_uid != 0:
            raise InvalidRequest(
                f"the dockerd at {socket_path} (process {self.pid}) is rootless: its containers "
                "are in namespaces of its user",
                hint="audit the dockerd of root",
            )
        words = _words(self.pid)
        self.options = parse_options(words)
        self.config_file = self.options.get("config-file", CONFIG_FILE)
        self.config_error = ""
        try:
            with open(self.config_file, "rb") as file:
                self.options = {**parse_config(file.read(CONFIG_LIMIT)), **self.options}
        except FileNotFoundError:
            pass  # it is optional
        except (OSError, ValueError, RecursionError) as error:
            self.config_error = f"{self.config_file}: {error}"
        self.rules = self._in_network(_iptables)
        self.process = self._in_network(lambda: engine.read_process(self.pid))

    def _in_network(self, work: Callable[[], Any]) -> Any:
        """Run ``work`` in the network namespace of dockerd."""

        def run() -> Any:
            join_namespaces(self.pid, ("net",))
            return work()

        return in_unshared_thread(run)

    def proxies(self) -> dict[str, list[Port]]:
        """Return the ports of its proxies by the address of the container."""
        ports: dict[str, list[Port]] = {}
        for pid in engine.child_pids(self.pid):
            parsed = parse_proxy(_words(pid))
            if parsed is not None:
                ports.setdefault(parsed[0], []).append(parsed[1])
        return ports

    @property
    def containerd(self) -> str:
        """The socket of its containerd: its own child's, or the host's."""
        if "containerd" in self.options:
            return self.options["containerd"]
        own = os.path.join(self.options.get("exec-root", "/var/run/docker"),
                           "containerd/containerd.sock")  # fmt: skip
        own = os.path.realpath(own)
        return own if os.path.exists(own) else "/run/containerd/containerd.sock"

    def shims(self) -> Iterator[Shim]:
        """Yield the shims of its containerd, in the namespace of its containers."""
        namespace = self.options.get("containerd-namespace", "moby")
        for name in os.listdir("/proc"):
            if not (name.isascii() and name.isdigit()):
                continue
            shim = parse_shim(int(name), _words(int(name)))
            if shim is None or shim.namespace != namespace:
                continue
            if os.path.realpath(shim.address) == os.path.realpath(self.containerd):
                yield shim

    def inits(self) -> dict[str, int]:
        """Return the first process of each container by its id: the shim's child in its cgroup."""
        inits: dict[str, int] = {}
        for shim in self.shims():
            for pid in engine.child_pids(shim.pid):
                try:
                    groups = Path(f"/proc/{pid}/cgroup").read_text()
                except OSError:
                    continue  # it has exited
                if shim.id in groups:
                    inits[shim.id] = min(pid, inits.get(shim.id, pid))
        return inits

    def layout(self, info: Mapping[str, Any]) -> Layout:
        """Return its paths; members have the files of Docker at the same numbers of controls."""
        executable = _link(f"/proc/{self.pid}/exe")
        runtime = (info.get("Runtimes") or {}).get(str(info.get("DefaultRuntime"))) or {}
        return Layout(
            root=str(info.get("DockerRootDir") or self.options.get("data-root", "/var/lib/docker")),
            run="/run/containerd",
            socket=self.api.path,
            cri_socket=self.containerd,
            config_directory="/etc/docker",
            config_file="" if self.config_file == os.devnull else self.config_file,
            policy="/etc/containerd/config.toml",
            service_unit=engine_files.unit_path("docker.service"),
            socket_unit=engine_files.unit_path("docker.socket"),
            environment_file="/etc/default/docker",
            sysconfig_file="/etc/sysconfig/docker",
            package=executable,
            interpreter=shutil.which("containerd") or "",
            command=shutil.which("containerd-shim") or "",
            own_runtime=shutil.which("containerd-shim-runc-v2") or "",
            other_runtime=shutil.which(str(runtime.get("path") or "runc")) or "",
        )

    def settings(self, info: Mapping[str, Any]) -> EngineSettings:
        """Return the settings that controls of both engines need."""
        parent = "system.slice" if info.get("CgroupDriver") == "systemd" else "docker"
        tls = "tlsverify" in self.options or "tls" in self.options
        home = "/etc/docker"
        return EngineSettings(
            cgroup_parent=self.options.get("cgroup-parent", parent),
            tls_authority=self.options.get("tlscacert", f"{home}/ca.pem" if tls else ""),
            tls_certificate=self.options.get("tlscert", f"{home}/server-cert.pem" if tls else ""),
            tls_key=self.options.get("tlskey", f"{home}/server-key.pem" if tls else ""),
            certificates=(f"{home}/certs.d",),
            config_file=self.config_file,
        )


def _dockerd(pid: int, socket_path: str) -> int:
    """Return the process of dockerd: the listener, or what systemd gave the socket to.

    :raises OSError: when it is not dockerd.
    """
    if pid == 1:
        process = engine.find_process(os.path.realpath(socket_path))
        pid = process.pid if process else pid
    words = _words(pid)
    if not words or os.path.basename(words[0]) not in ("dockerd", "dockerd-rootless.sh"):
        name = words[0] if words else "of another pid namespace"
        raise OSError(os.EX_CONFIG, f"process {pid} ({name}) serves it, which is not dockerd")
    return pid


def _words(pid: int) -> list[str]:
    """Return the command line of a process, empty if it has exited."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read(1 << 20).decode("utf-8", "replace").split("\0")[:-1]
    except OSError:
        return []


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _iptables() -> str | None:
    """Return the rules of iptables; None if the command is absent or fails."""
    try:
        done = subprocess.run(
            ("iptables-save",), capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def subjects(
    docker: DockerHost, scopes: Sequence[Scope]
) -> tuple[list[Subject], Mapping[str, Any]]:
    """Return what is judged, and dockerd's document of itself ('' members if it is silent).

    :raises OSError: when /proc cannot be read.
    """
    try:
        info = docker.api.get("/info") or {}
        silence = ""
    except OSError as error:
        info, silence = {}, f"dockerd does not answer: {error.strerror or error}"
    layout, settings = docker.layout(info), docker.settings(info)
    result: list[Subject] = []
    if Scope.HOST in scopes:
        result.append(_host(docker, layout, info))
    if tuple(scopes) == (Scope.HOST,):
        return result, info
    containers = _containers(docker, layout.root)
    if Scope.IMAGES in scopes:
        result += _images(docker) if not silence else []
    result += containers
    if silence:
        result.append(Subject(Kind.ENGINE, "dockerd", None, silence))
    else:
        states = tuple(subject.evidence for subject in containers if not subject.error)
        result.append(Subject(Kind.ENGINE, "dockerd", _engine(docker, info, settings, states)))
    try:
        files = engine_files.read(layout, settings, 0, 0)
        result.append(Subject(Kind.ENGINE_FILES, "dockerd", files))
    except OSError as error:
        result.append(Subject(Kind.ENGINE_FILES, "dockerd", None, f"it cannot be read: {error}"))
    return result, info


def _host(docker: DockerHost, layout: Layout, info: Mapping[str, Any]) -> Subject:
    shim = shutil.which("containerd-shim-runc-v1") or ""
    layout = msgspec.structs.replace(layout, socket_unit=shim)  # its number is 1.1.16 here
    report = Host(root=Path(layout.root), run=Path(layout.run), socket=Path(layout.socket))
    try:
        state = host.read(report, layout)
    except OSError as error:
        return Subject(Kind.HOST, report.name, None, f"it cannot be read: {error}")
    version = f"of dockerd {info.get('ServerVersion', 'unknown')}"
    return Subject(Kind.HOST, report.name, msgspec.structs.replace(state, version=version))


def _containers(docker: DockerHost, root: str) -> list[Subject]:
    """Read every container that the kernel has; the API gives names and settings."""
    snapshot = HostSnapshot()
    snapshot.packet_filter = []  # dockerd's rules are of iptables, in its network namespace
    try:
        listed = {entry["Id"]: entry for entry in docker.api.get("/containers/json") or ()}
        names = {
            name: image["Id"]
            for image in docker.api.get("/images/json") or ()
            for tag in image.get("RepoTags") or ()
            for name in (tag, tag.removesuffix(":latest"))
        }
    except OSError:
        listed, names = {}, {}  # the kernel has the containers, also without the daemon
    proxies, inits = docker.proxies(), docker.inits()
    result = []
    for id, entry in listed.items():
        if id not in inits and _is_running(docker, id):
            name = (entry.get("Names") or [id[:12]])[0].lstrip("/")
            reason = f"no shim of {docker.containerd} has it: another runtime may run it"
            result.append(Subject(Kind.CONTAINER, name, None, reason))
    for id, pid in sorted(inits.items()):
        name = id[:12]
        try:
            document = docker.api.get(f"/containers/{id}/json") if id in listed else None
            unlisted = document is None
            document = {**(document or {"Id": id, "Name": name}), "State": {
                **((document or {}).get("State") or {}), "Pid": pid, "Running": True}}  # fmt: skip
            name = str(document.get("Name") or name).lstrip("/")
            execs = [docker.api.get(f"/exec/{each}/json") or {}
                     for each in document.get("ExecIDs") or ()]  # fmt: skip
            state = container_state.read(document, snapshot, execs, names, root, docker.rules or "")
            ports = {*state.ports, *_proxied(document, proxies)}
            state = msgspec.structs.replace(
                state, ports=tuple(sorted(ports, key=str)), unlisted=unlisted
            )
            result.append(Subject(Kind.CONTAINER, name, state))
        except (OSError, ValueError, KeyError, JaulaError) as error:
            if os.path.exists(f"/proc/{pid}"):
                result.append(Subject(Kind.CONTAINER, name, None, f"it cannot be read: {error}"))
    return result


def _is_running(docker: DockerHost, id: str) -> bool:
    """Return whether a container still runs."""
    try:
        document = docker.api.get(f"/containers/{id}/json") or {}
    except OSError:
        return False
    return bool((document.get("State") or {}).get("Running"))


def _proxied(document: Mapping[str, Any], proxies: Mapping[str, list[Port]]) -> Iterable[Port]:
    networks = ((document.get("NetworkSettings") or {}).get("Networks") or {}).values()
    for network in networks:
        yield from proxies.get(str(network.get("IPAddress") or ""), ())


def _images(docker: DockerHost) -> list[Subject]:
    scan = images.LayerScan("")
    result = []
    for entry in docker.api.get("/images/json") or ():
        document = docker.api.get(f"/images/{entry['Id']}/json")
        history = docker.api.get(f"/images/{entry['Id']}/history")
        if document is None or history is None:
            continue  # it was removed since it was listed
        state = images.read(document, history, scan, layer_trees(document))
        result.append(Subject(Kind.IMAGE, state.name, state))
    return result


def _engine(
    docker: DockerHost,
    info: Mapping[str, Any],
    settings: EngineSettings,
    containers: tuple[ContainerState, ...],
) -> DockerState:
    listed = docker.api.get("/images/json") or []
    every = docker.api.get("/containers/json?all=1") or []
    return DockerState(
        info=info,
        version=docker.api.get("/version") or {},
        settings=settings,
        process=docker.process,
        bridge=engine.read_bridge(docker.api.get("/networks") or []),
        aufs_mounts=0,
        containers=containers,
        images=len(listed),
        unused_images=images.count_unused(
            (image["Id"] for image in listed), (c["ImageID"] for c in every)
        ),
        stopped_containers=sum(c["State"] != "running" for c in every),
        options=docker.options,
        config_error=docker.config_error,
        rules=docker.rules,
        proxies=sum(map(len, docker.proxies().values())),
    )


# -- judges -----------------------------------------------------------------------------------


def _traffic(state: DockerState) -> Judgement:
    bridge = state.bridge.name
    if not bridge:
        return not_applicable("there is no default bridge")
    if state.rules is None:
        return unknown("iptables-save does not list the rules")
    drops = drops_traffic(state.rules, bridge)
    verb = "drops" if drops else "does not drop"
    return judged(drops, f"iptables {verb} what goes from {bridge} to {bridge}",
                  "run dockerd with --icc=false")  # fmt: skip


def _log_level(state: DockerState) -> Judgement:
    level = state.options.get("log-level", "info")
    debug = bool(state.info.get("Debug"))
    return judged(level == "info" and not debug, f"log level {'debug' if debug else level}",
                  "run dockerd with --log-level info")  # fmt: skip


def _firewall(state: DockerState) -> Judgement:
    if state.options.get("iptables") == "false":
        return fails("iptables is false", "run dockerd without --iptables=false")
    if state.rules is None:
        return unknown("iptables-save does not list the rules")
    return judged(":DOCKER " in state.rules, "its chain DOCKER is "
                  f"{'loaded' if ':DOCKER ' in state.rules else 'absent'}",
                  "restart dockerd; it loads its rules")  # fmt: skip


def _ulimits(state: DockerState) -> Judgement:
    limits = state.options.get("default-ulimit")
    if limits:
        return passes(f"default ulimits {limits}")
    high = [c.name for c in state.containers if c.nofile is None or c.nofile > MAX_OPEN_FILES]
    if high:
        return fails(f"no default ulimit; containers with more than {MAX_OPEN_FILES} open files: "
                     f"{', '.join(high[:5])}", "run dockerd with --default-ulimit")  # fmt: skip
    return manual("no default ulimit; the limits of containerd are inherited",
                  "run dockerd with --default-ulimit, if these limits are too high")  # fmt: skip


def _authorization(state: DockerState) -> Judgement:
    plugins = (state.info.get("Plugins") or {}).get("Authorization") or ()
    return judged(bool(plugins), f"authorization plugins: {', '.join(plugins) or 'none'}; every "
                  "client of the socket is root of the host", "run dockerd with "
                  "--authorization-plugin")  # fmt: skip


def _new_privileges(state: DockerState) -> Judgement:
    default = "name=no-new-privileges" in (state.info.get("SecurityOptions") or ())
    number = sum(c.no_new_privs for c in state.containers)
    kind = "the default" if default else "not the default"
    return judged(default, f"no-new-privileges is {kind}; set in {number} of "
                  f"{len(state.containers)} containers",
                  "run dockerd with --no-new-privileges")  # fmt: skip


def _proxy(state: DockerState) -> Judgement:
    off = state.options.get("userland-proxy") == "false"
    return judged(
        off and not state.proxies,
        f"userland-proxy is {'off' if off else 'on'}; {state.proxies} docker-proxy run",
        "run dockerd with --userland-proxy=false",
    )


def _signatures(state: DockerState) -> Judgement:
    return fails("dockerd accepts images without a signature; content trust is a variable of its "
                 "clients", "set DOCKER_CONTENT_TRUST=1 for each client")  # fmt: skip


def _manual_images(state: DockerState) -> Judgement:
    return manual("dockerd has no policy on images", "list the sources of the images")


def _cgroup_parent(state: DockerState) -> Judgement:
    parent = state.options.get("cgroup-parent")
    if parent:
        return manual(f"cgroup-parent is {parent}",
                      "confirm that this parent has the intended limits")  # fmt: skip
    return engine.in_cgroup_parent(state)


JUDGES: Mapping[str, Callable[[DockerState], Judgement]] = {
    "2.2": _traffic,
    "2.3": _log_level,
    "2.4": _firewall,
    "2.8": _ulimits,
    "2.10": _cgroup_parent,
    "2.12": _authorization,
    "2.14": _new_privileges,
    "2.16": _proxy,
    "4.2": _manual_images,
    "4.5": _signatures,
    "4.12": _manual_images,
}
"""Judges of dockerd that are not those of this engine, by number."""

NAMES = {
    "1.1.3": "dockerd", "1.1.4": "/run/containerd", "1.1.5": "the data directory",
    "1.1.6": "/etc/docker", "1.1.7": "docker.service", "1.1.8": "containerd's socket",
    "1.1.9": "the API socket", "1.1.10": "/etc/default/docker", "1.1.11": "daemon.json",
    "1.1.12": "containerd/config.toml", "1.1.13": "/etc/sysconfig/docker",
    "1.1.14": "containerd", "1.1.15": "containerd-shim", "1.1.16": "containerd-shim-runc-v1",
    "1.1.17": "containerd-shim-runc-v2", "1.1.18": "runc",
    "3.1": "docker.service", "3.3": "docker.socket", "3.5": "/etc/docker",
    "3.19": "/etc/default/docker", "3.22": "/etc/sysconfig/docker",
    "3.23": "containerd's socket",
}  # fmt: skip
"""Files of Docker, by the number of the control on their changes or owner."""
REMEDIATIONS = {
    "2.1": "run dockerd without root, if its limits permit it",
    "2.9": "run dockerd with --userns-remap",
    "2.15": "run dockerd with --live-restore",
    "4.3": "list its packages",
    "5.31": "run dockerd with --userns-remap, and the container without --userns host",
}
"""Remediations that are not those of this engine."""
_OF_DOCUMENTS = frozenset({"5.15", "5.27", "5.28", "5.30"})
_COMMAND = re.compile(r"\bjaula (?=update|exec|image prune|container prune)")


def _of_docker(control: Control, judge: Judge, kind: Kind) -> Judge:
    """Return the judge with remediations for Docker; a foreign engine's files have no repair."""

    def run(state: Any) -> Judgement:
        if kind is Kind.CONTAINER and control.id in _OF_DOCUMENTS and state.unlisted:
            return unknown("the API does not list this container; the kernel has no such value")
        judgement = judge(state)
        text = _COMMAND.sub("docker ", judgement.remediation)
        text = REMEDIATIONS.get(control.id, text) if text else ""
        if control.id.startswith("1.1.") and judgement.fixes:
            path = host.recorded_paths(state.layout)[control.id]
            text = f"add to /etc/audit/rules.d/docker.rules: -w {path} -p wa -k docker"
        if control.id == "1.1.2" and judgement.state is State.MANUAL:
            text = "confirm that each of them may be root of the host"
        return Judgement(judgement.state, judgement.evidence, text)

    return run


def _title(control: Control) -> str:
    if control.id.startswith("1.1.") and control.id in NAMES:
        return f"Changes of {NAMES[control.id]} are recorded"
    for file in engine_files.FILES:
        name = NAMES.get(file.owner_id)
        if name and control.id in (file.owner_id, file.mode_id):
            return control.title.replace(file.what, name)
    return control.title


def _control(control: Control) -> Control:
    judges = {
        kind: _of_docker(
            control, JUDGES.get(control.id, judge) if kind is Kind.ENGINE else judge, kind
        )
        for kind, judge in control.judges.items()
    }
    return msgspec.structs.replace(control, title=_title(control), judges=judges)


PROFILE = Profile(
    "cis", catalog.CIS.title, catalog.CIS.sections, tuple(map(_control, catalog.CIS.controls))
)
"""The same controls, judged for dockerd."""
