"""What is asked of a build: the query of ``POST /build``, read.

Source: Docker Engine API 1.45, ``ImageBuild``. Our own: ``session`` (:mod:`.buildsession`),
``progress``, ``allow`` and ``buildcontexts``.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from jaula.spec.api import HostConfig, RegistryAuth


class BuildOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``host`` holds the limits and modes of all RUN steps; None of a build argument unsets it.

    ``names`` are those that the image gets; ``dockerfile`` is '' for the usual name. ``remote`` is
    where the context comes from if it is not the body. ``steps`` asks for messages about each step.
    ``allow`` are entitlements, as of ``docker buildx build --allow``. ``contexts`` are further
    contexts: name to ``docker-image://NAME`` or an address, or '' for a directory of the client's.
    """

    names: tuple[str, ...] = ()
    dockerfile: str = ""
    remote: str = ""
    target: str = ""
    platform: str = ""
    build_args: Mapping[str, str | None] = {}
    labels: Mapping[str, str] = {}
    cache_from: tuple[str, ...] = ()
    no_cache: bool = False
    pull: bool = False
    quiet: bool = False
    squash: bool = False
    steps: bool = False
    host: HostConfig = HostConfig()
    auths: Mapping[str, RegistryAuth] = {}
    session: str = ""
    build_id: str = ""
    allow: tuple[str, ...] = ()
    contexts: Mapping[str, str] = {}


class PruneOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``all``: what images share as well. ``keep`` is the number of bytes that may stay."""

    all: bool = False
    keep: int = 0
    filters: dict[str, list[str]] = {}
