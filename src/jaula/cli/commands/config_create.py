"""``jaula config create``."""

from __future__ import annotations

from jaula.cli.commands import secret

COMMAND = secret.create("config")
