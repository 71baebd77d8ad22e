"""The builds of an engine, and the hooks that open and close them.

Every engine imports this module, so it imports the service itself at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaula.engine.engine import Engine
    from jaula.engine.hooks import BuildCacheUsage
    from jaula.features.build.builder.builds import Builds


def builds(engine: Engine) -> Builds:
    """Return the builds of an engine."""
    from jaula.features.build.builder.builds import Builds

    return Builds(engine.services, engine.containers, engine.distribution)


async def sweep(engine: Engine) -> None:
    """Remove the files that builds of a killed engine left."""
    paths = engine.services.config.paths
    for directory in (paths.root / "build", paths.run / "builds"):
        if directory.is_dir() and any(directory.iterdir()):
            engine.service(builds).sweep()
            return


async def close(engine: Engine) -> None:
    """End the builds of an engine that stops."""
    if (found := engine.existing(builds)) is not None:
        await found.close()


def cache_usage(engine: Engine) -> BuildCacheUsage:
    """Return what returns Docker's documents of the steps in the build cache."""
    return engine.service(builds).usage
