"""The image's configuration below the request's: what a container's configuration is made of.

Source: moby ``runconfig`` merge rules (``daemon.merge``), as images expect them: a request's
entry point drops the image's command; variables, labels, ports and volumes are joined.
"""

from __future__ import annotations

import msgspec

from jaula.engine.containers import health
from jaula.engine.oci_spec.process import merge_environment
from jaula.spec.api import ContainerCreate
from jaula.spec.decoding import Empty
from jaula.spec.image import ImageConfig


def merge(body: ContainerCreate, image: ImageConfig) -> ContainerCreate:
    """The request with the image's values where it has none.

    :raises InvalidRequest: a variable without a name.
    """
    entrypoint, cmd = body.entrypoint, body.cmd
    if not cmd and not entrypoint:
        cmd = image.cmd or None
    if entrypoint is None:
        entrypoint = image.entrypoint or None
    elif entrypoint == ("",):
        entrypoint = ()  # "--entrypoint ''" resets the image's
    return msgspec.structs.replace(
        body,
        env=_environment(body.env, image.env),
        cmd=cmd,
        entrypoint=entrypoint,
        working_dir=body.working_dir or image.working_dir,
        user=body.user or image.user,
        labels={**image.labels, **body.labels},
        exposed_ports={**dict.fromkeys(image.exposed_ports, Empty()), **body.exposed_ports},
        volumes={**dict.fromkeys(image.volumes, Empty()), **body.volumes},
        stop_signal=body.stop_signal or image.stop_signal,
        shell=body.shell or image.shell,
        healthcheck=health.merge_image_healthcheck(body.healthcheck, image.healthcheck),
    )


def _environment(own: tuple[str, ...], image: tuple[str, ...]) -> tuple[str, ...]:
    """The request's variables in its order, then the image's that it does not name."""
    merged = merge_environment((), (*image, *own))
    by_name = {entry.partition("=")[0]: entry for entry in merged}
    order = dict.fromkeys(entry.partition("=")[0] for entry in (*own, *image))
    return tuple(by_name[name] for name in order if name in by_name)
