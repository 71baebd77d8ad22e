"""``GET /metrics``: the metrics of the engine and its containers, for Prometheus."""

from __future__ import annotations

from jaula.api.http.http_request import Request
from jaula.api.http.response import Answer, Response
from jaula.api.http.router import Routes
from jaula.features.metrics.authz import metrics_api


async def metrics(request: Request) -> Answer:
    """Get metrics: ``GET /metrics``, in the text format of Prometheus, or as OpenMetrics 1.0."""
    from jaula.features.metrics.exposition import CONTENT_TYPES, negotiate

    format = negotiate(request.header(b"accept"))
    compressed = _accepts_gzip(request.header(b"accept-encoding"))
    page = await request.engine.service(metrics_api).page(format, compressed=compressed)
    headers: tuple[tuple[bytes, bytes], ...] = ((b"Vary", b"Accept, Accept-Encoding"),)
    if compressed:
        headers += ((b"Content-Encoding", b"gzip"),)
    return Response(200, page, CONTENT_TYPES[format].encode("ascii"), headers)


def _accepts_gzip(accepted: str) -> bool:
    """Return whether a client accepts gzip (RFC 9110, 12.5.3)."""
    for item in accepted.lower().split(","):
        coding, *parameters = (part.strip() for part in item.split(";"))
        if coding in ("gzip", "*"):
            return not any(p.replace(" ", "") in ("q=0", "q=0.0", "q=0.00") for p in parameters)
    return False


ROUTES: Routes = (("GET", "/metrics", metrics),)
