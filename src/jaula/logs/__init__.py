"""What containers print, kept: writers by driver name, and readers of what was kept.

The shim uses :func:`open_writer` alone; :mod:`jaula.logs.reader.follow` is the engine's, needs asyncio and
is imported by nothing here.
"""

from __future__ import annotations

from jaula.logs.drivers import NAMES, READABLE, open_writer, validate
from jaula.logs.protocol import LogWriter

__all__ = ["NAMES", "READABLE", "LogWriter", "open_writer", "validate"]
