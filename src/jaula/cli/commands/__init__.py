"""The commands, one per file; :mod:`jaula.cli.command_table` lists them."""
