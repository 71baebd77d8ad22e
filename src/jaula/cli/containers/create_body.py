"""The request body of ``POST /containers/create``, from the flags of ``run`` and ``create``.

Docker's reference of ``docker run`` and ``POST /containers/create`` (API 1.45) define each field.
This module makes no request: it checks the form of a value, and the engine checks its meaning.
"""

from __future__ import annotations

from jaula.cli.cli_errors import UsageError
from jaula.cli.containers import network_option
from jaula.cli.containers.flags import FLAGS, UPDATE_NAMES
from jaula.cli.environ import variable
from jaula.cli.images import content_trust
from jaula.spec.flag import CONFIG, HEALTHCHECK, HOST_CONFIG, PlacedFlag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from jaula.cli.command_parser import Options


def document(options: Options) -> dict[str, Any]:
    """Return the body of ``POST /containers/create``.

    :raises UsageError: when a flag is invalid.
    """
    image, *words = options.arguments
    streams = _streams(options)
    body: dict[str, Any] = {}
    host: dict[str, Any] = {
        "LogConfig": {"Type": "", "Config": {}},
        "RestartPolicy": restart_policy(""),
    }
    if mode := network_option.mode(options):
        host["NetworkMode"] = mode
    _set_members(options, body, host)
    _set_own_members(options, host)
    special: dict[str, Any] = {
        "AttachStdin": "stdin" in streams,
        "AttachStdout": "stdout" in streams,
        "AttachStderr": "stderr" in streams,
        "StdinOnce": options.on("interactive") and "stdin" in streams,
        "Env": body.get("Env", []) + environment(options),
        "Cmd": words,
        "Image": image,
        "Labels": _labels(options),
    }
    body |= _without_empty(special)
    if check := healthcheck(options):
        body["Healthcheck"] = check
    if options.is_set("volume"):
        _set_volumes(options.texts("volume"), body, host)
    if options.is_set("publish") or options.is_set("expose"):
        from jaula.cli.containers import publish_option

        exposed, bindings = publish_option.documents(
            options.texts("publish"), options.texts("expose")
        )
        if exposed:
            body["ExposedPorts"] = exposed
        host["PortBindings"] = bindings
    body["HostConfig"] = host
    if networks := network_option.documents(options):
        body["NetworkingConfig"] = {"EndpointsConfig": networks}
    return body


def _set_members(options: Options, body: dict[str, Any], host: dict[str, Any]) -> None:
    """Set the members of the options that are set, by the places of the table.

    A plain value that says nothing is left out; a number 0 is a value.

    :raises UsageError: when a value is invalid.
    """
    documents = {CONFIG: body, HOST_CONFIG: host}
    for option in _chosen(options):
        document = documents.get(option.document)
        read = _READERS.get(option.syntax)
        if document is None or read is None:
            continue
        value = read(options, option)
        if read is _plain and (value is False or value in ("", [])):
            continue
        *within, member = option.member.split(".")
        for name in within:
            document = document.setdefault(name, {})
        if option.kind == "list" and isinstance(value, list):
            document[member] = document.get(member, []) + value  # also of an alias
        else:
            document[member] = value


def _chosen(options: Options) -> list[PlacedFlag]:
    """Return the options that are set, in the order of the table."""
    names = options.names
    return [flag for flag in FLAGS if flag.name in names]


def _plain(options: Options, option: PlacedFlag) -> Any:
    """Return the value of an option as it is."""
    if option.kind == "bool":
        return options.on(option.name)
    if option.kind == "list":
        return options.texts(option.name)
    if option.kind == "string":
        return options.text(option.name)
    return options.number(option.name)


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


def _set_own_members(options: Options, host: dict[str, Any]) -> None:
    """Set the members of ``HostConfig`` that depend on more than the text of one option.

    :raises UsageError: when options exclude each other, or no engine can honour one.
    """
    if profile := profile_text(options.text("profile")):
        host["Profile"] = profile
    if keeps := _profile_keeps(options):
        host["ProfileKeeps"] = keeps
    if options.on("rm") and host["RestartPolicy"]["Name"] not in ("", "no"):
        raise UsageError("Conflicting options: --restart and --rm")
    if options.is_set("security-opt"):
        set_security_options(options.texts("security-opt"), host)
    if options.is_set("device") and (cdi := [*filter(_is_cdi_name, options.texts("device"))]):
        host["DeviceRequests"] = [{"Driver": "cdi", "DeviceIDs": cdi}]
    if options.is_set("gpus"):
        from jaula.cli.containers import gpus

        requests = [gpus.request(word) for word in options.texts("gpus")]
        host["DeviceRequests"] = [*requests, *host.get("DeviceRequests", ())]
    content_trust.check(options)
    if options.is_set("link-local-ip"):
        raise UsageError("link-local addresses are not supported; use --ip or --ip6")


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


def update(options: Options) -> dict[str, Any]:
    """Return the body of ``POST /containers/X/update``: only the limits that are set.

    :raises UsageError: when a value is invalid.
    """
    return {
        option.member: _READERS[option.syntax](options, option)
        for option in _chosen(options)
        if option.name in UPDATE_NAMES
    }


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


def _device_limit(word: str, option: PlacedFlag) -> dict[str, Any]:
    from jaula.spec import units

    path, colon, value = word.rpartition(":")
    try:
        if not colon or not path.startswith("/dev/"):
            raise ValueError("must be /dev/NAME:number")
        is_size = option.syntax == "device-bytes"
        number = units.size(value) if is_size else units.integer(value)
        if number < 0:
            raise ValueError("must not be negative")
    except ValueError as error:
        raise UsageError(f'invalid argument "{word}" for "--{option.name}" flag: {error}') from None
    return {"Path": path, "Weight" if option.syntax == "device-weight" else "Rate": number}


def _device_limits(options: Options, option: PlacedFlag) -> list[dict[str, Any]]:
    return [_device_limit(word, option) for word in options.texts(option.name)]


def _mounts(options: Options, option: PlacedFlag) -> list[dict[str, Any]]:
    from jaula.cli.containers import mount_option

    return [mount_option.document(word) for word in options.texts(option.name)]


def _secrets(options: Options, option: PlacedFlag) -> list[dict[str, Any]]:
    from jaula.cli.containers import secret_option

    return [secret_option.document(word, option.name) for word in options.texts(option.name)]


def _items(options: Options, option: PlacedFlag) -> list[str]:
    """Return the items of lists with commas; ``none`` alone is the empty list."""
    words = options.texts(option.name)
    return [item for word in words if word != "none" for item in word.split(",")]


_READERS: dict[str, Callable[[Options, PlacedFlag], Any]] = {
    "": _plain,
    "device": lambda o, of: [_device(w) for w in o.texts(of.name) if not _is_cdi_name(w)],
    "device-bytes": _device_limits,
    "device-number": _device_limits,
    "device-weight": _device_limits,
    "host-line": lambda o, of: [host_line(word) for word in o.texts(of.name)],
    "items": _items,
    "map": lambda o, of: pairs(o.texts(of.name), of.name),
    "mount": _mounts,
    "path-map": lambda o, of: dict(_split_pair(word, ":") for word in o.texts(of.name)),
    "restart": lambda o, of: restart_policy(o.text(of.name)),
    "secret": _secrets,
    "switch": lambda o, of: o.on(of.name),
    "sysctl": lambda o, of: pairs(o.texts(of.name), of.name, needs_value=True),
    "ulimit": lambda o, of: [ulimit(word) for word in o.texts(of.name)],
    "word": lambda o, of: [o.text(of.name)],
}
"""The value of a member, by the syntax of its option. Code of its own serves another syntax."""


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
    of_check = [option for option in _chosen(options) if option.document == HEALTHCHECK]
    if options.on("no-healthcheck"):
        if any(option.name != "no-healthcheck" for option in of_check):
            raise UsageError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    if all(option.name == "no-healthcheck" for option in of_check):
        return None
    check: dict[str, Any] = {}
    if command := options.text("health-cmd"):
        check["Test"] = ["CMD-SHELL", command]
    if options.is_set("health-retries"):
        check["Retries"] = options.number("health-retries")
        if check["Retries"] < 0:
            raise UsageError("--health-retries cannot be negative")
    from jaula.spec import units

    for option in of_check:
        if option.syntax != "duration":
            continue
        text = options.text(option.name)
        try:
            check[option.member] = units.nanoseconds(text)
        except ValueError as error:
            raise UsageError(
                f'invalid argument "{text}" for "--{option.name}" flag: {error}'
            ) from None
        if check[option.member] < 0:
            raise UsageError(f"--{option.name} cannot be negative")
    return check
