"""Services of systemd for existing containers and pods, from the answers of ``inspect``. Pure.

Source: podman-generate-systemd(1), systemd.service(5). A service starts a container that exists;
with ``new`` it creates the container at its start and removes it at its end.
"""

from __future__ import annotations

import re

from jaula.errors import InvalidRequest
from jaula.features.quadlet import unit_words
from jaula.features.quadlet.convert import CLEAN_STATUSES, ENGINE
from jaula.spec.csv_field import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

RESTART_POLICIES = (
    "no", "on-success", "on-failure", "on-abnormal", "on-watchdog", "on-abort", "always",
)  # fmt: skip
_UNIT_NAME = re.compile(r"[a-zA-Z0-9:_.@\\-]{1,255}")
_SPARE_SECONDS = 60  # of a stop, after the timeout of the container


class UnitOptions:
    """The flags of ``generate systemd``. ``program`` is the path of ``jaula``."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.new = False
        self.header = ""
        self.restart = "on-failure"
        self.restart_seconds = 0
        self.start_seconds = 0
        self.stop_seconds = 10
        self.environment: list[str] = []
        self.wants: list[str] = []
        self.after: list[str] = []
        self.requires: list[str] = []


def check_names(flag: str, names: Iterable[str]) -> None:
    """Check names of units that become a part of a line.

    :raises InvalidRequest: when one is not a name of a unit.
    """
    for name in names:
        if not _UNIT_NAME.fullmatch(name):
            raise InvalidRequest(
                f"invalid name of a unit {name[:80]!r} for --{flag}",
                hint="letters, digits and : - _ . @ \\ are allowed",
            )


def container_unit(
    name: str, document: dict[str, Any], image: dict[str, Any], options: UnitOptions, pod: str = ""
) -> str:
    """Return the service ``name`` of a container; ``pod`` is the service of its pod, '' if none.

    ``image`` is the configuration of its image: what is there is not said again.
    """
    program, container = options.program, str(document["Name"]).lstrip("/")
    lines = _unit(name, options)
    if pod:
        lines += [f"BindsTo={pod}", f"After={pod}"]
    lines += ["", "[Service]", *_service(options)]
    if options.new:
        id_file = "--cidfile=%t/%n.cid"
        run = [program, "run", "--name", _literal(container), id_file, "--replace", "--rm"]
        run.append("--sdnotify=conmon")
        if pod:
            run += ["--pod-id-file", f"%t/{pod}.pod-id"]
            document = _without_pod(document)
        run += map(_literal, run_arguments(document, image))
        stop = [program, "stop", "-i", id_file, "-t", str(options.stop_seconds)]
        remove = [program, "rm", "-v", "-f", "-i", id_file]
        lines += [f"ExecStart={unit_words.join(run)}", f"ExecStop={unit_words.join(stop)}"]
        lines.append(f"ExecStopPost=-{unit_words.join(remove)}")
    else:
        start = [program, "start", "--attach", "--sdnotify=conmon", container]
        stop = [program, "stop", "-i", "-t", str(options.stop_seconds), container]
        lines += [f"ExecStart={unit_words.join(start)}", f"ExecStop={unit_words.join(stop)}"]
    return "\n".join((*lines, "", "[Install]", "WantedBy=default.target")) + "\n"


def pod_unit(
    name: str, pod: str, infra: dict[str, Any], containers: list[str], options: UnitOptions
) -> str:
    """Return the service ``name`` of a pod; ``containers`` are the services of its containers.

    ``infra`` is the document of its infra container.
    """
    program = options.program
    lines = _unit(name, options)
    if containers:
        lines += [f"Wants={' '.join(containers)}", f"Before={' '.join(containers)}"]
    lines += ["", "[Service]", *_service(options)]
    start = [program, "pod", "start", "--infra-only", "--wait", "--sdnotify=conmon"]
    stop = [program, "pod", "stop", "-t", str(options.stop_seconds)]
    if options.new:
        id_file = f"--pod-id-file=%t/{name}.pod-id"
        create = [program, "pod", "create", id_file, "--replace", "--name", _literal(pod)]
        create += map(_literal, pod_arguments(infra))
        remove = [program, "pod", "rm", "-f", "-i", id_file]
        lines.append(f"ExecStartPre={unit_words.join(create)}")
        lines.append(f"ExecStart={unit_words.join([*start, id_file])}")
        lines.append(f"ExecStop={unit_words.join([*stop, '-i', id_file])}")
        lines.append(f"ExecStopPost=-{unit_words.join(remove)}")
    else:
        lines.append(f"ExecStart={unit_words.join([*start, pod])}")
        lines.append(f"ExecStop={unit_words.join([*stop, pod])}")
    return "\n".join((*lines, "", "[Install]", "WantedBy=default.target")) + "\n"


def pod_arguments(infra: dict[str, Any]) -> list[str]:
    """Return the arguments of ``pod create`` that make a pod with such an infra container."""
    labels = infra["Config"].get("Labels") or {}
    document = _without_labels(infra)
    document["Config"] |= {"Entrypoint": None, "Cmd": None, "Env": None, "StopTimeout": None}
    document["HostConfig"] = {**document["HostConfig"], "IpcMode": "private"}
    result = run_arguments(document, {})[:-1]  # without the image
    for flag, label in (
        ("--exit-policy", "io.jaula.pod-exit-policy"),
        ("--restart", "io.jaula.pod-restart"),
        ("--share", "io.jaula.pod-share"),
    ):
        if label in labels:
            result += [flag, labels[label]]
    return result


def _without_labels(document: dict[str, Any]) -> dict[str, Any]:
    """Return a container without the labels that say that it is one of a pod."""
    labels = document["Config"].get("Labels") or {}
    kept = {key: value for key, value in labels.items() if not key.startswith("io.jaula.pod")}
    return {**document, "Config": {**document["Config"], "Labels": kept}}


def _without_pod(document: dict[str, Any]) -> dict[str, Any]:
    """Return a container of a pod without what it has of the pod: labels, network and volumes."""
    result = _without_labels(document)
    result["Config"]["Hostname"] = ""
    host = dict(document["HostConfig"])
    infra = str(host.get("UsernsMode") or "").removeprefix("container:")
    host["NetworkMode"] = "default"
    host["VolumesFrom"] = [v for v in host.get("VolumesFrom") or () if v != infra]
    return {**result, "HostConfig": host}


def _unit(name: str, options: UnitOptions) -> list[str]:
    needed = f"network-online.target {ENGINE}"
    lines = [f"# {line}" for line in options.header.splitlines()] + ([""] if options.header else [])
    lines += ["[Unit]", f"Description=jaula {name}"]
    lines += ["Documentation=man:jaula-generate-systemd(1)"]
    lines += [f"Wants={needed}", f"After={needed}"]
    for key, values in (
        ("Wants", options.wants),
        ("After", options.after),
        ("Requires", options.requires),
    ):
        if values:
            lines.append(f"{key}={' '.join(values)}")
    return lines


def _service(options: UnitOptions) -> Iterator[str]:
    yield from (f"Environment={unit_words.join([text])}" for text in options.environment)
    yield "Type=notify"
    yield "NotifyAccess=main"
    yield f"Restart={options.restart}"
    if options.restart_seconds:
        yield f"RestartSec={options.restart_seconds}"
    if options.start_seconds:
        yield f"TimeoutStartSec={options.start_seconds}"
    yield f"TimeoutStopSec={options.stop_seconds + _SPARE_SECONDS}"
    yield f"SuccessExitStatus={CLEAN_STATUSES}"
    yield "KillMode=mixed"


def run_arguments(document: dict[str, Any], image: dict[str, Any]) -> list[str]:
    """Return the arguments of ``run`` that make such a container, without its name.

    Values of the image and defaults of the engine are left out.
    """
    config, host = document["Config"], document["HostConfig"]
    result: list[str] = []
    for flag, value, default in (
        ("--user", config.get("User"), image.get("User")),
        ("--workdir", config.get("WorkingDir"), image.get("WorkingDir")),
        ("--hostname", config.get("Hostname"), document["Id"][:12]),
        ("--stop-signal", config.get("StopSignal"), image.get("StopSignal")),
        ("--stop-timeout", config.get("StopTimeout"), None),
        ("--ipc", host.get("IpcMode"), "private"),
        ("--pid", host.get("PidMode"), ""),
        ("--uts", host.get("UTSMode"), ""),
        ("--userns", host.get("UsernsMode"), "private"),
        ("--cpu-shares", host.get("CpuShares"), 0),
        ("--memory", host.get("Memory"), 0),
        ("--memory-reservation", host.get("MemoryReservation"), 0),
        ("--cpuset-cpus", host.get("CpusetCpus"), ""),
        ("--cgroup-parent", host.get("CgroupParent"), ""),
    ):
        if value and value != default and not str(value).startswith("container:"):
            result += [flag, str(value)]
    if host.get("NanoCpus"):
        result += ["--cpus", f"{host['NanoCpus'] / 1e9:g}"]
    if host.get("PidsLimit") not in (None, 0, 4096):
        result += ["--pids-limit", str(host["PidsLimit"])]
    for flag, on in (
        ("--tty", config.get("Tty")),
        ("--interactive", config.get("OpenStdin")),
        ("--privileged", host.get("Privileged")),
        ("--read-only", host.get("ReadonlyRootfs")),
        ("--init", host.get("Init")),
        ("--publish-all", host.get("PublishAllPorts")),
    ):
        if on:
            result.append(flag)
    known = set(image.get("Env") or ())
    result += unit_words.repeat("--env", [v for v in config.get("Env") or () if v not in known])
    of_image = image.get("Labels") or {}
    labels = config.get("Labels") or {}
    result += unit_words.repeat(
        "--label",
        [f"{k}={v}" for k, v in sorted(labels.items()) if of_image.get(k) != v],
    )
    for flag, member in _LISTS:
        result += unit_words.repeat(flag, host.get(member) or ())
    sysctls = host.get("Sysctls") or {}
    result += unit_words.repeat("--sysctl", [f"{key}={sysctls[key]}" for key in sorted(sysctls)])
    tmpfs = host.get("Tmpfs") or {}
    result += unit_words.repeat(
        "--tmpfs",
        [
            f"{_without_colon('tmpfs', path)}:{opt}" if opt else _without_colon("tmpfs", path)
            for path, opt in tmpfs.items()
        ],
    )
    result += unit_words.repeat("--mount", [_mount(mount) for mount in host.get("Mounts") or ()])
    for device in host.get("Devices") or ():
        parts = [device[key] for key in ("PathOnHost", "PathInContainer", "CgroupPermissions")]
        result += ["--device", ":".join(_without_colon("device", part) for part in parts)]
    result += _networks(document)
    for port, bindings in sorted((host.get("PortBindings") or {}).items()):
        for binding in bindings or ():
            address, number = binding.get("HostIp", ""), binding.get("HostPort", "")
            address = f"[{address}]" if ":" in address else address
            parts = [part for part in (address, number, port) if part]
            result += [
                "--publish",
                ":".join(parts) if number or not address else f"{address}::{port}",
            ]
    result += _command(config, image)
    return result


_LISTS = (
    ("--volume", "Binds"), ("--cap-add", "CapAdd"), ("--cap-drop", "CapDrop"), ("--dns", "Dns"),
    ("--dns-option", "DnsOptions"), ("--dns-search", "DnsSearch"), ("--add-host", "ExtraHosts"),
    ("--group-add", "GroupAdd"), ("--security-opt", "SecurityOpt"),
    ("--volumes-from", "VolumesFrom"),
)  # fmt: skip


def _literal(word: str) -> str:
    """Return a word of a command line in which systemd replaces nothing."""
    return word.replace("%", "%%").replace("$", "$$")


def _without_colon(what: str, path: str) -> str:
    """Return a path that is written with colons around it.

    :raises InvalidRequest: when it has one itself, which would begin other options.
    """
    if ":" in path:
        raise InvalidRequest(f"no flag can say the path of a {what} with a colon: {path[:80]!r}")
    return path


def _mount(mount: dict[str, Any]) -> str:
    fields = [f"type={mount['Type']}", f"target={mount['Target']}"]
    if mount.get("Source"):
        fields.insert(1, f"source={mount['Source']}")
    return ",".join([*map(quoted, fields), *(["readonly"] if mount.get("ReadOnly") else [])])


def _networks(document: dict[str, Any]) -> list[str]:
    mode = document["HostConfig"].get("NetworkMode") or "default"
    if mode in ("default", "bridge"):
        return []
    names = sorted((document.get("NetworkSettings") or {}).get("Networks") or {})
    if mode in ("host", "none") or mode.startswith("container:") or not names:
        return ["--network", mode]
    return unit_words.repeat("--network", [mode, *(name for name in names if name != mode)])


def _command(config: dict[str, Any], image: dict[str, Any]) -> list[str]:
    """Return the image, and entry point and arguments if the image has others."""
    entrypoint, command = config.get("Entrypoint") or [], config.get("Cmd") or []
    flags: list[str] = []
    if entrypoint != (image.get("Entrypoint") or []):
        flags = ["--entrypoint", entrypoint[0] if entrypoint else ""]
        command = [*entrypoint[1:], *command]
    elif command == (image.get("Cmd") or []):
        command = []
    return [*flags, config["Image"], *command]
