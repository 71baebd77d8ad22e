"""Images as archives: the three ways in and out.

* :func:`load`: a Docker archive or an OCI layout in a tar (:mod:`jaula.images.loading`).
* :func:`save`: one archive that docker, podman and skopeo read as either (:mod:`jaula.images.saving`).
* :func:`import_tar`: a file system as a new image (:mod:`jaula.images.importing`).
"""

from __future__ import annotations

from jaula.images.loading import load

__all__ = ["load"]
