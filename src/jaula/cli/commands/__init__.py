"""One command a file; :mod:`jaula.cli.command_table` names them."""
