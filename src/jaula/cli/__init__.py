"""The command line client: Docker's commands and flags, sent to the engine over its HTTP API.

``jaula run`` takes as long as the start of the container, so the start-up time of the client is
part of what the user waits for. A module here imports only what it needs, and none of the large
modules of the standard library (``json``, ``re``, ``socket``, ``signal``, ``argparse``,
``typing``). It uses the C modules below them directly. A command that needs more imports it in its
``run`` function.

A new command is a value in a module of :mod:`jaula.cli` and one line in
:mod:`jaula.cli.command_table`. Its parser, help page and shell completion are made from the same
flag table.
"""
