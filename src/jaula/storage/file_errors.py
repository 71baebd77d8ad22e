"""Errors of the kernel in reading and writing files, as errors for a client."""

from __future__ import annotations

import errno

from jaula.errors import InvalidRequest, JaulaError, resource_error

DAMAGED_DISK = (errno.EIO, errno.EUCLEAN)
"""A disk or file system that cannot read what was written."""
_HOST = (errno.EIO, errno.ENOMEM)


def file_error(error: Exception, what: str) -> JaulaError:
    """Return the error of a client for ``what``, as in ``cannot copy to '/x'``.

    A full or read-only disk is ``Unavailable``, a failure of the host a ``JaulaError``. Everything
    else comes from the names and kinds of files that the client sent, and is an ``InvalidRequest``.
    """
    if (unavailable := resource_error(error, what)) is not None:
        return unavailable
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    text = f"{what}: {reason}"
    if isinstance(error, OSError) and error.errno in _HOST:
        return JaulaError(text)
    return InvalidRequest(text)
