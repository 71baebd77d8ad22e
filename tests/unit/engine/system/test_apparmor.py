"""The engine's profile is loaded once, and one that is loaded stays as it is."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from jaula.engine.system import apparmor_load
from jaula.security.lsm import apparmor_profile, detect

Profiles = dict[str, str]


class Kernel:
    """The kernel's profiles and apparmor_parser, which ``fails`` with that text."""

    def __init__(self) -> None:
        self.label = "unconfined"
        self.profiles: Profiles | None = {}
        self.runs: list[tuple[list[str], str]] = []
        self.fails = ""
        self.other_engine = ""  # what another engine loads first

    def run(self, words: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert self.profiles is not None
        text = options["input"]
        self.runs.append((words, text))
        if self.other_engine:
            self.profiles[self.other_engine] = "enforce"
        if self.fails:
            return subprocess.CompletedProcess(words, 1, "", f"first\n{self.fails}\n")
        self.profiles[text.split()[1]] = "enforce"
        return subprocess.CompletedProcess(words, 0, "", "")

    def load(self) -> str:
        return apparmor_load.load(apparmor_profile.loaded_name(self.label))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(detect, "apparmor", lambda: True)
    monkeypatch.setattr(detect, "apparmor_profiles", lambda: made.profiles)
    monkeypatch.setattr(detect, "apparmor_current", lambda: made.label)
    monkeypatch.setattr(subprocess, "run", made.run)
    return made


def test_each_label_loads_a_profile_of_its_own_once(kernel: Kernel) -> None:
    for label in ("unconfined", "zone", "unconfined", "zone"):
        kernel.label = label
        assert kernel.load() == ""
    assert len(kernel.runs) == len(kernel.profiles or ()) == 2
    for (words, text), label in zip(kernel.runs, ("unconfined", "zone"), strict=True):
        name = apparmor_profile.loaded_name(label)
        assert text == apparmor_profile.text(name, engine=label)
        assert name in (kernel.profiles or ())
        assert "--replace" not in words


def test_a_profile_that_another_engine_has_just_loaded_is_used(kernel: Kernel) -> None:
    kernel.fails = "Profile already exists"
    kernel.other_engine = apparmor_profile.loaded_name(kernel.label)
    assert kernel.load() == ""


def test_a_failure_is_reported(kernel: Kernel) -> None:
    kernel.fails = "no permission"
    kernel.other_engine = "jaula-default"
    name = apparmor_profile.loaded_name(kernel.label)
    assert kernel.load() == (
        f"the AppArmor profile {name} is not loaded: apparmor_parser failed: no permission"
    )
    kernel.profiles = None
    assert "cannot be read" in kernel.load()
