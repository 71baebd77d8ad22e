"""``jaula edit``: change a container that exists, by flags or in an editor."""

from __future__ import annotations

import sys

from jaula.cli.cli_errors import UsageError
from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.containers import create_body, mount_option, publish_option
from jaula.cli.main import Settings
from jaula.spec import run_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LIMITS = tuple(sorted(run_options.LIMIT_NAMES))


def run(options: Options) -> int:
    """Change the container."""
    client, name = Client(Settings.host), options.arguments[0]
    path = f"/jaula/containers/{quote(name)}/edit"
    body = request(options)
    if not body:
        from jaula.features.edit.cli import editor

        detach = options.on("detach")
        return editor.run(client, path, lambda change: apply(client, path, change), detach=detach)
    if options.on("detach"):
        body["Detach"] = True
    apply(client, path, body)
    print(name)
    return 0


def apply(client: Client, path: str, body: dict[str, Any]) -> None:
    """Send a change and print its warnings.

    :raises EngineError: when the engine refuses it.
    """
    answer = client.document("POST", path, (), body)
    for warning in (answer or {}).get("Warnings") or ():
        sys.stderr.write(f"WARNING: {warning}\n")


def request(options: Options) -> dict[str, Any]:
    """Return the body of the change that the flags ask for; {} without any.

    :raises UsageError: when a flag has a wrong value.
    """
    body: dict[str, Any] = {}
    for flag, member in (("publish-add", "Publish"), ("publish-rm", "Unpublish")):
        if words := options.texts(flag):
            body[member] = publish_option.documents(words, [])[1]
    for word in options.texts("mount-add"):
        if _is_relabelled(word):
            body.setdefault("Binds", []).append(word)
        else:
            body.setdefault("Mounts", []).append(_mount(word))
    if words := options.texts("mount-rm"):
        body["Unmount"] = words
    if words := options.texts("network-add"):
        body["Connect"] = {word: {} for word in words}
    if words := options.texts("network-rm"):
        body["Disconnect"] = words
    if update := create_body.update(options):
        body["Update"] = update
    if words := options.texts("limit-rm"):
        body["RemoveLimits"] = [_limit(word) for word in words]
    if words := options.texts("label-add"):
        body["Labels"] = create_body.pairs(words, "label-add")
    if words := options.texts("label-rm"):
        body["RemoveLabels"] = words
    if (check := create_body.healthcheck(options)) is not None:
        body["Healthcheck"] = check
    return body


def _limit(name: str) -> str:
    """Return the API's name of a limit, by that of its flag.

    :raises UsageError: when there is no such limit.
    """
    if name not in _LIMITS:
        raise UsageError(f"--limit-rm {name}: must be one of {', '.join(_LIMITS)}")
    return run_options.BY_NAME[name].member


def _is_relabelled(word: str) -> bool:
    """Return whether a mount is ``SOURCE:TARGET:MODE`` with ``z`` or ``Z``."""
    parts = word.split(":")
    return len(parts) == 3 and bool({"z", "Z"} & set(parts[2].split(",")))


def _mount(word: str) -> dict[str, Any]:
    """Return the API's Mount for ``type=bind,...`` or ``SOURCE:TARGET[:ro]``."""
    first = word.split(",", 1)[0]
    if "=" in first and not first.startswith("/"):
        return mount_option.document(word)
    source, _, rest = word.partition(":")
    target, _, mode = rest.partition(":")
    if not source or not target.startswith("/") or mode not in ("", "ro", "rw"):
        raise UsageError(
            f"invalid mount {word!r}: must be SOURCE:TARGET[:ro|z|Z], or fields as for run --mount"
        )
    kind = "bind" if source.startswith("/") else "volume"
    return {"Type": kind, "Source": source, "Target": target, "ReadOnly": mode == "ro"}


COMMAND = Command(
    "[OPTIONS] CONTAINER",
    "Change a container, also while it runs",
    run,
    flags=(
        Flag("detach", "", "bool", "Remove a mount although processes use it"),
        Flag("label-add", "", "list", "Set a label (NAME=VALUE)"),
        Flag("label-rm", "", "list", "Remove a label"),
        Flag("limit-rm", "", "list", "Remove a limit, by the name of its flag", completes=_LIMITS),
        Flag(
            "mount-add",
            "",
            "list",
            "Mount a directory, volume or tmpfs (SOURCE:TARGET[:ro|z|Z], or as for run --mount)",
        ),
        Flag("mount-rm", "", "list", "Unmount what is mounted at a path of the container"),
        Flag("network-add", "", "list", "Connect to a network", completes="network"),
        Flag("network-rm", "", "list", "Disconnect from a network", completes="network"),
        Flag("publish-add", "", "list", "Publish a port ([[IP:]HOST:]CONTAINER[/PROTOCOL])"),
        Flag("publish-rm", "", "list", "Publish a port no more ([[IP:]HOST:]CONTAINER[/PROTOCOL])"),
        *(
            option
            for option in run_options.OPTIONS
            if option.name in run_options.UPDATE_NAMES or option.document == run_options.HEALTHCHECK
        ),
    ),
    min_args=1,
    max_args=1,
    description=(
        "Ports, mounts, networks, limits, restart policy, labels and health check change at once, "
        "and are those of the next start. All changes of a command are made, or none. Without "
        "flags $EDITOR opens a file of what can be changed, shows the difference and makes the "
        "change; a file without a change cancels. Environment, host name, command and security "
        "settings cannot change while a container exists."
    ),
    examples=(
        ("Publish one more port", "jaula edit --publish-add 8443:443 web"),
        ("Mount a directory of the host, read-only", "jaula edit --mount-add /srv/www:/www:ro web"),
        ("Change several things in an editor", "jaula edit web"),
    ),
    see_also=("update", "network connect", "port", "debug"),
    completes="container",
)
