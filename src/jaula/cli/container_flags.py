"""The flags of ``run`` and ``create``, by the groups that their help shows.

Docker's reference of ``docker run`` says what each means; the API document that they make is
:mod:`jaula.cli.container_options`'s.
"""

from __future__ import annotations

from jaula.cli.flags import Flag

NAMESPACES, LIMITS, RIGHTS, FILES, NET, LOGS = (
    "Namespace",
    "Limit",
    "Confinement",
    "Filesystem",
    "Network",
    "Logging",
)

FLAGS = (
    Flag("add-host", "", "list", "Add a line to /etc/hosts (host:ip)", group=NET),
    Flag("annotation", "", "list", "Add an annotation for the runtime (key=value)"),
    Flag(
        "attach",
        "a",
        "list",
        "Attach to STDIN, STDOUT or STDERR",
        completes=("stdin", "stdout", "stderr"),
    ),
    Flag("cap-add", "", "list", "Add a Linux capability, or ALL", group=RIGHTS),
    Flag("cap-drop", "", "list", "Drop a Linux capability, or ALL", group=RIGHTS),
    Flag("cgroup-parent", "", "string", "Parent cgroup of the container", group=LIMITS),
    Flag(
        "cgroupns",
        "",
        "string",
        "Cgroup namespace: private or host",
        group=NAMESPACES,
        completes=("private", "host"),
    ),
    Flag("cidfile", "", "string", "Write the container's ID to this file", completes="file"),
    Flag("cpu-period", "", "int", "Length of a CPU quota period (microseconds)", group=LIMITS),
    Flag("cpu-quota", "", "int", "CPU time in a period (microseconds)", group=LIMITS),
    Flag("cpu-shares", "c", "int", "CPU weight against other containers", group=LIMITS),
    Flag("cpus", "", "decimal", "Number of CPUs that may be used", group=LIMITS),
    Flag("cpuset-cpus", "", "string", "CPUs that may be used (0-3, 0,1)", group=LIMITS),
    Flag("cpuset-mems", "", "string", "Memory nodes that may be used (0-3, 0,1)", group=LIMITS),
    Flag("device", "", "list", "Add a device of the host (host[:container[:rwm]])", group=RIGHTS),
    Flag("dns", "", "list", "DNS server", group=NET),
    Flag("dns-option", "", "list", "Option of the resolver", group=NET),
    Flag("dns-search", "", "list", "DNS search domain", group=NET),
    Flag("domainname", "", "string", "Domain name of the container", group=NET),
    Flag("entrypoint", "", "string", "Program to run instead of the image's ENTRYPOINT"),
    Flag("env", "e", "list", "Set a variable (NAME=value), or pass one on (NAME)"),
    Flag("env-file", "", "list", "Read variables from a file", completes="file"),
    Flag("expose", "", "list", "Expose a port or a range of ports", group=NET),
    Flag("group-add", "", "list", "Additional group", group=RIGHTS),
    Flag("hostname", "h", "string", "Host name of the container", group=NET),
    Flag("init", "", "bool", "Run an init as PID 1 that reaps and forwards signals"),
    Flag("interactive", "i", "bool", "Keep STDIN open even if not attached"),
    Flag(
        "ipc",
        "",
        "string",
        "IPC namespace: private, shareable, none, host or container:NAME",
        group=NAMESPACES,
        completes=("private", "shareable", "none", "host"),
    ),
    Flag("label", "l", "list", "Set metadata (key=value)"),
    Flag("label-file", "", "list", "Read metadata from a file", completes="file"),
    Flag("log-driver", "", "string", "Logging driver", group=LOGS, completes=("json-file", "none")),
    Flag("log-opt", "", "list", "Option of the logging driver (key=value)", group=LOGS),
    Flag("memory", "m", "size", "Memory limit", group=LIMITS),
    Flag("memory-reservation", "", "size", "Soft memory limit", group=LIMITS),
    Flag(
        "memory-swap", "", "size", "Memory and swap together; -1 for unlimited swap", group=LIMITS
    ),
    Flag(
        "mount",
        "",
        "list",
        "Attach a mount (type=bind,source=/host,target=/inside,readonly)",
        metavar="mount",
        group=FILES,
    ),
    Flag("name", "", "string", "Name of the container"),
    Flag(
        "network",
        "",
        "list",
        "Network: bridge, host, none or container:NAME",
        group=NET,
        metavar="network",
        completes=("bridge", "host", "none"),
    ),
    Flag(
        "oom-score-adj",
        "",
        "int",
        "The kernel's preference for killing (-1000 to 1000)",
        group=LIMITS,
    ),
    Flag(
        "pid",
        "",
        "string",
        "PID namespace: host or container:NAME",
        group=NAMESPACES,
        completes=("host",),
    ),
    Flag("pids-limit", "", "int", "Processes at most; -1 for unlimited", group=LIMITS),
    Flag("platform", "", "string", "Platform of the image (os/arch)"),
    Flag(
        "privileged", "", "bool", "Give up confinement: all capabilities, all devices", group=RIGHTS
    ),
    Flag(
        "profile",
        "",
        "string",
        "Preset of confinement: default, strict or docker",
        group=RIGHTS,
        completes=("default", "strict", "docker"),
    ),
    Flag("publish", "p", "list", "Publish a port ([[ip:]host:]container[/protocol])", group=NET),
    Flag("publish-all", "P", "bool", "Publish every exposed port", group=NET),
    Flag(
        "pull",
        "",
        "string",
        "Pull the image before creating",
        default="missing",
        completes=("always", "missing", "never"),
    ),
    Flag("quiet", "q", "bool", "Suppress the output of pulling"),
    Flag("read-only", "", "bool", "Mount the root filesystem read-only", group=FILES),
    Flag(
        "restart",
        "",
        "string",
        "Restart policy: no, on-failure[:N], always, unless-stopped",
        default="no",
        completes=("no", "on-failure", "always", "unless-stopped"),
    ),
    Flag("rm", "", "bool", "Remove the container when it exits"),
    Flag("runtime", "", "string", "Runtime to use"),
    Flag(
        "security-opt",
        "",
        "list",
        "seccomp=FILE|unconfined, no-new-privileges, label=, landlock=, apparmor=, mask=, unmask=,"
        " proc-opts=",
        group=RIGHTS,
    ),
    Flag("shm-size", "", "size", "Size of /dev/shm", group=LIMITS),
    Flag("stop-signal", "", "string", "Signal that stops the container"),
    Flag("stop-timeout", "", "int", "Seconds between the stop signal and SIGKILL"),
    Flag(
        "sysctl",
        "",
        "list",
        "Kernel parameter of the container's namespaces (name=value)",
        group=NAMESPACES,
    ),
    Flag("tmpfs", "", "list", "Mount a tmpfs (/path[:options])", group=FILES),
    Flag("tty", "t", "bool", "Allocate a terminal"),
    Flag("ulimit", "", "list", "Resource limit (name=soft[:hard])", group=LIMITS),
    Flag("user", "u", "string", "User or UID (user[:group])", group=RIGHTS),
    Flag(
        "userns",
        "",
        "string",
        "User namespace: auto, keep-id, host or container:NAME",
        group=NAMESPACES,
        completes=("auto", "keep-id", "host"),
    ),
    Flag("uts", "", "string", "UTS namespace: host", group=NAMESPACES, completes=("host",)),
    Flag(
        "volume", "v", "list", "Mount a volume or a path ([source:]target[:options])", group=FILES
    ),
    Flag("workdir", "w", "string", "Working directory in the container"),
    # The other spellings that Docker accepts.
    Flag("net", "", "list", "The same as --network", group=NET),
    Flag("dns-opt", "", "list", "The same as --dns-option", group=NET),
)
