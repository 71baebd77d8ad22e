"""``jaula config inspect``."""

from __future__ import annotations

from jaula.features.secrets.cli import secret

COMMAND = secret.inspect("config")
