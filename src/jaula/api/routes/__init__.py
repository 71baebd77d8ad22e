"""All routes of the API, one module per noun.

The ``ROUTES`` of a module is a table of method, template and handler. A new noun is a new module
and one line in this file.
"""

from jaula.api.http.router import Routes
from jaula.api.routes import (
    archive,
    build,
    containers,
    diagnostics,
    execs,
    fsck,
    images,
    metrics,
    migrations,
    networks,
    registry,
    secrets,
    streams,
    swarm,
    system,
    trust,
    volumes,
    web,
    websockets,
)

ROUTES: Routes = (
    *system.ROUTES,
    *metrics.ROUTES,
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
    *diagnostics.ROUTES,
    *volumes.ROUTES,
    *networks.ROUTES,
    *migrations.ROUTES,
    *secrets.ROUTES,
    *swarm.ROUTES,
    *web.ROUTES,
)
