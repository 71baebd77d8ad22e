"""Names of system calls by number and ABI, from libseccomp."""

from __future__ import annotations

from jaula.errors import Unsupported
from jaula.kernel import seccomp

_ABIS = {"": "SCMP_ARCH_X86_64", "i386": "SCMP_ARCH_X86", "x32": "SCMP_ARCH_X32"}
_MAX_NAMES = 4096  # names of system calls that are cached


class SyscallNames:
    """Names of system calls; a number without a name is its own."""

    def __init__(self) -> None:
        """Load libseccomp.

        :raises Unsupported: when it is not installed.
        """
        self._names: dict[tuple[int, str], str] = {}
        try:
            seccomp.library()
        except OSError as error:
            raise Unsupported(
                f"libseccomp.so.2 cannot be loaded: {error}",
                hint="install libseccomp2 (Debian), libseccomp (Fedora, Alpine)",
            ) from None

    def __call__(self, number: int, abi: str) -> str:
        name = self._names.get((number, abi))
        if name is None:
            signed = number - (1 << 32) if number >= 1 << 31 else number
            name = seccomp.name_of(signed, _ABIS[abi]) if signed >= 0 else None
            name = name or str(number)
            if len(self._names) < _MAX_NAMES:
                self._names[(number, abi)] = name
        return name
