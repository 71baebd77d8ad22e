"""The log driver of pods: one file in the format that the kubelet reads.

A line of more than 16 KiB is stored in parts, as by containerd. An unfinished line at the end of
the output is a part too, since the kubelet adds a newline to a full line only. The conformance
tests of termination messages depend on that.

The kubelet rotates the file (:mod:`jaula.logs.pod_log`). An unfinished line stays in the buffer
while the file is opened again, so only the parts of a long line can be in two files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from jaula.errors import InvalidRequest
from jaula.logs import cri_format, log_opt
from jaula.logs.file_writer import FileWriter
from jaula.logs.pod_log import PodLog

_OPTIONS = ("directory", "path")


class CriWriter(FileWriter):
    """A :class:`jaula.logs.log_driver.LogWriter`."""

    def __init__(self, log: PodLog) -> None:
        """Open the file.

        :raises OSError: when it cannot be opened, or is not a regular file below the directory.
        """
        self._log = log
        super().__init__(log.name)

    def reopen(self) -> None:
        if self._descriptor >= 0:
            before = self._descriptor
            self._open()
            os.close(before)

    def _open_file(self) -> int:
        return self._log.open_to_append()

    def _format(self, data: bytes, stream: str, stamp: str) -> bytes:
        return cri_format.encode(data, stream, stamp)

    def _count_lines(self, entries: bytes) -> int:
        return sum(entry.log.endswith("\n") for entry in cri_format.decode(entries))


def parse_options(log_opts: Mapping[str, str]) -> PodLog:
    """Return the file of the options.

    :raises InvalidRequest: when one is absent, unknown or not valid.
    """
    log_opt.check_names("cri", log_opts, _OPTIONS)
    for name in _OPTIONS:
        if name not in log_opts:
            raise InvalidRequest(f"the cri log driver needs the option {name!r}")
    log = PodLog(log_opts["directory"], log_opts["path"])
    log.check()
    return log


def open_writer(log_opts: Mapping[str, str]) -> CriWriter:
    """Open a writer.

    :raises InvalidRequest: when an option is not valid.
    :raises OSError: when the file cannot be opened.
    """
    return CriWriter(parse_options(log_opts))
