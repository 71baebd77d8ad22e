"""The log driver ``local``: files that only this engine reads, rotated later than json-file's.

Source: docker docs "Local file logging driver": five files of 20 MB. The form of the files is the
engine's own affair; it is json-file's here, so that one reader serves both. Rotated files are
not compressed.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaula.logs import options
from jaula.logs.json_file import JsonFileWriter

MAX_SIZE = 20_000_000  # bytes
MAX_FILE = 5


def open_writer(path: str, given: Mapping[str, str]) -> JsonFileWriter:
    """Raises ``InvalidRequest`` for an option, ``OSError`` where the file cannot be opened."""
    max_size, max_file = check(given)
    return JsonFileWriter(path, max_size=max_size, max_file=max_file)


def check(given: Mapping[str, str]) -> tuple[int, int]:
    """(bytes a file, files) that the options ask for. Raises ``InvalidRequest``."""
    options.known("local", given, ("max-size", "max-file", "compress"))
    options.plain("local", given)
    max_size = options.size("max-size", given["max-size"]) if "max-size" in given else MAX_SIZE
    max_file = options.count("max-file", given["max-file"]) if "max-file" in given else MAX_FILE
    return max_size, max_file
