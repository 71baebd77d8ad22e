"""``runtime.v1.ImageService``: the engine's images for kubelet and crictl.

The store is that of Docker's API: an image of ``docker pull`` is listed, and kubelet's garbage
collection removes one that no container uses.

Sources: k8s.io/cri-api ``pkg/apis/runtime/v1/api.proto`` and ``pkg/errors``, k8s.io/cri-client
``pkg/remote_image.go``; containerd ``internal/cri/server/images`` for what the texts leave open.

Facts about the clients:

* Names are full, as containerd prints them: ``docker.io/library/busybox:latest``. A reference with
  a tag and a digest means the digest.
* kubelet refuses an image without a size, and takes an absent image for one that it has to pull.
* kubelet removes by id, and crictl prints each name of an image that it removed. So an image is
  removed with all of its names.
* kubelet compares the usage of images with that of containers. Equal numbers mean that both are on
  one file system.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from jaula.errors import CorruptState, JaulaError, NotFound
from jaula.features.kubernetes.authz import pods_api
from jaula.features.kubernetes.cri import image_errors
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.grpc.grpc_server import Call, Method, Unary
from jaula.images import reference as references
from jaula.spec.api_documents import RegistryAuth
from jaula.spec.protobuf import decoder

if TYPE_CHECKING:
    from jaula.engine.authz.gateway import EngineApi
    from jaula.engine.images.images import StoredImage
    from jaula.engine.system.disk_usage import StorageUsage

_SERVICE = "/runtime.v1.ImageService/"
_STREAM_LENGTH = 256  # images of one message of a stream
_NUMBER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_INT64 = range(-(1 << 63), 1 << 63)


class ImageService:
    """The calls of one connection."""

    def __init__(self, engine: EngineApi) -> None:
        self._engine = engine

    def methods(self) -> dict[str, Method]:
        """Return the handlers by path."""
        unary: dict[str, tuple[type[Any], Unary]] = {
            "ListImages": (api_pb2.ListImagesRequest, self.list_images),
            "ImageStatus": (api_pb2.ImageStatusRequest, self.image_status),
            "PullImage": (api_pb2.PullImageRequest, self.pull_image),
            "RemoveImage": (api_pb2.RemoveImageRequest, self.remove_image),
            "ImageFsInfo": (api_pb2.ImageFsInfoRequest, self.image_fs_info),
        }
        methods = {
            _SERVICE + name: Method(decoder(kind), unary=handler)
            for name, (kind, handler) in unary.items()
        }
        methods[_SERVICE + "StreamImages"] = Method(
            decoder(api_pb2.StreamImagesRequest), streaming=self.stream_images
        )
        return methods

    async def list_images(
        self, call: Call, request: api_pb2.ListImagesRequest
    ) -> api_pb2.ListImagesResponse:
        """Return all images, or the one that the filter names."""
        return api_pb2.ListImagesResponse(images=await self._select(request.filter))

    async def stream_images(self, call: Call) -> AsyncIterator[api_pb2.StreamImagesResponse]:
        """Yield the images of :meth:`list_images` in parts."""
        request: api_pb2.StreamImagesRequest = await call.request()
        images = await self._select(request.filter)
        for start in range(0, len(images), _STREAM_LENGTH):
            yield api_pb2.StreamImagesResponse(images=images[start : start + _STREAM_LENGTH])

    async def _select(self, filter: api_pb2.ImageFilter) -> list[api_pb2.Image]:
        if not filter.image.image:
            return [encode_image(stored) for stored in await self._engine.images.stored()]
        stored = await self._find(filter.image.image)
        return [] if stored is None else [encode_image(stored)]

    async def _find(self, ref: str) -> StoredImage | None:
        """Return the image for ``ref``; None if it is absent or damaged: a pull mends both."""
        try:
            return await self._engine.images.find_stored(ref)
        except (NotFound, CorruptState):
            return None

    async def image_status(
        self, call: Call, request: api_pb2.ImageStatusRequest
    ) -> api_pb2.ImageStatusResponse:
        """Return an image; an empty response if it is absent."""
        stored = await self._find(request.image.image)
        if stored is None:
            return api_pb2.ImageStatusResponse()
        response = api_pb2.ImageStatusResponse(image=encode_image(stored))
        if request.verbose:
            try:
                configuration = await self._engine.images.configuration(stored.image.id)
            except NotFound:
                return api_pb2.ImageStatusResponse()  # it has been removed meanwhile
            response.info["info"] = verbose_info(configuration, stored.image.layers)
        return response

    async def pull_image(
        self, call: Call, request: api_pb2.PullImageRequest
    ) -> api_pb2.PullImageResponse:
        """Pull an image for this machine; return its id. All runtime handlers use one store.

        A client that cancels the call cancels the pull.

        :raises NotFound: when there is no such runtime handler.
        :raises GrpcError: when the registry does not have the image or refuses it.
        """
        handler = request.image.runtime_handler
        if handler not in self._engine.service(pods_api).handler_names():
            raise NotFound(f"the runtime handler {handler[:80]!r} does not exist")
        reference = references.parse(request.image.image)
        try:
            async for _ in self._engine.distribution.pull(
                str(reference), "", None, decode_auth(request)
            ):
                pass
        except JaulaError as error:
            raise image_errors.pull_error(error) from error
        name = str(reference)
        if reference.digest is not None:
            name = f"{reference.repository}@{reference.digest}"
        stored = await self._engine.images.find_stored(name)
        return api_pb2.PullImageResponse(image_ref=stored.image.id)

    async def remove_image(
        self, call: Call, request: api_pb2.RemoveImageRequest
    ) -> api_pb2.RemoveImageResponse:
        """Remove an image with all of its names. An absent one is not an error.

        :raises Conflict: when a container uses it.
        """
        try:
            await self._engine.images.remove(
                request.image.image, force=False, noprune=False, platforms=(), all_names=True
            )
        except NotFound:
            pass  # removed already, which the interface requires to succeed
        return api_pb2.RemoveImageResponse()

    async def image_fs_info(
        self, call: Call, request: api_pb2.ImageFsInfoRequest
    ) -> api_pb2.ImageFsInfoResponse:
        """Return the usage of the file systems of images and of containers."""
        storage = await self._engine.system.storage()
        return api_pb2.ImageFsInfoResponse(
            image_filesystems=[_usage(storage.images)],
            container_filesystems=[_usage(storage.containers)],
        )


def _usage(usage: StorageUsage) -> api_pb2.FilesystemUsage:
    return api_pb2.FilesystemUsage(
        timestamp=usage.moment,
        fs_id=api_pb2.FilesystemIdentifier(mountpoint=usage.path),
        used_bytes=api_pb2.UInt64Value(value=usage.size),
        inodes_used=api_pb2.UInt64Value(value=usage.inodes),
    )


def encode_image(stored: StoredImage) -> api_pb2.Image:
    """Return an image as a message. Pure.

    kubelet's garbage collection leaves a pinned image alone. Containers of Docker's API, which
    kubelet does not know, pin theirs in this way. The sandbox has no image that could be pinned.
    """
    image = stored.image
    message = api_pb2.Image(
        id=image.id,
        repo_tags=[full_name(name) for name in image.names],
        repo_digests=[full_name(name) for name in image.digests],
        size=stored.size,
        pinned=stored.pinned,
    )
    user = image.config.user.partition(":")[0]
    if _NUMBER.fullmatch(user) and int(user) in _INT64:
        message.uid.CopyFrom(api_pb2.Int64Value(value=int(user)))
    else:
        message.username = user
    return message


def full_name(name: str) -> str:
    """Return a name of the store with its registry: ``docker.io/library/busybox:1``. Pure."""
    return references.parse(name).canonical


def verbose_info(configuration: bytes, layers: Sequence[str]) -> str:
    """Return the value of ``info`` that containerd gives, as JSON. Pure.

    ``imageSpec`` is the whole configuration of the image.
    """
    text = configuration.decode("utf-8", "replace")  # as JSON is, in what the engine reads of it
    document = {"chainID": chain_id(layers), "imageSpec": msgspec.Raw(text.encode())}
    return msgspec.json.encode(document).decode()


def chain_id(layers: Sequence[str]) -> str:
    """Return the chain id of layers, by their diff ids, base first; '' without layers. Pure.

    Source: opencontainers/image-spec 1.1 ``config.md``, "Layer ChainID".
    """
    chain = ""
    for layer in layers:
        pair = f"{chain} {layer}".encode()
        chain = "sha256:" + hashlib.sha256(pair).hexdigest() if chain else layer
    return chain


def decode_auth(request: api_pb2.PullImageRequest) -> RegistryAuth | None:
    """Return the credentials of a pull, None without any. Pure."""
    if not request.HasField("auth"):
        return None
    auth = request.auth
    return RegistryAuth(
        username=auth.username,
        password=auth.password,
        auth=auth.auth,
        server_address=auth.server_address,
        identity_token=auth.identity_token,
        registry_token=auth.registry_token,
    )
