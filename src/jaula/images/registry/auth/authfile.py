"""Where credentials of registries are kept, for whoever only asks whether there are any."""

from __future__ import annotations

import os


def place() -> str:
    """The file in use: ``$REGISTRY_AUTH_FILE``, ``$DOCKER_CONFIG/config.json``, Docker's own."""
    named = os.environ.get("REGISTRY_AUTH_FILE")
    if named:
        return named
    directory = os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")
    return os.path.join(directory, "config.json")
