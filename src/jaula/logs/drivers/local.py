"""The log driver ``local``: files that only this engine reads, rotated later than json-file's.

Source: docker docs "Local file logging driver": five files of 20 MB, packed when rotated. The form
of the files is the engine's own affair; it is json-file's here, so that one reader serves both.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from jaula.errors import InvalidRequest
from jaula.logs import options
from jaula.logs.drivers.json_file import JsonFileWriter
from jaula.logs.options import Limits

MAX_SIZE = 20_000_000  # bytes
MAX_FILE = 5


def open_writer(path: str, given: Mapping[str, str]) -> JsonFileWriter:
    """Raises ``InvalidRequest`` for an option, ``OSError`` where the file cannot be opened."""
    return JsonFileWriter.within(path, check(given))


def check(given: Mapping[str, str]) -> Limits:
    """What the options ask for. Raises ``InvalidRequest``, in Docker's words.

    One file is packed never: that is refused only where both were asked for.
    """
    options.check_names("local", given, ("max-size", "max-file", "compress"))
    found = options.parse_limits(given, Limits(MAX_SIZE, MAX_FILE, compress=True))
    if not found.compress or found.max_file > 1:
        return found
    if "compress" in given:
        raise InvalidRequest("compression cannot be enabled when max file count is 1")
    return msgspec.structs.replace(found, compress=False)
