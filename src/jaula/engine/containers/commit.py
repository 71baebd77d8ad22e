"""``docker commit``: create an image from a container's files and configuration.

Follows the Docker Engine API 1.45, ``ImageCommit``: the new image has the layers of the container's
image and one layer with the changes. It has the container's configuration with the request's
changes. Volumes and mount points that a start creates are not part of it.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.parsers import in_text_thread
from jaula.engine.threads import in_request_thread, in_thread
from jaula.errors import InvalidRequest, JaulaError, NotFound
from jaula.images.dockerfile.apply_instructions import apply
from jaula.images.dockerfile.budget import BuildBudget
from jaula.images.reference import join_name, parse
from jaula.request_context import check_client
from jaula.spec.image_documents import (
    LAYER_TAR,
    Descriptor,
    Healthcheck,
    History,
    ImageConfig,
    encode,
)
from jaula.storage.layers.layer_store import WrittenTar

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.images.store.image_quota import Quota
    from jaula.images.store.image_store import Image
    from jaula.spec.api_documents import ContainerCreate
    from jaula.spec.api_params import CommitOptions
    from jaula.state.container_records import ContainerRecord


async def commit(
    services: Services,
    container: Container,
    options: CommitOptions,
    freeze: Callable[[Container], AbstractAsyncContextManager[None]],
    quota: Quota,
) -> str:
    """Create the image and return its id; ``freeze`` freezes the container if it runs.

    :raises InvalidRequest: when a change or the name is not valid.
    :raises ClientGone: when the client of the request left before the layer was written.
    :raises NotAuthorized: when the quota does not allow the image.
    :raises Unsupported: when the container cannot be paused.
    """
    before = configuration(container.record.body, options.config)
    config = await in_text_thread(
        quota.owner, BuildBudget(), lambda: apply(before, options.changes)
    )
    if options.tag and not options.repo:
        raise InvalidRequest("a tag needs a repository (repo)")
    name = join_name(options.repo, options.tag)
    if name:
        name = str(parse(name))
    if services.lazy_layers is not None:  # the content of what the image names is verified
        parent = services.images.resolve(container.record.image)
        await in_request_thread(partial(services.images.wait_whole, parent))
    async with container.lock:  # it must be neither started nor removed during the commit
        if container.id not in services.container_store:
            raise NotFound(f"No such container: {container.name}")
        try:
            async with freeze(container) if options.pause else contextlib.nullcontext():
                image = await in_thread(
                    _make, services, container.record, config, name or None, options, quota
                )
        except JaulaError:
            await in_thread(services.images.collect)  # what was written
            raise
    attributes = {"comment": options.comment, "imageID": image.id, "imageRef": name}
    services.events.emit(
        "container", "commit", container.id, container.record.event_attributes | attributes
    )
    if name:
        services.events.emit("image", "tag", image.id, {"name": name})
    return image.id


def configuration(body: ContainerCreate, overrides: ContainerCreate | None) -> ImageConfig:
    """Return the configuration of the new image: the request's values before the container's."""
    base = _config(body)
    if overrides is None:
        return base
    requested = _config(overrides)
    changes = {
        field: value
        for field in ImageConfig.__struct_fields__
        if (value := getattr(requested, field)) not in ((), {}, "", None, False)
    }
    env = dict(variable.partition("=")[::2] for variable in (*base.env, *requested.env))
    changes["env"] = tuple(f"{key}={value}" for key, value in env.items())
    changes["labels"] = base.labels | requested.labels
    changes["exposed_ports"] = base.exposed_ports | requested.exposed_ports
    changes["volumes"] = base.volumes | requested.volumes
    return msgspec.structs.replace(base, **changes)


def _config(body: ContainerCreate) -> ImageConfig:
    check = body.healthcheck
    return ImageConfig(
        user=body.user,
        exposed_ports={port: {} for port in body.exposed_ports},
        env=body.env,
        entrypoint=body.entrypoint or (),
        cmd=body.cmd,
        volumes={path: {} for path in body.volumes},
        working_dir=body.working_dir,
        labels=body.labels,
        stop_signal=body.stop_signal,
        healthcheck=Healthcheck(**msgspec.structs.asdict(check)) if check is not None else None,
        on_build=body.on_build,
        shell=body.shell,
    )


def _make(
    services: Services,
    record: ContainerRecord,
    config: ImageConfig,
    name: str | None,
    options: CommitOptions,
    quota: Quota,
) -> Image:
    """Write the layer as a blob, unpack it and add the image's documents. Runs in a thread."""
    store = services.images
    names = [name] if name else []
    created = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    with store.pinned_image(record.image) as parent, store.blobs.writer() as blob:
        descriptors = list(store.manifest(parent).layers)
        base = parent.document
        diff_ids = list(base.rootfs.diff_ids)

        def write(data: bytes | memoryview) -> None:
            check_client()
            blob.write(data)

        changed = services.snapshots.write_layer(record.id, dict, write)
        check_client()
        with store.lease((blob.digest,)):
            if changed:
                diff_id = blob.digest
                store.layers.extract_own(WrittenTar(blob.file, diff_id))
                size = blob.size
                blob.commit()
                descriptors.append(Descriptor(LAYER_TAR, diff_id, size))
                diff_ids.append(diff_id)
            step = History(
                created=created,
                created_by=" ".join(record.body.cmd or ()),
                author=options.author,
                comment=options.comment,
                empty_layer=not changed,
            )
            config_document = msgspec.structs.replace(
                base,
                created=created,
                author=options.author,
                comment=options.comment,
                config=config,
                rootfs=msgspec.structs.replace(base.rootfs, diff_ids=tuple(diff_ids)),
                history=(*base.history, step),
            )
            return store.add(encode(config_document), descriptors, names, quota)
