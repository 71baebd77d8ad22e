"""``jaula secret ls``."""

from __future__ import annotations

from jaula.cli.commands import secret

COMMAND = secret.ls("secret")
