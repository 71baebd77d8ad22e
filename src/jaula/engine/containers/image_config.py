"""The configuration of an image, merged into a create request (moby ``daemon.merge``). Pure."""

from __future__ import annotations

import posixpath

import msgspec

from jaula.engine.containers import health
from jaula.engine.oci_spec.start_spec import merge_environment
from jaula.spec.api_documents import ContainerCreate
from jaula.spec.decode import Empty
from jaula.spec.image_documents import ImageConfig


def merge_image_config(body: ContainerCreate, image: ImageConfig) -> ContainerCreate:
    """Return the request, completed with the image's configuration (moby ``daemon.merge``).

    A request's entry point drops the image's command. Variables, labels, ports and volumes of both
    are joined.

    :raises InvalidRequest: when a variable has no name.
    """
    entrypoint, cmd = body.entrypoint, body.cmd
    if not cmd and not entrypoint:
        cmd = image.cmd
    if entrypoint is None:
        entrypoint = image.entrypoint or None
    elif entrypoint == ("",):
        entrypoint = None  # "--entrypoint ''" resets the image's
    return msgspec.structs.replace(
        body,
        env=_merge_env(body.env, image.env),
        cmd=cmd,
        entrypoint=entrypoint,
        working_dir=_clean(body.working_dir or image.working_dir),
        user=body.user or image.user,
        labels={**image.labels, **body.labels},
        exposed_ports={**dict.fromkeys(image.exposed_ports, Empty()), **body.exposed_ports},
        volumes={**dict.fromkeys(image.volumes, Empty()), **body.volumes},
        stop_signal=body.stop_signal or image.stop_signal,
        shell=body.shell or image.shell,
        healthcheck=health.merge_image_healthcheck(body.healthcheck, image.healthcheck),
    )


def _clean(path: str) -> str:
    """Return a path as Go's ``filepath.Clean`` does; the empty one stays empty."""
    if not path:
        return ""
    plain = posixpath.normpath(path)
    return "/" + plain.lstrip("/") if path.startswith("/") else plain


def _merge_env(own: tuple[str, ...], image: tuple[str, ...]) -> tuple[str, ...]:
    """Return the request's variables in its order, then the image's that it does not name."""
    merged = merge_environment((), (*image, *own))
    by_name = {entry.partition("=")[0]: entry for entry in merged}
    order = dict.fromkeys(entry.partition("=")[0] for entry in (*own, *image))
    return tuple(by_name[name] for name in order if name in by_name)
