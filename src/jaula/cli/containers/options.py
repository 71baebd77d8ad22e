"""The request body of ``POST /containers/create``, from the flags of ``run`` and ``create``.

Docker's reference of ``docker run`` and ``POST /containers/create`` (API 1.45) define each field.
This module makes no request: it checks the form of a value, and the engine checks its meaning.
"""

from __future__ import annotations

from jaula.cli.containers import network_option
from jaula.cli.environ import variable
from jaula.cli.errors import UsageError
from jaula.cli.images import content_trust

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jaula.cli.command import Options


def document(options: Options) -> dict[str, Any]:
    """Return the body of ``POST /containers/create``.

    :raises UsageError: when a flag is invalid.
    """
    image, *words = options.arguments
    streams = _streams(options)
    host = _host(options)
    body: dict[str, Any] = {
        "Hostname": options.text("hostname"),
        "Domainname": options.text("domainname"),
        "User": options.text("user"),
        "AttachStdin": "stdin" in streams,
        "AttachStdout": "stdout" in streams,
        "AttachStderr": "stderr" in streams,
        "Tty": options.on("tty"),
        "OpenStdin": options.on("interactive"),
        "StdinOnce": options.on("interactive") and "stdin" in streams,
        "Env": environment(options),
        "Cmd": words,
        "Image": image,
        "WorkingDir": options.text("workdir"),
        "Labels": _labels(options),
        "StopSignal": options.text("stop-signal"),
    }
    if options.is_set("entrypoint"):
        body["Entrypoint"] = [options.text("entrypoint")]
    if (check := healthcheck(options)) is not None:
        body["Healthcheck"] = check
    if options.is_set("stop-timeout"):
        body["StopTimeout"] = options.number("stop-timeout")
    if options.is_set("volume"):
        _set_volumes(options.texts("volume"), body, host)
    if options.is_set("publish") or options.is_set("expose"):
        from jaula.cli.containers import publish_option

        exposed, bindings = publish_option.documents(
            options.texts("publish"), options.texts("expose")
        )
        body["ExposedPorts"] = exposed
        host["PortBindings"] = bindings
    body = _without_empty(body)
    body["HostConfig"] = host
    if networks := network_option.documents(options):
        body["NetworkingConfig"] = {"EndpointsConfig": networks}
    return body


def _without_empty(members: dict[str, Any]) -> dict[str, Any]:
    """Return the members without those that say nothing. A number 0 is a value."""
    return {
        key: value
        for key, value in members.items()
        if value is not False and value not in ("", [], {})
    }


def _streams(options: Options) -> set[str]:
    if options.on("detach"):
        if options.is_set("attach"):
            raise UsageError("Conflicting options: -a and -d")
        return set()
    if not options.is_set("attach"):
        return {"stdout", "stderr"} | ({"stdin"} if options.on("interactive") else set())
    streams = {word.lower() for word in options.texts("attach")}
    for word in streams - {"stdin", "stdout", "stderr"}:
        raise UsageError(
            f'invalid argument "{word}" for "-a, --attach" flag: '
            "valid streams are STDIN, STDOUT and STDERR"
        )
    return streams | ({"stdin"} if options.on("interactive") else set())


def _host(options: Options) -> dict[str, Any]:
    text, texts, on = options.text, options.texts, options.on
    host: dict[str, Any] = {
        "ContainerIDFile": text("cidfile"),
        "LogConfig": {"Type": text("log-driver"), "Config": pairs(texts("log-opt"), "log-opt")},
        "NetworkMode": network_option.mode(options),
        "RestartPolicy": restart_policy(text("restart")),
        "AutoRemove": on("rm"),
        "CapAdd": texts("cap-add"),
        "CapDrop": texts("cap-drop"),
        "CgroupnsMode": text("cgroupns"),
        "DeviceCgroupRules": texts("device-cgroup-rule"),
        "Dns": texts("dns"),
        "DnsOptions": texts("dns-option") + texts("dns-opt"),
        "DnsSearch": texts("dns-search"),
        "ExtraHosts": [host_line(word) for word in texts("add-host")],
        "GroupAdd": texts("group-add"),
        "Isolation": text("isolation"),
        "Links": texts("link"),
        "OomKillDisable": on("oom-kill-disable"),
        "IpcMode": text("ipc"),
        "PidMode": text("pid"),
        "Privileged": on("privileged"),
        "PublishAllPorts": on("publish-all"),
        "ReadonlyRootfs": on("read-only"),
        "UTSMode": text("uts"),
        "UsernsMode": text("userns"),
        "VolumeDriver": text("volume-driver"),
        "VolumesFrom": texts("volumes-from"),
        "CgroupParent": text("cgroup-parent"),
        "CpusetCpus": text("cpuset-cpus"),
        "CpusetMems": text("cpuset-mems"),
        "Runtime": text("runtime"),
        "Profile": profile_text(text("profile")),
        "ProfileKeeps": _profile_keeps(options),
    }
    if on("rm") and host["RestartPolicy"]["Name"] not in ("", "no"):
        raise UsageError("Conflicting options: --restart and --rm")
    # Unset fields are left out. The fields below are sent if their flag is set, also when empty.
    host = _without_empty(host)
    for flag, name in (*_NUMBERS, *_NUMBERS_OF_CREATE):
        if options.is_set(flag):
            host[name] = options.number(flag)
    _add_device_limits(options, host)
    if options.is_set("storage-opt"):
        host["StorageOpt"] = pairs(options.texts("storage-opt"), "storage-opt")
    if options.is_set("init"):
        host["Init"] = on("init")
    for flag, member in (("egress", "Egress"), ("listen", "Listen")):
        if options.is_set(flag):
            host[member] = [
                item for word in texts(flag) if word != "none" for item in word.split(",")
            ]
    if options.is_set("annotation"):
        host["Annotations"] = pairs(texts("annotation"), "annotation")
    if options.is_set("security-opt"):
        set_security_options(texts("security-opt"), host)
    if options.is_set("sysctl"):
        host["Sysctls"] = pairs(texts("sysctl"), "sysctl", needs_value=True)
    if options.is_set("tmpfs"):
        host["Tmpfs"] = dict(_split_pair(word, ":") for word in texts("tmpfs"))
    if options.is_set("mount"):
        from jaula.cli.containers import mount_option

        host["Mounts"] = [mount_option.document(word) for word in texts("mount")]
    for flag, name in (("secret", "Secrets"), ("config", "Configs")):
        if options.is_set(flag):
            from jaula.cli.containers import secret_option

            host[name] = [secret_option.document(word, flag) for word in texts(flag)]
    if options.is_set("ulimit"):
        host["Ulimits"] = [ulimit(word) for word in texts("ulimit")]
    if options.is_set("device"):
        cdi = [word for word in texts("device") if _is_cdi_name(word)]
        host["Devices"] = [_device(word) for word in texts("device") if word not in cdi]
        if cdi:
            host["DeviceRequests"] = [{"Driver": "cdi", "DeviceIDs": cdi}]
    return host


_MAX_PROFILE = 1 << 20  # bytes; the engine's limit


def profile_text(value: str) -> str:
    """Return the text of a profile's file; a name stays as it is.

    :raises UsageError: when the file cannot be read or is too large.
    """
    if "/" not in value and not value.endswith(".toml"):
        return value
    try:
        with open(value, "rb") as file:
            data = file.read(_MAX_PROFILE + 1)
    except OSError as error:
        raise UsageError(f"opening profile ({value}) failed: {error.strerror}") from None
    if len(data) > _MAX_PROFILE:
        raise UsageError(f"profile {value} is larger than {_MAX_PROFILE} bytes")
    try:
        document = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"profile {value} is not UTF-8 text: {error}") from None
    if "=" not in document:
        raise UsageError(f"profile {value} is not a TOML document with a profile")
    return document


def _profile_keeps(options: Options) -> list[str]:
    """Return the fields that are set explicitly to a value that looks unset.

    A preset must not replace them.
    """
    names = [
        name
        for flag, name in (("memory", "Memory"), ("memory-swap", "MemorySwap"))
        if options.is_set(flag) and not options.number(flag)
    ]
    if options.is_set("read-only") and not options.on("read-only"):
        names.append("ReadonlyRootfs")
    if options.is_set("network") or options.is_set("net"):
        names.append("NetworkMode")
    return names


# Numeric limits of create and update: flag, field of HostConfig.
_NUMBERS = (
    ("cpu-rt-runtime", "CpuRealtimeRuntime"),
    ("cpu-rt-period", "CpuRealtimePeriod"),
    ("blkio-weight", "BlkioWeight"),
    ("cpu-period", "CpuPeriod"),
    ("cpu-quota", "CpuQuota"),
    ("cpu-shares", "CpuShares"),
    ("cpus", "NanoCpus"),
    ("memory", "Memory"),
    ("memory-reservation", "MemoryReservation"),
    ("memory-swap", "MemorySwap"),
    ("oom-score-adj", "OomScoreAdj"),
    ("pids-limit", "PidsLimit"),
    ("shm-size", "ShmSize"),
)


_NUMBERS_OF_CREATE = (
    ("cpu-count", "CpuCount"),
    ("cpu-percent", "CpuPercent"),
    ("io-maxbandwidth", "IOMaximumBandwidth"),
    ("io-maxiops", "IOMaximumIOps"),
    ("kernel-memory", "KernelMemory"),
    ("memory-swappiness", "MemorySwappiness"),
)


def update(options: Options) -> dict[str, Any]:
    """Return the body of ``POST /containers/X/update``: only the limits that are set."""
    body: dict[str, Any] = {
        name: options.number(flag) for flag, name in _NUMBERS if options.is_set(flag)
    }
    for flag, name in (("cpuset-cpus", "CpusetCpus"), ("cpuset-mems", "CpusetMems")):
        if options.is_set(flag):
            body[name] = options.text(flag)
    if options.is_set("restart"):
        body["RestartPolicy"] = restart_policy(options.text("restart"))
    return body


def environment(options: Options) -> list[str]:
    """Return the variables of ``--env-file`` and ``--env``, files first.

    :raises UsageError: when a variable or a file is invalid.
    """
    variables: list[str] = []
    if options.on("env-host"):
        from jaula.cli.environ import variables as client_variables

        variables += client_variables()
    for path in options.texts("env-file"):
        from jaula.cli.containers import env_file

        variables += env_file.variables(path)
    for word in options.texts("env"):
        name, equals, _ = word.partition("=")
        if not name:
            raise UsageError(f"invalid environment variable: {word}")
        value = None if equals else variable(name)
        variables.append(word if value is None else f"{name}={value}")
    return variables


def _labels(options: Options) -> dict[str, str]:
    words: list[str] = []
    for path in options.texts("label-file"):
        from jaula.cli.containers import env_file

        words += env_file.lines(path)
    return pairs(words + options.texts("label"), "label") | _health_labels(options)


def pairs(words: list[str], flag: str, *, needs_value: bool = False) -> dict[str, str]:
    """Return ``key=value`` words as a dictionary.

    :raises UsageError: when the key is missing, or the value if ``needs_value`` is set.
    """
    result = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or (needs_value and not equals):
            raise UsageError(f'invalid argument "{word}" for "--{flag}" flag: must be key=value')
        result[key] = value
    return result


def _split_pair(word: str, separator: str) -> tuple[str, str]:
    first, _, second = word.partition(separator)
    return first, second


def restart_policy(text: str) -> dict[str, Any]:
    """Return the API's document of a restart policy such as ``on-failure:3``.

    :raises UsageError: when the count is not a number.
    """
    name, colon, count = text.partition(":")
    if not colon:
        return {"Name": name or "no"}
    if not count.isdigit():
        raise UsageError(
            f"invalid restart policy format: maximum retry count must be an integer: {text}"
        )
    return {"Name": name, "MaximumRetryCount": int(count)}


def host_line(word: str) -> str:
    """Return ``--add-host`` in the API's form ``name:address``.

    :raises UsageError: when it is invalid.
    """
    name, equals, address = word.partition("=")
    if not equals:
        name, equals, address = word.partition(":")
    if not name or not equals or not address:
        raise UsageError(f'invalid argument "{word}" for "--add-host" flag: bad format: "{word}"')
    return f"{name}:{address.strip('[]')}"


def _set_volumes(words: list[str], body: dict[str, Any], host: dict[str, Any]) -> None:
    binds = []
    for word in words:
        source, colon, rest = word.partition(":")
        if not colon:
            body.setdefault("Volumes", {})[word] = {}
            continue
        if source.startswith("."):
            import os

            source = os.path.abspath(source)
        binds.append(f"{source}:{rest}")
    if binds:
        host["Binds"] = binds


def set_security_options(words: list[str], host: dict[str, Any]) -> None:
    """Set the fields of ``HostConfig`` of ``--security-opt``; a file of seccomp becomes its text.

    :raises UsageError: when an option is invalid, or a file cannot be read.
    """
    security_options = []
    for word in words:
        if word == "systempaths=unconfined":
            host["MaskedPaths"] = []
            host["ReadonlyPaths"] = []
            continue
        name, separator, value = word.partition("=")
        if not separator:
            name, separator, value = word.partition(":")
        if not separator and name != "no-new-privileges":
            raise UsageError(f'Invalid --security-opt: "{word}"')
        if name == "seccomp" and value not in ("unconfined", "builtin"):
            word = "seccomp=" + _read_seccomp_profile(value)
        security_options.append(word)
    host["SecurityOpt"] = security_options


def _read_seccomp_profile(path: str) -> str:
    from jaula.spec import fast_json as documents

    try:
        with open(path, "rb") as file:
            return documents.encode(documents.decode(file.read()))
    except OSError as error:
        raise UsageError(f"opening seccomp profile ({path}) failed: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"compacting json for seccomp profile ({path}) failed: {error}") from None


def ulimit(word: str) -> dict[str, Any]:
    """Return ``--ulimit`` in the API's form.

    :raises UsageError: when it is invalid.
    """
    name, equals, value = word.partition("=")
    soft, colon, hard = value.partition(":")
    try:
        if not name or not equals:
            raise ValueError(word)
        low, high = int(soft), int(hard if colon else soft)
    except ValueError:
        raise UsageError(
            f'invalid argument "{word}" for "--ulimit" flag: must be name=soft[:hard]'
        ) from None
    if high != -1 and (low == -1 or low > high):
        raise UsageError(
            f'invalid argument "{word}" for "--ulimit" flag: '
            f"ulimit soft limit must be less than or equal to hard limit: {low} > {high}"
        )
    return {"Name": name, "Soft": low, "Hard": high}


def _is_cdi_name(word: str) -> bool:
    """Return whether a device has the form ``vendor.com/class=name``."""
    kind, equals, name = word.partition("=")
    vendor, slash, kind_class = kind.partition("/")
    return bool(equals and slash and vendor and kind_class and name) and "/" not in kind_class


def _device(word: str) -> dict[str, str]:
    parts = word.split(":")
    rights = "rwm"
    if len(parts) > 1 and parts[-1] and set(parts[-1]) <= set("rwm"):
        rights = parts.pop()
    if not 1 <= len(parts) <= 2 or not parts[0]:
        raise UsageError(f'invalid argument "{word}" for "--device" flag: bad device specification')
    return {
        "PathOnHost": parts[0],
        "PathInContainer": parts[-1] or parts[0],
        "CgroupPermissions": rights,
    }


_DEVICE_LIMITS = (
    ("blkio-weight-device", "BlkioWeightDevice", "Weight"),
    ("device-read-bps", "BlkioDeviceReadBps", "Rate"),
    ("device-read-iops", "BlkioDeviceReadIOps", "Rate"),
    ("device-write-bps", "BlkioDeviceWriteBps", "Rate"),
    ("device-write-iops", "BlkioDeviceWriteIOps", "Rate"),
)


def _add_device_limits(options: Options, host: dict[str, Any]) -> None:
    """Add the limits of single devices; refuse flags that no engine can honour.

    :raises UsageError: when a flag is invalid or unsupported.
    """
    for flag, name, member in _DEVICE_LIMITS:
        if options.is_set(flag):
            words = options.texts(flag)
            host[name] = [_device_limit(word, flag, member) for word in words]
    if options.is_set("gpus"):
        from jaula.cli.containers import gpus

        requests = [gpus.request(word) for word in options.texts("gpus")]
        host["DeviceRequests"] = [*requests, *host.get("DeviceRequests", ())]
    content_trust.check(options)
    if options.is_set("link-local-ip"):
        raise UsageError("link-local addresses are not supported; use --ip or --ip6")


def _device_limit(word: str, flag: str, member: str) -> dict[str, Any]:
    from jaula.spec import units

    path, colon, value = word.rpartition(":")
    try:
        if not colon or not path.startswith("/dev/"):
            raise ValueError("must be /dev/NAME:number")
        number = units.size(value) if flag.endswith("-bps") else units.integer(value)
        if number < 0:
            raise ValueError("must not be negative")
    except ValueError as error:
        raise UsageError(f'invalid argument "{word}" for "--{flag}" flag: {error}') from None
    return {"Path": path, member: number}


_HEALTH_DURATIONS = {
    "health-interval": "Interval",
    "health-start-interval": "StartInterval",
    "health-start-period": "StartPeriod",
    "health-timeout": "Timeout",
}
HEALTH_ON_FAILURE = "io.jaula.health-on-failure"
"""The label that carries ``--health-on-failure`` to the engine."""


def _health_labels(options: Options) -> dict[str, str]:
    """Return the labels for ``--health-on-failure``."""
    flag = "health-on-failure"
    return {HEALTH_ON_FAILURE: options.text(flag)} if options.is_set(flag) else {}


def healthcheck(options: Options) -> dict[str, Any] | None:
    """Return the Healthcheck document, or None to use the image's.

    :raises UsageError: when a flag is invalid.
    """
    flags = ("health-cmd", "health-retries", *_HEALTH_DURATIONS)
    set_flags = [flag for flag in flags if options.is_set(flag)]
    if options.on("no-healthcheck"):
        if set_flags:
            raise UsageError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    if not set_flags:
        return None
    check: dict[str, Any] = {}
    if command := options.text("health-cmd"):
        check["Test"] = ["CMD-SHELL", command]
    if options.is_set("health-retries"):
        check["Retries"] = options.number("health-retries")
        if check["Retries"] < 0:
            raise UsageError("--health-retries cannot be negative")
    from jaula.spec import units

    for flag, name in _HEALTH_DURATIONS.items():
        if not options.is_set(flag):
            continue
        text = options.text(flag)
        try:
            check[name] = units.nanoseconds(text)
        except ValueError as error:
            raise UsageError(f'invalid argument "{text}" for "--{flag}" flag: {error}') from None
        if check[name] < 0:
            raise UsageError(f"--{flag} cannot be negative")
    return check
