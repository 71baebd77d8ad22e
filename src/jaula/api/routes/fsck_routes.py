"""Checks and repairs of the engine's state, which Docker's API does not have."""

from __future__ import annotations

from jaula.api.http import response
from jaula.api.http.http_request import Request
from jaula.api.http.response import Answer, StreamResponse, json_lines
from jaula.api.http.router import Routes


async def verify(request: Request) -> Answer:
    """Verify images: ``GET /jaula/images/verify?names=a&names=b``.

    The answer has a line for each image. Without names all images are verified.
    """
    request.begin_transfer()
    progress = request.engine.fsck.verify_images(request.query.texts("names"))
    return StreamResponse(json_lines(progress), error_chunk=response.progress_error)


async def check(request: Request) -> Answer:
    """Check the state: ``GET /jaula/system/check``.

    ``contents=1`` reads every byte of images and layers.
    """
    return response.json(await request.engine.fsck.check(contents=request.query.flag("contents")))


async def repair(request: Request) -> Answer:
    """Check and repair the state: ``POST /jaula/system/repair``."""
    return response.json(await request.engine.fsck.repair(contents=request.query.flag("contents")))


ROUTES: Routes = (
    ("GET", "/jaula/images/verify", verify),
    ("GET", "/jaula/system/check", check),
    ("POST", "/jaula/system/repair", repair),
)
