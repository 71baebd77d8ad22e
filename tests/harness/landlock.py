"""The Landlock of the kernel that the tests run on."""

from __future__ import annotations

from jaula.kernel import landlock


def abi() -> int:
    """Return the version of its interface, 0 if the kernel has none."""
    try:
        return landlock.abi_version()
    except OSError:
        return 0
