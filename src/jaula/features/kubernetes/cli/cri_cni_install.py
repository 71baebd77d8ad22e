"""``jaula cri cni-install``: write a network configuration for the pods of a single node."""

from __future__ import annotations

import os

from jaula.cli.cli_errors import CliError
from jaula.cli.command_parser import Command, Flag, Options
from jaula.features.kubernetes.cli.cri_files import write_new

DIRECTORY = "/etc/cni/net.d"
POD_CIDR = "10.244.0.0/24"
_SUFFIXES = (".conf", ".conflist", ".json")


def run(options: Options) -> int:
    """Write the file and print its path.

    :raises CliError: when the directory has a configuration.
    """
    from jaula.cli import site_packages

    site_packages.enable()
    from jaula.errors import JaulaError
    from jaula.features.kubernetes.cni import bridge_config

    directory = options.text("cni-conf-dir", DIRECTORY)
    cidrs = [cidr for text in options.texts("pod-cidr") for cidr in text.split(",")]
    try:
        document = bridge_config.bridge_conflist(cidrs or [POD_CIDR])
    except JaulaError as error:
        raise CliError(f"jaula: {error}") from None
    path = os.path.join(directory, bridge_config.FILE_NAME)
    others = [name for name in _present(directory) if name != bridge_config.FILE_NAME]
    if others and not options.on("force"):
        raise CliError(
            f"jaula: {directory} has the network configuration {others[0]} (the first file in the"
            " alphabet counts; --force adds another)"
        )
    write_new(path, document, force=options.on("force"))
    return 0


def _present(directory: str) -> list[str]:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CliError(f"jaula: {directory}: {error.strerror}") from None
    return sorted(name for name in names if name.endswith(_SUFFIXES))


COMMAND = Command(
    "[OPTIONS]",
    "Write a network configuration for pods",
    run,
    flags=(
        Flag(
            "cni-conf-dir",
            "",
            "string",
            "Directory of the configuration",
            default=DIRECTORY,
            completes="file",
        ),
        Flag("force", "f", "bool", "Write it next to another one, or replace it"),
        Flag("pod-cidr", "", "list", f"IPv4 and IPv6 subnet of the pods (default {POD_CIDR})"),
    ),
    max_args=0,
    description=(
        "For a single node without another network: a bridge with addresses of the node's own "
        "subnets, and ports of the host. The plugins bridge, host-local and portmap are those of "
        "the package containernetworking-plugins. An engine that runs reads the file at once."
    ),
    examples=(
        ("Pods with IPv4 and IPv6", "jaula cri cni-install --pod-cidr 10.244.0.0/24,fd00:244::/64"),
    ),
    see_also=("cri setup", "daemon"),
)
