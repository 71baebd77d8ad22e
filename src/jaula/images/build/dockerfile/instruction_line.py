"""An instruction's line in its parts, before anybody knows what the parts mean."""

from __future__ import annotations

import msgspec

from jaula.images.build.dockerfile.ast import Heredoc, Location
from jaula.images.build.dockerfile.flags import Flags


class InstructionLine(msgspec.Struct, frozen=True):
    """The parts of an instruction's line, before its arguments are parsed.

    ``word`` is the name in upper case; ``rest`` is the text after the flags, stripped.
    ``documents`` is the text of the ``heredocs`` as a shell reads it, with the closing delimiters.
    """

    place: Location
    word: str
    flags: Flags
    rest: str
    heredocs: tuple[Heredoc, ...]
    documents: str
    escape: str
