"""Under which key a step's outcome is kept: the digest of everything that it depends on. Pure.

Nothing in a key is a time, a path of the host or the place of an instruction in its file. What a
program sees is in it (files, variables, user, directory), what it cannot see is not: a label that
changes makes no RUN run again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from jaula.engine.builder.image_state import ImageState

_VERSION = "1"
"""Changes whenever the same input comes to another outcome, so that old steps are not found."""


def _digest(kind: str, parts: Sequence[Any]) -> str:
    data = msgspec.json.encode([_VERSION, kind, *parts], order="deterministic")
    return hashlib.sha256(data).hexdigest()


def of_layers(diff_ids: Sequence[str]) -> str:
    """One name for a stack of layers."""
    return "sha256:" + _digest("layers", diff_ids)


def of_run(
    state: ImageState,
    command: Sequence[str],
    *,
    flags: Sequence[str],
    environment: Sequence[str],
    mounted: Sequence[str],
    network: str,
    hosts: Sequence[str],
    epoch: int | None,
) -> str:
    """A RUN; ``mounted`` are digests of what is mounted and can be read."""
    config = state.config
    parts = (state.diff_ids, _platform(state), command, flags, environment)
    return _digest(
        "run", (*parts, config.user, config.working_dir, mounted, network, sorted(hosts), epoch)
    )


def of_copy(
    state: ImageState, text: str, content: Sequence[str], *, link: bool, epoch: int | None
) -> str:
    """A COPY or ADD; ``content`` are digests of what is taken, ``link``: whatever is below."""
    below = () if link else state.diff_ids
    return _digest("copy", (below, state.config.working_dir, text, content, link, epoch))


def of_directory(state: ImageState, path: str, epoch: int | None) -> str:
    """The directory that a WORKDIR makes."""
    return _digest("directory", (state.diff_ids, path, epoch))


def of_change(state: ImageState, text: str) -> str:
    """An instruction that changes nothing but the configuration."""
    return _digest("change", (state.diff_ids, _platform(state), _config(state), text))


def owned(key: str, owner: str) -> str:
    """A key among those of whoever builds."""
    return _digest("owned", (key, owner))


def _config(state: ImageState) -> Any:
    return msgspec.to_builtins(state.config)


def _platform(state: ImageState) -> Mapping[str, str]:
    found: Mapping[str, str] = msgspec.to_builtins(state.platform)
    return found
