"""Images as archives: the ways in and out.

* :func:`load`: a Docker archive or an OCI layout in a tar (:mod:`jaula.images.loading`).
* :func:`save`: an archive that docker, podman and skopeo read as either
  (:mod:`jaula.images.saving`).
* :func:`import_tar`: a file system as a new image (:mod:`jaula.images.importing`).
"""

from __future__ import annotations

from jaula.images.importing import import_tar
from jaula.images.loading import load
from jaula.images.saving import save

__all__ = ["import_tar", "load", "save"]
