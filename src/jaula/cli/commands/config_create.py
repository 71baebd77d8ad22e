"""``jaula config create``."""

from __future__ import annotations

from jaula.cli import secret_commands

COMMAND = secret_commands.create("config")
