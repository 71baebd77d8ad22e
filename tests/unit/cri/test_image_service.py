"""The image service over a scripted engine: encoding, statuses, hostile messages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cri import IMAGES, serve
from jaula.engine.images.images import StoredImage, is_pinned
from jaula.engine.system.disk_usage import Storage, StorageUsage
from jaula.errors import (
    Conflict,
    CorruptState,
    ImageMountFailed,
    InvalidRequest,
    JaulaError,
    NotAuthorized,
    NotFound,
    TooManyRequests,
    Unavailable,
)
from jaula.features.kubernetes.cri.image_errors import container_error
from jaula.features.kubernetes.cri.image_service import (
    ImageService,
    chain_id,
    decode_auth,
    encode_image,
    verbose_info,
)
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.grpc.grpc_server import Call, Method
from jaula.grpc.grpc_status import Code, GrpcError
from jaula.images import reference
from jaula.images.policy import ImageRefused
from jaula.images.registry.registry_errors import (
    ConnectionLost,
    NoCredentials,
    RegistryError,
    Unreachable,
)
from jaula.images.store.image_store import Image
from jaula.spec.api_documents import RegistryAuth
from jaula.spec.image_documents import ImageConfig, ImageDocument

ID, MANIFEST = "sha256:" + "1" * 64, "sha256:" + "2" * 64
LAYERS = ("sha256:" + "a" * 64, "sha256:" + "b" * 64)
NAMES = ("busybox:1", "localhost:5000/team/app:v2")


def stored(user: str = "", *, pinned: bool = False, names: Sequence[str] = NAMES) -> StoredImage:
    image = Image(
        id=ID,
        names=tuple(names),
        digests=(f"busybox@{MANIFEST}",),
        manifest=MANIFEST,
        target=MANIFEST,
        layers=LAYERS,
        size=10,
        document=ImageDocument(config=ImageConfig(user=user)),
    )
    return StoredImage(image, 4321, pinned)


class Engine:
    """An engine with some images, which records what it has to do."""

    def __init__(self, *images: StoredImage, error: JaulaError | None = None) -> None:
        self.all = list(images)
        self.error = error
        self.pulls: list[tuple[str, RegistryAuth | None]] = []
        self.removed: list[tuple[str, dict[str, Any]]] = []
        self.images: Any = self
        self.distribution: Any = SimpleNamespace(pull=self.pull)
        self.system: Any = self

    def service(self, make: Any) -> Any:
        """Return the pods, which are this object."""
        return self

    async def stored(self) -> Sequence[StoredImage]:
        return self.all

    async def find_stored(self, ref: str) -> StoredImage:
        if self.error is not None:
            raise self.error
        names = {ID, str(reference.parse(ref))} if ref != ID else {ID}
        for each in self.all:
            if names & {ID if ref == ID else "", *each.image.names, *each.image.digests}:
                return each
        raise NotFound(f"No such image: {ref}")

    async def configuration(self, ref: str) -> bytes:
        assert ref == ID
        return b'{"os": "linux", "config": {"User": "7"}}'

    async def pull(
        self, name: str, tag: str, platform: str | None, auth: RegistryAuth | None
    ) -> AsyncIterator[dict[str, Any]]:
        assert (tag, platform) == ("", None)
        self.pulls.append((name, auth))
        yield {"status": "Pulling"}
        if self.error is not None:
            raise self.error

    async def remove(self, ref: str, **options: Any) -> list[dict[str, Any]]:
        self.removed.append((ref, options))
        if self.error is not None:
            raise self.error
        return [{"Deleted": ID}]

    async def storage(self) -> Storage:
        return Storage(
            StorageUsage("/var/lib/jaula", 1 << 40, 77, 5), StorageUsage("/data", 3, 2, 4)
        )

    def handler_names(self) -> tuple[str, ...]:
        return ("", "jaula-userns")


def spec(image: str) -> api_pb2.ImageSpec:
    return api_pb2.ImageSpec(image=image)


def call(engine: Engine, name: str, request: Any, response: type[Any]) -> Any:
    """Make one call over a socket pair."""

    async def run() -> Any:
        async with serve(ImageService(engine).methods()) as client:
            return await client.call(name, request, response)

    return asyncio.run(run())


def pull(engine: Engine, image: str, **auth: str) -> str:
    request = api_pb2.PullImageRequest(image=spec(image))
    if auth:
        request.auth.CopyFrom(api_pb2.AuthConfig(**auth))
    reply: api_pb2.PullImageResponse = call(engine, "PullImage", request, api_pb2.PullImageResponse)
    return reply.image_ref


def test_an_image_has_its_full_names_as_with_containerd() -> None:
    message = encode_image(stored())
    assert list(message.repo_tags) == ["docker.io/library/busybox:1", NAMES[1]]
    assert list(message.repo_digests) == [f"docker.io/library/busybox@{MANIFEST}"]
    assert (message.id, message.size, message.pinned) == (ID, 4321, False)
    assert encode_image(stored(pinned=True)).pinned


@pytest.mark.parametrize(
    ("user", "uid", "name"),
    [
        ("", None, ""),
        ("0", 0, ""),
        ("1002:users", 1002, ""),
        ("www-data", None, "www-data"),
        ("www-data:33", None, "www-data"),
        ("9223372036854775807", 2**63 - 1, ""),
        ("9223372036854775808", None, "9223372036854775808"),
        ("1" * 5000, None, "1" * 5000),
        ("-1", -1, ""),
        ("٣", None, "٣"),
    ],
)
def test_the_user_of_an_image_is_a_number_or_a_name(user: str, uid: int | None, name: str) -> None:
    message = encode_image(stored(user))
    assert (message.uid.value if message.HasField("uid") else None) == uid
    assert message.username == name


def test_a_list_is_all_images_or_the_one_of_the_filter() -> None:
    engine = Engine(stored())

    def listed(image: str) -> int:
        request = api_pb2.ListImagesRequest(filter=api_pb2.ImageFilter(image=spec(image)))
        return len(call(engine, "ListImages", request, api_pb2.ListImagesResponse).images)

    assert len(
        call(engine, "ListImages", api_pb2.ListImagesRequest(), api_pb2.ListImagesResponse).images
    )
    for ref in ("", ID, "busybox:1", "docker.io/library/busybox:1", NAMES[1]):
        assert listed(ref) == 1, ref
    assert listed("busybox") == 0
    with pytest.raises(GrpcError) as error:
        listed("Not A Name")
    assert error.value.code is Code.INVALID_ARGUMENT


def test_a_stream_has_all_images_in_parts() -> None:
    engine = Engine(*[stored()] * 600)

    async def run() -> list[Any]:
        async with serve(ImageService(engine).methods()) as client:
            request = api_pb2.StreamImagesRequest()
            return await client.stream("StreamImages", request, api_pb2.StreamImagesResponse)

    assert [len(part.images) for part in asyncio.run(run())] == [256, 256, 88]


@pytest.mark.parametrize("error", [None, CorruptState("image x is damaged")])
def test_the_status_of_an_absent_or_damaged_image_is_empty(error: JaulaError | None) -> None:
    request = api_pb2.ImageStatusRequest(image=spec("busybox:2"), verbose=True)
    reply = call(Engine(stored(), error=error), "ImageStatus", request, api_pb2.ImageStatusResponse)
    assert not reply.HasField("image")
    assert not reply.info


def test_a_verbose_status_has_the_configuration() -> None:
    request = api_pb2.ImageStatusRequest(image=spec(ID))
    engine = Engine(stored())
    assert not call(engine, "ImageStatus", request, api_pb2.ImageStatusResponse).info
    request.verbose = True
    reply = call(engine, "ImageStatus", request, api_pb2.ImageStatusResponse)
    assert reply.image.id == ID
    info = json.loads(reply.info["info"])
    assert info["imageSpec"] == {"os": "linux", "config": {"User": "7"}}
    assert info["chainID"] == chain_id(LAYERS)


def test_a_chain_id_is_that_of_the_image_specification() -> None:
    import hashlib

    assert chain_id(()) == ""
    assert chain_id(LAYERS[:1]) == LAYERS[0]
    both = hashlib.sha256(f"{LAYERS[0]} {LAYERS[1]}".encode()).hexdigest()
    assert chain_id(LAYERS) == f"sha256:{both}"


def test_a_configuration_with_bytes_that_are_not_text_is_json_still() -> None:
    info = json.loads(verbose_info(b'{"author": "a\xff"}', ()))
    assert info == {"chainID": "", "imageSpec": {"author": "a\ufffd"}}


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("busybox:1", "busybox:1"),
        ("docker.io/library/busybox:1", "busybox:1"),
        (f"busybox@{MANIFEST}", f"busybox@{MANIFEST}"),
        (f"busybox:9@{MANIFEST}", f"busybox:9@{MANIFEST}"),
        (NAMES[1], NAMES[1]),
    ],
)
def test_a_pull_returns_the_id(image: str, name: str) -> None:
    engine = Engine(stored())
    assert pull(engine, image) == ID
    assert engine.pulls == [(name, None)]


def test_a_pull_passes_the_credentials() -> None:
    auth = {
        "username": "maria",
        "password": "s3cret word",
        "auth": "bWFyaWE6eA==",
        "server_address": "https://index.docker.io/v1/",
        "identity_token": "one",
        "registry_token": "two",
    }
    engine = Engine(stored())
    pull(engine, "busybox:1", **auth)
    assert engine.pulls[0][1] == RegistryAuth(**auth)
    assert decode_auth(api_pb2.PullImageRequest()) is None


@pytest.mark.parametrize(
    ("error", "code", "begin"),
    [
        (NotFound("manifest for x not found"), Code.NOT_FOUND, "manifest for x"),
        (InvalidRequest("bad"), Code.INVALID_ARGUMENT, "bad"),
        (NotAuthorized("user may not"), Code.PERMISSION_DENIED, "user may not"),
        (Unavailable("no space"), Code.UNAVAILABLE, "no space"),
        (TooManyRequests("wait"), Code.RESOURCE_EXHAUSTED, "wait"),
        (NoCredentials("no basic auth"), Code.UNAUTHENTICATED, "no basic"),
        (RegistryError("unauthorized", "who", 401), Code.UNAUTHENTICATED, "unauthorized: who"),
        (RegistryError("", "no", 403), Code.PERMISSION_DENIED, "no"),
        (RegistryError("", "later", 429), Code.UNKNOWN, "RegistryUnavailable: later"),
        (RegistryError("", "broken", 502), Code.UNKNOWN, "RegistryUnavailable: broken"),
        (Unreachable("no such host"), Code.UNKNOWN, "RegistryUnavailable: no such"),
        (ConnectionLost("slow"), Code.UNKNOWN, "RegistryUnavailable: slow"),
        (ImageRefused("unsigned"), Code.UNKNOWN, "SignatureValidationFailed: unsigned"),
    ],
)
def test_a_failed_pull_has_the_status_that_kubelet_knows(
    error: JaulaError, code: Code, begin: str
) -> None:
    with pytest.raises(GrpcError) as raised:
        pull(Engine(stored(), error=error), "busybox:1")
    assert raised.value.code is code
    assert raised.value.message.startswith(begin)


def test_a_removal_takes_all_names_and_can_be_repeated() -> None:
    engine = Engine()
    request = api_pb2.RemoveImageRequest(image=spec(ID))
    call(engine, "RemoveImage", request, api_pb2.RemoveImageResponse)
    options = {"force": False, "noprune": False, "platforms": (), "all_names": True}
    assert engine.removed == [(ID, options)]
    engine.error = NotFound("No such image")
    call(engine, "RemoveImage", request, api_pb2.RemoveImageResponse)
    engine.error = Conflict("image is being used by running container 1")
    with pytest.raises(GrpcError, match="being used") as raised:
        call(engine, "RemoveImage", request, api_pb2.RemoveImageResponse)
    assert raised.value.code is Code.FAILED_PRECONDITION


def test_the_usage_of_both_file_systems_has_its_moment() -> None:
    reply = call(Engine(), "ImageFsInfo", api_pb2.ImageFsInfoRequest(), api_pb2.ImageFsInfoResponse)
    [images], [containers] = reply.image_filesystems, reply.container_filesystems
    assert images.fs_id.mountpoint == "/var/lib/jaula"
    assert (images.used_bytes.value, images.inodes_used.value) == (1 << 40, 77)
    assert (containers.fs_id.mountpoint, containers.used_bytes.value) == ("/data", 3)
    assert (images.timestamp, containers.timestamp) == (5, 4)


@pytest.mark.parametrize(
    ("handler", "known"), [("", True), ("jaula-userns", True), ("kata", False)]
)
def test_an_image_is_pulled_for_a_known_handler_only(handler: str, known: bool) -> None:
    engine = Engine(stored())
    request = api_pb2.PullImageRequest(
        image=api_pb2.ImageSpec(image="busybox:1", runtime_handler=handler)
    )
    if known:
        assert call(engine, "PullImage", request, api_pb2.PullImageResponse).image_ref == ID
        return
    with pytest.raises(GrpcError, match="the runtime handler 'kata' does not exist") as raised:
        call(engine, "PullImage", request, api_pb2.PullImageResponse)
    assert raised.value.code is Code.NOT_FOUND
    assert engine.pulls == []


@pytest.mark.parametrize(
    ("patterns", "pinned"),
    [
        ((), False),
        (("busybox:1",), True),
        (("docker.io/library/busybox:1",), True),
        (("busybox:2", "busybox"), False),
        (("docker.io/library/*",), True),
        (("busybox*",), False),  # the beginning of a full name
        (("localhost:5000/team/*",), True),
        (("localhost:5000/team/other*",), False),
        (("*",), True),
        ((f"busybox@{MANIFEST}",), True),
    ],
)
def test_a_pinned_image_is_named_in_the_configuration(
    patterns: tuple[str, ...], pinned: bool
) -> None:
    assert is_pinned((*NAMES, f"busybox@{MANIFEST}"), patterns) is pinned
    assert not is_pinned((), patterns)


@pytest.mark.parametrize(
    ("error", "code", "begin"),
    [
        (ImageRefused("unsigned"), Code.UNKNOWN, "SignatureValidationFailed: unsigned"),
        (ImageMountFailed("no path"), Code.UNKNOWN, "ImageVolumeMountFailed: no path"),
        (InvalidRequest("bad"), Code.INVALID_ARGUMENT, "bad"),
        (NotAuthorized("no"), Code.PERMISSION_DENIED, "no"),
    ],
)
def test_a_container_without_its_images_has_the_error_that_kubelet_knows(
    error: JaulaError, code: Code, begin: str
) -> None:
    failure = container_error(error)
    assert (failure.code, failure.message) == (code, begin)


# -- hostile messages ----------------------------------------------------------------------------


class _Stream:
    """A call that has sent some bytes."""

    def __init__(self, *messages: bytes) -> None:
        self.headers: dict[str, str] = {}
        self._messages = list(messages)

    async def receive(self) -> bytes | None:
        return self._messages.pop(0) if self._messages else None


def answer(name: str, data: bytes) -> list[Any] | Exception:
    """Return the responses of a method to raw bytes, or the error that the client would get."""
    method: Method = ImageService(Engine(stored())).methods()[IMAGES + name]
    stream: Any = _Stream(data)

    async def run() -> list[Any]:
        return [message async for message in method.responses(Call(stream, method.decode))]

    try:
        responses = asyncio.run(run())
    except (GrpcError, JaulaError) as error:
        return error
    for response in responses:
        response.SerializeToString()
    return responses


METHODS = sorted(path.removeprefix(IMAGES) for path in ImageService(Engine()).methods())
REQUESTS: dict[str, type[Any]] = {
    "ImageStatus": api_pb2.ImageStatusRequest,
    "PullImage": api_pb2.PullImageRequest,
    "RemoveImage": api_pb2.RemoveImageRequest,
}
_references = st.one_of(
    st.text(max_size=300),
    st.text(alphabet="abA019.:/@-_sh256", max_size=100),
    st.sampled_from(["busybox:1", ID, f"a:b@{MANIFEST}", "\x00", "[::1]:5/a", "a" * 5000]),
)
_specs = st.builds(
    api_pb2.ImageSpec,
    image=_references,
    annotations=st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=3),
    user_specified_image=_references,
    runtime_handler=st.text(max_size=20),
    image_ref=_references,
)


def test_the_methods_are_those_of_the_interface() -> None:
    service = api_pb2.DESCRIPTOR.services_by_name["ImageService"]
    assert sorted(method.name for method in service.methods) == METHODS


@given(name=st.sampled_from(METHODS), data=st.binary(max_size=200))
def test_any_bytes_get_a_response_or_one_error(name: str, data: bytes) -> None:
    answer(name, data)


@given(name=st.sampled_from(sorted(REQUESTS)), image=_specs)
def test_any_image_gets_a_response_or_one_error(name: str, image: api_pb2.ImageSpec) -> None:
    answer(name, REQUESTS[name](image=image).SerializeToString())


@given(image=_specs)
def test_any_filter_gets_a_response_or_one_error(image: api_pb2.ImageSpec) -> None:
    request = api_pb2.ListImagesRequest(filter=api_pb2.ImageFilter(image=image))
    answer("ListImages", request.SerializeToString())
    answer("StreamImages", request.SerializeToString())


@given(
    auth=st.builds(
        api_pb2.AuthConfig,
        **dict.fromkeys(
            ("username", "password", "auth", "server_address", "identity_token", "registry_token"),
            st.text(max_size=50),
        ),
    )
)
def test_any_credentials_are_passed_unchanged(auth: api_pb2.AuthConfig) -> None:
    passed = decode_auth(api_pb2.PullImageRequest(auth=auth))
    assert passed is not None
    assert all(getattr(passed, f.name) == getattr(auth, f.name) for f in auth.DESCRIPTOR.fields)
