"""Options of a build: the parsed query of ``POST /build``.

Source: Docker Engine API 1.45, ``ImageBuild``. jaula's own parameters: ``session``
(:mod:`.build_session`), ``progress``, ``allow`` and ``buildcontexts``.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from jaula.spec.api import HostConfig, RegistryAuth


class BuildOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of one build.

    ``host`` holds the limits and modes of all RUN steps. A build argument with value None is unset.
    ``names`` are the image's names. ``dockerfile`` is '' for the default name. ``remote`` is the
    address of the context if the body does not hold it. ``steps`` requests progress messages for
    each step. ``allow`` lists entitlements, as ``docker buildx build --allow`` does. ``contexts``
    maps the name of a further context to ``docker-image://NAME`` or an address, or to '' for a
    directory of the client.
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
    """``all`` includes the cache that images share; ``keep`` is the number of bytes to keep."""

    all: bool = False
    keep: int = 0
    filters: dict[str, list[str]] = {}
