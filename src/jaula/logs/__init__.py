"""Container logs: writers by driver name, and readers of stored logs.

The shim uses :func:`open_writer` only. :mod:`jaula.logs.follower` is a process of its own: it needs
asyncio, and no other module of this package imports it.
"""

from __future__ import annotations

from jaula.logs.drivers import open_writer, readable, validate
from jaula.logs.log_driver import LogWriter
from jaula.spec.log_drivers import NAMES

__all__ = ["NAMES", "LogWriter", "open_writer", "readable", "validate"]
