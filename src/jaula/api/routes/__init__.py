"""Every route of the API, one module per noun.

A module's ``ROUTES`` is a table of method, template and handler; a new noun is a new module and
one line here.
"""

from jaula.api.router import Routes
from jaula.api.routes import (
    archive,
    build,
    containers,
    execs,
    fsck,
    images,
    networks,
    registry,
    secrets,
    streams,
    swarm,
    system,
    trust,
    volumes,
    websockets,
)

ROUTES: Routes = (
    *system.ROUTES,
    *containers.ROUTES,
    *archive.ROUTES,
    *streams.ROUTES,
    *websockets.ROUTES,
    *execs.ROUTES,
    *images.ROUTES,
    *build.ROUTES,
    *registry.ROUTES,
    *trust.ROUTES,
    *fsck.ROUTES,
    *volumes.ROUTES,
    *networks.ROUTES,
    *secrets.ROUTES,
    *swarm.ROUTES,
)
