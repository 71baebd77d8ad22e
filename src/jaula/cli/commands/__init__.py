"""The commands, by noun or one per file; :mod:`jaula.cli.command_table` lists them."""
