"""Resolve, authorise and check a create request. Nothing is created."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from jaula import feature
from jaula.engine.containers import named_references, presets, validate
from jaula.engine.containers.image_config import merge_image_config
from jaula.engine.containers.resolved_request import resolve
from jaula.engine.model.container_store import check_name
from jaula.engine.oci_spec import spec_resources
from jaula.engine.userns.id_ranges import with_keep_id_user
from jaula.engine.volumes import mount_spec
from jaula.errors import InvalidRequest, NotFound
from jaula.images import image_platform
from jaula.images.reference import index_name
from jaula.spec.image_documents import ImageConfig, Platform

if TYPE_CHECKING:
    from jaula.engine.containers.bounds import Authorize, Bounds
    from jaula.engine.model.services import Services
    from jaula.engine.networks.endpoints import NetworkEndpoints
    from jaula.images.store.image_catalog import Image
    from jaula.spec.api_documents import ContainerCreate, LogConfig
    from jaula.spec.pod import PodContainerRequest
    from jaula.state.container_records import ResolvedRequest


class CreateRequest(NamedTuple):
    """A request that was authorised and checked. ``name`` is '' for one of the engine's choice."""

    body: ContainerCreate
    resolved: ResolvedRequest
    bounds: Bounds
    image: Image
    name: str
    networks: NetworkEndpoints
    pod: PodContainerRequest | None
    warnings: tuple[str, ...]


async def prepare(
    services: Services,
    body: ContainerCreate,
    name: str,
    platform: str | None,
    *,
    owner: tuple[str, int],
    authorize: Authorize,
    log: LogConfig | None,
    pod: PodContainerRequest | None,
) -> CreateRequest:
    """Return a request that was resolved once, authorised and checked.

    ``authorize`` is called with the result before anything is created, and before an absent image,
    container or secret is reported: a client that may not have the container learns nothing of
    them, and is not told to pull the image. Nothing is awaited from there on: the names are ids.

    :raises NotFound: when there is no such image.
    :raises Conflict: when the name is in use.
    :raises InvalidRequest: when the request is not valid for another reason.
    """
    validate.check_network_mode(body)
    body = _without_zeros(body)
    await presets.read_document(body.host_config)
    body = presets.apply(body, services.config.default_profile, services.host.landlock)
    body = with_keep_id_user(body, owner, rootless=services.host.rootless)
    if not body.image:
        raise InvalidRequest("config cannot be empty in order to create a container")
    requested = image_platform.parse_platform(platform)
    image = _find_image(services, body.image, requested)
    config = ImageConfig() if isinstance(image, NotFound) else image.config
    merged = merge_image_config(body, config)
    merged = msgspec.structs.replace(
        merged, host_config=named_references.with_ids(services, merged.host_config)
    )
    resolved = resolve(
        merged,
        lambda ref: named_references.container_id(services, ref),
        services.engine_sockets.is_engine_socket,
    )
    if log is not None:
        resolved = msgspec.structs.replace(resolved, log=log)
    if pod is not None:
        requests = mount_spec.with_pod_mounts(resolved.mounts, pod.mounts)
        resolved = msgspec.structs.replace(resolved, mounts=requests)
        limits = spec_resources.with_pod_limits(resolved.pod_resources, pod, services.host)
        resolved = msgspec.structs.replace(resolved, pod_resources=limits)
    bounds = authorize(merged, resolved)
    named_references.check_containers(services, resolved)
    if merged.host_config.secrets or merged.host_config.configs:
        feature.require("secrets", "a container with secrets or configs")
    merged = services.hooks.request_completed(services, merged, resolved)
    if joined := resolved.namespaces.net.container:
        domain = services.container_store.find(joined).record.body.domainname
        merged = msgspec.structs.replace(merged, domainname=domain)
    if name:
        name = check_name(name)
        services.container_store.check_free(name)
    if isinstance(image, NotFound):
        raise image
    if pod is not None and index_name(pod.user_specified_image) not in (
        *image.names,
        *image.digests,
    ):
        pod = msgspec.structs.replace(
            pod, user_specified_image=""
        )  # its rule would be another image's
    services.image_policy.check_run(image, (pod.user_specified_image if pod else "") or body.image)
    networks = named_references.networks_of(services, merged)
    warnings = validate.check(services, merged, resolved)
    warnings = (*_platform_warnings(image, requested), *warnings)
    return CreateRequest(merged, resolved, bounds, image, name, networks, pod, warnings)


def _without_zeros(body: ContainerCreate) -> ContainerCreate:
    """Return the request without ``PidsLimit: 0``, which Docker's client sends for no option."""
    host = body.host_config
    if host.pids_limit != 0:
        return body
    return msgspec.structs.replace(body, host_config=msgspec.structs.replace(host, pids_limit=None))


def _platform_warnings(image: Image, requested: Platform | None) -> list[str]:
    """Return Docker's warning about an image for another platform that no request named."""
    if (
        requested is not None
        or not image.platform.architecture
        or image_platform.runs_here(image.platform)
    ):
        return []
    actual, host = map(image_platform.format_platform, (image.platform, image_platform.host()))
    warning = (
        f"The requested image's platform ({actual}) does not match the detected host platform "
        f"({host}) and no specific platform was requested"
    )
    return [warning]


def _find_image(services: Services, ref: str, platform: Platform | None) -> Image | NotFound:
    try:
        return services.images.resolve(ref, platform)
    except NotFound as error:
        return error
