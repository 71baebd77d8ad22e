"""Estimate the pause of a container: a fixed part, and the time that its memory needs at a rate."""

from __future__ import annotations

from typing import NamedTuple

from jaula.spec.units import bytes_size

FIXED = 0.5  # seconds that the smallest container stands still
ASSUMED_RATE = 100 << 20  # bytes a second: a network of 1 Gbit/s
_MEASURED = 64 << 20  # bytes of memory from which on a move tells the rate


class Rates:
    """The rates of earlier moves, in bytes a second, by target."""

    def __init__(self) -> None:
        self._rates: dict[str, float] = {}

    def add(self, target: str, sent: int, pause: float) -> None:
        """Remember a move that sent ``sent`` bytes while it stood still for ``pause`` seconds."""
        if sent >= _MEASURED and pause > FIXED:
            self._rates[target] = sent / (pause - FIXED)

    def expect(self, target: str, memory: int) -> Pause:
        """Return the pause of a container with ``memory`` bytes."""
        rate = self._rates.get(target)
        return Pause(memory, rate or ASSUMED_RATE, is_measured=rate is not None)


class Pause(NamedTuple):
    """An expected pause; ``rate`` is in bytes a second."""

    memory: int
    rate: float
    is_measured: bool

    @property
    def seconds(self) -> float:
        return FIXED + self.memory / self.rate

    def __str__(self) -> str:
        source = "as in the last move there" if self.is_measured else "assumed"
        return (
            f"about {self.seconds:.1f} s ({bytes_size(self.memory)} of memory"
            f" at {bytes_size(round(self.rate))}/s, {source})"
        )
