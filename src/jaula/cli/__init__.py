"""The command line: Docker's commands and flags, spoken to the engine over its HTTP API.

``jaula run`` lives as long as the container's start takes, so the client's own start is on the
path that people wait for. Modules here import no more than they need and none of the standard
library's large ones (``json``, ``re``, ``socket``, ``signal``, ``argparse``, ``typing``): the C
modules beneath them are used directly. A command that needs more imports it when it runs.

Adding a command is one file in :mod:`jaula.cli.commands` and one line in
:mod:`jaula.cli.command_table`; its flags, its manual page and its completions come from one table.
"""
