"""Images as archives: the ways in and out.

* :func:`load`: a Docker archive or an OCI layout in a tar (:mod:`jaula.images.archive.load`).
* :func:`save`: an archive that docker, podman and skopeo read as either
  (:mod:`jaula.images.archive.save`).
* :func:`import_tar`: a file system as a new image (:mod:`jaula.images.archive.import_`).
"""

from __future__ import annotations

from jaula.images.archive.import_ import import_tar
from jaula.images.archive.load import load
from jaula.images.archive.save import save

__all__ = ["import_tar", "load", "save"]
