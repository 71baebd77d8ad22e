"""The environment of the observer and of the commands that the engine runs."""

from __future__ import annotations

import pytest

from jaula.features.verify.diagnostics.observer import environment
from jaula.rootless.xdg_paths import ROOTLESS_ENV


def test_a_child_knows_the_user_of_a_rootless_engine_and_no_other_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ROOTLESS_ENV, "1000")
    monkeypatch.setenv("JAULA_HOST", "unix:///run/other.sock")
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/other.sock")
    kept = environment()
    assert kept[ROOTLESS_ENV] == "1000"
    assert not {"JAULA_HOST", "DOCKER_HOST"} & set(kept)
