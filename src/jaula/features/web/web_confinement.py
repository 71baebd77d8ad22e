"""Confinement of a web view that runs as root: it writes no file and runs no program.

Its rights over the engine are those of root, so this limits what a fault of its HTTP can do to the
host directly. ``CAP_DAC_READ_SEARCH`` stays: a clone in a private home directory must be readable.
"""

from __future__ import annotations

import os

from jaula.kernel import capabilities, landlock, process_calls
from jaula.kernel.landlock import LANDLOCK_ACCESS_FS

_READ = LANDLOCK_ACCESS_FS.READ_FILE | LANDLOCK_ACCESS_FS.READ_DIR
_DAC_READ_SEARCH = 1 << 2  # capabilities(7)


def confine() -> bool:
    """Confine this process, which must have one thread. Return whether Landlock takes part.

    :raises OSError: when the kernel refuses.
    """
    process_calls.prctl(process_calls.PR_SET_NO_NEW_PRIVS, 1)
    try:
        abi = landlock.abi_version()
    except OSError:  # Linux before 5.13, or Landlock is turned off
        abi = 0
    if abi:
        rights = landlock.supported_rights(abi)
        ruleset = landlock.create_ruleset(rights.access_fs & ~_READ, 0, rights.scoped)
        try:
            landlock.restrict_self(ruleset)
        finally:
            os.close(ruleset)
    capabilities.clear_ambient()
    capabilities.drop_bounding(_DAC_READ_SEARCH)
    capabilities.capset(_DAC_READ_SEARCH, _DAC_READ_SEARCH, 0)
    return abi > 0
