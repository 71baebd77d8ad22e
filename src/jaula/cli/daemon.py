"""``jaula daemon``: run the engine in the foreground."""

from __future__ import annotations

from jaula.cli.cli_errors import CliError, UsageError
from jaula.cli.command_parser import Command, Flag, Options
from jaula.spec import log_drivers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.config import EngineConfig

_FIELDS = {
    "host": "hosts",
    "cdi-spec-dir": "cdi_spec_dirs",
    "cni-bin-dir": "cni_bin_dirs",
    "cri-pinned-image": "cri_pinned_images",
}
"""Settings whose flag has another name."""


def run(options: Options) -> int:
    """Read the configuration and run the engine.

    Every shim shares what is imported until the zygote is forked, so that is little. msgspec
    prefers typing_extensions to typing if it is installed. That would import inspect, ast and other
    modules that are of no use here. Its formats other than JSON are not either.
    """
    import gc
    import os
    import sys

    from jaula.cli import site_packages

    gc.disable()  # what an engine loads at its start stays; jaula.daemon.serve enables it again

    site_packages.enable()
    sys.modules.setdefault("typing_extensions", None)  # type: ignore[arg-type]
    from jaula.daemon import engine_archive
    from jaula.oci import fast_import

    engine_archive.install()
    fast_import.install_msgspec()
    from jaula.daemon import engine_main
    from jaula.errors import JaulaError

    try:
        config = read_config(options)
        if os.geteuid() != 0:
            from jaula.rootless import enter

            enter.enter(str(config.paths.root), str(config.paths.run))
        engine_main.main(config, lambda: read_config(options))
    except JaulaError as error:
        raise CliError(f"jaula: {error}", status=error.exit_code) from None
    return 0


def read_config(options: Options) -> EngineConfig:
    """Return the configuration: defaults, the configuration file and the flags.

    :raises InvalidRequest: when a setting is invalid, or is in the file and also a flag.
    """
    from pathlib import Path

    from jaula import cgroups, feature
    from jaula.config import EngineConfig, Paths
    from jaula.daemon.config import (
        api_sockets,
        cgroup_settings,
        daemon_json,
        feature_settings,
        logging,
        network_keys,
        registry_keys,
        storage,
        stream_settings,
    )
    from jaula.errors import InvalidRequest
    from jaula.rootless import xdg_paths

    settings: dict[str, object] = {
        "root": xdg_paths.root(),
        "run": xdg_paths.run(),
        "socket": "",
    }
    settings |= _read_config_file(options)
    for flag in FLAGS:
        field = _FIELDS.get(flag.name) or flag.name.replace("-", "_")
        if not options.is_set(flag.name) or field == "config_file":
            continue
        if field == "nofile":
            settings[field] = _nofile(options.text("nofile"))
        elif field == "add_runtime":
            runtimes = options.texts("add-runtime")
            settings["runtimes"] = tuple(daemon_json.add_runtime(text) for text in runtimes)
        elif flag.kind == "list":
            settings[field] = tuple(options.texts(flag.name))
        elif flag.kind == "string":
            settings[field] = options.text(flag.name)
        elif flag.kind == "bool":
            settings[field] = options.on(flag.name)
        else:
            settings[field] = options.number(flag.name)
    if name := str(settings.pop("userns_remap", "")):
        from jaula.daemon.config import userns_remap

        if {"subid_start", "subid_count"} & settings.keys():
            raise InvalidRequest("--userns-remap excludes --subid-start and --subid-count")
        settings["subid_start"], settings["subid_count"] = userns_remap.read(name)
    paths = Paths(*(Path(str(settings.pop(name))).absolute() for name in ("root", "run")))
    listeners = api_sockets.pop_listen_settings(settings)
    if settings["socket"] and "socket" in listeners:
        raise InvalidRequest("--socket and --host unix:// set the same socket")
    settings |= listeners
    if settings["tcp"] and xdg_paths.rootless_uid() is not None:
        raise InvalidRequest(
            "a rootless engine runs in a network namespace of its own, where no client can"
            " reach a TCP socket",
            hint="forward its unix socket with ssh -L",
        )
    if settings.get("web") and xdg_paths.rootless_uid() is not None:
        raise InvalidRequest(
            "a rootless engine runs in a network namespace of its own, where no browser can"
            " reach a web view",
            hint="run jaula web beside it",
        )
    socket = str(settings["socket"]).removeprefix("unix://")
    settings["socket"] = Path(socket).absolute() if socket else paths.socket
    registry_config = registry_keys.pop_registry_config(settings)
    stream_config = stream_settings.pop_stream_config(settings)
    network_keys.normalize(settings)
    logging.normalize(settings)
    for each in feature.features():
        for prefix, function in each.settings.items():
            if any(key.startswith(prefix) for key in settings):
                normalize = each.function(function)
                normalize(settings, rootless=xdg_paths.rootless_uid() is not None)
    storage.normalize(settings)
    cgroup_settings.normalize(
        settings,
        has_systemd=cgroups.has_systemd(),
        rootless=xdg_paths.rootless_uid() is not None,
    )
    config = EngineConfig(
        paths=paths,
        registry=registry_config,
        streams=stream_config,
        **settings,  # type: ignore[arg-type]
    )
    feature_settings.check_features(config)
    daemon_json.check_image_names("cri-pinned-images", config.cri_pinned_images)
    daemon_json.check_runtimes(config.runtimes, config.default_runtime)
    return config


def _read_config_file(options: Options) -> dict[str, object]:
    """Return the settings of the configuration file. The default file may be absent.

    :raises InvalidRequest: when the file cannot be read or conflicts with a flag.
    """
    from jaula.daemon.config import daemon_json
    from jaula.errors import InvalidRequest
    from jaula.rootless import xdg_paths

    path = (
        options.text("config-file", "")
        if options.is_set("config-file")
        else xdg_paths.config_file()
    )
    try:
        with open(path, "rb") as file:
            data = file.read(daemon_json.MAX_SIZE + 1)
    except FileNotFoundError:
        if not options.is_set("config-file"):
            return {}
        raise InvalidRequest(f"configuration file {path}: no such file") from None
    except OSError as error:
        raise InvalidRequest(f"configuration file {path}: {error.strerror}") from None
    try:
        settings, document = daemon_json.parse(data)
        daemon_json.check_conflicts(document, _flags_on_command_line(options))
    except InvalidRequest as error:
        raise InvalidRequest(
            f"unable to configure the engine with file {path}: {error.message}", hint=error.hint
        ) from None
    return settings


def _flags_on_command_line(options: Options) -> dict[str, str]:
    """Return the flags on the command line with their values as text."""
    return {
        flag.name: ", ".join(options.texts(flag.name))
        if flag.kind == "list"
        else options.text(flag.name)
        for flag in FLAGS
        if options.is_set(flag.name)
    }


def _nofile(text: str) -> tuple[int, int]:
    soft, colon, hard = text.partition(":")
    try:
        return int(soft), int(hard if colon else soft)
    except ValueError:
        raise UsageError(
            f'invalid argument "{text}" for "--nofile" flag: must be soft[:hard]'
        ) from None


FLAGS = (
    Flag(
        "config-file",
        "",
        "string",
        "Daemon configuration file (JSON, with the keys of Docker's daemon.json)",
        default="/etc/jaula/daemon.json",
        completes="file",
    ),
    Flag(
        "root",
        "",
        "string",
        "Root directory of persistent state: images, containers, volumes",
        default="/var/lib/jaula",
        completes="file",
    ),
    Flag(
        "run",
        "",
        "string",
        "Root directory for execution state files: sockets, running containers",
        default="/run/jaula",
        completes="file",
    ),
    Flag("socket", "", "string", "Socket to listen on (default RUN/jaula.sock)", completes="file"),
    Flag("socket-group", "", "string", "Group for the unix socket"),
    Flag(
        "host",
        "H",
        "list",
        "Daemon socket(s) to connect to (tcp://ADDRESS:PORT, or unix:///PATH instead of --socket)",
    ),
    Flag("tlsverify", "", "bool", "Use TLS and verify the remote"),
    Flag(
        "tlscacert",
        "",
        "string",
        "Trust certs signed only by this CA (default /etc/jaula/tls/ca.pem)",
        completes="file",
    ),
    Flag(
        "tlscert",
        "",
        "string",
        "Path to TLS certificate file (default /etc/jaula/tls/cert.pem)",
        completes="file",
    ),
    Flag(
        "tlskey",
        "",
        "string",
        "Path to TLS key file (default /etc/jaula/tls/key.pem)",
        completes="file",
    ),
    Flag("tls", "", "bool", "Use TLS; refused without --tlsverify, since any client could connect"),
    Flag("insecure-tcp", "", "bool", "Allow TCP without TLS, on the loopback interface only"),
    Flag("web", "", "string", "Address of the web view (ADDRESS:PORT, such as 127.0.0.1:8320)"),
    Flag("cri", "", "bool", "Serve Kubernetes' CRI on RUN/cri.sock"),
    Flag("cri-pinned-image", "", "list", "Image that a kubelet never removes (NAME or BEGINNING*)"),
    Flag(
        "cri-socket-group", "", "string", "Group for the socket of CRI; the policy has its rights"
    ),
    Flag(
        "cni-conf-dir",
        "",
        "string",
        "Directory of CNI network configurations, for pods",
        default="/etc/cni/net.d",
        completes="file",
    ),
    Flag("cni-bin-dir", "", "list", "CNI plugin directories to use"),
    Flag(
        "stream-server-address",
        "",
        "string",
        "Address of the server for exec, attach and port-forward of pods",
        default="127.0.0.1",
    ),
    Flag("stream-server-port", "", "int", "Port of that server (0: a free one)", default="0"),
    Flag(
        "stream-idle-timeout",
        "",
        "int",
        "Time without data after which a stream of a pod is closed (seconds)",
        default="14400",
    ),
    Flag(
        "stream-tls-cert",
        "",
        "string",
        "Path to the TLS certificate file of that server",
        completes="file",
    ),
    Flag("stream-tls-key", "", "string", "Path to its TLS key file", completes="file"),
    Flag(
        "storage-driver",
        "",
        "string",
        "Storage driver to use (overlay, btrfs, vfs; default: detected)",
        completes=("overlay", "btrfs", "vfs"),
    ),
    Flag(
        "storage-opt",
        "",
        "list",
        "Storage options: erofs=on keeps layers as EROFS images, verity=on with fs-verity",
        completes=("erofs=on", "verity=on"),
    ),
    Flag("bridge", "", "string", "Name of the bridge of the default network", default="jaula0"),
    Flag("bridge-subnet", "", "string", "IPv4 subnet of the default bridge (CIDR)"),
    Flag(
        "subid-start", "", "int", "First id of the range for user namespaces", default="1000000000"
    ),
    Flag("subid-count", "", "int", "Number of ids of that range", default="1000000000"),
    Flag("userns-remap", "", "string", "User whose ranges in /etc/subuid and /etc/subgid to use"),
    Flag("cgroup-parent", "", "string", "Set parent cgroup for all containers", default="jaula"),
    Flag("exec-opt", "", "list", "Runtime execution options (native.cgroupdriver=DRIVER)"),
    Flag("pids-limit", "", "int", "Default pids limit of containers", default="4096"),
    Flag(
        "nofile", "", "string", "Default limit of open files (soft[:hard])", default="1024:524288"
    ),
    Flag(
        "selinux-type", "", "string", "SELinux process type of containers (default: the policy's)"
    ),
    Flag(
        "selinux-file-type", "", "string", "SELinux file type of containers (default: the policy's)"
    ),
    Flag(
        "audit-head",
        "",
        "string",
        "Send the head of the audit log to journald, syslog or a syslog address",
    ),
    Flag(
        "audit-head-interval",
        "",
        "int",
        "Interval between two heads of the audit log (seconds)",
        default="300",
    ),
    Flag(
        "durability",
        "",
        "string",
        "Write a change to the disk before it is answered (strict), or later (relaxed)",
        default="strict",
        completes=("strict", "relaxed"),
    ),
    Flag(
        "pull-mode",
        "",
        "string",
        "Start containers when images are pulled (whole), or before where possible (lazy)",
        default="whole",
        completes=("whole", "lazy"),
    ),
    Flag(
        "sandbox-pool", "", "int", "Number of network sandboxes to create in advance", default="4"
    ),
    Flag(
        "spare-shims", "", "int", "Number of shims to fork ahead of starts (0: none)", default="1"
    ),
    Flag(
        "spare-inits", "", "int", "Number of inits to create ahead of starts (0: none)", default="2"
    ),
    Flag("cdi-spec-dir", "", "list", "CDI specification directories to use"),
    Flag("add-runtime", "", "list", "Register an additional OCI compatible runtime (NAME=PATH)"),
    Flag(
        "default-profile",
        "",
        "string",
        "Default security profile for containers",
        default="default",
        completes=("default", "strict", "docker"),
    ),
    Flag("default-runtime", "", "string", "Default OCI runtime for containers", default="jaula"),
    Flag("runtime-timeout", "", "int", "Timeout of an additional runtime (seconds)", default="60"),
    Flag(
        "policy",
        "",
        "string",
        "Authorisation policy file (default /etc/jaula/policy.toml)",
        completes="file",
    ),
    Flag(
        "log-driver",
        "",
        "string",
        "Default driver for container logs",
        default="json-file",
        completes=log_drivers.NAMES,
    ),
    Flag("log-opt", "", "list", "Default log driver options for containers (KEY=VALUE)"),
    Flag("log-max-size", "", "int", "Size at which a log is rotated (bytes)", default="10000000"),
    Flag("log-max-file", "", "int", "Number of rotated files of a log", default="3"),
    Flag(
        "address-pool",
        "",
        "string",
        "Default address pools for networks (CIDR[@SIZE],...)",
        default="172.30.0.0/15,10.208.0.0/12",
    ),
    Flag("ipv6", "", "bool", "Enable IPv6 networking on the default network"),
    Flag("fixed-cidr-v6", "", "string", "IPv6 subnet for fixed IPs (CIDR)"),
    Flag("ip", "", "string", "Default IP when binding container ports"),
    Flag("default-network-opt", "", "list", "Default network options (bridge=KEY=VALUE)"),
    Flag(
        "publish-past-firewall",
        "",
        "bool",
        "Accept traffic to published ports before the host's input rules, as Docker does",
    ),
    Flag(
        "insecure-registry",
        "",
        "list",
        "Enable insecure registry communication (HOST[:PORT] or CIDR)",
    ),
    Flag("registry-mirror", "", "list", "Preferred registry mirror for Docker Hub (URL)"),
    Flag(
        "registry-realm",
        "",
        "list",
        "Token server that may receive a registry's credentials (REGISTRY=HOST)",
    ),
    Flag(
        "registry-certs",
        "",
        "string",
        "Directory with one directory of certificates or hosts.toml per "
        "registry (default /etc/jaula/certs.d and /etc/docker/certs.d)",
        completes="file",
    ),
    Flag(
        "max-concurrent-downloads", "", "int", "Max concurrent downloads for each pull", default="3"
    ),
    Flag("max-concurrent-uploads", "", "int", "Max concurrent uploads for each push", default="5"),
    Flag("http-proxy", "", "string", "HTTP proxy URL to use for outgoing traffic"),
    Flag("https-proxy", "", "string", "HTTPS proxy URL to use for outgoing traffic"),
    Flag("no-proxy", "", "string", "List of hosts that are reached without the proxy"),
    Flag(
        "metrics-addr",
        "",
        "string",
        "Address to serve /metrics on without a login (HOST:PORT; default host: 127.0.0.1)",
    ),
    Flag("metrics-label", "", "list", "Label of containers that their metrics have, too"),
    Flag(
        "metrics-verify-interval",
        "",
        "int",
        "Interval of `verify --all` for the metrics of isolation (seconds; 0: never)",
        default="0",
    ),
    Flag(
        "metrics-refusals",
        "",
        "string",
        "Source of the refusals of LSMs, Landlock and seccomp that are counted",
        default="audit",
        completes=("audit", "ebpf", "none"),
    ),
    Flag(
        "log-format",
        "",
        "string",
        "Set the logging format of the engine",
        default="text",
        completes=("text", "json"),
    ),
    Flag(
        "log-level",
        "l",
        "string",
        "Set the logging level of the engine",
        default="info",
        completes=("debug", "info", "warn", "error", "fatal"),
    ),
    Flag("debug", "D", "bool", "Enable debug mode"),
)

COMMAND = Command(
    "[OPTIONS]",
    "Run the engine",
    run,
    flags=FLAGS,
    max_args=0,
    description=(
        "Serves the Docker Engine API on a socket, in the foreground, until SIGTERM. Containers "
        "keep running when the engine stops, and the next engine with the same directories "
        "restores them. Any other command starts an engine with default settings if none "
        "answers on the default socket. Several engines can run at the same time with different "
        "directories, bridges and cgroup parents."
    ),
    examples=(
        (
            "Run a second engine for a test",
            "jaula daemon --root /tmp/j/root --run /tmp/j/run --bridge jaula9 --cgroup-parent j9",
        ),
        ("Use that engine", "jaula -H unix:///tmp/j/run/jaula.sock ps"),
    ),
    exit_status=(("0", "stopped by SIGTERM"), ("125", "the engine could not start")),
    see_also=("info", "check"),
)
