"""Pull modes and forms of layers that an engine can have together."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jaula.config import EngineConfig, Paths
from jaula.daemon.create_engine import _lazy_layers
from jaula.errors import InvalidRequest
from jaula.storage.layers.layer_store import LayerFormat, LayerStore

OVERLAY: Any = SimpleNamespace(name="overlay")


def mode(directory: Path, format: LayerFormat) -> object:
    paths = Paths(directory / "root", directory / "run")
    config = EngineConfig(paths=paths, pull_mode="lazy")
    return _lazy_layers(config, LayerStore(paths, format=format), OVERLAY, rootless=False)


def test_lazy_pulls_need_layers_without_fs_verity(tmp_path: Path) -> None:
    assert mode(tmp_path, "directory") is not None
    assert mode(tmp_path, "erofs") is not None
    with pytest.raises(InvalidRequest, match="not possible with verity=on"):
        mode(tmp_path, "verity")
