"""``jaula secret inspect``."""

from __future__ import annotations

from jaula.cli.commands import secret

COMMAND = secret.inspect("secret")
