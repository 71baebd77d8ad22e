"""Every route of the API, one module per noun.

A module's ``ROUTES`` is a table of method, template and handler; a new noun is a new module and
one line here.
"""

from jaula.api.router import Routes
from jaula.api.routes import (
    absent,
    archive,
    containers,
    distribution,
    execs,
    images,
    networks,
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
    *distribution.ROUTES,
    *trust.ROUTES,
    *volumes.ROUTES,
    *networks.ROUTES,
    *swarm.ROUTES,
    *absent.ROUTES,
)
