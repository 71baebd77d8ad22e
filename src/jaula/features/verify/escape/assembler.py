"""Assembler for hexadecimal machine code with forward jumps. Pure."""

from __future__ import annotations

import struct


class Assembler:
    """Machine code with jumps to labels, all with 32-bit offsets."""

    def __init__(self) -> None:
        self._code = bytearray()
        self._labels: dict[str, int] = {}
        self._holes: list[tuple[int, str]] = []

    def __call__(self, text: str) -> None:
        """Append instructions in hexadecimal; blanks are ignored."""
        self._code += bytes.fromhex(text)

    def number(self, text: str, value: int, size: int = 4) -> None:
        """Append an instruction that ends in a little-endian number."""
        self(text)
        self._code += value.to_bytes(size, "little")

    def label(self, name: str) -> None:
        """Define a label at the current position."""
        self._labels[name] = len(self._code)

    def jump(self, name: str, text: str = "e9") -> None:
        """Append ``jmp``, or with ``0f 8x`` a conditional jump."""
        self(text)
        self._holes.append((len(self._code), name))
        self._code += bytes(4)

    def finish(self) -> bytes:
        """Return the code with all jumps resolved."""
        for position, name in self._holes:
            self._code[position : position + 4] = struct.pack(
                "<i", self._labels[name] - position - 4
            )
        return bytes(self._code)
