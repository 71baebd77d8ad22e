"""Import path of third-party packages, for the commands that need more than a plain client.

The launcher starts the interpreter without ``site``, so that a plain client does not pay for it.
:func:`enable` adds to ``sys.path`` what ``site`` would have added.
"""

from __future__ import annotations

import sys

from jaula.cli.cli_errors import CliError

NEEDED = "msgspec"


def enable() -> None:
    """Make the packages importable.

    :raises CliError: when they are not installed.
    """
    import os
    from importlib.machinery import PathFinder

    import jaula

    prefix = os.path.dirname(os.path.dirname(os.path.abspath(sys.executable)))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    directories = [
        os.path.dirname(os.path.dirname(os.path.abspath(jaula.__file__))),
        os.path.join(prefix, "lib", version, "site-packages"),
    ]
    sys.path += [
        directory
        for directory in directories
        if directory not in sys.path and os.path.isdir(directory)
    ]
    if PathFinder.find_spec(NEEDED) is not None:
        return
    import site

    site.main()
    if PathFinder.find_spec(NEEDED) is None:
        raise CliError(
            f"the Python package {NEEDED} is not installed for {sys.executable}: "
            "in a clone, run scripts/setup; otherwise install jaula's package or wheel again",
            status=125,
        )
