"""A debug session with the files of a stopped container or of an image.

The session is a container of its own, which is removed when it ends. Its root is a copy on write:
the image's files, or those of the stopped container in an image without a name, which is removed
with it. A stopped container lends its security settings, limits and mounts, the latter
read-only. No change is kept, and there is no network.
"""

from __future__ import annotations

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Options
from jaula.cli.commands.run import STATUS_BY_WORDS
from jaula.cli.containers.attach import detach_keys_of, start_attached
from jaula.cli.errors import CliError, EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DIRECTORY = "/.debug"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOT_FOUND = 404
_SETTINGS = (
    *("CapAdd", "CapDrop", "SecurityOpt", "Privileged", "UsernsMode", "Runtime", "GroupAdd"),
    *("Memory", "MemorySwap", "MemoryReservation", "NanoCpus", "CpuShares", "CpuPeriod"),
    *("CpuQuota", "CpusetCpus", "CpusetMems", "PidsLimit", "Ulimits", "BlkioWeight"),
    *("Sysctls", "MaskedPaths", "ReadonlyPaths", "ShmSize", "CgroupParent"),
)
"""Members of HostConfig that a session has as the stopped container has them."""


def run(
    client: Client,
    options: Options,
    name: str,
    container: dict[str, Any] | None,
    request: dict[str, Any],
) -> int:
    """Run the session and return the status of its command.

    ``container`` is the document of a stopped container; None: ``name`` is an image. ``request`` is
    that of a session in a running container.

    :raises CliError: when there is neither, or the container cannot be created.
    """
    try:
        config = container["Config"] if container else _image_config(client, name)
    except EngineError as error:
        if error.code != _NOT_FOUND:
            raise
        raise CliError(f"No such container or image: {name}") from None
    toolbox = _image_config(client, request["Image"])
    body = {
        **{key: request[key] for key in ("Tty", "AttachStdin", "AttachStdout", "AttachStderr")},
        "OpenStdin": request["AttachStdin"],
        "StdinOnce": request["AttachStdin"],
        "User": request["User"] or config.get("User") or "",
        "WorkingDir": request["WorkingDir"] or config.get("WorkingDir") or "",
        "Env": environment(config.get("Env") or [], toolbox.get("Env") or [], request["Env"]),
        "Entrypoint": request["Cmd"] or ["sh"],
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": {"jaula.debug": name},
        "HostConfig": host_config(container, request["Image"]),
    }
    if request["Tty"]:
        from jaula.cli.output.terminal import console_size

        if size := console_size():
            body["HostConfig"]["ConsoleSize"] = size
    image = name
    if container is not None:
        query = (("container", container["Id"]), ("comment", "jaula debug"))
        image = str(client.document("POST", "/commit", query, {})["Id"])
    session = ""

    def start() -> None:
        try:
            client.request("POST", f"/containers/{session}/start")
        except EngineError as error:
            statuses = (status for words, status in STATUS_BY_WORDS if words in error.reason)
            raise CliError(error.message, status=next(statuses, 1)) from None

    try:
        created = client.document("POST", "/containers/create", (), body | {"Image": image})
        session = str(created["Id"])
        return start_attached(
            client,
            session,
            options,
            start,
            tty=request["Tty"],
            stdin=request["AttachStdin"],
            stdout=True,
            stderr=True,
            keys=detach_keys_of(options, tty=request["Tty"], stdin=request["AttachStdin"]),
            removed=True,
        )
    finally:
        if session:
            _remove(client, f"/containers/{session}", (("force", True), ("v", True)))
        if container is not None:
            _remove(client, f"/images/{image}", (("force", True), ("noprune", True)))


def _image_config(client: Client, image: str) -> dict[str, Any]:
    document: dict[str, Any] = client.get(f"/images/{quote(image)}/json")
    config: dict[str, Any] = document["Config"] or {}
    return config


def environment(container: list[str], toolbox: list[str], requested: list[str]) -> list[str]:
    """Return the environment of a session, with the tools first in PATH. Pure."""
    path = _value([*container, *requested], "PATH") or _PATH
    tools = (_value(toolbox, "PATH") or _PATH).split(":")
    found = [DIRECTORY + directory for directory in tools if directory.startswith("/")]
    return [*container, *requested, "PATH=" + ":".join([*found, path])]


def _value(env: list[str], name: str) -> str:
    values = [entry.partition("=")[2] for entry in env if entry.startswith(f"{name}=")]
    return values[-1] if values else ""


def host_config(container: dict[str, Any] | None, toolbox: str) -> dict[str, Any]:
    """Return the HostConfig of a session: that of the stopped container, without writes. Pure."""
    tools = {"Type": "image", "Source": toolbox, "Target": DIRECTORY, "ReadOnly": True}
    config: dict[str, Any] = {"AutoRemove": True, "NetworkMode": "none", "Mounts": [tools]}
    if container is None:
        return config
    former = container["HostConfig"]
    config |= {key: former[key] for key in _SETTINGS if former.get(key)}
    if former.get("ReadonlyRootfs"):
        # The toolbox needs a mount point, which a read-only root refuses.
        config["ReadonlyRootfs"] = False
    for mount in container.get("Mounts") or []:
        if mount["Type"] in ("bind", "volume") and mount["Destination"] != DIRECTORY:
            source = mount["Name"] if mount["Type"] == "volume" else mount["Source"]
            config["Mounts"].append(
                {
                    "Type": mount["Type"],
                    "Source": source,
                    "Target": mount["Destination"],
                    "ReadOnly": True,
                }
            )
    return config


def _remove(client: Client, path: str, query: tuple[tuple[str, object], ...]) -> None:
    """Remove an object that may have been removed already."""
    try:
        client.request("DELETE", path, query)
    except EngineError as error:
        if error.code != _NOT_FOUND:
            raise
