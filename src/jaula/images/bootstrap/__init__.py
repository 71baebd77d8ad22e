"""Build images on this machine from its own package mirror, for hosts that reach no registry.

* ``busybox``: Debian's ``busybox-static``, its applets as hard links in ``/bin``.
* ``debian[:suite]`` and ``ubuntu[:suite]``: ``mmdebstrap --variant=minbase`` with apt, plus
  ``iputils-ping`` and ``procps``, which are useful in a first container. The default suite is the
  host's own if the host runs that distribution, else a current stable one.

The result is an archive that ``docker load`` reads too. Two builds from the same packages give the
same image id: entries are in order, files that identify this machine are removed, and times are
clamped to ``SOURCE_DATE_EPOCH`` (reproducible-builds.org). Its default is the modification time of
the program for busybox, and the time of the mirror's index for the distributions.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from jaula.errors import InvalidRequest
from jaula.images.bootstrap.busybox import busybox
from jaula.images.bootstrap.debian import debian, ubuntu

Progress = Callable[[str], None]

RECIPES: dict[str, Callable[[str, Path, Path, Progress], str]] = {
    "busybox": busybox,
    "debian": debian,
    "ubuntu": ubuntu,
}


def build(name: str, out: str | Path, progress: Progress = lambda line: None) -> str:
    """Build the image ``name`` (``debian:trixie``) as an archive at ``out``; return its reference.

    ``progress`` is called with a line for each step. ``out`` is unchanged on an error.

    :raises InvalidRequest: if no recipe has this name.
    :raises Unavailable: if the mirror or a required program is missing.
    """
    recipe_name, _, suite = name.partition(":")
    recipe = RECIPES.get(recipe_name)
    if recipe is None:
        raise InvalidRequest(
            f"there is no recipe for an image {name!r}", hint=f"one of {', '.join(RECIPES)}"
        )
    out = Path(out).absolute()
    with tempfile.TemporaryDirectory(prefix="jaula-bootstrap-", dir=out.parent) as scratch:
        archive = Path(scratch) / "image.tar"
        reference = recipe(suite, archive, Path(scratch), progress)
        os.replace(archive, out)
    return reference
