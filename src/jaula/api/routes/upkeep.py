"""Whether what the engine keeps is as it should be; Docker's API has nothing of the kind."""

from __future__ import annotations

from jaula.api import reply
from jaula.api.call import Call
from jaula.api.lines import lines
from jaula.api.reply import Answer, Stream
from jaula.api.router import Routes


async def verify(call: Call) -> Answer:
    """``GET /jaula/images/verify?names=a&names=b``: a line for each image; of all without names."""
    progress = call.engine.upkeep.verify_images(call.query.texts("names"))
    return Stream(lines(progress), last_words=reply.progress_error)


async def check(call: Call) -> Answer:
    """``GET /jaula/system/check``; ``contents=1`` reads every byte of images and layers."""
    return reply.json(await call.engine.upkeep.check(contents=call.query.flag("contents")))


async def repair(call: Call) -> Answer:
    """``POST /jaula/system/repair``: the same, and what became of each finding."""
    return reply.json(await call.engine.upkeep.repair(contents=call.query.flag("contents")))


ROUTES: Routes = (
    ("GET", "/jaula/images/verify", verify),
    ("GET", "/jaula/system/check", check),
    ("POST", "/jaula/system/repair", repair),
)
