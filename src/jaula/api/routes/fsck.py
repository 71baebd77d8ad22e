"""Whether what the engine keeps is as it should be; Docker's API has nothing of the kind."""

from __future__ import annotations

from jaula.api.http import response
from jaula.api.http.json_stream import lines
from jaula.api.http.request import Request
from jaula.api.http.response import Answer, StreamResponse
from jaula.api.router import Routes


async def verify(call: Request) -> Answer:
    """``GET /jaula/images/verify?names=a&names=b``: a line for each image; of all without names."""
    progress = call.engine.upkeep.verify_images(call.query.texts("names"))
    return StreamResponse(lines(progress), last_words=response.progress_error)


async def check(call: Request) -> Answer:
    """``GET /jaula/system/check``; ``contents=1`` reads every byte of images and layers."""
    return response.json(await call.engine.upkeep.check(contents=call.query.flag("contents")))


async def repair(call: Request) -> Answer:
    """``POST /jaula/system/repair``: the same, and what became of each finding."""
    return response.json(await call.engine.upkeep.repair(contents=call.query.flag("contents")))


ROUTES: Routes = (
    ("GET", "/jaula/images/verify", verify),
    ("GET", "/jaula/system/check", check),
    ("POST", "/jaula/system/repair", repair),
)
