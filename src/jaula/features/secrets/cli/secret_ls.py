"""``jaula secret ls``."""

from __future__ import annotations

from jaula.features.secrets.cli import secret

COMMAND = secret.ls("secret")
