"""The Python packages that a command other than a plain client needs.

The launcher starts the interpreter without ``site``, so that nobody pays for it who only talks to
the engine; what ``site`` would have added is added here, for the commands that need it.
"""

from __future__ import annotations

import sys

from jaula.cli.errors import CliError

NEEDED = "msgspec"


def enable() -> None:
    """Make the packages importable. Raises Failure where they are not installed."""
    import os
    from importlib.machinery import PathFinder

    import jaula

    prefix = os.path.dirname(os.path.dirname(os.path.abspath(sys.executable)))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    places = [
        os.path.dirname(os.path.dirname(os.path.abspath(jaula.__file__))),
        os.path.join(prefix, "lib", version, "site-packages"),
    ]
    sys.path += [place for place in places if place not in sys.path and os.path.isdir(place)]
    if PathFinder.find_spec(NEEDED) is not None:
        return
    import site

    site.main()
    if PathFinder.find_spec(NEEDED) is None:
        raise CliError(
            f"the Python package {NEEDED} is not installed for {sys.executable}: "
            "run scripts/setup, or pip install jaula",
            status=125,
        )
