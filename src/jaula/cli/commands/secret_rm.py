"""``jaula secret rm``."""

from __future__ import annotations

from jaula.cli.commands import secret

COMMAND = secret.rm("secret")
