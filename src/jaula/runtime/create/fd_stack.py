"""Descriptors that are needed until a process is made."""

from __future__ import annotations

import os


class FdStack:
    """Descriptors that are closed together."""

    def __init__(self) -> None:
        self.fds: list[int] = []

    def add(self, fd: int) -> int:
        self.fds.append(fd)
        return fd

    def close(self) -> None:
        while self.fds:
            os.close(self.fds.pop())
