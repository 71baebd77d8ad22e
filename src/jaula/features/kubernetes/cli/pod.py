"""The commands of pods: ``jaula pod create``, ``ls``, ``stats`` and others."""

from __future__ import annotations

import sys
from time import time

from jaula.cli import container
from jaula.cli import stats as container_stats
from jaula.cli.cli_errors import CliError, UsageError
from jaula.cli.client.api_client import Client
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.containers import create_body, flags
from jaula.cli.containers.attach_loop import SDNOTIFY
from jaula.cli.containers.stats_samples import Sampler
from jaula.cli.images import prune_prompt
from jaula.cli.main import Settings
from jaula.cli.output import inspect_output, list_output
from jaula.cli.output.ansi import redraws
from jaula.cli.output.text_table import aligned
from jaula.cli.output.times import timestamp
from jaula.features.kubernetes.cli.pods import api_pods, pod_list, pod_logs, pod_select
from jaula.features.kubernetes.cli.pods.pod_list import container_name
from jaula.features.kubernetes.cli.pods.supervise import supervise
from jaula.spec.visible_text import visible_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


_SHARED = (
    "add-host", "dns", "dns-option", "dns-search", "hostname", "ip", "ip6", "label", "label-file",
    "mac-address", "network", "network-alias", "publish", "shm-size", "sysctl", "userns", "volume",
)  # fmt: skip
EXIT_POLICIES = ("continue", "stop")


def create(options: Options) -> int:
    """Create the pod and print its id."""
    name = options.text("name") or (options.arguments or [""])[0] or api_pods.new_name()
    policy = options.text("exit-policy", "continue")
    if policy not in EXIT_POLICIES:
        raise UsageError(f"--exit-policy must be one of {', '.join(EXIT_POLICIES)}")
    settings = {api_pods.EXIT_POLICY_LABEL: policy}
    if options.is_set("share"):
        settings[api_pods.SHARE_LABEL] = ",".join(shared(options.texts("share")))
    if restart := options.text("restart"):
        settings[api_pods.RESTART_LABEL] = restart
    client = Client(Settings.host)
    id_file = options.text("pod-id-file")
    if options.on("replace"):
        try:
            api_pods.remove(client, api_pods.find(client, name), force=True)
        except CliError as error:
            if error.status != api_pods.NO_POD:
                raise
    options.arguments = [api_pods.IMAGE]
    body = create_body.document(options)
    if not body.get("Hostname"):
        body["Hostname"] = name
    identity = api_pods.create_infra(client, name, body, settings, options.text("infra-name"))
    if id_file:
        try:
            with open(id_file, "w", encoding="ascii") as file:
                file.write(identity)
        except BaseException:
            api_pods.remove(client, api_pods.find(client, identity), force=True)
            raise
    print(identity)
    return 0


def shared(values: list[str]) -> list[str]:
    """Return the namespaces of ``--share``: names, ``none``, or ``+NAME`` in addition. Pure.

    :raises UsageError: when a name is not a namespace that containers can share.
    """
    names = [word for value in values for word in value.split(",") if word]
    result = list(api_pods.SHARED) if names and all(word[0] == "+" for word in names) else []
    for word in names:
        name = word.removeprefix("+")
        if name in ("none", "user"):  # the user namespace is shared always
            continue
        if name not in api_pods.SHAREABLE:
            raise UsageError(
                f'invalid argument "{word}" for "--share": must be one of '
                + ", ".join((*api_pods.SHAREABLE, "user", "none"))
            )
        if name not in result:
            result.append(name)
    return result


CREATE = Command(
    "[OPTIONS] [NAME]",
    "Create a pod",
    create,
    flags=(
        *(flag for flag in flags.FLAGS if flag.name in _SHARED),
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


def exists(options: Options) -> int:
    """Return 0 if the pod exists, 1 if it does not."""
    try:
        api_pods.find(Client(Settings.host), options.arguments[0])
    except CliError as error:
        if error.status != api_pods.NO_POD:
            raise
        return 1
    return 0


EXISTS = Command(
    "POD",
    "Check whether a pod exists",
    exists,
    min_args=1,
    max_args=1,
    description="Prints nothing.",
    examples=(("Create a pod unless it exists", "jaula pod exists web || jaula pod create web"),),
    exit_status=(("0", "the pod exists"), ("1", "it does not exist")),
    see_also=("pod ls", "pod inspect"),
    completes="pod",
)


def inspect(options: Options) -> int:
    """Print the pods and their containers; those that exist also if others do not."""
    client = Client(Settings.host)
    found: list[api_pods.Pod] = []
    missing: list[CliError] = []
    if options.on("latest"):
        found.append(pod_select.latest(client))
    elif not options.arguments:
        raise UsageError(
            f'"jaula {options.command.path}" requires at least 1 argument.', status=1, usage=True
        )
    for ref in options.arguments:
        try:
            found.append(api_pods.find(client, ref))
        except CliError as error:
            if error.status != api_pods.NO_POD:
                raise
            missing.append(error)
    inspect_output.print_documents(
        [_document(client, pod) for pod in found], options.text("format")
    )
    for absent in missing:
        sys.stderr.write(absent.message + "\n")
    return api_pods.NO_POD if missing else 0


def _document(client: Client, pod: api_pods.Pod) -> dict[str, Any]:
    infra = client.get(f"/containers/{pod.id}/json")
    labels = infra["Config"]["Labels"]
    host = infra["HostConfig"]
    return {
        "Id": pod.id,
        "Name": pod.name,
        "Created": infra["Created"],
        "State": pod.status,
        "Hostname": infra["Config"]["Hostname"],
        "Labels": labels,
        "ExitPolicy": labels.get(api_pods.EXIT_POLICY_LABEL, "continue"),
        "RestartPolicy": labels.get(api_pods.RESTART_LABEL, ""),
        "InfraContainerID": pod.id,
        "InfraConfig": {
            "PortBindings": host.get("PortBindings") or {},
            "HostNetwork": host["NetworkMode"] == "host",
            "Networks": sorted(infra["NetworkSettings"]["Networks"]),
            "DNSServer": host.get("Dns") or [],
            "DNSSearch": host.get("DnsSearch") or [],
            "DNSOption": host.get("DnsOptions") or [],
            "HostAdd": host.get("ExtraHosts") or [],
        },
        "SharedNamespaces": sorted({*pod.shared, "user"}),
        "NumContainers": len(pod.containers),
        "Containers": [
            {"Id": entry["Id"], "Name": container_name(entry), "State": entry["State"]}
            for entry in pod.containers
        ],
    }


INSPECT = Command(
    "[OPTIONS] [POD...]",
    "Display detailed information on one or more pods",
    inspect,
    flags=(inspect_output.FORMAT, pod_select.LATEST),
    description="Prints the pods with their shared namespaces, ports and containers as JSON.",
    examples=(("Show a pod", "jaula pod inspect web"),),
    see_also=("pod ls", "inspect"),
    completes="pod",
)


def kill(options: Options) -> int:
    """Send a signal to the containers of the pods."""
    signal = options.text("signal", "KILL")
    return pod_select.each(
        options, lambda client, pod: api_pods.kill(client, pod, signal), "running"
    )


KILL = Command(
    "[OPTIONS] [POD...]",
    "Send a signal to the containers of one or more pods",
    kill,
    flags=(
        Flag("signal", "s", "string", "Signal to send to the containers", default="KILL"),
        *pod_select.FLAGS,
    ),
    description=(
        "Sends a signal, SIGKILL by default, to the init process of each running container. The "
        "infra container ends with SIGKILL, SIGTERM and SIGINT only."
    ),
    examples=(("Make all servers of a pod reload", "jaula pod kill -s HUP web"),),
    see_also=("pod stop", "kill"),
    completes="pod",
)


_COLORS = (32, 33, 34, 35, 36, 31)  # SGR codes of foreground colours


def logs(options: Options) -> int:
    """Print the logs of the containers of the pod, each line with the container."""
    client = Client(Settings.host)
    pod, others = pod_select.one_of(client, options)
    if others:
        raise UsageError(f'"jaula {options.command.path}" requires exactly 1 argument.', status=1)
    entries = _entries(pod, options.text("container"))
    sources = []
    for number, entry in enumerate(entries):
        tty = client.get(f"/containers/{entry['Id']}/json")["Config"]["Tty"]
        sources.append(pod_logs.Source(entry["Id"], _prefix(entry, number, options), tty=tty))
    tail = options.text("tail", "all")
    query = (
        ("stdout", True),
        ("stderr", True),
        ("since", timestamp(options.text("since"))),
        ("until", timestamp(options.text("until"))),
        ("timestamps", options.on("timestamps")),
        ("follow", options.on("follow")),
        ("tail", "all" if tail == "-1" else tail),  # podman's default is -1
    )
    (pod_logs.follow if options.on("follow") else pod_logs.show)(client, sources, query)
    return 0


def _entries(pod: api_pods.Pod, ref: str) -> list[dict[str, Any]]:
    """Return the containers of the pod without the infra container, or the one that ``ref`` names.

    :raises CliError: when the pod has no such container.
    """
    if not ref:
        return pod.members
    for entry in pod.containers:
        if ref in (container_name(entry), container_name(entry).removeprefix(f"{pod.name}-")):
            return [entry]
    selected = [entry for entry in pod.containers if entry["Id"].startswith(ref)]
    if len(selected) != 1:
        raise CliError(f"the pod {pod.name} has no container {ref}", status=125)
    return selected


def _prefix(entry: dict[str, Any], number: int, options: Options) -> str:
    text = visible_line(container_name(entry)) if options.on("names") else str(entry["Id"])[:12]
    if options.on("color") and redraws(1):
        text = f"\x1b[{_COLORS[number % len(_COLORS)]}m{text}\x1b[0m"
    return f"{text} "


LOGS = Command(
    "[OPTIONS] POD",
    "Fetch the logs of the containers of a pod",
    logs,
    flags=(
        Flag("color", "", "bool", "Print the containers in different colors"),
        Flag("container", "c", "string", "Print the log of this container only"),
        *(flag for flag in container.LOGS.flags if flag.name not in ("details", "tail")),
        pod_select.LATEST,
        Flag("names", "n", "bool", "Print the names of the containers in place of their IDs"),
        Flag("tail", "", "string", "Number of lines of each container to show", default="all"),
    ),
    description=(
        "Prints the log entries of all containers in the order of time, each with the ID of its "
        "container. With --follow, entries are printed as they arrive."
    ),
    examples=(("Follow the logs of a pod", "jaula pod logs -f --names web"),),
    see_also=("logs", "pod top"),
    completes="pod",
)


_OF_CONTAINERS = (
    ("ctr-ids", "ContainerIds"),
    ("ctr-names", "ContainerNames"),
    ("ctr-status", "ContainerStatuses"),
)


def ls(options: Options) -> int:
    """Print one line for each pod."""
    rows = pod_list.select(pod_list.rows(Client(Settings.host)), options.texts("filter"), time())
    rows = pod_list.sort(rows, options.choice("sort", pod_list.SORT_KEYS))
    if options.on("latest"):
        rows = pod_list.sort(rows, "created")[:1]
    output_format = options.text("format")
    if output_format == "json":
        from jaula.spec.fast_json import pretty

        print(pretty([row.document() for row in rows]))
        return 0
    if options.on("quiet") and output_format in ("", "table"):
        output_format = "{{.ID}}"
    default = pod_list.DEFAULT + "".join(
        f"\t{{{{.{name}}}}}" for flag, name in _OF_CONTAINERS if options.on(flag)
    )
    columns = pod_list.columns(no_trunc=options.on("no-trunc"))
    text = list_output.text(rows, columns, default, output_format)
    if options.on("noheading") and (output_format in ("", "table") or "table " in output_format):
        text = text.partition("\n")[2]
    print(text, end="")
    return 0


LS = Command(
    "[OPTIONS]",
    "List pods",
    ls,
    flags=(
        Flag("ctr-ids", "", "bool", "Display the IDs of the containers"),
        Flag("ctr-names", "", "bool", "Display the names of the containers"),
        Flag("ctr-status", "", "bool", "Display the states of the containers"),
        Flag(
            "filter",
            "f",
            "list",
            "Filter output based on conditions provided (status=running, name=web, label=a=b)",
        ),
        Flag(
            "format",
            "",
            "string",
            "Format output using a custom template (table, json, or a Go template)",
        ),
        Flag("latest", "l", "bool", "Show the newest pod"),
        Flag("no-trunc", "", "bool", "Do not truncate output"),
        Flag("noheading", "n", "bool", "Do not print the heading"),
        Flag("quiet", "q", "bool", "Only display pod IDs"),
        Flag(
            "sort",
            "",
            "string",
            "Sort by created, id, name, number or status",
            default="created",
            completes=pod_list.SORT_KEYS,
        ),
    ),
    max_args=0,
    description=(
        "Lists the pods of `pod create` and `kube play`, and those that a kubelet runs. Filters: "
        + ", ".join(pod_list.FILTERS)
        + "."
    ),
    examples=(
        ("List pods", "jaula pod ls"),
        ("Names and states", "jaula pod ls --format '{{.Name}} {{.Status}}'"),
    ),
    see_also=("pod create", "pod inspect", "ps"),
)


def pause(options: Options) -> int:
    """Pause the pods."""
    return pod_select.each(options, api_pods.pause, "running")


PAUSE = Command(
    "[OPTIONS] [POD...]",
    "Pause one or more pods",
    pause,
    flags=pod_select.FLAGS,
    description="Freezes every process of the running containers of the pods.",
    examples=(("Pause a pod", "jaula pod pause web"),),
    see_also=("pod unpause", "pause"),
    completes="pod",
)


def prune(options: Options) -> int:
    """Prompt, remove the pods that have exited, and print their ids."""
    prune_prompt.confirm(
        "This will remove all stopped/exited pods and their containers.",
        force=options.on("force"),
    )
    client = Client(Settings.host)
    result = 0
    for pod in api_pods.listed(client):
        if pod.status != "Exited":
            continue
        try:
            api_pods.remove(client, pod)
        except CliError as error:  # such as a container that another client has started
            sys.stderr.write(error.message + "\n")
            result = 1
        else:
            print(pod.id)
    return result


PRUNE = Command(
    "[OPTIONS]",
    "Remove all stopped pods and their containers",
    prune,
    flags=(prune_prompt.FORCE,),
    max_args=0,
    description="Removes pods that have exited. Pods that were created and never started stay.",
    examples=(("Do not prompt", "jaula pod prune -f"),),
    see_also=("pod rm", "system prune"),
)


def restart(options: Options) -> int:
    """Restart the pods."""
    seconds = pod_select.seconds(options)
    return pod_select.each(options, lambda client, pod: api_pods.restart(client, pod, seconds))


RESTART = Command(
    "[OPTIONS] [POD...]",
    "Restart one or more pods",
    restart,
    flags=(*pod_select.TIME_FLAGS, *pod_select.FLAGS),
    description="Stops the containers of the pods and starts all of them, also those that exited.",
    examples=(("Restart a pod", "jaula pod restart web"),),
    see_also=("pod stop", "pod start"),
    completes="pod",
)


def rm(options: Options) -> int:
    """Remove the pods with their containers."""
    seconds, force = pod_select.seconds(options), options.on("force")

    def remove(client: Client, pod: api_pods.Pod) -> None:
        if force and seconds is not None:
            api_pods.stop(client, pod, seconds)
        api_pods.remove(client, pod, force=force)

    files = pod_select.id_files(options)
    status = pod_select.each(options, remove, files=files)
    for file in files if not status else ():
        file.remove()
    return status


RM = Command(
    "[OPTIONS] [POD...]",
    "Remove one or more pods",
    rm,
    flags=(
        Flag("force", "f", "bool", "Remove running containers too"),
        *pod_select.TIME_FLAGS,
        *pod_select.FLAGS,
    ),
    description=(
        "Removes the pods with their containers. With --force, running containers are killed; "
        "with --time they are stopped first."
    ),
    examples=(("Remove a running pod", "jaula pod rm -f web"),),
    see_also=("pod stop", "pod prune", "pod ls"),
    completes="pod",
)


def start(options: Options) -> int:
    """Start the pods; with ``--wait`` stay until they have ended."""
    if not options.on("wait"):
        only = options.on("infra-only")
        return pod_select.each(options, lambda c, pod: api_pods.start(c, pod, infra_only=only))
    client = Client(Settings.host)
    selected = pod_select.pods_of(client, options)
    if len(selected) != 1:
        raise UsageError("--wait is for one pod")
    (pod,) = selected
    with supervise(options.text("sdnotify", "ignore")) as service:
        api_pods.start(client, pod, infra_only=options.on("infra-only"))
        print(pod.name, flush=True)
        service.ready()
        api_pods.wait(client, [pod.name], service.ended)
        api_pods.stop(client, api_pods.find(client, pod.id))
    return 0


START = Command(
    "[OPTIONS] [POD...]",
    "Start one or more pods",
    start,
    flags=(
        Flag("infra-only", "", "bool", "Start the infra container only"),
        SDNOTIFY,
        Flag("wait", "", "bool", "Stay until the pod has ended; a signal stops it"),
        *pod_select.FLAGS,
    ),
    description="Starts the infra container of each pod, then its containers.",
    examples=(("Start a pod", "jaula pod start web"),),
    see_also=("pod create", "pod stop", "pod restart"),
    completes="pod",
)


def stats(options: Options) -> int:
    """Show the resource usage of the containers of pods, updated every second, or once."""
    client = Client(Settings.host)
    everything = options.on("all") or not (options.arguments or options.on("latest"))
    selected = api_pods.listed(client) if everything else pod_select.pods_of(client, options)
    pod_of = {
        entry["Id"]: pod.name
        for pod in selected
        for entry in pod.containers
        if entry["State"] in ("running", "paused")
    }
    if not pod_of:
        raise CliError("no container of a pod is running", status=api_pods.NO_POD)
    columns = {
        "Pod": ("POD", lambda usage: pod_of[usage.id]),
        **container_stats.columns(no_trunc=options.on("no-trunc")),
    }
    container_stats.show(
        Sampler(client, list(pod_of)), columns, "{{.Pod}}\t" + container_stats.DEFAULT, options
    )
    return 0


STATS = Command(
    "[OPTIONS] [POD...]",
    "Display a live stream of the resource usage of pods",
    stats,
    flags=(*container_stats.COMMAND.flags, pod_select.LATEST),
    description="Shows each running container of the pods, by default of all pods.",
    examples=(("Print one sample of a pod", "jaula pod stats --no-stream web"),),
    see_also=("stats", "pod top"),
    completes="pod",
)


def stop(options: Options) -> int:
    """Stop the pods."""
    seconds = pod_select.seconds(options)
    return pod_select.each(options, lambda client, pod: api_pods.stop(client, pod, seconds))


STOP = Command(
    "[OPTIONS] [POD...]",
    "Stop one or more pods",
    stop,
    flags=(*pod_select.TIME_FLAGS, *pod_select.FLAGS),
    description="Stops the containers of the pods, the infra container last.",
    examples=(("Stop a pod", "jaula pod stop web"),),
    see_also=("pod start", "pod kill", "pod rm"),
    completes="pod",
)


def top(options: Options) -> int:
    """Print the processes of the containers of the pod as ps(1) on the host shows them."""
    client = Client(Settings.host)
    pod, words = pod_select.one_of(client, options)
    rows: list[str] = []
    for entry in pod.containers:
        if entry["State"] not in ("running", "paused"):
            continue
        query = (("ps_args", " ".join(words)),)
        processes = client.get(f"/containers/{entry['Id']}/top", query)
        rows = rows or ["\t".join(["CONTAINER", *processes["Titles"]])]
        name = container_name(entry)
        rows += ["\t".join([name, *row]) for row in processes["Processes"] or ()]
    if not rows:
        raise CliError(f"no container of the pod {pod.name} is running", status=125)
    sys.stdout.write(aligned(rows))
    return 0


TOP = Command(
    "[OPTIONS] POD [ps OPTIONS]",
    "Display the running processes of the containers of a pod",
    top,
    flags=(pod_select.LATEST,),
    interspersed=False,
    description="PIDs and users are those of the host. The first column names the container.",
    examples=(("Select columns", "jaula pod top web -o pid,user,args"),),
    see_also=("top", "pod stats"),
    completes="pod",
)


def unpause(options: Options) -> int:
    """Let the pods continue."""
    return pod_select.each(options, api_pods.unpause, "paused")


UNPAUSE = Command(
    "[OPTIONS] [POD...]",
    "Unpause one or more pods",
    unpause,
    flags=pod_select.FLAGS,
    description="Lets the processes of the paused containers of the pods continue.",
    examples=(("Let a pod continue", "jaula pod unpause web"),),
    see_also=("pod pause", "unpause"),
    completes="pod",
)
