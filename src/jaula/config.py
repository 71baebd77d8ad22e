"""The engine's directories and settings, with the defaults that an operator can change.

An engine has two directories: ``root`` is persistent, ``run`` is volatile. Everything is written
below these two, so engines with different directories do not interfere.

Every shim shares the memory of this module with the zygote. So its classes are structs: the module
dataclasses imports inspect, ast and tokenize, which are a seventh of a zygote.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

DEFAULT_ROOT = Path("/var/lib/jaula")
DEFAULT_RUN = Path("/run/jaula")
DEFAULT_SOCKET = DEFAULT_RUN / "jaula.sock"
OWN_RUNTIME = "jaula"
METRICS_LABELS = (
    "com.docker.compose.project",
    "com.docker.compose.service",
    "io.kubernetes.container.name",
    "io.kubernetes.pod.name",
    "io.kubernetes.pod.namespace",
)
"""The container labels that metrics have by default."""


class Paths(msgspec.Struct, frozen=True):
    """The on-disk layout of one engine. Directories are created with mode 0711 or stricter."""

    root: Path = DEFAULT_ROOT
    run: Path = DEFAULT_RUN

    @property
    def database(self) -> Path:
        return self.root / "jaula.db"

    @property
    def images(self) -> Path:
        """The OCI image layout."""
        return self.root / "images"

    @property
    def layers(self) -> Path:
        """``<diff id in hex>/fs`` for each unpacked layer."""
        return self.root / "layers"

    @property
    def chunk_index(self) -> Path:
        """The index of the chunks that EROFS layers have in common."""
        return self.root / "chunks.db"

    @property
    def trust(self) -> Path:
        """``<manifest digest in hex>.json`` for each image that has signatures."""
        return self.root / "trust"

    @property
    def volumes(self) -> Path:
        return self.root / "volumes"

    @property
    def audit_log(self) -> Path:
        """``<first line>.log`` files and ``head``; accessible by root only."""
        return self.root / "audit"

    @property
    def checkpoints(self) -> Path:
        """``CONTAINER/NAME`` for each checkpoint; accessible by root only."""
        return self.root / "checkpoints"

    @property
    def honeypots(self) -> Path:
        """``NAME-TIME`` for each run of a honeypot; accessible by root only."""
        return self.root / "honeypots"

    @property
    def launchers(self) -> Path:
        """Directory of the launchers of toolbox images, by image."""
        return self.root / "launchers"

    @property
    def seccomp_cache(self) -> Path:
        return self.root / "seccomp"

    @property
    def containers(self) -> Path:
        return self.root / "containers"

    def container(self, container_id: str) -> Path:
        """Return the persistent directory of a container: upper, work, config.json, logs."""
        return self.containers / container_id

    @property
    def spare_inits(self) -> Path:
        """Return the empty directory that spare inits mount their file systems on."""
        return self.run / "spare"

    @property
    def lazy_run(self) -> Path:
        """Return the directory of mount points of lazy layers."""
        return self.run / "lazy"

    @property
    def run_directories(self) -> tuple[tuple[Path, int], ...]:
        """Return the directories that an engine needs in ``run``, with modes, parents first."""
        containers = self.run / "containers"
        return (
            (self.run, 0o711),
            (containers, 0o700),
            (self.spare_inits, 0o711),
            (self.lazy_run, 0o700),
        )

    @property
    def spare_init_ids(self) -> Path:
        """Return the file with the ids of the containers that spare inits are meant for."""
        return self.run / "spare-inits"

    def container_run(self, container_id: str) -> Path:
        """Return the volatile directory: bundle/config.json, shim.sock, exit.json."""
        return self.run / "containers" / container_id

    @property
    def socket(self) -> Path:
        return self.run / "jaula.sock"

    @property
    def cri_socket(self) -> Path:
        return self.run / "cri.sock"


class RuntimeConfig(msgspec.Struct, frozen=True):
    """Another OCI runtime: its name, its program (a path or a name in PATH) and its arguments."""

    name: str
    path: str
    arguments: tuple[str, ...] = ()


class RegistryConfig(msgspec.Struct, frozen=True):
    """Settings of the registry client. Empty proxies mean those of the environment."""

    insecure: tuple[str, ...] = ()  # HOST, HOST:PORT or network: unverified TLS or HTTP
    mirrors: tuple[str, ...] = ()  # URLs, tried first for images of docker.io
    realms: tuple[str, ...] = ()  # REGISTRY=HOST of a token server that may see credentials
    certificates: tuple[str, ...] = ("/etc/jaula/certs.d", "/etc/docker/certs.d")
    hosts: tuple[str, ...] = certificates  # directories whose hosts.toml are read
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    downloads: int = 3  # concurrent layers
    uploads: int = 5


class TlsConfig(msgspec.Struct, frozen=True):
    """PEM files of a TCP socket: the CA of its clients, and the engine's certificate and key."""

    authority: str
    certificate: str
    key: str


class StreamConfig(msgspec.Struct, frozen=True):
    """The server of exec, attach and port-forward for pods. Empty files: without TLS."""

    address: str = "127.0.0.1"
    port: int = 0  # 0: a free one
    idle_timeout: int = 4 * 3600  # seconds without a byte in either direction
    certificate: str = ""  # PEM files
    key: str = ""


class EngineConfig(msgspec.Struct, frozen=True):
    """Settings of ``jaula daemon``. Every field is a flag of that command."""

    paths: Paths = Paths()
    socket: Path = DEFAULT_SOCKET
    socket_group: str | None = None
    tcp: tuple[tuple[str, int], ...] = ()  # addresses and ports to listen on as well
    tls: TlsConfig | None = None  # of these sockets; None: clients are not authenticated
    web: str = ""  # ADDRESS:PORT of the web view; empty: none
    cri: bool = False  # serve Kubernetes' CRI as well
    cri_socket_group: str | None = None  # may connect to it; the policy decides what it may do
    streams: StreamConfig = StreamConfig()
    cri_pinned_images: tuple[str, ...] = ()  # names, or beginnings of full names and '*'
    cni_conf_dir: str = "/etc/cni/net.d"
    cni_bin_dirs: tuple[str, ...] = ("/opt/cni/bin", "/usr/lib/cni")
    storage_driver: str | None = None  # None: probe
    layer_format: str = "directory"  # or "erofs", or "verity": EROFS with fs-verity
    bridge: str = "jaula0"
    bridge_subnet: str | None = None  # CIDR; None: from the pool
    bridge_ipv6: bool = False
    bridge_subnet6: str = ""  # CIDR; empty: a unique local subnet of this machine
    address_pool: str = "172.30.0.0/15,10.208.0.0/12"  # each NETWORK or NETWORK@SIZE
    host_binding: str = ""  # default address of published ports; empty: all addresses
    network_options: dict[str, str] = {}  # defaults of bridge networks
    publish_past_firewall: bool = False  # published ports bypass the host's input rules
    subid_start: int = 1_000_000_000
    subid_count: int = 1_000_000_000
    cgroup_driver: str = "cgroupfs"  # or "systemd"
    cgroup_parent: str = "jaula"  # a slice with the driver systemd
    log_driver: str = "json-file"
    log_max_size: int = 10_000_000  # bytes; Docker's unit suffixes are decimal for logs
    log_max_file: int = 3
    log_options: dict[str, str] = {}  # defaults for log_driver
    pids_limit: int = 4096
    nofile: tuple[int, int] = (1024, 524288)  # soft, hard
    sandbox_pool: int = 4
    spare_shims: int = 1  # forked ahead of starts
    spare_inits: int = 2  # created ahead of starts
    cdi_spec_dirs: tuple[str, ...] = ("/etc/cdi", "/var/run/cdi")
    pull_mode: str = "whole"  # or "lazy": layers with a TOC are mounted while they are fetched
    audit_head: str = ""  # journald, syslog, or a syslog address; '': heads are not sent
    audit_head_interval: int = 300  # seconds
    durability: str = "strict"  # or "relaxed": a power failure may take what was answered
    selinux_type: str = ""  # of containers' processes; empty: the policy's default
    selinux_file_type: str = ""  # of their files
    runtimes: tuple[RuntimeConfig, ...] = ()
    registry: RegistryConfig = RegistryConfig()
    default_runtime: str = OWN_RUNTIME
    runtime_timeout: int = 60  # seconds that another runtime may take to create a process
    default_profile: str = "default"  # of containers without --profile
    policy: str = ""  # path of the authorisation policy; empty: the default path, if it exists
    metrics: tuple[str, int] | None = None  # address and port of /metrics without authorization
    metrics_labels: tuple[str, ...] = METRICS_LABELS  # of containers, that metrics have, too
    metrics_verify_interval: int = 0  # seconds between two verifications; 0: none
    metrics_refusals: str = "audit"  # source of the refusals that are counted: audit, ebpf or none
    log_format: str = "text"  # of the engine's own log; or "json"
    log_level: str = "info"
    debug: bool = False

    @property
    def systemd_cgroups(self) -> bool:
        """Whether the cgroups of containers are scopes of systemd."""
        return self.cgroup_driver == "systemd"

    @property
    def durable(self) -> bool:
        """Whether an answer waits until what it reports is on the disk."""
        return self.durability != "relaxed"


def default_socket() -> Path:
    """Return the socket that a client uses by default: ``$JAULA_HOST``, else the default path.

    Only ``unix://`` addresses are supported here.
    """
    host = os.environ.get("JAULA_HOST", "")
    return Path(host.removeprefix("unix://")) if host.startswith("unix://") else DEFAULT_SOCKET
