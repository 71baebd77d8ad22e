"""The sections and keys of quadlet's unit files, and what becomes of each key.

Source: podman-systemd.unit(5) of podman 5.4, and a few keys of later versions. :data:`KEYS` has
the keys that are understood; :data:`IMPOSSIBLE` those that cannot be served, with the reason. A key
of a container that is an option of ``run`` stands in the row of that option.
"""

from __future__ import annotations

from jaula.spec.run_options import OPTIONS

SECTIONS = {
    "container": "Container",
    "volume": "Volume",
    "network": "Network",
    "pod": "Pod",
    "image": "Image",
    "build": "Build",
    "kube": "Kube",
}
"""The section of each kind of file, by its suffix."""

ORDER = ("image", "volume", "network", "build", "container", "kube", "pod")
"""The order in which files are converted: names of resources before their users."""

SUFFIXES = {"volume": "-volume", "network": "-network", "pod": "-pod", "image": "-image",
            "build": "-build"}  # fmt: skip
"""The suffix of the name of a service, by the kind of its file."""

COMMON = "Quadlet"
_EVERY = "ContainersConfModule GlobalArgs PodmanArgs JaulaArgs ServiceName"
_MAPPINGS = "GIDMap UIDMap SubGIDMap SubUIDMap RemapGid RemapUid RemapUidSize RemapUsers UserNS"

CONVERTED = frozenset(
    (
        *("AddCapability", "AddDevice", "Annotation", "ContainerName", "DropCapability"),
        *("Entrypoint", "Environment", "EnvironmentFile", "EnvironmentHost", "ExposeHostPort"),
        *("HealthCmd", "HealthInterval", "HealthOnFailure", "HealthRetries", "HealthStartPeriod"),
        *("HealthTimeout", "Label", "Mount", "Network", "Pod", "PublishPort", "Pull", "ReadOnly"),
        *("RunInit", "Secret", "Sysctl", "User", "UserNS", "Volume"),
    )
)
"""Keys of a container that are options of ``run`` with a value of another form."""

KEYS = {
    "Container": frozenset(
        f"""{_EVERY} {_MAPPINGS}
        AutoUpdate CgroupsMode Exec Group HealthLogDestination HealthMaxLogCount HealthMaxLogSize
        HealthStartupCmd HealthStartupInterval HealthStartupRetries HealthStartupSuccess
        HealthStartupTimeout Image Mask NoNewPrivileges Notify ReadOnlyTmpfs ReloadCmd ReloadSignal
        Rootfs SeccompProfile SecurityLabelDisable SecurityLabelFileType SecurityLabelLevel
        SecurityLabelNested SecurityLabelType StartWithPod Timezone Unmask VolatileTmp""".split()
    )
    | {option.quadlet for option in OPTIONS if option.quadlet},
    "Volume": frozenset(
        f"{_EVERY} Copy Device Driver Group Image Label Options Type User VolumeName".split()
    ),
    "Network": frozenset(
        f"""{_EVERY} DisableDNS DNS Driver Gateway Internal IPAMDriver IPRange IPv6 Label
        NetworkName Options Subnet""".split()
    ),
    "Pod": frozenset(
        f"""{_EVERY} {_MAPPINGS} AddHost DNS DNSOption DNSSearch HostName IP IP6 Label Network
        NetworkAlias PodName PublishPort ShmSize Volume""".split()
    ),
    "Image": frozenset(
        f"""{_EVERY} AllTags Arch AuthFile CertDir Creds DecryptionKey Image ImageTag OS TLSVerify
        Variant""".split()
    ),
    "Build": frozenset(
        f"""{_EVERY} Annotation Arch AuthFile DNS DNSOption DNSSearch Environment File ForceRM
        GroupAdd ImageTag Label Network Pull Secret SetWorkingDirectory Target TLSVerify Variant
        Volume""".split()
    ),
    "Kube": frozenset(
        f"""{_EVERY} AutoUpdate ConfigMap ExitCodePropagation KubeDownForce LogDriver LogOpt Network
        PublishPort RemapGid RemapUid RemapUidSize RemapUsers SetWorkingDirectory UserNS
        Yaml""".split()
    ),
    COMMON: frozenset(("DefaultDependencies",)),
}

_NO_CONFIGURATION = "jaula reads no containers.conf; put options into JaulaArgs="
_OWN_MAPS = (
    "the engine maps the ids of each container to a range of its own; UserNS= selects others"
)
_RANGE_SIZE = "the engine selects the size of the range"
_STARTUP_CHECK = "there is one health check; HealthStartPeriod= gives the program time to start"
_LOGIN = "store the credentials with `jaula login`"
_REGISTRY_TLS = "certificates of registries are in the configuration of the engine"

IMPOSSIBLE = {
    ("Container", "Rootfs"): "a container has an image; `jaula import` makes one from a directory",
    ("Container", "UIDMap"): _OWN_MAPS,
    ("Container", "GIDMap"): _OWN_MAPS,
    ("Container", "SubUIDMap"): _OWN_MAPS,
    ("Container", "SubGIDMap"): _OWN_MAPS,
    ("Container", "HealthStartupCmd"): _STARTUP_CHECK,
    ("Container", "HealthStartupInterval"): _STARTUP_CHECK,
    ("Container", "HealthStartupRetries"): _STARTUP_CHECK,
    ("Container", "HealthStartupSuccess"): _STARTUP_CHECK,
    ("Container", "HealthStartupTimeout"): _STARTUP_CHECK,
    ("Pod", "UIDMap"): _OWN_MAPS,
    ("Pod", "GIDMap"): _OWN_MAPS,
    ("Pod", "SubUIDMap"): _OWN_MAPS,
    ("Pod", "SubGIDMap"): _OWN_MAPS,
    ("Volume", "Image"): "a container mounts an image with Mount=type=image",
    (
        "Network",
        "DNS",
    ): "the resolver of a network asks the servers of the host; a container has DNS=",
    ("Network", "DisableDNS"): "each network has a resolver",
    ("Image", "Creds"): _LOGIN,
    ("Image", "CertDir"): _REGISTRY_TLS,
    ("Image", "DecryptionKey"): "images are not encrypted",
    ("Build", "DNS"): "a build uses the resolver of its network",
    ("Build", "DNSOption"): "a build uses the resolver of its network",
    ("Build", "DNSSearch"): "a build uses the resolver of its network",
    ("Build", "GroupAdd"): "the Dockerfile states the user of a build",
    ("Build", "Volume"): "a build has no volumes; use RUN --mount in the Dockerfile",
    ("Build", "Environment"): "set ENV in the Dockerfile, or JaulaArgs=--build-arg NAME=VALUE",
    ("Build", "Annotation"): "use Label=, or JaulaArgs=--output with an annotation",
    **{(section, "ContainersConfModule"): _NO_CONFIGURATION for section in SECTIONS.values()},
}
"""Keys that are refused, with the reason."""

IGNORED = {
    ("Container", "HealthLogDestination"): "results of checks are in the record of the container",
    ("Container", "HealthMaxLogCount"): "the record has the last five results",
    ("Container", "HealthMaxLogSize"): "the record has 4096 bytes of each result",
    ("Image", "TLSVerify"): _REGISTRY_TLS,
    ("Build", "TLSVerify"): _REGISTRY_TLS,
    **{(section, "RemapUidSize"): _RANGE_SIZE for section in ("Container", "Kube", "Pod")},
}
"""Keys without effect, with the reason. A generator warns of them."""

CLIENT_ONLY = {
    "AllowedCPUs": "JaulaArgs=--cpuset-cpus",
    "CPUQuota": "JaulaArgs=--cpus",
    "CPUWeight": "JaulaArgs=--cpu-shares",
    "DeviceAllow": "AddDevice=",
    "IOWeight": "JaulaArgs=--blkio-weight",
    "IPAddressAllow": "Egress= and Listen=",
    "IPAddressDeny": "Egress= and Listen=",
    "LimitNOFILE": "Ulimit=nofile=",
    "LimitNPROC": "PidsLimit=",
    "MemoryHigh": "Memory=",
    "MemoryMax": "Memory=",
    "MemorySwapMax": "JaulaArgs=--memory-swap",
    "Slice": "JaulaArgs=--cgroup-parent",
    "TasksMax": "PidsLimit=",
}
"""Keys of [Service] that concern the cgroup or limits of the service, where only the client runs,
with what limits a container."""
