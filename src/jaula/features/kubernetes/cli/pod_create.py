"""``jaula pod create``."""

from __future__ import annotations

from jaula.cli.client.client import Client
from jaula.cli.command import Command, Flag, Options
from jaula.cli.containers import flags as container_flags
from jaula.cli.containers import options as container_options
from jaula.cli.errors import CliError, UsageError
from jaula.cli.main import Settings
from jaula.features.kubernetes.cli.pods import pods

_SHARED = (
    "add-host", "dns", "dns-option", "dns-search", "hostname", "ip", "ip6", "label", "label-file",
    "mac-address", "network", "network-alias", "publish", "shm-size", "sysctl", "userns", "volume",
)  # fmt: skip
EXIT_POLICIES = ("continue", "stop")


def run(options: Options) -> int:
    """Create the pod and print its id."""
    name = options.text("name") or (options.arguments or [""])[0] or pods.new_name()
    policy = options.text("exit-policy", "continue")
    if policy not in EXIT_POLICIES:
        raise UsageError(f"--exit-policy must be one of {', '.join(EXIT_POLICIES)}")
    settings = {pods.EXIT_POLICY_LABEL: policy}
    if options.is_set("share"):
        settings[pods.SHARE_LABEL] = ",".join(shared(options.texts("share")))
    if restart := options.text("restart"):
        settings[pods.RESTART_LABEL] = restart
    client = Client(Settings.host)
    id_file = options.text("pod-id-file")
    if options.on("replace"):
        try:
            pods.remove(client, pods.find(client, name), force=True)
        except CliError as error:
            if error.status != pods.NO_POD:
                raise
    options.arguments = [pods.IMAGE]
    body = container_options.document(options)
    if not body.get("Hostname"):
        body["Hostname"] = name
    identity = pods.create_infra(client, name, body, settings, options.text("infra-name"))
    if id_file:
        try:
            with open(id_file, "w", encoding="ascii") as file:
                file.write(identity)
        except BaseException:
            pods.remove(client, pods.find(client, identity), force=True)
            raise
    print(identity)
    return 0


def shared(values: list[str]) -> list[str]:
    """Return the namespaces of ``--share``: names, ``none``, or ``+NAME`` in addition. Pure.

    :raises UsageError: when a name is not a namespace that containers can share.
    """
    names = [word for value in values for word in value.split(",") if word]
    result = list(pods.SHARED) if names and all(word[0] == "+" for word in names) else []
    for word in names:
        name = word.removeprefix("+")
        if name in ("none", "user"):  # the user namespace is shared always
            continue
        if name not in pods.SHAREABLE:
            raise UsageError(
                f'invalid argument "{word}" for "--share": must be one of '
                + ", ".join((*pods.SHAREABLE, "user", "none"))
            )
        if name not in result:
            result.append(name)
    return result


COMMAND = Command(
    "[OPTIONS] [NAME]",
    "Create a pod",
    run,
    flags=(
        *(flag for flag in container_flags.FLAGS if flag.name in _SHARED),
        Flag(
            "exit-policy",
            "",
            "string",
            'What happens when the last container exits ("continue", "stop")',
            default="continue",
            completes=EXIT_POLICIES,
        ),
        Flag("infra-name", "", "string", "Name of the infra container (default NAME-infra)"),
        Flag("name", "n", "string", "Name of the pod"),
        Flag("pod-id-file", "", "string", "Write the pod's ID to the file", completes="file"),
        Flag("replace", "", "bool", "Remove a pod that has the name first"),
        Flag(
            "restart",
            "",
            "string",
            "Restart policy of containers that have none of their own",
            completes=("no", "always", "on-failure", "unless-stopped"),
        ),
        Flag(
            "share",
            "",
            "list",
            "Namespaces that the containers share (ipc, net, uts, pid, none; +pid adds one)",
            completes=("ipc", "net", "uts", "pid", "none"),
        ),
    ),
    max_args=1,
    description=(
        "Creates a pod: an infra container that holds the network, IPC, UTS and user namespaces. "
        "Containers of `jaula run --pod` join them. So they reach each other at localhost, and "
        "the pod publishes their ports."
    ),
    examples=(
        ("Create a pod that publishes a port", "jaula pod create --name web -p 8080:80"),
        ("Run a container in it", "jaula run -d --pod web httpd"),
    ),
    see_also=("pod ls", "pod rm", "run", "kube play"),
)
