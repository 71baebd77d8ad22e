"""The path of the credentials file.

A module of its own: a caller that only checks whether the file exists imports nothing else.
"""

from __future__ import annotations

import os


def auth_file_path() -> str:
    """Return ``$REGISTRY_AUTH_FILE``, ``$DOCKER_CONFIG/config.json`` or Docker's default path."""
    path = os.environ.get("REGISTRY_AUTH_FILE")
    if path:
        return path
    directory = os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")
    return os.path.join(directory, "config.json")
