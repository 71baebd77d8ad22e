"""Terminals: pty(7), ioctl_tty(2), devpts."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

TIOCGPTPEER = 0x5441
TIOCSPTLCK = 0x40045431


def set_size(fd: int, height: int, width: int) -> None:
    """Set rows and columns (TIOCSWINSZ); the kernel's structure has 16 bits for each."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", height & 0xFFFF, width & 0xFFFF, 0, 0))


def get_size(fd: int) -> tuple[int, int]:
    """Return (rows, columns)."""
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, b"\0" * 8))
    return rows, columns


def clear_onlcr(fd: int) -> None:
    """Pass a newline on as it is, without a carriage return: ONLCR of termios(3)."""
    attributes = termios.tcgetattr(fd)
    attributes[1] &= ~termios.ONLCR
    termios.tcsetattr(fd, termios.TCSANOW, attributes)


def unlock_pair(master: int) -> tuple[int, int]:
    """Return (master, slave) of an opened ptmx; close the master on failure.

    The slave is opened by TIOCGPTPEER from the master, so no path below /dev/pts is trusted.
    """
    try:
        fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
        slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except BaseException:
        os.close(master)
        raise
    return master, slave


def make_controlling(fd: int) -> None:
    """Make a terminal the controlling one (TIOCSCTTY); the caller leads a session without one."""
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
