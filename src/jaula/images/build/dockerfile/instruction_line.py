"""An instruction's line in its parts, before anybody knows what the parts mean."""

from __future__ import annotations

import msgspec

from jaula.images.build.dockerfile.ast import Heredoc, Location
from jaula.images.build.dockerfile.flags import Flags


class InstructionLine(msgspec.Struct, frozen=True):
    """``word`` is upper case; ``rest`` is what follows the flags, without white space around it.

    ``documents`` is the text of the ``heredocs`` as a shell reads it, with its last lines.
    """

    place: Location
    word: str
    flags: Flags
    rest: str
    heredocs: tuple[Heredoc, ...]
    documents: str
    escape: str
