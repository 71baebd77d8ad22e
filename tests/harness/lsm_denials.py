"""What the kernel logged about refusals of mandatory access control."""

from __future__ import annotations

import subprocess


def log() -> list[str]:
    """Lines of the kernel's log that tell a denial, of SELinux or AppArmor."""
    done = subprocess.run(["dmesg"], capture_output=True, text=True, check=True)
    return [
        line for line in done.stdout.splitlines() if "denied" in line or 'apparmor="DENIED"' in line
    ]


class Denials:
    """The denials since this object was made."""

    def __init__(self) -> None:
        self._known = set(log())  # each begins with its time; old ones leave the kernel's log

    def found(self, *words: str) -> list[str]:
        """Those that hold all the words."""
        return [
            line
            for line in log()
            if line not in self._known and all(word in line for word in words)
        ]
