"""Names of the engine's AppArmor profile of containers.

:data:`NAME` is the name that is requested and shown. The kernel's name has a digest of the text of
the profile as well, which differs between versions and labels of engines. Requests, specs and
images of checkpoints have these names.
"""

from __future__ import annotations

import re

NAME = "jaula-default"

DIGITS = 12  # of the digest, in hexadecimal
_OF_KERNEL = re.compile(rf"{NAME}(-[0-9a-f]{{{DIGITS}}})?")


def is_default(name: str) -> bool:
    """Return whether a kernel's name is that of a default profile, of any engine.

    Engines before names with a digest loaded their profile as :data:`NAME`.
    """
    return _OF_KERNEL.fullmatch(name) is not None
