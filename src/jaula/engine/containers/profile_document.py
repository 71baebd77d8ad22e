"""Parse the document of a profile, which is of a client, in a sandboxed process.

:mod:`~.presets` imports this module for a document that it does not know.
"""

from __future__ import annotations

import msgspec.msgpack

from jaula.engine.parsers import parse
from jaula.errors import InvalidRequest
from jaula.sandbox.sandbox_limits import Limits
from jaula.sandbox.sandbox_worker import WorkerEnded
from jaula.sandbox.start_sandbox import Task
from jaula.spec import confinement_profile
from jaula.spec.confinement_profile import Profile

DOCUMENT = Task("jaula-profile", "the profile", "jaula.spec.profile_worker:parse")
DOCUMENT_LIMITS = Limits(processor=10, patience=60, result=8 << 20, descriptors=16)


async def read(text: str) -> None:
    """Let ``jaula.spec.confinement_profile.load_text`` return or raise what the process has read.

    :raises InvalidRequest: when the document is not valid.
    """
    try:
        answer = await parse(DOCUMENT, text.encode(), limits=DOCUMENT_LIMITS)
        found = msgspec.msgpack.decode(answer, type=Profile)
        confinement_profile.check(found)
    except InvalidRequest as error:
        confinement_profile.remember(text, error)
        raise
    except msgspec.MsgspecError as error:
        raise WorkerEnded(f"the answer of the process that reads the profile: {error}") from None
    confinement_profile.remember(text, found)
