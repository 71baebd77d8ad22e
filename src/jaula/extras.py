"""Extras of the wheel: Python packages that one feature needs, and how they are installed.

The extras are those of ``[project.optional-dependencies]`` in pyproject.toml. jaula is not
published on PyPI, so an instruction names a file or a package that the user has.
"""

from __future__ import annotations

import os

PACKAGED = {"web": "jaula-web"}
"""Packages of Debian and rpm that have the Python packages of an extra."""
_LIBRARY = "/usr/lib/jaula"  # packaging/install writes it


def instruction(extra: str, directory: str = "") -> str:
    """Return how the user installs an extra, for a message of the client or of the log.

    :param directory: the directory of the package ``jaula``; by default that of this module.
    """
    directory = directory or os.path.dirname(os.path.abspath(__file__))
    clone = os.path.dirname(os.path.dirname(directory))
    wheel = f"pipx install 'jaula-VERSION-py3-none-any.whl[{extra}]'"
    if os.path.dirname(directory) == _LIBRARY:
        if package := PACKAGED.get(extra):
            return f"install the package {package}"
        return (
            f"the packages of distributions do not have the extra {extra}: install the wheel of"
            f" the release instead, with {wheel}"
        )
    if os.path.exists(os.path.join(clone, "scripts/setup")):
        if extra == "web":
            return f"run {clone}/scripts/setup web"
        return f"in {clone}, run .venv/bin/python -m pip install '.[{extra}]'"
    return f"install the wheel of the release with its extra {extra}: {wheel}, or pip install"
