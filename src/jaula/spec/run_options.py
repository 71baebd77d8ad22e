"""The options of ``run`` and ``create``: one row each.

Docker's reference of ``docker run`` defines most of them. The command line with its help and
completion, the request, the web's form, ``docs/run-flags.md``, the fields of a request in
``docs/authority.md``, ``update``, ``edit``, quadlet's units and the forms of a profile have all of
this from the rows.

A new option whose value goes into a field of the request as it is: one row here, which declares the
field (``schema``), and :func:`member` where the OCI spec is built, if it changes the container.

``scripts/run-options`` writes what the client has of a row, in :mod:`jaula.cli.containers.flags`:
each start of the client makes all of its flags.
"""

from __future__ import annotations

from jaula.spec import log_drivers
from jaula.spec.flag import CONFIG as CONFIG
from jaula.spec.flag import ENDPOINT as ENDPOINT
from jaula.spec.flag import HEALTHCHECK as HEALTHCHECK
from jaula.spec.flag import HOST_CONFIG as HOST_CONFIG
from jaula.spec.flag import PlacedFlag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAMESPACES, LIMITS, SECURITY, FILESYSTEM, NETWORK, LOGGING, HEALTH = (
    "Namespace",
    "Limit",
    "Security",
    "Filesystem",
    "Network",
    "Logging",
    "Health",
)
EFFECTIVE, CLIENT, REFUSED = "effective", "client", "refused"


class Option(PlacedFlag):
    """One option: a flag, its place in the request, and what documents and other forms have of it.

    ``right`` is what the policy is asked for the member, as ``docs/authority.md`` has it; '' is
    nothing.

    ``state``, ``example`` and ``effect`` are the row of ``docs/run-flags.md``. ``hint`` is the
    example in a form, ``choices`` are its values there, and ``open`` says that there are others.
    ``relaxes`` says that the option gives a container more than the default. ``alias_of`` is the
    option that this name stands for.

    ``quadlet`` is the key of podman's unit files, ``compose`` the key of a service.

    ``schema`` says that the structure of the document has the member from this row, and not from a
    line of its own. It is the first number of the database's schema with the member, one more than
    that of the last change: an engine with a lower one refuses the database, since it would drop
    the member from records.
    """

    __slots__ = (
        "alias_of", "choices", "compose", "effect", "example", "hint", "open", "quadlet", "relaxes",
        "right", "schema", "state",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        short: str,
        kind: str,
        help: str,
        *,
        metavar: str = "",
        group: str = "",
        default: str = "",
        completes: str | tuple[str, ...] = "",
        implied: str = "",
        place: str = "",
        syntax: str = "",
        right: str = "",
        state: str = EFFECTIVE,
        example: str = "",
        effect: str = "",
        hint: str = "",
        choices: tuple[str, ...] = (),
        open: bool = False,
        relaxes: bool = False,
        alias_of: str = "",
        quadlet: str = "",
        compose: str = "",
        schema: int = 0,
    ) -> None:
        super().__init__(
            name,
            short,
            kind,
            help,
            metavar=metavar,
            group=group,
            default=default,
            completes=completes,
            implied=implied,
            place=place,
            syntax=syntax,
        )
        self.right = right
        self.state = state
        self.example = example
        self.effect = effect
        self.hint = hint
        self.choices = choices
        self.open = open
        self.relaxes = relaxes
        self.alias_of = alias_of
        self.quadlet = quadlet
        self.compose = compose
        self.schema = schema

    @property
    def field(self) -> str:
        """Return the name of the member in its structure, for one that the row declares."""
        return self.name.replace("-", "_")


# fmt: off
OPTIONS = (
    Option("add-host", "", "list", "Add a custom host-to-IP mapping (host:ip)", group=NETWORK,
        place="HostConfig.ExtraHosts", syntax="host-line", example="api:10.0.0.9",
        effect="a line in `/etc/hosts`", hint="api:10.0.0.9", quadlet="AddHost"),
    Option("annotation", "", "list",
        "Add an annotation to the container (passed through to the OCI runtime)",
        place="HostConfig.Annotations", syntax="map", right="`annotations`", example="a=b",
        effect="an annotation of the OCI spec; names below `io.jaula` are refused",
        hint="key=value", quadlet="Annotation"),
    Option("attach", "a", "list", "Attach to STDIN, STDOUT or STDERR",
        completes=("stdin", "stdout", "stderr"), example="stdout",
        effect="which streams to attach"),
    Option("blkio-weight", "", "int",
        "Block IO (relative weight), between 10 and 1000, or 0 to disable", group=LIMITS,
        place="HostConfig.BlkioWeight", example="500",
        effect="cgroup, if the kernel's IO scheduler supports weights", hint="500"),
    Option("blkio-weight-device", "", "list",
        "Block IO weight (relative device weight) (path:weight)", group=LIMITS,
        place="HostConfig.BlkioWeightDevice", syntax="device-weight", example="/dev/null:500",
        effect="cgroup, if the kernel's IO scheduler supports weights"),
    Option("cap-add", "", "list", "Add Linux capabilities (name or ALL)", group=SECURITY,
        place="HostConfig.CapAdd", right="`capabilities`", relaxes=True, example="NET_ADMIN",
        effect="capability", hint="NET_ADMIN", quadlet="AddCapability", compose="cap_add"),
    Option("cap-drop", "", "list", "Drop Linux capabilities (name or ALL)", group=SECURITY,
        place="HostConfig.CapDrop", example="ALL", effect="capability", hint="ALL",
        quadlet="DropCapability", compose="cap_drop"),
    Option("cgroup-parent", "", "string", "Optional parent cgroup for the container",
        group=LIMITS, place="HostConfig.CgroupParent", right="`cgroup-parents`",
        example="/parent", effect="parent of the container's cgroup"),
    Option("cgroupns", "", "string", "Cgroup namespace to use (host|private)", group=NAMESPACES,
        completes=("private", "host"), place="HostConfig.CgroupnsMode", right="`host-namespaces`",
        relaxes=True, example="host", effect="cgroup namespace", choices=("private", "host")),
    Option("cidfile", "", "string", "Write the container ID to the file", completes="file",
        place="HostConfig.ContainerIDFile", example="/tmp/x",
        effect="the ID is written to the file"),
    Option("cpu-count", "", "int", "CPU count (Windows only; refused)", group=LIMITS,
        place="HostConfig.CpuCount", state=REFUSED, example="2", effect="Windows only"),
    Option("cpu-percent", "", "int", "CPU percent (Windows only; refused)", group=LIMITS,
        place="HostConfig.CpuPercent", state=REFUSED, example="50", effect="Windows only"),
    Option("cpu-period", "", "int",
        "Limit CPU CFS (Completely Fair Scheduler) period (microseconds)", group=LIMITS,
        place="HostConfig.CpuPeriod", example="50000", effect="cgroup"),
    Option("cpu-quota", "", "int",
        "Limit CPU CFS (Completely Fair Scheduler) quota (microseconds)", group=LIMITS,
        place="HostConfig.CpuQuota", example="50000", effect="cgroup"),
    Option("cpu-rt-period", "", "int", "Limit CPU real-time period in microseconds (refused)",
        group=LIMITS, place="HostConfig.CpuRealtimePeriod", state=REFUSED, example="50000",
        effect="not supported by distribution kernels"),
    Option("cpu-rt-runtime", "", "int", "Limit CPU real-time runtime in microseconds (refused)",
        group=LIMITS, place="HostConfig.CpuRealtimeRuntime", state=REFUSED, example="50000",
        effect="not supported by distribution kernels"),
    Option("cpu-shares", "c", "int", "CPU shares (relative weight)", group=LIMITS,
        place="HostConfig.CpuShares", example="512", effect="cgroup", hint="1024"),
    Option("cpus", "", "decimal", "Number of CPUs", group=LIMITS, place="HostConfig.NanoCpus",
        example="0.5", effect="cgroup", hint="1.5", compose="cpus"),
    Option("cpuset-cpus", "", "string", "CPUs in which to allow execution (0-3, 0,1)",
        group=LIMITS, place="HostConfig.CpusetCpus", example="0", effect="cgroup", hint="0-1"),
    Option("cpuset-mems", "", "string", "MEMs in which to allow execution (0-3, 0,1)",
        group=LIMITS, place="HostConfig.CpusetMems", example="0", effect="cgroup"),
    Option("device", "", "list", "Add a host device to the container (host[:container[:rwm]])",
        group=SECURITY, place="HostConfig.Devices", syntax="device", right="`devices`",
        relaxes=True, example="/dev/null", effect="device node and allowed devices list",
        hint="/dev/fuse", quadlet="AddDevice", compose="devices"),
    Option("device-cgroup-rule", "", "list",
        "Add a rule to the cgroup allowed devices list ('c 42:* rmw')", group=SECURITY,
        place="HostConfig.DeviceCgroupRules", right="`devices`", example="c 42:* rmw",
        effect="allowed devices list"),
    Option("device-read-bps", "", "list",
        "Limit read rate (bytes per second) from a device (path:rate)", group=LIMITS,
        place="HostConfig.BlkioDeviceReadBps", syntax="device-bytes", example="/dev/null:1m",
        effect="cgroup", hint="/dev/sda:10m"),
    Option("device-read-iops", "", "list",
        "Limit read rate (IO per second) from a device (path:rate)", group=LIMITS,
        place="HostConfig.BlkioDeviceReadIOps", syntax="device-number", example="/dev/null:100",
        effect="cgroup", hint="/dev/sda:100"),
    Option("device-write-bps", "", "list",
        "Limit write rate (bytes per second) to a device (path:rate)", group=LIMITS,
        place="HostConfig.BlkioDeviceWriteBps", syntax="device-bytes", example="/dev/null:1m",
        effect="cgroup", hint="/dev/sda:10m"),
    Option("device-write-iops", "", "list",
        "Limit write rate (IO per second) to a device (path:rate)", group=LIMITS,
        place="HostConfig.BlkioDeviceWriteIOps", syntax="device-number", example="/dev/null:100",
        effect="cgroup", hint="/dev/sda:100"),
    Option("disable-content-trust", "", "bool", "Skip image verification", default="true",
        state=CLIENT, effect="accepted; `=false` is refused: these signatures are not supported"),
    Option("dns", "", "list", "Set custom DNS servers", group=NETWORK, place="HostConfig.Dns",
        example="9.9.9.9", effect="`/etc/resolv.conf`", hint="9.9.9.9", quadlet="DNS"),
    Option("dns-option", "", "list", "Set DNS options", group=NETWORK,
        place="HostConfig.DnsOptions", example="ndots:2", effect="`/etc/resolv.conf`",
        hint="ndots:2", quadlet="DNSOption"),
    Option("dns-search", "", "list", "Set custom DNS search domains", group=NETWORK,
        place="HostConfig.DnsSearch", example="example.org", effect="`/etc/resolv.conf`",
        hint="example.org", quadlet="DNSSearch"),
    Option("domainname", "", "string", "Container NIS domain name", group=NETWORK,
        place="Config.Domainname", example="example.org", effect="UTS namespace"),
    Option("egress", "", "list",
        "Allow connections to these destinations only (tcp:HOST:PORT, udp:HOST:PORT, dns:NAME, "
        "or none)",
        group=NETWORK, place="HostConfig.Egress", syntax="items", example="tcp:192.0.2.0/24:443",
        effect="destinations that the container may connect to ([profiles.md](profiles.md)); "
               "not in Docker",
        hint="tcp:192.0.2.0/24:443", quadlet="Egress"),
    Option("entrypoint", "", "string", "Overwrite the default ENTRYPOINT of the image",
        place="Config.Entrypoint", syntax="word", example="/bin/sh", effect="entry point",
        hint="/bin/sh", quadlet="Entrypoint"),
    Option("env", "e", "list",
        "Set environment variables (NAME=value, or NAME to pass its value on)",
        place="Config.Env", syntax="env", example="A=b", effect="environment variable",
        hint="NAME=value", quadlet="Environment"),
    Option("env-file", "", "list", "Read in a file of environment variables", completes="file",
        state=CLIENT, example="/dev/null", effect="variables from a file",
        quadlet="EnvironmentFile"),
    Option("env-host", "", "bool", "Pass all environment variables of the client on",
        state=CLIENT,
        effect="all environment variables of the client are passed on; not in Docker",
        quadlet="EnvironmentHost"),
    Option("expose", "", "list", "Expose a port or a range of ports", group=NETWORK,
        place="Config.ExposedPorts", syntax="expose",
        right="`host-ports`, with `PublishAllPorts`", example="80",
        effect="exposed port, used by `-P` and links", hint="80", quadlet="ExposeHostPort",
        compose="expose"),
    Option("gpus", "", "list", "GPU devices to add to the container ('all' to pass all GPUs)",
        group=SECURITY, place="HostConfig.DeviceRequests", syntax="gpus", right="`devices`",
        example="all", effect="GPUs that CDI files define ([devices.md](devices.md))"),
    Option("group-add", "", "list", "Add additional groups to join", group=SECURITY,
        place="HostConfig.GroupAdd", example="5", effect="supplementary group", hint="audio",
        quadlet="GroupAdd"),
    Option("health-cmd", "", "string", "Command to run to check health", group=HEALTH,
        place="Healthcheck.Test", syntax="shell", example="true", effect="health check",
        hint="wget -qO- localhost", quadlet="HealthCmd"),
    Option("health-interval", "", "string", "Time between running the check (ms|s|m|h)",
        metavar="duration", group=HEALTH, place="Healthcheck.Interval", syntax="duration",
        example="5s", effect="health check", hint="30s", quadlet="HealthInterval"),
    Option("health-on-failure", "", "string",
        "Action when the container becomes unhealthy (none, restart, kill, stop)",
        metavar="action", group=HEALTH, example="restart",
        effect="an unhealthy container is restarted, killed or stopped; other clients set the "
               "label `io.jaula.health-on-failure`; not in Docker",
        quadlet="HealthOnFailure"),
    Option("health-retries", "", "int", "Consecutive failures needed to report unhealthy",
        group=HEALTH, place="Healthcheck.Retries", example="2", effect="health check", hint="3",
        quadlet="HealthRetries"),
    Option("health-start-interval", "", "string",
        "Time between running the check during the start period (ms|s|m|h)", metavar="duration",
        group=HEALTH, place="Healthcheck.StartInterval", syntax="duration", example="1s",
        effect="health check"),
    Option("health-start-period", "", "string",
        "Start period for the container to initialize before starting health-retries countdown "
        "(ms|s|m|h)",
        metavar="duration", group=HEALTH, place="Healthcheck.StartPeriod", syntax="duration",
        example="5s", effect="health check", hint="10s", quadlet="HealthStartPeriod"),
    Option("health-timeout", "", "string", "Maximum time to allow one check to run (ms|s|m|h)",
        metavar="duration", group=HEALTH, place="Healthcheck.Timeout", syntax="duration",
        example="5s", effect="health check", hint="5s", quadlet="HealthTimeout"),
    Option("hostname", "h", "string", "Container host name", group=NETWORK,
        place="Config.Hostname", example="box", effect="UTS namespace, `/etc/hostname`",
        quadlet="HostName"),
    Option("init", "", "bool",
        "Run an init inside the container that forwards signals and reaps processes",
        place="HostConfig.Init", syntax="switch", effect="an init as PID 1 that reaps processes",
        quadlet="RunInit"),
    Option("interactive", "i", "bool", "Keep STDIN open even if not attached",
        place="Config.OpenStdin", effect="standard input is kept open"),
    Option("ip", "", "string", "IPv4 address (e.g., 172.30.100.104)", group=NETWORK,
        place="Endpoint.IPAMConfig.IPv4Address", example="10.1.2.3",
        effect="address on the network", hint="10.1.2.3", quadlet="IP"),
    Option("ip6", "", "string", "IPv6 address (e.g., 2001:db8::33)", group=NETWORK,
        place="Endpoint.IPAMConfig.IPv6Address", example="fd00::5",
        effect="address on the network", hint="fd00::5", quadlet="IP6"),
    Option("io-maxbandwidth", "", "size",
        "Maximum IO bandwidth limit for the system drive (Windows only; refused)",
        place="HostConfig.IOMaximumBandwidth", state=REFUSED, example="1m", effect="Windows only"),
    Option("io-maxiops", "", "int",
        "Maximum IOps limit for the system drive (Windows only; refused)",
        place="HostConfig.IOMaximumIOps", state=REFUSED, example="100", effect="Windows only"),
    Option("ipc", "", "string",
        "IPC mode to use (private, shareable, none, host, container:NAME)", group=NAMESPACES,
        completes=("private", "shareable", "none", "host"), place="HostConfig.IpcMode",
        right="`host-namespaces` for `host`, `others` for `container:`", relaxes=True,
        example="shareable", effect="IPC namespace and `/dev/shm`", hint="private"),
    Option("isolation", "", "string",
        "Container isolation technology (Windows only; default is accepted)",
        place="HostConfig.Isolation", state=REFUSED, example="hyperv",
        effect="Windows only; `default` is accepted"),
    Option("kernel-memory", "", "size", "Kernel memory limit (ignored: removed from the kernel)",
        group=LIMITS, place="HostConfig.KernelMemory", example="64m",
        effect="a warning only: the limit was removed from the kernel"),
    Option("label", "l", "list", "Set meta data on a container (key=value)",
        place="Config.Labels", syntax="label", example="a=b", effect="metadata", hint="team=web",
        quadlet="Label"),
    Option("label-file", "", "list", "Read in a line delimited file of labels", completes="file",
        state=CLIENT, example="/dev/null", effect="labels from a file"),
    Option("link", "", "list", "Add link to another container (name[:alias])", group=NETWORK,
        place="HostConfig.Links", right="`others`", example="other",
        effect="a line in `/etc/hosts`, updated with the address, and variables; on a "
               "user-defined network an alias for this container only"),
    Option("link-local-ip", "", "list", "Container IPv4/IPv6 link-local addresses (refused)",
        group=NETWORK, state=REFUSED, example="169.254.1.1",
        effect="link-local addresses are not supported; use `--ip`"),
    Option("listen", "", "list",
        "Allow connections from others to these ports only (tcp:PORT, udp:PORT, or none)",
        group=NETWORK, place="HostConfig.Listen", syntax="items", example="tcp:80",
        effect="ports at which others may reach the container "
               "([profiles.md](profiles.md#listen-lists)); not in Docker",
        hint="tcp:80", quadlet="Listen"),
    Option("log-driver", "", "string", "Logging driver for the container", group=LOGGING,
        completes=log_drivers.NAMES, place="HostConfig.LogConfig.Type",
        right="`log-addresses`, `host-mounts` for files, and `max-log-size`", example="none",
        effect="log driver", choices=("json-file", "local", "journald", "syslog", "none"),
        open=True, quadlet="LogDriver"),
    Option("log-opt", "", "list", "Log driver options (key=value)", group=LOGGING,
        place="HostConfig.LogConfig.Config", syntax="map",
        right="`log-addresses`, `host-mounts` for files, and `max-log-size`",
        example="max-size=1m", effect="log driver", hint="max-size=10m", quadlet="LogOpt"),
    Option("mac-address", "", "string", "Container MAC address (e.g., 92:d0:c6:0a:29:33)",
        group=NETWORK, place="Endpoint.MacAddress", example="02:42:ac:11:00:09",
        effect="network interface"),
    Option("memory", "m", "size", "Memory limit", group=LIMITS, place="HostConfig.Memory",
        right="`max-memory`", example="64m", effect="cgroup", hint="256m", quadlet="Memory",
        compose="mem_limit"),
    Option("memory-reservation", "", "size", "Memory soft limit", group=LIMITS,
        place="HostConfig.MemoryReservation", example="32m", effect="cgroup", hint="128m"),
    Option("memory-swap", "", "size",
        "Swap limit equal to memory plus swap: '-1' to enable unlimited swap", group=LIMITS,
        place="HostConfig.MemorySwap", right="`max-memory`", example="128m", effect="cgroup",
        hint="512m", compose="memswap_limit"),
    Option("memory-swappiness", "", "int",
        "Tune container memory swappiness (0 to 100; -1 uses the setting of the host)",
        group=LIMITS, place="HostConfig.MemorySwappiness", example="10", effect="cgroup v1"),
    Option("mount", "", "list",
        "Attach a filesystem mount to the container "
        "(type=bind,source=/host,target=/inside,readonly; type=engine-socket)",
        metavar="mount", group=FILESYSTEM, place="HostConfig.Mounts", syntax="mount",
        right="`host-mounts` for a directory of the host, `container` for the engine's socket, "
              "`volumes` for a volume that they create, `others` for a volume of another user, "
              "`devices` for driver options, `security-options` for `z`, `Z`, `shared` and "
              "`rshared`",
        example="type=tmpfs,target=/t", effect="mount; `type=engine-socket` is not in Docker",
        hint="type=volume,source=data,target=/data", quadlet="Mount", compose="volumes"),
    Option("name", "", "string", "Assign a name to the container", state=CLIENT, example="box",
        effect="name of the container", quadlet="ContainerName"),
    Option("network", "", "list",
        "Connect a container to a network (bridge, host, none, container:NAME, or its name)",
        metavar="network", group=NETWORK, completes="network", place="HostConfig.NetworkMode",
        syntax="network",
        right="`host-namespaces` for `host`, `others` for `container:` and for a network of "
              "another user",
        example="none", effect="network", hint="bridge", quadlet="Network",
        compose="network_mode"),
    Option("network-alias", "", "list", "Add network-scoped alias for the container",
        group=NETWORK, place="Endpoint.Aliases", example="db",
        effect="alias on a user-defined network", hint="db", quadlet="NetworkAlias"),
    Option("no-healthcheck", "", "bool", "Disable any container-specified HEALTHCHECK",
        group=HEALTH, place="Healthcheck.Test", syntax="none",
        effect="no health check, not even the image's"),
    Option("oom-kill-disable", "", "bool", "Disable OOM Killer", group=LIMITS,
        place="HostConfig.OomKillDisable", right="`oom-kill-disable`", effect="cgroup v1"),
    Option("oom-score-adj", "", "int", "Tune host's OOM preferences (-1000 to 1000)",
        group=LIMITS, place="HostConfig.OomScoreAdj", right="`oom-score-adj` below 0",
        example="100", effect="`/proc/PID/oom_score_adj`", hint="100"),
    Option("pid", "", "string", "PID namespace to use (host, container:NAME)", group=NAMESPACES,
        completes=("host",), place="HostConfig.PidMode",
        right="`host-namespaces` for `host`, `others` for `container:`", relaxes=True,
        example="host", effect="PID namespace", hint="container:NAME"),
    Option("pids-limit", "", "int", "Tune container pids limit (set -1 for unlimited)",
        group=LIMITS, place="HostConfig.PidsLimit", right="`max-pids`", example="100",
        effect="cgroup", hint="100", quadlet="PidsLimit", compose="pids_limit"),
    Option("platform", "", "string", "Set platform if server is multi-platform capable (os/arch)",
        state=CLIENT, example="linux/amd64",
        effect="platform of the image; one that the image does not provide is an error",
        hint="linux/amd64"),
    Option("pod", "", "string",
        "Run the container in a pod, which is started; new:NAME creates it", group=NAMESPACES,
        state=CLIENT, example="web",
        effect="the container joins the namespaces of a pod ([kube-play.md](kube-play.md)); "
               "not in Docker"),
    Option("pod-id-file", "", "string", "Run the container in the pod whose ID the file has",
        group=NAMESPACES, completes="file", state=CLIENT, example="/run/web.pod-id",
        effect="the same, by a file with the ID of the pod; not in Docker", quadlet="Pod"),
    Option("privileged", "", "bool",
        "Give extended privileges to this container (all capabilities, all devices)",
        group=SECURITY, place="HostConfig.Privileged", right="`privileged`", relaxes=True,
        effect="no confinement within the container's user namespace"),
    Option("profile", "", "string",
        "Security profile: default, strict, docker, honeypot, a packaged profile, or a file",
        group=SECURITY, completes="profile", place="HostConfig.Profile", syntax="profile",
        right="what its settings ask for", example="strict",
        effect="security profile (default, strict, docker, honeypot); not in Docker",
        choices=("default", "strict", "docker", "honeypot"), quadlet="Profile"),
    Option("publish", "p", "list",
        "Publish a container's port(s) to the host ([[ip:]host:]container[/protocol])",
        group=NETWORK, place="HostConfig.PortBindings", syntax="publish", right="`host-ports`",
        example="8080:80", effect="port on the host", hint="8080:80", quadlet="PublishPort"),
    Option("publish-all", "P", "bool", "Publish all exposed ports to random ports", group=NETWORK,
        place="HostConfig.PublishAllPorts", right="`host-ports`", effect="ports on the host"),
    Option("pull", "", "string", "Pull image before running (\"always\", \"missing\", \"never\")",
        default="missing", completes=("always", "missing", "never"), state=CLIENT,
        example="never", effect="when the image is pulled",
        choices=("missing", "always", "never"), quadlet="Pull"),
    Option("quiet", "q", "bool", "Suppress the pull output", state=CLIENT,
        effect="no progress output of the pull"),
    Option("read-only", "", "bool", "Mount the container's root filesystem as read only",
        group=FILESYSTEM, place="HostConfig.ReadonlyRootfs", effect="root file system",
        quadlet="ReadOnly", compose="read_only"),
    Option("record", "", "string",
        "Record what the container does from its first instruction on (default file "
        "NAME-TIME.record)",
        metavar="FILE", completes="file", implied="*", state=CLIENT,
        effect="records what the container does, from its first instruction on "
               "([record.md](record.md)); not in Docker"),
    Option("record-mechanism", "", "string",
        "With --record, \"ebpf\" or \"seccomp\" (default \"auto\": ebpf, if this host can use "
        "it)",
        metavar="NAME", completes=("auto", "ebpf", "seccomp"), state=CLIENT,
        effect="mechanism of `--record`: `ebpf` or `seccomp`; not in Docker"),
    Option("restart", "", "string",
        "Restart policy to apply when a container exits (no, on-failure[:N], always, "
        "unless-stopped)",
        default="no", completes=("no", "on-failure", "always", "unless-stopped"),
        place="HostConfig.RestartPolicy", syntax="restart", example="always",
        effect="restart policy", choices=("no", "on-failure", "unless-stopped", "always"),
        open=True),
    Option("rm", "", "bool", "Automatically remove the container when it exits",
        place="HostConfig.AutoRemove", effect="removed when it exits"),
    Option("replace", "", "bool", "Remove a container that has the name first", state=CLIENT,
        effect="a container that has the name is removed first; not in Docker"),
    Option("runtime", "", "string", "Runtime to use for this container",
        place="HostConfig.Runtime",
        right="`annotations` and `host-mounts`, which another runtime may read differently",
        example="jaula", effect="OCI runtime", hint="runc"),
    Option("secret", "", "list",
        "Mount a secret below /run/secrets (name[,target=,mode=,uid=,gid=])", group=FILESYSTEM,
        completes="secret", place="HostConfig.Secrets", syntax="secret",
        right="`others`, if they belong to another user", example="db,target=password",
        effect="file on a tmpfs below `/run/secrets`; not in Docker", hint="db,target=password",
        quadlet="Secret"),
    Option("config", "", "list", "Mount a config (name[,target=,mode=,uid=,gid=])",
        group=FILESYSTEM, completes="config", place="HostConfig.Configs", syntax="secret",
        right="`others`, if they belong to another user", example="site,target=/etc/site.conf",
        effect="file on a tmpfs; not in Docker", hint="site,target=/etc/site.conf"),
    Option("security-opt", "", "list",
        "Security Options (seccomp=FILE|unconfined, no-new-privileges, label=, landlock=, "
        "apparmor=, mask=, unmask=, proc-opts=)",
        group=SECURITY, place="HostConfig.SecurityOpt", syntax="security",
        right="`security-options`", relaxes=True, example="no-new-privileges",
        effect="security settings", hint="no-new-privileges", compose="security_opt"),
    Option("shm-size", "", "size", "Size of /dev/shm", group=LIMITS, place="HostConfig.ShmSize",
        right="`max-shm-size`", example="32m", effect="`/dev/shm`", hint="64m", quadlet="ShmSize"),
    Option("storage-opt", "", "list",
        "Storage driver options for the container (size=10g limits its writable layer)",
        group=FILESYSTEM, place="HostConfig.StorageOpt", syntax="map", right="`max-storage-size`",
        example="size=1g",
        effect="quota of the writable layer: ext4 and xfs with project quotas (`prjquota`), "
               "btrfs with its own driver; refused elsewhere",
        hint="size=1g"),
    Option("stop-signal", "", "string", "Signal to stop the container", place="Config.StopSignal",
        example="SIGINT", effect="stop signal", hint="SIGTERM", quadlet="StopSignal"),
    Option("stop-timeout", "", "int", "Timeout (in seconds) to stop a container",
        place="Config.StopTimeout", example="5", effect="timeout of `stop`", hint="10",
        quadlet="StopTimeout"),
    Option("sysctl", "", "list", "Sysctl options (name=value)", group=NAMESPACES,
        place="HostConfig.Sysctls", syntax="sysctl", example="net.ipv4.ip_forward=1",
        effect="kernel parameter of the namespaces", hint="net.ipv4.ip_forward=1",
        quadlet="Sysctl"),
    Option("tmpfs", "", "list", "Mount a tmpfs directory (/path[:options])", group=FILESYSTEM,
        place="HostConfig.Tmpfs", syntax="path-map", example="/t", effect="mount", hint="/tmp",
        quadlet="Tmpfs", compose="tmpfs"),
    Option("tty", "t", "bool", "Allocate a pseudo-TTY", place="Config.Tty", effect="terminal"),
    Option("ulimit", "", "list", "Ulimit options (name=soft[:hard])", group=LIMITS,
        place="HostConfig.Ulimits", syntax="ulimit", right="`ulimits`", example="nofile=64",
        effect="resource limit", hint="nofile=1024:4096", quadlet="Ulimit"),
    Option("umask", "", "string", "File mode creation mask of the program (octal, 0022)",
        place="Config.Umask", schema=8, example="0077", hint="0022",
        effect="umask of the program and of execs; not in Docker"),
    Option("unsetenv", "", "list", "Unset an environment variable of the image", place="Config.Env",
        example="PATH", effect="no environment variable of the image; not in Docker"),
    Option("user", "u", "string", "Username or UID (format: <name|uid>[:<group|gid>])",
        group=SECURITY, place="Config.User", example="1000", effect="user", hint="1000:1000",
        quadlet="User", compose="user"),
    Option("userns", "", "string", "User namespace to use (auto, keep-id, host, container:NAME)",
        group=NAMESPACES, completes=("auto", "keep-id", "host"), place="HostConfig.UsernsMode",
        right="`host-namespaces` for `host`, `others` for `container:`", relaxes=True,
        example="host", effect="user namespace", hint="keep-id", quadlet="UserNS"),
    Option("uts", "", "string", "UTS namespace to use (host, container:NAME)", group=NAMESPACES,
        completes=("host",), place="HostConfig.UTSMode",
        right="`host-namespaces` for `host`, `others` for `container:`", relaxes=True,
        example="host", effect="UTS namespace"),
    Option("volume", "v", "list", "Bind mount a volume ([source:]target[:options])",
        group=FILESYSTEM, place="HostConfig.Binds", syntax="volume",
        right="`host-mounts` for a directory of the host, `container` for the engine's socket, "
              "`volumes` for a volume that they create, `others` for a volume of another user, "
              "`devices` for driver options, `security-options` for `z`, `Z`, `shared` and "
              "`rshared`",
        example="v:/v", effect="mount", hint="data:/var/lib/data", quadlet="Volume"),
    Option("volume-driver", "", "string", "Optional volume driver for the container (local)",
        group=FILESYSTEM, place="HostConfig.VolumeDriver", example="local",
        effect="volume driver; only `local` is accepted"),
    Option("volumes-from", "", "list",
        "Mount volumes from the specified container(s) (name[:ro])", group=FILESYSTEM,
        place="HostConfig.VolumesFrom",
        right="`others`, `host-mounts` for the directories that it adds, and "
              "`security-options` for `shared` and `rshared` among them",
        example="other", effect="volumes and bind mounts of another container", hint="other:ro"),
    Option("workdir", "w", "string", "Working directory inside the container",
        place="Config.WorkingDir", example="/tmp", effect="working directory", hint="/srv",
        quadlet="WorkingDir"),
    Option("net", "", "list", "Alias of --network", group=NETWORK, place="HostConfig.NetworkMode",
        syntax="network",
        right="`host-namespaces` for `host`, `others` for `container:` and for a network of "
              "another user",
        alias_of="network", example="none", effect="alias of `--network`"),
    Option("dns-opt", "", "list", "Alias of --dns-option", group=NETWORK,
        place="HostConfig.DnsOptions", alias_of="dns-option", example="ndots:2",
        effect="alias of `--dns-option`"),
)
# fmt: on

BY_NAME = {option.name: option for option in OPTIONS}

DECLARED = tuple(option for option in OPTIONS if option.schema)
"""The options whose members structures have from here."""


def member(document: object, name: str) -> Any:
    """Return the value of a declared option in its structure: that of its kind.

    :raises KeyError: when no option has the name.
    """
    return getattr(document, BY_NAME[name].field)


LIMIT_NAMES = (
    *("memory", "memory-swap", "memory-reservation", "cpus", "cpu-shares", "cpu-period"),
    *("cpu-quota", "cpuset-cpus", "cpuset-mems", "pids-limit", "blkio-weight"),
)
"""Options that ``edit`` changes and removes for a container that exists."""

UPDATE_NAMES = (*LIMIT_NAMES, "cpu-rt-period", "cpu-rt-runtime", "restart")
"""Options that ``update`` changes for a container that exists."""

# fmt: off
SUBJECTS = {
    "general": "name rm restart interactive tty init pull platform",
    "process": "entrypoint user workdir env hostname group-add stop-signal stop-timeout "
               "umask",
    "network": "network publish publish-all expose network-alias ip ip6 mac-address egress "
               "listen dns dns-search dns-option add-host",
    "storage": "volume mount tmpfs read-only volumes-from shm-size storage-opt secret config",
    "limits": "memory memory-swap memory-reservation cpus cpu-shares cpuset-cpus pids-limit "
              "ulimit blkio-weight device-read-bps device-write-bps device-read-iops "
              "device-write-iops oom-score-adj",
    "isolation": "profile cap-drop cap-add security-opt device sysctl userns pid ipc uts cgroupns "
                 "runtime privileged",
    "health": "health-cmd health-interval health-timeout health-retries health-start-period "
              "no-healthcheck",
    "metadata": "label annotation log-driver log-opt cgroup-parent",
}
# fmt: on
"""The options that a form shows, by subject, in its order."""

RUN_ONLY = (
    ("detach", "", "the container runs in the background"),
    ("detach-keys", "ctrl-x", "the key sequence that detaches the client"),
    ("help", "", "help page"),
    (
        "sdnotify",
        "conmon",
        "messages to the service manager ([systemd.md](systemd.md)); not in Docker",
    ),
    ("sig-proxy", "", "signals are forwarded"),
    ("why", "", "the report of [why.md](why.md) at the end; not in Docker"),
)
"""The flags of the commands themselves: name, example, effect."""
