"""The files of the namespace holder, made again if another program removes them.

The next engine finds the running holder by them: without, it would start a second one, whose
namespaces do not have the containers that run.
"""

from __future__ import annotations

import os

from jaula.rootless.holder_state import (
    CGROUP_FILE,
    CONTROL_SOCKET,
    HOLDER_DIR,
    KEEPALIVE_FIFO,
    NETWORK_FILE,
    PASTA_PID_FILE,
    write_file,
)
from jaula.rootless.port_driver import PortDriver

_TEXTS = (NETWORK_FILE, CGROUP_FILE, PASTA_PID_FILE)


class HolderFiles:
    """The files in the run directory ``run`` of an engine that has just started."""

    def __init__(self, run: str, driver: PortDriver) -> None:
        self._directory = f"{run}/{HOLDER_DIR}"
        self._driver = driver
        self._texts: dict[str, str] = {}
        for name in _TEXTS:
            try:
                with open(f"{self._directory}/{name}", encoding="utf-8") as file:
                    self._texts[name] = file.read()
            except FileNotFoundError:
                continue  # slirp4netns has no such file, and not every host a helper

    def are_complete(self) -> bool:
        """Return whether all are there."""
        names = (KEEPALIVE_FIFO, CONTROL_SOCKET, *self._texts)
        return all(os.path.lexists(f"{self._directory}/{name}") for name in names)

    def restore(self) -> None:
        """Make them again. Blocks.

        The holder makes what it listens on; its connection to this engine is open.

        :raises OSError: when one cannot be made.
        :raises Unavailable: when the holder does not respond.
        """
        self._driver.restore_files()
        for name, text in self._texts.items():
            write_file(f"{self._directory}/{name}", text)
