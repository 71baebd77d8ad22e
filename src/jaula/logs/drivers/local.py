"""The log driver ``local``: files that only this engine reads, with larger limits than json-file.

Source: docker docs "Local file logging driver": five files of 20 MB, compressed when rotated.
Docker leaves the file format to the engine. It is json-file's, so one reader serves both drivers.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from jaula.errors import InvalidRequest
from jaula.logs import log_opt
from jaula.logs.drivers.json_file import JsonFileWriter
from jaula.logs.log_opt import Limits

MAX_SIZE = 20_000_000  # bytes
MAX_FILE = 5


def open_writer(path: str, log_opts: Mapping[str, str]) -> JsonFileWriter:
    """Open a writer.

    :raises InvalidRequest: when an option is not valid.
    :raises OSError: when the file cannot be opened.
    """
    return JsonFileWriter.from_limits(path, check(log_opts))


def check(log_opts: Mapping[str, str]) -> Limits:
    """Return the limits of the options.

    A single file is never compressed. Only an explicit request for both is an error.

    :raises InvalidRequest: when an option is not valid, in Docker's words.
    """
    log_opt.check_names("local", log_opts, ("max-size", "max-file", "compress"))
    limits = log_opt.parse_limits(log_opts, Limits(MAX_SIZE, MAX_FILE, compress=True))
    if not limits.compress or limits.max_file > 1:
        return limits
    if "compress" in log_opts:
        raise InvalidRequest("compression cannot be enabled when max file count is 1")
    return msgspec.structs.replace(limits, compress=False)
