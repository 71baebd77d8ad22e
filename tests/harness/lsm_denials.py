"""Denials of SELinux and AppArmor in the kernel's log."""

from __future__ import annotations

import subprocess


def log() -> list[str]:
    """Return the lines of the kernel's log about denials of SELinux or AppArmor."""
    done = subprocess.run(["dmesg"], capture_output=True, text=True, check=True)
    return [
        line for line in done.stdout.splitlines() if "denied" in line or 'apparmor="DENIED"' in line
    ]


class Denials:
    """The denials since the creation of this object."""

    def __init__(self) -> None:
        self._known = set(log())  # each begins with its time; old ones leave the kernel's log

    def containing(self, *words: str) -> list[str]:
        """Return the denials that contain all the words."""
        return [
            line
            for line in log()
            if line not in self._known and all(word in line for word in words)
        ]
