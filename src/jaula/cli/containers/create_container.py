"""Create a container; pull the image first if it is missing."""

from __future__ import annotations

import sys

from jaula.cli.cli_errors import CliError, EngineError
from jaula.cli.containers import feature_flag
from jaula.cli.images import platform_flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jaula.cli.client.api_client import Client
    from jaula.cli.command_parser import Options

NOT_FOUND = 404
_NEW_POD = "new:"  # before the name of a pod to create


def create(client: Client, options: Options, body: dict[str, Any]) -> str:
    """Create the container that ``body`` describes and return its id.

    Warnings are printed to standard error.

    :raises EngineError: when the engine refuses.
    :raises CliError: when ``--cidfile`` or ``--pull`` is invalid, or the pull fails.
    """
    policy = options.text("pull", "missing")
    if policy not in ("always", "missing", "never"):
        raise CliError(
            f'invalid pull option: \'{policy}\': must be one of "always", "missing" or "never"',
            status=125,
        )
    if options.is_set("pod") or options.is_set("pod-id-file"):
        _join_pod(client, options, body)
    cidfile = options.text("cidfile")
    if options.on("replace"):
        _remove_former(client, options.text("name"), cidfile)
    if cidfile:
        _check_cidfile(cidfile)
    image = str(body["Image"])
    if policy == "always":
        _pull(client, options, image)
    query = (("name", options.text("name")), ("platform", platform_flag.requested(options)))
    try:
        answer = client.document("POST", "/containers/create", query, body)
    except EngineError as error:
        if error.code != NOT_FOUND or policy != "missing" or "image" not in error.reason.lower():
            raise
        from jaula.cli.images.pull_progress import with_tag

        sys.stderr.write(f"Unable to find image '{with_tag(image)}' locally\n")
        try:
            _pull(client, options, image)
        except CliError:
            from jaula.cli import suggestion
            from jaula.cli.main import Settings

            suggestion.print_image_hint(image, Settings.host)
            raise
        answer = client.document("POST", "/containers/create", query, body)
    for warning in answer.get("Warnings") or ():
        sys.stderr.write(f"WARNING: {warning}\n")
    identity = str(answer["Id"])
    if cidfile:
        _write_cidfile(client, cidfile, identity)
    return identity


def _join_pod(client: Client, options: Options, body: dict[str, Any]) -> None:
    from jaula.cli.id_file import IdFile

    pods = feature_flag.module("pod")
    ref = options.text("pod")
    if path := options.text("pod-id-file"):
        try:
            ref = IdFile(path).id
        except FileNotFoundError:
            raise CliError(f"{path} does not exist: the pod was not created", status=125) from None
    if ref.startswith(_NEW_POD):
        ref = _create_pod(client, ref.removeprefix(_NEW_POD), body)
    pod = pods.find(client, ref)
    if options.command.path.endswith("run"):
        pods.start(client, pod, infra_only=True)
    pods.join(body, pod)


def _create_pod(client: Client, name: str, body: dict[str, Any]) -> str:
    """Create the pod ``name`` with the network of the container in ``body``; return its id."""
    pods = feature_flag.module("pod")
    infra = pods.split_infra(body)
    name = name or pods.new_name()
    return str(pods.create_infra(client, name, {"Hostname": name, **infra}))


def _remove_former(client: Client, name: str, cidfile: str) -> None:
    """Remove the container that has the name, and the file with an id."""
    from jaula.cli.client.api_client import quote
    from jaula.cli.id_file import IdFile

    if not name:
        raise CliError("cannot replace container without --name being set", status=125)
    file = None
    if cidfile:
        try:
            file = IdFile(cidfile)
        except FileNotFoundError:
            file = None
    query = (("force", True), ("v", True))
    try:
        client.request("DELETE", f"/containers/{quote(name)}", query)
    except EngineError as error:
        if error.code != NOT_FOUND:
            raise
    if file is not None:
        file.remove()


def _check_cidfile(path: str) -> None:
    from posix import access

    if access(path, 0):
        raise CliError(
            "container ID file found, make sure the other container isn't running or delete "
            + path,
            status=125,
        )


def _write_cidfile(client: Client, path: str, identity: str) -> None:
    """Write the id of a container that was created; if that fails, remove the container."""
    from jaula.cli import id_file
    from jaula.cli.client.api_client import quote

    try:
        id_file.write(path, identity)
    except BaseException as error:
        client.request("DELETE", f"/containers/{quote(identity)}", (("v", True),))
        if isinstance(error, FileExistsError):
            _check_cidfile(path)
        raise


def _pull(client: Client, options: Options, image: str) -> None:
    from jaula.cli.images import pull_progress

    pull_progress.pull(
        client, image, platform_flag.requested(options), quiet=options.on("quiet"), output=2
    )
