"""The diagnostics of an engine, and the hooks that open and close them.

Every engine imports this module, so it imports the service itself at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaula.engine.engine import Engine
    from jaula.features.verify.diagnostics.diagnostics import Diagnostics


def diagnostics(engine: Engine) -> Diagnostics:
    """Return the diagnostics of an engine."""
    from jaula.features.verify.diagnostics.diagnostics import Diagnostics

    return Diagnostics(engine.services)


async def close(engine: Engine) -> None:
    """End the observer of an engine that stops."""
    if (found := engine.existing(diagnostics)) is not None:
        await found.close()
