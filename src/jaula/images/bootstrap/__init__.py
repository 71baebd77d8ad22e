"""Images made on this machine from its own package mirror, for hosts that reach no registry.

* ``busybox``: Debian's ``busybox-static``, its applets as hard links in ``/bin``.
* ``debian[:suite]`` and ``ubuntu[:suite]``: ``mmdebstrap --variant=minbase`` with apt, plus
  ``iputils-ping`` and ``procps``, which a first look at a container wants. Without a suite it is
  the host's own where the host is that distribution, else a current stable one.

The result is an archive that ``docker load`` reads too. Two builds from the same packages give the
same image id: entries are in order, what identifies this machine is taken out, and times are
clamped to ``SOURCE_DATE_EPOCH`` (reproducible-builds.org). Where that is not set it is the
program's own time for busybox, and the time of the mirror's index for the others.
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
    """Build the image ``name`` (``debian:trixie``) as an archive at ``out``; its main reference.

    ``progress`` is told of each step. Raises :class:`InvalidRequest` for a name without a recipe,
    ``Unavailable`` where the mirror or a needed program is missing; ``out`` is then as it was.
    """
    recipe_name, _, suite = name.partition(":")
    recipe = RECIPES.get(recipe_name)
    if recipe is None:
        raise InvalidRequest(
            f"there is no recipe for an image {name!r}", hint=f"there are {', '.join(RECIPES)}"
        )
    out = Path(out).absolute()
    with tempfile.TemporaryDirectory(prefix="jaula-bootstrap-", dir=out.parent) as scratch:
        made = Path(scratch) / "image.tar"
        reference = recipe(suite, made, Path(scratch), progress)
        os.replace(made, out)
    return reference
