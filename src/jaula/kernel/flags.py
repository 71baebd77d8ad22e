"""Families of the kernel's flags: to the type checker enumerations, when run plain numbers.

``class MS(IntFlag)`` names the flags of mount(2); ``MS.BIND | MS.REC`` is a number of that family,
and a flag of another family in its place is an error that the type checker finds. Nobody prints
these numbers or walks through a family, and making real enumerations of them takes a command that
lives for thirty milliseconds two of them.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from enum import IntEnum, IntFlag
else:

    class IntFlag(int):
        """Names of numbers; called with a number it gives that number."""

        def __new__(cls, value: int = 0) -> int:
            return value

    IntEnum = IntFlag

__all__ = ["IntEnum", "IntFlag"]
