"""What the kernel refuses while files are read and written, as errors for a client."""

from __future__ import annotations

import errno

from jaula.errors import InvalidRequest, JaulaError, Unavailable

DAMAGED_DISK = (errno.EIO, errno.EUCLEAN)
"""A disk or file system that cannot read what was written."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_HOST = (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EROFS)


def is_full(error: BaseException) -> bool:
    """Return whether the error says that a disk is full or a quota used up."""
    return isinstance(error, OSError) and error.errno in _FULL


def file_error(error: Exception, what: str) -> JaulaError:
    """Return the error of a client for ``what``, as in ``cannot copy to '/x'``.

    A full disk is ``Unavailable``, a failure of the host a ``JaulaError``. Everything else comes
    from the names and kinds of files that the client sent, and is an ``InvalidRequest``.
    """
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    text = f"{what}: {reason}"
    if is_full(error):
        return Unavailable(text, hint="free some space and try again")
    if isinstance(error, OSError) and error.errno in _HOST:
        return JaulaError(text)
    return InvalidRequest(text)
