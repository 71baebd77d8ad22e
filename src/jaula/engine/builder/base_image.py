"""What a stage starts from: nothing, an image that is here, or one that a registry has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaula.engine.builder.image_state import ImageState, Layer
from jaula.errors import JaulaError, NotFound
from jaula.images.platform import host
from jaula.images.reference import parse
from jaula.images.registry import manifest
from jaula.spec.image import Platform

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Any

    from jaula.engine.images.registry import RegistryService
    from jaula.engine.model.services import Services
    from jaula.images.store.store import Image
    from jaula.spec.api import RegistryAuth

SCRATCH = "scratch"


def wanted_platform(text: str) -> Platform:
    """``linux/arm64`` as a platform, this machine's where the text is empty."""
    return manifest.parse_platform(text or None) or host()


async def find(
    parts: Services,
    distribution: RegistryService,
    name: str,
    platform: str,
    *,
    pull: bool,
    auths: Mapping[str, RegistryAuth],
    tell: Callable[[dict[str, Any]], Awaitable[None]],
) -> Image:
    """The image of a name for a platform; fetched where it is not here, or ``pull`` says so.

    :raises NotFound: nobody has it.
    :raises ImageRefused: the operator's policy does not let it be built upon.
    """
    if not pull:
        try:
            image = parts.images.resolve(name)
            manifest.check_platform(manifest.parse_platform(platform or None), image.platform, name)
        except NotFound:
            pass
        else:
            parts.gate.check_run(image, name)
            return image
        await tell({"status": f"Unable to find image '{parse(name)}' locally"})
    domain = parse(name).domain
    auth = auths.get(domain) or auths.get(_INDEX if domain == _HUB else domain)
    try:
        async for message in distribution.pull(str(parse(name)), "", platform or None, auth):
            await tell(message)
    except JaulaError as error:
        error.message = f"image {name} cannot be had: {error.message}"
        raise
    return parts.images.resolve(name)


_HUB = "docker.io"
_INDEX = "https://index.docker.io/v1/"


def state_of(parts: Services, image: Image) -> ImageState:
    """The beginning of a stage that goes on from an image."""
    blobs = parts.images.manifest(image).layers
    pairs = zip(image.layers, blobs, strict=True)
    return ImageState(
        layers=tuple(Layer(diff_id, blob) for diff_id, blob in pairs),
        config=image.config,
        history=image.document.history,
        platform=image.platform,
        author=image.document.author,
        created=image.created,
        base_layers=len(image.layers),
        base_history=len(image.document.history),
    )
