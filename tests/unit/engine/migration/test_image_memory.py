"""The memory that the images of a migration may have."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from jaula.features.migration import host_compatibility, image_memory
from jaula.features.migration.image_memory import ImageMemory, choose_image_memory, received_sizes

MIB = 1 << 20


@pytest.mark.parametrize(
    ("size", "available", "expected"),
    [
        (1024 * MIB, 8192 * MIB, (8192 - 256) * MIB),
        (1024 * MIB, (256 + 1024 + 128 + 64) * MIB, (1024 + 128 + 64) * MIB),
        (1024 * MIB, (256 + 1024 + 128 + 63) * MIB, 0),
        (0, 256 * MIB, 0),
        (0, 320 * MIB, 64 * MIB),
        (1024 * MIB, 0, 0),
    ],
)
def test_images_are_in_memory_if_it_has_room_for_them(
    size: int, available: int, expected: int
) -> None:
    assert choose_image_memory(size, available) == expected


def test_migrations_at_the_same_time_share_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_compatibility, "available_memory", lambda: 2560 * MIB)
    monkeypatch.setattr(image_memory, "_cgroup_room", lambda: 8192 * MIB)
    facts: Any = SimpleNamespace(selinux=False)
    memory = ImageMemory()
    assert memory.reserve(facts, "a", 1024 * MIB) == (2560 - 256) * MIB
    assert memory.reserve(facts, "b", 1280 * MIB) == 0
    assert memory.reserve(facts, "c", 512 * MIB) == (2560 - 1024 - 256) * MIB
    memory.release("a")
    memory.release("b")  # had none
    memory.release("c")
    assert memory.reserve(facts, "b", 1280 * MIB) > 0


def test_images_are_on_the_disk_with_selinux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_compatibility, "available_memory", lambda: 4096 * MIB)
    facts: Any = SimpleNamespace(selinux=True)
    assert ImageMemory().reserve(facts, "a", MIB) == 0


def test_the_limit_of_the_engines_cgroup_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_compatibility, "available_memory", lambda: 4096 * MIB)
    monkeypatch.setattr(image_memory, "_cgroup_room", lambda: 300 * MIB)
    facts: Any = SimpleNamespace(selinux=False)
    assert ImageMemory().reserve(facts, "a", MIB) == 0


@pytest.mark.parametrize(
    ("memory", "rounds", "least", "most"),
    [
        (0, 0, 64, 512),
        (1024, 0, 1024 + 128 + 64, 2560),
        (1024, 3, 1024 + 128 + 64, 5632),
        (1024, 16, 1024 + 128 + 64, 18944),
        (1024, 10**9, 1024 + 128 + 64, 18944),
        (-1, -5, 64, 512),
    ],
)
def test_the_size_of_received_images_depends_on_the_offer(
    memory: int, rounds: int, least: int, most: int
) -> None:
    assert received_sizes(memory * MIB, rounds) == (least * MIB, most * MIB)
