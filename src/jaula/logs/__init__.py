"""Container logs: writers by driver name, and readers of stored logs.

The shim uses :func:`open_writer` only. :mod:`jaula.logs.reader.follow` belongs to the engine: it
needs asyncio, and no module of this package imports it.
"""

from __future__ import annotations

from jaula.logs.drivers import NAMES, READABLE, open_writer, validate
from jaula.logs.protocol import LogWriter

__all__ = ["NAMES", "READABLE", "LogWriter", "open_writer", "validate"]
