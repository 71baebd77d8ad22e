"""Options of ``--storage-opt`` of the engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaula.config import EngineConfig, Paths
from jaula.daemon.config import storage
from jaula.errors import InvalidRequest, Unsupported


def layer_format(*options: str) -> object:
    settings: dict[str, object] = {"storage_opt": options}
    storage.normalize(settings)
    assert "storage_opt" not in settings
    return settings.get("layer_format", "directory")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "directory"),
        (("erofs=on",), "erofs"),
        (("verity=on",), "verity"),
        (("erofs=on", "verity=on"), "verity"),
        (("verity=true", "verity=off"), "directory"),
        (("overlay2.verity=on",), "verity"),
        (("overlay.erofs=ON",), "erofs"),
        (("erofs=off", "verity=false"), "directory"),
    ],
)
def test_the_last_value_of_each_option_counts(options: tuple[str, ...], expected: str) -> None:
    assert layer_format(*options) == expected


@pytest.mark.parametrize(
    "option", ["", "verity", "verity=", "verity=maybe", "size=10g", "=on", "dm.fs=xfs", "x" * 500]
)
def test_an_unknown_option_or_value_is_refused(option: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid storage option") as caught:
        layer_format(option)
    assert caught.value.hint == "write verity=on or erofs=on"
    assert len(caught.value.message) < 120


def test_a_rootless_engine_refuses_the_option_before_a_probe(tmp_path: Path) -> None:
    config = EngineConfig(paths=Paths(tmp_path / "root"), layer_format="verity")
    with pytest.raises(Unsupported, match="--storage-opt verity=on is not possible for a rootless"):
        storage.layer_format(config, rootless=True)
    assert not (tmp_path / "root").exists()
    assert storage.layer_format(EngineConfig(), rootless=True) == "directory"


@pytest.mark.parametrize("name", ["btrfs", "vfs"])
def test_a_driver_that_copies_layers_is_refused(name: str) -> None:
    class Driver:
        pass

    driver = Driver()
    driver.name = name  # type: ignore[attr-defined]
    with pytest.raises(Unsupported, match=f"{name} copies the layers"):
        storage.check_driver(EngineConfig(layer_format="erofs"), driver)  # type: ignore[arg-type]
    assert storage.check_driver(EngineConfig(), driver) is driver  # type: ignore[arg-type]
