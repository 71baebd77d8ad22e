"""One command a file; :mod:`jaula.cli.table` names them."""
