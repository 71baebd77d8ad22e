"""Machine code by its bytes, with jumps to labels that come later. Pure."""

from __future__ import annotations

import struct


class Assembler:
    """Bytes with jumps to labels, all of them 32 bits wide."""

    def __init__(self) -> None:
        self._code = bytearray()
        self._labels: dict[str, int] = {}
        self._holes: list[tuple[int, str]] = []

    def __call__(self, text: str) -> None:
        """Instructions in hexadecimal; blanks do not matter."""
        self._code += bytes.fromhex(text)

    def number(self, text: str, value: int, size: int = 4) -> None:
        """An instruction that ends in a number, little endian."""
        self(text)
        self._code += value.to_bytes(size, "little")

    def label(self, name: str) -> None:
        """The place that follows."""
        self._labels[name] = len(self._code)

    def jump(self, name: str, text: str = "e9") -> None:
        """``jmp``, or with ``0f 8x`` a conditional jump."""
        self(text)
        self._holes.append((len(self._code), name))
        self._code += bytes(4)

    def finish(self) -> bytes:
        """The code with every jump resolved."""
        for at, name in self._holes:
            self._code[at : at + 4] = struct.pack("<i", self._labels[name] - at - 4)
        return bytes(self._code)
