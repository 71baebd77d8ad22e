"""The pods that a command names: by arguments, or by files with their ids."""

from __future__ import annotations

import sys

from jaula.cli.cli_errors import CliError, UsageError
from jaula.cli.client.api_client import Client
from jaula.cli.command_parser import Flag, Options
from jaula.cli.id_file import IdFile
from jaula.cli.main import Settings
from jaula.features.kubernetes.cli.pods import api_pods

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LATEST = Flag("latest", "l", "bool", "Select the newest pod")
FLAGS = (
    Flag("all", "a", "bool", "Select all pods"),
    Flag("ignore", "i", "bool", "Ignore pods and files that do not exist"),
    LATEST,
    Flag("pod-id-file", "", "list", "Read the pod's ID from the file", completes="file"),
)
TIME_FLAGS = (
    Flag("time", "t", "int", "Seconds to wait before killing the containers"),
    Flag("timeout", "", "int", "Alias of --time"),
)


def id_files(options: Options) -> list[IdFile]:
    """Read the files of ``--pod-id-file``.

    :raises CliError: when a file does not exist, unless ``--ignore`` is set.
    """
    result = []
    for path in options.texts("pod-id-file"):
        try:
            result.append(IdFile(path))
        except FileNotFoundError:
            if not options.on("ignore"):
                raise CliError(f"{path} does not exist; --ignore skips it", status=125) from None
    return result


def pods_of(
    client: Client, options: Options, files: list[IdFile] | None = None
) -> list[api_pods.Pod]:
    """Return the pods that the command names; ``files`` are those of :func:`id_files`.

    :raises UsageError: when it names none.
    :raises CliError: when one does not exist, unless ``--ignore`` is set.
    """
    if options.on("all"):
        return api_pods.listed(client)
    if options.on("latest"):
        return [latest(client)]
    names = list(options.arguments)
    if not names and not options.is_set("pod-id-file"):
        raise UsageError(
            f'"jaula {options.command.path}" requires at least 1 argument.', status=1, usage=True
        )
    names += [file.id for file in (id_files(options) if files is None else files)]
    result = []
    for name in names:
        try:
            result.append(api_pods.find(client, name))
        except CliError as error:
            if error.status != api_pods.NO_POD or not options.on("ignore"):
                raise
    return result


def latest(client: Client) -> api_pods.Pod:
    """Return the newest pod.

    :raises CliError: when there is no pod.
    """
    newest = max(api_pods.listed(client), key=lambda pod: int(pod.infra["Created"]), default=None)
    if newest is None:
        raise CliError("no pods were found: no such pod", status=api_pods.NO_POD)
    return newest


def one_of(client: Client, options: Options) -> tuple[api_pods.Pod, list[str]]:
    """Return the pod that the first argument names, or ``--latest``, and the other arguments.

    :raises UsageError: when no pod is named.
    :raises CliError: when it does not exist.
    """
    if options.on("latest"):
        return latest(client), list(options.arguments)
    if not options.arguments:
        raise UsageError(
            f'"jaula {options.command.path}" requires at least 1 argument.', status=1, usage=True
        )
    name, *others = options.arguments
    return api_pods.find(client, name), others


def seconds(options: Options) -> int | None:
    """Return the value of ``--time`` or ``--timeout``, None if none is set."""
    for name in ("time", "timeout"):
        if options.is_set(name):
            return options.number(name)
    return None


def each(
    options: Options,
    action: Callable[[Client, api_pods.Pod], object],
    state: str = "",
    files: list[IdFile] | None = None,
) -> int:
    """Perform an action on every pod and print its id; return 1 if one failed.

    With ``--all``, pods without a container in ``state`` are left out. ``files`` are those of
    :func:`id_files`.
    """
    client = Client(Settings.host)
    status = 0
    for pod in pods_of(client, options, files):
        if options.on("all") and state and not pod.containers_in(state):
            continue
        try:
            action(client, pod)
        except CliError as error:
            sys.stdout.flush()
            sys.stderr.write(error.message + "\n")
            status = 1
        else:
            print(pod.id)
    return status
