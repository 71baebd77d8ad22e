"""Debug sessions that begin at the same time: their launchers."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jaula.engine.containers import launchers
from jaula.errors import NotFound
from jaula.features.debug import debug_session


def test_a_session_does_not_remove_the_unfinished_launchers_of_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def make(machine: object, directory: Path, *_: object) -> bool:
        new = directory.with_name(f"{directory.name}.1.new")
        new.mkdir()
        time.sleep(0.05)
        (new / "launcher").write_text("launcher")
        new.rename(directory)
        made.append(directory.name)
        return True

    def resolve(ref: str) -> None:
        if ref not in ("sha256:one", "sha256:two"):
            raise NotFound(ref)

    monkeypatch.setattr(launchers, "make", make)
    services: Any = SimpleNamespace(images=SimpleNamespace(resolve=resolve))
    cache = tmp_path / "launchers"
    cache.mkdir()
    (cache / "gone").mkdir()

    def begin(image: str) -> None:
        debug_session._make_launchers(services, cache / image, -1, ())

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(begin, image) for image in ("one", "two", "one", "two")]:
            future.result()
    assert sorted(made) == ["one", "two"]
    assert sorted(path.name for path in cache.iterdir()) == ["one", "two"]
    shutil.rmtree(cache)
