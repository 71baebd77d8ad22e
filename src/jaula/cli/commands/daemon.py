"""``jaula daemon``: the engine itself, in the foreground."""

from __future__ import annotations

from jaula.cli.command import Command, Flag, Options
from jaula.cli.errors import CliError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.config import EngineConfig


def run(options: Options) -> int:
    """Read the settings and become the engine."""
    import os

    from jaula.cli import site_packages

    site_packages.enable()
    from jaula.daemon import main
    from jaula.errors import JaulaError

    try:
        config = _config(options)
        if os.geteuid() != 0:
            from jaula.rootless import enter

            enter.enter(str(config.paths.root), str(config.paths.run))
        main.main(config, lambda: _config(options))
    except JaulaError as error:
        raise CliError(f"jaula: {error}", status=error.exit_code) from None
    return 0


def _config(options: Options) -> EngineConfig:
    """Defaults, what the file says, what the flags say; a setting comes from one of the two.

    :raises InvalidRequest: from both, or something that cannot be.
    """
    from pathlib import Path

    from jaula.config import EngineConfig, Paths
    from jaula.daemon.config import daemon_json, hosts, logging, network, registry
    from jaula.errors import InvalidRequest
    from jaula.rootless import paths as rootless_paths

    settings: dict[str, object] = {
        "root": rootless_paths.root(),
        "run": rootless_paths.run(),
        "socket": "",
    }
    settings |= _file(options)
    for flag in FLAGS:
        field = "hosts" if flag.name == "host" else flag.name.replace("-", "_")
        if not options.given(flag.name) or field == "config_file":
            continue
        if field == "nofile":
            settings[field] = _nofile(options.text("nofile"))
        elif field == "add_runtime":
            added = options.texts("add-runtime")
            settings["runtimes"] = tuple(daemon_json.add_runtime(text) for text in added)
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
            raise InvalidRequest("--userns-remap and --subid-start or --subid-count contradict")
        settings["subid_start"], settings["subid_count"] = userns_remap.read(name)
    paths = Paths(*(Path(str(settings.pop(name))).absolute() for name in ("root", "run")))
    listening = hosts.pop_listen_settings(settings)
    if settings["socket"] and "socket" in listening:
        raise InvalidRequest("--socket and --host unix:// name the same thing")
    settings |= listening
    if settings["tcp"] and rootless_paths.rootless_uid() is not None:
        raise InvalidRequest(
            "an ordinary user's engine is in a network namespace of its own, where nobody could"
            " reach a TCP socket",
            hint="forward its unix socket: ssh -L",
        )
    socket = str(settings["socket"]).removeprefix("unix://")
    settings["socket"] = Path(socket).absolute() if socket else paths.socket
    registry_config = registry.pop_registry_config(settings)
    network.normalize(settings)
    logging.normalize(settings)
    config = EngineConfig(paths=paths, registry=registry_config, **settings)  # type: ignore[arg-type]
    daemon_json.check_runtimes(config.runtimes, config.default_runtime)
    return config


def _file(options: Options) -> dict[str, object]:
    """The settings of the configuration file; the default one need not be there."""
    from jaula.daemon.config import daemon_json
    from jaula.errors import InvalidRequest
    from jaula.rootless import paths as rootless_paths

    path = (
        options.text("config-file", "")
        if options.given("config-file")
        else rootless_paths.config_file()
    )
    try:
        with open(path, "rb") as file:
            data = file.read(daemon_json.MAX_SIZE + 1)
    except FileNotFoundError:
        if not options.given("config-file"):
            return {}
        raise InvalidRequest(f"configuration file {path}: there is no such file") from None
    except OSError as error:
        raise InvalidRequest(f"configuration file {path}: {error.strerror}") from None
    try:
        settings, document = daemon_json.parse(data)
        daemon_json.check_conflicts(document, _given(options))
    except InvalidRequest as error:
        raise InvalidRequest(
            f"unable to configure the engine with file {path}: {error.message}", hint=error.hint
        ) from None
    return settings


def _given(options: Options) -> dict[str, str]:
    """The flags on the command line, with their values as text."""
    return {
        flag.name: ", ".join(options.texts(flag.name))
        if flag.kind == "list"
        else options.text(flag.name)
        for flag in FLAGS
        if options.given(flag.name)
    }


def _nofile(text: str) -> tuple[int, int]:
    soft, colon, hard = text.partition(":")
    try:
        return int(soft), int(hard if colon else soft)
    except ValueError:
        raise UsageError(f'invalid argument "{text}" for "--nofile" flag: soft[:hard]') from None


FLAGS = (
    Flag("config-file", "", "string", "Settings as JSON, with the keys of Docker's daemon.json",
         default="/etc/jaula/daemon.json", completes="file"),
    Flag("root", "", "string", "What survives a boot: images, containers, volumes",
         default="/var/lib/jaula", completes="file"),
    Flag("run", "", "string", "What does not: sockets, state of running containers",
         default="/run/jaula", completes="file"),
    Flag("socket", "", "string", "Socket to listen on (default RUN/jaula.sock)", completes="file"),
    Flag("socket-group", "", "string", "Group that may use the socket"),
    Flag("host", "H", "list", "Address to listen on besides: tcp://ADDRESS:PORT; or the socket, "
         "unix:///PATH"),
    Flag("tlsverify", "", "bool", "Let in by TCP who has a certificate of the authority"),
    Flag("tlscacert", "", "string", "Certificate of that authority (default /etc/jaula/tls/ca.pem)",
         completes="file"),
    Flag("tlscert", "", "string", "The engine's certificate (default /etc/jaula/tls/cert.pem)",
         completes="file"),
    Flag("tlskey", "", "string", "Its key (default /etc/jaula/tls/key.pem)", completes="file"),
    Flag("tls", "", "bool", "Refused without --tlsverify: it would let in everybody"),
    Flag("insecure-tcp", "", "bool", "Listen by TCP without TLS, on the loopback interface only"),
    Flag("storage-driver", "", "string", "overlay, btrfs or vfs; probed where none is named",
         completes=("overlay", "btrfs", "vfs")),
    Flag("bridge", "", "string", "Name of the default bridge", default="jaula0"),
    Flag("bridge-subnet", "", "string", "Network of the default bridge (CIDR)"),
    Flag("subid-start", "", "int", "First id of the users inside containers",
         default="1000000000"),
    Flag("subid-count", "", "int", "Number of those ids", default="1000000000"),
    Flag("userns-remap", "", "string", "User whose ids in /etc/subuid and /etc/subgid to use"),
    Flag("cgroup-parent", "", "string", "Cgroup that holds the containers'", default="jaula"),
    Flag("pids-limit", "", "int", "Processes at most in a container", default="4096"),
    Flag("nofile", "", "string", "Open files at most (soft[:hard])", default="1024:524288"),
    Flag("selinux-type", "", "string", "SELinux type of containers (default: the policy's)"),
    Flag("selinux-file-type", "", "string", "SELinux type of their files (default: the policy's)"),
    Flag("sandbox-pool", "", "int", "Network sandboxes that are kept ready", default="4"),
    Flag("add-runtime", "", "list", "Another OCI runtime (NAME=PATH); may be given again"),
    Flag("default-profile", "", "string", "Confinement of containers that name no profile",
         default="default", completes=("default", "strict", "docker")),
    Flag("default-runtime", "", "string", "Runtime of containers that name none", default="jaula"),
    Flag("runtime-timeout", "", "int", "Seconds that another runtime may take to make a process",
         default="60"),
    Flag("policy", "", "string", "Who may ask for what (default /etc/jaula/policy.toml)",
         completes="file"),
    Flag("log-driver", "", "string", "Logging driver of new containers", default="json-file",
         completes=("json-file", "local", "journald", "syslog", "none")),
    Flag("log-opt", "", "list", "Option of that driver (KEY=VALUE); may be given again"),
    Flag("log-max-size", "", "int", "Bytes after which a log is rotated", default="10000000"),
    Flag("log-max-file", "", "int", "Files that are kept of a log", default="3"),
    Flag("address-pool", "", "string", "Networks to choose subnets from (CIDR[@SIZE], by commas)",
         default="172.30.0.0/15,10.208.0.0/12"),
    Flag("ipv6", "", "bool", "IPv6 on the default network"),
    Flag("fixed-cidr-v6", "", "string", "IPv6 network of the default bridge (CIDR)"),
    Flag("ip", "", "string", "Address of the host where ports are published by default"),
    Flag("default-network-opt", "", "list", "Option of new networks (bridge=KEY=VALUE)"),
    Flag("publish-past-firewall", "", "bool",
         "Published ports are open whatever the host's input rules say, as Docker's"),
    Flag("insecure-registry", "", "list",
         "Registry (HOST[:PORT] or network) that may be spoken to without verified encryption"),
    Flag("registry-mirror", "", "list", "Mirror to ask first for images of Docker Hub (URL)"),
    Flag("registry-realm", "", "list",
         "Token server that may see a registry's credentials (REGISTRY=HOST)"),
    Flag("registry-certs", "", "string", "Directory with a directory of certificates for each "
         "registry (default /etc/jaula/certs.d and /etc/docker/certs.d)", completes="file"),
    Flag("max-concurrent-downloads", "", "int", "Layers that are pulled at a time", default="3"),
    Flag("max-concurrent-uploads", "", "int", "Layers that are pushed at a time", default="5"),
    Flag("http-proxy", "", "string", "Proxy for registries without encryption (URL)"),
    Flag("https-proxy", "", "string", "Proxy for registries (URL)"),
    Flag("no-proxy", "", "string", "Hosts that are reached without the proxy"),
    Flag("debug", "D", "bool", "Say more in the log"),
)  # fmt: skip

COMMAND = Command(
    "[OPTIONS]",
    "Run the engine",
    run,
    flags=FLAGS,
    most=0,
    description=(
        "Serves the Docker Engine API on a socket, in the foreground, until SIGTERM. Containers "
        "go on when it ends, and the next engine with the same directories finds them. Any other "
        "command starts an engine with the settings' defaults when none answers on the default "
        "socket. Two engines with different directories, bridges and cgroup parents do not meet."
    ),
    examples=(
        (
            "An engine for a test, beside the machine's own",
            "jaula daemon --root /tmp/j/root --run /tmp/j/run --bridge jaula9 --cgroup-parent j9",
        ),
        ("Talk to it", "jaula -H unix:///tmp/j/run/jaula.sock ps"),
    ),
    exit_status=(("0", "ended by SIGTERM"), ("125", "it could not start")),
    see_also=("info", "check"),
)
