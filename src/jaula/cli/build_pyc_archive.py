"""Build the files that start the client faster, for ``scripts/setup`` and packages.

These are the archive of the modules of frequent commands, and the script that loads it
(:mod:`jaula.oci.pyc_archive`). A command that is not in the archive has the modules of all commands
from there. A word that selects a command may be another one's argument; its modules are loaded in
vain then.
"""

from __future__ import annotations

import os

from jaula.cli import command_table
from jaula.oci import build_pyc_archive, pyc_archive

ALL = ("jaula.cli.main", "jaula.cli.client.api_client")
"""Modules of every command that connects to the engine."""
COMMANDS = (
    "attach", "create", "exec", "images", "info", "inspect", "kill", "logs", "ps", "restart", "rm",
    "run", "start", "stop", "wait",
)  # fmt: skip
"""Words of commands that people and scripts execute often and that end soon."""
COMMAND_MODULES = {"restart": ("jaula.spec.units",), "stop": ("jaula.spec.units",)}
"""Modules that a command usually imports lazily, by command."""


def main(staged: str = "") -> None:
    """Load what the commands load, and write the files.

    ``staged`` is the directory that is ``/`` on the machine where a package is installed.

    :raises OSError: when a file cannot be written.
    """
    build_pyc_archive.install_below(staged)
    order = {command: record_order(command) for command in COMMANDS}
    # The client's files, and that by which the archive is compared with the tree.
    names = {name for modules in order.values() for name in modules}
    names.add("jaula.oci.pyc_archive")
    order[""] = build_pyc_archive.record_order(ALL)
    for name in sorted(names):
        __import__(name)
    directory = os.path.dirname(pyc_archive.archive_path())
    archive = f"{directory}/{pyc_archive.CLIENT_NAME}"
    build_pyc_archive.write(archive, sorted(names.union(order[""])), order)
    build_pyc_archive.write_script(f"{directory}/{pyc_archive.CLIENT_SCRIPT}")


def record_order(command: str) -> tuple[str, ...]:
    """Return the modules of a command in the order in which their execution ends.

    The archive would load some of the standard library in part, so these are left out.
    """
    module = command_table.module_of(command)
    order = build_pyc_archive.record_order((*ALL, module, *COMMAND_MODULES.get(command, ())))
    return tuple(name for name in order if name not in pyc_archive.PARTIAL)
