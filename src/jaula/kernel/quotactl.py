"""Project quotas: ioctl_fs(2) ``FS_IOC_FSSETXATTR`` and quotactl_fd(2).

Source: ``linux/fs.h``, ``linux/quota.h``, ``linux/dqblk_xfs.h``. quotactl_fd is in Linux 5.14.

Facts about project quotas: a file is charged to the project in its attribute. With
``FS_XFLAG_PROJINHERIT`` on a directory, new entries inherit the project. Of the common file systems
only ext4 and xfs support them, mounted with ``prjquota``. ext4 also accounts without that option
but enforces nothing; ``Q_XGETQSTATV`` returns what is enforced.
"""

from __future__ import annotations

import ctypes
import fcntl
import struct

from jaula.kernel.libc import syscall

NR_quotactl_fd = 443
PRJQUOTA = 2
FS_XFLAG_PROJINHERIT = 0x200
FS_QUOTA_PDQ_ENFD = 1 << 5

_FSGETXATTR = 0x801C581F
_FSSETXATTR = 0x401C5820
_Q_GETQUOTA = 0x800007
_Q_SETQUOTA = 0x800008
_Q_XGETQSTATV = (ord("X") << 8) + 8
_QIF_BLIMITS, _QIF_ILIMITS = 1, 4
_STATV_VERSION = 1
QIF_DQBLKSIZE = 1024  # bytes; the unit of limits

_fsxattr = struct.Struct("=5I8x")
_fs_quota_statv = struct.Struct("=bxH")
_quotactl_fd = syscall(
    "quotactl_fd", NR_quotactl_fd, ctypes.c_int, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p
)


class if_dqblk(ctypes.Structure):
    """struct if_dqblk; limits in units of :data:`QIF_DQBLKSIZE`, ``dqb_curspace`` in bytes."""

    _fields_ = [
        ("dqb_bhardlimit", ctypes.c_uint64),
        ("dqb_bsoftlimit", ctypes.c_uint64),
        ("dqb_curspace", ctypes.c_uint64),
        ("dqb_ihardlimit", ctypes.c_uint64),
        ("dqb_isoftlimit", ctypes.c_uint64),
        ("dqb_curinodes", ctypes.c_uint64),
        ("dqb_btime", ctypes.c_uint64),
        ("dqb_itime", ctypes.c_uint64),
        ("dqb_valid", ctypes.c_uint32),
    ]


def set_project(fd: int, project: int) -> None:
    """Charge a directory, and entries created in it from now on, to a project; needs root."""
    data = bytearray(_fsxattr.size)
    fcntl.ioctl(fd, _FSGETXATTR, data)
    flags, extent, extents, _, cow = _fsxattr.unpack(data)
    data[:20] = struct.pack("=5I", flags | FS_XFLAG_PROJINHERIT, extent, extents, project, cow)
    fcntl.ioctl(fd, _FSSETXATTR, data)


def project(fd: int) -> int:
    """Return the project of a file or directory."""
    data = bytearray(_fsxattr.size)
    fcntl.ioctl(fd, _FSGETXATTR, data)
    return int(_fsxattr.unpack(data)[3])


def is_enforced(fd: int) -> bool:
    """Return whether the file system enforces project limits.

    :raises OSError: when the file system has no quota.
    """
    data = ctypes.create_string_buffer(bytes((_STATV_VERSION,)), 256)
    _quotactl_fd(fd, _command(_Q_XGETQSTATV), 0, ctypes.addressof(data))
    return bool(_fs_quota_statv.unpack_from(data)[1] & FS_QUOTA_PDQ_ENFD)


def get(fd: int, project: int) -> if_dqblk:
    """Return usage and limits of a project.

    :raises OSError: ENOENT from xfs for a project without usage.
    """
    usage = if_dqblk()
    _quotactl_fd(fd, _command(_Q_GETQUOTA), project, ctypes.addressof(usage))
    return usage


def set_limits(fd: int, project: int, limit: int, inodes: int) -> None:
    """Set the limits of a project: bytes, rounded up to KiB, and inodes; 0 removes one."""
    blocks = -(-limit // QIF_DQBLKSIZE)
    request = if_dqblk(
        dqb_bhardlimit=blocks,
        dqb_bsoftlimit=blocks,
        dqb_ihardlimit=inodes,
        dqb_isoftlimit=inodes,
        dqb_valid=_QIF_BLIMITS | _QIF_ILIMITS,
    )
    _quotactl_fd(fd, _command(_Q_SETQUOTA), project, ctypes.addressof(request))


def _command(number: int) -> int:
    """Return the QCMD value of linux/quota.h."""
    return number << 8 | PRJQUOTA
